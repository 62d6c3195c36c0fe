//! Standard SQL that the planner lacks or gets wrong, written in what it has: FETCH FIRST, comparisons with ANY and ALL,
//! SIMILAR TO, LIKE with another escape character, intervals of several fields, `GROUP BY ()`.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Fetch, GroupByExpr, Interval, JoinOperator, LimitClause, Query, Select, SetExpr, TableFactor,
    UnaryOperator, Value, ValueWithSpan, VisitMut, VisitorMut,
};

use super::refusal::Refusal;
use super::spellings::{Rewritten, filled, text_of};
use super::template::{self, Holes};

/// Rewrites all of it in a query.
pub(super) fn rewrite(query: &mut Query) -> Result<(), Refusal> {
    match query.visit(&mut Rewriter { n_derived: 0 }) {
        ControlFlow::Break(refusal) => Err(refusal),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Rewriter {
    n_derived: usize,
}

impl VisitorMut for Rewriter {
    type Break = Refusal;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Refusal> {
        match query.fetch.take().map_or(Ok(()), |fetch| fetched(query, fetch)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(refusal) => ControlFlow::Break(refusal),
        }
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Refusal> {
        if let GroupByExpr::Expressions(exprs, _) = &mut select.group_by {
            exprs.retain(|e| !matches!(e, Expr::Tuple(all) if all.is_empty()));
        }
        // `SEMI JOIN` and `ANTI JOIN` are those of the left side.
        for join in select.from.iter_mut().flat_map(|from| &mut from.joins) {
            join.join_operator = match join.join_operator.clone() {
                JoinOperator::Semi(on) => JoinOperator::LeftSemi(on),
                JoinOperator::Anti(on) => JoinOperator::LeftAnti(on),
                other => other,
            };
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Refusal> {
        match self.rewritten(expr) {
            Ok(None) => ControlFlow::Continue(()),
            Ok(Some(new)) => {
                *expr = new;
                ControlFlow::Continue(())
            }
            Err(refusal) => ControlFlow::Break(refusal),
        }
    }
}

/// `FETCH FIRST n ROWS ONLY` is a LIMIT; `WITH TIES` asks for the rank.
fn fetched(query: &mut Query, fetch: Fetch) -> Result<(), Refusal> {
    let refuse = |message: &str, help: &str| Err(Refusal::of(&*query.body, message, help));
    if fetch.percent {
        return refuse("FETCH with PERCENT is not supported", "write FETCH FIRST n ROWS ONLY, or WHERE ntile <= n");
    }
    let n = fetch.quantity.unwrap_or_else(|| Expr::value(Value::Number("1".to_owned(), false)));
    if !fetch.with_ties {
        let offset = match query.limit_clause.take() {
            Some(LimitClause::LimitOffset { offset, .. }) => offset,
            _ => None,
        };
        query.limit_clause = Some(LimitClause::LimitOffset { limit: Some(n), offset, limit_by: Vec::new() });
        return Ok(());
    }
    let help = "write WHERE n <= 10 around a subquery with RANK() OVER (ORDER BY …) AS n";
    let Some(order) = &query.order_by else { return refuse("WITH TIES wants an ORDER BY", help) };
    let SetExpr::Select(select) = &*query.body else { return refuse("WITH TIES wants a plain SELECT", help) };
    if query.limit_clause.is_some() || select.qualify.is_some() || select.distinct.is_some() {
        return refuse("WITH TIES stands alone, without OFFSET, LIMIT, QUALIFY and DISTINCT", help);
    }
    let rank = template::expr(&format!("rank() OVER ({order}) <= __n"), vec![("__n", n)])
        .map_err(|e| Refusal::of(&*query.body, e.to_string(), help))?;
    if let SetExpr::Select(select) = &mut *query.body {
        select.qualify = Some(rank);
    }
    query.order_by = None;
    Ok(())
}

impl Rewriter {
    fn rewritten(&mut self, expr: &mut Expr) -> Rewritten {
        match expr {
            Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. } => Ok(in_subquery(left, right, false)),
            Expr::AllOp { left, compare_op: BinaryOperator::NotEq, right } => Ok(in_subquery(left, right, true)),
            Expr::AnyOp { right, .. } | Expr::AllOp { right, .. } => self.derived(right).map(|()| None),
            Expr::SimilarTo { negated, expr: text, pattern, escape_char } => {
                similar(text, pattern, escape_char.as_ref(), *negated)
            }
            Expr::Like { expr: text, pattern, escape_char, .. }
            | Expr::ILike { expr: text, pattern, escape_char, .. } => {
                backslashed(text, pattern, escape_char).map(|()| None)
            }
            Expr::Interval(interval) => several_fields(interval).map(|()| None),
            _ => Ok(None),
        }
    }

    /// The planner takes a column of the subquery for one of the outer query if the tables have the same name.
    fn derived(&mut self, right: &mut Expr) -> Result<(), Refusal> {
        let Expr::Subquery(query) = right else { return Ok(()) };
        self.n_derived += 1;
        let sql = format!("SELECT * FROM (SELECT 1) AS __any_{}", self.n_derived);
        let mut outer =
            template::query(&sql, Holes::default()).map_err(|e| Refusal::of(&**query, e.to_string(), ""))?;
        if let SetExpr::Select(select) = &mut *outer.body
            && let Some(TableFactor::Derived { subquery, .. }) = select.from.first_mut().map(|from| &mut from.relation)
        {
            std::mem::swap(&mut **subquery, &mut **query);
        }
        **query = outer;
        Ok(())
    }
}

fn in_subquery(left: &Expr, right: &Expr, negated: bool) -> Option<Expr> {
    let Expr::Subquery(query) = right else { return None };
    Some(Expr::InSubquery { expr: Box::new(left.clone()), subquery: query.clone(), negated })
}

/// The escape character, and whether there is one.
fn escape_of(given: Option<&ValueWithSpan>) -> Option<char> {
    match given.map(|v| &v.value) {
        None => Some('\\'),
        Some(Value::SingleQuotedString(text)) => text.chars().next(),
        Some(_) => None,
    }
}

fn similar(text: &Expr, pattern: &Expr, escape: Option<&ValueWithSpan>, negated: bool) -> Rewritten {
    let Some(literal) = text_of(pattern) else {
        return Err(Refusal::of(pattern, "the pattern of SIMILAR TO must be a literal", "write it in quotes"));
    };
    let regex = Expr::value(Value::SingleQuotedString(similar_regex(literal, escape_of(escape))));
    filled(if negated { "NOT (__a ~ __b)" } else { "__a ~ __b" }, &[text, &regex])
}

/// A pattern of SIMILAR TO as a regular expression over the whole text.
fn similar_regex(pattern: &str, escape: Option<char>) -> String {
    let mut regex = String::from("^(?s:");
    let mut chars = pattern.chars();
    let mut in_brackets = false;
    while let Some(c) = chars.next() {
        match c {
            c if Some(c) == escape => {
                if let Some(next) = chars.next() {
                    regex.push_str(&regex::escape(&next.to_string()));
                }
            }
            '[' | ']' => {
                in_brackets = c == '[';
                regex.push(c);
            }
            _ if in_brackets => regex.push(c),
            '%' => regex.push_str(".*"),
            '_' => regex.push('.'),
            '.' | '^' | '$' | '\\' => {
                regex.push('\\');
                regex.push(c);
            }
            other => regex.push(other),
        }
    }
    regex.push_str(")$");
    regex
}

/// A pattern of LIKE with the backslash as its escape character, the only one that the planner knows.
fn backslashed(text: &Expr, pattern: &mut Expr, escape: &mut Option<ValueWithSpan>) -> Result<(), Refusal> {
    let given = match escape.as_ref() {
        None => return Ok(()),
        given => escape_of(given),
    };
    if given == Some('\\') {
        return Ok(());
    }
    let Some(literal) = text_of(pattern) else {
        return Err(Refusal::of(text, "LIKE with ESCAPE wants a literal as its pattern", "escape with a backslash"));
    };
    let mut out = String::new();
    let mut chars = literal.chars();
    while let Some(c) = chars.next() {
        let next = if Some(c) == given { chars.next() } else { None };
        match next {
            Some(next @ ('%' | '_' | '\\')) => out.extend(['\\', next]),
            Some(next) => out.push(next),
            None if c == '\\' => out.push_str("\\\\"),
            None => out.push(c),
        }
    }
    *pattern = Expr::value(Value::SingleQuotedString(out));
    *escape = None;
    Ok(())
}

/// `INTERVAL '1 02:03' DAY TO MINUTE` in words.
fn several_fields(interval: &mut Interval) -> Result<(), Refusal> {
    const FIELDS: [&str; 6] = ["YEAR", "MONTH", "DAY", "HOUR", "MINUTE", "SECOND"];
    let (Some(first), Some(last)) = (&interval.leading_field, &interval.last_field) else { return Ok(()) };
    let place = |field: &dyn std::fmt::Display| {
        let name = field.to_string();
        FIELDS.iter().position(|f| name.trim_end_matches('S').eq_ignore_ascii_case(f))
    };
    let (literal, outer_minus) = match &*interval.value {
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => (text_of(expr), true),
        other => (text_of(other), false),
    };
    let (Some(from), Some(to), Some(literal)) = (place(first), place(last), literal) else { return Ok(()) };
    let literal = literal.trim();
    let minus = literal.starts_with('-') != outer_minus;
    let parts: Vec<&str> = literal.trim_start_matches(['-', '+']).split([' ', ':', '-']).collect();
    let is_number = |p: &&str| p.parse::<f64>().is_ok();
    if to < from || parts.len() != to - from + 1 || !parts.iter().all(is_number) {
        let help = "write it like INTERVAL '1 02:03:04' DAY TO SECOND or INTERVAL '1-6' YEAR TO MONTH";
        return Err(Refusal::of(&*interval.value, format!("'{literal}' is not {first} TO {last}"), help));
    }
    let sign = if minus { "-" } else { "" };
    let words: Vec<String> =
        parts.iter().zip(&FIELDS[from..=to]).map(|(n, field)| format!("{sign}{n} {field}")).collect();
    *interval.value = Expr::value(Value::SingleQuotedString(words.join(" ")));
    interval.leading_field = None;
    interval.last_field = None;
    Ok(())
}

/// PostgreSQL's date pattern in Java's letters; the error is the part that has none.
pub(super) fn java_pattern(pattern: &str) -> Result<String, String> {
    const PARTS: [(&str, &str); 22] = [
        ("YYYY", "yyyy"),
        ("YY", "yy"),
        ("MONTH", ""),
        ("MON", "MMM"),
        ("MM", "MM"),
        ("MI", "mm"),
        ("MS", "SSS"),
        ("DDD", "DDD"),
        ("DD", "dd"),
        ("DAY", ""),
        ("DY", "EEE"),
        ("D", ""),
        ("HH24", "HH"),
        ("HH12", "hh"),
        ("HH", "hh"),
        ("SSSS", ""),
        ("SS", "ss"),
        ("US", "SSSSSS"),
        ("Q", "Q"),
        ("AM", "a"),
        ("PM", "a"),
        ("FM", ""),
    ];
    let mut java = String::new();
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        if c == '"' {
            let (text, after) = rest[1..].split_once('"').unwrap_or((&rest[1..], ""));
            java.push_str(&format!("'{}'", text.replace('\'', "''")));
            rest = after;
        } else if c.is_ascii_alphabetic() {
            let starts = |p: &str| rest.get(..p.len()).is_some_and(|r| r.eq_ignore_ascii_case(p));
            match PARTS.iter().find(|(part, _)| starts(part)) {
                Some((part, letters)) if !letters.is_empty() => {
                    java.push_str(letters);
                    rest = &rest[part.len()..];
                }
                Some((part, _)) => return Err((*part).to_owned()),
                None => return Err(c.to_string()),
            }
        } else {
            if c == '\'' {
                java.push('\'');
            }
            java.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    Ok(java)
}

#[cfg(test)]
mod tests {
    use super::{java_pattern, similar_regex};

    #[test]
    fn patterns_of_similar_to_are_over_the_whole_text() {
        assert_eq!(similar_regex("(a|A)b%", Some('\\')), "^(?s:(a|A)b.*)$");
        assert_eq!(similar_regex("a.c_[x_%]", Some('\\')), "^(?s:a\\.c.[x_%])$");
        assert_eq!(similar_regex("50!%", Some('!')), "^(?s:50%)$");
    }

    #[test]
    fn postgres_date_patterns_become_javas() {
        assert_eq!(java_pattern("YYYY-MM-DD HH24:MI:SS.MS").as_deref(), Ok("yyyy-MM-dd HH:mm:ss.SSS"));
        assert_eq!(java_pattern("\"Q\"Q yyyy").as_deref(), Ok("'Q'Q yyyy"));
        assert_eq!(java_pattern("Day DD"), Err("DAY".to_owned()));
        assert_eq!(java_pattern("IW"), Err("I".to_owned()));
    }
}
