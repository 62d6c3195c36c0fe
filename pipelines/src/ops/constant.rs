//! VALUES, and SELECT without FROM: rows that are there from the start.

use arrow::array::RecordBatch;
use model::Delta;

use super::{Operator, Step};
use crate::error::OpResult;

/// Puts out its rows in the first step.
#[derive(Debug)]
pub(crate) struct Constant {
    pub(crate) rows: RecordBatch,
}

impl Operator for Constant {
    fn wants(&self, step: &Step<'_>) -> bool {
        step.first && self.rows.num_rows() > 0
    }

    fn step(&mut self, _: &[Option<&Delta>], step: &Step<'_>) -> OpResult<Option<Delta>> {
        Ok(self.wants(step).then(|| Delta::inserts(self.rows.clone())))
    }
}
