//! `INTERSECT ALL` and `EXCEPT ALL`, which count how often a row occurs.
//!
//! The planner makes semi and anti joins of them, and so loses the counts. Before the plan is optimised such a join can
//! still be told from all others: it compares all columns, NULL equals NULL, and its left side is not made distinct.
//! (Where the query itself made it distinct, the join is right.) It becomes: both sides together, counted by row, and
//! each row as often as the two counts say.

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, JoinType, NullEquality, UnnestOptions};
use datafusion::error::DataFusionError;
use datafusion::functions_aggregate::expr_fn::sum;
use datafusion::functions_nested::expr_fn::range;
use datafusion::logical_expr::{self as logical, Expr, LogicalPlan, LogicalPlanBuilder, cast, lit, when};

const LEFT: &str = "__n_left";
const RIGHT: &str = "__n_right";
const COPIES: &str = "__copies";

/// Rewrites the joins that stand for INTERSECT ALL and EXCEPT ALL in a plan that is not optimised yet.
pub(crate) fn count_copies(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let counted = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(join) if loses_counts(&join) => Ok(Transformed::yes(counted(&join)?)),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(counted.data)
}

fn loses_counts(join: &logical::Join) -> bool {
    matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
        && join.null_equality == NullEquality::NullEqualsNull
        && !join.null_aware
        && join.filter.is_none()
        && !matches!(*join.left, LogicalPlan::Distinct(_))
}

fn counted(join: &logical::Join) -> Result<LogicalPlan, DataFusionError> {
    let named = |name: &str| Expr::from(Column::from_name(name));
    let columns: Vec<String> = (0..join.left.schema().fields().len()).map(|i| format!("__{i}")).collect();
    let side = |plan: &LogicalPlan, is_left: bool| {
        let own = plan.schema().columns().into_iter().zip(&columns);
        let own = own.map(|(column, name)| Expr::Column(column).alias(name));
        let counts = [(LEFT, is_left), (RIGHT, !is_left)].map(|(name, here)| lit(i64::from(here)).alias(name));
        LogicalPlanBuilder::from(plan.clone()).project(own.chain(counts))?.build()
    };
    let (left, right) = (named(LEFT), named(RIGHT));
    let copies = match join.join_type {
        JoinType::LeftSemi => when(left.clone().lt(right.clone()), left).otherwise(right)?,
        _ => left - right,
    };
    let keys: Vec<Expr> = columns.iter().map(|name| named(name)).collect();
    // Every row that is left comes from the left side, so it has that side's types.
    let fields = join.left.schema().iter().zip(&keys);
    let restored = fields.map(|((qualifier, field), key)| {
        cast(key.clone(), field.data_type().clone()).alias_qualified(qualifier.cloned(), field.name())
    });
    LogicalPlanBuilder::from(side(&join.left, true)?)
        .union(side(&join.right, false)?)?
        .aggregate(keys.clone(), [LEFT, RIGHT].map(|name| sum(named(name)).alias(name)))?
        .project(keys.iter().cloned().chain([copies.alias(COPIES)]))?
        .filter(named(COPIES).gt(lit(0_i64)))?
        .project(keys.iter().cloned().chain([range(lit(0_i64), named(COPIES), lit(1_i64)).alias(COPIES)]))?
        .unnest_column_with_options(COPIES, UnnestOptions::new().with_preserve_nulls(false))?
        .project(restored.collect::<Vec<_>>())?
        .build()
}
