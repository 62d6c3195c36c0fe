//! `JSON_OBJECT([KEY] k VALUE v, … [{NULL | ABSENT} ON NULL])` and `JSON_ARRAY(v, … [{NULL | ABSENT} ON NULL])` as plain calls of
//! [`OBJECT`] and [`ARRAY`]. A key and its value may also stand with a colon or a comma between them.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::functions::json_text::{ABSENT, ARRAY, OBJECT};
use super::refusal::Refusal;
use super::tokens::{after_closing, are_words, at_place_of, is_word, word};

const USAGE: &str = "write JSON_OBJECT('name' VALUE x, … NULL ON NULL) or JSON_ARRAY(x, … ABSENT ON NULL)";
/// Functions whose results are JSON already.
const MAKE_JSON: [&str; 3] = ["JSON_OBJECT", "JSON_ARRAY", "JSON_QUERY"];

/// The call in place of a constructor at `at`, and the index behind the constructor.
pub(super) fn constructor(tokens: &[TokenWithSpan], at: usize) -> Result<Option<(Vec<TokenWithSpan>, usize)>, Refusal> {
    let is_object = is_word(tokens.get(at), "JSON_OBJECT");
    let opens = tokens.get(at + 1).is_some_and(|t| t.token == Token::LParen);
    if !opens || !(is_object || is_word(tokens.get(at), "JSON_ARRAY")) {
        return Ok(None);
    }
    let (place, end) = (&tokens[at], after_closing(tokens, at + 1));
    let mut inside = &tokens[at + 2..end.saturating_sub(1).max(at + 2)];
    let mut leaves_out = !is_object;
    for (words, absent) in [(["NULL", "ON", "NULL"], false), (["ABSENT", "ON", "NULL"], true)] {
        if let Some(before) = inside.len().checked_sub(3)
            && are_words(&inside[before..], &words)
        {
            (inside, leaves_out) = (&inside[..before], absent);
        }
    }
    let on_null = if leaves_out { ABSENT } else { "null" };
    let mut out = vec![at_place_of(word(if is_object { OBJECT } else { ARRAY }), place)];
    out.push(at_place_of(Token::LParen, place));
    out.push(at_place_of(Token::SingleQuotedString(on_null.to_owned()), place));
    let mut parts = split(inside, |t| t.token == Token::Comma).into_iter();
    while let Some(part) = parts.next() {
        let (key, value) = if is_object { key_and_value(part, &mut parts, place)? } else { (None, part) };
        let (value, is_json) = as_json(value);
        if value.is_empty() {
            return Err(Refusal::new(place.span, "a value is missing", USAGE));
        }
        let kind = if is_json { "json" } else { "value" };
        let flag = at_place_of(Token::SingleQuotedString(kind.to_owned()), place);
        for piece in [Some(&[flag][..]), key, Some(value)].into_iter().flatten() {
            out.push(at_place_of(Token::Comma, place));
            out.extend_from_slice(piece);
        }
    }
    out.push(at_place_of(Token::RParen, place));
    Ok(Some((out, end)))
}

/// `[KEY] k VALUE v`, `k : v`, or a key whose value is the next part.
fn key_and_value<'a>(
    part: &'a [TokenWithSpan],
    rest: &mut impl Iterator<Item = &'a [TokenWithSpan]>,
    place: &TokenWithSpan,
) -> Result<(Option<&'a [TokenWithSpan]>, &'a [TokenWithSpan]), Refusal> {
    let between = |t: &TokenWithSpan| t.token == Token::Colon || is_word(Some(t), "VALUE");
    match split(part, between).as_slice() {
        [key, value] => {
            let key = if key.len() > 1 && is_word(key.first(), "KEY") { &key[1..] } else { key };
            Ok((Some(key), value))
        }
        [key] => match rest.next() {
            Some(value) => Ok((Some(key), value)),
            None => Err(Refusal::new(part.first().unwrap_or(place).span, "a key without a value", USAGE)),
        },
        _ => Err(Refusal::new(part.first().unwrap_or(place).span, "a key and a value are wanted here", USAGE)),
    }
}

/// A value without `FORMAT JSON`, and whether it is JSON already.
fn as_json(value: &[TokenWithSpan]) -> (&[TokenWithSpan], bool) {
    if let Some(before) = value.len().checked_sub(2)
        && are_words(&value[before..], &["FORMAT", "JSON"])
    {
        return (&value[..before], true);
    }
    let is_call = MAKE_JSON.iter().any(|f| is_word(value.first(), f)) && after_closing(value, 1) == value.len();
    (value, is_call)
}

/// The parts between tokens that stand outside of all parentheses and brackets; none of nothing.
fn split(tokens: &[TokenWithSpan], at: impl Fn(&TokenWithSpan) -> bool) -> Vec<&[TokenWithSpan]> {
    if tokens.is_empty() {
        return Vec::new();
    }
    let mut depth = 0_usize;
    let is_between = |token: &TokenWithSpan| {
        match token.token {
            Token::LParen | Token::LBracket => depth += 1,
            Token::RParen | Token::RBracket => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && at(token)
    };
    tokens.split(is_between).collect()
}
