//! AVG of decimals as Flink has it: a DECIMAL(38, max(6, s)), rounded half away from zero. Everything else is averaged by
//! DataFusion's function, whose name this one has.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, Field, FieldRef, Int64Type, i256};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::functions_aggregate::average::avg_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, Signature,
};

/// Digits of every average of decimals, and the fewest that stand behind its point.
const PRECISION: u8 = 38;
const SCALE_MIN: i8 = 6;

/// AVG.
pub(super) fn function() -> AggregateUDF {
    AggregateUDF::from(Average { plain: avg_udaf() })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Average {
    plain: Arc<AggregateUDF>,
}

impl Average {
    fn is_decimal(args: &AccumulatorArgs<'_>) -> bool {
        matches!(args.expr_fields.first().map(|f| f.data_type()), Some(DataType::Decimal128(_, _)))
    }
}

impl AggregateUDFImpl for Average {
    fn name(&self) -> &str {
        self.plain.name()
    }

    fn aliases(&self) -> &[String] {
        self.plain.aliases()
    }

    fn signature(&self) -> &Signature {
        self.plain.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types.first() {
            Some(DataType::Decimal128(_, scale)) => Ok(DataType::Decimal128(PRECISION, SCALE_MIN.max(*scale))),
            _ => self.plain.return_type(types),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        match Self::is_decimal(&args) {
            true => Ok(Box::new(Mean::of(&args)?)),
            false => self.plain.accumulator(args),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        match Self::is_decimal(&args) {
            true => Ok(Box::new(Mean::of(&args)?)),
            false => self.plain.create_sliding_accumulator(args),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        match args.input_fields.first().map(|f| f.data_type()) {
            Some(decimal @ DataType::Decimal128(_, scale)) => Ok(vec![
                Arc::new(Field::new(format!("{}[sum]", args.name), DataType::Decimal256(76, *scale), true)),
                Arc::new(Field::new(format!("{}[count]", args.name), DataType::Int64, true)),
                Arc::new(Field::new_list(
                    format!("{}[values]", args.name),
                    Field::new_list_field(decimal.clone(), true),
                    true,
                )),
            ]),
            _ => self.plain.state_fields(args),
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        !Self::is_decimal(&args) && self.plain.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        self.plain.create_groups_accumulator(args)
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }
}

/// The quotient of a sum and a count, rounded half away from zero.
pub(crate) fn rounded(sum: i256, factor: i256, count: i64) -> Option<i256> {
    let count = i256::from_i128(i128::from(count));
    let wide = sum.checked_mul(factor)?;
    let (quotient, rest) = (wide.checked_div(count)?, wide.checked_rem(count)?);
    let rest = if rest.is_negative() { rest.wrapping_neg() } else { rest };
    let is_up = rest.checked_mul(i256::from_i128(2))? >= count;
    let one = if wide.is_negative() { i256::MINUS_ONE } else { i256::ONE };
    if is_up { quotient.checked_add(one) } else { Some(quotient) }
}

/// Sum and count of decimals; with DISTINCT, the values.
#[derive(Debug)]
struct Mean {
    input: DataType,
    scale: i8,
    /// 10^(output scale − input scale).
    factor: i256,
    sum: i256,
    count: i64,
    different: Option<HashSet<i128>>,
}

impl Mean {
    fn of(args: &AccumulatorArgs<'_>) -> Result<Self> {
        let (input, output) = (args.expr_fields[0].data_type().clone(), args.return_field.data_type());
        let (DataType::Decimal128(_, from), DataType::Decimal128(_, to)) = (&input, output) else {
            return exec_err!("an average of {input} is no {output}");
        };
        let digits = u32::try_from(to - from).unwrap_or(0);
        let factor = i256::from_i128(10_i128.pow(digits));
        let different = args.is_distinct.then(HashSet::new);
        Ok(Self { scale: *to, input, factor, sum: i256::ZERO, count: 0, different })
    }

    fn add(&mut self, value: i128) {
        if self.different.as_mut().is_none_or(|known| known.insert(value)) {
            self.sum = self.sum.wrapping_add(i256::from_i128(value));
            self.count += 1;
        }
    }
}

impl Accumulator for Mean {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        values[0].as_primitive::<Decimal128Type>().iter().flatten().for_each(|v| self.add(v));
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in values[0].as_primitive::<Decimal128Type>().iter().flatten() {
            self.sum = self.sum.wrapping_sub(i256::from_i128(value));
            self.count -= 1;
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        self.different.is_none()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let value = if self.count == 0 { None } else { rounded(self.sum, self.factor, self.count) };
        let fits = |v: &i128| v.unsigned_abs() < 10_u128.pow(u32::from(PRECISION));
        let value = value.and_then(i256::to_i128).filter(fits);
        Ok(ScalarValue::Decimal128(value, PRECISION, self.scale))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.different.as_ref().map_or(0, |d| d.capacity() * size_of::<i128>())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let (precision, scale) = match self.input {
            DataType::Decimal128(precision, scale) => (precision, scale),
            _ => (PRECISION, self.scale),
        };
        let values: Vec<ScalarValue> =
            self.different.iter().flatten().map(|v| ScalarValue::Decimal128(Some(*v), precision, scale)).collect();
        Ok(vec![
            ScalarValue::Decimal256(Some(self.sum), 76, scale),
            ScalarValue::Int64(Some(self.count)),
            ScalarValue::List(ScalarValue::new_list_nullable(&values, &self.input)),
        ])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        if self.different.is_some() {
            for values in states[2].as_list::<i32>().iter().flatten() {
                values.as_primitive::<Decimal128Type>().iter().flatten().for_each(|v| self.add(v));
            }
            return Ok(());
        }
        let (sums, counts) = (states[0].as_primitive::<Decimal256Type>(), states[1].as_primitive::<Int64Type>());
        for row in (0..sums.len()).filter(|row| sums.is_valid(*row)) {
            self.sum = self.sum.wrapping_add(sums.value(row));
            self.count += counts.value(row);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_rounded_away_from_zero() {
        let mean = |sum: i128, count| rounded(i256::from_i128(sum), i256::ONE, count).and_then(i256::to_i128);
        assert_eq!(mean(5, 2), Some(3));
        assert_eq!(mean(-5, 2), Some(-3));
        assert_eq!(mean(7, 3), Some(2));
        assert_eq!(mean(8, 3), Some(3));
        assert_eq!(mean(-8, 3), Some(-3));
        assert_eq!(mean(0, 3), Some(0));
    }
}
