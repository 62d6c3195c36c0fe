//! Joins that are kept as other plans: NOT IN with NULLs, EXISTS inside an expression (mark joins), conditions that read
//! the time, keys of different types.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::{Column, DFSchema};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::builder::build_join_schema;
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{self as logical, Expr, ExprSchemable, JoinType, LogicalPlan, LogicalPlanBuilder, lit};

use super::{Graph, NodeId, Reason};
use crate::error::OpResult;
use crate::ops::union::Union;
use crate::rows::relaxed;
use crate::sql::now::depends_on_time;

/// Columns that say of the right side of a NOT IN whether it is empty, and whether it has a NULL.
const IS_EMPTY: &str = "__right_is_empty";
const HAS_NULL: &str = "__right_has_null";

impl Graph {
    /// The node of a join that is another plan; `None` for a join that is kept as it stands.
    pub(super) fn rewritten_join(
        &mut self,
        join: &logical::Join,
        schema: &SchemaRef,
    ) -> OpResult<Option<Result<NodeId, Reason>>> {
        if join.join_type == JoinType::LeftMark {
            return self.mark_join(join, schema).map(Some);
        }
        if join.null_aware {
            return Ok(Some(match not_in(join)? {
                Some(plan) => Ok(self.compile(&plan)?),
                None => Err("NOT IN that compares no column".to_owned()),
            }));
        }
        if let Some(coerced) = with_equal_types(join)? {
            return self.join(&coerced, Arc::clone(schema)).map(Some);
        }
        let reads_time = |(l, r): &(Expr, Expr)| depends_on_time(l) || depends_on_time(r);
        if join.on.iter().any(reads_time) || join.filter.as_ref().is_some_and(depends_on_time) {
            return Ok(Some(match without_time(join)? {
                Some(plan) => Ok(self.compile(&plan)?),
                None => Err("an outer join condition that reads the time".to_owned()),
            }));
        }
        Ok(None)
    }

    /// Whether a row has a match, as a column: the rows with one, and the rows without one.
    fn mark_join(&mut self, join: &logical::Join, schema: &SchemaRef) -> OpResult<Result<NodeId, Reason>> {
        let left = join.left.schema();
        let mut halves = Vec::new();
        for (join_type, mark) in [(JoinType::LeftSemi, true), (JoinType::LeftAnti, false)] {
            let half = logical::Join { join_type, schema: Arc::clone(left), ..join.clone() };
            let node = match self.join(&half, relaxed(left.as_arrow()))? {
                Ok(node) => node,
                Err(reason) => return Ok(Err(reason)),
            };
            let mark = lit(mark);
            let columns: Vec<Expr> = left.columns().into_iter().map(Expr::Column).collect();
            let exprs: Vec<&Expr> = columns.iter().chain([&mark]).collect();
            let label = format!("mark {mark}");
            halves.push(self.map(node, left, None, Some(&exprs), Arc::clone(schema), label)?);
        }
        let operator = Union { schema: Arc::clone(schema) };
        Ok(Ok(self.operator(halves, operator, Arc::clone(schema), "union all".to_owned())))
    }
}

/// `x NOT IN (SELECT y …)`: no row if some y is NULL; all rows if there is no y; otherwise those whose x is not NULL and
/// not among the y.
fn not_in(join: &logical::Join) -> OpResult<Option<LogicalPlan>> {
    let Some(at) = in_pair(join) else { return Ok(None) };
    let (x, y) = join.on[at].clone();
    if join.on.len() > 1 || join.filter.is_some() {
        return correlated_not_in(join, at).map(Some);
    }
    let anti = LogicalPlan::Join(logical::Join { null_aware: false, ..join.clone() });
    // DISTINCT puts out nothing while the two answers stay the same, whatever happens to the counts.
    let answers = LogicalPlanBuilder::from(Arc::clone(&join.right))
        .aggregate(Vec::<Expr>::new(), vec![count(lit(1_i64)).alias("n_rows"), count(y).alias("n_values")])?
        .project(vec![
            Expr::from(Column::from_name("n_rows")).eq(lit(0_i64)).alias(IS_EMPTY),
            Expr::from(Column::from_name("n_rows")).gt(Expr::from(Column::from_name("n_values"))).alias(HAS_NULL),
        ])?
        .distinct()?
        .build()?;
    let answer = |name: &str| Expr::from(Column::from_name(name));
    let plan = LogicalPlanBuilder::from(anti)
        .cross_join(answers)?
        .filter((!answer(HAS_NULL)).and(answer(IS_EMPTY).or(x.is_not_null())))?
        .project(join.left.schema().columns().into_iter().map(Expr::Column).collect::<Vec<_>>())?
        .build()?;
    Ok(Some(plan))
}

/// The key pair of the IN itself: the subquery's first column; the others come from its correlation.
fn in_pair(join: &logical::Join) -> Option<usize> {
    let first = join.right.schema().columns().into_iter().next()?;
    join.on.iter().position(|(_, y)| *y == Expr::Column(first.clone()))
}

/// A correlated NOT IN: no row of its own subquery equals x, is NULL, or is compared with a NULL.
fn correlated_not_in(join: &logical::Join, at: usize) -> OpResult<LogicalPlan> {
    let mut plain = logical::Join { null_aware: false, ..join.clone() };
    let (x, y) = plain.on.remove(at);
    let may_equal = x.clone().eq(y.clone()).or(x.is_null()).or(y.is_null());
    plain.filter = conjunction(plain.filter.into_iter().chain([may_equal]));
    Ok(LogicalPlan::Join(plain))
}

/// Keys of different types are compared as the type that holds both.
fn with_equal_types(join: &logical::Join) -> OpResult<Option<logical::Join>> {
    let mut coerced = join.clone();
    let mut is_new = false;
    for (l, r) in &mut coerced.on {
        let (left, right) = (l.get_type(join.left.schema())?, r.get_type(join.right.schema())?);
        if left == right {
            continue;
        }
        let Some(both) = comparison_coercion(&left, &right) else { continue };
        *l = l.clone().cast_to(&both, join.left.schema())?;
        *r = r.clone().cast_to(&both, join.right.schema())?;
        is_new = true;
    }
    Ok(is_new.then_some(coerced))
}

/// The same join with what reads the time outside of its condition: behind an inner join, in front of the side whose
/// rows only matter when they match. `None` where neither is the same.
fn without_time(join: &logical::Join) -> OpResult<Option<LogicalPlan>> {
    let conjuncts = join.filter.clone().map(split_conjunction_owned).unwrap_or_default();
    let (timed, stable): (Vec<Expr>, Vec<Expr>) = conjuncts.into_iter().partition(depends_on_time);
    let mut plain = join.clone();
    plain.filter = conjunction(stable);
    if join.join_type == JoinType::Inner {
        let (timed_on, on): (Vec<_>, Vec<_>) =
            plain.on.into_iter().partition(|(l, r)| depends_on_time(l) || depends_on_time(r));
        plain.on = on;
        let predicates = timed.into_iter().chain(timed_on.into_iter().map(|(l, r)| l.eq(r)));
        let Some(predicate) = conjunction(predicates) else { return Ok(None) };
        return Ok(Some(LogicalPlanBuilder::from(LogicalPlan::Join(plain)).filter(predicate)?.build()?));
    }
    if join.on.iter().any(|(l, r)| depends_on_time(l) || depends_on_time(r)) {
        return Ok(None);
    }
    let reads_only = |expr: &Expr, schema: &DFSchema| expr.column_refs().iter().all(|c| schema.has_column(c));
    for expr in timed {
        let matters_only_matched = match join.join_type {
            JoinType::Left | JoinType::LeftAnti | JoinType::LeftSemi if reads_only(&expr, join.right.schema()) => {
                &mut plain.right
            }
            JoinType::Right | JoinType::RightAnti | JoinType::RightSemi if reads_only(&expr, join.left.schema()) => {
                &mut plain.left
            }
            JoinType::LeftSemi if reads_only(&expr, join.left.schema()) => &mut plain.left,
            JoinType::RightSemi if reads_only(&expr, join.right.schema()) => &mut plain.right,
            _ => return Ok(None),
        };
        let filtered = LogicalPlanBuilder::from(Arc::clone(matters_only_matched)).filter(expr)?.build()?;
        *matters_only_matched = Arc::new(filtered);
    }
    plain.schema = Arc::new(build_join_schema(plain.left.schema(), plain.right.schema(), &plain.join_type)?);
    Ok(Some(LogicalPlan::Join(plain)))
}
