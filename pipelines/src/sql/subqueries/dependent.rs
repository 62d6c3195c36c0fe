//! A correlated subquery computed for all outer values at once: its plan with the outer columns as further columns behind its
//! own, and for every combination of outer values the rows that the subquery has for it.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{Column, DFSchema, JoinType, NullEquality, ScalarValue, not_impl_err};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::expr::{GroupingSet, Sort};
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{
    self as logical, Expr, ExprFunctionExt, FetchType, LogicalPlan, LogicalPlanBuilder, SkipType, cast, lit, when,
};

use super::Result;
use super::pulled::{Outer, Pulled, outer_columns, pull_up};
use super::steps::{Names, On, columns_of, filter, join, named, project, restored};

/// Computes a plan for all outer values: its own columns, then those of `outer`.
///
/// # Errors
/// Where no form is known for a correlated plan node.
pub(super) fn dependent(plan: &LogicalPlan, outer: &Outer, names: &mut Names) -> Result<LogicalPlan> {
    if let Some(pulled) = pull_up(plan, &|column| outer.reads(column), names)? {
        return joined(&pulled, outer, plan.schema());
    }
    match plan {
        LogicalPlan::Projection(p) => {
            let input = dependent(&p.input, outer, names)?;
            let own = p.expr.iter().zip(p.schema.iter());
            let exprs = own
                .map(|(e, (qualifier, field))| Ok(named(outer.inside(e)?, qualifier, field.name())))
                .chain(outer.values().map(|c| Ok(Expr::Column(c))))
                .collect::<Result<Vec<_>>>()?;
            project(input, exprs)
        }
        LogicalPlan::Filter(f) => filter(dependent(&f.input, outer, names)?, [outer.inside(&f.predicate)?]),
        LogicalPlan::SubqueryAlias(alias) => {
            let input = dependent(&alias.input, outer, names)?;
            restored(input, &first(plan.schema()), plan.schema(), outer.values())
        }
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => dependent(&sort.input, outer, names),
        LogicalPlan::Limit(limit) => limited(limit, outer, names),
        LogicalPlan::Aggregate(a) if a.group_expr.is_empty() => {
            let groups = groups(a, outer, names)?;
            with_empty(groups, a, outer, names)
        }
        LogicalPlan::Aggregate(a) => groups(a, outer, names),
        LogicalPlan::Distinct(distinct) => different(distinct, outer, names),
        LogicalPlan::Window(window) => windows(window, outer, names),
        LogicalPlan::Union(union) => unions(union, outer, names),
        LogicalPlan::Unnest(unnest) => {
            let input = dependent(&unnest.input, outer, names)?;
            let lists = unnest.exec_columns.clone();
            let plan = LogicalPlanBuilder::from(input).unnest_columns_with_options(lists, unnest.options.clone())?;
            restored(plan.build()?, &first(&unnest.schema), &unnest.schema, outer.values())
        }
        LogicalPlan::Values(values) => listed(values, outer),
        LogicalPlan::Join(inner) => joins(inner, outer, names),
        other => {
            let read = outer_columns(other, &|column| outer.reads(column))?;
            let column = read.first().map(|column| column.name.clone()).unwrap_or_default();
            not_impl_err!("'{column}', a column of the outer query, inside {} of a subquery", kind(other))
        }
    }
}

fn kind(plan: &LogicalPlan) -> String {
    match plan {
        LogicalPlan::RecursiveQuery(_) => "WITH RECURSIVE".to_owned(),
        other => other.display().to_string().split([':', '\n']).next().unwrap_or_default().to_owned(),
    }
}

/// The places of all columns of a schema.
fn first(schema: &DFSchema) -> Vec<usize> {
    (0..schema.fields().len()).collect()
}

/// The rows of a plan beside the outer values for which its conditions are true.
fn joined(pulled: &Pulled, outer: &Outer, schema: &DFSchema) -> Result<LogicalPlan> {
    if let Some(keyed) = pulled.keyed(outer, schema)? {
        return Ok(keyed);
    }
    let predicates = pulled.predicates.iter().map(|p| outer.inside(p)).collect::<Result<Vec<_>>>()?;
    let on = On { predicates, ..On::default() };
    let beside = join(outer.plan.clone(), pulled.plan.clone(), JoinType::Inner, on)?;
    project(beside, columns_of(schema).into_iter().chain(outer.values()).map(Expr::Column).collect())
}

/// The groups of an aggregate for each of the outer values.
pub(super) fn groups(aggregate: &logical::Aggregate, outer: &Outer, names: &mut Names) -> Result<LogicalPlan> {
    let input = dependent(&aggregate.input, outer, names)?;
    let values: Vec<Expr> = outer.values().map(Expr::Column).collect();
    let mut keys = aggregate.group_expr.iter().map(|e| outer.inside(e)).collect::<Result<Vec<_>>>()?;
    let n_keys = match keys.as_slice() {
        [Expr::GroupingSet(_)] => grouping_set_to_exprlist(&keys)?.len(),
        all => all.len(),
    };
    match keys.as_mut_slice() {
        [Expr::GroupingSet(set)] => *set = with_keys(set, &values)?,
        _ => keys.extend(values),
    }
    let calls = aggregate.aggr_expr.iter().map(|e| outer.inside(e)).collect::<Result<Vec<_>>>()?;
    let n_values = outer.values().count();
    let plan = LogicalPlan::Aggregate(logical::Aggregate::try_new(Arc::new(input), keys, calls)?);
    // Behind the keys stand the outer columns, then, as before, what is computed.
    let n_own = aggregate.schema.fields().len();
    let places: Vec<usize> = (0..n_own).map(|at| if at < n_keys { at } else { at + n_values }).collect();
    restored(plan, &places, &aggregate.schema, outer.values())
}

/// Grouping sets with further keys in each of them, which come last.
fn with_keys(set: &GroupingSet, further: &[Expr]) -> Result<GroupingSet> {
    let sets: Vec<Vec<Expr>> = match set {
        GroupingSet::GroupingSets(sets) => sets.clone(),
        GroupingSet::Rollup(_) | GroupingSet::Cube(_) => Vec::new(),
    };
    if sets.is_empty() || sets.iter().any(Vec::is_empty) {
        return not_impl_err!("a column of the outer query below the GROUPING SETS of a subquery");
    }
    let with = |set: Vec<Expr>| set.into_iter().chain(further.iter().cloned()).collect();
    Ok(GroupingSet::GroupingSets(sets.into_iter().map(with).collect()))
}

/// What an aggregate call gives where there is no row, if that is not NULL.
pub(super) fn of_nothing(call: &Expr, data_type: &DataType) -> Result<Option<ScalarValue>> {
    let mut call = call;
    while let Expr::Alias(alias) = call {
        call = &alias.expr;
    }
    let Expr::AggregateFunction(function) = call else { return Ok(None) };
    let value = function.func.default_value(data_type)?;
    Ok((!value.is_null()).then_some(value))
}

/// An aggregate's column, with the value for no row where there is none.
pub(super) fn or_of_nothing(column: Expr, call: &Expr, data_type: &DataType) -> Result<Expr> {
    match of_nothing(call, data_type)? {
        Some(value) => when(column.clone().is_null(), lit(value)).otherwise(column),
        None => Ok(column),
    }
}

/// An aggregate without GROUP BY has a row for every outer value.
fn with_empty(
    groups: LogicalPlan,
    aggregate: &logical::Aggregate,
    outer: &Outer,
    names: &mut Names,
) -> Result<LogicalPlan> {
    let all = outer.again(names)?;
    let on = On { same: all.pairs_with(outer), ..On::default() };
    let both = join(all.plan.clone(), groups, JoinType::Left, on)?;
    let own = aggregate.schema.iter().zip(&aggregate.aggr_expr).map(|((qualifier, field), call)| {
        let column = Expr::Column(Column::from((qualifier, field)));
        Ok(named(or_of_nothing(column, call, field.data_type())?, qualifier, field.name()))
    });
    let values = all.values().zip(outer.values());
    let values = values.map(|(from, to)| Ok(named(Expr::Column(from), to.relation.as_ref(), &to.name)));
    project(both, own.chain(values).collect::<Result<Vec<_>>>()?)
}

fn different(distinct: &logical::Distinct, outer: &Outer, names: &mut Names) -> Result<LogicalPlan> {
    let values: Vec<Expr> = outer.values().map(Expr::Column).collect();
    match distinct {
        logical::Distinct::All(input) => {
            let input = Arc::new(dependent(input, outer, names)?);
            Ok(LogicalPlan::Distinct(logical::Distinct::All(input)))
        }
        logical::Distinct::On(on) => {
            let input = Arc::new(dependent(&on.input, outer, names)?);
            let inside = |exprs: &[Expr]| exprs.iter().map(|e| outer.inside(e)).collect::<Result<Vec<_>>>();
            let keys = values.iter().cloned().chain(inside(&on.on_expr)?).collect();
            let shown = on.select_expr.iter().zip(on.schema.iter());
            let shown = shown
                .map(|(e, (qualifier, field))| Ok(named(outer.inside(e)?, qualifier, field.name())))
                .chain(values.iter().cloned().map(Ok))
                .collect::<Result<Vec<_>>>()?;
            let sorts = match &on.sort_expr {
                Some(sorts) => {
                    Some(values.iter().map(|v| v.clone().sort(true, true)).chain(sorted(sorts, outer)?).collect())
                }
                None => None,
            };
            let plan = logical::DistinctOn::try_new(keys, shown, sorts, input)?;
            Ok(LogicalPlan::Distinct(logical::Distinct::On(plan)))
        }
    }
}

fn sorted(sorts: &[Sort], outer: &Outer) -> Result<Vec<Sort>> {
    sorts.iter().map(|s| Ok(Sort { expr: outer.inside(&s.expr)?, ..s.clone() })).collect()
}

fn windows(window: &logical::Window, outer: &Outer, names: &mut Names) -> Result<LogicalPlan> {
    let input = dependent(&window.input, outer, names)?;
    let mut functions = Vec::new();
    for expr in &window.window_expr {
        let mut expr = outer.inside(expr)?.unalias();
        if let Expr::WindowFunction(function) = &mut expr {
            function.params.partition_by.extend(outer.values().map(Expr::Column));
        }
        functions.push(expr);
    }
    let (n_input, n_values) = (window.input.schema().fields().len(), outer.values().count());
    let plan = LogicalPlan::Window(logical::Window::try_new(functions, Arc::new(input))?);
    let n_own = window.schema.fields().len();
    let places: Vec<usize> = (0..n_own).map(|at| if at < n_input { at } else { at + n_values }).collect();
    restored(plan, &places, &window.schema, outer.values())
}

fn unions(union: &logical::Union, outer: &Outer, names: &mut Names) -> Result<LogicalPlan> {
    let inputs = union.inputs.iter().map(|i| Ok(Arc::new(dependent(i, outer, names)?))).collect::<Result<Vec<_>>>()?;
    under_names(inputs, &union.schema, outer)
}

/// All rows of some plans whose columns are those of `schema` and then the outer ones.
fn under_names(inputs: Vec<Arc<LogicalPlan>>, schema: &DFSchema, outer: &Outer) -> Result<LogicalPlan> {
    let plan = LogicalPlan::Union(logical::Union::try_new_with_loose_types(inputs)?);
    let own = columns_of(plan.schema());
    let n_own = schema.fields().len();
    let under = own.iter().take(n_own).zip(schema.iter());
    let under = under.map(|(c, (qualifier, field))| named(Expr::Column(c.clone()), qualifier, field.name()));
    let values = own.iter().skip(n_own).zip(outer.values());
    let values = values.map(|(c, to)| named(Expr::Column(c.clone()), to.relation.as_ref(), &to.name));
    let exprs = under.chain(values).collect();
    project(plan, exprs)
}

/// The rows of VALUES.
fn listed(values: &logical::Values, outer: &Outer) -> Result<LogicalPlan> {
    let mut rows = Vec::new();
    for row in &values.values {
        let own = row.iter().zip(values.schema.iter());
        let own = own.map(|(e, (qualifier, field))| {
            let value = cast(outer.inside(e)?, field.data_type().clone());
            Ok(named(value, qualifier, field.name()))
        });
        let exprs = own.chain(outer.values().map(|c| Ok(Expr::Column(c)))).collect::<Result<Vec<_>>>()?;
        rows.push(Arc::new(project(outer.plan.clone(), exprs)?));
    }
    match rows.len() {
        1 => Ok(Arc::unwrap_or_clone(rows.remove(0))),
        _ => under_names(rows, &values.schema, outer),
    }
}

fn joins(inner: &logical::Join, outer: &Outer, names: &mut Names) -> Result<LogicalPlan> {
    let is_outer = |plan: &LogicalPlan| {
        Ok::<_, datafusion::error::DataFusionError>(!outer_columns(plan, &|column| outer.reads(column))?.is_empty())
    };
    let (left_reads, right_reads) = (is_outer(&inner.left)?, is_outer(&inner.right)?);
    // A side whose rows are there without a partner must have the outer columns; so must one that reads them.
    let (keeps_left, keeps_right) = match inner.join_type {
        JoinType::Inner => (left_reads || !right_reads, right_reads),
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => (true, right_reads),
        JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => (left_reads, true),
        JoinType::Full => (true, true),
    };
    let right_outer = if keeps_left { outer.again(names)? } else { outer.clone() };
    let left = if keeps_left { dependent(&inner.left, outer, names)? } else { inner.left.as_ref().clone() };
    let mut right = inner.right.as_ref().clone();
    let mut pairs = Vec::new();
    if keeps_right {
        right = dependent(&inner.right, &right_outer, names)?;
        if keeps_left {
            pairs = outer.pairs_with(&right_outer);
        }
    }
    // The outer columns of the condition are read from a side that has them.
    let of_condition = if keeps_left { outer } else { &right_outer };
    let (plan, shown) = Both { inner, left, right, pairs }.joined(of_condition, names)?;
    let values: Vec<Expr> = match inner.join_type {
        JoinType::Full => {
            let both = outer.values().zip(right_outer.values());
            let either = |(l, r): (Column, Column)| {
                let (l_value, r_value) = (Expr::Column(l.clone()), Expr::Column(r));
                Ok(named(
                    when(l_value.clone().is_not_null(), l_value).otherwise(r_value)?,
                    l.relation.as_ref(),
                    &l.name,
                ))
            };
            both.map(either).collect::<Result<_>>()?
        }
        JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => {
            let both = right_outer.values().zip(outer.values());
            both.map(|(r, l)| named(Expr::Column(r), l.relation.as_ref(), &l.name)).collect()
        }
        _ => outer_of(outer, &right_outer, keeps_left),
    };
    let own = shown.into_iter().zip(inner.schema.iter());
    let own = own.map(|(column, (qualifier, field))| named(Expr::Column(column), qualifier, field.name()));
    project(plan, own.chain(values).collect())
}

fn outer_of(outer: &Outer, right: &Outer, keeps_left: bool) -> Vec<Expr> {
    let from: Vec<Column> = if keeps_left { outer.values().collect() } else { right.values().collect() };
    from.into_iter().zip(outer.values()).map(|(c, to)| named(Expr::Column(c), to.relation.as_ref(), &to.name)).collect()
}

/// A join inside a subquery, with sides that have the outer columns where they must.
struct Both<'a> {
    inner: &'a logical::Join,
    left: LogicalPlan,
    right: LogicalPlan,
    pairs: Vec<(Column, Column)>,
}

impl Both<'_> {
    /// The join, and its columns that are those of the join as it was.
    fn joined(mut self, outer: &Outer, names: &mut Names) -> Result<(LogicalPlan, Vec<Column>)> {
        let inner = self.inner;
        let side = |e: &Expr| outer.inside(e);
        let mut on = inner.on.iter().map(|(l, r)| Ok((side(l)?, side(r)?))).collect::<Result<Vec<_>>>()?;
        let mut conditions: Vec<Expr> = inner.filter.iter().map(side).collect::<Result<_>>()?;
        let mut nulls = inner.null_equality;
        if inner.join_type == JoinType::LeftMark {
            self.rename_right(names)?;
        }
        let pairs = self.pairs.into_iter().map(|(l, r)| (Expr::Column(l), Expr::Column(r)));
        if on.is_empty() || nulls == NullEquality::NullEqualsNull {
            nulls = if pairs.len() > 0 || !on.is_empty() { NullEquality::NullEqualsNull } else { nulls };
            on.extend(pairs);
        } else {
            conditions.extend(pairs.map(|(l, r)| logical::binary_expr(l, logical::Operator::IsNotDistinctFrom, r)));
        }
        let plan = LogicalPlan::Join(logical::Join::try_new(
            Arc::new(self.left),
            Arc::new(self.right),
            on,
            logical::utils::conjunction(conditions),
            inner.join_type,
            inner.join_constraint,
            nulls,
            inner.null_aware,
        )?);
        let is_own = |column: &Column| inner.schema.has_column(column);
        let mut shown: Vec<Column> = columns_of(plan.schema()).into_iter().filter(is_own).collect();
        if shown.len() != inner.schema.fields().len() {
            shown = columns_of(&inner.schema);
        }
        Ok((plan, shown))
    }

    /// The mark of a mark join has the one qualifier that the right side has; its outer columns take it over.
    fn rename_right(&mut self, names: &mut Names) -> Result<()> {
        let own = self.inner.right.schema();
        let qualifier = own.iter().find_map(|(qualifier, _)| qualifier.cloned());
        let mut exprs: Vec<Expr> = columns_of(own).into_iter().map(Expr::Column).collect();
        for (_, column) in &mut self.pairs {
            let new = Column::new(qualifier.clone(), names.next("o"));
            exprs.push(named(Expr::Column(column.clone()), new.relation.as_ref(), &new.name));
            *column = new;
        }
        self.right = project(self.right.clone(), exprs)?;
        Ok(())
    }
}

fn limited(limit: &logical::Limit, outer: &Outer, names: &mut Names) -> Result<LogicalPlan> {
    let ordered = Ordered::below(limit);
    let input = dependent(ordered.input, outer, names)?;
    let partition = outer.values().map(Expr::Column).collect();
    let places = Places { partition, order: sorted(ordered.sorts, outer)? };
    let number = |e: &Option<Box<Expr>>| e.as_deref().map(|e| outer.inside(e)).transpose();
    let mut plan = places.first(input, limit, (number(&limit.skip)?, number(&limit.fetch)?), names)?;
    for projection in ordered.projections {
        let own = projection.exprs.iter().map(|e| outer.inside(e)).collect::<Result<Vec<_>>>()?;
        let own = own.into_iter().zip(projection.schema.iter());
        let own = own.map(|(e, (qualifier, field))| named(e, qualifier, field.name()));
        plan = project(plan, own.chain(outer.values().map(Expr::Column)).collect())?;
    }
    Ok(plan)
}

/// A projection above an ORDER BY.
pub(super) struct Above<'a> {
    pub(super) exprs: Vec<Expr>,
    pub(super) schema: &'a DFSchema,
}

/// What a LIMIT takes the first rows of: an input, its order, and the projections that stand between, the lowest first.
pub(super) struct Ordered<'a> {
    pub(super) input: &'a LogicalPlan,
    pub(super) sorts: &'a [Sort],
    pub(super) projections: Vec<Above<'a>>,
}

impl<'a> Ordered<'a> {
    pub(super) fn below(limit: &'a logical::Limit) -> Self {
        let mut projections = Vec::new();
        let mut below = limit.input.as_ref();
        loop {
            below = match below {
                LogicalPlan::Projection(p) => {
                    projections.insert(0, Above { exprs: p.expr.clone(), schema: &p.schema });
                    &p.input
                }
                LogicalPlan::SubqueryAlias(alias) => {
                    let exprs = columns_of(alias.input.schema()).into_iter().map(Expr::Column).collect();
                    projections.insert(0, Above { exprs, schema: &alias.schema });
                    &alias.input
                }
                LogicalPlan::Sort(sort) if sort.fetch.is_none() => {
                    return Self { input: &sort.input, sorts: &sort.expr, projections };
                }
                _ => return Self { input: &limit.input, sorts: &[], projections: Vec::new() },
            };
        }
    }
}

/// The places of rows: within which columns they are counted, and in which order.
pub(super) struct Places {
    pub(super) partition: Vec<Expr>,
    /// Empty for all columns, so that the same rows are the first ones every time.
    pub(super) order: Vec<Sort>,
}

impl Places {
    /// The rows at the places that a LIMIT takes; `skip` and `fetch` are its numbers as expressions over the input.
    pub(super) fn first(
        self,
        input: LogicalPlan,
        limit: &logical::Limit,
        (skip, fetch): (Option<Expr>, Option<Expr>),
        names: &mut Names,
    ) -> Result<LogicalPlan> {
        let schema = Arc::clone(input.schema());
        let order = match self.order.is_empty() {
            true => columns_of(&schema).into_iter().map(|c| Expr::Column(c).sort(true, false)).collect(),
            false => self.order,
        };
        let place = Column::new(Some(names.next("place")), names.next("p"));
        let number = row_number().partition_by(self.partition).order_by(order).build()?;
        let numbered = LogicalPlan::Window(logical::Window::try_new(vec![number], Arc::new(input))?);
        let mut columns: Vec<Expr> = columns_of(numbered.schema()).into_iter().map(Expr::Column).collect();
        if let Some(last) = columns.pop() {
            columns.push(named(last, place.relation.as_ref(), &place.name));
        }
        let numbered = project(numbered, columns)?;
        let at = || Expr::Column(place.clone());
        let big = |n: usize| lit(u64::try_from(n).unwrap_or(u64::MAX));
        let whole = |e: Expr| cast(e, DataType::Int64);
        let mut conditions = Vec::new();
        match (limit.get_skip_type()?, limit.get_fetch_type()?) {
            (SkipType::Literal(skip), FetchType::Literal(fetch)) => {
                conditions.extend(fetch.map(|n| at().lt_eq(big(skip.saturating_add(n)))));
                conditions.extend((skip > 0).then(|| at().gt(big(skip))));
            }
            _ => {
                let skip = skip.map_or_else(
                    || Ok(lit(0_i64)),
                    |e| {
                        let e = whole(e);
                        when(e.clone().is_null(), lit(0_i64)).otherwise(e)
                    },
                )?;
                conditions.push(whole(at()).gt(skip.clone()));
                conditions.extend(fetch.map(|fetch| {
                    let fetch = whole(fetch);
                    fetch.clone().is_null().or(whole(at()).lt_eq(skip + fetch))
                }));
            }
        }
        let kept = filter(numbered, conditions)?;
        project(kept, columns_of(&schema).into_iter().map(Expr::Column).collect())
    }
}
