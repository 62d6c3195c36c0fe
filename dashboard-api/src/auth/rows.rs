//! Which rows of a view a caller may see: SQL conditions compiled once, then asked of rows as they come.
//!
//! `claims.NAME` in a condition becomes a typed literal of the plan; a claim's text is never part of any SQL. A claim that
//! the caller does not have makes the whole condition false. A row on which a condition cannot be evaluated is not seen.

use std::collections::HashSet;
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, ScalarValue};
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::{Expr, Volatility};
use datafusion::physical_plan::PhysicalExpr;
use datafusion::sql::sqlparser::ast::{self, visit_expressions_mut};
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;
use metrics::counter;
use model::ViewInfo;
use serde_json::{Map, Value};

use super::access::RowRule;
use crate::dialect::BoundedDialect;
use crate::{functions, table};

/// Longest condition.
pub(crate) const CONDITION_BYTES_MAX: usize = 8 << 10;
/// How deep a condition may be nested.
const CONDITION_DEPTH_MAX: usize = 40;
/// Words and operators of a condition.
const CONDITION_PARTS_MAX: usize = 1_000;
/// What a condition calls the caller's claims.
const CLAIMS: &str = "claims";

/// Only functions that are safe to offer to an operator, and no table.
static STATE: LazyLock<SessionState> = LazyLock::new(|| functions::operator_context().state());

/// Why a condition cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RowFilterError {
    /// It does not parse.
    #[error("the condition does not parse")]
    Parse(#[from] ParserError),
    /// It is longer than [`CONDITION_BYTES_MAX`] or [`CONDITION_PARTS_MAX`].
    #[error("the condition has more than {CONDITION_BYTES_MAX} bytes or {CONDITION_PARTS_MAX} words and operators")]
    TooLong,
    /// More than one expression, or something behind it.
    #[error("the condition does not end at `{0}`")]
    Rest(String),
    /// It names unknown columns, functions or types that do not go together.
    #[error("the condition does not fit the view")]
    Plan(#[source] Box<DataFusionError>),
    /// Its value is not true or false.
    #[error("the condition is of type {0}, not true or false")]
    NotBoolean(DataType),
    /// Its value changes without the row: the live stream could not follow.
    #[error("the condition may not use `{0}`, whose value changes by itself")]
    Unstable(String),
    /// A client's filter uses what only an operator may.
    #[error("a subscription's filter may not use `{0}`")]
    NotAllowed(String),
    /// A column type of the view cannot be read.
    #[error("the view's columns cannot be read")]
    Columns(#[from] ArrowError),
}

impl From<DataFusionError> for RowFilterError {
    fn from(error: DataFusionError) -> Self {
        Self::Plan(Box::new(error))
    }
}

/// Who wrote a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Author {
    /// The rule of a role: trusted to know what it costs.
    Operator,
    /// A subscriber: what it writes runs in this process, on every change, so only what stays small is taken.
    Client,
}

/// Compiled conditions over one view.
#[derive(Debug, Clone)]
pub(crate) struct RowFilter {
    /// The columns that the conditions read.
    schema: SchemaRef,
    /// A row is seen if one of these is true.
    any_of: Vec<Arc<dyn PhysicalExpr>>,
    /// Equal for filters that let the same rows through.
    key: Arc<str>,
}

impl RowFilter {
    /// Compiles the rule of a caller for a view.
    ///
    /// # Errors
    /// If a condition does not fit the view; then no row may be shown.
    pub(crate) fn of_rule(view: &ViewInfo, rule: &RowRule) -> Result<Self, RowFilterError> {
        Self::new(view, rule.any_of.iter().map(String::as_str), &rule.claims, Author::Operator)
    }

    /// Compiles one condition of an operator for a view.
    ///
    /// # Errors
    /// If it does not fit the view.
    #[cfg(test)]
    pub(crate) fn compile(
        view: &ViewInfo,
        condition: &str,
        claims: &Map<String, Value>,
    ) -> Result<Self, RowFilterError> {
        Self::new(view, std::iter::once(condition), claims, Author::Operator)
    }

    /// Compiles a client's condition for a view: comparisons, arithmetic and a few functions.
    ///
    /// # Errors
    /// If it does not fit the view, or uses anything else.
    pub(crate) fn of_client(view: &ViewInfo, condition: &str) -> Result<Self, RowFilterError> {
        Self::new(view, std::iter::once(condition), &Map::new(), Author::Client)
    }

    fn new<'a>(
        view: &ViewInfo,
        conditions: impl Iterator<Item = &'a str>,
        claims: &Map<String, Value>,
        author: Author,
    ) -> Result<Self, RowFilterError> {
        let schema = table::schema(view)?;
        let mut key = String::new();
        let mut columns = HashSet::new();
        let mut bound = Vec::new();
        for condition in conditions {
            let condition = Condition::parse(condition, claims)?;
            key.push_str(&condition.key());
            key.push('\n');
            if let Some(expr) = condition.bind(&schema, author)? {
                columns.extend(expr.column_refs().into_iter().map(|column| column.name.clone()));
                bound.push(expr);
            }
        }
        // Only the columns that are read are decoded.
        let fields: Vec<_> = schema.fields().iter().filter(|field| columns.contains(field.name())).cloned().collect();
        let schema = Arc::new(Schema::new(fields));
        let df_schema = DFSchema::try_from(Arc::clone(&schema))?;
        let any_of: Result<Vec<_>, DataFusionError> =
            bound.into_iter().map(|expr| STATE.create_physical_expr(expr, &df_schema)).collect();
        let any_of = any_of?;
        for expr in &any_of {
            let data_type = expr.data_type(&schema)?;
            if !matches!(data_type, DataType::Boolean | DataType::Null) {
                return Err(RowFilterError::NotBoolean(data_type));
            }
        }
        Ok(Self { schema, any_of, key: key.into() })
    }

    /// Names the filter: equal for filters that let the same rows of a view through.
    pub(crate) fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// Whether each row, a JSON object, may be seen.
    pub(crate) fn matches(&self, rows: &[&[u8]]) -> Vec<bool> {
        if self.any_of.is_empty() {
            return vec![false; rows.len()];
        }
        match self.evaluate(rows) {
            Ok(seen) => seen,
            // One row that cannot be evaluated hides no other.
            Err(_) if rows.len() > 1 => rows.iter().map(|row| self.matches(&[row])[0]).collect(),
            Err(error) => {
                counter!("api_row_rule_failures_total").increment(1);
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "a row rule failed on a row, which is left out"
                );
                vec![false; rows.len()]
            }
        }
    }

    fn evaluate(&self, rows: &[&[u8]]) -> Result<Vec<bool>, DataFusionError> {
        let mut seen = Vec::with_capacity(rows.len());
        for rows in rows.chunks(table::BATCH_ROWS) {
            if self.schema.fields().is_empty() {
                let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.len()));
                let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), vec![], &options)?;
                seen.extend(self.evaluate_batch(&batch)?);
                continue;
            }
            for batch in table::decode(&self.schema, rows.iter().copied())? {
                seen.extend(self.evaluate_batch(&batch)?);
            }
        }
        Ok(seen)
    }

    fn evaluate_batch(&self, batch: &RecordBatch) -> Result<Vec<bool>, DataFusionError> {
        let mut seen = vec![false; batch.num_rows()];
        for expr in &self.any_of {
            let values = expr.evaluate(batch)?.into_array(batch.num_rows())?;
            let Some(values) = values.as_any().downcast_ref::<BooleanArray>() else { continue };
            for (row_idx, seen) in seen.iter_mut().enumerate() {
                *seen |= values.is_valid(row_idx) && values.value(row_idx);
            }
        }
        Ok(seen)
    }
}

/// Checks that a condition parses, as far as that can be told without a view.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_condition(condition: &str) -> Result<(), RowFilterError> {
    Condition::parse(condition, &Map::new()).map(drop)
}

/// A parsed condition: the claims it reads have become parameters.
struct Condition {
    expr: ast::Expr,
    values: Vec<ScalarValue>,
    lacks_a_claim: bool,
}

impl Condition {
    fn parse(condition: &str, claims: &Map<String, Value>) -> Result<Self, RowFilterError> {
        if condition.len() > CONDITION_BYTES_MAX || functions::has_more_parts_than(condition, CONDITION_PARTS_MAX) {
            return Err(RowFilterError::TooLong);
        }
        let dialect = BoundedDialect::of(condition);
        let mut parser = Parser::new(&dialect).with_recursion_limit(CONDITION_DEPTH_MAX).try_with_sql(condition)?;
        let mut expr = parser.parse_expr()?;
        let rest = parser.peek_token().token;
        if rest != Token::EOF {
            return Err(RowFilterError::Rest(rest.to_string()));
        }
        // First all lists, since an expression is visited after its parts.
        let ControlFlow::<Infallible>::Continue(()) = visit_expressions_mut(&mut expr, |expr: &mut ast::Expr| {
            if let ast::Expr::InList { list, .. } = expr {
                expand_lists(list, claims);
            }
            ControlFlow::Continue(())
        });
        let (mut values, mut lacks_a_claim) = (Vec::new(), false);
        let outcome = visit_expressions_mut(&mut expr, |expr: &mut ast::Expr| {
            // A parameter of the condition's own would be taken for a claim.
            if let ast::Expr::Value(value) = expr
                && matches!(value.value, ast::Value::Placeholder(_))
            {
                return ControlFlow::Break(value.to_string());
            }
            if let Some(path) = claim_path(expr) {
                match claim(claims, &path).and_then(scalar) {
                    Some(value) => {
                        values.push(value);
                        *expr = parameter(values.len());
                    }
                    None => lacks_a_claim = true,
                }
            }
            ControlFlow::Continue(())
        });
        match outcome {
            ControlFlow::Break(token) => Err(RowFilterError::Rest(token)),
            ControlFlow::Continue(()) => Ok(Self { expr, values, lacks_a_claim }),
        }
    }

    fn key(&self) -> String {
        match self.lacks_a_claim {
            true => "false".to_owned(),
            false => format!("{} {:?}", self.expr, self.values),
        }
    }

    /// The expression with the claims' values as literals; `None` if it can never be true.
    fn bind(&self, schema: &SchemaRef, author: Author) -> Result<Option<Expr>, RowFilterError> {
        if self.lacks_a_claim {
            return Ok(None);
        }
        let df_schema = DFSchema::try_from(Arc::clone(schema))?;
        let expr = STATE.create_logical_expr(&self.expr.to_string(), &df_schema)?;
        let expr = expr.transform_up(|expr| {
            let Expr::Placeholder(placeholder) = &expr else { return Ok(Transformed::no(expr)) };
            let position = placeholder.id.trim_start_matches('$').parse::<usize>().ok();
            match position.and_then(|position| self.values.get(position.checked_sub(1)?)) {
                Some(value) => Ok(Transformed::yes(Expr::Literal(value.clone(), None))),
                None => Err(DataFusionError::Plan(format!("there is no parameter {}", placeholder.id))),
            }
        })?;
        if author == Author::Client {
            let mut refused = None;
            expr.data.apply(|expr| {
                refused = functions::refused_in_filter(expr);
                Ok(if refused.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })?;
            if let Some(name) = refused {
                return Err(RowFilterError::NotAllowed(name));
            }
        }
        let mut unstable = None;
        expr.data.apply(|expr| {
            if let Expr::ScalarFunction(call) = expr
                && call.func.signature().volatility != Volatility::Immutable
            {
                unstable = Some(call.name().to_owned());
                return Ok(TreeNodeRecursion::Stop);
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        match unstable {
            Some(name) => Err(RowFilterError::Unstable(name)),
            None => Ok(Some(expr.data)),
        }
    }
}

/// Replaces a claim that is a list by its elements: `region IN (claims.regions)`.
fn expand_lists(list: &mut Vec<ast::Expr>, claims: &Map<String, Value>) {
    let expanded = list.drain(..).flat_map(|expr| {
        let elements = claim_path(&expr).and_then(|path| match claim(claims, &path) {
            Some(Value::Array(values)) if !values.is_empty() => Some((path, values.len())),
            _ => None,
        });
        match elements {
            None => vec![expr],
            Some((path, n_values)) => (0..n_values)
                .map(|idx| {
                    let names = std::iter::once(CLAIMS.to_owned()).chain(path.iter().cloned());
                    let names = names.chain(std::iter::once(idx.to_string()));
                    ast::Expr::CompoundIdentifier(names.map(ast::Ident::new).collect())
                })
                .collect(),
        }
    });
    *list = expanded.collect();
}

/// The names behind `claims.`, if the expression is one.
fn claim_path(expr: &ast::Expr) -> Option<Vec<String>> {
    let ast::Expr::CompoundIdentifier(names) = expr else { return None };
    let (first, rest) = names.split_first()?;
    let is_claims = first.quote_style.is_none() && first.value.eq_ignore_ascii_case(CLAIMS) && !rest.is_empty();
    is_claims.then(|| rest.iter().map(|name| name.value.clone()).collect())
}

fn claim<'a>(claims: &'a Map<String, Value>, path: &[String]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(claims.get(first)?, |value, name| match value {
        Value::Array(values) => values.get(name.parse::<usize>().ok()?),
        other => other.get(name),
    })
}

fn scalar(value: &Value) -> Option<ScalarValue> {
    match value {
        Value::Bool(flag) => Some(ScalarValue::Boolean(Some(*flag))),
        Value::String(text) => Some(ScalarValue::Utf8(Some(text.clone()))),
        Value::Number(number) => Some(match number.as_i64() {
            Some(number) => ScalarValue::Int64(Some(number)),
            None => ScalarValue::Float64(Some(number.as_f64()?)),
        }),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn parameter(position: usize) -> ast::Expr {
    ast::Expr::Value(ast::Value::Placeholder(format!("${position}")).with_empty_span())
}

#[cfg(test)]
mod tests;
