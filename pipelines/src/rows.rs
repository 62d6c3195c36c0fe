//! Rows as bytes: the keys and rows that live in operators' state, in Arrow's comparable row format.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanArray, PrimitiveArray, RecordBatch, downcast_primitive_array,
};
use arrow::compute::SortOptions;
use arrow::compute::kernels::cmp::distinct;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::row::{RowConverter, RowParser, Rows, SortField};

use crate::error::OpResult;

/// A row or key in Arrow's row format.
pub(crate) type RowBytes = Box<[u8]>;

/// Hash map with a fast hash: keys are bytes of our own making, held by one process.
pub(crate) type Map<K, V> = hashbrown::HashMap<K, V, foldhash::fast::RandomState>;

/// Hash set with the same hash.
pub(crate) type Set<K> = hashbrown::HashSet<K, foldhash::fast::RandomState>;

/// A multiset of rows: row → weight, never zero.
pub(crate) type ZSet = Map<RowBytes, i64>;

/// Encodes columns into row bytes and back.
#[derive(Debug)]
pub(crate) struct RowCodec {
    schema: SchemaRef,
    converter: RowConverter,
    parser: RowParser,
}

impl RowCodec {
    pub(crate) fn new(schema: SchemaRef) -> OpResult<Self> {
        let fields = schema.fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
        let converter = RowConverter::new(fields)?;
        let parser = converter.parser();
        Ok(Self { schema, converter, parser })
    }

    /// A codec for some columns of a schema.
    pub(crate) fn of_columns(schema: &Schema, columns: &[usize]) -> OpResult<Self> {
        Self::new(Arc::new(schema.project(columns)?))
    }

    /// A codec whose bytes compare as ORDER BY does: columns of a schema, each with its direction and place of NULLs.
    pub(crate) fn ordered(schema: &Schema, order: &[(usize, SortOptions)]) -> OpResult<Self> {
        let columns: Vec<usize> = order.iter().map(|(column, _)| *column).collect();
        let schema = Arc::new(schema.project(&columns)?);
        let fields = schema
            .fields()
            .iter()
            .zip(order)
            .map(|(f, (_, options))| SortField::new_with_options(f.data_type().clone(), *options))
            .collect();
        let converter = RowConverter::new(fields)?;
        let parser = converter.parser();
        Ok(Self { schema, converter, parser })
    }

    /// Encodes some columns of a batch; `None` if there are none.
    pub(crate) fn encode_some(
        &self,
        batch: &RecordBatch,
        columns: impl Iterator<Item = usize>,
    ) -> OpResult<Option<Rows>> {
        let columns: Vec<ArrayRef> = columns.map(|i| Arc::clone(batch.column(i))).collect();
        if columns.is_empty() { Ok(None) } else { Ok(Some(self.encode(&columns)?)) }
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Encodes the columns; a schema without columns cannot be encoded and is handled by the caller.
    pub(crate) fn encode(&self, columns: &[ArrayRef]) -> OpResult<Rows> {
        Ok(self.converter.convert_columns(columns)?)
    }

    pub(crate) fn encode_batch(&self, batch: &RecordBatch) -> OpResult<Rows> {
        self.encode(batch.columns())
    }

    /// Decodes rows that this codec encoded.
    pub(crate) fn decode<'a>(&'a self, rows: impl Iterator<Item = &'a [u8]>) -> OpResult<Vec<ArrayRef>> {
        let columns = self.converter.convert_rows(rows.map(|bytes| self.parser.parse(bytes)))?;
        Ok(columns.iter().map(zeros_below_nulls).collect())
    }

    pub(crate) fn decode_batch<'a>(&'a self, rows: &[&'a [u8]]) -> OpResult<RecordBatch> {
        if self.schema.fields().is_empty() {
            return batch_of(&self.schema, Vec::new(), rows.len());
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), self.decode(rows.iter().copied())?)?)
    }

    /// The row whose columns are all NULL.
    pub(crate) fn null_row(&self) -> OpResult<RowBytes> {
        let columns: Vec<ArrayRef> =
            self.schema.fields().iter().map(|f| arrow::array::new_null_array(f.data_type(), 1)).collect();
        if columns.is_empty() {
            return Ok(Box::default());
        }
        Ok(self.encode(&columns)?.row(0).data().into())
    }
}

/// The row format decodes a NULL number as the smallest value that its type has. Functions that compute all values,
/// those below NULLs too, would overflow on it.
fn zeros_below_nulls(column: &ArrayRef) -> ArrayRef {
    if column.null_count() == 0 {
        return Arc::clone(column);
    }
    let values: &dyn Array = column;
    downcast_primitive_array! {
        values => cleared(values),
        _ => Arc::clone(column),
    }
}

fn cleared<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>) -> ArrayRef {
    let value = |i: usize| if array.is_null(i) { T::Native::default() } else { array.value(i) };
    let values = (0..array.len()).map(value).collect();
    Arc::new(PrimitiveArray::<T>::new(values, array.nulls().cloned()).with_data_type(array.data_type().clone()))
}

/// A batch that keeps its row count even without columns.
pub(crate) fn batch_of(schema: &SchemaRef, columns: Vec<ArrayRef>, n_rows: usize) -> OpResult<RecordBatch> {
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(n_rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// The same columns, all nullable and without metadata. Inside the engine the type alone matters; whether a NULL can
/// occur is the planner's business, and its notion changes from rule to rule.
pub(crate) fn relaxed(schema: &Schema) -> SchemaRef {
    let fields: Vec<Field> =
        schema.fields().iter().map(|f| Field::new(f.name(), f.data_type().clone(), true)).collect();
    Arc::new(Schema::new(fields))
}

/// Adds a weight to a multiset and drops the entry when nothing is left.
pub(crate) fn add_weight(set: &mut ZSet, row: &[u8], weight: i64) {
    match set.entry_ref(row) {
        hashbrown::hash_map::EntryRef::Occupied(mut entry) => {
            *entry.get_mut() += weight;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
        hashbrown::hash_map::EntryRef::Vacant(entry) => {
            if weight != 0 {
                entry.insert_with_key(row.into(), weight);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, TimestampMicrosecondArray};
    use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};

    use super::*;

    #[test]
    fn a_null_that_comes_back_hides_no_extreme_value() {
        let data_type = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let codec = RowCodec::new(Arc::new(Schema::new(vec![Field::new("at", data_type, true)]))).expect("a codec");
        let column = TimestampMicrosecondArray::from(vec![Some(7), None]).with_timezone("UTC");
        let rows = codec.encode(&[Arc::new(column.clone())]).expect("encoded");
        let back = codec.decode(rows.iter().map(|r| r.data()).collect::<Vec<_>>().into_iter()).expect("decoded");
        assert_eq!(back[0].as_primitive::<TimestampMicrosecondType>(), &column);
        assert_eq!(back[0].as_primitive::<TimestampMicrosecondType>().values(), &[7, 0]);
    }
}

/// Where two columns of one type differ; NULL is equal to NULL.
pub(crate) fn differing(a: &ArrayRef, b: &ArrayRef) -> OpResult<BooleanArray> {
    if !a.data_type().is_nested() {
        return Ok(distinct(a, b)?);
    }
    // The comparison kernels know no lists.
    Ok((0..a.len()).map(|row| Some(a.slice(row, 1).to_data() != b.slice(row, 1).to_data())).collect())
}
