//! GROUP BY, GROUPING SETS and DISTINCT.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt64Array, new_null_array};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{AggregateFunction, GroupingSet, NullTreatment};
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion::physical_expr::PhysicalSortExpr;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::{Column as PhysicalColumn, Literal as PhysicalLiteral};

use super::closing::horizon_of;
use super::{Facts, Graph, NodeId, NodeKind, Reason, list, unalias};
use crate::error::OpResult;
use crate::ops::Operator;
use crate::ops::aggregate::{Aggregate, AggregateSpec, stored_group};
use crate::ops::expand::Expand;

/// CUBE over more columns than this is left to recomputation: every row would become more than 4096 rows.
const CUBE_COLUMNS_MAX: usize = 12;

/// An aggregate call over columns that are computed below the aggregate.
struct Call<'a> {
    function: &'a AggregateFunction,
    args: Vec<usize>,
    filter: Option<usize>,
    order: Vec<(usize, SortOptions)>,
}

/// The columns that an aggregate reads: first the keys, then what its calls read.
struct Columns {
    exprs: Vec<Expr>,
    /// Where calls look for a column that is there already. Under GROUPING SETS a key can be blanked out while a call
    /// must still see its value, so they share no column.
    shared_from: usize,
}

impl Columns {
    fn place(&mut self, expr: &Expr) -> usize {
        let known = self.exprs.iter().skip(self.shared_from).position(|c| c == expr);
        known.map_or_else(
            || {
                self.exprs.push(expr.clone());
                self.exprs.len() - 1
            },
            |at| at + self.shared_from,
        )
    }

    /// Moves the columns behind `from` by one, for a column that is put in there.
    fn shifted(at: usize, from: usize, by: usize) -> usize {
        if at >= from { at + by } else { at }
    }
}

impl Graph {
    /// Keys, arguments and filters are computed as columns first, so that the aggregate itself reads columns only and
    /// time-dependent expressions have their node.
    pub(super) fn aggregate(
        &mut self,
        input: &Arc<LogicalPlan>,
        keys: &[Expr],
        aggregates: &[Expr],
        schema: SchemaRef,
    ) -> OpResult<Result<NodeId, Reason>> {
        let sets = match grouping_sets(keys)? {
            Ok(sets) => sets,
            Err(reason) => return Ok(Err(reason)),
        };
        let keys: Vec<Expr> = match &sets {
            Some(_) => grouping_set_to_exprlist(keys)?.into_iter().cloned().collect(),
            None => keys.to_vec(),
        };
        let n_keys = keys.len();
        let shared_from = if sets.is_some() { n_keys } else { 0 };
        let mut columns = Columns { exprs: keys.clone(), shared_from };
        let mut calls = Vec::new();
        for expr in aggregates {
            let Expr::AggregateFunction(function) = unalias(expr) else {
                return Ok(Err(format!("{expr} is not an aggregate function")));
            };
            calls.push(call(function, &mut columns));
        }
        let node = self.compile(input)?;
        let (node, closed) = match &sets {
            None => self.close_any(node, &keys, input.schema())?,
            Some(_) => (node, None),
        };
        let mut fields = Vec::new();
        for (i, e) in columns.exprs.iter().enumerate() {
            fields.push(Field::new(format!("c{i}"), e.get_type(input.schema())?, true));
        }
        let projected: SchemaRef = Arc::new(Schema::new(fields));
        let refs: Vec<&Expr> = columns.exprs.iter().collect();
        let label = format!("columns {}", list(&columns.exprs));
        let mut node = self.map(node, input.schema(), None, Some(&refs), Arc::clone(&projected), label)?;
        if let Some((_, closing)) = &closed {
            // The gate took the key's expression, so no row comes for a closed value of the column that it is now.
            let known = self.nodes[node].facts.closings.iter_mut();
            known.filter(|c| c.instant == closing.instant).for_each(|c| c.gated_us = closing.gated_us);
        }
        let (mut n_group, mut read) = (n_keys, projected);
        if let Some(sets) = &sets {
            let id_type = schema.field(n_keys).data_type().clone();
            let expand = Expand::new(&masks(&keys, sets), &read, id_type)?;
            read = Arc::clone(expand.schema());
            let label = format!("{} grouping sets of {}", sets.len(), list(&keys));
            let appends = self.is_append_only(node);
            node = self.operator(vec![node], expand, Arc::clone(&read), label);
            self.nodes[node].facts.appends = appends;
            n_group += 1;
        }
        let append_only = self.is_append_only(node);
        let specs = calls
            .into_iter()
            .enumerate()
            .map(|(i, call)| {
                let output = schema.field(n_group + i).data_type().clone();
                spec(call.shifted(n_keys, n_group - n_keys), append_only, output, &read)
            })
            .collect::<OpResult<Vec<_>>>()?;
        let make = || {
            let mut operator = Aggregate::new(&read, n_group, specs.clone(), Arc::clone(&schema))?;
            if let Some(sets) = &sets {
                let empty: Vec<u64> =
                    masks(&keys, sets).into_iter().filter(|(b, _)| b.iter().all(|b| *b)).map(|m| m.1).collect();
                operator = operator.with_permanent(&empty_sets(&read, n_keys, &empty)?)?;
            }
            if let Some((key, closing)) = &closed {
                operator.close_by(*key, horizon_of(closing));
            }
            OpResult::Ok(operator)
        };
        let rescanning = make()?.rescanning();
        // The groups that are there without rows must be there once.
        let group: Vec<usize> = if sets.is_some() { Vec::new() } else { (0..n_group).collect() };
        let boxed = || Ok(Box::new(make()?) as Box<dyn Operator>);
        let operator = self.sharded(&[(Arc::clone(&read), group)], stored_group, boxed)?;
        let facts = Facts {
            // DISTINCT over rows that stay puts out rows that stay.
            appends: append_only && aggregates.is_empty(),
            closings: self.nodes[node].facts.of_columns(&(0..n_group).collect::<Vec<_>>()).closings,
            ..Facts::default()
        };
        let mut label = format!("aggregate {} by {}", list(aggregates), list(&keys));
        let again: Vec<Expr> = rescanning.into_iter().map(|i| aggregates[i].clone()).collect();
        if !again.is_empty() {
            write!(label, " (reads the whole group for {})", list(&again)).expect("a String takes every text");
        }
        let id = self.push(vec![node], NodeKind::Operator(operator), schema, label, None);
        self.nodes[id].facts = facts;
        Ok(Ok(id))
    }
}

impl Call<'_> {
    fn shifted(mut self, from: usize, by: usize) -> Self {
        let order = self.order.iter_mut().map(|(at, _)| at);
        for at in self.args.iter_mut().chain(&mut self.filter).chain(order) {
            *at = Columns::shifted(*at, from, by);
        }
        self
    }
}

fn call<'a>(function: &'a AggregateFunction, columns: &mut Columns) -> Call<'a> {
    let params = &function.params;
    let args = params.args.iter().map(|a| columns.place(a)).collect();
    let filter = params.filter.as_deref().map(|f| columns.place(f));
    let order = params
        .order_by
        .iter()
        .map(|s| (columns.place(&s.expr), SortOptions { descending: !s.asc, nulls_first: s.nulls_first }))
        .collect();
    Call { function, args, filter, order }
}

/// The sets of GROUPING SETS, ROLLUP or CUBE; `None` for a plain GROUP BY.
fn grouping_sets(keys: &[Expr]) -> OpResult<Result<Option<Vec<Vec<Expr>>>, Reason>> {
    let [Expr::GroupingSet(set)] = keys else {
        return Ok(match keys.iter().any(|e| matches!(e, Expr::GroupingSet(_))) {
            true => Err("GROUPING SETS beside other GROUP BY columns".to_owned()),
            false => Ok(None),
        });
    };
    Ok(match set {
        GroupingSet::GroupingSets(sets) => Ok(Some(sets.clone())),
        GroupingSet::Rollup(exprs) => Ok(Some((0..=exprs.len()).rev().map(|n| exprs[..n].to_vec()).collect())),
        GroupingSet::Cube(exprs) if exprs.len() <= CUBE_COLUMNS_MAX => {
            let chosen = |bits: usize| {
                let is_in = |i: &usize| bits & (1 << i) != 0;
                (0..exprs.len()).filter(is_in).map(|i| exprs[i].clone()).collect::<Vec<_>>()
            };
            Ok(Some((0..1_usize << exprs.len()).map(chosen).collect()))
        }
        GroupingSet::Cube(exprs) => Err(format!("CUBE over {} columns", exprs.len())),
    })
}

/// For each set: which keys are blanked out, and its `__grouping_id` as DataFusion has it (one bit per blanked key,
/// the last key lowest; above them the number of equal sets before).
fn masks(keys: &[Expr], sets: &[Vec<Expr>]) -> Vec<(Vec<bool>, u64)> {
    let mut masks: Vec<(Vec<bool>, u64)> = Vec::with_capacity(sets.len());
    for set in sets {
        let blanked: Vec<bool> = keys.iter().map(|k| !set.contains(k)).collect();
        let bits = blanked.iter().fold(0_u64, |bits, is_blank| (bits << 1) | u64::from(*is_blank));
        let before = masks.iter().filter(|(known, _)| *known == blanked).count();
        masks.push((blanked, bits | (u64::try_from(before).unwrap_or(0) << keys.len())));
    }
    masks
}

/// The group keys of empty sets: no key but the id.
fn empty_sets(input: &SchemaRef, n_keys: usize, ids: &[u64]) -> OpResult<RecordBatch> {
    let schema: SchemaRef = Arc::new(Schema::new(input.fields()[..=n_keys].to_vec()));
    let mut columns: Vec<ArrayRef> =
        schema.fields()[..n_keys].iter().map(|f| new_null_array(f.data_type(), ids.len())).collect();
    let ids: ArrayRef = Arc::new(UInt64Array::from(ids.to_vec()));
    columns.push(arrow::compute::cast(&ids, schema.field(n_keys).data_type())?);
    Ok(RecordBatch::try_new(schema, columns)?)
}

fn spec(call: Call<'_>, append_only: bool, output: DataType, input: &SchemaRef) -> OpResult<AggregateSpec> {
    let (function, params) = (&call.function.func, &call.function.params);
    let columns = call
        .args
        .iter()
        .zip(&params.args)
        .map(|(i, arg)| match unalias(arg) {
            // Some functions want to see that an argument is a literal, string_agg its delimiter.
            Expr::Literal(value, _) => Arc::new(PhysicalLiteral::new(value.clone())) as crate::ops::Expr,
            _ => Arc::new(PhysicalColumn::new(input.field(*i).name(), *i)) as crate::ops::Expr,
        })
        .collect();
    let ignore_nulls = params.null_treatment == Some(NullTreatment::IgnoreNulls);
    // WITHIN GROUP (ORDER BY x): the order is that of the argument, and its direction the function's business.
    let within_group = function.supports_within_group_clause() && !call.order.is_empty();
    let mut general = AggregateExprBuilder::new(Arc::clone(function), columns)
        .schema(Arc::clone(input))
        .alias(function.name())
        // Different values only are passed to it; it need not look for them again.
        .with_distinct(false)
        .with_ignore_nulls(ignore_nulls);
    if within_group {
        let sorts = call.order.iter().map(|(i, options)| {
            let column = Arc::new(PhysicalColumn::new(input.field(*i).name(), *i));
            PhysicalSortExpr { expr: column, options: *options }
        });
        general = general.order_by(sorts.collect());
    }
    let descending = within_group && call.order[0].1.descending;
    let share = params.args.get(1).and_then(|arg| match unalias(arg) {
        Expr::Literal(ScalarValue::Float64(Some(share)), _) => Some(*share),
        _ => None,
    });
    let nth = params.args.get(1).and_then(|arg| match unalias(arg) {
        Expr::Literal(ScalarValue::Int64(Some(n)), _) if *n != 0 => Some(*n),
        _ => None,
    });
    Ok(AggregateSpec {
        nth,
        function: function.name().to_owned(),
        args: call.args,
        filter: call.filter,
        distinct: params.distinct,
        order: if within_group { Vec::new() } else { call.order },
        ignore_nulls,
        share,
        descending,
        append_only,
        output,
        general: general.build()?,
    })
}
