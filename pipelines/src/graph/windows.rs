//! OVER windows, Top-N and LIMIT.
//!
//! `WHERE rn <= n` above a single ROW_NUMBER, RANK or DENSE_RANK becomes a [`Ranking`], and so does LIMIT; everything
//! else with OVER becomes one [`Window`] per partitioning and order.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::{Column, DFSchema, DFSchemaRef, ScalarValue};
use datafusion::logical_expr::expr::{NullTreatment, Sort, WindowFunction, WindowFunctionDefinition};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    self as logical, Expr, ExprSchemable, FetchType, LogicalPlan, Operator as Compare, SkipType, WindowFrame,
    WindowFrameBound, WindowFrameUnits,
};
use datafusion::physical_planner::create_window_expr;

use super::closing::horizon_of;
use super::{Facts, Graph, NodeId, NodeKind, Reason, list, unalias};
use crate::error::OpResult;
use crate::ops::Operator;
use crate::ops::map::Select;
use crate::ops::ranking::{Counting, Number, Ranking, RankingSpec};
use crate::ops::sharded::paired_key;
use crate::ops::window::{Reach, Window, WindowSpec};
use crate::watermark::Closing;

/// An input with the columns that a window or order needs behind its own.
pub(super) struct Prepared {
    pub(super) node: NodeId,
    schema: DFSchemaRef,
}

/// A filter that keeps the first rows of each partition.
struct TopN<'a> {
    window: &'a logical::Window,
    /// Columns picked between the window and the filter.
    picked: Option<&'a logical::Projection>,
    /// The number's column as the filter and what stands above it see it.
    number: Column,
    function: &'a WindowFunction,
    counting: Counting,
    bound: u64,
    /// The filter says nothing but the bound.
    is_all: bool,
}

impl Graph {
    /// A filter over a window function that numbers rows; `None` if it is no Top-N.
    pub(super) fn top_n(
        &mut self,
        filter: &logical::Filter,
        number_is_read: bool,
        schema: &SchemaRef,
    ) -> OpResult<Option<NodeId>> {
        let Some(found) = find_top_n(filter) else { return Ok(None) };
        let numbered = crate::rows::relaxed(found.window.schema.as_arrow());
        let params = &found.function.params;
        let mut extras = Vec::new();
        let n_columns = found.window.input.schema().fields().len();
        let place = |expr: &Expr, extras: &mut Vec<Expr>| place(expr, found.window.input.schema(), extras);
        let partition: Vec<usize> = params.partition_by.iter().map(|e| place(e, &mut extras)).collect();
        let order: Vec<(usize, SortOptions)> =
            params.order_by.iter().map(|s| (place(&s.expr, &mut extras), options(s))).collect();
        let input = self.prepare(&found.window.input, &extras)?;
        let (node, closed) = self.close_partition(input.node, &input.schema, &partition)?;
        let number = if number_is_read || !found.is_all { Number::Column } else { Number::Unread };
        let (counting, bound) = (found.counting, found.bound);
        let append_only = self.is_append_only(node);
        let facts = self.facts_of_partitions(node, n_columns, closed.as_ref());
        let closed = closed.map(|(part, closing)| (part, horizon_of(&closing)));
        let spec = RankingSpec { counting, number, partition, order, n_columns, skip: 0, bound, append_only, closed };
        let label = format!("first {bound} of {}", list(&found.window.window_expr));
        let input = SchemaRef::clone(&self.nodes[node].schema);
        let make =
            || Ok(Box::new(Ranking::new(spec.clone(), &input, SchemaRef::clone(&numbered))?) as Box<dyn Operator>);
        let operator = self.sharded(&[(SchemaRef::clone(&input), spec.partition.clone())], paired_key, make)?;
        let mut node = self.push(vec![node], NodeKind::Operator(operator), numbered, label, None);
        self.nodes[node].facts = facts;
        if let Some(p) = found.picked {
            let exprs: Vec<&Expr> = p.expr.iter().collect();
            let label = format!("project {}", list(&p.expr));
            node = self.map(node, &found.window.schema, None, Some(&exprs), Arc::clone(schema), label)?;
        }
        if found.is_all {
            return Ok(Some(node));
        }
        let label = format!("filter {}", filter.predicate);
        let (input, predicate) = (filter.input.schema(), Some(&filter.predicate));
        Ok(Some(self.map(node, input, predicate, None, Arc::clone(schema), label)?))
    }

    /// A projection over a Top-N that does not read the number: rows that only change places are no change then.
    pub(super) fn top_n_unnumbered(&mut self, projection: &logical::Projection) -> OpResult<Option<NodeId>> {
        let LogicalPlan::Filter(filter) = projection.input.as_ref() else { return Ok(None) };
        let Some(found) = find_top_n(filter) else { return Ok(None) };
        let reads = |expr: &Expr| expr.column_refs().contains(&found.number);
        if !found.is_all || projection.expr.iter().any(reads) {
            return Ok(None);
        }
        let schema = crate::rows::relaxed(filter.input.schema().as_arrow());
        self.top_n(filter, false, &schema)
    }

    /// LIMIT and OFFSET, with or without an ORDER BY below. Without one the first rows are those that sort first by
    /// all columns, so that the result does not change by itself.
    pub(super) fn limit(&mut self, plan: &LogicalPlan, schema: SchemaRef) -> OpResult<Result<NodeId, Reason>> {
        let (skip, fetch, input) = match plan {
            LogicalPlan::Sort(sort) => (0, sort.fetch, plan),
            LogicalPlan::Limit(limit) => match (limit.get_skip_type()?, limit.get_fetch_type()?) {
                (SkipType::Literal(skip), FetchType::Literal(fetch)) => (skip, fetch, limit.input.as_ref()),
                _ => return Ok(Err("LIMIT that is not a number".to_owned())),
            },
            other => return Ok(Err(format!("{} is no LIMIT", super::kind(other)))),
        };
        // Projections keep the order of their input: the limit goes below them.
        let mut projections = Vec::new();
        let mut below = input;
        while let LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) = below {
            let inner = below.inputs()[0];
            if let LogicalPlan::Projection(p) = below {
                projections.push(p);
            }
            below = inner;
        }
        let (sort, input): (&[Sort], &LogicalPlan) = match below {
            LogicalPlan::Sort(sort) => (&sort.expr, &sort.input),
            _ => {
                projections.clear();
                (&[], input)
            }
        };
        let as_u64 = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let limit = fetch.map_or(u64::MAX, |n| as_u64(skip).saturating_add(as_u64(n)));
        let sorted_limit = match below {
            LogicalPlan::Sort(sort) => sort.fetch.map_or(u64::MAX, as_u64),
            _ => u64::MAX,
        };
        let mut extras = Vec::new();
        let order = sort.iter().map(|s| (place(&s.expr, input.schema(), &mut extras), options(s))).collect();
        let n_columns = input.schema().fields().len();
        let prepared = self.prepare(input, &extras)?;
        let spec = RankingSpec {
            counting: Counting::Rows,
            number: Number::Absent,
            partition: Vec::new(),
            order,
            n_columns,
            skip: as_u64(skip),
            bound: limit.min(sorted_limit),
            append_only: self.is_append_only(prepared.node),
            closed: None,
        };
        let label = match fetch {
            Some(n) => format!("first {n} after {skip} by {}", sorts(sort)),
            None => format!("all after {skip} by {}", sorts(sort)),
        };
        let limited = crate::rows::relaxed(input.schema().as_arrow());
        let operator = Ranking::new(spec, &self.nodes[prepared.node].schema, Arc::clone(&limited))?;
        let mut node = self.operator(vec![prepared.node], operator, limited, label);
        for p in projections.into_iter().rev() {
            let exprs: Vec<&Expr> = p.expr.iter().collect();
            let schema = crate::rows::relaxed(p.schema.as_arrow());
            node =
                self.map(node, p.input.schema(), None, Some(&exprs), schema, format!("project {}", list(&p.expr)))?;
        }
        debug_assert_eq!(self.nodes[node].schema.fields().len(), schema.fields().len());
        Ok(Ok(node))
    }

    /// Window functions, one operator for each partitioning and order among them.
    pub(super) fn window(&mut self, plan: &logical::Window, schema: SchemaRef) -> OpResult<Result<NodeId, Reason>> {
        let n_columns = plan.input.schema().fields().len();
        let mut extras = Vec::new();
        let mut functions = Vec::new();
        for expr in &plan.window_expr {
            let Expr::WindowFunction(function) = unalias(expr) else {
                return Ok(Err(format!("{expr} is not a window function")));
            };
            functions.push(over_columns(function, plan.input.schema(), &mut extras));
        }
        let input = self.prepare(&plan.input, &extras)?;
        let mut groups: Vec<(Vec<usize>, &WindowFunction)> = Vec::new();
        for (i, function) in functions.iter().enumerate() {
            let same = |known: &WindowFunction| {
                known.params.partition_by == function.params.partition_by
                    && known.params.order_by == function.params.order_by
            };
            match groups.iter_mut().find(|(_, known)| same(known)) {
                Some((members, _)) => members.push(i),
                None => groups.push((vec![i], function)),
            }
        }
        // Each operator passes on what it was given, functions of earlier ones behind the extras.
        let mut node = input.node;
        let mut columns: Vec<usize> = (0..n_columns).collect();
        columns.resize(n_columns + functions.len(), 0);
        let mut width = self.nodes[node].schema.fields().len();
        for (members, first) in groups {
            let calls: Vec<&WindowFunction> = members.iter().map(|i| &functions[*i]).collect();
            let fields = members.iter().map(|i| schema.field(n_columns + i).clone());
            node = self.one_window(node, &input.schema, first, &calls, fields.collect())?;
            for member in members {
                columns[n_columns + member] = width;
                width += 1;
            }
        }
        let facts = self.nodes[node].facts.of_columns(&columns);
        let operator = Select { columns, schema: Arc::clone(&schema) };
        let node = self.operator(vec![node], operator, schema, "columns and windows".to_owned());
        self.nodes[node].facts = facts;
        Ok(Ok(node))
    }

    fn one_window(
        &mut self,
        node: NodeId,
        names: &DFSchemaRef,
        first: &WindowFunction,
        calls: &[&WindowFunction],
        fields: Vec<Field>,
    ) -> OpResult<NodeId> {
        let input = Arc::clone(&self.nodes[node].schema);
        let column = |expr: &Expr| place(expr, names, &mut Vec::new());
        let partition: Vec<usize> = first.params.partition_by.iter().map(column).collect();
        let (node, closed) = self.close_partition(node, names, &partition)?;
        let order = first.params.order_by.iter().map(|s| (column(&s.expr), options(s))).collect();
        let props = self.session.execution_props();
        let functions = calls
            .iter()
            .map(|call| {
                let expr = Expr::WindowFunction(Box::new((*call).clone()));
                create_window_expr(&expr, names, props, &Default::default())
            })
            .collect::<OpResult<Vec<_>>>()?;
        let reach = calls.iter().map(|call| reach(call)).reduce(|a, b| {
            let (a, b) = (a?, b?);
            Some(Reach { back: a.back.max(b.back), ahead: a.ahead.max(b.ahead) })
        });
        let n_columns = input.fields().len();
        let all: Vec<Field> = input.fields().iter().map(|f| f.as_ref().clone()).chain(fields).collect();
        let schema: SchemaRef = Arc::new(Schema::new(all));
        let facts = self.facts_of_partitions(node, n_columns, closed.as_ref());
        let closed = closed.map(|(part, closing)| (part, horizon_of(&closing)));
        let spec = WindowSpec { partition, order, n_columns, functions, reach: reach.flatten(), closed };
        let exprs: Vec<Expr> = calls.iter().map(|c| Expr::WindowFunction(Box::new((*c).clone()))).collect();
        let label = format!("window {}", list(&exprs));
        let make = || Ok(Box::new(Window::new(spec.clone(), &input, Arc::clone(&schema))?) as Box<dyn Operator>);
        let operator = self.sharded(&[(SchemaRef::clone(&input), spec.partition.clone())], paired_key, make)?;
        let node = self.push(vec![node], NodeKind::Operator(operator), schema, label, None);
        self.nodes[node].facts = facts;
        Ok(node)
    }

    /// Closes one of the columns by which rows are partitioned, if one of them closes.
    fn close_partition(
        &mut self,
        node: NodeId,
        schema: &DFSchemaRef,
        partition: &[usize],
    ) -> OpResult<(NodeId, Option<(usize, Closing)>)> {
        let column = |i: &usize| Expr::Column(Column::from(schema.qualified_field(*i)));
        let columns: Vec<Expr> = partition.iter().map(column).collect();
        self.close_any(node, &columns, schema)
    }

    /// What is known of rows that are put out by partition: while a partition is open, any of its rows may be taken back,
    /// so only what closes with the partition closes.
    fn facts_of_partitions(&self, node: NodeId, n_columns: usize, closed: Option<&(usize, Closing)>) -> Facts {
        let Some((_, closing)) = closed else { return Facts::default() };
        let known = self.nodes[node].facts.closings.iter();
        let together = known.filter(|c| c.column < n_columns && c.instant == closing.instant);
        let closings = together.map(|c| Closing { gated_us: closing.gated_us, ..c.clone() }).collect();
        Facts { closings, ..Facts::default() }
    }

    /// Compiles an input and computes further columns behind its own.
    fn prepare(&mut self, input: &LogicalPlan, extras: &[Expr]) -> OpResult<Prepared> {
        let node = self.compile(input)?;
        self.with_columns(node, input.schema(), extras)
    }

    /// A node with further columns behind its own; a row on which one of them fails is left out.
    pub(super) fn with_columns(&mut self, node: NodeId, schema: &DFSchemaRef, extras: &[Expr]) -> OpResult<Prepared> {
        if extras.is_empty() {
            return Ok(Prepared { node, schema: Arc::clone(schema) });
        }
        let own: Vec<Expr> = schema.columns().into_iter().map(Expr::Column).collect();
        let mut fields: Vec<_> = schema.iter().map(|(q, f)| (q.cloned(), Arc::clone(f))).collect();
        for (i, extra) in extras.iter().enumerate() {
            fields.push((None, Arc::new(Field::new(format!("__over_{i}"), extra.get_type(schema)?, true))));
        }
        let with_extras = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
        let exprs: Vec<&Expr> = own.iter().chain(extras).collect();
        let label = format!("and columns {}", list(extras));
        let arrow = crate::rows::relaxed(with_extras.as_arrow());
        let node = self.map(node, schema, None, Some(&exprs), arrow, label)?;
        Ok(Prepared { node, schema: with_extras })
    }
}

/// The column of an expression: one of the input's, or one behind them that is computed for it.
pub(super) fn place(expr: &Expr, input: &DFSchema, extras: &mut Vec<Expr>) -> usize {
    if let Expr::Column(column) = expr
        && let Ok(at) = input.index_of_column(column)
    {
        return at;
    }
    let at = extras.iter().position(|e| e == expr).unwrap_or_else(|| {
        extras.push(expr.clone());
        extras.len() - 1
    });
    input.fields().len() + at
}

/// The function with all expressions, but for literals, replaced by columns.
fn over_columns(function: &WindowFunction, input: &DFSchema, extras: &mut Vec<Expr>) -> WindowFunction {
    let mut function = function.clone();
    let mut replace = |expr: &mut Expr| {
        if matches!(expr, Expr::Literal(..)) {
            return;
        }
        let at = place(expr, input, extras);
        if at >= input.fields().len() {
            let name = format!("__over_{}", at - input.fields().len());
            *expr = Expr::Column(Column::new_unqualified(name));
        }
    };
    let params = &mut function.params;
    params.args.iter_mut().for_each(&mut replace);
    params.filter.iter_mut().for_each(|f| replace(f));
    // An order by a literal orders nothing, but the planner does not always leave it out.
    params.order_by.retain(|s| !matches!(s.expr, Expr::Literal(..)));
    params.order_by.iter_mut().for_each(|s| replace(&mut s.expr));
    params.partition_by.retain(|e| !matches!(e, Expr::Literal(..)));
    params.partition_by.iter_mut().for_each(&mut replace);
    function
}

fn options(sort: &Sort) -> SortOptions {
    SortOptions { descending: !sort.asc, nulls_first: sort.nulls_first }
}

fn sorts(all: &[Sort]) -> String {
    match all.is_empty() {
        true => "all columns".to_owned(),
        false => all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

fn find_top_n(filter: &logical::Filter) -> Option<TopN<'_>> {
    let (window, picked) = match filter.input.as_ref() {
        LogicalPlan::Window(window) => (window, None),
        LogicalPlan::Projection(p) if p.expr.iter().all(|e| matches!(unalias(e), Expr::Column(_))) => {
            let LogicalPlan::Window(window) = p.input.as_ref() else { return None };
            (window, Some(p))
        }
        _ => return None,
    };
    let [expr] = window.window_expr.as_slice() else { return None };
    let Expr::WindowFunction(function) = unalias(expr) else { return None };
    let counting = match (&function.fun, function.fun.name()) {
        (WindowFunctionDefinition::WindowUDF(_), "row_number") => Counting::Rows,
        (WindowFunctionDefinition::WindowUDF(_), "rank") => Counting::Ranks,
        (WindowFunctionDefinition::WindowUDF(_), "dense_rank") => Counting::DenseRanks,
        _ => return None,
    };
    let mut number = window.schema.columns().pop()?;
    if let Some(p) = picked {
        let is_number = |e: &Expr| matches!(unalias(e), Expr::Column(c) if *c == number);
        let at = p.expr.iter().position(is_number)?;
        number = p.schema.columns().swap_remove(at);
    }
    let conjuncts = split_conjunction(&filter.predicate);
    let bounds: Vec<Option<(u64, bool)>> = conjuncts.iter().map(|c| upper_bound(c, &number)).collect();
    let bound = bounds.iter().flatten().map(|(bound, _)| *bound).min()?;
    let is_all = bounds.iter().all(|b| b.is_some_and(|(_, is_exact)| is_exact));
    Some(TopN { window, picked, number, function, counting, bound, is_all })
}

/// The largest number that a condition lets through, and whether it lets all smaller ones through too.
fn upper_bound(condition: &Expr, number: &Column) -> Option<(u64, bool)> {
    let Expr::BinaryExpr(binary) = condition else { return None };
    let literal = |expr: &Expr| match expr {
        // A fraction would be cut, a text be compared as a text.
        Expr::Literal(value, _) if value.data_type().is_integer() => {
            match value.cast_to(&arrow::datatypes::DataType::UInt64) {
                Ok(ScalarValue::UInt64(Some(n))) => Some(n),
                _ => None,
            }
        }
        _ => None,
    };
    let is_number = |expr: &Expr| match expr {
        Expr::Column(c) => c == number,
        Expr::Cast(cast) => matches!(cast.expr.as_ref(), Expr::Column(c) if c == number),
        _ => false,
    };
    let (op, n) = if is_number(&binary.left) {
        (binary.op, literal(&binary.right)?)
    } else if is_number(&binary.right) {
        (binary.op.swap()?, literal(&binary.left)?)
    } else {
        return None;
    };
    match op {
        Compare::LtEq => Some((n, true)),
        Compare::Lt => Some((n.checked_sub(1)?, true)),
        Compare::Eq => Some((n, n == 1)),
        _ => None,
    }
}

/// How far a function looks; `None` if that is not a stated number of rows.
fn reach(call: &WindowFunction) -> Option<Reach> {
    let params = &call.params;
    let is_udwf = matches!(call.fun, WindowFunctionDefinition::WindowUDF(_));
    match call.fun.name() {
        name @ ("lag" | "lead") if is_udwf => {
            if params.null_treatment == Some(NullTreatment::IgnoreNulls) {
                return None;
            }
            let rows = match params.args.get(1) {
                None => 1,
                Some(Expr::Literal(value, _)) => match value.cast_to(&arrow::datatypes::DataType::Int64) {
                    Ok(ScalarValue::Int64(n)) => n.unwrap_or(1),
                    _ => return None,
                },
                Some(_) => return None,
            };
            let back = if name == "lag" { rows } else { -rows };
            Some(match back >= 0 {
                true => Reach { back: back.unsigned_abs(), ahead: 0 },
                false => Reach { back: 0, ahead: back.unsigned_abs() },
            })
        }
        "first_value" | "last_value" | "nth_value" => frame_reach(&params.window_frame),
        _ if is_udwf => None,
        _ => frame_reach(&params.window_frame),
    }
}

fn frame_reach(frame: &WindowFrame) -> Option<Reach> {
    if frame.units != WindowFrameUnits::Rows {
        return None;
    }
    let rows = |value: &ScalarValue| match value.cast_to(&arrow::datatypes::DataType::UInt64) {
        Ok(ScalarValue::UInt64(n)) => n,
        _ => None,
    };
    let mut reach = Reach::default();
    for bound in [&frame.start_bound, &frame.end_bound] {
        match bound {
            WindowFrameBound::CurrentRow => {}
            WindowFrameBound::Preceding(n) => reach.back = reach.back.max(rows(n)?),
            WindowFrameBound::Following(n) => reach.ahead = reach.ahead.max(rows(n)?),
        }
    }
    Some(reach)
}
