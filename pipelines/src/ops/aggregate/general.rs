//! Every other aggregate of DataFusion, kept exactly: the argument rows of each group are remembered in order, and
//! the groups a step touched are computed anew from them.
//!
//! The order is that of the values, so sums of floats and ordered results do not depend on the order of arrival.
//! Cost of a change: the size of its group.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use super::Accumulator;
use crate::error::OpResult;
use crate::rows::{RowBytes, RowCodec};

/// An aggregate without a linear form.
#[derive(Debug)]
pub(super) struct General {
    function: AggregateFunctionExpr,
    args: Vec<usize>,
    codec: RowCodec,
    groups: Vec<BTreeMap<RowBytes, i64>>,
}

impl General {
    pub(super) fn new(function: AggregateFunctionExpr, args: &[usize], input: &SchemaRef) -> OpResult<Self> {
        Ok(Self { function, args: args.to_vec(), codec: RowCodec::of_columns(input, args)?, groups: Vec::new() })
    }

    fn evaluate_one(&self, group: usize) -> OpResult<ScalarValue> {
        let mut rows: Vec<&[u8]> = Vec::new();
        for (row, weight) in &self.groups[group] {
            for _ in 0..(*weight).max(0) {
                rows.push(row);
            }
        }
        let mut accumulator = self.function.create_accumulator()?;
        accumulator.update_batch(&self.codec.decode(rows.into_iter())?)?;
        accumulator.evaluate()
    }
}

impl Accumulator for General {
    fn resize(&mut self, n_groups: usize) {
        self.groups.resize_with(n_groups, BTreeMap::new);
    }

    fn clear(&mut self, group: usize) {
        self.groups[group] = BTreeMap::new();
    }

    fn update(&mut self, groups: &[u32], weights: &[i64], batch: &RecordBatch) -> OpResult<()> {
        let columns: Vec<ArrayRef> = self.args.iter().map(|i| Arc::clone(batch.column(*i))).collect();
        let rows = self.codec.encode(&columns)?;
        for (i, (group, weight)) in groups.iter().zip(weights).enumerate() {
            if *weight == 0 {
                continue;
            }
            let set = &mut self.groups[*group as usize];
            let row = rows.row(i);
            match set.get_mut(row.data()) {
                Some(count) => {
                    *count += weight;
                    if *count == 0 {
                        set.remove(row.data());
                    }
                }
                None => {
                    set.insert(row.data().into(), *weight);
                }
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, groups: &[u32]) -> OpResult<ArrayRef> {
        if groups.is_empty() {
            return Ok(arrow::array::new_empty_array(self.function.field().data_type()));
        }
        let values = groups.iter().map(|g| self.evaluate_one(*g as usize)).collect::<OpResult<Vec<_>>>()?;
        ScalarValue::iter_to_array(values)
    }
}
