//! A bound for WITH RECURSIVE: a recursion that never ends would hold up everything else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::datatypes::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{
    self as logical, ColumnarValue, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// Steps of a recursion, or batches of rows that its steps make. At one more the query fails.
const STEPS_MAX: usize = 10_000;

/// The plan with a count of steps in each of its recursions; it is good for one run.
pub(crate) fn bounded(plan: LogicalPlan) -> Result<LogicalPlan> {
    let bounded = plan.transform_down_with_subqueries(|node| match node {
        LogicalPlan::RecursiveQuery(mut query) => {
            let count =
                ScalarUDF::from(Steps { signature: Signature::nullary(Volatility::Volatile), n_taken: Arc::default() });
            let term = logical::Filter::try_new(count.call(Vec::new()), query.recursive_term)?;
            query.recursive_term = Arc::new(LogicalPlan::Filter(term));
            Ok(Transformed::yes(LogicalPlan::RecursiveQuery(query)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(bounded.data)
}

/// True so many times, then an error.
#[derive(Debug)]
struct Steps {
    signature: Signature,
    n_taken: Arc<AtomicUsize>,
}

impl PartialEq for Steps {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.n_taken, &other.n_taken)
    }
}

impl Eq for Steps {}

impl std::hash::Hash for Steps {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.signature.hash(state);
    }
}

impl ScalarUDFImpl for Steps {
    fn name(&self) -> &'static str {
        "andon_recursion_step"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if args.number_rows > 0 && self.n_taken.fetch_add(1, Ordering::Relaxed) >= STEPS_MAX {
            return exec_err!(
                "WITH RECURSIVE goes on for more than {STEPS_MAX} steps; end it by a condition in its recursive part, such \
                 as WHERE depth < 100"
            );
        }
        Ok(ColumnarValue::Scalar(ScalarValue::Boolean(Some(true))))
    }
}
