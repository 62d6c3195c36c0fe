//! Aggregates that add and subtract: count, sum and average of integers and decimals. All sums are exact, in 192 bits,
//! so no number of rows makes them overflow. A result that does not fit into its type is NULL, counted and logged, until
//! it fits again: one group with absurd values stops no view, and a wrapped number is never shown.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Int64Array, RecordBatch, UInt64Array};
use arrow::datatypes::{
    DataType, Decimal128Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use datafusion::error::DataFusionError;

use super::Accumulator;
use super::bags::take_i64;
use crate::error::OpResult;
use crate::ops::keyed::malformed;

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

    fn save(&self, group: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.counts[group].to_be_bytes());
    }

    fn load(&mut self, group: usize, bytes: &mut &[u8]) -> OpResult<()> {
        self.counts[group] = take_i64(bytes)?;
        Ok(())
    }
}

/// A sum of 128-bit numbers, in 192 bits: high · 2^128 + low.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Wide {
    high: i64,
    low: u128,
}

impl Wide {
    fn add(&mut self, term: i128) {
        let (low, carried) = self.low.overflowing_add(term.cast_unsigned());
        self.low = low;
        self.high += i64::from(carried) - i64::from(term < 0);
    }

    fn add_times(&mut self, term: i128, weight: i64) {
        if let Some(product) = term.checked_mul(i128::from(weight)) {
            return self.add(product);
        }
        // Out of 128 bits at once: a huge value that occurs many times. Its halves are multiplied apart.
        self.add((term & i128::from(u64::MAX)) * i128::from(weight));
        let upper = (term >> 64) * i128::from(weight);
        let (low, carried) = self.low.overflowing_add(upper.cast_unsigned() << 64);
        self.low = low;
        self.high = self.high.wrapping_add(i64::try_from(upper >> 64).unwrap_or(0)).wrapping_add(i64::from(carried));
    }

    fn value(self) -> Option<i128> {
        let low = self.low.cast_signed();
        (self.high == if low < 0 { -1 } else { 0 }).then_some(low)
    }
}

/// Exact sum and number of the values that are not NULL.
#[derive(Debug, Default)]
struct Totals {
    sums: Vec<Wide>,
    counts: Vec<i64>,
}

impl Totals {
    fn resize(&mut self, n_groups: usize) {
        self.sums.resize(n_groups, Wide::default());
        self.counts.resize(n_groups, 0);
    }

    fn clear(&mut self, group: usize) {
        self.sums[group] = Wide::default();
        self.counts[group] = 0;
    }

    fn update(&mut self, groups: &[u32], weights: &[i64], column: &ArrayRef) -> OpResult<()> {
        macro_rules! add {
            ($t:ty) => {{
                let values = column.as_primitive::<$t>();
                for (i, (group, weight)) in groups.iter().zip(weights).enumerate() {
                    if *weight != 0 && values.is_valid(i) {
                        self.sums[*group as usize].add_times(i128::from(values.value(i)), *weight);
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

    fn save(&self, group: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.counts[group].to_be_bytes());
        out.extend_from_slice(&self.sums[group].high.to_be_bytes());
        out.extend_from_slice(&self.sums[group].low.to_be_bytes());
    }

    fn load(&mut self, group: usize, bytes: &mut &[u8]) -> OpResult<()> {
        self.counts[group] = take_i64(bytes)?;
        let high = take_i64(bytes)?;
        let (low, rest) = bytes.split_first_chunk::<16>().ok_or_else(malformed)?;
        self.sums[group] = Wide { high, low: u128::from_be_bytes(*low) };
        *bytes = rest;
        Ok(())
    }
}

/// The result of a group whose sum does not fit.
fn too_large<T>(output: &DataType) -> Option<T> {
    tracing::warn!(r#type = %output, "result is NULL: a sum does not fit into its type");
    metrics::counter!("pipelines_sum_overflows_total").increment(1);
    None
}

fn fits_precision(value: i128, precision: u8) -> bool {
    value.unsigned_abs() < 10_u128.checked_pow(u32::from(precision)).unwrap_or(u128::MAX)
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
            (a, DataType::Int64 | DataType::UInt64) => a.is_integer(),
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
        let (totals, output) = (&self.totals, &self.output);
        let sums = groups.iter().map(|g| *g as usize).map(|g| (totals.counts[g] != 0).then_some(totals.sums[g]));
        macro_rules! fitting {
            ($array:ty, $fit:expr) => {
                sums.map(|sum| sum.and_then(|s| s.value().and_then($fit).or_else(|| too_large(output))))
                    .collect::<$array>()
            };
        }
        Ok(match output {
            DataType::Int64 => Arc::new(fitting!(Int64Array, |v| i64::try_from(v).ok())),
            DataType::UInt64 => Arc::new(fitting!(UInt64Array, |v| u64::try_from(v).ok())),
            DataType::Decimal128(p, s) => Arc::new(
                fitting!(Decimal128Array, |v| fits_precision(v, *p).then_some(v)).with_precision_and_scale(*p, *s)?,
            ),
            other => return Err(DataFusionError::Internal(format!("cannot sum into {other}"))),
        })
    }

    fn save(&self, group: usize, out: &mut Vec<u8>) {
        self.totals.save(group, out);
    }

    fn load(&mut self, group: usize, bytes: &mut &[u8]) -> OpResult<()> {
        self.totals.load(group, bytes)
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

    fn average(&self, group: usize, precision: u8) -> Option<i128> {
        let (sum, count) = (self.totals.sums[group], self.totals.counts[group]);
        if count == 0 {
            return None;
        }
        let count = i128::from(count);
        let exact = sum.value().and_then(|sum| {
            // Whole part and rest apart, so that the factor does not push the sum out of 128 bits.
            let rest = (sum % count).checked_mul(self.factor)?;
            let is_up = (rest % count).unsigned_abs() * 2 >= count.unsigned_abs();
            let up = if is_up { sum.signum() } else { 0 };
            (sum / count).checked_mul(self.factor)?.checked_add(rest / count + up)
        });
        exact.filter(|v| fits_precision(*v, precision)).or_else(|| too_large(&self.output))
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
        let DataType::Decimal128(p, s) = self.output else {
            return Err(DataFusionError::Internal("average of decimals is a decimal".to_owned()));
        };
        let values = groups.iter().map(|g| self.average(*g as usize, p)).collect::<Decimal128Array>();
        Ok(Arc::new(values.with_precision_and_scale(p, s)?))
    }

    fn save(&self, group: usize, out: &mut Vec<u8>) {
        self.totals.save(group, out);
    }

    fn load(&mut self, group: usize, bytes: &mut &[u8]) -> OpResult<()> {
        self.totals.load(group, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_that_left_its_range_comes_back() {
        let mut sum = Wide::default();
        sum.add_times(i128::MAX, 5);
        sum.add_times(i128::MIN, 3);
        assert_eq!(sum.value(), None);
        sum.add_times(i128::MAX, -5);
        sum.add(7);
        sum.add_times(i128::MIN, -3);
        assert_eq!(sum.value(), Some(7));
        sum.add(-8);
        assert_eq!(sum.value(), Some(-1));
        sum.add_times(i128::MAX, i64::MAX);
        sum.add_times(i128::MAX, i64::MIN);
        sum.add(i128::MAX);
        assert_eq!(sum.value(), Some(-1));
    }

    #[test]
    fn a_result_that_does_not_fit_is_null_until_it_fits() {
        let schema = arrow::datatypes::Schema::new(vec![arrow::datatypes::Field::new("v", DataType::Int64, true)]);
        let rows = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int64Array::from(vec![i64::MAX, i64::MAX]))])
            .expect("one column");
        let mut sum = Sum::new(0, DataType::Int64);
        sum.resize(1);
        sum.update(&[0, 0], &[1, 1], &rows).expect("integers");
        assert!(sum.evaluate(&[0]).expect("evaluates").is_null(0));
        sum.update(&[0, 0], &[-1, 0], &rows).expect("integers");
        assert_eq!(sum.evaluate(&[0]).expect("evaluates").as_primitive::<Int64Type>().value(0), i64::MAX);
    }
}
