//! Filters over CURRENT_TIMESTAMP.
//!
//! A comparison of a column with the time is a timer per row; what is neither that nor free of the time is looked at
//! again for all rows whenever time moves.

use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use datafusion::common::DFSchemaRef;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{Between, Expr, ExprSchemable, Operator as Binary};

use super::closing::interval_us;
use super::{Graph, NodeId};
use crate::error::OpResult;
use crate::ops::timed::{Gone, Instant, Timed, Times};
use crate::sql::now::{depends_on_time, is_now};

/// `value` compared with the time: the instant is the value plus `plus_us`.
struct Timer {
    value: Expr,
    plus_us: i64,
    is_from: bool,
}

impl Graph {
    /// A filter of which some part reads the time.
    pub(super) fn filter_by_time(
        &mut self,
        mut input: NodeId,
        input_schema: &DFSchemaRef,
        predicate: &Expr,
        schema: SchemaRef,
    ) -> OpResult<NodeId> {
        let (mut timers, mut plain, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for part in split_conjunction(predicate) {
            match timers_of(part, input_schema) {
                _ if !depends_on_time(part) => plain.push(part.clone()),
                Some(found) => timers.extend(found),
                None => others.push(part.clone()),
            }
        }
        if let Some(plain) = conjunction(plain) {
            let label = format!("filter {plain}");
            input = self.map(input, input_schema, Some(&plain), None, SchemaRef::clone(&schema), label)?;
        }
        if !timers.is_empty() {
            let mut times = Times::default();
            for timer in &timers {
                let instant = Instant { value: self.physical(&timer.value, input_schema)?, plus_us: timer.plus_us };
                if timer.is_from { times.from.push(instant) } else { times.until.push(instant) }
            }
            // What is never taken back need not be remembered once it has left.
            let gone = if self.nodes[input].facts.appends { Gone::Forgotten } else { Gone::Remembered };
            let operator = Timed::new(times, gone, SchemaRef::clone(&self.nodes[input].schema))?;
            input = self.operator(vec![input], operator, SchemaRef::clone(&schema), format!("timer {predicate}"));
        }
        if let Some(others) = conjunction(others) {
            let label = format!("filter {others}");
            input = self.map(input, input_schema, Some(&others), None, schema, label)?;
        }
        Ok(input)
    }
}

/// A comparison with the time as timers; `None` if it is none.
fn timers_of(part: &Expr, schema: &DFSchemaRef) -> Option<Vec<Timer>> {
    match part {
        Expr::BinaryExpr(b) => {
            let (left, right, op) = (&*b.left, &*b.right, b.op);
            let (value, now, op) = if depends_on_time(right) { (left, right, op) } else { (right, left, op.swap()?) };
            if depends_on_time(value) || !is_time(value, schema) {
                return None;
            }
            // value op now + c, so the instant is value - c, or the next one.
            let minus_c = now_plus_us(now, schema)?.checked_neg()?;
            let (is_from, later) = match op {
                Binary::Gt => (false, 0),
                Binary::GtEq => (false, 1),
                Binary::LtEq => (true, 0),
                Binary::Lt => (true, 1),
                _ => return None,
            };
            Some(vec![Timer { value: value.clone(), plus_us: minus_c.checked_add(later)?, is_from }])
        }
        Expr::Between(Between { expr, negated: false, low, high }) => {
            let part = |op, bound: &Expr| {
                let one = datafusion::logical_expr::binary_expr(expr.as_ref().clone(), op, bound.clone());
                depends_on_time(&one).then(|| timers_of(&one, schema)).flatten()
            };
            let mut both = part(Binary::GtEq, low)?;
            both.extend(part(Binary::LtEq, high)?);
            Some(both)
        }
        _ => None,
    }
}

/// Only instants to the microsecond: a coarser column is compared as it is, a finer one would be cut.
fn is_time(value: &Expr, schema: &DFSchemaRef) -> bool {
    let data_type = value.get_type(schema.as_ref());
    matches!(data_type, Ok(DataType::Timestamp(unit, _)) if unit != TimeUnit::Nanosecond)
}

/// How much is added to the time: `CURRENT_TIMESTAMP - INTERVAL '7' DAY` and the like.
fn now_plus_us(expr: &Expr, schema: &DFSchemaRef) -> Option<i64> {
    match expr {
        Expr::Alias(alias) => now_plus_us(&alias.expr, schema),
        Expr::Cast(cast) if matches!(cast.field.data_type(), DataType::Timestamp(TimeUnit::Microsecond, _)) => {
            now_plus_us(&cast.expr, schema)
        }
        Expr::BinaryExpr(b) if matches!(b.op, Binary::Plus | Binary::Minus) => {
            let Expr::Literal(value, _) = &*b.right else { return None };
            let (least, most) = interval_us(value)?;
            let inner = now_plus_us(&b.left, schema)?;
            match b.op {
                _ if least != most => None,
                Binary::Plus => inner.checked_add(least),
                _ => inner.checked_sub(least),
            }
        }
        other => is_now(other).then_some(0),
    }
}
