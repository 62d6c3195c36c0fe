//! What an alert is, in the store and on the wire.

use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};
use model::event::CloudEvent;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::rules::Severity;

/// Type of the event of an alert that started, or whose title, severity or impact changed while it goes on.
pub const FIRING_EVENT: &str = "io.andon.alert.firing";
/// Type of the event of an alert that ended.
pub const RESOLVED_EVENT: &str = "io.andon.alert.resolved";

/// Whether it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The rule returns its row.
    Firing,
    /// It no longer does.
    Resolved,
}

impl State {
    /// As events and the store write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

/// Why an alert ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The row left the rule's result.
    RowLeft,
    /// The row was gone when alerting came back; when it left is not known.
    RowGoneAtStart,
    /// The rule was removed or disabled.
    RuleRemoved,
}

impl Reason {
    /// As events and the store write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RowLeft => "row_left",
            Self::RowGoneAtStart => "row_gone_at_start",
            Self::RuleRemoved => "rule_removed",
        }
    }
}

/// An alert as it stands. Times are business time, milliseconds since 1970.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// Id, for the whole life of the alert.
    pub alert_id: Uuid,
    /// Name of the rule.
    pub rule: Arc<str>,
    /// The values of the key columns as a JSON object with sorted names: with the rule, the instance.
    pub key: Arc<str>,
    /// Of the rule, when last looked at.
    pub severity: Severity,
    /// Of the rule, when last looked at.
    pub owner: String,
    /// Firing or resolved.
    pub state: State,
    /// Rendered.
    pub title: String,
    /// The whole row; the last one for a resolved alert.
    pub row: Map<String, Value>,
    /// What is at stake, a decimal as text.
    pub impact: Option<String>,
    /// See [`crate::priority`].
    pub priority: f64,
    /// When the row appeared.
    pub fired_at_ms: i64,
    /// When the row left.
    pub resolved_at_ms: Option<i64>,
    /// Why it ended.
    pub reason: Option<Reason>,
    /// The engine's epoch that last changed it.
    pub epoch: u64,
    /// Whether it changed since its last event in a way that readers want to know.
    pub is_update_pending: bool,
}

/// One step in the life of an alert, ready to be published.
#[derive(Debug, Clone, PartialEq)]
pub struct AlertEvent {
    /// Position in the order of all events, from 1.
    pub seq: i64,
    /// CloudEvents id.
    pub id: Uuid,
    /// The alert.
    pub alert_id: Uuid,
    /// Name of the rule.
    pub rule: Arc<str>,
    /// State after this step.
    pub state: State,
    /// Business time, milliseconds since 1970.
    pub at_ms: i64,
    /// The CloudEvent as JSON.
    pub body: String,
}

/// The `data` of an alert's CloudEvents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertData {
    /// Id of the alert.
    pub alert_id: Uuid,
    /// Name of the rule.
    pub rule: String,
    /// State after the event.
    pub state: State,
    /// Severity.
    pub severity: Severity,
    /// Owner of the rule.
    pub owner: String,
    /// Rendered title.
    pub title: String,
    /// The values of the key columns.
    pub key: Map<String, Value>,
    /// The whole row.
    pub row: Map<String, Value>,
    /// What is at stake, a decimal as text.
    pub impact: Option<String>,
    /// See [`crate::priority`].
    pub priority: f64,
    /// RFC 3339.
    pub fired_at: String,
    /// RFC 3339; null while firing.
    pub resolved_at: Option<String>,
    /// Why it ended; null while firing.
    pub reason: Option<Reason>,
    /// The engine's epoch.
    pub epoch: u64,
}

impl Alert {
    /// The event that tells of this alert as it stands.
    pub(crate) fn to_event(&self, seq: i64, at_ms: i64) -> AlertEvent {
        let id = Uuid::now_v7();
        let event_type = match self.state {
            State::Firing => FIRING_EVENT,
            State::Resolved => RESOLVED_EVENT,
        };
        let source = format!("/andon/rules/{}", self.rule);
        let mut event = CloudEvent::new(id.to_string(), source, event_type, rfc3339(at_ms), self.to_data());
        event.subject = Some(self.alert_id.to_string());
        let body = serde_json::to_string(&event).expect("maps with text keys always serialize");
        AlertEvent { seq, id, alert_id: self.alert_id, rule: Arc::clone(&self.rule), state: self.state, at_ms, body }
    }

    fn to_data(&self) -> AlertData {
        AlertData {
            alert_id: self.alert_id,
            rule: self.rule.to_string(),
            state: self.state,
            severity: self.severity,
            owner: self.owner.clone(),
            title: self.title.clone(),
            key: serde_json::from_str(&self.key).unwrap_or_default(),
            row: self.row.clone(),
            impact: self.impact.clone(),
            priority: self.priority,
            fired_at: rfc3339(self.fired_at_ms),
            resolved_at: self.resolved_at_ms.map(rfc3339),
            reason: self.reason,
            epoch: self.epoch,
        }
    }
}

/// RFC 3339 in UTC with milliseconds.
fn rfc3339(at_ms: i64) -> String {
    DateTime::<Utc>::from_timestamp_millis(at_ms)
        .unwrap_or(DateTime::UNIX_EPOCH)
        .to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The key as text: the same for the same values, whatever the order they came in.
pub(crate) fn canonical_key(key: &Map<String, Value>) -> Arc<str> {
    let sorted: std::collections::BTreeMap<&String, &Value> = key.iter().collect();
    Arc::from(serde_json::to_string(&sorted).expect("maps with text keys always serialize"))
}
