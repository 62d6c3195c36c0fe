//! Flink's spellings of expressions, written in DataFusion's.
//!
//! Functions that both have under one name, with one meaning, need nothing; those of another meaning are functions of
//! our own (see [`super::functions`]). What is left is rewritten here.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CeilFloorKind, DateTimeField, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArgumentList, FunctionArguments, Ident, ObjectName, Query, Spanned, TableFactor, Value, VisitMut,
    VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::functions::{Unit, time};
use super::other_spellings;
use super::refusal::Refusal;
use super::standard;
use super::template;
use super::tokens::SYMMETRIC;
use super::windows::arguments_of;

const UNITS: &str = "the units are SECOND, MINUTE, HOUR, DAY, WEEK, MONTH, QUARTER, YEAR";

/// Rewrites every expression of a query.
pub(super) fn rewrite(query: &mut Query) -> Result<(), Refusal> {
    match query.visit(&mut Rewriter) {
        ControlFlow::Break(refusal) => Err(refusal),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Rewriter;

impl VisitorMut for Rewriter {
    type Break = Refusal;

    /// Names of table functions are looked up as they are written.
    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Refusal> {
        if let TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. } = factor {
            *name = same_place(name, &name.to_string().to_lowercase());
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Refusal> {
        match rewritten(expr) {
            Ok(None) => ControlFlow::Continue(()),
            Ok(Some(new)) => {
                *expr = new;
                ControlFlow::Continue(())
            }
            Err(refusal) => ControlFlow::Break(refusal),
        }
    }
}

pub(super) type Rewritten = Result<Option<Expr>, Refusal>;

fn rewritten(expr: &mut Expr) -> Rewritten {
    match expr {
        Expr::Floor { expr: inner, field: CeilFloorKind::DateTimeField(to) } if *to != DateTimeField::NoDateTime => {
            let unit = unit(&to.to_string(), inner)?;
            filled(&format!("{}('{unit}', __a)", time::FLOOR), &[inner])
        }
        Expr::Ceil { expr: inner, field: CeilFloorKind::DateTimeField(to) } if *to != DateTimeField::NoDateTime => {
            let unit = unit(&to.to_string(), inner)?;
            filled(&format!("{}('{unit}', __a)", time::CEIL), &[inner])
        }
        Expr::Between { expr: x, negated, low, high } => {
            if !take_symmetric(low) {
                return Ok(None);
            }
            let not = if *negated { "NOT " } else { "" };
            filled(&format!("{not}(__a BETWEEN __b AND __c OR __a BETWEEN __c AND __b)"), &[x, low, high])
        }
        Expr::Function(call) => function(call),
        _ => Ok(None),
    }
}

fn unit(name: &str, place: &Expr) -> Result<String, Refusal> {
    match Unit::parse(name) {
        Some(_) => Ok(name.to_uppercase()),
        None => Err(Refusal::of(place, format!("{name} is not a time unit that is supported here"), UNITS)),
    }
}

/// An expression with the holes `__a`, `__b`, `__c` filled in order.
pub(super) fn filled(sql: &str, with: &[&Expr]) -> Rewritten {
    let holes = ["__a", "__b", "__c"].into_iter().zip(with).map(|(hole, e)| (hole, (*e).clone())).collect();
    match template::expr(sql, holes) {
        Ok(expr) => Ok(Some(expr)),
        Err(e) => Err(with.first().map_or_else(
            || Refusal::new(Span::empty(), e.to_string(), ""),
            |place| Refusal::of(*place, e.to_string(), ""),
        )),
    }
}

fn function(call: &mut Function) -> Rewritten {
    let name = call.name.to_string().to_uppercase();
    let args: Vec<Expr> = arguments_of(call).cloned().collect();
    let refs: Vec<&Expr> = args.iter().collect();
    if let Some(refusal) = refused(&name, call) {
        return Err(refusal);
    }
    if let Some(part) = date_part(&name)
        && args.len() == 1
    {
        let plus = if name == "DAYOFWEEK" { " + 1" } else { "" };
        return filled(&format!("CAST(date_part('{part}', __a) AS BIGINT){plus}"), &refs);
    }
    match (name.as_str(), refs.len()) {
        ("IF", 3) => filled("CASE WHEN __a THEN __b ELSE __c END", &refs),
        ("IFNULL", 2) => filled("COALESCE(__a, __b)", &refs),
        ("SIGN", 1) => filled("CASE WHEN __a > 0 THEN 1 WHEN __a < 0 THEN -1 WHEN __a = 0 THEN 0 END", &refs),
        ("LOCATE", 2) => filled("strpos(__b, __a)", &refs),
        ("MOD", 2) => filled("__a % __b", &refs),
        ("REGEXP", 2) => filled("__a ~ __b", &refs),
        ("TIMESTAMPDIFF", 3) => {
            let unit = unit(&args[0].to_string(), &args[0])?;
            filled(&format!("{}('{unit}', __a, __b)", time::DIFF), &refs[1..])
        }
        ("TIMESTAMPADD", 3) => {
            let unit = unit(&args[0].to_string(), &args[0])?;
            let whole_days = Unit::parse(&unit).is_some_and(Unit::is_whole_days);
            let add = if whole_days { time::ADD } else { time::ADD_FINE };
            filled(&format!("{add}('{unit}', __a, __b)"), &refs[1..])
        }
        ("UNIX_TIMESTAMP", 0) => filled("CAST(date_part('epoch', now()) AS BIGINT)", &[]),
        ("CURRENT_ROW_TIMESTAMP", 0) => filled("now()", &[]),
        ("LOCALTIMESTAMP", 0) => filled("CAST(now() AS TIMESTAMP)", &[]),
        ("CURRENT_TIME" | "LOCALTIME", 0) => filled("CAST(now() AS TIME)", &[]),
        ("LISTAGG", 1 | 2) => listagg(call, &args),
        ("LAST_DAY", 1) => {
            filled("CAST(date_trunc('month', __a) + INTERVAL '1' MONTH - INTERVAL '1' DAY AS DATE)", &refs)
        }
        ("DAYNAME", 1) => filled("date_format(__a, 'EEEE')", &refs),
        ("MONTHNAME", 1) => filled("date_format(__a, 'MMMM')", &refs),
        ("STRFTIME", 2) => filled("date_format(__a, __b)", &refs),
        ("TO_CHAR", 2) => to_char(&args),
        ("APPROX_MEDIAN", 1) => exact_percentile(call, filled("CAST(0.5 AS DOUBLE)", &[])?),
        ("APPROX_PERCENTILE_CONT", _) => {
            shares_are_doubles(call)?;
            exact_percentile(call, None)
        }
        ("PERCENTILE_CONT" | "PERCENTILE_DISC" | "QUANTILE_DISC" | "APPROX_PERCENTILE_CONT_WITH_WEIGHT", _) => {
            shares_are_doubles(call)
        }
        (other, _) => match renamed(other) {
            Some(name) => {
                call.name = same_place(&call.name, name);
                Ok(None)
            }
            None => other_spellings::function(call, other, &args),
        },
    }
}

/// `TO_CHAR(ts, pattern)`: a pattern with a `%` is `strftime`'s, another one PostgreSQL's.
fn to_char(args: &[Expr]) -> Rewritten {
    let Some(pattern) = text_of(&args[1]).filter(|p| !p.contains('%')) else {
        return filled("date_format(__a, __b)", &[&args[0], &args[1]]);
    };
    let java = standard::java_pattern(pattern).map_err(|part| {
        let message = format!("`{part}` of the pattern '{pattern}' is not supported");
        Refusal::of(&args[1], message, "write DATE_FORMAT(ts, 'yyyy-MM-dd'), with the letters y M d D H h m s S a E Q")
    })?;
    let java = Expr::value(Value::SingleQuotedString(java));
    filled("date_format(__a, __b)", &[&args[0], &java])
}

/// The text of a literal.
pub(super) fn text_of(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(v) => match &v.value {
            Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

/// The share that a percentile is asked for must be a double, and `0.5` is a decimal.
fn shares_are_doubles(call: &mut Function) -> Rewritten {
    let FunctionArguments::List(list) = &mut call.args else { return Ok(None) };
    for arg in &mut list.args {
        if let FunctionArg::Unnamed(FunctionArgExpr::Expr(share)) = arg
            && matches!(share, Expr::Value(v) if matches!(v.value, Value::Number(..)))
            && let Some(double) = filled("CAST(__a AS DOUBLE)", &[share])?
        {
            *share = double;
        }
    }
    Ok(None)
}

/// The estimates of percentiles are exact here, which costs no more. A number of centroids means nothing then.
fn exact_percentile(call: &mut Function, share: Option<Expr>) -> Rewritten {
    let n_args = if call.within_group.is_empty() { 2 } else { 1 };
    if let FunctionArguments::List(list) = &mut call.args {
        list.args.extend(share.map(|share| FunctionArg::Unnamed(FunctionArgExpr::Expr(share))));
        list.args.truncate(n_args);
    }
    call.name = same_place(&call.name, "percentile_cont");
    Ok(None)
}

/// The part of `HOUR(ts)` and its like.
fn date_part(function: &str) -> Option<&'static str> {
    Some(match function {
        "YEAR" => "year",
        "QUARTER" => "quarter",
        "MONTH" => "month",
        "WEEK" => "week",
        "DAYOFYEAR" => "doy",
        "DAYOFMONTH" => "day",
        "DAYOFWEEK" => "dow",
        "HOUR" => "hour",
        "MINUTE" => "minute",
        "SECOND" => "second",
        _ => return None,
    })
}

/// Functions that only have another name.
fn renamed(function: &str) -> Option<&'static str> {
    Some(match function {
        "APPROX_COUNT_DISTINCT" => "approx_distinct",
        "COLLECT" => "array_agg",
        "STARTSWITH" => "starts_with",
        "ENDSWITH" => "ends_with",
        "TRUNCATE" => "trunc",
        "STDDEV_SAMP" => "stddev",
        "VARIANCE" => "var_samp",
        "CEILING" => "ceil",
        "EVERY" => "bool_and",
        "UCASE" => "upper",
        "LCASE" => "lower",
        _ => return None,
    })
}

fn refused(name: &str, call: &Function) -> Option<Refusal> {
    let refuse = |message: String, help: &str| Some(Refusal::of(&call.name, message, help));
    match name {
        "RAND" | "RANDOM" | "RAND_INTEGER" | "UUID" => refuse(
            format!("{name} gives another value each time, so a row could not be taken back"),
            "derive the value from the row's columns, for example with md5(…)",
        ),
        "PROCTIME" => refuse(
            "there is no processing time here: every result follows from the data".to_owned(),
            "write CURRENT_TIMESTAMP for the time now, or declare an event time with WATERMARK FOR",
        ),
        "PERCENTILE_CONT" | "PERCENTILE_DISC" | "APPROX_PERCENTILE_CONT"
            if call.within_group.is_empty() && arguments_of(call).count() < 2 =>
        {
            refuse(format!("{name} has no order"), "write PERCENTILE_DISC(0.5) WITHIN GROUP (ORDER BY x)")
        }
        "MODE" if call.within_group.is_empty() && arguments_of(call).count() == 0 => {
            refuse("MODE has no order".to_owned(), "write MODE() WITHIN GROUP (ORDER BY x)")
        }
        "CURRENT_WATERMARK" => refuse("CURRENT_WATERMARK is not supported".to_owned(), "late rows go to <view>__late"),
        "TUMBLE_START" | "TUMBLE_END" | "TUMBLE_ROWTIME" | "HOP_START" | "HOP_END" | "HOP_ROWTIME"
        | "SESSION_START" | "SESSION_END" | "SESSION_ROWTIME" | "TUMBLE" | "HOP" | "SESSION" | "CUMULATE" => refuse(
            format!("{name} in an expression is Flink's old form of windows"),
            "write FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR)) GROUP BY window_start, window_end",
        ),
        _ => None,
    }
}

pub(super) fn same_place(name: &ObjectName, new: &str) -> ObjectName {
    ObjectName::from(vec![Ident::with_span(name.span(), new)])
}

/// `LISTAGG(x [, delimiter]) [WITHIN GROUP (ORDER BY …)]`; the delimiter is a comma.
pub(super) fn listagg(call: &mut Function, args: &[Expr]) -> Rewritten {
    let text = filled("CAST(__a AS VARCHAR)", &[&args[0]])?;
    let delimiter = match args.get(1) {
        Some(delimiter) => Some(delimiter.clone()),
        None => filled("','", &[])?,
    };
    let (treatment, mut clauses) = match &call.args {
        FunctionArguments::List(list) => (list.duplicate_treatment, list.clauses.clone()),
        _ => (None, Vec::new()),
    };
    let within_group = std::mem::take(&mut call.within_group);
    if !within_group.is_empty() {
        clauses.push(FunctionArgumentClause::OrderBy(within_group));
    }
    let args = text.into_iter().chain(delimiter).map(|e| FunctionArg::Unnamed(FunctionArgExpr::Expr(e))).collect();
    call.args = FunctionArguments::List(FunctionArgumentList { duplicate_treatment: treatment, args, clauses });
    call.name = same_place(&call.name, "string_agg");
    Ok(None)
}

/// Takes the mark of `BETWEEN SYMMETRIC` off the lower bound; it stands at its very left.
fn take_symmetric(low: &mut Expr) -> bool {
    let Expr::BinaryOp { left, op, right } = low else { return false };
    let is_mark =
        matches!(&**left, Expr::Value(v) if matches!(&v.value, Value::SingleQuotedString(s) if s == SYMMETRIC));
    if is_mark && *op == BinaryOperator::StringConcat {
        let bound = std::mem::replace(&mut **right, Expr::value(Value::Null));
        *low = bound;
        return true;
    }
    take_symmetric(left)
}
