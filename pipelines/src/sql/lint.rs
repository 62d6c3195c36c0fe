//! Portability: what runs here and on Flink does not run, or means something else.
//!
//! These are warnings. They look at the statement as written, before any rewriting; the one about types looks at the
//! plan (see [`of_plan`]).

use std::ops::ControlFlow;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr as PlanExpr, ExprSchemable, LogicalPlan};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, Distinct, Expr, Function, FunctionArgumentClause, FunctionArguments, GroupByExpr, Ident,
    OrderByExpr, OrderByKind, Query, Select, Spanned, Value, Visit, Visitor, WindowType,
};
use datafusion::sql::sqlparser::tokenizer::{Location, Span};

use super::refusal::Refusal;

/// Functions that Flink does not have, and what has the same meaning on both.
const FOREIGN: [(&str, &str); 46] = [
    ("date_trunc", "write FLOOR(ts TO HOUR)"),
    ("date_bin", "write FLOOR(ts TO HOUR), or FROM TABLE(TUMBLE(…))"),
    ("date_part", "write EXTRACT(HOUR FROM ts)"),
    ("to_char", "write DATE_FORMAT(ts, 'yyyy-MM-dd')"),
    ("make_date", "write TO_DATE('…', 'yyyy-MM-dd') or CAST(… AS DATE)"),
    ("string_agg", "write LISTAGG(x, ',')"),
    ("bool_or", "write MAX(CASE WHEN x THEN 1 ELSE 0 END) = 1"),
    ("bool_and", "write MIN(CASE WHEN x THEN 1 ELSE 0 END) = 1"),
    ("percentile_disc", "write PERCENTILE(x, 0.5) on Flink, which lies between two values"),
    ("quantile_cont", "write PERCENTILE(x, 0.5) on Flink"),
    ("quantile_disc", "write PERCENTILE(x, 0.5) on Flink, which lies between two values"),
    ("mode", "count by value, and take the first by ROW_NUMBER"),
    ("arg_max", "take the first row by ROW_NUMBER"),
    ("arg_min", "take the first row by ROW_NUMBER"),
    ("max_by", "take the first row by ROW_NUMBER"),
    ("min_by", "take the first row by ROW_NUMBER"),
    ("count_if", "write COUNT(*) FILTER (WHERE x)"),
    ("group_concat", "write LISTAGG(x, ',')"),
    ("list", "write ARRAY_AGG(x)"),
    ("epoch", "write UNIX_TIMESTAMP(CAST(ts AS STRING))"),
    ("approx_distinct", "write APPROX_COUNT_DISTINCT(x)"),
    ("median", "write PERCENTILE(x, 0.5) on Flink"),
    ("nvl", "write COALESCE(a, b)"),
    ("nvl2", "write CASE WHEN a IS NOT NULL THEN b ELSE c END"),
    ("strpos", "write POSITION(a IN b)"),
    ("split_part", "write SPLIT_INDEX(text, ',', 0), which counts from 0"),
    ("regexp_like", "write REGEXP(text, pattern)"),
    ("regexp_match", "write REGEXP_EXTRACT(text, pattern, 1)"),
    ("arrow_cast", "write CAST(x AS type)"),
    ("arrow_typeof", "write TYPEOF(x) on Flink"),
    ("to_unixtime", "write UNIX_TIMESTAMP(text)"),
    ("starts_with", "write STARTSWITH(a, b), or a LIKE 'b%'"),
    ("ends_with", "write ENDSWITH(a, b), or a LIKE '%b'"),
    ("trunc", "write TRUNCATE(x, 2)"),
    ("var_samp", "write VAR_SAMP(x)"),
    ("array_length", "write CARDINALITY(a)"),
    ("array_has", "write ARRAY_CONTAINS(a, x)"),
    ("make_array", "write ARRAY[a, b]"),
    ("array_to_string", "write ARRAY_JOIN(a, ',')"),
    ("generate_series", "join with a table of numbers"),
    ("unnest", "write CROSS JOIN UNNEST(a) AS t (x)"),
    ("stddev", "write STDDEV_SAMP(x)"),
    ("var_population", "write VAR_POP(x)"),
    ("octet_length", "write CHAR_LENGTH(x)"),
    ("struct", "write ROW(a, b)"),
    ("named_struct", "write CAST(ROW(a, b) AS ROW<a …, b …>)"),
];

/// Functions over OVER that Flink takes on inputs that change.
const RANKING: [&str; 3] = ["ROW_NUMBER", "RANK", "DENSE_RANK"];

/// Warnings about a query as written.
pub(super) fn of_query(query: &Query) -> Vec<Refusal> {
    let mut linter = Linter::default();
    match query.visit(&mut linter) {
        ControlFlow::Continue(()) | ControlFlow::Break(()) => linter.found,
    }
}

#[derive(Default)]
struct Linter {
    found: Vec<Refusal>,
}

impl Linter {
    fn warn(&mut self, at: Span, message: impl Into<String>, help: &str) {
        self.found.push(Refusal::new(at, message, help));
    }

    fn order(&mut self, order: &[OrderByExpr]) {
        for by in order {
            self.ordinal(&by.expr, "ORDER BY");
            if by.options.nulls_first.is_none() {
                self.warn(
                    by.expr.span(),
                    "Flink puts NULL first in ascending order and last in descending order, Andon the other way round",
                    "write NULLS FIRST or NULLS LAST",
                );
            }
        }
    }

    fn ordinal(&mut self, expr: &Expr, clause: &str) {
        if let Expr::Value(v) = expr
            && matches!(v.value, Value::Number(..))
        {
            self.warn(v.span, format!("Flink has no {clause} with a column's number"), "write the column's name");
        }
    }

    fn name(&mut self, name: &Ident) {
        if name.quote_style == Some('"') {
            self.warn(name.span, format!("Flink quotes names with backticks, not as {name}"), "write `name`");
        }
    }

    fn call(&mut self, call: &Function) {
        let name = call.name.to_string();
        if let Some((_, help)) = FOREIGN.iter().find(|(known, _)| name.eq_ignore_ascii_case(known)) {
            // STDDEV_SAMP and the like are spelled the same on both.
            self.warn(call.name.span(), format!("Flink has no function {}", name.to_uppercase()), help);
        }
        if name.eq_ignore_ascii_case("concat") {
            let help = "write a || b, which is NULL on both, or CONCAT_WS('', a, b)";
            self.warn(call.name.span(), "CONCAT with a NULL is NULL on Flink; here the NULL is left out", help);
        }
        let n_args = super::windows::arguments_of(call).count();
        if name.eq_ignore_ascii_case("log") && n_args == 1 {
            self.warn(
                call.name.span(),
                "LOG is the natural logarithm on Flink, base 10 here",
                "write LN(x) or LOG10(x)",
            );
        }
        if let Some(over) = &call.over {
            if let WindowType::WindowSpec(spec) = over {
                self.order(&spec.order_by);
            }
            if !RANKING.iter().any(|r| name.eq_ignore_ascii_case(r)) {
                self.warn(
                    call.name.span(),
                    "Flink has OVER aggregates only on inputs that never change, in the order of event time",
                    "aggregate with GROUP BY and join, if the query must run there",
                );
            }
        }
        if let FunctionArguments::List(list) = &call.args {
            for clause in &list.clauses {
                if let FunctionArgumentClause::OrderBy(order) = clause {
                    self.order(order);
                    self.warn(
                        call.name.span(),
                        "Flink has no ORDER BY inside an aggregate",
                        "aggregate over a Top-N query",
                    );
                }
            }
        }
    }
}

impl Visitor for Linter {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if let Some(OrderByKind::Expressions(order)) = query.order_by.as_ref().map(|o| &o.kind)
            && query.limit_clause.is_some()
        {
            self.order(order);
        }
        if let Some(with) = query.with.as_ref().filter(|with| with.recursive) {
            self.warn(with.with_token.0.span, "Flink has no WITH RECURSIVE", "keep this view in Andon alone");
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        if let GroupByExpr::Expressions(keys, _) = &select.group_by {
            for key in keys {
                self.ordinal(key, "GROUP BY");
            }
        }
        if matches!(select.distinct, Some(Distinct::On(_))) {
            let help = "write ROW_NUMBER() OVER (PARTITION BY … ORDER BY …) AS n and keep WHERE n = 1";
            self.warn(select.select_token.0.span, "Flink has no DISTINCT ON", help);
        }
        if let Some(qualify) = &select.qualify {
            self.warn(qualify.span(), "Flink has no QUALIFY", "filter in a query around this one");
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Cast { kind: CastKind::DoubleColon, data_type, .. } => {
                self.warn(expr.span(), "Flink has no ::", &format!("write CAST(… AS {data_type})"));
            }
            Expr::AtTimeZone { .. } => {
                let help = "write CONVERT_TZ(text, 'UTC', 'Europe/Berlin') on Flink, or compute the offset in a view";
                self.warn(expr.span(), "Flink has no AT TIME ZONE", help);
            }
            Expr::ILike { .. } => self.warn(expr.span(), "Flink has no ILIKE", "write LOWER(x) LIKE 'pattern'"),
            Expr::BinaryOp {
                op:
                    BinaryOperator::PGRegexMatch
                    | BinaryOperator::PGRegexIMatch
                    | BinaryOperator::PGRegexNotMatch
                    | BinaryOperator::PGRegexNotIMatch,
                ..
            } => self.warn(expr.span(), "Flink has no ~", "write REGEXP(text, pattern)"),
            Expr::BinaryOp { op: BinaryOperator::Arrow | BinaryOperator::LongArrow, .. } => {
                self.warn(
                    expr.span(),
                    "Flink has no ->",
                    "write JSON_VALUE(text, '$.name') or JSON_QUERY(text, '$.name')",
                );
            }
            Expr::Interval(interval) if interval.leading_field.is_none() => {
                self.warn(expr.span(), "Flink wants an interval's unit outside the quotes", "write INTERVAL '1' DAY");
            }
            Expr::Identifier(name) => self.name(name),
            Expr::CompoundIdentifier(names) => names.iter().for_each(|n| self.name(n)),
            Expr::Function(call) => self.call(call),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// AVG of whole numbers is a whole number on Flink, and SUM of INT an INT: the same text gives other values there.
///
/// `sql` is the statement's text: parts of the plan that come from other views are warned about there.
pub(crate) fn of_plan(plan: &LogicalPlan, sql: &str) -> Vec<Refusal> {
    let mut found = Vec::new();
    // The closure never fails.
    let walked = plan.apply_with_subqueries(|node| {
        let LogicalPlan::Aggregate(aggregate) = node else { return Ok(TreeNodeRecursion::Continue) };
        for expr in &aggregate.aggr_expr {
            expr.apply(|e| {
                if let PlanExpr::AggregateFunction(call) = e
                    && let Some(arg) = call.params.args.first()
                {
                    let data_type = arg.get_type(aggregate.input.schema())?;
                    let name = call.func.name();
                    let Some(at) = place(arg, sql) else { return Ok(TreeNodeRecursion::Continue) };
                    let narrow = data_type.is_integer() && data_type.primitive_width().is_some_and(|w| w < 8);
                    if name == "avg" && data_type.is_integer() {
                        let help = "write AVG(CAST(x AS DECIMAL(18, 4))) or AVG(CAST(x AS DOUBLE))";
                        found.push(Refusal::new(at, "AVG of whole numbers is a whole number on Flink", help));
                    } else if name == "sum" && narrow {
                        let help = "write SUM(CAST(x AS BIGINT))";
                        found.push(Refusal::new(
                            at,
                            "SUM of this type can overflow on Flink, where it is no BIGINT",
                            help,
                        ));
                    }
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    });
    if let Err(error) = walked {
        tracing::debug!(%error, "plan not linted");
    }
    found
}

/// Where the first column of an expression stands, if it stands in this text.
fn place(expr: &PlanExpr, sql: &str) -> Option<Span> {
    let mut at = None;
    let walked = expr.apply(|e| {
        let PlanExpr::Column(column) = e else { return Ok(TreeNodeRecursion::Continue) };
        at = column.spans.first().map(|s| (s, column.name.clone()));
        Ok(TreeNodeRecursion::Stop)
    });
    debug_assert!(walked.is_ok(), "looking for a column cannot fail");
    let (span, name) = at?;
    let line = sql.lines().nth(super::refusal::index(span.start.line).checked_sub(1)?)?;
    let start = super::refusal::index(span.start.column).checked_sub(1)?;
    let end = super::refusal::index(span.end.column).checked_sub(1)?;
    let there: String = line.chars().take(end).skip(start).collect();
    let is_there = there.to_lowercase().ends_with(&name.to_lowercase());
    is_there.then(|| Span::new(location(span.start), location(span.end)))
}

fn location(at: datafusion::common::Location) -> Location {
    Location { line: at.line, column: at.column }
}
