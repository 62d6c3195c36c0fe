//! What Flink writes and the parser does not know, turned in the token stream into what it knows.
//!
//! Tokens keep their places, so messages of the parser and of the planner still point at the text as written:
//! - `f(TABLE t …)`: the keyword is dropped;
//! - `SESSION(TABLE t PARTITION BY k, …)`: the keys become an argument, [`PARTITION_KEYS`]`(k)`;
//! - `t FOR SYSTEM_TIME AS OF x.ts`: becomes `t(`[`SYSTEM_TIME`]` => x.ts)`;
//! - `x BETWEEN SYMMETRIC a AND b`: becomes `x BETWEEN `[`SYMMETRIC`]` || a AND b`;
//! - `EXCLUDE NO OTHERS` of a window's frame, which means nothing, is dropped; the other kinds are refused;
//! - `EMIT ON WINDOW CLOSE` at the end is taken off and remembered;
//! - the clauses of JSON functions become arguments, see [`super::json_clauses`].

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan, Tokenizer, Word};

use super::declared::Declared;
use super::json_clauses;

use super::refusal::Refusal;

/// Stands for the `PARTITION BY` of a window function's table.
pub(super) const PARTITION_KEYS: &str = "andon_partition_keys";
/// Names the argument that stands for `FOR SYSTEM_TIME AS OF`.
pub(super) const SYSTEM_TIME: &str = "andon_system_time";
/// The text that marks a lower bound as symmetric.
pub(super) const SYMMETRIC: &str = "andon symmetric";

/// A statement's tokens, ready for the parser.
#[derive(Debug)]
pub(super) struct Prepared {
    /// Without white space and comments.
    pub(super) tokens: Vec<TokenWithSpan>,
    /// Where `EMIT ON WINDOW CLOSE` stood.
    pub(super) emit_on_window_close: Option<Span>,
}

/// Tokenizes a statement and takes Flink's own syntax out of it.
pub(super) fn prepare(sql: &str, declared: &Declared) -> Result<Prepared, Refusal> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location().map_err(|e| {
        let at = Span::new(e.location, e.location);
        Refusal::new(at, e.message, "")
    })?;
    let mut tokens: Vec<TokenWithSpan> =
        tokens.into_iter().filter(|t| !matches!(t.token, Token::Whitespace(_) | Token::EOF)).collect();
    while tokens.last().is_some_and(|t| t.token == Token::SemiColon) {
        tokens.pop();
    }
    declared.quote(&mut tokens);
    let emit_on_window_close = take_emit(&mut tokens)?;
    let tokens = without_table_keyword(tokens);
    let tokens = with_system_time(tokens)?;
    let tokens = with_symmetric(tokens);
    let tokens = without_exclude(tokens)?;
    let tokens = json_clauses::rewrite(tokens)?;
    Ok(Prepared { tokens, emit_on_window_close })
}

/// Whether a token is this word, unquoted, in any case.
pub(super) fn is_word(token: Option<&TokenWithSpan>, word: &str) -> bool {
    matches!(token.map(|t| &t.token), Some(Token::Word(w)) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}

pub(super) fn are_words(tokens: &[TokenWithSpan], words: &[&str]) -> bool {
    tokens.len() >= words.len() && words.iter().zip(tokens).all(|(w, t)| is_word(Some(t), w))
}

/// A token of our own at the place of another.
pub(super) fn at_place_of(token: Token, place: &TokenWithSpan) -> TokenWithSpan {
    TokenWithSpan::new(token, place.span)
}

/// An unquoted word that is no keyword.
pub(super) fn word(name: &str) -> Token {
    Token::Word(Word { value: name.to_owned(), quote_style: None, keyword: Keyword::NoKeyword })
}

/// Index after the parenthesis that closes the one at `open`; the end if none does.
pub(super) fn after_closing(tokens: &[TokenWithSpan], open: usize) -> usize {
    let mut depth = 0_usize;
    for (i, token) in tokens.iter().enumerate().skip(open) {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => {
                depth -= 1;
                if depth == 0 {
                    return i + 1;
                }
            }
            _ => {}
        }
    }
    tokens.len()
}

fn take_emit(tokens: &mut Vec<TokenWithSpan>) -> Result<Option<Span>, Refusal> {
    const HELP: &str =
        "write EMIT ON WINDOW CLOSE after the SELECT, or leave it out: then results are updated as they change";
    let next_is = |i: usize| ["ON", "CHANGES", "AFTER", "FINAL"].iter().any(|w| is_word(tokens.get(i + 1), w));
    let Some(at) = (0..tokens.len()).find(|i| is_word(tokens.get(*i), "EMIT") && next_is(*i)) else {
        return Ok(None);
    };
    let span = tokens[at].span;
    if !are_words(&tokens[at..], &["EMIT", "ON", "WINDOW", "CLOSE"]) {
        return Err(Refusal::new(span, "this EMIT clause is not understood", HELP));
    }
    if let Some(rest) = tokens.get(at + 4) {
        return Err(Refusal::new(rest.span, format!("expected the end of the statement, found: {rest}"), HELP));
    }
    tokens.truncate(at);
    Ok(Some(span))
}

/// Index after the dotted name at `at`; `at` itself if there is none.
fn after_name(tokens: &[TokenWithSpan], at: usize) -> usize {
    let is_name = |i: usize| matches!(tokens.get(i).map(|t| &t.token), Some(Token::Word(_)));
    if !is_name(at) {
        return at;
    }
    let mut end = at + 1;
    while tokens.get(end).is_some_and(|t| t.token == Token::Period) && is_name(end + 1) {
        end += 2;
    }
    end
}

fn without_table_keyword(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        let opens = out.last().is_some_and(|t| matches!(t.token, Token::LParen | Token::Comma | Token::RArrow));
        let end = after_name(&tokens, at + 1);
        if !(opens && is_word(tokens.get(at), "TABLE") && end > at + 1) {
            out.push(tokens[at].clone());
            at += 1;
            continue;
        }
        out.extend_from_slice(&tokens[at + 1..end]);
        at = end;
        if are_words(&tokens[at..], &["PARTITION", "BY"]) {
            let place = tokens[at].clone();
            let keys = after_keys(&tokens, at + 2);
            out.extend([Token::Comma, word(PARTITION_KEYS), Token::LParen].map(|t| at_place_of(t, &place)));
            let listed = &tokens[at + 2..keys];
            match listed.first().map(|t| &t.token) {
                Some(Token::LParen) => out.extend_from_slice(&listed[1..]),
                _ => {
                    out.extend_from_slice(listed);
                    out.push(at_place_of(Token::RParen, &place));
                }
            }
            at = keys;
        }
    }
    out
}

/// Index after the partition keys: a list in parentheses, or names until the next argument begins.
fn after_keys(tokens: &[TokenWithSpan], at: usize) -> usize {
    if tokens.get(at).is_some_and(|t| t.token == Token::LParen) {
        return after_closing(tokens, at);
    }
    let mut end = after_name(tokens, at);
    while tokens.get(end).is_some_and(|t| t.token == Token::Comma) {
        let next = after_name(tokens, end + 1);
        let is_key = next > end + 1
            && !matches!(tokens.get(next).map(|t| &t.token), Some(Token::LParen | Token::RArrow))
            && !is_word(tokens.get(end + 1), "INTERVAL");
        if !is_key {
            break;
        }
        end = next;
    }
    end
}

fn with_system_time(tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>, Refusal> {
    const HELP: &str = "write JOIN t FOR SYSTEM_TIME AS OF x.event_time AS t ON …";
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        if !are_words(&tokens[at..], &["FOR", "SYSTEM_TIME", "AS", "OF"]) {
            out.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let place = tokens[at].clone();
        let start = at + 4;
        let mut end = after_name(&tokens, start);
        if end > start && tokens.get(end).is_some_and(|t| t.token == Token::LParen) {
            end = after_closing(&tokens, end);
        }
        let ends_well = match tokens.get(end).map(|t| &t.token) {
            None | Some(Token::Word(_) | Token::Comma | Token::RParen) => end > start,
            _ => false,
        };
        if !ends_well {
            let span = tokens.get(start).map_or(place.span, |t| t.span);
            return Err(Refusal::new(span, "FOR SYSTEM_TIME AS OF wants a time column of the other side", HELP));
        }
        out.extend([Token::LParen, word(SYSTEM_TIME), Token::RArrow].map(|t| at_place_of(t, &place)));
        out.extend_from_slice(&tokens[start..end]);
        out.push(at_place_of(Token::RParen, &place));
        at = end;
    }
    Ok(out)
}

fn without_exclude(tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>, Refusal> {
    const KINDS: [&[&str]; 4] = [&["NO", "OTHERS"], &["CURRENT", "ROW"], &["GROUP"], &["TIES"]];
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        let ends_frame =
            is_word(out.last(), "ROW") || is_word(out.last(), "PRECEDING") || is_word(out.last(), "FOLLOWING");
        let is_exclude = ends_frame && is_word(tokens.get(at), "EXCLUDE");
        let kind = KINDS.iter().position(|kind| is_exclude && are_words(&tokens[at + 1..], kind));
        match kind {
            Some(0) => at += 3,
            Some(kind) => {
                let help = match kind {
                    1 => "for SUM and COUNT subtract the row's own value; else write a subquery with <> on the key",
                    _ => "write a subquery that leaves out the rows of the same order, (SELECT … WHERE p.x <> t.x)",
                };
                let message = format!("EXCLUDE {} is not supported", KINDS[kind].join(" "));
                return Err(Refusal::new(tokens[at].span, message, help));
            }
            None => {
                out.push(tokens[at].clone());
                at += 1;
            }
        }
    }
    Ok(out)
}

fn with_symmetric(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    for token in tokens {
        let after_between = is_word(out.last(), "BETWEEN");
        if after_between && is_word(Some(&token), "SYMMETRIC") {
            out.push(at_place_of(Token::SingleQuotedString(SYMMETRIC.to_owned()), &token));
            out.push(at_place_of(Token::StringConcat, &token));
        } else if !(after_between && is_word(Some(&token), "ASYMMETRIC")) {
            out.push(token);
        }
    }
    out
}
