//! Joins over time: what a join's condition says of the distance between two times.

use std::sync::Arc;

use datafusion::common::{Column, DFSchema, JoinType};
use datafusion::logical_expr::{self as logical, Between, Expr, Operator as Binary};

use super::closing::{closing_of, interval_us, together};
use super::{Facts, Graph, Node, NodeId};
use crate::error::OpResult;
use crate::watermark::Closing;

/// A column of one side, and how much is added to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Linear {
    /// Index in the columns of both sides.
    column: usize,
    plus_us: i64,
}

/// The times of two sides that a condition holds together.
#[derive(Debug)]
pub(super) struct Interval {
    /// Time columns of the left and the right side.
    pub(super) times: [Expr; 2],
    /// Least and largest time of the right side less that of the left.
    pub(super) range_us: (i64, i64),
}

/// Finds two time columns whose distance a condition bounds from below and from above.
pub(super) fn interval_of(condition: &Expr, joined: &DFSchema, n_left: usize) -> Option<Interval> {
    let mut bounds: Vec<([usize; 2], Option<i64>, Option<i64>)> = Vec::new();
    for (smaller, larger) in at_most(condition) {
        let (Some(a), Some(b)) = (linear(&smaller, joined), linear(&larger, joined)) else { continue };
        // a.column + a.plus <= b.column + b.plus
        let (columns, low, high) = match (a.column < n_left, b.column < n_left) {
            (true, false) => ([a.column, b.column - n_left], a.plus_us.checked_sub(b.plus_us), None),
            (false, true) => ([b.column, a.column - n_left], None, b.plus_us.checked_sub(a.plus_us)),
            _ => continue,
        };
        match bounds.iter_mut().find(|(known, _, _)| *known == columns) {
            Some((_, known_low, known_high)) => {
                *known_low = (*known_low).max(low);
                *known_high = match (*known_high, high) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
            }
            None => bounds.push((columns, low, high)),
        }
    }
    bounds.into_iter().find_map(|(columns, low, high)| {
        let range_us = (low?, high?);
        let times = [columns[0], columns[1] + n_left].map(|c| Expr::Column(Column::from(joined.qualified_field(c))));
        (range_us.0 <= range_us.1).then_some(Interval { times, range_us })
    })
}

/// Pairs (a, b) such that the condition is true only if a <= b.
fn at_most(condition: &Expr) -> Vec<(Expr, Expr)> {
    match condition {
        Expr::BinaryExpr(b) => {
            let (left, right) = (b.left.as_ref().clone(), b.right.as_ref().clone());
            match b.op {
                Binary::And => [at_most(&left), at_most(&right)].concat(),
                Binary::Lt | Binary::LtEq => vec![(left, right)],
                Binary::Gt | Binary::GtEq => vec![(right, left)],
                Binary::Eq => vec![(left.clone(), right.clone()), (right, left)],
                _ => Vec::new(),
            }
        }
        Expr::Between(Between { expr, negated: false, low, high }) => {
            let expr = expr.as_ref().clone();
            vec![(low.as_ref().clone(), expr.clone()), (expr, high.as_ref().clone())]
        }
        _ => Vec::new(),
    }
}

/// A column plus or minus constant intervals.
fn linear(expr: &Expr, schema: &DFSchema) -> Option<Linear> {
    use arrow::datatypes::{DataType, TimeUnit};
    match expr {
        Expr::Alias(alias) => linear(&alias.expr, schema),
        Expr::Column(column) => {
            let column = schema.maybe_index_of_column(column)?;
            let is_time = matches!(schema.field(column).data_type(), DataType::Timestamp(_, _));
            is_time.then_some(Linear { column, plus_us: 0 })
        }
        // Nothing is lost by a finer unit or another zone of the same instant.
        Expr::Cast(cast)
            if matches!(
                cast.field.data_type(),
                DataType::Timestamp(TimeUnit::Microsecond | TimeUnit::Nanosecond, _)
            ) =>
        {
            linear(&cast.expr, schema)
        }
        Expr::BinaryExpr(b) if matches!(b.op, Binary::Plus | Binary::Minus) => {
            let Expr::Literal(value, _) = &*b.right else { return None };
            let (least, most) = interval_us(value)?;
            if least != most {
                return None;
            }
            let inner = linear(&b.left, schema)?;
            let plus_us =
                if b.op == Binary::Plus { inner.plus_us.checked_add(least) } else { inner.plus_us.checked_sub(least) };
            Some(Linear { plus_us: plus_us?, ..inner })
        }
        _ => None,
    }
}

/// How a join closes.
#[derive(Debug)]
pub(super) struct Closed {
    /// The inputs, behind gates where there are some.
    pub(super) inputs: [NodeId; 2],
    pub(super) interval: Option<Interval>,
    /// How the times of the interval close on both sides, if they do.
    pub(super) times: Option<[Closing; 2]>,
    /// The part of the key that closes, and how its columns close on both sides.
    pub(super) key: Option<(usize, [Closing; 2])>,
}

impl Closed {
    /// What is known of the join's rows.
    pub(super) fn facts(&self, nodes: &[Node], join: &logical::Join) -> Facts {
        use JoinType::{Full, Inner, Left, Right, RightAnti, RightMark, RightSemi};
        let sides = self.inputs.map(|i| &nodes[i].facts);
        let n_left = join.left.schema().fields().len();
        let places = match join.join_type {
            Inner | Left | Right | Full => [Some(0), Some(n_left)],
            RightSemi | RightAnti | RightMark => [None, Some(0)],
            _ => [Some(0), None],
        };
        let mut closings = Vec::new();
        if let (Some(interval), Some([l, r])) = (&self.interval, &self.times) {
            // A new pair holds a new row of one side, and its partner lies within the interval.
            let (low, high) = interval.range_us;
            let sources = together(&l.sources, &r.sources);
            let gated_us = l.gated_us.max(r.gated_us);
            let lags = [l.lag_us.max(r.lag_us.saturating_add(high)), r.lag_us.max(l.lag_us.saturating_sub(low))];
            for (i, own) in [l, r].into_iter().enumerate() {
                let now = Closing { lag_us: lags[i], sources: Arc::clone(&sources), gated_us, ..own.clone() };
                closings.extend(places[i].into_iter().flat_map(|place| moved(sides[i], own, &now, place)));
            }
        }
        if let Some((_, both)) = &self.key {
            for (i, now) in both.iter().enumerate() {
                let own = sides[i].closings.iter().find(|c| c.instant == now.instant);
                for (own, place) in own.into_iter().zip(places[i]) {
                    // Before the join the columns closed with their own side only.
                    let own = Closing { lag_us: own.lag_us, ..now.clone() };
                    closings.extend(moved(sides[i], &own, now, place));
                }
            }
        }
        let appends = join.join_type == Inner && sides.iter().all(|s| s.appends);
        Facts { appends, closings, ..Facts::default() }
    }
}

/// The closings of a side's columns that close together with `own`, after `own` has become `now`.
fn moved(side: &Facts, own: &Closing, now: &Closing, place: usize) -> Vec<Closing> {
    let same = side.closings.iter().filter(|c| c.instant == own.instant);
    let one = |c: &Closing| Closing {
        column: c.column + place,
        lag_us: c.lag_us.saturating_add(now.lag_us.saturating_sub(own.lag_us)),
        instant: Arc::from(format!("{} joined", c.instant)),
        sources: Arc::clone(&now.sources),
        gated_us: now.gated_us,
    };
    same.map(one).collect()
}

impl Graph {
    fn may_close(&self, node: NodeId, expr: &Expr, schema: &DFSchema) -> Option<Closing> {
        let facts = &self.nodes[node].facts;
        let closing = closing_of(expr, schema, facts)?;
        (closing.gated_us.is_some() || facts.appends || self.policy.close_changing).then_some(closing)
    }

    /// Closes an expression over each of two inputs, each with its own sources, if both may be closed.
    pub(super) fn close_both(
        &mut self,
        inputs: [NodeId; 2],
        exprs: [&Expr; 2],
        schemas: [&DFSchema; 2],
    ) -> OpResult<Option<([NodeId; 2], [Closing; 2])>> {
        let both = [0, 1].map(|i| self.may_close(inputs[i], exprs[i], schemas[i]));
        let [Some(l), Some(r)] = both else { return Ok(None) };
        let Some((left, l)) = self.close_with(inputs[0], exprs[0], schemas[0], l)? else { return Ok(None) };
        let Some((right, r)) = self.close_with(inputs[1], exprs[1], schemas[1], r)? else { return Ok(None) };
        Ok(Some(([left, right], [l, r])))
    }

    /// Closes the two sides of an equation together: a value is closed when both sides have closed it.
    pub(super) fn close_equal(
        &mut self,
        inputs: [NodeId; 2],
        exprs: [&Expr; 2],
        schemas: [&DFSchema; 2],
    ) -> OpResult<Option<([NodeId; 2], [Closing; 2])>> {
        let both = [0, 1].map(|i| self.may_close(inputs[i], exprs[i], schemas[i]));
        let [Some(l), Some(r)] = both else { return Ok(None) };
        let (sources, lag_us) = (together(&l.sources, &r.sources), l.lag_us.max(r.lag_us));
        let joint = |c: Closing| Closing { sources: Arc::clone(&sources), lag_us, ..c };
        let Some((left, l)) = self.close_with(inputs[0], exprs[0], schemas[0], joint(l))? else { return Ok(None) };
        let Some((right, r)) = self.close_with(inputs[1], exprs[1], schemas[1], joint(r))? else { return Ok(None) };
        let gated_us = l.gated_us.max(r.gated_us);
        Ok(Some(([left, right], [Closing { gated_us, ..l }, Closing { gated_us, ..r }])))
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
    use datafusion::prelude::{SessionContext, col};

    use super::*;

    fn check(condition: &str) -> Option<([String; 2], (i64, i64))> {
        let time = DataType::Timestamp(TimeUnit::Microsecond, None);
        let side = |name: &str| {
            let fields = vec![Field::new("k", DataType::Int64, true), Field::new("ts", time.clone(), true)];
            DFSchema::try_from_qualified_schema(name, &Schema::new(fields)).unwrap()
        };
        let joined = side("a").join(&side("b")).unwrap();
        let parsed = SessionContext::new().parse_sql_expr(condition, &joined).unwrap();
        assert_ne!(parsed, col("a.k"));
        interval_of(&parsed, &joined, 2).map(|i| (i.times.map(|t| t.to_string()), i.range_us))
    }

    #[test]
    fn an_interval_is_found_however_it_is_written() {
        let expected = Some((["a.ts".to_owned(), "b.ts".to_owned()], (-5_000_000, 10_000_000)));
        let minus = "INTERVAL '5 seconds'";
        let plus = "INTERVAL '10 seconds'";
        for condition in [
            format!("b.ts BETWEEN a.ts - {minus} AND a.ts + {plus}"),
            format!("b.ts >= a.ts - {minus} AND b.ts <= a.ts + {plus}"),
            format!("a.ts <= b.ts + {minus} AND a.ts + {plus} > b.ts AND a.k > b.k"),
            format!("a.ts BETWEEN b.ts - {plus} AND b.ts + {minus}"),
            format!("b.ts - {plus} <= a.ts AND a.ts - {minus} <= b.ts AND b.ts < a.ts + INTERVAL '1 day'"),
        ] {
            assert_eq!(check(&condition), expected, "{condition}");
        }
        assert_eq!(check("a.ts = b.ts").map(|(_, range)| range), Some((0, 0)));
        assert_eq!(check("a.ts <= b.ts"), None);
        assert_eq!(check("a.k BETWEEN b.k AND b.k + 1"), None);
        assert_eq!(check(&format!("a.ts <= b.ts + {minus} OR b.ts <= a.ts + {plus}")), None);
        assert_eq!(check("b.ts BETWEEN a.ts AND a.ts + INTERVAL '1 month'"), None);
    }
}
