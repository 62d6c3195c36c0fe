//! Subqueries that DataFusion's optimiser cannot turn into joins, turned into joins.
//!
//! The method is that of Neumann and Kemper ("Unnesting Arbitrary Queries", BTW 2015): a correlated subquery is computed once
//! for each different combination of the outer columns that it reads, all at once, with these columns as further columns of
//! every step, and then joined to the outer rows. Where the correlation stands in conditions that can be taken out of the
//! subquery, these become the join's condition and nothing else is needed. The result is a plan of joins, aggregates and
//! window functions, each of which is kept incrementally.
//!
//! What DataFusion can do itself is left to it. [`flatten`] walks the plan, [`values`] puts the answer of a subquery into an
//! expression, [`dependent`] pushes the outer columns down, [`pulled`] takes conditions out.

mod dependent;
mod flatten;
mod pulled;
mod steps;
mod values;

use datafusion::common::Column;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, LogicalPlan};

use flatten::Flattener;

type Result<T> = std::result::Result<T, DataFusionError>;

/// Who is going to run a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Runner {
    /// The operators of this crate.
    Operators,
    /// DataFusion, which can run subqueries that do not depend on the outer row.
    DataFusion,
}

/// Optimises a plan to be kept; no subquery is left in it if that is possible.
///
/// # Errors
/// What is wrong with the plan.
pub(crate) fn optimised(state: &SessionState, plan: &LogicalPlan) -> Result<LogicalPlan> {
    if !is_left(plan, Runner::Operators)? {
        return state.optimize(plan);
    }
    let by_datafusion = if is_misread(plan)? { None } else { Some(state.optimize(plan)) };
    if let Some(Ok(done)) = &by_datafusion
        && !is_left(done, Runner::Operators)?
        && is_sound(done)?
    {
        return Ok(done.clone());
    }
    let flat = Flattener::default().plan(plan.clone()).and_then(|flat| state.optimize(&flat));
    match (flat, by_datafusion) {
        // It runs as a whole.
        (Err(_), Some(Ok(whole))) if is_sound(&whole)? && !is_left(&whole, Runner::DataFusion)? => Ok(whole),
        (flat, _) => flat,
    }
}

/// A plan that DataFusion can run in one go and means what the given one means.
///
/// # Errors
/// What is wrong with the plan.
pub(crate) fn runnable(state: &SessionState, plan: LogicalPlan) -> Result<LogicalPlan> {
    if !is_left(&plan, Runner::Operators)? {
        return Ok(plan);
    }
    if !is_misread(&plan)?
        && let Ok(optimised) = state.optimize(&plan)
        && !is_left(&optimised, Runner::DataFusion)?
        && is_sound(&optimised)?
    {
        return Ok(plan);
    }
    Flattener::default().plan(plan)
}

/// Whether a plan has subqueries that its runner cannot run.
fn is_left(plan: &LogicalPlan, runner: Runner) -> Result<bool> {
    let found = plan.apply_with_subqueries(|node| {
        let is_lateral = matches!(node, LogicalPlan::Subquery(_));
        let as_scalar = runner == Runner::Operators || matches!(node, LogicalPlan::Limit(_));
        let mut found = is_lateral;
        node.apply_expressions(|expr| {
            found |= expr.exists(|e| {
                Ok(match e {
                    Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_) => true,
                    Expr::ScalarSubquery(subquery) => as_scalar || !subquery.outer_ref_columns.is_empty(),
                    _ => false,
                })
            })?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found == TreeNodeRecursion::Stop)
}

/// Whether the optimiser would read a plan wrongly: IN, ANY and ALL somewhere inside a condition, where it takes an unknown
/// answer for a no, and values that it takes for never NULL, though there may be no row.
fn is_misread(plan: &LogicalPlan) -> Result<bool> {
    let found = plan.apply_with_subqueries(|node| {
        let mut misread = false;
        node.apply_expressions(|expr| {
            misread |=
                expr.exists(|e| Ok(matches!(e, Expr::ScalarSubquery(subquery) if may_be_null(&subquery.subquery))))?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        if let LogicalPlan::Filter(filter) = node {
            misread |= split_conjunction(&filter.predicate).into_iter().any(is_in_inside);
        }
        Ok(if misread { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found == TreeNodeRecursion::Stop)
}

/// Whether a subquery without NULLs can be NULL, since it can have no row.
fn may_be_null(subquery: &LogicalPlan) -> bool {
    let has_nulls = subquery.schema().fields().first().is_none_or(|field| field.is_nullable());
    !has_nulls && values::over_all(subquery).is_none()
}

fn is_in_inside(conjunct: &Expr) -> bool {
    let is_in = |e: &Expr| matches!(e, Expr::InSubquery(_) | Expr::SetComparison(_));
    let conjunct = match conjunct {
        Expr::Not(inner) => inner,
        other => other,
    };
    // Without a column there is nothing to join by, and what is NULL is lost.
    let compares_constant = match conjunct {
        Expr::InSubquery(is_in) => !is_in.expr.any_column_refs(),
        _ => false,
    };
    compares_constant || !is_in(conjunct) && conjunct.exists(|e| Ok(is_in(e))).unwrap_or(true)
}

/// Whether every column that is read is there: over two levels of correlation, the optimiser loses some.
fn is_sound(plan: &LogicalPlan) -> Result<bool> {
    let found = plan.apply_with_subqueries(|node| {
        let inputs = node.inputs();
        let mut sound = true;
        if !inputs.is_empty() && !matches!(node, LogicalPlan::Unnest(_) | LogicalPlan::Subquery(_)) {
            node.apply_expressions(|expr| {
                let is_there = |column: &&Column| inputs.iter().any(|i| i.schema().has_column(column));
                sound &= expr.column_refs().iter().all(is_there);
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(if sound { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(found != TreeNodeRecursion::Stop)
}
