//! The same business, sent differently, must give the same numbers: three partitions a topic, another prefix, rows
//! sent again behind their newer version, some topics with Debezium's schema part, a column that appears in
//! mid-stream, records nobody can decode.
//!
//! `ANDON_DISORDER_SEED=n` replays a seed.

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use flate2::read::GzDecoder;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::support::{andon, repository, run};

const PARTITIONS: u64 = 3;
/// One record in so many is sent again later.
const RESENT_ONE_IN: u32 = 25;
/// A record is sent again after so many others of its partition, at most.
const RESENT_AFTER_MAX: usize = 300;

#[test]
fn pyerp_sent_differently_gives_the_same_numbers() {
    check("pyerp", "2025-12-22T23:00:00Z");
}

#[test]
fn tryton_sent_differently_gives_the_same_numbers() {
    check("tryton", "2026-11-10T12:00:00Z");
}

fn check(erp: &str, now: &str) {
    let seed = std::env::var("ANDON_DISORDER_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(11);
    println!("ANDON_DISORDER_SEED={seed}");
    let original = repository().join("tests/captures").join(erp);
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mutated = dir.path().join("mutated");
    std::fs::create_dir_all(&mutated).expect("a folder");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut files: Vec<_> = std::fs::read_dir(original.join("topics"))
        .expect("captures are in the repository")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|e| e == "gz"))
        .collect();
    files.sort();
    let n_garbage: u64 = files.iter().map(|file| mutate(file, &mutated, &mut rng)).sum();
    let straight = answers(erp, &original, now, &dir.path().join("a"));
    let differently = answers(erp, &mutated, now, &dir.path().join("b"));
    let n_rows: usize = straight.rows.values().map(|lines| lines.len() - 1).sum();
    assert!(straight.rows.len() >= 8 && n_rows > 100, "{n_rows} rows of {} queries", straight.rows.len());
    assert_eq!(straight.rows.keys().collect::<Vec<_>>(), differently.rows.keys().collect::<Vec<_>>());
    for (name, rows) in &straight.rows {
        assert!(rows == &differently.rows[name], "{name} differs, ANDON_DISORDER_SEED={seed}");
    }
    // Some of the garbage is in topics that no table reads, or at the place of an older version of its row.
    assert_eq!(straight.dead_letters, 0);
    let dead = differently.dead_letters;
    let context = format!("ANDON_DISORDER_SEED={seed}\n{}", differently.reasons.join("\n"));
    assert!(dead > 0 && dead <= n_garbage, "{dead} dead letters of {n_garbage}, {context}");
}

/// What a capture says.
struct Answers {
    /// By file, with the header first and the rows sorted.
    rows: BTreeMap<String, Vec<String>>,
    dead_letters: u64,
    /// Some of the log's lines about them.
    reasons: Vec<String>,
}

/// Asks all truth queries.
fn answers(erp: &str, capture: &Path, now: &str, out: &Path) -> Answers {
    std::fs::create_dir_all(out).expect("a folder");
    let queries = repository().join("tests/truth").join(erp);
    let (code, _, stderr) = run(andon()
        .args(["query", "--source", erp, "--now", now, "--replay"])
        .arg(capture)
        .arg("--queries")
        .arg(queries)
        .arg("--out")
        .arg(out));
    assert_eq!(code, 0, "{stderr}");
    let rows = std::fs::read_dir(out)
        .expect("results")
        .map(|entry| {
            let path = entry.expect("readable").path();
            let text = std::fs::read_to_string(&path).expect("UTF-8");
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines[1..].sort();
            (path.file_name().expect("a file").to_string_lossy().into_owned(), lines)
        })
        .collect();
    let count = stderr
        .lines()
        .find_map(|line| line.split_once("could not be decoded")?.1.split_once("records=")?.1.trim().parse().ok());
    let reasons = stderr.lines().filter(|line| line.contains("dead letters")).take(20).map(str::to_owned).collect();
    Answers { rows, dead_letters: count.unwrap_or(0), reasons }
}

/// Writes a topic's records anew; returns how many were added that nobody can decode.
fn mutate(file: &Path, out: &Path, rng: &mut StdRng) -> u64 {
    let mut n_garbage = 0;
    let reader = BufReader::new(GzDecoder::new(File::open(file).expect("readable")));
    let with_schema = rng.random_bool(0.3);
    let mut partitions: Vec<Vec<Value>> = vec![Vec::new(); PARTITIONS as usize];
    let mut pending: Vec<(usize, usize, Value)> = Vec::new();
    for (n, line) in reader.lines().enumerate() {
        let mut record: Value = serde_json::from_str(&line.expect("UTF-8")).expect("captures are JSON");
        let mut hasher = DefaultHasher::new();
        record["key"].to_string().hash(&mut hasher);
        let partition = usize::try_from(hasher.finish() % PARTITIONS).expect("small");
        if n > 500
            && let Some(after) = record.pointer_mut("/value/after").and_then(Value::as_object_mut)
        {
            after.insert("added_in_mid_stream_ü".to_owned(), json!("new"));
        }
        if rng.random_ratio(1, RESENT_ONE_IN) && !record["value"].is_null() {
            let due = partitions[partition].len() + rng.random_range(1..RESENT_AFTER_MAX);
            pending.push((partition, due, record.clone()));
        }
        partitions[partition].push(record);
        if rng.random_ratio(1, 5_000) {
            partitions[partition].push(garbage(rng));
            n_garbage += 1;
        }
        pending.retain(|(p, due, again)| {
            let now = *p == partition && partitions[*p].len() >= *due;
            if now {
                partitions[*p].push(again.clone());
            }
            !now
        });
    }
    for (partition, _, again) in pending {
        partitions[partition].push(again);
    }
    let topic = file.file_name().expect("a file").to_string_lossy();
    let topic = format!("werk_7-a.{}", topic.trim_end_matches(".ndjson.gz").split_once('.').expect("a prefix").1);
    let mut writer = BufWriter::new(File::create(out.join(format!("{topic}.ndjson"))).expect("writable"));
    for (partition, records) in partitions.into_iter().enumerate() {
        for (offset, mut record) in records.into_iter().enumerate() {
            if with_schema && record["value"].get("op").is_some() {
                record["value"] = json!({"schema": {"type": "struct", "fields": []}, "payload": record["value"]});
                record["key"] = json!({"schema": {"type": "struct", "fields": []}, "payload": record["key"]});
            }
            record["topic"] = json!(topic);
            record["partition"] = json!(partition);
            record["offset"] = json!(offset);
            writeln!(writer, "{record}").expect("writable");
        }
    }
    n_garbage
}

/// A record that belongs in the dead-letter topic.
fn garbage(rng: &mut StdRng) -> Value {
    let value = match rng.random_range(0..4) {
        0 => json!("not a row"),
        1 => json!({"op": "u", "after": {"id": "x1"}, "source": {"lsn": 1}}),
        2 => json!([1, 2, 3]),
        _ => json!({"op": "?", "after": null}),
    };
    json!({"timestamp": 1_795_373_985_980_i64, "key": {"id": 1}, "value": value})
}
