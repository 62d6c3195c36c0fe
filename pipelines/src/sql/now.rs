//! `CURRENT_TIMESTAMP` and `CURRENT_DATE` that read the engine's business time.
//!
//! DataFusion folds its own `now()` into a constant while planning, which would freeze a kept view at the moment of
//! its creation. These functions are volatile to the planner, so they survive it; within one epoch they are constant.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

const US_PER_DAY: i64 = 86_400_000_000;

/// The engine's business time, shared by all expressions of a program; microseconds since 1970, UTC.
#[derive(Debug, Clone, Default)]
pub(crate) struct BusinessTime {
    own: Arc<AtomicI64>,
    /// Those of the programs before this one, which operators that were taken over from them still read. One for each
    /// change of the program since the start.
    elders: Arc<[Arc<AtomicI64>]>,
}

impl BusinessTime {
    pub(crate) fn get_us(&self) -> i64 {
        self.own.load(Ordering::Relaxed)
    }

    pub(crate) fn set_us(&self, now_us: i64) {
        self.elders.iter().chain([&self.own]).for_each(|time| time.store(now_us, Ordering::Relaxed));
    }

    /// From now on moves the time of an earlier program, too.
    pub(crate) fn lead(&mut self, elder: &Self) {
        self.elders = elder.elders.iter().chain([&elder.own]).cloned().collect();
    }

    /// The functions that replace DataFusion's.
    pub(crate) fn functions(&self) -> Vec<ScalarUDF> {
        [("now", vec!["current_timestamp"], true), ("current_date", vec!["today"], false)]
            .into_iter()
            .map(|(name, aliases, is_timestamp)| {
                ScalarUDF::from(TimeFunction {
                    name,
                    aliases: aliases.into_iter().map(str::to_owned).collect(),
                    signature: Signature::nullary(Volatility::Volatile),
                    is_timestamp,
                    time: Arc::clone(&self.own),
                })
            })
            .collect()
    }
}

/// Whether an expression depends on the business time.
pub(crate) fn depends_on_time(expr: &Expr) -> bool {
    use datafusion::common::tree_node::TreeNode;
    expr.exists(|e| {
        Ok(matches!(e, Expr::ScalarFunction(f) if (f.func.inner().as_ref() as &dyn Any).is::<TimeFunction>()))
    })
    .unwrap_or(true)
}

/// Whether an expression is the business time itself, to the microsecond.
pub(crate) fn is_now(expr: &Expr) -> bool {
    let Expr::ScalarFunction(call) = expr else { return false };
    let function = call.func.inner().as_ref() as &dyn Any;
    function.downcast_ref::<TimeFunction>().is_some_and(|f| f.is_timestamp)
}

#[derive(Debug)]
struct TimeFunction {
    name: &'static str,
    aliases: Vec<String>,
    signature: Signature,
    is_timestamp: bool,
    time: Arc<AtomicI64>,
}

impl PartialEq for TimeFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.time, &other.time)
    }
}

impl Eq for TimeFunction {}

impl std::hash::Hash for TimeFunction {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for TimeFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.is_timestamp {
            true => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            false => DataType::Date32,
        })
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let now_us = self.time.load(Ordering::Relaxed);
        Ok(ColumnarValue::Scalar(match self.is_timestamp {
            true => ScalarValue::TimestampMicrosecond(Some(now_us), Some("UTC".into())),
            false => ScalarValue::Date32(i32::try_from(now_us.div_euclid(US_PER_DAY)).ok()),
        }))
    }
}
