//! Query results as text: CSV, JSON or a table.
//!
//! Decimals are exact, timestamps ISO 8601 in UTC (`Z` when they have a zone), dates `YYYY-MM-DD`. In JSON
//! decimals are strings, as in view topics, so that no reader rounds them.

use std::io::{self, Write};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use clap::ValueEnum;

/// Form of query results.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// RFC 4180 with a header line: NULL is an empty field, an empty text is "".
    #[default]
    Csv,
    /// An array with one object per line.
    Json,
    /// For people.
    Table,
}

/// Why a result could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The reader went away, or the disk is full.
    #[error("cannot write the result")]
    Io(#[from] io::Error),
    /// A column has a type without a text form.
    #[error("a column cannot be shown as text")]
    Type(#[from] ArrowError),
}

/// Writes a whole result.
///
/// # Errors
/// See [`WriteError`].
pub fn write(
    out: &mut dyn Write,
    format: Format,
    schema: &SchemaRef,
    batches: &[RecordBatch],
) -> Result<(), WriteError> {
    match format {
        Format::Csv => write_csv(out, schema, batches)?,
        Format::Json => write_json(out, batches)?,
        Format::Table => write_table(out, schema, batches)?,
    }
    out.flush()?;
    Ok(())
}

/// Whole seconds stand without decimals in CSV; JSON has six decimals always, as view topics do.
fn options(format: Format) -> FormatOptions<'static> {
    let (local, with_zone) = match format {
        Format::Json => ("%Y-%m-%dT%H:%M:%S%.6f", "%Y-%m-%dT%H:%M:%S%.6fZ"),
        Format::Csv | Format::Table => ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.fZ"),
    };
    FormatOptions::new()
        .with_display_error(false)
        .with_null("")
        .with_date_format(Some("%Y-%m-%d"))
        .with_timestamp_format(Some(local))
        .with_timestamp_tz_format(Some(with_zone))
}

/// RFC 4180 quoting; lines end with a line feed. NULL is an empty field and an empty text `""`, so that a reader who
/// cares can tell them apart.
fn write_csv(out: &mut dyn Write, schema: &SchemaRef, batches: &[RecordBatch]) -> Result<(), WriteError> {
    let options = options(Format::Csv);
    let names: Vec<_> = schema.fields().iter().map(|f| csv_field(f.name())).collect();
    writeln!(out, "{}", names.join(","))?;
    for batch in batches {
        let columns = formatters(batch, &options)?;
        for row in 0..batch.num_rows() {
            for (idx, column) in columns.iter().enumerate() {
                if idx > 0 {
                    out.write_all(b",")?;
                }
                if batch.column(idx).is_valid(row) {
                    let text = column.value(row).try_to_string()?;
                    out.write_all(csv_field(&text).as_bytes())?;
                }
            }
            out.write_all(b"\n")?;
        }
    }
    Ok(())
}

fn csv_field(text: &str) -> String {
    if text.is_empty() || text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn write_json(out: &mut dyn Write, batches: &[RecordBatch]) -> Result<(), WriteError> {
    let options = options(Format::Json);
    let mut separator = "[\n";
    for batch in batches {
        let columns = formatters(batch, &options)?;
        let schema = batch.schema();
        for row in 0..batch.num_rows() {
            let mut object = String::from("{");
            for (idx, column) in columns.iter().enumerate() {
                let comma = if idx > 0 { "," } else { "" };
                let name = json_text(schema.field(idx).name());
                let value = json_value(batch.column(idx), column, row)?;
                object.push_str(&format!("{comma}{name}:{value}"));
            }
            write!(out, "{separator}{object}}}")?;
            separator = ",\n";
        }
    }
    writeln!(out, "{}", if separator == "[\n" { "[]" } else { "\n]" })?;
    Ok(())
}

fn json_value(array: &ArrayRef, formatter: &ArrayFormatter<'_>, row: usize) -> Result<String, WriteError> {
    if array.is_null(row) {
        return Ok("null".to_owned());
    }
    let text = formatter.value(row).try_to_string()?;
    Ok(match array.data_type() {
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            let options = options(Format::Json);
            let inner = ArrayFormatter::try_new(&items, &options)?;
            let values: Result<Vec<_>, _> = (0..items.len()).map(|i| json_value(&items, &inner, i)).collect();
            format!("[{}]", values?.join(","))
        }
        kind if kind.is_integer() || *kind == DataType::Boolean => text,
        // JSON has no NaN and no infinity.
        kind if kind.is_floating() => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => serde_json::json!(number).to_string(),
            _ => "null".to_owned(),
        },
        _ => json_text(&text),
    })
}

fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn write_table(out: &mut dyn Write, schema: &SchemaRef, batches: &[RecordBatch]) -> Result<(), WriteError> {
    let nothing = [RecordBatch::new_empty(schema.clone())];
    let batches = if batches.is_empty() { &nothing } else { batches };
    let table = arrow::util::pretty::pretty_format_batches_with_options(batches, &options(Format::Table))?;
    writeln!(out, "{table}")?;
    Ok(())
}

fn formatters<'a>(
    batch: &'a RecordBatch,
    options: &'a FormatOptions<'a>,
) -> Result<Vec<ArrayFormatter<'a>>, ArrowError> {
    batch.columns().iter().map(|column| ArrayFormatter::try_new(column, options)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray,
    };
    use expect_test::{Expect, expect};

    use super::*;

    fn sample() -> RecordBatch {
        RecordBatch::try_from_iter([
            ("n", Arc::new(Int64Array::from(vec![Some(1), None])) as ArrayRef),
            ("s", Arc::new(StringArray::from(vec!["a \"b\", c\n", ""])) as ArrayRef),
            (
                "d",
                Arc::new(Decimal128Array::from(vec![1250, -5]).with_precision_and_scale(12, 2).expect("fits"))
                    as ArrayRef,
            ),
            ("f", Arc::new(Float64Array::from(vec![0.1, f64::NAN])) as ArrayRef),
            ("b", Arc::new(BooleanArray::from(vec![true, false])) as ArrayRef),
            ("day", Arc::new(Date32Array::from(vec![20_325, -1])) as ArrayRef),
            ("at", Arc::new(TimestampMicrosecondArray::from(vec![0, 1]).with_timezone("UTC")) as ArrayRef),
            ("local", Arc::new(TimestampMicrosecondArray::from(vec![0, 1])) as ArrayRef),
        ])
        .expect("same lengths")
    }

    #[expect(clippy::needless_pass_by_value, reason = "expect! makes a value")]
    fn check(format: Format, batches: &[RecordBatch], expected: Expect) {
        let mut out = Vec::new();
        write(&mut out, format, &sample().schema(), batches).expect("written");
        expected.assert_eq(&String::from_utf8(out).expect("UTF-8"));
    }

    #[test]
    fn csv() {
        check(
            Format::Csv,
            &[sample()],
            expect![[r#"
                n,s,d,f,b,day,at,local
                1,"a ""b"", c
                ",12.50,0.1,true,2025-08-25,1970-01-01T00:00:00Z,1970-01-01T00:00:00
                ,"",-0.05,NaN,false,1969-12-31,1970-01-01T00:00:00.000001Z,1970-01-01T00:00:00.000001
            "#]],
        );
        check(
            Format::Csv,
            &[],
            expect![[r#"
            n,s,d,f,b,day,at,local
        "#]],
        );
    }

    #[test]
    fn json() {
        check(
            Format::Json,
            &[sample()],
            expect![[r#"
            [
            {"n":1,"s":"a \"b\", c\n","d":"12.50","f":0.1,"b":true,"day":"2025-08-25","at":"1970-01-01T00:00:00.000000Z","local":"1970-01-01T00:00:00.000000"},
            {"n":null,"s":"","d":"-0.05","f":null,"b":false,"day":"1969-12-31","at":"1970-01-01T00:00:00.000001Z","local":"1970-01-01T00:00:00.000001"}
            ]
        "#]],
        );
        check(
            Format::Json,
            &[],
            expect![[r#"
            []
        "#]],
        );
    }
}
