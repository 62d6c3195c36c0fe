//! Weighted row changes (a Z-set): rows with an integer weight, +1 for an insert, −1 for a delete.

use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef};
use arrow::error::ArrowError;
use serde::{Deserialize, Serialize};

use crate::Offsets;

/// Rows with a weight each. An update is −1 of the old row and +1 of the new one, in any order.
///
/// # Shape
/// `weights` has one entry per row of `rows` and no nulls.
#[derive(Debug, Clone)]
pub struct Delta {
    /// The rows, in the schema of the relation they belong to.
    pub rows: RecordBatch,
    /// The weight of each row; zero weights are allowed and mean nothing.
    pub weights: Int64Array,
    /// For each row of an append-only table that came behind the watermark: the watermark as it stood just before the
    /// row, microseconds since 1970; NULL for the others. `None` if no row came so.
    pub missed: Option<Int64Array>,
}

impl Delta {
    /// Pairs rows with their weights.
    ///
    /// # Panics
    /// If the lengths differ: that is a bug of the caller.
    pub fn new(rows: RecordBatch, weights: Int64Array) -> Self {
        assert_eq!(rows.num_rows(), weights.len(), "one weight per row");
        Self { rows, weights, missed: None }
    }

    /// The same with the watermarks that its rows came behind.
    ///
    /// # Panics
    /// If there is not one entry per row: that is a bug of the caller.
    #[must_use]
    pub fn with_missed(self, missed: Option<Int64Array>) -> Self {
        assert!(missed.as_ref().is_none_or(|missed| missed.len() == self.len()), "one entry per row");
        Self { missed, ..self }
    }

    /// Rows `from` to `from + n_rows`, without a copy.
    #[must_use]
    pub fn slice(&self, from: usize, n_rows: usize) -> Self {
        let missed = self.missed.as_ref().map(|missed| missed.slice(from, n_rows));
        Self::new(self.rows.slice(from, n_rows), self.weights.slice(from, n_rows)).with_missed(missed)
    }

    /// The rows for which `mask` is true.
    ///
    /// # Errors
    /// If the mask has another length.
    pub fn filter(&self, mask: &BooleanArray) -> Result<Self, ArrowError> {
        let filtered = |column: &Int64Array| {
            let kept = arrow::compute::filter(column, mask)?;
            Ok::<_, ArrowError>(kept.as_primitive::<Int64Type>().clone())
        };
        let missed = self.missed.as_ref().map(filtered).transpose()?;
        let rows = arrow::compute::filter_record_batch(&self.rows, mask)?;
        Ok(Self::new(rows, filtered(&self.weights)?).with_missed(missed))
    }

    /// No change of a relation with this schema.
    pub fn empty(schema: SchemaRef) -> Self {
        Self::new(RecordBatch::new_empty(schema), Int64Array::from(Vec::<i64>::new()))
    }

    /// All rows with weight +1.
    pub fn inserts(rows: RecordBatch) -> Self {
        let n_rows = rows.num_rows();
        Self::new(rows, Int64Array::from(vec![1; n_rows]))
    }

    /// Number of weighted rows.
    pub fn len(&self) -> usize {
        self.weights.len()
    }

    /// Whether there is no row at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The change of one source table within an epoch.
#[derive(Debug, Clone)]
pub struct TableDelta {
    /// Name of the source table as its DDL declares it.
    pub table: Arc<str>,
    /// −stored +after, exact.
    pub delta: Delta,
    /// Position in the source (see [`SourceState`]) of the change behind each row of the delta.
    pub positions: Vec<i64>,
}

/// The rows of a source table as they stood at a checkpoint.
#[derive(Debug, Clone)]
pub struct TableRows {
    /// Name of the source table.
    pub table: Arc<str>,
    /// The rows, in the table's schema, unique by primary key.
    pub rows: RecordBatch,
    /// Position in the source of each row's last change; a change at or below it is old.
    pub positions: Vec<i64>,
}

/// Where reading goes on after a restart.
#[derive(Debug, Clone, Default)]
pub struct SourceState {
    /// Next offset to read per source partition; partitions that are not in it are read from their earliest record.
    pub offsets: Offsets,
    /// The tables' rows at these offsets; possibly in several parts.
    pub tables: Vec<TableRows>,
    /// The watermarks at these offsets.
    pub watermarks: Vec<TableWatermark>,
}

/// How far time has come in a table: no row with an earlier event time is expected any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableWatermark {
    /// Name of the source table.
    pub table: Arc<str>,
    /// Rows with an event time before this are late; microseconds since 1970. `None` until every partition that counts
    /// has sent an event time. Never goes backwards.
    pub watermark_us: Option<i64>,
    /// What the watermark was derived from, to go on with after a restart.
    pub partitions: Vec<PartitionEventTime>,
}

/// The largest event time of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionEventTime {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition of the topic.
    pub partition: i32,
    /// Microseconds since 1970, clamped against the far future.
    pub event_time_us_max: i64,
}

/// All that arrived between two consistent points: the unit of work of the engine.
#[derive(Debug, Clone, Default)]
pub struct SourceEpoch {
    /// At most one entry per table.
    pub tables: Vec<TableDelta>,
    /// Next offset to read per source partition, after this epoch.
    pub offsets: Offsets,
    /// Number of log records read, dead letters included.
    pub n_records: usize,
    /// Largest event time seen in this epoch, microseconds since 1970, clamped against the far future.
    pub max_event_time_us: Option<i64>,
    /// The watermarks of all tables with an event time as they stand after this epoch; empty if none has moved.
    pub watermarks: Vec<TableWatermark>,
    /// Largest log timestamp seen in this epoch, milliseconds since 1970; for latency figures.
    pub max_log_timestamp_ms: Option<i64>,
}

/// Where epochs come from: `ingest::Ingest` in production.
#[async_trait::async_trait]
pub trait EpochSource: Send {
    /// The next epoch, or `None` if nothing arrived within `wait`. Dropping the future loses nothing.
    async fn next_epoch(
        &mut self,
        wait: std::time::Duration,
    ) -> Result<Option<SourceEpoch>, Box<dyn std::error::Error + Send + Sync>>;

    /// Records in the log that have not been read yet; `None` while unknown.
    fn lag_records(&self) -> Option<u64>;

    /// Records sent to the dead-letter topic since the start.
    fn dead_letters(&self) -> u64;

    /// All rows of a source table as they stand after the last epoch; `None` for an unknown table and for an
    /// append-only one, of which nothing is kept.
    fn table_rows(&self, table: &str) -> Option<RecordBatch>;
}
