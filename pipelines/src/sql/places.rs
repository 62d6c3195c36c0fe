//! What DataFusion says about a query, in fewer words and with the place of the token that it is about.

use std::sync::LazyLock;

use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use model::{Diagnostic, SqlStatement};
use regex::Regex;

use super::refusal::index;

/// A planning error as a message about the statement.
pub(crate) fn planning_diagnostic(statement: &SqlStatement, error: &DataFusionError) -> Diagnostic {
    let message = plain(&error.strip_backtrace());
    let known = error.diagnostic().and_then(|d| d.span).map(|span| (span.start.line, span.start.column));
    let (line, column) = known.filter(|at| at.0 > 0).or_else(|| mentioned(&statement.sql, &message)).unwrap_or((1, 1));
    let found = statement.diagnostic_at(index(line), index(column), &message);
    match help(&message) {
        Some(help) => found.with_help(help),
        None => found,
    }
}

/// The message without the layers it came through.
fn plain(message: &str) -> String {
    const WINDOW_TIME: &str = "the time column of a window is of type";
    let message = message.replace("andon.erp.", "");
    if let Some(at) = message.find(WINDOW_TIME) {
        let end = message[at..].find(". ").map_or(message.len(), |n| at + n);
        return message[at..end].to_owned();
    }
    if let Some(call) = message.split("No function matches the given name and argument types '").nth(1) {
        return format!("there is no function {}", call.split('\'').next().unwrap_or(call));
    }
    let mut text = message.split("\n\tCandidate functions:").next().unwrap_or(&message).trim();
    loop {
        let shorter = [
            "Error during planning: ",
            "Schema error: ",
            "type_coercion\ncaused by\n",
            "Execution error: ",
            "SQL error: ",
            "Arrow error: ",
        ]
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix));
        match shorter {
            Some(rest) => text = rest,
            None => break,
        }
    }
    let text = text.trim_end_matches(" You might need to add explicit type casts.");
    text.replace("This feature is not implemented: ", "not supported: ")
}

/// What to do about errors that people meet often.
fn help(message: &str) -> Option<&'static str> {
    [
        ("must appear in the GROUP BY clause", "add the column to GROUP BY, or aggregate it"),
        ("ambiguous reference", "write the table's name or alias before the column"),
        ("Ambiguous reference", "write the table's name or alias before the column"),
        ("Cannot coerce arithmetic expression", "CAST one side to the type of the other"),
        ("Cannot infer common argument type", "CAST one side to the type of the other"),
        (
            "No function matches the given name and argument types",
            "CAST the argument to a type that the function takes",
        ),
        ("of the outer query", "read it outside: join the subquery's rows in the outer query and compare them there"),
        (
            "a subquery in the ON of a full join",
            "compute what the subquery says in a subquery of one side, and compare that",
        ),
        ("query returned", "both queries of a set operation must have the same columns"),
    ]
    .into_iter()
    .find(|(part, _)| message.contains(part))
    .map(|(_, help)| help)
}

/// Place of the first token that the message names in quotes or before a parenthesis.
fn mentioned(sql: &str, message: &str) -> Option<(u64, u64)> {
    static NAMES: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r#"['"`]([A-Za-z_][A-Za-z0-9_.]*)|([A-Za-z_][A-Za-z0-9_.]*)\(|SQL type ([A-Za-z_]+)"#).ok()
    });
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location().ok()?;
    if message.starts_with("the time column of a window") {
        let at = tokens.iter().position(|t| is(t, "DESCRIPTOR"))?;
        let column = tokens[at..].iter().filter(|t| matches!(t.token, Token::Word(_))).nth(1)?;
        return Some((column.span.start.line, column.span.start.column));
    }
    let regex = NAMES.as_ref()?;
    for found in regex.captures_iter(message) {
        let name = found.get(1).or(found.get(2)).or(found.get(3))?.as_str();
        let last = name.rsplit('.').next().unwrap_or(name);
        if let Some(token) = tokens.iter().find(|t| is(t, last)) {
            return Some((token.span.start.line, token.span.start.column));
        }
    }
    None
}

fn is(token: &TokenWithSpan, name: &str) -> bool {
    matches!(&token.token, Token::Word(w) if w.value.eq_ignore_ascii_case(name))
}
