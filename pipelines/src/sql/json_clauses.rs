//! The clauses of SQL/JSON functions as plain arguments.
//!
//! `JSON_VALUE(j, p RETURNING t DEFAULT x ON EMPTY ERROR ON ERROR)` becomes
//! `TRY_CAST(json_value(j, p, 'default', x, 'error', NULL) AS t)`, `JSON_QUERY(j, p WITH WRAPPER)` becomes
//! `json_query(j, p, 'with', 'null', 'null')`, and `JSON_EXISTS(j, p FALSE ON ERROR)` becomes `json_exists(j, p, 'false')`.
//! The constructors are in [`super::json_constructors`].

use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan};

use super::json_constructors::constructor;
use super::refusal::Refusal;
use super::tokens::{after_closing, are_words, at_place_of, is_word, word};

/// Words with which a clause begins.
const CLAUSE_WORDS: [&str; 9] = ["RETURNING", "NULL", "ERROR", "DEFAULT", "EMPTY", "WITH", "WITHOUT", "TRUE", "FALSE"];

/// Rewrites every JSON function of the statement, inner ones too.
pub(super) fn rewrite(tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>, Refusal> {
    let mut out = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        let name = ["JSON_VALUE", "JSON_QUERY", "JSON_EXISTS"].into_iter().find(|n| is_word(tokens.get(at), n));
        match name {
            Some(name) if tokens.get(at + 1).is_some_and(|t| t.token == Token::LParen) => {
                let end = after_closing(&tokens, at + 1);
                out.extend(call(name, &tokens[at], &tokens[at + 2..end.saturating_sub(1)])?);
                at = end;
            }
            _ => {
                let made = constructor(&tokens, at)?;
                match made {
                    Some((made, end)) => {
                        out.extend(rewrite(made)?);
                        at = end;
                    }
                    None => {
                        out.push(tokens[at].clone());
                        at += 1;
                    }
                }
            }
        }
    }
    Ok(out)
}

/// `inside`: what stands between the parentheses.
fn call(name: &str, place: &TokenWithSpan, inside: &[TokenWithSpan]) -> Result<Vec<TokenWithSpan>, Refusal> {
    let split = clauses_start(inside);
    let clauses = Clauses::parse(&inside[split..], place.span)?;
    let mut out = Vec::new();
    let push = |out: &mut Vec<TokenWithSpan>, token: Token| out.push(at_place_of(token, place));
    let cast = clauses.returning.as_ref().filter(|_| name == "JSON_VALUE");
    if cast.is_some() {
        push(&mut out, word("TRY_CAST"));
        push(&mut out, Token::LParen);
    }
    push(&mut out, word(&name.to_lowercase()));
    push(&mut out, Token::LParen);
    out.extend(rewrite(inside[..split].to_vec())?);
    let arguments = match name {
        "JSON_VALUE" if clauses.is_plain() => Vec::new(),
        "JSON_VALUE" => vec![
            text(clauses.on_empty.kind),
            clauses.on_empty.default.clone(),
            text(clauses.on_error.kind),
            clauses.on_error.default.clone(),
        ],
        "JSON_QUERY" => {
            vec![text(clauses.wrapper), text(clauses.on_empty.kind), text(clauses.on_error.kind)]
        }
        _ if clauses.on_error.kind == "null" => Vec::new(),
        _ => vec![text(clauses.on_error.kind)],
    };
    for argument in arguments {
        push(&mut out, Token::Comma);
        for token in argument {
            push(&mut out, token);
        }
    }
    push(&mut out, Token::RParen);
    if let Some(data_type) = cast {
        push(&mut out, word("AS"));
        out.extend(data_type.iter().cloned());
        push(&mut out, Token::RParen);
    }
    for token in &mut out {
        as_keyword(&mut token.token);
    }
    Ok(out)
}

/// `AS` and `TRY_CAST` must be keywords to the parser.
fn as_keyword(token: &mut Token) {
    if let Token::Word(w) = token
        && w.quote_style.is_none()
    {
        *token = Token::make_keyword(&w.value);
    }
}

fn text(text: &str) -> Vec<Token> {
    vec![Token::SingleQuotedString(text.to_owned())]
}

/// Index of the first clause word at the outer level, after the second argument began.
fn clauses_start(inside: &[TokenWithSpan]) -> usize {
    let mut depth = 0_usize;
    let mut n_commas = 0;
    let mut last_comma = 0;
    for (i, token) in inside.iter().enumerate() {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            Token::Comma if depth == 0 => {
                n_commas += 1;
                last_comma = i;
            }
            _ => {}
        }
        let begins = depth == 0 && n_commas > 0 && i > last_comma + 1;
        if begins && CLAUSE_WORDS.iter().any(|w| is_word(Some(token), w)) {
            return i;
        }
    }
    inside.len()
}

struct Otherwise {
    kind: &'static str,
    default: Vec<Token>,
}

impl Otherwise {
    fn null() -> Self {
        Self { kind: "null", default: vec![Token::make_keyword("NULL")] }
    }
}

struct Clauses {
    returning: Option<Vec<TokenWithSpan>>,
    wrapper: &'static str,
    on_empty: Otherwise,
    on_error: Otherwise,
}

impl Clauses {
    fn is_plain(&self) -> bool {
        self.on_empty.kind == "null" && self.on_error.kind == "null"
    }

    fn parse(mut rest: &[TokenWithSpan], place: Span) -> Result<Self, Refusal> {
        let mut clauses =
            Self { returning: None, wrapper: "without", on_empty: Otherwise::null(), on_error: Otherwise::null() };
        while let Some(first) = rest.first() {
            let refuse = || {
                Refusal::new(
                    first.span,
                    format!("this clause of a JSON function is not understood, found: {first}"),
                    "the clauses are RETURNING type, {NULL | ERROR | DEFAULT value} ON {EMPTY | ERROR}, \
                     and for JSON_QUERY {WITHOUT | WITH [CONDITIONAL | UNCONDITIONAL]} [ARRAY] WRAPPER",
                )
            };
            if is_word(Some(first), "RETURNING") {
                let end = 1 + rest[1..].iter().position(starts_clause).unwrap_or(rest.len() - 1);
                clauses.returning = Some(rest[1..end].to_vec());
                rest = &rest[end..];
            } else if is_word(Some(first), "WITH") || is_word(Some(first), "WITHOUT") {
                let (kind, n) = wrapper(rest).ok_or_else(refuse)?;
                clauses.wrapper = kind;
                rest = &rest[n..];
            } else {
                let on = rest.iter().position(|t| is_word(Some(t), "ON")).ok_or_else(refuse)?;
                let otherwise = otherwise(&rest[..on]).ok_or_else(refuse)?;
                match rest.get(on + 1) {
                    t if is_word(t, "EMPTY") => clauses.on_empty = otherwise,
                    t if is_word(t, "ERROR") => clauses.on_error = otherwise,
                    t => {
                        let span = t.map_or(place, |t| t.span);
                        return Err(Refusal::new(span, "expected EMPTY or ERROR after ON", ""));
                    }
                }
                rest = &rest[on + 2..];
            }
        }
        Ok(clauses)
    }
}

fn starts_clause(token: &TokenWithSpan) -> bool {
    CLAUSE_WORDS.iter().any(|w| is_word(Some(token), w))
}

fn wrapper(rest: &[TokenWithSpan]) -> Option<(&'static str, usize)> {
    [
        (&["WITHOUT", "ARRAY", "WRAPPER"][..], "without"),
        (&["WITHOUT", "WRAPPER"], "without"),
        (&["WITH", "CONDITIONAL", "ARRAY", "WRAPPER"], "conditional"),
        (&["WITH", "CONDITIONAL", "WRAPPER"], "conditional"),
        (&["WITH", "UNCONDITIONAL", "ARRAY", "WRAPPER"], "with"),
        (&["WITH", "UNCONDITIONAL", "WRAPPER"], "with"),
        (&["WITH", "ARRAY", "WRAPPER"], "with"),
        (&["WITH", "WRAPPER"], "with"),
    ]
    .into_iter()
    .find(|(words, _)| are_words(rest, words))
    .map(|(words, kind)| (kind, words.len()))
}

/// What stands before `ON EMPTY` or `ON ERROR`.
fn otherwise(words: &[TokenWithSpan]) -> Option<Otherwise> {
    let one = |kind| Some(Otherwise { kind, ..Otherwise::null() });
    if is_word(words.first(), "DEFAULT") && words.len() > 1 {
        let default = words[1..].iter().map(|t| t.token.clone()).collect();
        return Some(Otherwise { kind: "default", default });
    }
    match words {
        w if w.len() == 1 && is_word(w.first(), "NULL") => one("null"),
        w if w.len() == 1 && is_word(w.first(), "ERROR") => one("error"),
        w if w.len() == 1 && is_word(w.first(), "TRUE") => one("true"),
        w if w.len() == 1 && is_word(w.first(), "FALSE") => one("false"),
        w if w.len() == 1 && is_word(w.first(), "UNKNOWN") => one("unknown"),
        w if are_words(w, &["EMPTY", "ARRAY"]) => one("empty array"),
        w if are_words(w, &["EMPTY", "OBJECT"]) => one("empty object"),
        _ => None,
    }
}
