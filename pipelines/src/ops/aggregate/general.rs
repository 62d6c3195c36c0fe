//! Every other aggregate of DataFusion, kept exactly: the argument rows of each group are remembered in order, and
//! the groups a step touched are computed anew from them.
//!
//! The order is the stated one and then that of the values, so ordered results do not depend on the order of arrival.
//! Cost of a change: the size of its group. That is the size of the result for ARRAY_AGG and STRING_AGG, for which
//! there is nothing cheaper.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use super::Accumulator;
use super::bags::Bags;
use crate::error::OpResult;
use crate::rows::RowCodec;

/// An aggregate without a form of ours.
#[derive(Debug)]
pub(super) struct General {
    function: AggregateFunctionExpr,
    /// Columns of the order, then the arguments.
    columns: Vec<usize>,
    n_order: usize,
    codec: RowCodec,
    bags: Bags,
    /// Results of groups that have not changed since.
    known: Vec<Option<ScalarValue>>,
}

impl General {
    pub(super) fn new(
        function: AggregateFunctionExpr,
        args: &[usize],
        order: &[(usize, SortOptions)],
        input: &SchemaRef,
    ) -> OpResult<Self> {
        let mut columns = order.to_vec();
        columns.extend(args.iter().map(|arg| (*arg, SortOptions { descending: false, nulls_first: true })));
        Ok(Self {
            function,
            n_order: order.len(),
            codec: RowCodec::ordered(input, &columns)?,
            columns: columns.into_iter().map(|(column, _)| column).collect(),
            bags: Bags::default(),
            known: Vec::new(),
        })
    }

    fn evaluate_one(&self, group: u32) -> OpResult<ScalarValue> {
        let copies = |weight: &i64| usize::try_from(*weight).unwrap_or(0);
        let rows = self.bags.of(group).iter().flat_map(|(row, weight)| std::iter::repeat_n(row, copies(weight)));
        let mut accumulator = self.function.create_accumulator()?;
        let columns = self.codec.decode(rows)?;
        accumulator.update_batch(&columns[self.n_order..])?;
        accumulator.evaluate()
    }
}

impl Accumulator for General {
    fn rescans(&self) -> bool {
        true
    }

    fn resize(&mut self, n_groups: usize) {
        self.bags.resize(n_groups);
        self.known.resize(n_groups, None);
    }

    fn clear(&mut self, group: usize) {
        self.bags.clear(group);
        self.known[group] = None;
    }

    fn update(&mut self, groups: &[u32], weights: &[i64], batch: &RecordBatch) -> OpResult<()> {
        let columns: Vec<ArrayRef> = self.columns.iter().map(|i| Arc::clone(batch.column(*i))).collect();
        let rows = self.codec.encode(&columns)?;
        for (i, (group, weight)) in groups.iter().zip(weights).enumerate() {
            if *weight != 0 {
                self.known[*group as usize] = None;
                self.bags.add(*group, rows.row(i).data(), *weight);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, groups: &[u32]) -> OpResult<ArrayRef> {
        if groups.is_empty() {
            return Ok(arrow::array::new_empty_array(self.function.field().data_type()));
        }
        let mut values = Vec::with_capacity(groups.len());
        for group in groups {
            let value = match &self.known[*group as usize] {
                Some(value) => value.clone(),
                None => self.evaluate_one(*group)?,
            };
            self.known[*group as usize] = Some(value.clone());
            values.push(value);
        }
        ScalarValue::iter_to_array(values)
    }

    fn bags(&mut self) -> Option<&mut Bags> {
        Some(&mut self.bags)
    }
}
