//! The CloudEvents 1.0 envelope (structured JSON mode) of everything Andon tells the outside.

use serde::{Deserialize, Serialize};

/// A CloudEvent with JSON data. Field names are those of the specification.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CloudEvent<T> {
    /// Always `1.0`.
    pub specversion: String,
    /// Unique with `source`.
    pub id: String,
    /// Where it comes from, for example `/andon/rules/stock_below_threshold`.
    pub source: String,
    /// Kind of event, for example `io.andon.alert.firing`.
    #[serde(rename = "type")]
    pub event_type: String,
    /// What it is about, for example the alert's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// RFC 3339 time of the event.
    pub time: String,
    /// Always `application/json`.
    pub datacontenttype: String,
    /// The payload.
    pub data: T,
}

impl<T> CloudEvent<T> {
    /// Wraps `data`; `time` in RFC 3339.
    pub fn new(id: String, source: String, event_type: &str, time: String, data: T) -> Self {
        Self {
            specversion: "1.0".to_owned(),
            id,
            source,
            event_type: event_type.to_owned(),
            subject: None,
            time,
            datacontenttype: "application/json".to_owned(),
            data,
        }
    }
}
