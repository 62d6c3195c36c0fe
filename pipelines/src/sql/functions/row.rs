//! Functions that are computed row by row: what they take, what they give, and how.

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

/// What an argument is turned into before the function sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Arg {
    /// `Utf8`.
    Text,
    /// `Int64`.
    Int,
    /// A timestamp in microseconds, with its zone if it has one; dates become midnight, text is parsed.
    Time,
    /// As [`Arg::Time`], but a date stays a date.
    TimeOrDate,
    /// Text, a timestamp in microseconds, a date, or a whole number.
    Any,
}

impl Arg {
    fn coerced(self, given: &DataType) -> Result<DataType> {
        let time = |zone| DataType::Timestamp(TimeUnit::Microsecond, zone);
        Ok(match (self, given) {
            (Self::Text, DataType::List(_) | DataType::Struct(_) | DataType::Map(_, _)) => {
                return plan_err!("a text is wanted, not {given}");
            }
            (Self::Text, _) => DataType::Utf8,
            (Self::Int, _) => DataType::Int64,
            (_, DataType::Timestamp(_, zone)) => time(zone.clone()),
            (Self::TimeOrDate | Self::Any, DataType::Date32) => DataType::Date32,
            (Self::Any, d) if d.is_numeric() => DataType::Int64,
            (Self::Any, _) => DataType::Utf8,
            (_, DataType::Date32 | DataType::Date64 | DataType::Utf8 | DataType::Utf8View | DataType::Null) => {
                time(None)
            }
            _ => return plan_err!("a timestamp is wanted, not {given}"),
        })
    }
}

/// A function of rows.
#[derive(Debug, Clone)]
pub(super) struct RowFunction {
    pub(super) name: &'static str,
    /// Arguments; those from `n_required` on may be left out.
    pub(super) args: &'static [Arg],
    pub(super) n_required: usize,
    /// Type of the result by the types of the coerced arguments.
    pub(super) returns: fn(&[DataType]) -> DataType,
    /// The column of results; all arguments have the same length.
    pub(super) compute: fn(&Columns) -> Result<ArrayRef>,
}

impl RowFunction {
    pub(super) fn into_udf(self) -> ScalarUDF {
        ScalarUDF::from(Udf { function: self, signature: Signature::user_defined(Volatility::Immutable) })
    }
}

/// The arguments of a call as columns.
#[derive(Debug)]
pub(super) struct Columns {
    columns: Vec<ArrayRef>,
    n_rows: usize,
}

impl Columns {
    pub(super) fn n_rows(&self) -> usize {
        self.n_rows
    }

    pub(super) fn column(&self, at: usize) -> Option<&ArrayRef> {
        self.columns.get(at)
    }

    /// A text; `None` if it is NULL or was left out.
    pub(super) fn text(&self, at: usize, row: usize) -> Option<&str> {
        let column: &StringArray = self.columns.get(at)?.as_string();
        column.is_valid(row).then(|| column.value(row))
    }

    pub(super) fn int(&self, at: usize, row: usize) -> Option<i64> {
        let column = self.columns.get(at)?.as_primitive::<Int64Type>();
        column.is_valid(row).then(|| column.value(row))
    }
}

#[derive(Debug)]
struct Udf {
    function: RowFunction,
    signature: Signature,
}

impl PartialEq for Udf {
    fn eq(&self, other: &Self) -> bool {
        self.function.name == other.function.name
    }
}

impl Eq for Udf {}

impl std::hash::Hash for Udf {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.function.name.hash(state);
    }
}

impl ScalarUDFImpl for Udf {
    fn name(&self) -> &str {
        self.function.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let f = &self.function;
        if types.len() < f.n_required || types.len() > f.args.len() {
            return plan_err!("{} takes {} to {} arguments, not {}", f.name, f.n_required, f.args.len(), types.len());
        }
        f.args.iter().zip(types).map(|(arg, given)| arg.coerced(given)).collect()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok((self.function.returns)(types))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let all_constant = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let n_rows = if all_constant { 1 } else { args.number_rows };
        let columns = args.args.iter().map(|a| a.to_array(n_rows)).collect::<Result<_>>()?;
        let result = (self.function.compute)(&Columns { columns, n_rows })?;
        if all_constant {
            return Ok(ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}
