//! Recorded change records.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::Bytes;
use model::{Record, SourceTable, SqlFile};
use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
struct Line<'a> {
    topic: &'a str,
    #[serde(default)]
    offset: i64,
    #[serde(default)]
    timestamp: i64,
    #[serde(borrow)]
    key: Option<&'a RawValue>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
}

/// The records of a file, with their topics.
pub(crate) fn records(name: &str) -> Vec<(Arc<str>, Record)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(format!("{name}.ndjson.gz"));
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    let bytes =
        |raw: Option<&RawValue>| raw.filter(|r| r.get() != "null").map(|r| Bytes::copy_from_slice(r.get().as_bytes()));
    text.lines()
        .map(|line| {
            let line: Line<'_> = serde_json::from_str(line).unwrap();
            let record = Record {
                offset: line.offset,
                timestamp_ms: line.timestamp,
                key: bytes(line.key),
                value: bytes(line.value),
                headers: Vec::new(),
            };
            (Arc::from(line.topic), record)
        })
        .collect()
}

/// The tables of a DDL text.
pub(crate) fn tables(ddl: &str) -> Vec<SourceTable> {
    ingest::ddl::parse_tables(&[SqlFile { path: "test.sql".to_owned(), text: ddl.to_owned() }]).unwrap()
}

/// The rows as text by their first column; timestamps in whole milliseconds, which is what some settings send.
pub(crate) fn text_rows(batch: &RecordBatch) -> BTreeMap<String, Vec<String>> {
    let options = FormatOptions::default().with_null("NULL");
    let text = |column: usize, row: usize| {
        let array = batch.column(column);
        if let (DataType::Timestamp(_, _), false) = (array.data_type(), array.is_null(row)) {
            let us = array.as_primitive::<TimestampMicrosecondType>().value(row);
            return format!("{} ms", us.div_euclid(1000));
        }
        ArrayFormatter::try_new(array.as_ref(), &options).unwrap().value(row).to_string()
    };
    (0..batch.num_rows())
        .map(|row| (text(0, row), (0..batch.num_columns()).map(|column| text(column, row)).collect()))
        .collect()
}
