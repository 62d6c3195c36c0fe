//! How much a plan can make of its input. Expressions are computed outside the memory that is counted, so that texts
//! which double with every `||` would fill it unseen.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{ExprSchema, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan, Operator};

use super::{QueryError, sorted};
use crate::functions::refused_in_query;

/// A number, a date, or a truth.
const PLAIN_BYTES: usize = 16;
/// Steps that a plan may have.
const STEPS_MAX: usize = 4_000;
/// How large an expression may become when those it builds on are put into it, in columns.
const SUBSTITUTED_MAX: usize = 1 << 14;

/// Checks that a plan uses only what is allowed, and that a row in it stays smaller than `bytes_max`. `row_bytes` is the
/// longest row of its input.
///
/// # Errors
/// What is not allowed, or too large.
pub(super) fn check(plan: &LogicalPlan, row_bytes: usize, bytes_max: usize) -> Result<(), QueryError> {
    let mut meter = Meter { row_bytes, bytes_max, n_steps: 0 };
    meter.measure(plan).map(drop)
}

struct Meter {
    row_bytes: usize,
    bytes_max: usize,
    n_steps: usize,
}

/// What comes out of a step, at most.
#[derive(Debug, Clone, Copy)]
struct Width {
    /// Longest value of a view, in bytes.
    read: usize,
    /// Longest literal or value of an expression, in bytes.
    made: usize,
    /// How many columns an expression reads, once all below are put into it.
    substituted: usize,
}

impl Meter {
    fn measure(&mut self, plan: &LogicalPlan) -> Result<Width, QueryError> {
        self.n_steps += 1;
        if self.n_steps > STEPS_MAX {
            return Err(QueryError::TooLarge("planning: it has too many steps"));
        }
        if matches!(plan, LogicalPlan::Unnest(_)) {
            // One row becomes as many as its list is long, and each holds what else is in it.
            return Err(QueryError::Query("`unnest` is not offered here".to_owned()));
        }
        let input = self.input(plan)?;
        // Those of a row's columns that are not just passed on.
        let (mut row, mut made, mut n_columns) = (0_usize, input.made, 1);
        let mut refused = None;
        let outcome = plan.apply_expressions(|expr| {
            let mut n_named = 0;
            expr.apply(|part| {
                n_named += usize::from(matches!(part, Expr::Column(_)));
                refused = refused_in_query(part);
                Ok(if refused.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })?;
            n_columns = n_columns.max(n_named);
            let bytes = match is_passed_on(expr) {
                true => input.made,
                false => bytes_of(expr, &|column| match is_plain(plan, column) {
                    true => PLAIN_BYTES,
                    false => input.read.max(input.made).max(PLAIN_BYTES),
                }),
            };
            made = made.max(bytes);
            row = row.saturating_add(bytes);
            Ok(if refused.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        });
        outcome.map_err(|error| sorted(&error))?;
        if let Some(name) = refused {
            return Err(QueryError::Query(format!("`{name}` is not offered here")));
        }
        if row.saturating_add(self.row_bytes) > self.bytes_max {
            return Err(QueryError::TooLarge("memory: it joins too many texts or lists"));
        }
        let all_columns = input.substituted.saturating_mul(n_columns);
        if all_columns > SUBSTITUTED_MAX {
            return Err(QueryError::TooLarge("planning: its expressions build on each other too often"));
        }
        let is_projection = matches!(plan, LogicalPlan::Projection(_));
        Ok(Width { made, substituted: if is_projection { all_columns } else { input.substituted }, ..input })
    }

    /// What comes into a step: from below, and from subqueries in its expressions.
    fn input(&mut self, plan: &LogicalPlan) -> Result<Width, QueryError> {
        let read = if matches!(plan, LogicalPlan::TableScan(_)) { self.row_bytes } else { 0 };
        let mut all = Width { read, made: 0, substituted: 1 };
        let mut add = |width: Width| {
            all.read = all.read.max(width.read);
            all.made = all.made.max(width.made);
            all.substituted = all.substituted.max(width.substituted);
        };
        for below in plan.inputs() {
            add(self.measure(below)?);
        }
        let mut failure = None;
        let outcome = plan.apply_subqueries(|subquery| match self.measure(subquery) {
            Ok(width) => {
                add(width);
                Ok(TreeNodeRecursion::Continue)
            }
            Err(error) => {
                failure = Some(error);
                Ok(TreeNodeRecursion::Stop)
            }
        });
        outcome.map_err(|error| sorted(&error))?;
        failure.map_or(Ok(all), Err)
    }
}

/// Whether an expression is a column as it comes.
fn is_passed_on(expr: &Expr) -> bool {
    match expr {
        Expr::Column(_) => true,
        Expr::Alias(alias) => is_passed_on(&alias.expr),
        _ => false,
    }
}

/// Whether a column of a step's input has values of a fixed size.
fn is_plain(plan: &LogicalPlan, column: &Expr) -> bool {
    let Expr::Column(column) = column else { return false };
    let inputs = plan.inputs();
    let field = inputs.iter().find_map(|input| input.schema().field_from_column(column).ok());
    field.is_some_and(|field| field.data_type().is_primitive() || *field.data_type() == DataType::Boolean)
}

/// How long the longest text or list in an expression can be, in bytes. `of_column` says so of what it reads.
fn bytes_of(expr: &Expr, of_column: &impl Fn(&Expr) -> usize) -> usize {
    let (mut all, mut longest) = (0_usize, PLAIN_BYTES);
    let outcome = expr.apply_children(|part| {
        let bytes = bytes_of(part, of_column);
        all = all.saturating_add(bytes);
        longest = longest.max(bytes);
        Ok(TreeNodeRecursion::Continue)
    });
    if outcome.is_err() {
        return usize::MAX;
    }
    match expr {
        Expr::Literal(value, _) => literal_bytes(value),
        Expr::Column(_) | Expr::OuterReferenceColumn(..) | Expr::ScalarSubquery(_) => of_column(expr),
        Expr::BinaryExpr(binary) if binary.op == Operator::StringConcat => all,
        Expr::ScalarFunction(call) => match call.name() {
            "concat" | "array_concat" | "make_array" | "array_append" | "array_prepend" | "array_union" => {
                all.max(longest)
            }
            // The separator comes once for each part.
            "concat_ws" => call.args.first().map_or(longest, |separator| {
                let between = bytes_of(separator, of_column).saturating_mul(call.args.len());
                all.saturating_add(between)
            }),
            // Two letters of the form become a date and time; names of days and months are texts of their own.
            "to_char" => longest.saturating_mul(20),
            // A letter becomes an entry of its own.
            "string_to_array" => longest.saturating_mul(20),
            _ => longest,
        },
        _ => longest,
    }
}

fn literal_bytes(value: &ScalarValue) -> usize {
    match value {
        ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) | ScalarValue::LargeUtf8(Some(text)) => {
            text.len().max(PLAIN_BYTES)
        }
        value if value.data_type().is_primitive() => PLAIN_BYTES,
        value => value.size(),
    }
}
