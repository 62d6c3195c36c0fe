//! Decoded changes of one table, in arrival order, column by column.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use model::Record;

use crate::column::Column;

/// The position of a record that has none.
pub(crate) const NO_POSITION: i64 = i64::MIN;

/// What a change does to its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// The row is now this one.
    Upsert,
    /// The row is gone; only the key columns are set.
    Delete,
    /// A record without a value: the row is gone, or its delete came just before; only the key columns are set.
    Tombstone,
    /// All rows before this position are gone; no column is set.
    Truncate,
}

/// The record a change came from; kept only where a later stage may still refuse it.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Topic it was read from.
    pub topic: Arc<str>,
    /// Partition it was read from.
    pub partition: i32,
    /// The record itself.
    pub record: Record,
}

/// Columns whose unchanged value the connector left out.
#[derive(Debug, Clone)]
pub(crate) struct Unchanged {
    pub(crate) row: u32,
    pub(crate) columns: Vec<u16>,
    pub(crate) origin: Origin,
}

/// Rows in arrival order. All columns, operations and positions have the same length.
#[derive(Debug)]
pub struct Changes {
    pub(crate) columns: Vec<Column>,
    pub(crate) operations: Vec<Operation>,
    pub(crate) positions: Vec<i64>,
    /// In row order; nearly always empty.
    pub(crate) unchanged: Vec<Unchanged>,
}

impl Changes {
    /// No changes of a table with this schema.
    pub fn new(schema: &SchemaRef) -> Self {
        Self {
            columns: schema.fields().iter().map(|f| Column::new(f.data_type())).collect(),
            operations: Vec::new(),
            positions: Vec::new(),
            unchanged: Vec::new(),
        }
    }

    /// Number of changes.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all changes.
    pub fn clear(&mut self) {
        self.columns.iter_mut().for_each(|c| c.truncate(0));
        self.operations.clear();
        self.positions.clear();
        self.unchanged.clear();
    }

    /// Forgets a row that was half written.
    pub(crate) fn roll_back(&mut self) {
        let len = self.operations.len();
        self.columns.iter_mut().for_each(|c| c.truncate(len));
    }

    /// Completes a row whose columns have been written.
    pub(crate) fn commit(&mut self, operation: Operation, position: i64) {
        self.operations.push(operation);
        self.positions.push(position);
    }
}
