//! Which columns close as event time goes on, and what follows: gates, eviction, late relations.
//!
//! The event-time column of a source closes with the source's watermark. Arithmetic on it, its windows, group keys and
//! join keys that contain it close as well. An operator that is keyed by such a column may forget the keys that are
//! closed, if nothing comes for them any more; a [`Gate`] in front of it sees to that.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::{Expr, Operator as Binary};
use datafusion::physical_expr::expressions::Column as PhysicalColumn;
use model::SourceTable;

use super::{Graph, NodeId, NodeKind};
use crate::error::OpResult;
use crate::ops::emit::EmitOnClose;
use crate::ops::gate::{Gate, LateRows, Lateness};
use crate::sql::functions::longest_us;
use crate::sql::functions::time::FLOOR;
use crate::sql::windows::{CUMULATE_ENDS, HOP_STARTS, TUMBLE_START};
use crate::watermark::{Closing, DAY_US, Horizon};

/// What is known of the rows that a node puts out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// No row is ever taken back.
    pub(crate) appends: bool,
    /// Columns that close, by column.
    pub(crate) closings: Vec<Closing>,
    /// What a filter or projection does to each row of its only input.
    pub(crate) row_wise: Option<RowWise>,
    /// The gate that the node is.
    pub(crate) gate: Option<Lateness>,
}

/// The expressions of a filter or projection over the columns of its input.
#[derive(Debug, Clone)]
pub(crate) struct RowWise {
    pub(crate) predicate: Option<crate::ops::Expr>,
    pub(crate) columns: Vec<crate::ops::Expr>,
}

impl Facts {
    /// The facts of a source table.
    pub(super) fn of_source(table: &SourceTable) -> Self {
        let closing = table.event_time.map(|e| Closing {
            column: e.column,
            lag_us: 0,
            instant: Arc::from(format!("{}.{}", table.name, table.schema.field(e.column).name())),
            sources: Arc::from([Arc::clone(&table.name)]),
            gated_us: None,
        });
        Self { appends: table.is_append_only(), closings: closing.into_iter().collect(), ..Self::default() }
    }

    /// The closing of a column.
    pub(super) fn closing(&self, column: usize) -> Option<&Closing> {
        self.closings.iter().find(|c| c.column == column)
    }

    /// The facts after some columns were picked.
    pub(super) fn of_columns(&self, columns: &[usize]) -> Self {
        let pick = |(to, from): (usize, &usize)| Some(Closing { column: to, ..self.closing(*from)?.clone() });
        Self {
            appends: self.appends,
            closings: columns.iter().enumerate().filter_map(pick).collect(),
            ..Self::default()
        }
    }

    /// The facts after a projection; `None` keeps all columns.
    pub(super) fn mapped(&self, columns: Option<&[&Expr]>, schema: &DFSchema) -> Self {
        let Some(columns) = columns else { return Self { row_wise: None, gate: None, ..self.clone() } };
        let one = |(column, e): (usize, &&Expr)| Some(Closing { column, ..closing_of(e, schema, self)? });
        Self {
            appends: self.appends,
            closings: columns.iter().enumerate().filter_map(one).collect(),
            ..Self::default()
        }
    }

    /// The facts of all rows of several inputs together.
    pub(super) fn of_union(inputs: &[&Self]) -> Self {
        let Some((first, others)) = inputs.split_first() else { return Self::default() };
        let one = |c: &Closing| {
            let mut all = c.clone();
            for other in others {
                let other = other.closing(c.column)?;
                if all.instant != other.instant {
                    all.instant = Arc::from(format!("{} or {}", all.instant, other.instant));
                }
                all.sources = together(&all.sources, &other.sources);
                all.lag_us = all.lag_us.max(other.lag_us);
                all.gated_us = all.gated_us.zip(other.gated_us).map(|(a, b)| a.max(b));
            }
            Some(all)
        };
        let closings = first.closings.iter().filter_map(one).collect();
        Self { appends: inputs.iter().all(|i| i.appends), closings, ..Self::default() }
    }
}

/// Both lists of sources as one.
pub(super) fn together(a: &[Arc<str>], b: &[Arc<str>]) -> Arc<[Arc<str>]> {
    a.iter().chain(b).cloned().collect::<BTreeSet<_>>().into_iter().collect()
}

/// What holds the rows that come too late for a view.
#[derive(Debug)]
pub(crate) struct LateRelation {
    pub(crate) node: NodeId,
    pub(crate) schema: SchemaRef,
    /// Source tables whose rows it shows whole, and their numbers of columns.
    pub(crate) sources: Vec<(Arc<str>, usize)>,
}

/// How the views of a program close.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Policy {
    /// Windows close over changing tables too: the view says so.
    pub(crate) close_changing: bool,
    /// Rows so much behind the watermark are still taken.
    pub(crate) lateness_us: i64,
    /// `EMIT ON WINDOW CLOSE`.
    pub(crate) emit_on_close: bool,
}

impl Graph {
    /// Makes sure that no row comes for a closed value of `expr`, an expression over the columns of `node` that closes
    /// as `closing` says: puts a gate behind the node where one is needed. `None` if it must not close.
    pub(super) fn close_with(
        &mut self,
        node: NodeId,
        expr: &Expr,
        schema: &DFSchema,
        closing: Closing,
    ) -> OpResult<Option<(NodeId, Closing)>> {
        if closing.gated_us.is_some() {
            return Ok(Some((node, closing)));
        }
        if !self.nodes[node].facts.appends && !self.policy.close_changing {
            return Ok(None);
        }
        let lateness_us = self.policy.lateness_us;
        let lateness = Lateness {
            predicates: Vec::new(),
            value: self.physical(expr, schema)?,
            horizon: closing.horizon(lateness_us),
            any: Arc::new(AtomicBool::new(false)),
        };
        let mut facts = self.nodes[node].facts.clone();
        for known in facts.closings.iter_mut().filter(|c| c.instant == closing.instant) {
            known.gated_us = Some(lateness_us);
        }
        (facts.row_wise, facts.gate) = (None, Some(lateness.clone()));
        let output = SchemaRef::clone(&self.nodes[node].schema);
        let label =
            format!("gate: {expr} until {} after {}", micros(closing.lag_us + lateness_us), closing.sources.join(", "));
        let gate = self.operator(vec![node], Gate { lateness }, output, label);
        self.nodes[gate].facts = facts;
        Ok(Some((gate, Closing { gated_us: Some(lateness_us), ..closing })))
    }

    /// The first of some expressions that closes, with the node behind its gate.
    pub(super) fn close_any(
        &mut self,
        node: NodeId,
        exprs: &[Expr],
        schema: &DFSchema,
    ) -> OpResult<(NodeId, Option<(usize, Closing)>)> {
        // What closes last lets most rows in: the end of a window rather than the time of the row.
        let known = &self.nodes[node].facts;
        let mut candidates: Vec<(usize, Closing)> =
            exprs.iter().enumerate().filter_map(|(i, e)| Some((i, closing_of(e, schema, known)?))).collect();
        candidates.sort_by_key(|(_, c)| (c.gated_us.is_none(), !c.instant.contains('('), c.lag_us));
        for (i, closing) in candidates {
            if let Some((node, closing)) = self.close_with(node, &exprs[i], schema, closing)? {
                return Ok((node, Some((i, closing))));
            }
        }
        Ok((node, None))
    }

    /// Holds the rows of a view back until their window closes. The error says why that cannot be.
    pub(crate) fn emit_on_close(&mut self, root: NodeId) -> OpResult<Result<NodeId, String>> {
        let facts = &self.nodes[root].facts;
        let Some(closing) = facts.closings.iter().filter(|c| c.gated_us.is_some()).max_by_key(|c| c.lag_us).cloned()
        else {
            return Ok(Err("no column of the result says when a window closes".to_owned()));
        };
        let horizon = closing.horizon(closing.gated_us.unwrap_or_default());
        let closings = facts.closings.clone();
        let schema = SchemaRef::clone(&self.nodes[root].schema);
        let operator = EmitOnClose::new(SchemaRef::clone(&schema), closing.column, horizon)?;
        let label = format!("emit when {} closes", schema.field(closing.column).name());
        let node = self.operator(vec![root], operator, schema, label);
        // A row without a window passes at once, and is taken back as its input says.
        self.nodes[node].facts = Facts { appends: false, closings, ..Facts::default() };
        Ok(Ok(node))
    }

    /// The late relation of a view: `None` if nothing can come too late for it.
    pub(crate) fn late_rows(&mut self, view: &str, root: NodeId) -> OpResult<Option<LateRelation>> {
        let (mut inputs, mut gates, mut sources) = (Vec::new(), Vec::new(), Vec::new());
        for gate in self.gates_below(root, view) {
            let Some(mut lateness) = self.nodes[gate].facts.gate.clone() else { continue };
            let mut at = self.nodes[gate].inputs[0];
            // Back to the rows as they came, so that a late row is shown whole.
            while let (Some(row_wise), [below]) = (&self.nodes[at].facts.row_wise, &self.nodes[at].inputs[..]) {
                let through = |e: &crate::ops::Expr| substitute(e, &row_wise.columns);
                lateness.value = through(&lateness.value)?;
                lateness.predicates = lateness.predicates.iter().map(through).collect::<OpResult<_>>()?;
                lateness.predicates.extend(row_wise.predicate.clone());
                at = *below;
            }
            if let NodeKind::Source(name) = &self.nodes[at].kind {
                sources.push((Arc::clone(name), self.nodes[at].schema.fields().len()));
            }
            inputs.push(at);
            gates.push((lateness, SchemaRef::clone(&self.nodes[at].schema)));
        }
        if gates.is_empty() {
            return Ok(None);
        }
        let operator = LateRows::new(view, gates)?;
        let schema = SchemaRef::clone(operator.schema());
        let node = self.operator(inputs, operator, SchemaRef::clone(&schema), format!("late rows of {view}"));
        self.nodes[node].facts.appends = false;
        Ok(Some(LateRelation { node, schema, sources }))
    }

    /// Gates of a view in order, not those of views that it reads.
    fn gates_below(&self, root: NodeId, view: &str) -> BTreeSet<NodeId> {
        let (mut seen, mut stack, mut gates) = (BTreeSet::new(), vec![root], BTreeSet::new());
        while let Some(id) = stack.pop() {
            if !seen.insert(id) || self.is_view_of_another(id, root, view) {
                continue;
            }
            if self.nodes[id].facts.gate.is_some() {
                gates.insert(id);
            }
            stack.extend(&self.nodes[id].inputs);
        }
        gates
    }
}

/// An expression over the output of a projection as one over its input.
fn substitute(expr: &crate::ops::Expr, columns: &[crate::ops::Expr]) -> OpResult<crate::ops::Expr> {
    let replaced = Arc::clone(expr).transform_down(|e| {
        let any: &dyn std::any::Any = e.as_ref();
        match any.downcast_ref::<PhysicalColumn>() {
            // The replacement is over other columns, so it must not be looked into.
            Some(column) => Ok(Transformed::new(
                Arc::clone(&columns[column.index()]),
                true,
                datafusion::common::tree_node::TreeNodeRecursion::Jump,
            )),
            None => Ok(Transformed::no(e)),
        }
    })?;
    Ok(replaced.data)
}

/// How an expression over columns that close closes itself; the column of the result means nothing.
pub(super) fn closing_of(expr: &Expr, schema: &DFSchema, facts: &Facts) -> Option<Closing> {
    match expr {
        Expr::Alias(alias) => closing_of(&alias.expr, schema, facts),
        Expr::Column(column) => facts.closing(schema.maybe_index_of_column(column)?).cloned(),
        Expr::BinaryExpr(b) if matches!(b.op, Binary::Plus | Binary::Minus) => {
            let (least, most) = match &*b.right {
                Expr::Literal(value, _) => interval_us(value)?,
                _ => return None,
            };
            let inner = closing_of(&b.left, schema, facts)?;
            let lag =
                if b.op == Binary::Plus { inner.lag_us.checked_sub(least)? } else { inner.lag_us.checked_add(most)? };
            let instant = if least == most { inner.instant } else { Arc::from(expr.to_string()) };
            Some(Closing { lag_us: lag, instant, ..inner })
        }
        Expr::Cast(cast) => {
            let inner = closing_of(&cast.expr, schema, facts)?;
            let unit_us = match cast.field.data_type() {
                DataType::Date32 => DAY_US,
                DataType::Timestamp(TimeUnit::Second, _) => 1_000_000,
                DataType::Timestamp(TimeUnit::Millisecond, _) => 1_000,
                DataType::Timestamp(_, _) => return Some(inner),
                _ => return None,
            };
            binned(inner, unit_us, expr)
        }
        Expr::ScalarFunction(call) => {
            let literal = |i: usize| match call.args.get(i) {
                Some(Expr::Literal(value, _)) => Some(value),
                _ => None,
            };
            let whole = |i: usize| match literal(i)? {
                ScalarValue::Int64(us) => *us,
                _ => None,
            };
            let inner = |i: usize| closing_of(call.args.get(i)?, schema, facts);
            match call.func.name() {
                "date_bin" => binned(inner(1)?, interval_us(literal(0)?)?.1, expr),
                "date_trunc" => binned(inner(1)?, truncated_us(literal(0)?.try_as_str()??)?, expr),
                FLOOR => binned(inner(1)?, longest_us(literal(0)?.try_as_str()??)?, expr),
                TUMBLE_START => binned(inner(0)?, whole(1)?, expr),
                // The elements of the list: starts of the windows of a row, or their ends, which lie after it.
                HOP_STARTS => binned(inner(0)?, whole(2)?, expr),
                CUMULATE_ENDS => binned(inner(0)?, 0, expr),
                _ => None,
            }
        }
        _ => None,
    }
}

/// A value that is at most `size_us` less one microsecond before the one that it was made of.
fn binned(inner: Closing, size_us: i64, expr: &Expr) -> Option<Closing> {
    let lag_us = inner.lag_us.checked_add(size_us)?.checked_sub(1)?;
    // A gate below let rows in up to its own lateness, but it closed the single instant, not the bin.
    Some(Closing { lag_us, instant: Arc::from(format!("{expr} ({})", inner.instant)), ..inner })
}

/// Shortest and longest length of a constant interval.
pub(super) fn interval_us(value: &ScalarValue) -> Option<(i64, i64)> {
    let months = |n: i32| {
        let n = i64::from(n);
        if n >= 0 { (n * 28 * DAY_US, n * 31 * DAY_US) } else { (n * 31 * DAY_US, n * 28 * DAY_US) }
    };
    match value {
        ScalarValue::IntervalMonthDayNano(Some(i)) => {
            let fixed = i64::from(i.days) * DAY_US + i.nanoseconds.div_euclid(1_000);
            let (least, most) = months(i.months);
            Some((least + fixed, most + fixed))
        }
        ScalarValue::IntervalDayTime(Some(i)) => {
            let us = i64::from(i.days) * DAY_US + i64::from(i.milliseconds) * 1_000;
            Some((us, us))
        }
        ScalarValue::IntervalYearMonth(Some(n)) => Some(months(*n)),
        ScalarValue::DurationMicrosecond(Some(us)) => Some((*us, *us)),
        ScalarValue::DurationMillisecond(Some(ms)) => ms.checked_mul(1_000).map(|us| (us, us)),
        ScalarValue::DurationSecond(Some(s)) => s.checked_mul(1_000_000).map(|us| (us, us)),
        ScalarValue::DurationNanosecond(Some(ns)) => Some((ns.div_euclid(1_000), ns.div_euclid(1_000))),
        _ => None,
    }
}

/// Longest length of a unit of `date_trunc`.
fn truncated_us(unit: &str) -> Option<i64> {
    Some(match unit.to_lowercase().as_str() {
        "microsecond" => 1,
        "millisecond" => 1_000,
        "second" => 1_000_000,
        "minute" => 60_000_000,
        "hour" => 3_600_000_000,
        "day" => DAY_US,
        "week" => 7 * DAY_US,
        "month" => 31 * DAY_US,
        "quarter" => 92 * DAY_US,
        "year" => 366 * DAY_US,
        _ => return None,
    })
}

/// A length of time for a label.
fn micros(us: i64) -> String {
    format!("{} µs", us)
}

/// The horizon of a closed key.
pub(super) fn horizon_of(closing: &Closing) -> Horizon {
    closing.horizon(closing.gated_us.unwrap_or_default())
}
