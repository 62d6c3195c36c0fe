//! Rows as JSON, in the form that view topics carry: decimals as strings, so that no reader turns money into floats;
//! times in ISO 8601.

use std::fmt::Write as _;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Decimal128Array, Int64Array, LargeStringArray, ListArray,
    RecordBatch, StringArray, StringViewArray, UInt64Array,
};
use arrow::datatypes::{
    DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::Bytes;

/// Each row as a JSON object with the batch's columns in order. The rows share one buffer.
pub(crate) fn rows(batch: &RecordBatch) -> Vec<Bytes> {
    let schema = batch.schema();
    let columns: Vec<(String, Cells<'_>)> = schema
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(field, column)| (format!("{}:", quoted(field.name())), Cells::of(column)))
        .collect();
    let mut text = String::new();
    let mut ends = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        text.push('{');
        for (i, (name, cells)) in columns.iter().enumerate() {
            if i > 0 {
                text.push(',');
            }
            text.push_str(name);
            cells.write(row, &mut text);
        }
        text.push('}');
        ends.push(text.len());
    }
    let all = Bytes::from(text);
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts.zip(&ends).map(|(start, end)| all.slice(start..*end)).collect()
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn push_quoted(text: &str, out: &mut String) {
    let plain = !text.bytes().fold(false, |found, b| found | (b < 0x20) | (b == b'"') | (b == b'\\'));
    match plain {
        true => {
            out.push('"');
            out.push_str(text);
            out.push('"');
        }
        false => out.push_str(&quoted(text)),
    }
}

/// A column with its type looked up once, not for each value.
enum Cells<'a> {
    Bool(&'a BooleanArray),
    Int64(&'a Int64Array),
    /// Integers of other widths.
    Int(&'a ArrayRef, fn(&ArrayRef, usize) -> i64),
    UInt64(&'a UInt64Array),
    Float(&'a ArrayRef, fn(&ArrayRef, usize) -> f64),
    Decimal(&'a Decimal128Array, usize),
    Text(&'a StringArray),
    LargeText(&'a LargeStringArray),
    TextView(&'a StringViewArray),
    Date(&'a Date32Array),
    /// A time, how many of its units are a second, and whether it has a zone.
    Time(&'a ArrayRef, fn(&ArrayRef, usize) -> i64, i64, bool),
    List(&'a ListArray),
    Other(&'a ArrayRef),
}

impl<'a> Cells<'a> {
    fn of(column: &'a ArrayRef) -> Self {
        macro_rules! int {
            ($t:ty) => {
                Self::Int(column, |c, row| i64::from(c.as_primitive::<$t>().value(row)))
            };
        }
        macro_rules! time {
            ($t:ty, $per_second:expr, $zone:expr) => {
                Self::Time(column, |c, row| c.as_primitive::<$t>().value(row), $per_second, $zone.is_some())
            };
        }
        match column.data_type() {
            DataType::Boolean => Self::Bool(column.as_boolean()),
            DataType::Int8 => int!(Int8Type),
            DataType::Int16 => int!(Int16Type),
            DataType::Int32 => int!(Int32Type),
            DataType::Int64 => Self::Int64(column.as_primitive()),
            DataType::UInt8 => int!(UInt8Type),
            DataType::UInt16 => int!(UInt16Type),
            DataType::UInt32 => int!(UInt32Type),
            DataType::UInt64 => Self::UInt64(column.as_primitive()),
            DataType::Float32 => Self::Float(column, |c, row| f64::from(c.as_primitive::<Float32Type>().value(row))),
            DataType::Float64 => Self::Float(column, |c, row| c.as_primitive::<Float64Type>().value(row)),
            DataType::Decimal128(_, scale) => {
                Self::Decimal(column.as_primitive(), usize::try_from(*scale).unwrap_or(0))
            }
            DataType::Utf8 => Self::Text(column.as_string()),
            DataType::LargeUtf8 => Self::LargeText(column.as_string()),
            DataType::Utf8View => Self::TextView(column.as_string_view()),
            DataType::Date32 => Self::Date(column.as_primitive()),
            DataType::Timestamp(TimeUnit::Second, zone) => time!(TimestampSecondType, 1, zone),
            DataType::Timestamp(TimeUnit::Millisecond, zone) => time!(TimestampMillisecondType, 1_000, zone),
            DataType::Timestamp(TimeUnit::Microsecond, zone) => time!(TimestampMicrosecondType, 1_000_000, zone),
            DataType::Timestamp(TimeUnit::Nanosecond, zone) => time!(TimestampNanosecondType, 1_000_000_000, zone),
            DataType::List(_) => Self::List(column.as_list()),
            _ => Self::Other(column),
        }
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Bool(c) => c.is_null(row),
            Self::Int64(c) => c.is_null(row),
            Self::Int(c, _) | Self::Float(c, _) | Self::Time(c, ..) | Self::Other(c) => c.is_null(row),
            Self::UInt64(c) => c.is_null(row),
            Self::Decimal(c, _) => c.is_null(row),
            Self::Text(c) => c.is_null(row),
            Self::LargeText(c) => c.is_null(row),
            Self::TextView(c) => c.is_null(row),
            Self::Date(c) => c.is_null(row),
            Self::List(c) => c.is_null(row),
        }
    }

    fn write(&self, row: usize, out: &mut String) {
        if self.is_null(row) {
            out.push_str("null");
            return;
        }
        match self {
            Self::Bool(c) => out.push_str(if c.value(row) { "true" } else { "false" }),
            Self::Int64(c) => integer(c.value(row), out),
            Self::Int(c, value) => integer(value(c, row), out),
            Self::UInt64(c) => digits(c.value(row), 1, out),
            Self::Float(c, value) => float(value(c, row), out),
            Self::Decimal(c, scale) => decimal(c.value(row), *scale, out),
            Self::Text(c) => push_quoted(c.value(row), out),
            Self::LargeText(c) => push_quoted(c.value(row), out),
            Self::TextView(c) => push_quoted(c.value(row), out),
            Self::Date(c) => match c.value_as_date(row) {
                Some(date) => push_quoted(&date.to_string(), out),
                None => out.push_str("null"),
            },
            Self::Time(c, value, per_second, zoned) => timestamp(value(c, row), *per_second, *zoned, out),
            Self::List(c) => {
                let items = c.value(row);
                let cells = Cells::of(&items);
                out.push('[');
                for i in 0..items.len() {
                    if i > 0 {
                        out.push(',');
                    }
                    cells.write(i, out);
                }
                out.push(']');
            }
            Self::Other(column) => match ArrayFormatter::try_new(column, &FormatOptions::default()) {
                Ok(formatter) => push_quoted(&formatter.value(row).to_string(), out),
                Err(_) => out.push_str("null"),
            },
        }
    }
}

fn integer(number: i64, out: &mut String) {
    if number < 0 {
        out.push('-');
    }
    digits(number.unsigned_abs(), 1, out);
}

/// A number in decimal digits, with zeros in front up to `width`.
fn digits(mut number: u64, width: usize, out: &mut String) {
    let mut buffer = [b'0'; 20];
    let mut at = buffer.len();
    while number > 0 {
        at -= 1;
        buffer[at] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    let at = at.min(buffer.len() - width);
    out.push_str(std::str::from_utf8(&buffer[at..]).expect("digits are ASCII"));
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

fn decimal(unscaled: i128, scale: usize, out: &mut String) {
    out.push('"');
    if unscaled < 0 {
        out.push('-');
    }
    match (u64::try_from(unscaled.unsigned_abs()), 10_u64.checked_pow(u32::try_from(scale).unwrap_or(u32::MAX))) {
        (Ok(small), Some(one)) => {
            digits(small / one, 1, out);
            if scale > 0 {
                out.push('.');
                digits(small % one, scale, out);
            }
        }
        _ => {
            let all = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
            let (whole, fraction) = all.split_at(all.len() - scale);
            out.push_str(whole);
            if scale > 0 {
                out.push('.');
                out.push_str(fraction);
            }
        }
    }
    out.push('"');
}

/// ISO 8601 with microseconds.
fn timestamp(value: i64, per_second: i64, zoned: bool, out: &mut String) {
    let (seconds, rest) = (value.div_euclid(per_second), value.rem_euclid(per_second));
    let us = match per_second {
        1_000_000_000 => rest / 1_000,
        _ => rest * (1_000_000 / per_second),
    };
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let Some((year, month, day)) = civil(days) else {
        out.push_str("null");
        return;
    };
    let two = |number: i64, out: &mut String| digits(number.unsigned_abs(), 2, out);
    out.push('"');
    digits(year, 4, out);
    out.push('-');
    digits(month, 2, out);
    out.push('-');
    digits(day, 2, out);
    out.push('T');
    two(of_day / 3_600, out);
    out.push(':');
    two(of_day / 60 % 60, out);
    out.push(':');
    two(of_day % 60, out);
    out.push('.');
    digits(us.unsigned_abs(), 6, out);
    if zoned {
        out.push('Z');
    }
    out.push('"');
}

/// Year, month and day of a day counted from 1970-01-01, for the years 0 to 9999.
///
/// # Source
/// The proleptic Gregorian calendar in eras of 400 years that begin on 1 March, so that leap days come last:
/// Howard Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`.
fn civil(days: i64) -> Option<(u64, u64, u64)> {
    // From 0000-03-01 on there are no negative numbers to divide.
    let since = u64::try_from(days.checked_add(719_468)?).ok()?;
    let (era, of_era) = (since / 146_097, since % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year <= 9_999).then_some((year, month, day))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, TimestampMicrosecondArray, TimestampNanosecondArray};
    use chrono::DateTime;
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

    /// Times and decimals are what the general formatters say, over the whole range and at its edges.
    #[test]
    fn own_digits_are_the_same_as_others() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut values = vec![0, -1, 1, 86_399_999_999, -86_400_000_001, 951_782_400_000_000, 253_402_300_799_999_999];
        values.extend((0..5_000).map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 1) as i64 % 253_402_300_800_000_000 - 60_000_000_000_000_000
        }));
        for us in values {
            let mut out = String::new();
            timestamp(us, 1_000_000, true, &mut out);
            let expected = DateTime::from_timestamp_micros(us).expect("in range").format("\"%Y-%m-%dT%H:%M:%S%.6fZ\"");
            assert_eq!(out, expected.to_string());
            for scale in [0, 2, 25] {
                let mut out = String::new();
                decimal(i128::from(us), scale, &mut out);
                let text = format!("{:0>width$}", us.unsigned_abs(), width = scale + 1);
                let (whole, fraction) = text.split_at(text.len() - scale);
                let (sign, dot) = (if us < 0 { "-" } else { "" }, if scale > 0 { "." } else { "" });
                assert_eq!(out, format!("\"{sign}{whole}{dot}{fraction}\""));
            }
        }
        let ns = Arc::new(TimestampNanosecondArray::from(vec![-1, 1_999])) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("t", ns)]).expect("one column");
        let text: Vec<_> = rows(&batch).iter().map(|b| String::from_utf8_lossy(b).into_owned()).collect();
        assert_eq!(text, [r#"{"t":"1969-12-31T23:59:59.999999"}"#, r#"{"t":"1970-01-01T00:00:00.000001"}"#]);
    }
}
