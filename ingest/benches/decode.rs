//! Decoding speed on the recorded pyERP changes, on one core, beside what general JSON libraries take for the same text.
//!
//! `cargo bench -p ingest --bench decode --profile dev`; data: tests/captures/pyerp.

use std::collections::HashMap;
use std::hint::black_box;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use ingest::decode::{Changes, Decoder};
use ingest::table::TableState;
use model::{Record, SourceTable, SqlFile, TopicSelector};
use serde::Deserialize;
use serde_json::value::RawValue;

const ROUNDS: usize = 5;
const EPOCH_RECORDS: usize = 8_192;

#[derive(Deserialize)]
struct Line<'a> {
    offset: i64,
    timestamp: i64,
    #[serde(borrow)]
    key: Option<&'a RawValue>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    op: &'a str,
    #[serde(borrow)]
    after: Option<HashMap<&'a str, &'a RawValue>>,
}

type Topic = (SourceTable, Arc<str>, Vec<Record>);

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let topics = topics(root);
    let n_records: usize = topics.iter().map(|t| t.2.len()).sum();
    let values = || topics.iter().flat_map(|t| &t.2).filter_map(|r| r.value.as_deref());
    let bytes: usize = values().map(<[u8]>::len).sum();
    println!("{} tables, {n_records} records, {} MB", topics.len(), bytes / 1_000_000);

    report("decode", n_records, bytes, || {
        for (table, topic, records) in &topics {
            let mut decoder = Decoder::new(table, 1 << 20);
            let mut changes = Changes::new(&table.schema);
            for chunk in records.chunks(EPOCH_RECORDS) {
                chunk.iter().for_each(|r| {
                    decoder.decode(topic, 0, r, &mut changes).expect("recorded changes decode");
                });
                black_box(&changes).len();
                changes.clear();
            }
        }
    });
    report("decode and apply", n_records, bytes, || {
        for (table, topic, records) in &topics {
            let mut decoder = Decoder::new(table, 1 << 20);
            let mut changes = Changes::new(&table.schema);
            let mut state = TableState::new(table);
            for chunk in records.chunks(EPOCH_RECORDS) {
                chunk.iter().for_each(|r| {
                    decoder.decode(topic, 0, r, &mut changes).expect("recorded changes decode");
                });
                black_box(state.apply(&mut changes, i64::MAX).expect("changes fit a batch"));
                changes.clear();
            }
        }
    });
    report("serde_json, document tree", n_records, bytes, || {
        values().for_each(|v| {
            black_box(serde_json::from_slice::<serde_json::Value>(v).expect("JSON"));
        });
    });
    report("serde_json, borrowed fields of after", n_records, bytes, || {
        values().for_each(|v| {
            let envelope: Envelope<'_> = serde_json::from_slice(v).expect("an envelope");
            black_box((envelope.op, envelope.after));
        });
    });
    report("sonic-rs, document tree", n_records, bytes, || {
        values().for_each(|v| {
            black_box(sonic_rs::from_slice::<sonic_rs::Value>(v).expect("JSON"));
        });
    });
    report("sonic-rs, lazy fields of after", n_records, bytes, || {
        values().for_each(|v| {
            for field in sonic_rs::to_object_iter(v) {
                let (name, value) = field.expect("JSON");
                if name == "after" {
                    for column in sonic_rs::to_object_iter(value.as_raw_str()) {
                        black_box(column).ok();
                    }
                }
            }
        });
    });
}

fn report(what: &str, n_records: usize, bytes: usize, mut run: impl FnMut()) {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64());
    }
    println!(
        "{what:40} {:>9.0} records/s {:>6.2} us/record {:>6.0} MB/s",
        n_records as f64 / best,
        best * 1e6 / n_records as f64,
        bytes as f64 / best / 1e6
    );
}

fn topics(root: &Path) -> Vec<Topic> {
    let path = root.join("sources/pyerp/tables.sql");
    let text = std::fs::read_to_string(&path).expect("the pyERP tables");
    let tables = ingest::ddl::parse_tables(&[SqlFile { path: "tables.sql".to_owned(), text }]).expect("valid DDL");
    let captures = root.join("../tests/captures/pyerp/topics");
    let mut topics = Vec::new();
    for entry in std::fs::read_dir(&captures).expect("the pyERP capture") {
        let path = entry.expect("a file").path();
        let name = path.file_name().and_then(|n| n.to_str()).expect("a name").trim_end_matches(".ndjson.gz").to_owned();
        let table = tables.iter().find(|t| match &t.topic {
            TopicSelector::Name(topic) => *topic == name,
            TopicSelector::Pattern(pattern) => {
                regex::Regex::new(&format!("^(?:{pattern})$")).expect("a pattern").is_match(&name)
            }
        });
        if let Some(table) = table {
            topics.push((table.clone(), Arc::from(name), records(&path)));
        }
    }
    topics
}

fn records(path: &Path) -> Vec<Record> {
    let mut text = String::new();
    let file = std::fs::File::open(path).expect("a capture file");
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("gzip");
    let bytes =
        |raw: Option<&RawValue>| raw.filter(|r| r.get() != "null").map(|r| Bytes::copy_from_slice(r.get().as_bytes()));
    text.lines()
        .map(|line| {
            let line: Line<'_> = serde_json::from_str(line).expect("a record");
            Record {
                offset: line.offset,
                timestamp_ms: line.timestamp,
                key: bytes(line.key),
                value: bytes(line.value),
                headers: Vec::new(),
            }
        })
        .collect()
}
