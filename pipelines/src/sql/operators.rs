//! Binary operators where the planner's own meaning is not that of SQL, or where it has none: quotients and long products
//! of decimals, comparisons of intervals and of times of day, intervals times whole numbers, `->` and `->>` on JSON.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, Operator, ScalarUDF, binary_expr, cast};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::functions::decimal::Arithmetic;
use super::functions::interval::IntervalFunction;
use super::functions::json_text;

/// The most digits of a product that the planner's own multiplication gives.
const PRODUCT_PRECISION_MAX: u8 = 38;

/// Plans these operators.
#[derive(Debug)]
pub(crate) struct Operators {
    divide: Arc<ScalarUDF>,
    multiply: Arc<ScalarUDF>,
    length: Arc<ScalarUDF>,
    times: Arc<ScalarUDF>,
    get: Arc<ScalarUDF>,
    get_text: Arc<ScalarUDF>,
}

impl Default for Operators {
    fn default() -> Self {
        let [get, get_text] = json_text::getters();
        Self {
            get,
            get_text,
            divide: Arithmetic::Divide.function(),
            multiply: Arithmetic::Multiply.function(),
            length: IntervalFunction::Length.function(),
            times: IntervalFunction::Times.function(),
        }
    }
}

impl ExprPlanner for Operators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let (Ok(left), Ok(right)) = (expr.left.get_type(schema), expr.right.get_type(schema)) else {
            return Ok(PlannerResult::Original(expr));
        };
        let both = || vec![expr.left.clone(), expr.right.clone()];
        let planned = match &expr.op {
            BinaryOperator::Arrow if is_text(&left) => Some(self.get.call(both())),
            BinaryOperator::LongArrow if is_text(&left) => Some(self.get_text.call(both())),
            BinaryOperator::Divide => decimals(&expr, &left, &right).map(|both| self.divide.call(both)),
            BinaryOperator::Multiply => match (&left, &right) {
                (DataType::Interval(_), n) if n.is_integer() => Some(self.times(&expr.left, &expr.right)),
                (n, DataType::Interval(_)) if n.is_integer() => Some(self.times(&expr.right, &expr.left)),
                _ => decimals(&expr, &left, &right)
                    .filter(|_| is_long(&left) || is_long(&right) || product_is_long(&left, &right))
                    .map(|both| self.multiply.call(both)),
            },
            other => comparison(other).and_then(|operator| self.compared(&expr, &left, &right, operator)),
        };
        Ok(planned.map_or(PlannerResult::Original(expr), PlannerResult::Planned))
    }
}

impl Operators {
    fn times(&self, interval: &Expr, n: &Expr) -> Expr {
        self.times.call(vec![interval.clone(), n.clone()])
    }

    fn compared(&self, expr: &RawBinaryExpr, left: &DataType, right: &DataType, operator: Operator) -> Option<Expr> {
        let is_interval = |t: &DataType| matches!(t, DataType::Interval(_) | DataType::Duration(_));
        let is_time = |t: &DataType| matches!(t, DataType::Time64(_) | DataType::Time32(_));
        let side = |e: &Expr| -> Expr {
            match is_interval(left) {
                true => self.length.call(vec![e.clone()]),
                false => cast(e.clone(), DataType::Time64(TimeUnit::Microsecond)),
            }
        };
        let both = (is_interval(left) && is_interval(right)) || (is_time(left) && is_time(right) && left != right);
        both.then(|| binary_expr(side(&expr.left), operator, side(&expr.right)))
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn comparison(operator: &BinaryOperator) -> Option<Operator> {
    Some(match operator {
        BinaryOperator::Eq => Operator::Eq,
        BinaryOperator::NotEq => Operator::NotEq,
        BinaryOperator::Lt => Operator::Lt,
        BinaryOperator::LtEq => Operator::LtEq,
        BinaryOperator::Gt => Operator::Gt,
        BinaryOperator::GtEq => Operator::GtEq,
        _ => return None,
    })
}

/// Both sides as decimals, if one is a decimal and the other one is or is a whole number.
fn decimals(expr: &RawBinaryExpr, left: &DataType, right: &DataType) -> Option<Vec<Expr>> {
    let is_decimal = |t: &DataType| matches!(t, DataType::Decimal128(_, s) if *s >= 0);
    if !is_decimal(left) && !is_decimal(right) {
        return None;
    }
    Some(vec![decimal(&expr.left, left)?, decimal(&expr.right, right)?])
}

fn decimal(expr: &Expr, data_type: &DataType) -> Option<Expr> {
    let n_digits = match data_type {
        DataType::Decimal128(_, s) if *s >= 0 => return Some(expr.clone()),
        _ if is_short(expr) => 10,
        DataType::Int8 => 3,
        DataType::Int16 => 5,
        DataType::Int32 => 10,
        DataType::Int64 => 19,
        _ => return None,
    };
    Some(cast(expr.clone(), DataType::Decimal128(n_digits, 0)))
}

/// Whether an expression is a whole number that SQL has as an INT.
fn is_short(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::Int64(Some(n)), _) if i32::try_from(*n).is_ok())
}

fn is_long(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Decimal128(p, _) if *p >= PRODUCT_PRECISION_MAX)
}

fn product_is_long(left: &DataType, right: &DataType) -> bool {
    match (left, right) {
        (DataType::Decimal128(p1, _), DataType::Decimal128(p2, _)) => p1 + p2 > PRODUCT_PRECISION_MAX,
        _ => false,
    }
}
