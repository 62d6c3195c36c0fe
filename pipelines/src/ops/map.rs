//! Filter and projection without memory of their own.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::cast::as_int64_array;
use model::Delta;

use super::{Expr, Operator, Step, evaluate, evaluate_mask};
use crate::error::OpResult;
use crate::rows::batch_of;

/// Keeps the rows for which `predicate` is true, then computes `columns`.
#[derive(Debug, Clone)]
pub(crate) struct Map {
    /// Rows to keep; all if `None`.
    pub(crate) predicate: Option<Expr>,
    /// Output columns; the input's if `None`.
    pub(crate) columns: Option<Vec<Expr>>,
    /// Schema of the output.
    pub(crate) schema: SchemaRef,
}

impl Map {
    pub(crate) fn apply(&self, delta: &Delta) -> OpResult<Option<Delta>> {
        let kept = match &self.predicate {
            None => delta.clone(),
            Some(predicate) => {
                let mask = evaluate_mask(predicate, &delta.rows)?;
                match mask.true_count() {
                    0 => return Ok(None),
                    n if n == delta.len() => delta.clone(),
                    _ => {
                        let rows = arrow::compute::filter_record_batch(&delta.rows, &mask)?;
                        let weights = arrow::compute::filter(&delta.weights, &mask)?;
                        Delta::new(rows, as_int64_array(&weights)?.clone())
                    }
                }
            }
        };
        let columns = match &self.columns {
            None => kept.rows.columns().to_vec(),
            Some(exprs) => exprs.iter().map(|e| evaluate(e, &kept.rows)).collect::<OpResult<_>>()?,
        };
        let rows = batch_of(&self.schema, columns, kept.len())?;
        Ok(Some(Delta::new(rows, kept.weights)))
    }
}

impl Operator for Map {
    fn step(&mut self, inputs: &[Option<&Delta>], _: &Step<'_>) -> OpResult<Option<Delta>> {
        inputs[0].map_or(Ok(None), |delta| self.apply(delta))
    }
}

/// Some columns of a source table or kept view.
#[derive(Debug)]
pub(crate) struct Select {
    pub(crate) columns: Vec<usize>,
    pub(crate) schema: SchemaRef,
}

impl Operator for Select {
    fn step(&mut self, inputs: &[Option<&Delta>], _: &Step<'_>) -> OpResult<Option<Delta>> {
        let Some(delta) = inputs[0] else { return Ok(None) };
        let columns = self.columns.iter().map(|i| Arc::clone(delta.rows.column(*i))).collect();
        Ok(Some(Delta::new(batch_of(&self.schema, columns, delta.len())?, delta.weights.clone())))
    }
}
