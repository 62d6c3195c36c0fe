//! A subquery that is used as a value must have one row at most: the function that says so.

use arrow::datatypes::DataType;
use datafusion::common::cast::as_int64_array;
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

/// `(value, number of rows)`: the value, and an error where there is more than one row.
pub(crate) fn function() -> ScalarUDF {
    ScalarUDF::from(OneRow { signature: Signature::any(2, Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OneRow {
    signature: Signature,
}

impl ScalarUDFImpl for OneRow {
    fn name(&self) -> &'static str {
        "andon_one_row"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Null))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value, n] = args.args.as_slice() else { return exec_err!("andon_one_row takes two arguments") };
        let n = n.to_array(args.number_rows)?;
        let n = as_int64_array(&n)?;
        if n.iter().flatten().any(|n| n > 1) {
            return exec_err!("a subquery that is used as a value has {} rows", n.iter().flatten().max().unwrap_or(0));
        }
        Ok(value.clone())
    }
}
