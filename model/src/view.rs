//! What a kept view or rule looks like to its readers, and how its rows travel in a topic.
//!
//! A view topic is compacted and has one partition. Key: the key columns as a JSON object; value: the whole row as a
//! JSON object, or a tombstone when the row leaves. Decimals are strings, timestamps ISO 8601 in UTC with a `Z` when
//! they have a zone, dates `YYYY-MM-DD`, integers and floats numbers. The records of one epoch are consecutive; the last one
//! carries the header `epoch-end`.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::Record;

/// Header with the epoch's number, decimal.
pub const EPOCH_HEADER: &str = "epoch";
/// Header on the last record of an epoch in this topic; empty value.
pub const EPOCH_END_HEADER: &str = "epoch-end";
/// Header with the engine's business time in milliseconds since 1970 when the epoch was made, decimal.
pub const AS_OF_HEADER: &str = "as-of";

/// Dashboards read views; alerting reads rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ViewKind {
    /// `CREATE MATERIALIZED VIEW`, on `andon.view.<name>`.
    View,
    /// The SELECT of a rule file, on `andon.rule.<name>`.
    Rule,
}

/// A column of a view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewColumn {
    /// Column name.
    pub name: String,
    /// Arrow type in its text form, for example `Decimal128(20, 2)`; it parses back with `DataType::from_str`.
    #[serde(rename = "type")]
    pub data_type: String,
    /// Whether NULL can occur.
    pub nullable: bool,
}

/// The entry of a view in the catalog topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewInfo {
    /// Name, unique among views and rules together.
    pub name: String,
    /// View or rule.
    pub kind: ViewKind,
    /// Topic that carries it.
    pub topic: String,
    /// Columns in order.
    pub columns: Vec<ViewColumn>,
    /// Names of the key columns; all columns if the view has no key of its own.
    pub key: Vec<String>,
    /// First paragraph of the comment above the statement, if any.
    pub description: Option<String>,
    /// The statement as written.
    pub sql: String,
    /// Canonical relations it reads that no source fills: the view over them says so.
    pub empty_inputs: Vec<String>,
    /// `incremental`, or `recompute: <reason>`.
    pub maintenance: String,
}

/// What the engine says of itself once a second, on the status topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineStatus {
    /// Number of the last epoch.
    pub epoch: u64,
    /// Business time (what CURRENT_TIMESTAMP says), milliseconds since 1970.
    pub as_of_ms: i64,
    /// Wall clock at which this was written, milliseconds since 1970.
    pub written_at_ms: i64,
    /// Largest event time among the sources, milliseconds since 1970.
    pub event_time_ms: Option<i64>,
    /// Records read from the sources since the start.
    pub records_read: u64,
    /// Records not read yet, over all source partitions; `None` while unknown.
    pub lag_records: Option<u64>,
    /// Records sent to the dead-letter topic since the start.
    pub dead_letters: u64,
    /// `catching_up` while history is replayed after a start, then `live`.
    pub phase: String,
}

/// The epoch's place on a view record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochMark {
    /// Number of the epoch; grows, also over restarts.
    pub epoch: u64,
    /// Business time, milliseconds since 1970.
    pub as_of_ms: i64,
    /// Whether this is the epoch's last record in this topic.
    pub last: bool,
}

impl EpochMark {
    /// The headers that carry this mark.
    pub fn to_headers(self) -> Vec<(Arc<str>, Bytes)> {
        let mut headers = vec![
            (Arc::from(EPOCH_HEADER), Bytes::from(self.epoch.to_string())),
            (Arc::from(AS_OF_HEADER), Bytes::from(self.as_of_ms.to_string())),
        ];
        if self.last {
            headers.push((Arc::from(EPOCH_END_HEADER), Bytes::new()));
        }
        headers
    }

    /// Reads the mark of a record; `None` if it has none (written by another program, Flink for example: then each
    /// record is an epoch of its own).
    pub fn from_record(record: &Record) -> Option<Self> {
        let number = |name| std::str::from_utf8(record.header(name)?).ok()?.parse::<i64>().ok();
        Some(Self {
            epoch: u64::try_from(number(EPOCH_HEADER)?).ok()?,
            as_of_ms: number(AS_OF_HEADER)?,
            last: record.header(EPOCH_END_HEADER).is_some(),
        })
    }
}
