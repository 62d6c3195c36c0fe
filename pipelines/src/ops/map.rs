//! Filter and projection without memory of their own.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use model::Delta;

use super::{Expr, Operator, Step, concat, evaluate, evaluate_mask};
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

/// What a [`Map`] made of a change.
#[derive(Debug)]
pub(crate) struct Mapped {
    /// The change of the output.
    pub(crate) output: Option<Delta>,
    /// The input without the rows on which an expression failed; `None` if it failed on none.
    pub(crate) accepted: Option<Delta>,
}

impl Map {
    /// Applies the expressions. A row on which one of them fails (a number that does not fit its CAST, a division by
    /// zero) is left out, counted and logged, so that it stops no other row. Leaving it out is consistent: when the row
    /// is deleted later, the expression fails on it again.
    pub(crate) fn apply(&self, delta: &Delta) -> OpResult<Mapped> {
        match self.apply_all(delta) {
            Ok(output) => Ok(Mapped { output, accepted: None }),
            Err(error) => self.apply_each(delta, &error),
        }
    }

    fn apply_each(&self, delta: &Delta, error: &DataFusionError) -> OpResult<Mapped> {
        let mut output = Vec::new();
        let mut accepted = Vec::new();
        let mut n_failed = 0_u64;
        for i in 0..delta.len() {
            let one = delta.slice(i, 1);
            match self.apply_all(&one) {
                Ok(mapped) => {
                    output.extend(mapped);
                    accepted.push(one);
                }
                Err(_) => n_failed += 1,
            }
        }
        let error = error.strip_backtrace();
        tracing::warn!(n_failed, error, columns = ?self.schema.fields().iter().map(|f| f.name()).collect::<Vec<_>>(), "rows left out: their SQL failed");
        metrics::counter!("pipelines_rows_failed_total").increment(n_failed);
        let nothing = || Delta::empty(delta.rows.schema());
        Ok(Mapped { output: concat(&output)?, accepted: Some(concat(&accepted)?.unwrap_or_else(nothing)) })
    }

    fn apply_all(&self, delta: &Delta) -> OpResult<Option<Delta>> {
        let kept = match &self.predicate {
            None => delta.clone(),
            Some(predicate) => {
                let mask = evaluate_mask(predicate, &delta.rows)?;
                match mask.true_count() {
                    0 => return Ok(None),
                    n if n == delta.len() => delta.clone(),
                    _ => delta.filter(&mask)?,
                }
            }
        };
        let columns = match &self.columns {
            None => kept.rows.columns().to_vec(),
            Some(exprs) => exprs.iter().map(|e| evaluate(e, &kept.rows)).collect::<OpResult<_>>()?,
        };
        let rows = batch_of(&self.schema, columns, kept.len())?;
        Ok(Some(Delta::new(rows, kept.weights).with_missed(kept.missed)))
    }
}

impl Operator for Map {
    fn is_stateless(&self) -> bool {
        true
    }

    fn step(&mut self, inputs: &[Option<&Delta>], _: &Step<'_>) -> OpResult<Option<Delta>> {
        inputs[0].map_or(Ok(None), |delta| Ok(self.apply(delta)?.output))
    }
}

/// Some columns of a source table or kept view.
#[derive(Debug)]
pub(crate) struct Select {
    pub(crate) columns: Vec<usize>,
    pub(crate) schema: SchemaRef,
}

impl Operator for Select {
    fn is_stateless(&self) -> bool {
        true
    }

    fn step(&mut self, inputs: &[Option<&Delta>], _: &Step<'_>) -> OpResult<Option<Delta>> {
        let Some(delta) = inputs[0] else { return Ok(None) };
        let columns = self.columns.iter().map(|i| Arc::clone(delta.rows.column(*i))).collect();
        let rows = batch_of(&self.schema, columns, delta.len())?;
        Ok(Some(Delta::new(rows, delta.weights.clone()).with_missed(delta.missed.clone())))
    }
}
