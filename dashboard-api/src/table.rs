//! A view's JSON rows as Arrow, with the column types that the catalog gives: decimals exact, timestamps as such.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use arrow::json::reader::Decoder;
use model::ViewInfo;

/// Rows in one record batch.
pub(crate) const BATCH_ROWS: usize = 8_192;

/// The view's columns as Arrow fields.
///
/// # Errors
/// If a column's type is not one of Arrow's.
pub(crate) fn schema(info: &ViewInfo) -> Result<SchemaRef, ArrowError> {
    let fields: Result<Vec<Field>, ArrowError> = info
        .columns
        .iter()
        .map(|column| {
            let data_type = DataType::from_str(&column.data_type)?;
            Ok(Field::new(&column.name, plain(data_type), column.nullable))
        })
        .collect();
    Ok(Arc::new(Schema::new(fields?)))
}

/// Dictionaries are a matter of the engine's memory; readers get the values.
fn plain(data_type: DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, values) => *values,
        other => other,
    }
}

/// Decodes rows, each a JSON object, batch by batch. Columns that the schema does not name are skipped.
pub(crate) struct Batches {
    decoder: Decoder,
}

impl Batches {
    /// # Errors
    /// If the schema has a type that JSON cannot carry.
    pub(crate) fn new(schema: &SchemaRef) -> Result<Self, ArrowError> {
        Ok(Self { decoder: ReaderBuilder::new(Arc::clone(schema)).with_batch_size(BATCH_ROWS).build_decoder()? })
    }

    /// Adds a row; gives a batch whenever one is full.
    ///
    /// # Errors
    /// If a row does not fit the schema.
    pub(crate) fn push(&mut self, row: &[u8]) -> Result<Option<RecordBatch>, ArrowError> {
        let mut full = None;
        let mut rest = row;
        while !rest.is_empty() {
            let n_read = self.decoder.decode(rest)?;
            rest = &rest[n_read..];
            if n_read == 0 {
                full = self.decoder.flush()?;
            }
        }
        Ok(full)
    }

    /// The last rows.
    ///
    /// # Errors
    /// If a row does not fit the schema.
    pub(crate) fn finish(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        self.decoder.flush()
    }
}

/// All rows as batches.
///
/// # Errors
/// If a row does not fit the schema.
pub(crate) fn decode<'a>(
    schema: &SchemaRef,
    rows: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<RecordBatch>, ArrowError> {
    let mut batches = Batches::new(schema)?;
    let mut decoded = Vec::new();
    for row in rows {
        decoded.extend(batches.push(row)?);
    }
    decoded.extend(batches.finish()?);
    Ok(decoded)
}
