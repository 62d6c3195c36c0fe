//! Append-only tables: every record is one more row, and nothing is kept.
//!
//! In: decoded rows in arrival order. Out: the same rows, each +1; the columns are moved, not copied. Columns that no
//! view reads were not decoded and are NULL.

use arrow::array::{RecordBatch, new_null_array};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use model::{Delta, SourceTable};

use super::{Applied, DAY_US};
use crate::decode::Changes;

/// A table without a primary key.
#[derive(Debug)]
pub struct AppendTable {
    schema: SchemaRef,
    event_time: Option<usize>,
    unread: Vec<bool>,
}

impl AppendTable {
    /// No rows, now and ever.
    pub fn new(table: &SourceTable) -> Self {
        let unread = (0..table.schema.fields().len()).map(|i| !table.is_read(i)).collect();
        Self { schema: SchemaRef::clone(&table.schema), event_time: table.event_time.map(|e| e.column), unread }
    }

    /// Takes an epoch's rows out of the changes; event times beyond `event_time_us_max` are not believed.
    ///
    /// # Errors
    /// If a column's texts are too long together for one array.
    pub fn apply(&mut self, changes: &mut Changes, event_time_us_max: i64) -> Result<Applied, ArrowError> {
        let event_time_us = self.event_time.and_then(|column| {
            let unit_us = if *self.schema.field(column).data_type() == DataType::Date32 { DAY_US } else { 1 };
            changes.columns[column].int_max(event_time_us_max.div_euclid(unit_us)).map(|t| t.saturating_mul(unit_us))
        });
        let n_rows = changes.len();
        let columns = changes.columns.iter_mut().zip(&self.unread).map(|(column, unread)| match unread {
            true => Ok(new_null_array(column.data_type(), n_rows)),
            false => column.drain(),
        });
        let columns = columns.collect::<Result<_, _>>()?;
        let rows = RecordBatch::try_new(SchemaRef::clone(&self.schema), columns)?;
        Ok(Applied { delta: Delta::inserts(rows), positions: Vec::new(), n_old: 0, refused: Vec::new(), event_time_us })
    }
}
