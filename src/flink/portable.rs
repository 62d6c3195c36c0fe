//! What Flink would not run, or would run with another meaning, found by looking at a statement's words.
//!
//! Not a parser: Flink itself has the last word when the script is submitted. What is listed here is what the shipped
//! views and the dialect's guide know of.

use model::{Diagnostic, SqlStatement};
use sqlparser::dialect::GenericDialect;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

/// Functions without a namesake in Flink, and what both know.
const FUNCTIONS: [(&str, &str); 17] = [
    ("date_trunc", "write FLOOR(time TO HOUR)"),
    ("date_bin", "write TUMBLE(TABLE t, DESCRIPTOR(time), INTERVAL …)"),
    ("date_part", "write EXTRACT(HOUR FROM time)"),
    ("to_char", "write DATE_FORMAT(time, 'yyyy-MM-dd')"),
    ("strpos", "write POSITION(part IN text)"),
    ("string_agg", "write LISTAGG(text, ', ')"),
    ("nvl", "write COALESCE"),
    ("median", "Flink keeps no order of a group's values"),
    ("percentile_cont", "Flink keeps no order of a group's values"),
    ("approx_percentile_cont", "Flink keeps no order of a group's values"),
    ("approx_distinct", "write APPROX_COUNT_DISTINCT, which Flink runs on bounded input only"),
    ("bool_and", "write MIN(CASE WHEN … THEN 1 ELSE 0 END) = 1"),
    ("bool_or", "write MAX(CASE WHEN … THEN 1 ELSE 0 END) = 1"),
    ("array_length", "write CARDINALITY"),
    ("json_get", "write JSON_VALUE(text, '$.path')"),
    ("json_get_str", "write JSON_VALUE(text, '$.path')"),
    ("random", "no kept result can depend on chance"),
];

/// The words of a clock; each is a moving one in Andon and stands still in Flink.
const CLOCK: [&str; 6] = ["current_timestamp", "current_date", "current_time", "localtimestamp", "localtime", "now"];

/// A statement's tokens with their places, comments and blanks left out; nothing if it cannot be tokenized.
pub(super) fn tokens(statement: &SqlStatement) -> Vec<TokenWithSpan> {
    let all = Tokenizer::new(&GenericDialect {}, &statement.sql).tokenize_with_location().unwrap_or_default();
    all.into_iter().filter(|t| !matches!(t.token, Token::Whitespace(_) | Token::EOF | Token::SemiColon)).collect()
}

/// The first thing in a statement that Flink does not take as it is.
pub(super) fn problem(statement: &SqlStatement) -> Option<Diagnostic> {
    let tokens = tokens(statement);
    let has_from = tokens.iter().any(|t| is(t, "FROM"));
    for (i, token) in tokens.iter().enumerate() {
        let next = tokens.get(i + 1);
        let found = match &token.token {
            Token::DoubleColon => {
                Some(("`::` is not in Flink's SQL".to_owned(), "write CAST(value AS type)".to_owned()))
            }
            Token::Word(word) if word.quote_style.is_none() => {
                word_problem(&word.value.to_lowercase(), word.keyword, &tokens[..i], &tokens[i + 1..], has_from)
            }
            Token::Number(_, _)
                if i > 1 && is(&tokens[i - 1], "BY") && is(&tokens[i - 2], "GROUP") && !next.is_some_and(operator) =>
            {
                Some(("GROUP BY a column's number is not in Flink's SQL".to_owned(), "write the expression".to_owned()))
            }
            _ => None,
        };
        if let Some((message, help)) = found {
            let (line, column) = (place(token.span.start.line), place(token.span.start.column));
            return Some(statement.diagnostic_at(line, column, message).with_help(help));
        }
    }
    None
}

fn word_problem(
    word: &str,
    keyword: Keyword,
    before: &[TokenWithSpan],
    after: &[TokenWithSpan],
    has_from: bool,
) -> Option<(String, String)> {
    let is_called = matches!(after.first().map(|t| &t.token), Some(Token::LParen));
    let is_member = matches!(before.last().map(|t| &t.token), Some(Token::Period));
    if is_member {
        return None;
    }
    if CLOCK.contains(&word) && (keyword != Keyword::NoKeyword || is_called) {
        let help = "Flink reads the clock when a row comes, so rows would not come and go by time alone".to_owned();
        return Some((format!("{} moves by itself in Andon only", word.to_uppercase()), help));
    }
    if let Some((name, help)) = FUNCTIONS.iter().find(|(name, _)| *name == word).filter(|_| is_called) {
        return Some((format!("Flink has no {}", name.to_uppercase()), (*help).to_owned()));
    }
    match word {
        "zone" if is_last(before, "TIME") && before.len() > 1 && is(&before[before.len() - 2], "AT") => {
            Some(("Flink has no AT TIME ZONE".to_owned(), "write CONVERT_TZ".to_owned()))
        }
        "ilike" => Some(("Flink has no ILIKE".to_owned(), "write LOWER(text) LIKE".to_owned())),
        "recursive" => {
            Some(("Flink has no recursive query in a stream".to_owned(), "keep this view in Andon".to_owned()))
        }
        "qualify" => Some(("Flink has no QUALIFY".to_owned(), "filter in a query around this one".to_owned())),
        "where" if !has_from => {
            let help = "add FROM (VALUES (1)) AS one (n)".to_owned();
            Some(("Flink has no WHERE without FROM".to_owned(), help))
        }
        _ => None,
    }
}

fn operator(token: &TokenWithSpan) -> bool {
    matches!(token.token, Token::Plus | Token::Minus | Token::Mul | Token::Div | Token::Mod | Token::StringConcat)
}

fn is_last(tokens: &[TokenWithSpan], word: &str) -> bool {
    tokens.last().is_some_and(|t| is(t, word))
}

/// Whether a token is this word, in whatever case.
pub(super) fn is(token: &TokenWithSpan, word: &str) -> bool {
    matches!(&token.token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}

pub(super) fn place(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
