//! `PERCENTILE_DISC(share) WITHIN GROUP (ORDER BY x)` and `MODE() WITHIN GROUP (ORDER BY x)`: a value of the group itself; and
//! `PERCENTILE_CONT`, which lies between two values, and for which the planner's own function takes steps of a millionth.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, Signature, Volatility};

/// All of them.
pub(super) fn functions() -> [AggregateUDF; 3] {
    [Which::Between, Which::Percentile, Which::Mode].map(|which| {
        let aliases = match which {
            Which::Between => vec!["quantile_cont".to_owned()],
            Which::Percentile => vec!["quantile_disc".to_owned()],
            Which::Mode => Vec::new(),
        };
        AggregateUDF::from(OfOrderedSet { which, aliases, signature: Signature::user_defined(Volatility::Immutable) })
    })
}

/// The place, counted from 0, of the value at a share of `n` values.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a place: whole, not negative, and below 2^53"
)]
pub(crate) fn place_of(share: f64, n: u64) -> u64 {
    ((share * n as f64).ceil() as u64).saturating_sub(1).min(n.saturating_sub(1))
}

/// The places, counted from 0, of the values around a share of the way from the first of `n` values to the last, and how far
/// it is from the one to the other.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "places: whole, not negative, and below 2^53"
)]
pub(crate) fn places_around(share: f64, n: u64) -> (u64, u64, f64) {
    let at = share * n.saturating_sub(1) as f64;
    (at.floor() as u64, at.ceil() as u64, at - at.floor())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Which {
    Between,
    Percentile,
    Mode,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OfOrderedSet {
    which: Which,
    aliases: Vec<String>,
    signature: Signature,
}

impl AggregateUDFImpl for OfOrderedSet {
    fn name(&self) -> &'static str {
        match self.which {
            Which::Between => "percentile_cont",
            Which::Percentile => "percentile_disc",
            Which::Mode => "mode",
        }
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match (self.which, types) {
            (Which::Between, [value, share]) if value.is_numeric() && share.is_numeric() => {
                Ok(vec![DataType::Float64, DataType::Float64])
            }
            (Which::Between, _) => {
                plan_err!("PERCENTILE_CONT is written PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY x), over numbers")
            }
            (Which::Percentile, [value, share]) if share.is_numeric() => Ok(vec![value.clone(), DataType::Float64]),
            (Which::Percentile, _) => {
                plan_err!("PERCENTILE_DISC is written PERCENTILE_DISC(0.5) WITHIN GROUP (ORDER BY x)")
            }
            (Which::Mode, [value]) => Ok(vec![value.clone()]),
            (Which::Mode, _) => plan_err!("MODE is written MODE() WITHIN GROUP (ORDER BY x)"),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Null))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let values = Field::new_list_field(args.input_fields[0].data_type().clone(), true);
        Ok(vec![Arc::new(Field::new_list(format!("{}[values]", args.name), values, true))])
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let share = match args.exprs.get(1) {
            Some(share) => match share.evaluate(&RecordBatch::new_empty(Arc::new(args.schema.clone())))? {
                ColumnarValue::Scalar(ScalarValue::Float64(Some(share))) if (0.0..=1.0).contains(&share) => Some(share),
                _ => return exec_err!("the share of a percentile is a number from 0 to 1"),
            },
            None => None,
        };
        Ok(Box::new(Values {
            between: self.which == Which::Between,
            share,
            descending: args.order_bys.first().is_some_and(|sort| sort.options.descending),
            is_distinct: args.is_distinct,
            data_type: args.expr_fields[0].data_type().clone(),
            values: Vec::new(),
        }))
    }

    fn supports_within_group_clause(&self) -> bool {
        true
    }
}

/// All values of a group that are not NULL.
#[derive(Debug)]
struct Values {
    /// The value may lie between two of the group.
    between: bool,
    /// `None` for the most frequent value.
    share: Option<f64>,
    descending: bool,
    is_distinct: bool,
    data_type: DataType,
    values: Vec<ScalarValue>,
}

impl Accumulator for Values {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for row in (0..values[0].len()).filter(|row| values[0].is_valid(*row)) {
            self.values.push(ScalarValue::try_from_array(&values[0], row)?);
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.values.sort_by(|a, b| {
            let order = a.partial_cmp(b).unwrap_or(Ordering::Equal);
            if self.descending { order.reverse() } else { order }
        });
        if self.is_distinct {
            self.values.dedup();
        }
        let n = u64::try_from(self.values.len()).unwrap_or(u64::MAX);
        let found = match self.share {
            Some(share) if self.between && n > 0 => {
                let (low, high, part) = places_around(share, n);
                let value = |place: u64| match self.values.get(usize::try_from(place).unwrap_or(usize::MAX)) {
                    Some(ScalarValue::Float64(Some(value))) => *value,
                    _ => f64::NAN,
                };
                return Ok(ScalarValue::Float64(Some(value(low) + (value(high) - value(low)) * part)));
            }
            Some(share) => {
                let place = place_of(share, n);
                self.values.get(usize::try_from(place).unwrap_or(usize::MAX))
            }
            None => {
                let mut best: &[ScalarValue] = &[];
                for run in self.values.chunk_by(|a, b| a == b) {
                    if run.len() > best.len() {
                        best = run;
                    }
                }
                best.first()
            }
        };
        found.cloned().map_or_else(|| ScalarValue::try_from(&self.data_type), Ok)
    }

    fn size(&self) -> usize {
        size_of_val(self) + ScalarValue::size_of_vec(&self.values)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(&self.values, &self.data_type))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for values in states[0].as_list::<i32>().iter().flatten() {
            self.update_batch(&[values])?;
        }
        Ok(())
    }
}
