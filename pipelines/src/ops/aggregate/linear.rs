//! Aggregates that add and subtract: count, sum and average of integers and decimals. All sums are exact, in 128
//! bits; floats are not summed here, since they drift.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Int64Array, RecordBatch, UInt64Array};
use arrow::datatypes::{
    DataType, Decimal128Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use datafusion::error::DataFusionError;

use super::Accumulator;
use crate::error::OpResult;

/// Number of rows whose arguments are all not NULL.
#[derive(Debug)]
pub(super) struct Count {
    args: Vec<usize>,
    counts: Vec<i64>,
}

impl Count {
    pub(super) fn new(args: Vec<usize>) -> Self {
        Self { args, counts: Vec::new() }
    }
}

impl Accumulator for Count {
    fn resize(&mut self, n_groups: usize) {
        self.counts.resize(n_groups, 0);
    }

    fn clear(&mut self, group: usize) {
        self.counts[group] = 0;
    }

    fn update(&mut self, groups: &[u32], weights: &[i64], batch: &RecordBatch) -> OpResult<()> {
        let nullable: Vec<&ArrayRef> =
            self.args.iter().map(|i| batch.column(*i)).filter(|c| c.null_count() > 0).collect();
        for (i, (group, weight)) in groups.iter().zip(weights).enumerate() {
            if nullable.iter().all(|c| c.is_valid(i)) {
                self.counts[*group as usize] += weight;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, groups: &[u32]) -> OpResult<ArrayRef> {
        Ok(Arc::new(groups.iter().map(|g| self.counts[*g as usize]).collect::<Int64Array>()))
    }
}

/// Exact sum and number of the values that are not NULL.
#[derive(Debug, Default)]
struct Totals {
    sums: Vec<i128>,
    counts: Vec<i64>,
}

impl Totals {
    fn resize(&mut self, n_groups: usize) {
        self.sums.resize(n_groups, 0);
        self.counts.resize(n_groups, 0);
    }

    fn clear(&mut self, group: usize) {
        self.sums[group] = 0;
        self.counts[group] = 0;
    }

    fn update(&mut self, groups: &[u32], weights: &[i64], column: &ArrayRef) -> OpResult<()> {
        macro_rules! add {
            ($t:ty) => {{
                let values = column.as_primitive::<$t>();
                for (i, (group, weight)) in groups.iter().zip(weights).enumerate() {
                    if *weight != 0 && values.is_valid(i) {
                        let term = i128::from(values.value(i)).checked_mul(i128::from(*weight));
                        let sum = &mut self.sums[*group as usize];
                        *sum = term.and_then(|t| sum.checked_add(t)).ok_or_else(overflow)?;
                        self.counts[*group as usize] += weight;
                    }
                }
            }};
        }
        match column.data_type() {
            DataType::Int8 => add!(Int8Type),
            DataType::Int16 => add!(Int16Type),
            DataType::Int32 => add!(Int32Type),
            DataType::Int64 => add!(Int64Type),
            DataType::UInt8 => add!(UInt8Type),
            DataType::UInt16 => add!(UInt16Type),
            DataType::UInt32 => add!(UInt32Type),
            DataType::UInt64 => add!(UInt64Type),
            DataType::Decimal128(_, _) => add!(Decimal128Type),
            other => return Err(DataFusionError::Internal(format!("cannot sum {other} exactly"))),
        }
        Ok(())
    }
}

fn overflow() -> DataFusionError {
    DataFusionError::Execution("a sum does not fit into 38 decimal digits".to_owned())
}

fn is_integer(data_type: &DataType) -> bool {
    data_type.is_integer()
}

/// SUM of integers and decimals; NULL if there is no value.
#[derive(Debug)]
pub(super) struct Sum {
    arg: usize,
    output: DataType,
    totals: Totals,
}

impl Sum {
    pub(super) fn supports(arg: &DataType, output: &DataType) -> bool {
        match (arg, output) {
            (a, DataType::Int64 | DataType::UInt64) => is_integer(a),
            (DataType::Decimal128(_, s), DataType::Decimal128(_, t)) => s == t,
            _ => false,
        }
    }

    pub(super) fn new(arg: usize, output: DataType) -> Self {
        Self { arg, output, totals: Totals::default() }
    }
}

impl Accumulator for Sum {
    fn resize(&mut self, n_groups: usize) {
        self.totals.resize(n_groups);
    }

    fn clear(&mut self, group: usize) {
        self.totals.clear(group);
    }

    fn update(&mut self, groups: &[u32], weights: &[i64], batch: &RecordBatch) -> OpResult<()> {
        self.totals.update(groups, weights, batch.column(self.arg))
    }

    fn evaluate(&mut self, groups: &[u32]) -> OpResult<ArrayRef> {
        let totals = &self.totals;
        let values = groups.iter().map(|g| *g as usize).map(|g| (totals.counts[g] != 0).then_some(totals.sums[g]));
        Ok(match &self.output {
            DataType::Int64 => Arc::new(
                values
                    .map(|v| v.map(i64::try_from).transpose())
                    .collect::<Result<Int64Array, _>>()
                    .map_err(|_| overflow())?,
            ),
            DataType::UInt64 => Arc::new(
                values
                    .map(|v| v.map(u64::try_from).transpose())
                    .collect::<Result<UInt64Array, _>>()
                    .map_err(|_| overflow())?,
            ),
            DataType::Decimal128(p, s) => {
                Arc::new(values.collect::<Decimal128Array>().with_precision_and_scale(*p, *s)?)
            }
            other => return Err(DataFusionError::Internal(format!("cannot sum into {other}"))),
        })
    }
}

/// AVG of decimals, to four more digits as DataFusion has it, cut off and not rounded.
#[derive(Debug)]
pub(super) struct DecimalAverage {
    arg: usize,
    output: DataType,
    /// 10^(output scale − input scale).
    factor: i128,
    totals: Totals,
}

impl DecimalAverage {
    pub(super) fn supports(arg: &DataType, output: &DataType) -> bool {
        matches!((arg, output), (DataType::Decimal128(_, s), DataType::Decimal128(_, t)) if t >= s)
    }

    pub(super) fn new(arg: usize, input: &DataType, output: DataType) -> Self {
        let scale = |t: &DataType| if let DataType::Decimal128(_, s) = t { i32::from(*s) } else { 0 };
        let digits = u32::try_from(scale(&output) - scale(input)).unwrap_or(0);
        Self { arg, output, factor: 10_i128.pow(digits), totals: Totals::default() }
    }
}

impl Accumulator for DecimalAverage {
    fn resize(&mut self, n_groups: usize) {
        self.totals.resize(n_groups);
    }

    fn clear(&mut self, group: usize) {
        self.totals.clear(group);
    }

    fn update(&mut self, groups: &[u32], weights: &[i64], batch: &RecordBatch) -> OpResult<()> {
        self.totals.update(groups, weights, batch.column(self.arg))
    }

    fn evaluate(&mut self, groups: &[u32]) -> OpResult<ArrayRef> {
        let average = |g: &u32| {
            let (sum, count) = (self.totals.sums[*g as usize], self.totals.counts[*g as usize]);
            if count == 0 {
                return Ok(None);
            }
            let scaled = sum.checked_mul(self.factor).ok_or_else(overflow)?;
            Ok(Some(scaled / i128::from(count)))
        };
        let values = groups.iter().map(average).collect::<OpResult<Decimal128Array>>()?;
        let DataType::Decimal128(p, s) = self.output else {
            return Err(DataFusionError::Internal("average of decimals is a decimal".to_owned()));
        };
        Ok(Arc::new(values.with_precision_and_scale(p, s)?))
    }
}
