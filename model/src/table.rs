//! A source table as its DDL declares it.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use crate::log::TopicSelector;

/// How the records of a source topic are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceFormat {
    /// Debezium's envelope as JSON, with or without the `schema` part. Flattened records (the
    /// `ExtractNewRecordState` transform) are recognised record by record.
    DebeziumJson,
    /// Plain JSON rows, keyed upserts; a null value deletes.
    Json,
}

/// Event time of a table: `WATERMARK FOR column AS column - INTERVAL …`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventTime {
    /// Index of the column in the table's schema.
    pub column: usize,
    /// How far behind the largest event time the watermark stands, in microseconds.
    pub delay_us: i64,
}

/// A declared source table.
#[derive(Debug, Clone)]
pub struct SourceTable {
    /// Name as declared.
    pub name: Arc<str>,
    /// Columns in declared order. Timestamps are `Timestamp(Microsecond, _)`, with zone "UTC" for `TIMESTAMP_LTZ`.
    pub schema: SchemaRef,
    /// Fractional-second digits each column declares (`TIMESTAMP(3)` → 3), 0 for columns that are not times. They say
    /// the unit of times that arrive as bare numbers: up to 3 digits milliseconds, up to 6 microseconds, above that
    /// nanoseconds. One entry per column; a missing entry counts as 6.
    pub time_digits: Vec<u8>,
    /// Indexes of the primary key's columns, in key order; empty for an append-only table.
    pub primary_key: Vec<usize>,
    /// Event time, if declared.
    pub event_time: Option<EventTime>,
    /// `'ttl' = '90 days'`: rows whose event time is so much older than the business time leave the table. In
    /// microseconds; only for tables with a primary key and an event time.
    pub ttl_us: Option<i64>,
    /// Columns of an append-only table that no view reads, one entry per column; a missing entry counts as read. They
    /// are not decoded: rows hold NULL there. Only nullable columns may be left out, and never the event time.
    pub unread: Vec<bool>,
    /// Where the records come from.
    pub topic: TopicSelector,
    /// How they are encoded.
    pub format: SourceFormat,
    /// File and line of the declaration, for messages.
    pub declared_at: String,
}

impl SourceTable {
    /// Whether every record of the table is one more row: there is no primary key, so nothing is ever changed or
    /// deleted, and nothing of it is kept.
    pub fn is_append_only(&self) -> bool {
        self.primary_key.is_empty()
    }

    /// Notes which columns some view reads, so that the others need no decoding. A table whose rows are kept decodes
    /// them all, since people and later views may ask for any.
    pub fn read_only(&mut self, is_read: impl Fn(usize) -> bool) {
        let is_needed = |i: usize| {
            let is_event_time = self.event_time.is_some_and(|e| e.column == i);
            is_read(i) || is_event_time || !self.schema.field(i).is_nullable()
        };
        self.unread = match self.is_append_only() {
            true => (0..self.schema.fields().len()).map(|i| !is_needed(i)).collect(),
            false => Vec::new(),
        };
    }

    /// Whether a column has to be decoded.
    pub fn is_read(&self, column: usize) -> bool {
        !self.unread.get(column).copied().unwrap_or(false)
    }
}
