//! Rows of the tables and what they stand for.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::Error;
use crate::alert::Alert;

/// An event as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Position in the order of all events.
    pub seq: i64,
    /// CloudEvents id.
    pub event_id: Uuid,
    /// The alert.
    pub alert_id: Uuid,
    /// The CloudEvent as JSON.
    pub body: String,
}

#[derive(Debug, sqlx::FromRow)]
pub(super) struct AlertRow {
    pub(super) alert_id: String,
    pub(super) rule: String,
    pub(super) instance_key: String,
    pub(super) severity: String,
    pub(super) owner: String,
    pub(super) state: String,
    pub(super) title: String,
    pub(super) row_json: String,
    pub(super) impact: Option<String>,
    pub(super) priority: f64,
    pub(super) fired_at_ms: i64,
    pub(super) resolved_at_ms: Option<i64>,
    pub(super) reason: Option<String>,
    pub(super) epoch: i64,
    pub(super) is_update_pending: bool,
}

#[derive(Debug, sqlx::FromRow)]
pub(super) struct EventRow {
    seq: i64,
    event_id: String,
    alert_id: String,
    body: String,
}

impl AlertRow {
    pub(super) fn from_alert(alert: &Alert) -> Self {
        Self {
            alert_id: alert.alert_id.to_string(),
            rule: alert.rule.to_string(),
            instance_key: alert.key.to_string(),
            severity: alert.severity.as_str().to_owned(),
            owner: alert.owner.clone(),
            state: alert.state.as_str().to_owned(),
            title: alert.title.clone(),
            row_json: serde_json::Value::Object(alert.row.clone()).to_string(),
            impact: alert.impact.clone(),
            priority: alert.priority,
            fired_at_ms: alert.fired_at_ms,
            resolved_at_ms: alert.resolved_at_ms,
            reason: alert.reason.map(|r| r.as_str().to_owned()),
            epoch: i64::try_from(alert.epoch).unwrap_or(i64::MAX),
            is_update_pending: alert.is_update_pending,
        }
    }

    pub(super) fn into_alert(self) -> Result<Alert, Error> {
        let id = self.alert_id.clone();
        Ok(Alert {
            alert_id: uuid(&self.alert_id)?,
            rule: Arc::from(self.rule),
            key: Arc::from(self.instance_key),
            severity: word(&id, &self.severity)?,
            owner: self.owner,
            state: word(&id, &self.state)?,
            title: self.title,
            row: json(&id, &self.row_json)?,
            impact: self.impact,
            priority: self.priority,
            fired_at_ms: self.fired_at_ms,
            resolved_at_ms: self.resolved_at_ms,
            reason: self.reason.map(|r| word(&id, &r)).transpose()?,
            epoch: u64::try_from(self.epoch).unwrap_or_default(),
            is_update_pending: self.is_update_pending,
        })
    }
}

impl EventRow {
    pub(super) fn into_event(self) -> Result<StoredEvent, Error> {
        let Self { seq, event_id, alert_id, body } = self;
        Ok(StoredEvent { seq, event_id: uuid(&event_id)?, alert_id: uuid(&alert_id)?, body })
    }
}

fn uuid(text: &str) -> Result<Uuid, Error> {
    Uuid::parse_str(text)
        .map_err(|e| Error::Corrupt { alert_id: text.to_owned(), reason: format!("its id is no uuid: {e}") })
}

fn json<T: DeserializeOwned>(alert_id: &str, text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|e| Error::Corrupt { alert_id: alert_id.to_owned(), reason: e.to_string() })
}

fn word<T: DeserializeOwned>(alert_id: &str, text: &str) -> Result<T, Error> {
    serde_json::from_value(serde_json::Value::from(text))
        .map_err(|e| Error::Corrupt { alert_id: alert_id.to_owned(), reason: e.to_string() })
}
