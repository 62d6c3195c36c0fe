//! Text functions with Flink's meaning.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringBuilder};
use arrow::datatypes::DataType;
use datafusion::common::Result;
use regex::Regex;

use super::row::{Arg, Columns, RowFunction};

pub(super) fn functions() -> Vec<RowFunction> {
    let text = |_: &[DataType]| DataType::Utf8;
    vec![
        RowFunction {
            name: "split_index",
            args: &[Arg::Text, Arg::Text, Arg::Int],
            n_required: 3,
            returns: text,
            compute: |columns| {
                texts(columns, |row| split_index(columns.text(0, row)?, columns.text(1, row)?, columns.int(2, row)?))
            },
        },
        RowFunction {
            name: "regexp_extract",
            args: &[Arg::Text, Arg::Text, Arg::Int],
            n_required: 2,
            returns: text,
            compute: regexp_extract,
        },
    ]
}

/// A column of texts, made row by row.
pub(super) fn texts<T: AsRef<str>>(columns: &Columns, one: impl Fn(usize) -> Option<T>) -> Result<ArrayRef> {
    let mut out = StringBuilder::new();
    for row in 0..columns.n_rows() {
        out.append_option(one(row));
    }
    Ok(Arc::new(out.finish()))
}

/// The part at `at`, counted from 0; NULL beyond the last. An empty delimiter or a negative place has no part.
fn split_index<'a>(text: &'a str, delimiter: &str, at: i64) -> Option<&'a str> {
    if delimiter.is_empty() {
        return None;
    }
    text.split(delimiter).nth(usize::try_from(at).ok()?)
}

/// The group of the first match; NULL if nothing matches, the pattern is wrong, or there is no such group.
fn regexp_extract(columns: &Columns) -> Result<ArrayRef> {
    let mut out = StringBuilder::new();
    let mut last: Option<(String, Option<Regex>)> = None;
    for row in 0..columns.n_rows() {
        let group = match columns.column(2) {
            Some(_) => columns.int(2, row),
            None => Some(0),
        };
        let found = (|| {
            let (text, pattern, group) = (columns.text(0, row)?, columns.text(1, row)?, group?);
            if last.as_ref().is_none_or(|(known, _)| known != pattern) {
                last = Some((pattern.to_owned(), Regex::new(pattern).ok()));
            }
            let regex = last.as_ref()?.1.as_ref()?;
            Some(regex.captures(text)?.get(usize::try_from(group).ok()?)?.as_str())
        })();
        out.append_option(found);
    }
    Ok(Arc::new(out.finish()))
}

#[cfg(test)]
mod tests {
    use super::split_index;

    #[test]
    fn split_counts_from_zero() {
        assert_eq!(split_index("a,b,,c", ",", 0), Some("a"));
        assert_eq!(split_index("a,b,,c", ",", 2), Some(""));
        assert_eq!(split_index("a,b,,c", ",", 4), None);
        assert_eq!(split_index("a,b", ",", -1), None);
        assert_eq!(split_index("a,b", "", 0), None);
    }
}
