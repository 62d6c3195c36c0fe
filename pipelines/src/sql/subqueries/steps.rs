//! Plan nodes built as they stand: without the normalising of names that DataFusion's builder does.

use std::sync::Arc;

use datafusion::common::{Column, DFSchema, JoinConstraint, JoinType, NullEquality, TableReference};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{self as logical, Expr, LogicalPlan};

use super::Result;

/// Names that nothing else in a plan has.
#[derive(Debug, Default)]
pub(super) struct Names {
    n_given: usize,
}

impl Names {
    pub(super) fn next(&mut self, of: &str) -> String {
        self.n_given += 1;
        format!("__{of}{}", self.n_given)
    }
}

pub(super) fn project(input: LogicalPlan, exprs: Vec<Expr>) -> Result<LogicalPlan> {
    Ok(LogicalPlan::Projection(logical::Projection::try_new(exprs, Arc::new(input))?))
}

/// The rows for which all predicates are true.
pub(super) fn filter(input: LogicalPlan, predicates: impl IntoIterator<Item = Expr>) -> Result<LogicalPlan> {
    match conjunction(predicates) {
        Some(predicate) => Ok(LogicalPlan::Filter(logical::Filter::try_new(predicate, Arc::new(input))?)),
        None => Ok(input),
    }
}

pub(super) fn distinct(input: LogicalPlan) -> LogicalPlan {
    LogicalPlan::Distinct(logical::Distinct::All(Arc::new(input)))
}

/// What two sides are joined by: pairs of columns of which NULL equals NULL, and predicates.
#[derive(Debug, Default)]
pub(super) struct On {
    pub(super) same: Vec<(Column, Column)>,
    pub(super) predicates: Vec<Expr>,
}

pub(super) fn join(left: LogicalPlan, right: LogicalPlan, join_type: JoinType, on: On) -> Result<LogicalPlan> {
    let pairs = on.same.into_iter().map(|(l, r)| (Expr::Column(l), Expr::Column(r))).collect::<Vec<_>>();
    let nulls = if pairs.is_empty() { NullEquality::NullEqualsNothing } else { NullEquality::NullEqualsNull };
    let (left, right, filter) = (Arc::new(left), Arc::new(right), conjunction(on.predicates));
    let join = logical::Join::try_new(left, right, pairs, filter, join_type, JoinConstraint::On, nulls, false)?;
    Ok(LogicalPlan::Join(join))
}

/// The columns of a schema, in order.
pub(super) fn columns_of(schema: &DFSchema) -> Vec<Column> {
    schema.iter().map(Column::from).collect()
}

/// An expression under a given name.
pub(super) fn named(expr: Expr, qualifier: Option<&TableReference>, name: &str) -> Expr {
    match &expr {
        Expr::Column(column) if column.relation.as_ref() == qualifier && column.name == name => expr,
        _ => expr.unalias().alias_qualified(qualifier.cloned(), name),
    }
}

/// The columns at `places` under the names of `schema`, and further columns behind them.
pub(super) fn restored(
    plan: LogicalPlan,
    places: &[usize],
    schema: &DFSchema,
    further: impl IntoIterator<Item = Column>,
) -> Result<LogicalPlan> {
    let own = columns_of(plan.schema());
    let under_names = places.iter().zip(schema.iter());
    let exprs =
        under_names.map(|(at, (qualifier, field))| named(Expr::Column(own[*at].clone()), qualifier, field.name()));
    let exprs: Vec<Expr> = exprs.chain(further.into_iter().map(Expr::Column)).collect();
    project(plan, exprs)
}
