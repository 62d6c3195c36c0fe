//! The content of the channel `alerts`: the firing alerts and those resolved last.

use std::cmp::Ordering;
use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use model::event::CloudEvent;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::hub::channel::{Content, Effect};
use crate::hub::lens::{Lens, LensSpec};
use crate::protocol::ErrorCode;
use crate::protocol::payload::one_line;

/// Resolved alerts that are kept and shown.
const RESOLVED_MAX: usize = 50;
/// Alerts that a snapshot shows, the most pressing first; the count beside them is complete.
const SNAPSHOT_ALERTS_MAX: usize = 1_000;

/// Whether an alert's cause is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AlertState {
    /// It is.
    Firing,
    /// It has passed.
    Resolved,
}

/// The parts of an alert that decide where it stands; the rest travels as it is.
#[derive(Debug, Deserialize)]
struct AlertHead {
    state: AlertState,
    #[serde(default)]
    priority: f64,
    #[serde(default)]
    fired_at: String,
}

/// An alert as last told.
#[derive(Debug)]
pub(crate) struct Alert {
    head: AlertHead,
    data: Bytes,
}

/// All firing alerts and the last resolved ones.
#[derive(Debug, Default)]
pub(crate) struct Alerts {
    by_id: HashMap<String, Alert>,
    /// Ids of resolved alerts, in the order in which that was told.
    resolved: VecDeque<String>,
    bytes: usize,
}

impl Alerts {
    /// Takes over an alert event; `None` is the alert's end of life in the log.
    ///
    /// # Errors
    /// What is wrong with the event; then nothing has changed.
    pub(crate) fn apply(
        &mut self,
        id: &str,
        event: Option<&[u8]>,
        publish: bool,
    ) -> Result<Effect<Bytes>, serde_json::Error> {
        let Some(event) = event else {
            self.remove(id);
            return Ok(Effect::Silent { at: None });
        };
        let parsed: CloudEvent<&RawValue> = serde_json::from_slice(event)?;
        let head: AlertHead = serde_json::from_str(parsed.data.get())?;
        self.remove(id);
        if head.state == AlertState::Resolved {
            self.resolved.push_back(id.to_owned());
        }
        let alert = Alert { head, data: one_line(&Bytes::copy_from_slice(parsed.data.get().as_bytes())) };
        self.bytes += alert.data.len();
        self.by_id.insert(id.to_owned(), alert);
        if self.resolved.len() > RESOLVED_MAX
            && let Some(oldest) = self.resolved.front().cloned()
        {
            self.remove(&oldest);
        }
        Ok(match publish {
            true => Effect::Publish { change: one_line(&Bytes::copy_from_slice(event)), at: None },
            false => Effect::Silent { at: None },
        })
    }

    fn remove(&mut self, id: &str) {
        if let Some(old) = self.by_id.remove(id) {
            self.bytes -= old.data.len();
            if old.head.state == AlertState::Resolved {
                self.resolved.retain(|other| other != id);
            }
        }
    }

    /// The alerts in one state or in all, by priority, then the newest first.
    pub(crate) fn ranked(&self, state: Option<AlertState>) -> Vec<&Bytes> {
        let mut alerts: Vec<&Alert> =
            self.by_id.values().filter(|a| state.is_none_or(|state| a.head.state == state)).collect();
        alerts.sort_by(|a, b| by_rank(&a.head, &b.head).then_with(|| a.data.cmp(&b.data)));
        alerts.into_iter().map(|a| &a.data).collect()
    }

    /// Writes `{"alerts":[…],"firing":n}`: at most `limit` alerts, but the number of all that are firing.
    pub(crate) fn write_json(&self, out: &mut Vec<u8>, state: Option<AlertState>, limit: usize) {
        let alerts = self.ranked(state);
        let shown: Vec<&[u8]> = alerts.into_iter().take(limit).map(|data| &data[..]).collect();
        let n_firing = self.by_id.len() - self.resolved.len();
        out.extend_from_slice(br#"{"alerts":["#);
        out.extend_from_slice(&shown.join(&b','));
        out.extend_from_slice(format!(r#"],"firing":{n_firing}}}"#).as_bytes());
    }
}

fn by_rank(a: &AlertHead, b: &AlertHead) -> Ordering {
    b.priority.total_cmp(&a.priority).then_with(|| b.fired_at.cmp(&a.fired_at))
}

impl Content for Alerts {
    type Change = Bytes;

    fn exists(&self) -> bool {
        true
    }

    fn epoch(&self) -> Option<String> {
        None
    }

    fn snapshot_bytes(&self) -> usize {
        self.bytes.min(SNAPSHOT_ALERTS_MAX * 4096)
    }

    fn write_snapshot(&self, _: Option<&Lens>, out: &mut Vec<u8>) {
        self.write_json(out, None, SNAPSHOT_ALERTS_MAX);
    }

    fn render(&self, change: &Bytes, _: Option<&Lens>) -> Option<Vec<u8>> {
        Some(change.to_vec())
    }

    fn change_since(&self, _: u64) -> Option<Bytes> {
        None
    }

    fn merge(&self, _: Bytes, later: Bytes) -> Bytes {
        later
    }

    fn lens(&self, _: &LensSpec) -> Result<Lens, ErrorCode> {
        Err(ErrorCode::BAD_REQUEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn event(id: &str, state: &str, priority: f64) -> Vec<u8> {
        let data = json!({"alert_id": id, "state": state, "priority": priority, "fired_at": "2025-10-01T00:00:00Z"});
        let event_type = format!("io.andon.alert.{state}");
        let event = CloudEvent::new("e".to_owned(), "/andon/rules/r".to_owned(), &event_type, "t".to_owned(), data);
        serde_json::to_vec(&event).expect("JSON")
    }

    fn ids(alerts: &Alerts, state: Option<AlertState>) -> String {
        let mut out = Vec::new();
        alerts.write_json(&mut out, state, usize::MAX);
        let json: Value = serde_json::from_slice(&out).expect("JSON");
        let ids: Vec<_> =
            json["alerts"].as_array().expect("a list").iter().filter_map(|a| a["alert_id"].as_str()).collect();
        format!("{} firing: {}", json["firing"], ids.join(" "))
    }

    #[test]
    fn alerts_are_ranked_and_resolved_ones_fade() {
        let mut alerts = Alerts::default();
        let mut tell = |id: &str, state, priority| {
            let effect = alerts.apply(id, Some(&event(id, state, priority)), true).expect("a good event");
            assert!(matches!(effect, Effect::Publish { .. }));
        };
        tell("a", "firing", 10.0);
        tell("b", "firing", 90.0);
        tell("c", "firing", 50.5);
        tell("a", "resolved", 10.0);
        assert_eq!(ids(&alerts, None), "2 firing: b c a");
        assert_eq!(ids(&alerts, Some(AlertState::Firing)), "2 firing: b c");
        for n in 0..RESOLVED_MAX {
            let id = n.to_string();
            alerts.apply(&id, Some(&event(&id, "resolved", 1.0)), false).expect("a good event");
        }
        assert_eq!(ids(&alerts, Some(AlertState::Firing)), "2 firing: b c");
        assert_eq!(alerts.ranked(Some(AlertState::Resolved)).len(), RESOLVED_MAX);
        assert!(!ids(&alerts, None).contains('a'), "the oldest resolved one has gone");
        alerts.apply("b", None, true).expect("a tombstone");
        assert_eq!(ids(&alerts, Some(AlertState::Firing)), "1 firing: c");
    }

    #[test]
    fn an_event_of_another_form_changes_nothing() {
        let mut alerts = Alerts::default();
        alerts.apply("a", Some(&event("a", "firing", 1.0)), true).expect("a good event");
        for bad in ["", "{}", r#"{"data":{"state":"odd"}}"#] {
            assert!(alerts.apply("a", Some(bad.as_bytes()), true).is_err());
        }
        assert_eq!(ids(&alerts, None), "1 firing: a");
    }
}
