//! Division of decimals, and the multiplication of long ones; see [`crate::sql::Operators`].
//!
//! The planner's own division keeps four digits more than the dividend has, cut off: 1 / 33.40 would be 0.0299. Flink's
//! type of p1,s1 / p2,s2 has max(6, s1 + p2 + 1) decimals, rounded half up. Of results that would have more than 38
//! digits Flink keeps 6 decimals; here up to [`SCALE_MAX`] are kept.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Decimal128Array};
use arrow::datatypes::{DataType, Decimal128Type, i256};
use arrow::error::ArrowError;
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// The most digits of a decimal.
const PRECISION_MAX: u8 = 38;
/// The most decimals that a quotient or a long product is given, so that 18 digits are left before the point; an operand
/// with more keeps them.
const SCALE_MAX: u8 = 20;
/// The fewest decimals of a quotient, as on Flink.
const QUOTIENT_SCALE_MIN: u8 = 6;

/// What is done with two decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Arithmetic {
    Divide,
    Multiply,
}

impl Arithmetic {
    pub(crate) fn function(self) -> Arc<ScalarUDF> {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::from(DecimalFunction { arithmetic: self, signature }))
    }

    /// Precision and scale of the result.
    fn result(self, (p1, s1): (u8, u8), (p2, s2): (u8, u8)) -> (u8, u8) {
        match self {
            Self::Divide => {
                let scale = QUOTIENT_SCALE_MIN.max(s1 + p2 + 1).min(SCALE_MAX).max(s1);
                ((p1 - s1 + s2 + scale).min(PRECISION_MAX), scale)
            }
            Self::Multiply if p1 + p2 <= PRECISION_MAX => (p1 + p2, s1 + s2),
            Self::Multiply => (PRECISION_MAX, (s1 + s2).min(SCALE_MAX).max(s1).max(s2)),
        }
    }

    /// The result's unscaled value; `shift` are the digits that it has more than the plain operation gives. `None` if it
    /// has no place in 128 bits.
    fn compute(self, a: i128, b: i128, shift: i32) -> Option<i128> {
        let power = 10_i128.pow(shift.unsigned_abs().min(u32::from(PRECISION_MAX)));
        let (numerator, denominator) = match self {
            Self::Divide if shift >= 0 => (i256::from_i128(a).checked_mul(ten_to(shift)?)?, i256::from_i128(b)),
            Self::Divide => (i256::from_i128(a), i256::from_i128(b).checked_mul(i256::from_i128(power))?),
            Self::Multiply => (
                i256::from_i128(a).checked_mul(i256::from_i128(b))?,
                if shift < 0 { i256::from_i128(power) } else { i256::ONE },
            ),
        };
        if let (Some(n), Some(d)) = (numerator.to_i128(), denominator.to_i128()) {
            return rounded_short(n, d);
        }
        rounded(numerator, denominator)?.to_i128()
    }
}

fn ten_to(n: i32) -> Option<i256> {
    i256::from_i128(10).checked_pow(n.unsigned_abs())
}

/// `n / d`, half away from zero.
fn rounded_short(n: i128, d: i128) -> Option<i128> {
    let (quotient, rest) = (n.checked_div(d)?, n.checked_rem(d)?);
    let up = rest.unsigned_abs() >= d.unsigned_abs() - rest.unsigned_abs();
    let step = if (n < 0) == (d < 0) { 1 } else { -1 };
    if rest != 0 && up { quotient.checked_add(step) } else { Some(quotient) }
}

fn rounded(n: i256, d: i256) -> Option<i256> {
    let (quotient, rest) = (n.checked_div(d)?, n.checked_rem(d)?);
    let (rest_abs, d_abs) = (rest.wrapping_abs(), d.wrapping_abs());
    let up = rest_abs >= d_abs.wrapping_sub(rest_abs);
    let step = if n.is_negative() == d.is_negative() { i256::ONE } else { i256::MINUS_ONE };
    if rest != i256::ZERO && up { quotient.checked_add(step) } else { Some(quotient) }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DecimalFunction {
    arithmetic: Arithmetic,
    signature: Signature,
}

/// Precision and scale.
fn digits(data_type: &DataType) -> Result<(u8, u8)> {
    match data_type {
        DataType::Decimal128(p, s) => match u8::try_from(*s) {
            Ok(s) => Ok((*p, s)),
            Err(_) => plan_err!("a decimal with a negative scale"),
        },
        other => plan_err!("a decimal is wanted, not {other}"),
    }
}

impl ScalarUDFImpl for DecimalFunction {
    fn name(&self) -> &str {
        match self.arithmetic {
            Arithmetic::Divide => "andon_divide",
            Arithmetic::Multiply => "andon_multiply",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// A column without a name of its own is named as the operator has it.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let sign = if self.arithmetic == Arithmetic::Divide { "/" } else { "*" };
        let names: Vec<String> = args.iter().map(|a| a.schema_name().to_string()).collect();
        Ok(names.join(&format!(" {sign} ")))
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        types.iter().try_for_each(|t| digits(t).map(|_| ()))?;
        Ok(types.to_vec())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let (precision, scale) = self.arithmetic.result(digits(&types[0])?, digits(&types[1])?);
        match i8::try_from(scale) {
            Ok(scale) => Ok(DataType::Decimal128(precision, scale)),
            Err(_) => plan_err!("a decimal with {scale} decimals"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let all_constant = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let n_rows = if all_constant { 1 } else { args.number_rows };
        let columns = args.args.iter().map(|a| a.to_array(n_rows)).collect::<Result<Vec<_>>>()?;
        let ((_, s1), (_, s2)) = (digits(columns[0].data_type())?, digits(columns[1].data_type())?);
        let (precision, scale) = digits(args.return_field.data_type())?;
        let (s1, s2, s) = (i32::from(s1), i32::from(s2), i32::from(scale));
        let shift = if self.arithmetic == Arithmetic::Divide { s + s2 - s1 } else { s - s1 - s2 };
        let limit = 10_u128.pow(u32::from(precision));
        let (left, right) = (columns[0].as_primitive::<Decimal128Type>(), columns[1].as_primitive::<Decimal128Type>());
        let mut out = Vec::with_capacity(n_rows);
        for pair in left.iter().zip(right) {
            let (Some(a), Some(b)) = pair else {
                out.push(None);
                continue;
            };
            if b == 0 && self.arithmetic == Arithmetic::Divide {
                return Err(ArrowError::DivideByZero.into());
            }
            match self.arithmetic.compute(a, b, shift).filter(|v| v.unsigned_abs() < limit) {
                Some(value) => out.push(Some(value)),
                None => return exec_err!("a result has more than {precision} digits, {scale} of them decimals"),
            }
        }
        let array: Decimal128Array = out.into_iter().collect();
        let array = array.with_data_type(args.return_field.data_type().clone());
        if all_constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?));
        }
        Ok(ColumnarValue::Array(Arc::new(array)))
    }
}

#[cfg(test)]
mod tests {
    use super::Arithmetic::{Divide, Multiply};

    #[test]
    fn types_are_flinks_and_bounded() {
        assert_eq!(Divide.result((10, 2), (10, 0)), (21, 13));
        assert_eq!(Divide.result((3, 0), (3, 2)), (11, 6));
        assert_eq!(Divide.result((38, 12), (38, 12)), (38, 20));
        assert_eq!(Divide.result((38, 30), (10, 0)), (38, 30));
        assert_eq!(Multiply.result((20, 4), (18, 6)), (38, 10));
        assert_eq!(Multiply.result((38, 12), (38, 12)), (38, 20));
    }

    #[test]
    fn results_are_rounded_half_away_from_zero() {
        assert_eq!(Divide.compute(2, 3, 4), Some(6_667));
        assert_eq!(Divide.compute(-2, 3, 4), Some(-6_667));
        assert_eq!(Divide.compute(1, 8, 2), Some(13));
        assert_eq!(Divide.compute(-1, 8, 2), Some(-13));
        assert_eq!(Divide.compute(1, -8, 1), Some(-1));
        assert_eq!(Divide.compute(25, 1, -1), Some(3));
        // Too long for 128 bits on the way.
        assert_eq!(Divide.compute(10_i128.pow(37), 3 * 10_i128.pow(36), 20), Some(333_333_333_333_333_333_333));
        assert_eq!(Multiply.compute(10_i128.pow(30), 15, -1), Some(15 * 10_i128.pow(29)));
        assert_eq!(Multiply.compute(10_i128.pow(30), 10_i128.pow(20), -30), Some(10_i128.pow(20)));
        assert_eq!(Multiply.compute(10_i128.pow(30), 10_i128.pow(30), 0), None);
    }
}
