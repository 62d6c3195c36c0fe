//! SQL/JSON: `JSON_VALUE`, `JSON_QUERY`, `JSON_EXISTS` with paths like `$.a.b[0]`.
//!
//! Documents are walked as text: what is not on the path is not decoded, and numbers keep their digits.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBuilder, StringBuilder};
use arrow::datatypes::DataType;
use datafusion::common::{Result, exec_err};
use serde_json::value::RawValue;

use super::row::{Arg, Columns, RowFunction};

pub(super) fn functions() -> Vec<RowFunction> {
    let text = |_: &[DataType]| DataType::Utf8;
    vec![
        RowFunction {
            name: "json_value",
            args: &[Arg::Text; 6],
            n_required: 2,
            returns: text,
            compute: |columns| each_text(columns, value),
        },
        RowFunction {
            name: "json_query",
            args: &[Arg::Text; 5],
            n_required: 2,
            returns: text,
            compute: |columns| each_text(columns, query),
        },
        RowFunction {
            name: "json_exists",
            args: &[Arg::Text; 3],
            n_required: 2,
            returns: |_| DataType::Boolean,
            compute: exists,
        },
    ]
}

/// A step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Member(String),
    Element(usize),
    /// `[*]` and `.*`.
    All,
}

/// A path; the error says what is wrong with it.
fn parse_path(path: &str) -> std::result::Result<Vec<Step>, String> {
    let wrong = || format!("'{path}' is no JSON path like $.a.b[0]");
    let text = path.trim();
    let text = text.strip_prefix("lax ").or_else(|| text.strip_prefix("strict ")).unwrap_or(text).trim_start();
    let mut rest = text.strip_prefix('$').ok_or_else(wrong)?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            if let Some(quoted) = after.strip_prefix('"') {
                let end = quoted.find('"').ok_or_else(wrong)?;
                steps.push(Step::Member(quoted[..end].to_owned()));
                rest = &quoted[end + 1..];
                continue;
            }
            let end = after.find(['.', '[']).unwrap_or(after.len());
            steps.push(match after[..end].trim() {
                "" => return Err(wrong()),
                "*" => Step::All,
                name => Step::Member(name.to_owned()),
            });
            rest = &after[end..];
        } else if let Some(after) = rest.strip_prefix('[') {
            let end = after.find(']').ok_or_else(wrong)?;
            let inside = after[..end].trim();
            let quoted = inside.strip_prefix(['\'', '"']).and_then(|i| i.strip_suffix(['\'', '"']));
            steps.push(match (inside, quoted) {
                (_, Some(name)) => Step::Member(name.to_owned()),
                ("*", _) => Step::All,
                (number, _) => Step::Element(number.parse().map_err(|_| wrong())?),
            });
            rest = &after[end + 1..];
        } else {
            return Err(wrong());
        }
    }
    Ok(steps)
}

/// Everything a path leads to; `None` if the text is no JSON.
fn walk<'a>(text: &'a str, path: &[Step]) -> Option<Vec<&'a str>> {
    let mut found: Vec<&'a str> = vec![serde_json::from_str::<&RawValue>(text).ok()?.get()];
    for step in path {
        let mut next: Vec<&'a str> = Vec::new();
        for value in found {
            let members = || serde_json::from_str::<HashMap<String, &'a RawValue>>(value);
            let elements = || serde_json::from_str::<Vec<&'a RawValue>>(value);
            match step {
                Step::Member(name) if value.starts_with('{') => {
                    next.extend(members().ok()?.get(name).map(|v| v.get()));
                }
                // A member of an array means the member of each element, as in lax mode.
                Step::Member(name) if value.starts_with('[') => {
                    for element in elements().ok()?.into_iter().map(RawValue::get).filter(|e| e.starts_with('{')) {
                        let inner: HashMap<String, &'a RawValue> = serde_json::from_str(element).ok()?;
                        next.extend(inner.get(name).map(|v| v.get()));
                    }
                }
                Step::Element(at) if value.starts_with('[') => next.extend(elements().ok()?.get(*at).map(|v| v.get())),
                // A value is an array of itself, as in lax mode.
                Step::Element(0) => next.push(value),
                Step::All if value.starts_with('[') => next.extend(elements().ok()?.into_iter().map(RawValue::get)),
                Step::All if value.starts_with('{') => {
                    let members: serde_json::Map<String, serde_json::Value> = serde_json::from_str(value).ok()?;
                    let by_name: HashMap<String, &'a RawValue> = serde_json::from_str(value).ok()?;
                    next.extend(members.keys().filter_map(|name| by_name.get(name)).map(|v| v.get()));
                }
                _ => {}
            }
        }
        found = next;
    }
    Some(found)
}

/// A scalar as text; `Err` for an object or array.
fn scalar(json: &str) -> std::result::Result<Option<String>, String> {
    match json.as_bytes().first() {
        Some(b'"') => serde_json::from_str::<String>(json).map(Some).map_err(|e| e.to_string()),
        Some(b'{' | b'[') => Err("the path leads to an object or array; use JSON_QUERY".to_owned()),
        Some(b'n') => Ok(None),
        _ => Ok(Some(json.to_owned())),
    }
}

/// What a function found: something, nothing at the path, or that it cannot be done.
enum Outcome {
    Found(Option<String>),
    Empty,
    Failed(String),
}

/// The paths of a batch, parsed once each.
#[derive(Default)]
struct Paths(HashMap<String, std::result::Result<Vec<Step>, String>>);

impl Paths {
    fn of(&mut self, path: &str) -> Result<&[Step]> {
        if !self.0.contains_key(path) {
            self.0.insert(path.to_owned(), parse_path(path));
        }
        match self.0.get(path) {
            Some(Ok(steps)) => Ok(steps),
            Some(Err(why)) => exec_err!("{why}"),
            None => Ok(&[]),
        }
    }
}

/// Gives the text of one row.
type TextOf = fn(&Columns, usize, &str, &[Step]) -> Result<Option<String>>;

fn each_text(columns: &Columns, one: TextOf) -> Result<ArrayRef> {
    let mut out = StringBuilder::new();
    let mut paths = Paths::default();
    for row in 0..columns.n_rows() {
        match (columns.text(0, row), columns.text(1, row)) {
            (Some(text), Some(path)) => out.append_option(one(columns, row, text, paths.of(path)?)?),
            _ => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish()))
}

/// `(json, path, on empty, its default, on error, its default)`.
fn value(columns: &Columns, row: usize, text: &str, path: &[Step]) -> Result<Option<String>> {
    let outcome = match walk(text, path) {
        None => Outcome::Failed("the text is no JSON".to_owned()),
        Some(found) => match found.as_slice() {
            [] => Outcome::Empty,
            [one] => scalar(one).map_or_else(Outcome::Failed, Outcome::Found),
            _ => Outcome::Failed("the path leads to several values".to_owned()),
        },
    };
    let otherwise = |kind: usize, why: &str| match columns.text(kind, row) {
        Some("default") => Ok(columns.text(kind + 1, row).map(str::to_owned)),
        Some("error") => exec_err!("JSON_VALUE: {why}"),
        _ => Ok(None),
    };
    match outcome {
        Outcome::Found(value) => Ok(value),
        Outcome::Empty => otherwise(2, "nothing is at the path"),
        Outcome::Failed(why) => otherwise(4, &why),
    }
}

/// `(json, path, wrapper, on empty, on error)`.
fn query(columns: &Columns, row: usize, text: &str, path: &[Step]) -> Result<Option<String>> {
    let wrapper = columns.text(2, row).unwrap_or("without");
    let wrap = |found: &[&str]| format!("[{}]", found.iter().map(|f| compact(f)).collect::<Vec<_>>().join(","));
    let outcome = match walk(text, path) {
        None => Outcome::Failed("the text is no JSON".to_owned()),
        Some(found) => match (found.as_slice(), wrapper) {
            ([], _) => Outcome::Empty,
            (all, "with") => Outcome::Found(Some(wrap(all))),
            ([one], _) if one.starts_with(['{', '[']) => Outcome::Found(Some(compact(one))),
            (all, "conditional") => Outcome::Found(Some(wrap(all))),
            ([one], _) if *one == "null" => Outcome::Found(None),
            _ => Outcome::Failed("the path does not lead to one object or array; use a WRAPPER".to_owned()),
        },
    };
    let otherwise = |kind: usize, why: &str| match columns.text(kind, row) {
        Some("empty array") => Ok(Some("[]".to_owned())),
        Some("empty object") => Ok(Some("{}".to_owned())),
        Some("error") => exec_err!("JSON_QUERY: {why}"),
        _ => Ok(None),
    };
    match outcome {
        Outcome::Found(value) => Ok(value),
        Outcome::Empty => otherwise(3, "nothing is at the path"),
        Outcome::Failed(why) => otherwise(4, &why),
    }
}

fn exists(columns: &Columns) -> Result<ArrayRef> {
    let mut out = BooleanBuilder::new();
    let mut paths = Paths::default();
    for row in 0..columns.n_rows() {
        let (Some(text), Some(path)) = (columns.text(0, row), columns.text(1, row)) else {
            out.append_null();
            continue;
        };
        match (walk(text, paths.of(path)?), columns.text(2, row)) {
            (Some(found), _) => out.append_value(!found.is_empty()),
            (None, Some("true")) => out.append_value(true),
            (None, Some("unknown")) => out.append_null(),
            (None, Some("error")) => return exec_err!("JSON_EXISTS: the text is no JSON"),
            (None, _) => out.append_value(false),
        }
    }
    Ok(Arc::new(out.finish()))
}

/// JSON without the white space between its tokens.
pub(super) fn compact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut quoted, mut escaped) = (false, false);
    for c in json.chars() {
        if quoted {
            out.push(c);
            quoted = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else if !c.is_ascii_whitespace() {
            out.push(c);
            quoted = c == '"';
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, path: &str) -> String {
        match (parse_path(path), walk(text, &parse_path(path).unwrap_or_default())) {
            (Err(why), _) => why,
            (_, None) => "no JSON".to_owned(),
            (_, Some(all)) => all.join(" | "),
        }
    }

    #[test]
    fn paths() {
        let doc = r#"{"a": {"b": [10, {"c": "x"}], "d e": 1.10}, "n": null, "l": [{"v": 1}, {"v": 2}]}"#;
        assert_eq!(found(doc, "$.a.b[0]"), "10");
        assert_eq!(found(doc, "$.a.b[1].c"), "\"x\"");
        assert_eq!(found(doc, "$.a['d e']"), "1.10", "numbers keep their digits");
        assert_eq!(found(doc, "$.a.\"d e\""), "1.10");
        assert_eq!(found(doc, "lax $.l[*].v"), "1 | 2");
        assert_eq!(found(doc, "$.l.v"), "1 | 2");
        assert_eq!(found(doc, "$.n"), "null");
        assert_eq!(found(doc, "$.zzz.y"), "");
        assert_eq!(found(doc, "$.a.b[9]"), "");
        assert_eq!(found(doc, "a.b"), "'a.b' is no JSON path like $.a.b[0]");
        assert_eq!(found("{broken", "$"), "no JSON");
        assert_eq!(found("[1,2]", "$.*"), "1 | 2");
    }

    #[test]
    fn white_space_goes_only_between_tokens() {
        assert_eq!(compact("{ \"a b\" : [ 1 , \"x \\\" y\" ] }"), "{\"a b\":[1,\"x \\\" y\"]}");
    }
}
