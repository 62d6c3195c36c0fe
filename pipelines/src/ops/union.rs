//! UNION ALL.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use model::Delta;

use super::{Operator, Step, concat};
use crate::error::OpResult;
use crate::rows::batch_of;

/// Passes on the changes of all inputs under one schema.
#[derive(Debug)]
pub(crate) struct Union {
    pub(crate) schema: SchemaRef,
}

impl Operator for Union {
    fn is_stateless(&self) -> bool {
        true
    }

    fn step(&mut self, inputs: &[Option<&Delta>], _: &Step<'_>) -> OpResult<Option<Delta>> {
        let mut all = Vec::with_capacity(inputs.len());
        for delta in inputs.iter().flatten() {
            let columns = delta
                .rows
                .columns()
                .iter()
                .zip(self.schema.fields())
                .map(|(c, f)| match c.data_type() == f.data_type() {
                    true => Ok(Arc::clone(c)),
                    false => arrow::compute::cast(c, f.data_type()),
                })
                .collect::<Result<_, _>>()?;
            let rows = batch_of(&self.schema, columns, delta.len())?;
            all.push(Delta::new(rows, delta.weights.clone()).with_missed(delta.missed.clone()));
        }
        concat(&all)
    }
}
