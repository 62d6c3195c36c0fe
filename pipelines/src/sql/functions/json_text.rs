//! JSON that is taken apart by `->` and `->>`, looked at by `IS JSON`, and made by `JSON_OBJECT` and `JSON_ARRAY`.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanBuilder, StringBuilder};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use serde_json::value::RawValue;

use super::json::compact;
use super::row::{Arg, Columns, RowFunction};

/// What `->` and `->>` are planned as.
pub(crate) const GET: &str = "json_get";
pub(crate) const GET_TEXT: &str = "json_get_text";
/// What `IS JSON` is parsed as: `(text, kind)`.
pub(crate) const IS: &str = "json_is";
/// What the constructors are parsed as: `(on null, is JSON, key, value, …)` and `(on null, is JSON, value, …)`.
pub(crate) const OBJECT: &str = "json_make_object";
pub(crate) const ARRAY: &str = "json_make_array";
/// The answer to `on null` that leaves NULLs out.
pub(crate) const ABSENT: &str = "absent";

pub(super) fn functions() -> Vec<RowFunction> {
    let get = |name, compute| RowFunction {
        name,
        args: &[Arg::Text, Arg::Any],
        n_required: 2,
        returns: |_| DataType::Utf8,
        compute,
    };
    vec![
        get(GET, |columns| members(columns, |json| Some(compact(json)))),
        get(GET_TEXT, |columns| members(columns, as_text)),
        RowFunction {
            name: IS,
            args: &[Arg::Text, Arg::Text],
            n_required: 2,
            returns: |_| DataType::Boolean,
            compute: is_json,
        },
    ]
}

/// The functions over values of any type.
pub(super) fn constructors() -> [ScalarUDF; 2] {
    [OBJECT, ARRAY]
        .map(|name| ScalarUDF::from(Made { name, signature: Signature::variadic_any(Volatility::Immutable) }))
}

/// `->` and `->>` as functions.
pub(crate) fn getters() -> [Arc<ScalarUDF>; 2] {
    let find = |name: &str| functions().into_iter().find(|f| f.name == name).map(RowFunction::into_udf);
    [GET, GET_TEXT].map(|name| Arc::new(find(name).unwrap_or_else(super::one_row::function)))
}

/// A member by name, or an element by its place: from the end if that is negative.
fn members(columns: &Columns, shown: fn(&str) -> Option<String>) -> Result<ArrayRef> {
    let mut out = StringBuilder::new();
    let by_place = columns.column(1).is_some_and(|c| *c.data_type() == DataType::Int64);
    for row in 0..columns.n_rows() {
        let found = columns.text(0, row).and_then(|text| {
            let json = text.trim_start();
            if by_place {
                let elements: Vec<&RawValue> = serde_json::from_str(json).ok()?;
                let at = columns.int(1, row)?;
                let back = usize::try_from(at.unsigned_abs()).ok()?;
                let at = if at < 0 { elements.len().checked_sub(back)? } else { back };
                elements.get(at).and_then(|e| shown(e.get()))
            } else {
                let members: HashMap<String, &RawValue> = serde_json::from_str(json).ok()?;
                members.get(columns.text(1, row)?).and_then(|m| shown(m.get()))
            }
        });
        out.append_option(found);
    }
    Ok(Arc::new(out.finish()))
}

/// A text without its quotes, NULL for null, anything else as it is.
fn as_text(json: &str) -> Option<String> {
    match json.as_bytes().first() {
        Some(b'"') => serde_json::from_str(json).ok(),
        Some(b'n') => None,
        _ => Some(compact(json)),
    }
}

fn is_json(columns: &Columns) -> Result<ArrayRef> {
    let mut out = BooleanBuilder::new();
    for row in 0..columns.n_rows() {
        out.append_option(columns.text(0, row).map(|text| {
            let first = text.trim_start().bytes().next();
            serde_json::from_str::<&RawValue>(text).is_ok()
                && match columns.text(1, row) {
                    Some("object") => first == Some(b'{'),
                    Some("array") => first == Some(b'['),
                    Some("scalar") => !matches!(first, Some(b'{' | b'[')),
                    _ => true,
                }
        }));
    }
    Ok(Arc::new(out.finish()))
}

/// `JSON_OBJECT` or `JSON_ARRAY`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Made {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for Made {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let text_of = |value: Option<&ColumnarValue>| match value {
            Some(ColumnarValue::Scalar(ScalarValue::Utf8(Some(text)))) => Some(text.clone()),
            _ => None,
        };
        let leaves_out = text_of(args.args.first()).is_some_and(|on_null| on_null == ABSENT);
        let is_object = self.name == OBJECT;
        let arrays = args.args.iter().map(|a| a.to_array(args.number_rows)).collect::<Result<Vec<_>>>()?;
        let mut parts = Vec::new();
        for (i, part) in arrays[1..].chunks(if is_object { 3 } else { 2 }).enumerate() {
            let width = part.len();
            let Some(value) = part.last() else { continue };
            let is_raw = text_of(args.args.get(1 + i * width)).is_some_and(|kind| kind == "json");
            parts.push(Part {
                key: if is_object { Some(Cells::of(&part[1], false)?) } else { None },
                value: Cells::of(value, is_raw)?,
            });
        }
        let mut out = StringBuilder::new();
        let (open, close) = if is_object { ('{', '}') } else { ('[', ']') };
        for row in 0..args.number_rows {
            let mut text = String::from(open);
            for part in &parts {
                if leaves_out && part.value.is_null(row) {
                    continue;
                }
                if text.len() > 1 {
                    text.push(',');
                }
                if let Some(key) = &part.key {
                    if key.is_null(row) {
                        return plan_err!("a key of JSON_OBJECT is NULL");
                    }
                    text.push_str(&quoted(&key.text(row)));
                    text.push(':');
                }
                part.value.write(row, &mut text);
            }
            text.push(close);
            out.append_value(text);
        }
        Ok(ColumnarValue::Array(Arc::new(out.finish())))
    }
}

struct Part<'a> {
    key: Option<Cells<'a>>,
    value: Cells<'a>,
}

/// The values of a column as JSON.
struct Cells<'a> {
    column: &'a ArrayRef,
    formatter: ArrayFormatter<'a>,
    is_raw: bool,
    is_bare: bool,
}

impl<'a> Cells<'a> {
    fn of(column: &'a ArrayRef, is_raw: bool) -> Result<Self> {
        const OPTIONS: FormatOptions<'static> = FormatOptions::new();
        let is_bare = column.data_type().is_numeric() || *column.data_type() == DataType::Boolean;
        Ok(Self { column, formatter: ArrayFormatter::try_new(column, &OPTIONS)?, is_raw, is_bare })
    }

    fn is_null(&self, row: usize) -> bool {
        self.column.is_null(row)
    }

    fn text(&self, row: usize) -> String {
        self.formatter.value(row).to_string()
    }

    fn write(&self, row: usize, out: &mut String) {
        if self.is_null(row) {
            return out.push_str("null");
        }
        let text = self.text(row);
        let is_number = self.is_bare && !matches!(text.as_str(), "NaN" | "inf" | "-inf");
        match (is_number, self.is_raw) {
            (true, _) => out.push_str(&text),
            (false, true) => out.push_str(&compact(&text)),
            (false, false) => out.push_str(&quoted(&text)),
        }
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
