//! MEDIAN, PERCENTILE_CONT and PERCENTILE_DISC: the values of a group are kept sorted with their counts, so the one or two values in
//! question are found without reading the others.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use super::Accumulator;
use super::bags::Bags;
use crate::error::OpResult;
use crate::ops::sorted::Sorted;
use crate::rows::RowCodec;
use crate::sql::functions::ordered_sets::{place_of, places_around};

/// Which value is wanted.
#[derive(Debug)]
pub(super) enum Wanted {
    /// The middle one; DataFusion's function computes it from the two middle values.
    Median(Box<AggregateFunctionExpr>),
    /// The value at this share of the way from the first to the last, 0 to 1, of DOUBLE values.
    Between { share: f64, descending: bool },
    /// The first value with at least this share of the values up to it.
    Discrete { share: f64, descending: bool },
}

/// The aggregate.
#[derive(Debug)]
pub(super) struct Ranked {
    arg: usize,
    wanted: Wanted,
    codec: RowCodec,
    output: DataType,
    bags: Bags,
}

impl Ranked {
    pub(super) fn new(arg: usize, wanted: Wanted, input: &SchemaRef, output: DataType) -> OpResult<Self> {
        let field = Field::new("value", input.field(arg).data_type().clone(), true);
        let codec = RowCodec::new(Arc::new(Schema::new(vec![field])))?;
        Ok(Self { arg, wanted, codec, output, bags: Bags::default() })
    }

    fn values(&self, bag: &Sorted<i64>, places: &[u64]) -> OpResult<ArrayRef> {
        let rows = places.iter().filter_map(|place| bag.nth(*place));
        Ok(self.codec.decode(rows)?.remove(0))
    }

    fn evaluate_one(&self, group: u32) -> OpResult<ScalarValue> {
        let bag = self.bags.of(group);
        let Some(last) = bag.total().checked_sub(1) else { return ScalarValue::try_from(&self.output) };
        match &self.wanted {
            Wanted::Median(function) => {
                let middle = if last % 2 == 0 { vec![last / 2] } else { vec![last / 2, last / 2 + 1] };
                let mut accumulator = function.create_accumulator()?;
                accumulator.update_batch(&[self.values(bag, &middle)?])?;
                accumulator.evaluate()
            }
            Wanted::Between { share, descending } => {
                let (low, high, part) = places_around(*share, bag.total());
                let place = |place: u64| if *descending { last - place } else { place };
                let value = |at: u64| -> OpResult<f64> {
                    let one = self.values(bag, &[place(at)])?;
                    Ok(one.as_primitive::<Float64Type>().value(0))
                };
                let (low, high) = (value(low)?, value(high)?);
                Ok(ScalarValue::Float64(Some(low + (high - low) * part)))
            }
            Wanted::Discrete { share, descending } => {
                let place = place_of(*share, bag.total());
                let place = if *descending { last - place } else { place };
                ScalarValue::try_from_array(&self.values(bag, &[place])?, 0)
            }
        }
    }
}

impl Accumulator for Ranked {
    fn resize(&mut self, n_groups: usize) {
        self.bags.resize(n_groups);
    }

    fn clear(&mut self, group: usize) {
        self.bags.clear(group);
    }

    fn update(&mut self, groups: &[u32], weights: &[i64], batch: &RecordBatch) -> OpResult<()> {
        let column = batch.column(self.arg);
        let rows = self.codec.encode(&[Arc::clone(column)])?;
        for (i, (group, weight)) in groups.iter().zip(weights).enumerate() {
            if *weight != 0 && column.is_valid(i) {
                self.bags.add(*group, rows.row(i).data(), *weight);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, groups: &[u32]) -> OpResult<ArrayRef> {
        if groups.is_empty() {
            return Ok(arrow::array::new_empty_array(&self.output));
        }
        let values = groups.iter().map(|g| self.evaluate_one(*g)).collect::<OpResult<Vec<_>>>()?;
        ScalarValue::iter_to_array(values)
    }

    fn bags(&mut self) -> Option<&mut Bags> {
        Some(&mut self.bags)
    }
}
