//! Intervals compared and multiplied; see [`crate::sql::Operators`].

use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, IntervalMonthDayNanoArray};
use arrow::datatypes::{DataType, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

const MONTH_DAY_NANO: DataType = DataType::Interval(IntervalUnit::MonthDayNano);
/// A month and a day, for comparing.
const DAYS_PER_MONTH: i128 = 30;
const US_PER_DAY: i128 = 86_400_000_000;

/// What is done with an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum IntervalFunction {
    /// Its length in microseconds; a month has 30 days, a day 24 hours.
    Length,
    /// Times a whole number.
    Times,
}

impl IntervalFunction {
    pub(crate) fn function(self) -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::from(Udf { what: self, signature: Signature::user_defined(Volatility::Immutable) }))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Udf {
    what: IntervalFunction,
    signature: Signature,
}

impl ScalarUDFImpl for Udf {
    fn name(&self) -> &str {
        match self.what {
            IntervalFunction::Length => "andon_interval_length",
            IntervalFunction::Times => "andon_interval_times",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        if !matches!(types[0], DataType::Interval(_) | DataType::Duration(_) | DataType::Null) {
            return plan_err!("an interval is wanted, not {}", types[0]);
        }
        Ok([MONTH_DAY_NANO, DataType::Int64].into_iter().take(types.len()).collect())
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(if self.what == IntervalFunction::Length { DataType::Int64 } else { MONTH_DAY_NANO })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let intervals = columns[0].as_primitive::<IntervalMonthDayNanoType>();
        if self.what == IntervalFunction::Length {
            let lengths: Int64Array = intervals.iter().map(|i| i.map(length_us)).collect();
            return Ok(ColumnarValue::Array(Arc::new(lengths)));
        }
        let mut out = Vec::with_capacity(args.number_rows);
        for (interval, n) in intervals.iter().zip(columns[1].as_primitive::<Int64Type>()) {
            let Some((interval, n)) = interval.zip(n) else {
                out.push(None);
                continue;
            };
            match times(interval, n) {
                Some(product) => out.push(Some(product)),
                None => return exec_err!("an interval times {n} is too long"),
            }
        }
        Ok(ColumnarValue::Array(Arc::new(IntervalMonthDayNanoArray::from_iter(out))))
    }
}

fn length_us(interval: IntervalMonthDayNano) -> i64 {
    let days = i128::from(interval.months) * DAYS_PER_MONTH + i128::from(interval.days);
    let us = days * US_PER_DAY + i128::from(interval.nanoseconds) / 1_000;
    i64::try_from(us).unwrap_or(if us < 0 { i64::MIN } else { i64::MAX })
}

fn times(interval: IntervalMonthDayNano, n: i64) -> Option<IntervalMonthDayNano> {
    let short = |part: i32| i32::try_from(i64::from(part).checked_mul(n)?).ok();
    Some(IntervalMonthDayNano::new(
        short(interval.months)?,
        short(interval.days)?,
        interval.nanoseconds.checked_mul(n)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_compared_with_days() {
        let hours = |h: i64| length_us(IntervalMonthDayNano::new(0, 0, h * 3_600_000_000_000));
        let days = |d: i32| length_us(IntervalMonthDayNano::new(0, d, 0));
        assert!(hours(25) > days(1) && hours(23) < days(1) && hours(24) == days(1));
        assert!(days(29) < length_us(IntervalMonthDayNano::new(1, 0, 0)));
    }

    #[test]
    fn products_that_are_too_long_are_errors() {
        let week = IntervalMonthDayNano::new(0, 7, 0);
        assert_eq!(times(week, -2), Some(IntervalMonthDayNano::new(0, -14, 0)));
        assert_eq!(times(week, i64::MAX), None);
    }
}
