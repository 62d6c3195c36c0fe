//! Captures: finding and ordering their records, and replaying them into a log.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use ingest::capture::{Capture, CaptureError, CaptureRecord, ReplayError, ReplayOptions, Speed, Timestamps, replay};
use ingest::log::{LocalLog, LocalLogOptions};
use model::{Log, Offsets, Record};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::suite::{PATIENCE, read_topic, values};

/// Writes lines into a file of the folder, compressed if its name says so.
fn write(dir: &TempDir, name: &str, lines: &[String]) {
    let path = dir.path().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = std::fs::File::create(path).unwrap();
    let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    if name.ends_with(".gz") {
        let mut gz = GzEncoder::new(file, Compression::fast());
        gz.write_all(text.as_bytes()).unwrap();
        gz.finish().unwrap();
    } else {
        { file }.write_all(text.as_bytes()).unwrap();
    }
}

/// A line with a Debezium envelope. `place` is topic, partition, offset and timestamp.
fn change(place: (&str, i32, i64, i64), op: &str, commit: &str, lsn: i64) -> String {
    let (topic, partition, offset, timestamp) = place;
    let value = format!(
        r#"{{"before":null,"after":{{"id":{offset}}},"source":{{"name":"a","sequence":"[{commit},\"{lsn}\"]","lsn":{lsn}}},"op":"{op}"}}"#
    );
    format!(
        r#"{{"topic":"{topic}","partition":{partition},"offset":{offset},"timestamp":{timestamp},"key":{{"id":{offset}}},"value":{value}}}"#
    )
}

fn tombstone(place: (&str, i32, i64, i64)) -> String {
    let (topic, partition, offset, timestamp) = place;
    format!(
        r#"{{"topic":"{topic}","partition":{partition},"offset":{offset},"timestamp":{timestamp},"key":{{"id":{offset}}},"value":null}}"#
    )
}

fn records(capture: &Capture) -> Vec<CaptureRecord> {
    capture.records(None).unwrap().collect::<Result<_, _>>().unwrap()
}

/// Topic, partition and offset of each record, in order.
fn places(records: &[CaptureRecord]) -> Vec<String> {
    records.iter().map(|r| format!("{}/{}/{}", r.topic, r.partition, r.offset)).collect()
}

/// Two topics with a snapshot, one of them in two partitions that lie one after the other, with gaps and a tombstone.
fn small_capture() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let c = |commit: i64| format!("\\\"{commit}\\\"");
    let orders = [
        change(("erp.orders", 0, 5, 1000), "r", "null", 10),
        change(("erp.orders", 0, 6, 2000), "c", &c(20), 30),
        change(("erp.orders", 0, 9, 4000), "d", &c(60), 70),
        tombstone(("erp.orders", 0, 10, 4001)),
        change(("erp.orders", 1, 0, 1001), "r", "null", 10),
        change(("erp.orders", 1, 1, 3000), "u", &c(40), 50),
    ];
    write(&dir, "topics/erp.orders.ndjson.gz", &orders);
    let items = [
        change(("erp.items", 0, 0, 1002), "r", "null", 10),
        change(("erp.items", 0, 1, 2001), "c", &c(20), 25),
        change(("erp.items", 0, 2, 3500), "u", &c(40), 55),
        // Sent again: its position is of before, its place is here.
        change(("erp.items", 0, 3, 5000), "c", &c(20), 25),
        change(("erp.items", 0, 4, 5001), "u", &c(80), 90),
    ];
    write(&dir, "topics/erp.items.ndjson.gz", &items);
    let transactions = [r#"{"topic":"erp.transaction","partition":0,"offset":0,"timestamp":3200,"key":null,"value":{"status":"BEGIN"}}"#.to_owned()];
    write(&dir, "topics/erp.transaction.ndjson.gz", &transactions);
    dir
}

#[test]
fn records_come_in_the_order_of_the_database() {
    let dir = small_capture();
    let capture = Capture::open(dir.path()).unwrap();
    let expected = [
        "erp.items/0/0",
        "erp.orders/0/5",
        "erp.orders/1/0",
        "erp.items/0/1",
        "erp.orders/0/6",
        "erp.transaction/0/0",
        "erp.orders/1/1",
        "erp.items/0/2",
        "erp.items/0/3",
        "erp.orders/0/9",
        "erp.orders/0/10",
        "erp.items/0/4",
    ];
    let mut found = places(&records(&capture));
    // The transaction topic has no positions: it is woven in by time, before what is later.
    let woven = found.iter().position(|place| place.starts_with("erp.transaction")).unwrap();
    let later = found.iter().position(|place| place == "erp.items/0/2").unwrap();
    assert!(woven < later, "{found:?}");
    found.remove(woven);
    assert_eq!(found, expected.into_iter().filter(|p| !p.contains("transaction")).collect::<Vec<_>>());
    assert_eq!(capture.n_records(), 12);
    let partitions: Vec<_> = capture
        .partitions()
        .into_iter()
        .map(|p| (p.topic.to_string(), p.partition, p.first_offset, p.end_offset, p.n_records))
        .collect();
    assert_eq!(
        partitions,
        [
            ("erp.items".to_owned(), 0, 0, 5, 5),
            ("erp.orders".to_owned(), 0, 5, 11, 4),
            ("erp.orders".to_owned(), 1, 0, 2, 2),
            ("erp.transaction".to_owned(), 0, 0, 1, 1),
        ]
    );
}

#[test]
fn upto_is_in_the_captures_own_offsets() {
    let dir = small_capture();
    let capture = Capture::open(dir.path()).unwrap();
    let mut upto = Offsets::default();
    upto.set("erp.orders", 0, 9);
    upto.set("erp.items", 0, 2);
    let records: Vec<_> = capture.records(Some(&upto)).unwrap().map(Result::unwrap).collect();
    assert_eq!(places(&records), ["erp.items/0/0", "erp.orders/0/5", "erp.items/0/1", "erp.orders/0/6"]);
}

#[test]
fn plain_files_with_several_topics_and_no_offsets_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let lines = [
        r#"{"topic": "a", "key": {"id": 1}, "value": {"n": 1.50, "s": "\u00e4"}}"#.to_owned(),
        String::new(),
        r#"{"topic": "b", "key": null, "value": {"source": {"ts_ms": 77}}}"#.to_owned(),
        r#"{"topic": "a", "key": {"id": 2}, "value": null}"#.to_owned(),
    ];
    write(&dir, "all.ndjson", &lines);
    let records = records(&Capture::open(dir.path()).unwrap());
    let mut by_place: BTreeMap<String, &CaptureRecord> = BTreeMap::new();
    for (place, record) in places(&records).into_iter().zip(&records) {
        by_place.insert(place, record);
    }
    assert_eq!(by_place.keys().collect::<Vec<_>>(), ["a/0/0", "a/0/1", "b/0/0"]);
    let first = by_place["a/0/0"];
    assert_eq!(first.value.as_deref(), Some(br#"{"n": 1.50, "s": "\u00e4"}"#.as_slice()));
    assert_eq!(first.key.as_deref(), Some(br#"{"id": 1}"#.as_slice()));
    assert_eq!(by_place["a/0/1"].value, None);
    assert_eq!((by_place["b/0/0"].key.as_deref(), by_place["b/0/0"].timestamp_ms), (None, 77));
}

#[test]
fn malformed_lines_are_named() {
    let at = |place| tombstone(place);
    let cases: [(Vec<String>, u64, &str); 4] = [
        (vec![at(("t", 0, 0, 0)), "{".to_owned()], 2, "EOF"),
        (vec![at(("t", 0, 5, 0)), at(("t", 0, 5, 0))], 2, "must grow"),
        (vec![r#"{"topic":"t","partition":0,"offset":0,"value":"#.to_owned()], 1, "EOF"),
        (vec![r#"{"partition":0,"offset":0,"value":null}"#.to_owned()], 1, "topic"),
    ];
    for (lines, number, reason) in cases {
        let dir = tempfile::tempdir().unwrap();
        write(&dir, "t.ndjson.gz", &lines);
        let all = Capture::open(dir.path())
            .and_then(|capture| capture.records(None)?.collect::<Result<Vec<_>, _>>().map(drop));
        let error = all.unwrap_err();
        let shown = error.to_string();
        assert!(matches!(error, CaptureError::Malformed { line, .. } if line == number), "{shown}");
        assert!(shown.contains(&format!("t.ndjson.gz:{number}: ")) && shown.contains(reason), "{shown}");
    }
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(Capture::open(empty.path()).unwrap_err(), CaptureError::Empty { .. }));
}

fn local_log() -> (Arc<dyn Log>, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (LocalLog::open(dir.path(), LocalLogOptions::default()).unwrap(), dir)
}

async fn run(capture: &Capture, log: &Arc<dyn Log>, options: ReplayOptions) -> ingest::capture::ReplayReport {
    replay(capture, log, options, |_| {}, CancellationToken::new()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_keeps_keys_order_partitions_and_timestamps() {
    let dir = small_capture();
    let capture = Capture::open(dir.path()).unwrap();
    let (log, _log_dir) = local_log();
    let mut told = Vec::new();
    let report =
        replay(&capture, &log, ReplayOptions::default(), |p| told.push(p), CancellationToken::new()).await.unwrap();
    assert_eq!((report.n_records, report.n_topics, report.lsn_max), (12, 3, Some(90)));
    assert!(report.is_complete);
    assert_eq!(told.last().map(|p| (p.n_records, p.n_records_total)), Some((12, 12)));
    // Gaps close: these are the log's own offsets.
    let expected = r#"{"erp.items":{"0":5},"erp.orders":{"0":4,"1":2},"erp.transaction":{"0":1}}"#;
    assert_eq!(serde_json::to_string(&report.end_offsets).unwrap(), expected);

    let captured = records(&capture);
    for (topic, n_records) in [("erp.items", 5), ("erp.orders", 6), ("erp.transaction", 1)] {
        let found = read_topic(&log, topic, n_records).await;
        for partition in 0..2 {
            let of_log = found.iter().filter(|(_, p, _)| *p == partition);
            let of_log: Vec<_> = of_log.map(|(_, _, r)| (r.timestamp_ms, r.key.clone(), r.value.clone())).collect();
            let of_capture = captured.iter().filter(|r| &*r.topic == topic && r.partition == partition);
            let of_capture: Vec<_> = of_capture.map(|r| (r.timestamp_ms, r.key.clone(), r.value.clone())).collect();
            assert_eq!(of_log, of_capture, "{topic} {partition}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_can_be_repeated_above_the_last_position() {
    let dir = small_capture();
    let capture = Capture::open(dir.path()).unwrap();
    let (log, _log_dir) = local_log();
    let first = run(&capture, &log, ReplayOptions::default()).await;
    let lsn = first.lsn_max.unwrap() + 1;
    let truncates = capture.truncates(lsn).unwrap();
    let places: Vec<_> = truncates.iter().map(|r| (&*r.topic, r.partition, r.key.is_none())).collect();
    let expected = [("erp.items", Some(0), true), ("erp.orders", Some(0), true), ("erp.orders", Some(1), true)];
    assert_eq!(places, expected, "one for each partition with Debezium's records");
    log.append(truncates).await.unwrap();
    let again = ReplayOptions { position_shift: lsn, ..ReplayOptions::default() };
    let second = run(&capture, &log, again).await;
    assert_eq!(second.lsn_max, Some(lsn + 90));
    let found = values(&read_topic(&log, "erp.items", 11).await);
    let lsns: Vec<i64> = found
        .iter()
        .map(|value| serde_json::from_str::<serde_json::Value>(value).unwrap()["source"]["lsn"].as_i64().unwrap())
        .collect();
    assert_eq!(lsns, [10, 25, 55, 25, 90, 91, 101, 116, 146, 116, 181]);
    assert!(found[5].contains(r#""op":"t""#) && found[5].contains(r#""name":"a""#), "{}", found[5]);
    assert_eq!(found[7], found[1].replace(r#"[\"20\",\"25\"]"#, r#"[\"111\",\"116\"]"#).replace(":25}", ":116}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paced_replay_takes_its_time_and_can_be_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let commit = "\\\"1\\\"";
    let mut lines = vec![change(("t", 0, 0, 0), "r", "null", 1), change(("t", 0, 1, 900_000), "r", "null", 1)];
    lines.extend((2..6).map(|i| change(("t", 0, i, 1_000_000 + i * 1000), "c", commit, i)));
    lines.push(change(("t", 0, 6, 900_000_000), "c", commit, 6));
    write(&dir, "t.ndjson", &lines);
    let capture = Capture::open(dir.path()).unwrap();
    let (log, _log_dir) = local_log();
    let cancel = CancellationToken::new();
    let options =
        ReplayOptions { speed: Speed::Times(10.0), timestamps: Timestamps::Append, ..ReplayOptions::default() };
    let (started, mut seen) = (Instant::now(), Vec::new());
    let progress = |p: ingest::capture::Progress| {
        seen.push((p.n_records, started.elapsed()));
        if p.n_records == 6 {
            cancel.cancel();
        }
    };
    let replaying = replay(&capture, &log, options, progress, cancel.clone());
    let report = tokio::time::timeout(PATIENCE, replaying).await.expect("cancelled").unwrap();
    assert!(!report.is_complete);
    assert_eq!(report.n_records, 6);
    // Four changes a second apart, ten times as fast: three tenths of a second, the snapshot at once.
    let at = |n: u64| seen.iter().find(|(n_records, _)| *n_records >= n).unwrap().1;
    assert!(at(6) - at(3) >= Duration::from_millis(290), "{seen:?}");
    let records: Vec<Record> = read_topic(&log, "t", 6).await.into_iter().map(|(_, _, r)| r).collect();
    assert!(records.iter().all(|r| r.timestamp_ms > 1_600_000_000_000), "stamped by the append");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn early_records_go_at_full_speed() {
    let dir = tempfile::tempdir().unwrap();
    let commit = "\\\"1\\\"";
    let lines: Vec<_> = (0..5).map(|i| change(("t", 0, i, i * 3_600_000), "c", commit, i)).collect();
    write(&dir, "t.ndjson", &lines);
    let capture = Capture::open(dir.path()).unwrap();
    let (log, _log_dir) = local_log();
    let start_at_ms = Some(4 * 3_600_000);
    let options = ReplayOptions { speed: Speed::Times(1.0), start_at_ms, ..ReplayOptions::default() };
    let replaying = replay(&capture, &log, options, |_| {}, CancellationToken::new());
    assert_eq!(tokio::time::timeout(PATIENCE, replaying).await.unwrap().unwrap().n_records, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_line_breaks_the_replay_off() {
    let dir = tempfile::tempdir().unwrap();
    // Whole as far as its offset, so that it is found when it is read.
    let broken = r#"{"topic":"t","partition":0,"offset":1,"timestamp":1,"value":{"a":}}"#.to_owned();
    write(&dir, "t.ndjson", &[change(("t", 0, 0, 0), "c", "null", 1), broken]);
    let (log, _log_dir) = local_log();
    let capture = Capture::open(dir.path()).unwrap();
    let replaying = replay(&capture, &log, ReplayOptions::default(), |_| {}, CancellationToken::new());
    let error = replaying.await.unwrap_err();
    assert!(matches!(error, ReplayError::Capture(CaptureError::Malformed { line: 2, .. })), "{error:?}");
}

/// The shipped capture, from its files into the log, with nothing lost on the way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shipped_capture_replays_whole() {
    let capture = Capture::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/captures/pyerp")).unwrap();
    let (log, _log_dir) = local_log();
    let report = run(&capture, &log, ReplayOptions::default()).await;
    assert_eq!(report.n_records, capture.n_records());
    // It was captured from offset 0 and without gaps, so the log's offsets are the capture's.
    assert_eq!(report.end_offsets, capture.end_offsets());
}
