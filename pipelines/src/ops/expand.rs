//! GROUPING SETS: every row once per set, with the keys that are not in the set blanked out.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, UInt64Array, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use model::Delta;

use super::{Operator, Step, concat};
use crate::error::OpResult;
use crate::rows::batch_of;

/// The operator. Its output has the keys, the id of the set, then the input's other columns.
#[derive(Debug)]
pub(crate) struct Expand {
    /// Which keys are blanked out, and the id, for each set.
    sets: Vec<(Vec<bool>, u64)>,
    n_keys: usize,
    id_type: DataType,
    schema: SchemaRef,
}

impl Expand {
    /// The first columns of `input` are the keys, as many as each set says.
    pub(crate) fn new(sets: &[(Vec<bool>, u64)], input: &SchemaRef, id_type: DataType) -> OpResult<Self> {
        let n_keys = sets.first().map_or(0, |(blanked, _)| blanked.len());
        let mut fields: Vec<Field> = input.fields().iter().map(|f| f.as_ref().clone()).collect();
        fields.insert(n_keys, Field::new("set", id_type.clone(), true));
        Ok(Self { sets: sets.to_vec(), n_keys, id_type, schema: Arc::new(Schema::new(fields)) })
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn one_set(&self, delta: &Delta, blanked: &[bool], id: u64) -> OpResult<Delta> {
        let n_rows = delta.len();
        let mut columns: Vec<ArrayRef> = delta.rows.columns().to_vec();
        for (column, _) in columns.iter_mut().zip(blanked).filter(|(_, is_blank)| **is_blank) {
            *column = new_null_array(column.data_type(), n_rows);
        }
        let ids: ArrayRef = Arc::new(UInt64Array::from(vec![id; n_rows]));
        columns.insert(self.n_keys, arrow::compute::cast(&ids, &self.id_type)?);
        let weights: Int64Array = delta.weights.clone();
        Ok(Delta::new(batch_of(&self.schema, columns, n_rows)?, weights).with_missed(delta.missed.clone()))
    }
}

impl Operator for Expand {
    fn is_stateless(&self) -> bool {
        true
    }

    fn step(&mut self, inputs: &[Option<&Delta>], _: &Step<'_>) -> OpResult<Option<Delta>> {
        let Some(delta) = inputs[0] else { return Ok(None) };
        let all = self.sets.iter().map(|(blanked, id)| self.one_set(delta, blanked, *id));
        concat(&all.collect::<OpResult<Vec<_>>>()?)
    }
}
