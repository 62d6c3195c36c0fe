//! Which columns of a query's result tell its rows apart, as far as the plan shows.
//!
//! A view's topic is keyed by them, so a wrong answer would lose rows. DataFusion's functional dependencies are not
//! asked: behind an outer join they call a column unique that is NULL in many rows. Here NULL counts as a value, as
//! it does in a topic's key.

use datafusion::common::tree_node::TreeNode;
use datafusion::common::{Constraint, DFSchema, JoinType};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{self as logical, Distinct, Expr, LogicalPlan, Operator};

/// Columns by position, ascending.
type Key = Vec<usize>;

/// Keys that are followed through a plan node; further ones are forgotten.
const KEYS_MAX: usize = 8;

/// The smallest key of an optimised plan: no column for a single row, all columns if nothing is known.
pub(crate) fn natural_key(plan: &LogicalPlan) -> Key {
    let all = || (0..plan.schema().fields().len()).collect();
    unique_keys(plan).into_iter().min_by_key(Vec::len).unwrap_or_else(all)
}

/// Whether a plan has one row at most, as far as it shows. The planner's own count is wrong above GROUPING SETS, which make
/// several rows of one, and full joins, which can put out both sides.
pub(crate) fn is_one_row_at_most(plan: &LogicalPlan) -> bool {
    let makes_more = plan.exists(|node| {
        Ok(match node {
            LogicalPlan::Aggregate(a) => a.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_))),
            LogicalPlan::Join(join) => join.join_type == JoinType::Full,
            _ => false,
        })
    });
    plan.max_rows().is_some_and(|n| n <= 1) && !makes_more.unwrap_or(true)
}

/// Whether no two rows of a plan agree in these columns, as far as the plan shows.
pub(crate) fn is_key(plan: &LogicalPlan, columns: &[usize]) -> bool {
    unique_keys(plan).iter().any(|key| key.iter().all(|column| columns.contains(column)))
}

/// Sets of columns in which no two rows agree.
fn unique_keys(plan: &LogicalPlan) -> Vec<Key> {
    if is_one_row_at_most(plan) {
        return vec![Vec::new()];
    }
    let mut keys = match plan {
        LogicalPlan::TableScan(scan) => of_scan(scan),
        LogicalPlan::Projection(p) => of_projection(p),
        LogicalPlan::Aggregate(a) => match a.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_))) {
            true => Vec::new(),
            false => vec![(0..a.group_expr.len()).collect()],
        },
        LogicalPlan::Distinct(Distinct::All(input)) => {
            let mut keys = unique_keys(input);
            keys.push((0..plan.schema().fields().len()).collect());
            keys
        }
        LogicalPlan::Filter(filter) => of_filter(filter),
        LogicalPlan::Window(window) => of_window(window),
        LogicalPlan::Sort(_) | LogicalPlan::Limit(_) | LogicalPlan::SubqueryAlias(_) => {
            plan.inputs().first().map(|input| unique_keys(input)).unwrap_or_default()
        }
        LogicalPlan::Join(join) => of_join(join),
        _ => Vec::new(),
    };
    keys.sort_by_key(Vec::len);
    keys.dedup();
    keys.truncate(KEYS_MAX);
    keys
}

fn of_scan(scan: &logical::TableScan) -> Vec<Key> {
    let Some(constraints) = scan.source.constraints() else { return Vec::new() };
    let visible = |column: usize| match &scan.projection {
        None => Some(column),
        Some(columns) => columns.iter().position(|c| *c == column),
    };
    let of = |constraint: &Constraint| match constraint {
        Constraint::PrimaryKey(columns) => columns.iter().map(|c| visible(*c)).collect::<Option<Key>>(),
        Constraint::Unique(_) => None,
    };
    constraints.iter().filter_map(of).map(ascending).collect()
}

/// A column that has one value in all rows tells none of them apart.
fn of_filter(filter: &logical::Filter) -> Vec<Key> {
    let schema = filter.input.schema();
    let fixed: Vec<usize> =
        split_conjunction(&filter.predicate).into_iter().filter_map(|e| fixed_by(e, schema)).collect();
    let without = |key: Key| key.into_iter().filter(|column| !fixed.contains(column)).collect();
    unique_keys(&filter.input).into_iter().map(without).collect()
}

/// The column that a condition gives one value.
fn fixed_by(condition: &Expr, schema: &DFSchema) -> Option<usize> {
    match condition {
        Expr::BinaryExpr(b) if b.op == Operator::Eq => match (&*b.left, &*b.right) {
            (Expr::Literal(..), other) | (other, Expr::Literal(..)) => column_of(other, schema),
            _ => None,
        },
        _ => None,
    }
}

/// ROW_NUMBER tells the rows of its partition apart.
fn of_window(window: &logical::Window) -> Vec<Key> {
    let schema = window.input.schema();
    let mut keys = unique_keys(&window.input);
    for (i, expr) in window.window_expr.iter().enumerate() {
        let expr = if let Expr::Alias(alias) = expr { &*alias.expr } else { expr };
        let Expr::WindowFunction(function) = expr else { continue };
        let partition = function.params.partition_by.iter().map(|e| column_of(e, schema)).collect::<Option<Key>>();
        if let (true, Some(mut key)) = (function.fun.name().eq_ignore_ascii_case("row_number"), partition) {
            key.push(schema.fields().len() + i);
            key.sort_unstable();
            key.dedup();
            keys.push(key);
        }
    }
    keys
}

fn of_projection(projection: &logical::Projection) -> Vec<Key> {
    let input = projection.input.schema();
    let sources: Vec<Option<usize>> = projection.expr.iter().map(|e| column_of(e, input)).collect();
    let through = |key: Key| {
        let place = |column: &usize| sources.iter().position(|s| *s == Some(*column));
        key.iter().map(place).collect::<Option<Key>>().map(ascending)
    };
    unique_keys(&projection.input).into_iter().filter_map(through).collect()
}

fn column_of(expr: &Expr, schema: &DFSchema) -> Option<usize> {
    match expr {
        Expr::Alias(alias) => column_of(&alias.expr, schema),
        Expr::Column(column) => schema.maybe_index_of_column(column),
        _ => None,
    }
}

fn of_join(join: &logical::Join) -> Vec<Key> {
    let (left, right) = (unique_keys(&join.left), unique_keys(&join.right));
    let n_left = join.left.schema().fields().len();
    let shifted = |keys: &[Key]| keys.iter().map(|k| k.iter().map(|c| c + n_left).collect()).collect::<Vec<Key>>();
    // A side whose key is among the columns that must be equal has at most one partner for each row of the other.
    let meets_one = |keys: &[Key], side: &LogicalPlan, is_left: bool| {
        let expr = |(l, r): &(Expr, Expr)| if is_left { l.clone() } else { r.clone() };
        let on: Vec<usize> = join.on.iter().filter_map(|pair| column_of(&expr(pair), side.schema())).collect();
        keys.iter().any(|key| key.iter().all(|column| on.contains(column)))
    };
    let (one_left, one_right) = (meets_one(&left, &join.left, true), meets_one(&right, &join.right, false));
    let mut keys = Vec::new();
    match join.join_type {
        JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => return left,
        JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => return right,
        // Rows of both sides can stand without a partner, each with NULLs for the other's key.
        JoinType::Full => return Vec::new(),
        JoinType::Inner | JoinType::Left | JoinType::Right => {}
    }
    // The side that is filled with NULLs is no key alone: many rows of the other may have no partner.
    if one_right && join.join_type != JoinType::Right {
        keys.extend(left.clone());
    }
    if one_left && join.join_type != JoinType::Left {
        keys.extend(shifted(&right));
    }
    for l in &left {
        keys.extend(shifted(&right).into_iter().map(|r| [l.clone(), r].concat()));
    }
    keys
}

fn ascending(mut key: Key) -> Key {
    key.sort_unstable();
    key
}
