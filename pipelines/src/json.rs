//! Rows as JSON, in the form that view topics carry: decimals as strings, so that no reader turns money into floats;
//! times in ISO 8601.

use std::fmt::Write as _;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::Bytes;
use chrono::DateTime;

/// Each row as a JSON object with the batch's columns in order.
pub(crate) fn rows(batch: &RecordBatch) -> Vec<Bytes> {
    let names: Vec<String> = batch.schema().fields().iter().map(|f| quoted(f.name())).collect();
    let mut out = Vec::with_capacity(batch.num_rows());
    let mut text = String::new();
    for row in 0..batch.num_rows() {
        text.clear();
        text.push('{');
        for (i, (name, column)) in names.iter().zip(batch.columns()).enumerate() {
            if i > 0 {
                text.push(',');
            }
            text.push_str(name);
            text.push(':');
            value(column, row, &mut text);
        }
        text.push('}');
        out.push(Bytes::copy_from_slice(text.as_bytes()));
    }
    out
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn push_quoted(text: &str, out: &mut String) {
    let plain = text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\');
    match plain {
        true => {
            out.push('"');
            out.push_str(text);
            out.push('"');
        }
        false => out.push_str(&quoted(text)),
    }
}

fn value(column: &ArrayRef, row: usize, out: &mut String) {
    if column.is_null(row) {
        out.push_str("null");
        return;
    }
    macro_rules! number {
        ($t:ty) => {{
            write!(out, "{}", column.as_primitive::<$t>().value(row)).expect("a String takes every text");
        }};
    }
    match column.data_type() {
        DataType::Boolean => out.push_str(if column.as_boolean().value(row) { "true" } else { "false" }),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Float32 => float(f64::from(column.as_primitive::<Float32Type>().value(row)), out),
        DataType::Float64 => float(column.as_primitive::<Float64Type>().value(row), out),
        DataType::Decimal128(_, scale) => decimal(column.as_primitive::<Decimal128Type>().value(row), *scale, out),
        DataType::Utf8 => push_quoted(column.as_string::<i32>().value(row), out),
        DataType::LargeUtf8 => push_quoted(column.as_string::<i64>().value(row), out),
        DataType::Utf8View => push_quoted(column.as_string_view().value(row), out),
        DataType::Date32 => match column.as_primitive::<Date32Type>().value_as_date(row) {
            Some(date) => push_quoted(&date.to_string(), out),
            None => out.push_str("null"),
        },
        DataType::Timestamp(unit, zone) => timestamp(column, row, *unit, zone.is_some(), out),
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            out.push('[');
            for i in 0..items.len() {
                if i > 0 {
                    out.push(',');
                }
                value(&items, i, out);
            }
            out.push(']');
        }
        _ => match ArrayFormatter::try_new(column, &FormatOptions::default()) {
            Ok(formatter) => push_quoted(&formatter.value(row).to_string(), out),
            Err(_) => out.push_str("null"),
        },
    }
}

fn float(number: f64, out: &mut String) {
    // JSON has no NaN and no infinities.
    match serde_json::Number::from_f64(number) {
        Some(n) => {
            write!(out, "{n}").expect("a String takes every text");
        }
        None => out.push_str("null"),
    }
}

fn decimal(unscaled: i128, scale: i8, out: &mut String) {
    let scale = usize::try_from(scale).unwrap_or(0);
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    out.push('"');
    if unscaled < 0 {
        out.push('-');
    }
    out.push_str(whole);
    if scale > 0 {
        out.push('.');
        out.push_str(fraction);
    }
    out.push('"');
}

fn timestamp(column: &ArrayRef, row: usize, unit: TimeUnit, zoned: bool, out: &mut String) {
    let time = match unit {
        TimeUnit::Second => DateTime::from_timestamp(column.as_primitive::<TimestampSecondType>().value(row), 0),
        TimeUnit::Millisecond => {
            DateTime::from_timestamp_millis(column.as_primitive::<TimestampMillisecondType>().value(row))
        }
        TimeUnit::Microsecond => {
            DateTime::from_timestamp_micros(column.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        TimeUnit::Nanosecond => {
            Some(DateTime::from_timestamp_nanos(column.as_primitive::<TimestampNanosecondType>().value(row)))
        }
    };
    match time {
        Some(time) => {
            let text = time.naive_utc().format("%Y-%m-%dT%H:%M:%S%.6f");
            write!(out, "\"{text}{}\"", if zoned { "Z" } else { "" }).expect("a String takes every text");
        }
        None => out.push_str("null"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Date32Array, Decimal128Array, Float64Array, StringArray, TimestampMicrosecondArray};
    use std::sync::Arc;

    #[test]
    fn money_is_exact_and_text_is_escaped() {
        let decimals = Decimal128Array::from(vec![Some(-5), Some(123_456), None]);
        let batch = RecordBatch::try_from_iter([
            ("d", Arc::new(decimals.with_precision_and_scale(20, 2).expect("fits")) as ArrayRef),
            ("s", Arc::new(StringArray::from(vec!["a\"b\n", "ü", ""])) as ArrayRef),
            ("f", Arc::new(Float64Array::from(vec![0.1, f64::NAN, 3.0])) as ArrayRef),
            ("on", Arc::new(Date32Array::from(vec![20_325, -1, 0])) as ArrayRef),
            ("at", Arc::new(TimestampMicrosecondArray::from(vec![-1, 0, 1]).with_timezone("UTC")) as ArrayRef),
        ])
        .expect("same lengths");
        let text: Vec<String> = rows(&batch).iter().map(|b| String::from_utf8_lossy(b).into_owned()).collect();
        expect_test::expect![[r#"
            {"d":"-0.05","s":"a\"b\n","f":0.1,"on":"2025-08-25","at":"1969-12-31T23:59:59.999999Z"}
            {"d":"1234.56","s":"ü","f":null,"on":"1969-12-31","at":"1970-01-01T00:00:00.000000Z"}
            {"d":null,"s":"","f":3.0,"on":"1970-01-01","at":"1970-01-01T00:00:00.000001Z"}
        "#]]
        .assert_eq(&(text.join("\n") + "\n"));
    }
}
