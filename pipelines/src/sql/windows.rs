//! Flink's window functions: `TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR [, offset]))`, HOP, CUMULATE and
//! SESSION, with and without the outer `TABLE()`, arguments by position or by name.
//!
//! Each becomes a subquery that adds `window_start`, `window_end` and `window_time` (the window's last millisecond) to
//! the columns of the table. A row without event time is in no window, as in Flink. TUMBLE is arithmetic on the row; HOP
//! and CUMULATE unnest the list of a row's windows, so they keep no state; SESSION is a pair of window functions,
//! [`SESSION_START`] and [`SESSION_END`], by which an operator can recognise it.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    DateTimeField, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Interval, ObjectName,
    ObjectNamePart, Query, Spanned, TableAlias, TableFactor, Value, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::refusal::Refusal;
use super::template::{self, Holes};
use super::tokens::PARTITION_KEYS;

/// Names of the functions that the rewritten text calls.
pub(crate) const TUMBLE_START: &str = "andon_tumble_start";
pub(crate) const HOP_STARTS: &str = "andon_hop_starts";
pub(crate) const CUMULATE_ENDS: &str = "andon_cumulate_ends";
pub(crate) const SESSION_START: &str = "andon_session_start";
pub(crate) const SESSION_END: &str = "andon_session_end";

/// A row may be in so many windows of HOP or CUMULATE; a query with more is refused, since each row is multiplied.
const WINDOWS_PER_ROW_MAX: i64 = 10_000;

/// Replaces every window function in the FROM clauses of a query.
pub(super) fn rewrite(query: &mut Query) -> Result<(), Refusal> {
    match query.visit(&mut Rewriter) {
        ControlFlow::Break(refusal) => Err(refusal),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Rewriter;

impl VisitorMut for Rewriter {
    type Break = Refusal;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Refusal> {
        let replacement = match factor {
            TableFactor::TableFunction { expr: Expr::Function(call), alias } => match &call.args {
                FunctionArguments::List(list) => {
                    Some(window(&call.name, &list.args, alias.clone()).unwrap_or_else(|| {
                        let message = format!("{} is not a table function that is known here", call.name);
                        Err(Refusal::of(
                            &call.name,
                            message,
                            "the table functions are TUMBLE, HOP, CUMULATE and SESSION",
                        ))
                    }))
                }
                _ => None,
            },
            TableFactor::Table { name, args: Some(args), alias, .. } => window(name, &args.args, alias.clone()),
            TableFactor::MatchRecognize { .. } => Some(Err(Refusal::of(
                factor,
                "MATCH_RECOGNIZE is not supported",
                "write the pattern with LAG or LEAD over a partition, or as a join of the table with itself",
            ))),
            _ => None,
        };
        match replacement {
            None => ControlFlow::Continue(()),
            Some(Ok(new)) => {
                *factor = new;
                ControlFlow::Continue(())
            }
            Some(Err(refusal)) => ControlFlow::Break(refusal),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tumble,
    Hop,
    Cumulate,
    Session,
}

impl Kind {
    fn of(name: &ObjectName) -> Option<Self> {
        match name.to_string().to_uppercase().as_str() {
            "TUMBLE" => Some(Self::Tumble),
            "HOP" => Some(Self::Hop),
            "CUMULATE" => Some(Self::Cumulate),
            "SESSION" => Some(Self::Session),
            _ => None,
        }
    }

    /// Names of the arguments in Flink's order; the last is optional except for SESSION.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Tumble => &["DATA", "TIMECOL", "SIZE", "OFFSET"],
            Self::Hop => &["DATA", "TIMECOL", "SLIDE", "SIZE", "OFFSET"],
            Self::Cumulate => &["DATA", "TIMECOL", "STEP", "SIZE", "OFFSET"],
            Self::Session => &["DATA", "TIMECOL", "GAP"],
        }
    }

    fn usage(self) -> &'static str {
        match self {
            Self::Tumble => "write TABLE(TUMBLE(TABLE t, DESCRIPTOR(event_time), INTERVAL '1' HOUR))",
            Self::Hop => {
                "write TABLE(HOP(TABLE t, DESCRIPTOR(event_time), INTERVAL '5' MINUTE, INTERVAL '1' HOUR)): slide, size"
            }
            Self::Cumulate => {
                "write TABLE(CUMULATE(TABLE t, DESCRIPTOR(event_time), INTERVAL '1' HOUR, INTERVAL '1' DAY)): step, size"
            }
            Self::Session => {
                "write TABLE(SESSION(TABLE t PARTITION BY key, DESCRIPTOR(event_time), INTERVAL '30' MINUTE))"
            }
        }
    }
}

fn window(name: &ObjectName, args: &[FunctionArg], alias: Option<TableAlias>) -> Option<Result<TableFactor, Refusal>> {
    let kind = Kind::of(name)?;
    Some(Call::new(kind, name, args).and_then(|call| call.subquery()).map(|subquery| TableFactor::Derived {
        lateral: false,
        subquery: Box::new(subquery),
        alias,
        sample: None,
    }))
}

struct Call {
    kind: Kind,
    span: Span,
    data: TableFactor,
    time: Expr,
    partition: Vec<Expr>,
    /// Slide, step or gap first, as the kind has it; microseconds.
    intervals_us: Vec<i64>,
    offset_us: i64,
}

impl Call {
    fn new(kind: Kind, name: &ObjectName, args: &[FunctionArg]) -> Result<Self, Refusal> {
        let span = name.span();
        let shown = name.to_string().to_uppercase();
        let refuse = |at: Span, what: String| Refusal::new(at, format!("{shown} {what}"), kind.usage());
        let mut partition = Vec::new();
        let mut found: Vec<Option<&Expr>> = vec![None; kind.arguments().len()];
        let mut position = 0;
        for arg in args {
            let (argument_name, value) =
                named(arg).ok_or_else(|| refuse(span, "has an argument that is no value".into()))?;
            if let Expr::Function(keys) = value
                && keys.name.to_string() == PARTITION_KEYS
            {
                if kind != Kind::Session {
                    return Err(refuse(value.span(), "has no partitions; GROUP BY the column instead".into()));
                }
                partition = arguments_of(keys).cloned().collect();
                continue;
            }
            let at = match argument_name {
                None => position,
                Some(n) => {
                    kind.arguments().iter().position(|known| n.eq_ignore_ascii_case(known)).ok_or_else(|| {
                        refuse(arg.span(), format!("has no argument {n}; they are {}", kind.arguments().join(", ")))
                    })?
                }
            };
            let place = found.get_mut(at).ok_or_else(|| refuse(value.span(), "has too many arguments".into()))?;
            *place = Some(value);
            position = at + 1;
        }
        let wanted =
            |at: usize| found[at].ok_or_else(|| refuse(span, format!("lacks its argument {}", kind.arguments()[at])));
        let data = table(wanted(0)?).ok_or_else(|| refuse(span, "wants TABLE name as its first argument".into()))?;
        let time = descriptor(wanted(1)?)
            .ok_or_else(|| {
                refuse(found[1].map_or(span, Spanned::span), "wants DESCRIPTOR(column) as its second argument".into())
            })?
            .clone();
        let n_intervals = kind.arguments().len() - if kind == Kind::Session { 2 } else { 3 };
        let micros = |at: usize, value: &Expr| {
            interval_us(value).map_err(|why| refuse(value.span(), format!("argument {} {why}", kind.arguments()[at])))
        };
        let mut intervals_us = Vec::new();
        for at in 2..2 + n_intervals {
            let value = wanted(at)?;
            let us = micros(at, value)?;
            if us <= 0 {
                return Err(refuse(value.span(), format!("argument {} must be positive", kind.arguments()[at])));
            }
            intervals_us.push(us);
        }
        let offset_us = match found.get(2 + n_intervals).copied().flatten() {
            Some(value) => micros(2 + n_intervals, value)?,
            None => 0,
        };
        let call = Self { kind, span, data, time, partition, intervals_us, offset_us };
        call.check_sizes().map_err(|what| refuse(span, what))?;
        Ok(call)
    }

    fn check_sizes(&self) -> Result<(), String> {
        let [small, size] = self.intervals_us[..] else { return Ok(()) };
        if self.kind == Kind::Cumulate && size % small != 0 {
            return Err("wants a size that is a multiple of its step".to_owned());
        }
        if size / small > WINDOWS_PER_ROW_MAX {
            return Err(format!("puts each row into more than {WINDOWS_PER_ROW_MAX} windows"));
        }
        Ok(())
    }

    fn subquery(self) -> Result<Query, Refusal> {
        const LAST: &str = "INTERVAL '1 millisecond' AS window_time";
        let us = |us: i64| format!("INTERVAL '{us} microseconds'");
        let offset = self.offset_us;
        let (first, second) = (self.intervals_us[0], self.intervals_us.get(1).copied().unwrap_or_default());
        let sql = match self.kind {
            Kind::Tumble => {
                let size = us(first);
                format!(
                    "SELECT *, window_start + {size} AS window_end, window_start + {size} - {LAST} FROM (\
                     SELECT *, {TUMBLE_START}(__time, {first}, {offset}) AS window_start FROM __data WHERE __time IS NOT NULL)"
                )
            }
            Kind::Hop => {
                let size = us(second);
                format!(
                    "SELECT *, window_start + {size} AS window_end, window_start + {size} - {LAST} FROM (\
                     SELECT *, unnest({HOP_STARTS}(__time, {first}, {second}, {offset})) AS window_start FROM __data)"
                )
            }
            Kind::Cumulate => format!(
                "SELECT *, window_end - {LAST} FROM (\
                 SELECT *, {TUMBLE_START}(__time, {second}, {offset}) AS window_start, \
                 unnest({CUMULATE_ENDS}(__time, {first}, {second}, {offset})) AS window_end FROM __data)"
            ),
            Kind::Session => {
                let keys: Vec<String> = (0..self.partition.len()).map(|i| format!("__key{i}")).collect();
                let keys = if keys.is_empty() { String::new() } else { format!("PARTITION BY {} ", keys.join(", ")) };
                let over = format!("OVER ({keys}ORDER BY __time)");
                format!(
                    "SELECT *, window_end - {LAST} FROM (\
                     SELECT *, {SESSION_START}(__time, {first}) {over} AS window_start, \
                     {SESSION_END}(__time, {first}) {over} AS window_end FROM __data WHERE __time IS NOT NULL)"
                )
            }
        };
        let names: Vec<String> = (0..self.partition.len()).map(|i| format!("__key{i}")).collect();
        let mut exprs = vec![("__time", self.time)];
        exprs.extend(names.iter().map(String::as_str).zip(self.partition));
        let span = self.span;
        template::query(&sql, Holes { exprs, data: Some(self.data) })
            .map_err(|e| Refusal::new(span, format!("this window function cannot be planned: {e}"), self.kind.usage()))
    }
}

/// Name, if it has one, and value of an argument.
fn named(arg: &FunctionArg) -> Option<(Option<String>, &Expr)> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => Some((None, e)),
        FunctionArg::Named { name, arg: FunctionArgExpr::Expr(e), .. } => Some((Some(name.value.clone()), e)),
        FunctionArg::ExprNamed { name, arg: FunctionArgExpr::Expr(e), .. } => Some((Some(name.to_string()), e)),
        _ => None,
    }
}

/// The plain arguments of a call.
pub(super) fn arguments_of(call: &Function) -> impl Iterator<Item = &Expr> {
    let list: &[FunctionArg] = match &call.args {
        FunctionArguments::List(list) => &list.args,
        _ => &[],
    };
    list.iter().filter_map(|arg| named(arg).map(|(_, e)| e))
}

fn table(value: &Expr) -> Option<TableFactor> {
    let parts: Vec<Ident> = match value {
        Expr::Identifier(name) => vec![name.clone()],
        Expr::CompoundIdentifier(parts) => parts.clone(),
        Expr::Subquery(query) => {
            return Some(TableFactor::Derived { lateral: false, subquery: query.clone(), alias: None, sample: None });
        }
        _ => return None,
    };
    Some(plain_table(ObjectName(parts.into_iter().map(ObjectNamePart::Identifier).collect())))
}

/// A table by its name alone.
pub(super) fn plain_table(name: ObjectName) -> TableFactor {
    TableFactor::Table {
        name,
        alias: None,
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    }
}

fn descriptor(value: &Expr) -> Option<&Expr> {
    match value {
        Expr::Function(f) if f.name.to_string().eq_ignore_ascii_case("descriptor") => {
            let mut args = arguments_of(f);
            args.next().filter(|_| args.next().is_none())
        }
        _ => None,
    }
}

/// A constant interval in microseconds; the error goes on after the argument's name.
fn interval_us(value: &Expr) -> Result<i64, String> {
    let (sign, value) = match value {
        Expr::UnaryOp { op, expr } if op.to_string() == "-" => (-1, &**expr),
        other => (1, other),
    };
    let Expr::Interval(Interval { value, leading_field, last_field: None, .. }) = value else {
        return Err("must be an interval like INTERVAL '1' HOUR".to_owned());
    };
    let text = match &**value {
        Expr::Value(v) => v.value.clone().into_string().unwrap_or_else(|| v.value.to_string()),
        other => other.to_string(),
    };
    let whole = match (leading_field, &**value) {
        (Some(field), Expr::Value(v)) if !matches!(v.value, Value::Null) => format!("{text} {}", unit_name(field)),
        _ => text,
    };
    duration_us(&whole).map(|us| sign * us)
}

fn unit_name(field: &DateTimeField) -> String {
    field.to_string().to_lowercase()
}

/// A duration like `10 minutes` or `1 hour 30 minutes` in microseconds. Months and years have no fixed length.
pub(crate) fn duration_us(text: &str) -> Result<i64, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let unknown = || format!("'{text}' is no duration like '10 minutes'");
    if words.is_empty() || !words.len().is_multiple_of(2) {
        return Err(unknown());
    }
    let mut sum = 0_i64;
    for pair in words.chunks(2) {
        let unit: i64 = match pair[1].to_lowercase().trim_end_matches('s') {
            "microsecond" | "u" => 1,
            "millisecond" | "m" | "milli" => 1_000,
            "second" | "sec" => 1_000_000,
            "minute" | "min" => 60_000_000,
            "hour" | "h" => 3_600_000_000,
            "day" | "d" => 86_400_000_000,
            "week" => 7 * 86_400_000_000,
            "month" | "year" | "quarter" => {
                return Err(format!("'{text}' has no fixed length; use days"));
            }
            _ => return Err(unknown()),
        };
        let count: f64 = pair[0].parse().map_err(|_| unknown())?;
        let us = count * unit as f64;
        if us.abs() > 1e17 {
            return Err(format!("'{text}' is too long"));
        }
        #[expect(clippy::cast_possible_truncation, reason = "bounded by the check above")]
        let us = us.round() as i64;
        sum += us;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::duration_us;

    #[test]
    fn durations() {
        assert_eq!(duration_us("10 minutes"), Ok(600_000_000));
        assert_eq!(duration_us("1 hour 30 min"), Ok(5_400_000_000));
        assert_eq!(duration_us("0.5 SECONDS"), Ok(500_000));
        assert!(duration_us("1 month").is_err_and(|e| e.contains("days")));
        assert!(duration_us("soon").is_err());
        assert!(duration_us("").is_err());
    }
}
