//! COUNT(DISTINCT x): how often each value occurs, per group.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};

use super::Accumulator;
use crate::error::OpResult;
use crate::rows::{RowCodec, ZSet, add_weight};

/// Number of different values that are not NULL.
#[derive(Debug)]
pub(super) struct CountDistinct {
    arg: usize,
    codec: RowCodec,
    groups: Vec<ZSet>,
}

impl CountDistinct {
    pub(super) fn new(arg: usize, data_type: DataType) -> OpResult<Self> {
        let codec = RowCodec::new(Arc::new(Schema::new(vec![Field::new("value", data_type, true)])))?;
        Ok(Self { arg, codec, groups: Vec::new() })
    }
}

impl Accumulator for CountDistinct {
    fn resize(&mut self, n_groups: usize) {
        self.groups.resize_with(n_groups, ZSet::default);
    }

    fn clear(&mut self, group: usize) {
        self.groups[group] = ZSet::default();
    }

    fn update(&mut self, groups: &[u32], weights: &[i64], batch: &RecordBatch) -> OpResult<()> {
        let column = batch.column(self.arg);
        let rows = self.codec.encode(&[Arc::clone(column)])?;
        for (i, (group, weight)) in groups.iter().zip(weights).enumerate() {
            if *weight != 0 && column.is_valid(i) {
                add_weight(&mut self.groups[*group as usize], rows.row(i).data(), *weight);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, groups: &[u32]) -> OpResult<ArrayRef> {
        let counts = groups.iter().map(|g| i64::try_from(self.groups[*g as usize].len()).unwrap_or(i64::MAX));
        Ok(Arc::new(counts.collect::<Int64Array>()))
    }
}
