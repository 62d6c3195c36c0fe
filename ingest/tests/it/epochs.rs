//! `Ingest` over the real local log: every change in exactly one epoch, whatever way the epochs are cut.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use bytes::Bytes;
use ingest::log::{LocalLog, LocalLogOptions};
use ingest::{Ingest, IngestOptions};
use model::{
    AppendRecord, EpochSource, Log, LogBatch, Offsets, PollLimit, Record, SourceEpoch, TableWatermark, TopicSelector,
    TopicSpec, topics,
};

use crate::fixture::{records, tables, text_rows};

const PATIENCE: Duration = Duration::from_secs(20);

const DDL: &str = "
CREATE TABLE sale_line (id INT, product INT, quantity DOUBLE, type STRING, unit_price DECIMAL(20, 6),
  PRIMARY KEY (id) NOT ENFORCED)
WITH ('connector' = 'kafka', 'topic-pattern' = '.+\\.public\\.sale_line', 'format' = 'debezium-json');
CREATE TABLE stock_move (id INT, planned_date DATE, internal_quantity DOUBLE, state STRING, create_date TIMESTAMP(3),
  PRIMARY KEY (id) NOT ENFORCED, WATERMARK FOR create_date AS create_date)
WITH ('connector' = 'kafka', 'topic-pattern' = '.+\\.public\\.stock_move', 'format' = 'debezium-json');
CREATE TABLE line_types (id INT, type STRING, PRIMARY KEY (id) NOT ENFORCED)
WITH ('connector' = 'kafka', 'topic' = 'v_double_connect_tx.public.sale_line', 'format' = 'debezium-json');
";

struct Setup {
    _dir: tempfile::TempDir,
    log: Arc<dyn Log>,
}

fn setup() -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let log = LocalLog::open(dir.path(), LocalLogOptions::default()).unwrap();
    Setup { _dir: dir, log }
}

fn to_append(topic: &Arc<str>, partition: i32, record: &Record) -> AppendRecord {
    AppendRecord {
        topic: Arc::clone(topic),
        partition: Some(partition),
        timestamp_ms: Some(record.timestamp_ms),
        key: record.key.clone(),
        value: record.value.clone(),
        headers: Vec::new(),
    }
}

async fn append_fixture(log: &dyn Log, name: &str) -> Offsets {
    let records = records(name);
    let mut ends = Offsets::default();
    for (topic, _) in &records {
        let next = ends.get(topic, 0).unwrap_or(0) + 1;
        ends.set(topic, 0, next);
    }
    log.append(records.iter().map(|(topic, r)| to_append(topic, 0, r)).collect()).await.unwrap();
    ends
}

fn upsert(id: i64, quantity: &str, lsn: i64) -> (Bytes, Bytes) {
    let key = format!(r#"{{"id":{id}}}"#);
    let value = format!(
        r#"{{"before":null,"after":{{"id":{id},"product":1,"quantity":{quantity},"type":"line","unit_price":1.5}},"source":{{"lsn":{lsn}}},"op":"u"}}"#
    );
    (key.into(), value.into())
}

async fn append(log: &dyn Log, topic: &str, partition: i32, key: Option<Bytes>, value: Option<Bytes>) {
    let record = AppendRecord {
        topic: Arc::from(topic),
        partition: Some(partition),
        timestamp_ms: Some(1_795_000_000_000),
        key,
        value,
        headers: Vec::new(),
    };
    log.append(vec![record]).await.unwrap();
}

async fn next(ingest: &mut Ingest) -> SourceEpoch {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(epoch) = ingest.next_epoch(Duration::from_millis(500)).await.unwrap() {
            return epoch;
        }
        assert!(Instant::now() < deadline, "an epoch arrives in time");
    }
}

/// Rows with their weights, summed.
#[derive(Default)]
struct Sums(BTreeMap<String, BTreeMap<Vec<String>, i64>>);

impl Sums {
    fn add(&mut self, epoch: &SourceEpoch) {
        for table in &epoch.tables {
            let sums = self.0.entry(table.table.to_string()).or_default();
            for row in 0..table.delta.len() {
                let text = text_rows(&table.delta.rows.slice(row, 1)).into_values().next().unwrap();
                *sums.entry(text).or_default() += table.delta.weights.value(row);
            }
        }
    }

    fn assert_equals(&self, table: &str, rows: &RecordBatch) {
        let expected: Vec<Vec<String>> = text_rows(rows).into_values().collect();
        let mut kept: Vec<Vec<String>> = Vec::new();
        for (row, weight) in self.0.get(table).into_iter().flatten().filter(|(_, w)| **w != 0) {
            assert_eq!(*weight, 1, "{row:?}");
            kept.push(row.clone());
        }
        kept.sort();
        let mut expected = expected;
        expected.sort();
        assert_eq!(kept, expected, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sum_of_all_epochs_is_the_table() {
    let setup = setup();
    let ends = append_fixture(setup.log.as_ref(), "tryton/double_connect_tx").await;
    for epoch_records_max in [7, 100, 100_000] {
        let options = IngestOptions { epoch_records_max, ..IngestOptions::default() };
        let mut ingest = Ingest::open(Arc::clone(&setup.log), tables(DDL), options).await.unwrap();
        let mut sums = Sums::default();
        let mut at = Offsets::default();
        let mut event_time = None;
        let expected: Offsets = Offsets(
            ends.0.clone().into_iter().filter(|(t, _)| t.ends_with("sale_line") || t.ends_with("stock_move")).collect(),
        );
        while !at.reached(&expected) {
            let epoch = next(&mut ingest).await;
            assert!(epoch.n_records <= epoch_records_max);
            sums.add(&epoch);
            at.merge(&epoch.offsets);
            event_time = event_time.max(epoch.max_event_time_us);
            // What is handed out and what the table holds agree after every epoch, however far ahead reading is.
            for table in ["sale_line", "stock_move", "line_types"] {
                sums.assert_equals(table, &ingest.table_rows(table).unwrap());
            }
        }
        assert_eq!(at, expected);
        assert_eq!(ingest.dead_letters(), 0);
        assert_eq!(ingest.table_rows("sale_line").unwrap().num_rows(), 241);
        assert_eq!(ingest.table_rows("line_types").unwrap().num_rows(), 241);
        assert!(event_time.is_some_and(|t| t > 1_795_000_000_000_000), "{event_time:?}");
        assert!(ingest.table_rows("nothing").is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_topics_and_partitions_that_come_later_arrive() {
    let setup = setup();
    let mut ingest = Ingest::open(Arc::clone(&setup.log), tables(DDL), IngestOptions::default()).await.unwrap();
    assert!(ingest.next_epoch(Duration::from_millis(20)).await.unwrap().is_none());
    let (key, value) = upsert(1, "2", 10);
    append(setup.log.as_ref(), "a.public.sale_line", 0, Some(key), Some(value)).await;
    let epoch = next(&mut ingest).await;
    assert_eq!((epoch.n_records, epoch.tables.len(), epoch.tables[0].delta.len()), (1, 1, 1));

    setup.log.create_topic("a.public.sale_line", TopicSpec { partitions: 3, ..TopicSpec::default() }).await.unwrap();
    let (key, value) = upsert(2, "5", 11);
    append(setup.log.as_ref(), "a.public.sale_line", 2, Some(key), Some(value)).await;
    next(&mut ingest).await;
    let (key, value) = upsert(3, "7", 12);
    append(setup.log.as_ref(), "another.public.sale_line", 0, Some(key.clone()), Some(value)).await;
    next(&mut ingest).await;
    assert_eq!(ingest.table_rows("sale_line").unwrap().num_rows(), 3);

    append(setup.log.as_ref(), "another.public.sale_line", 0, Some(key), None).await;
    let epoch = next(&mut ingest).await;
    assert_eq!(epoch.tables[0].delta.weights.values().to_vec(), [-1]);
    let deadline = Instant::now() + PATIENCE;
    while ingest.lag_records() != Some(0) {
        assert!(Instant::now() < deadline, "the lag is known and none");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_used_is_kept_with_its_reason() {
    let setup = setup();
    let topic = "a.public.sale_line";
    let options = IngestOptions { record_bytes_max: 1_000, ..IngestOptions::default() };
    let mut ingest = Ingest::open(Arc::clone(&setup.log), tables(DDL), options).await.unwrap();
    let (key, good) = upsert(1, "2", 10);
    let (_, wrong) = upsert(1, "\"many\"", 11);
    let long = Bytes::from(vec![b' '; 2_000]);
    let bad = [wrong.clone(), Bytes::from("{\"after\":"), Bytes::from("[1]"), long.clone(), Bytes::from(vec![0xFF])];
    let mut batch: Vec<AppendRecord> = bad
        .iter()
        .chain([&good])
        .map(|value| AppendRecord {
            topic: Arc::from(topic),
            partition: Some(0),
            timestamp_ms: Some(5),
            key: Some(key.clone()),
            value: Some(value.clone()),
            headers: Vec::new(),
        })
        .collect();
    batch.push(AppendRecord { key: None, value: None, ..batch[0].clone() });
    setup.log.append(batch).await.unwrap();
    let mut n_records = 0;
    while n_records < 7 {
        n_records += next(&mut ingest).await.n_records;
    }
    assert_eq!(ingest.dead_letters(), 6);
    assert_eq!(ingest.table_rows("sale_line").unwrap().num_rows(), 1);

    let letters = dead_letters(setup.log.as_ref(), 6).await;
    let header = |r: &Record, name: &str| String::from_utf8(r.header(name).unwrap().to_vec()).unwrap();
    let reasons: Vec<String> = letters.iter().map(|r| header(r, "reason")).collect();
    assert_eq!(reasons[0], "column quantity (Float64): not a number, found many");
    let classes: Vec<String> = letters.iter().map(|r| header(r, "reason-class")).collect();
    assert_eq!(classes, ["wrong_value", "malformed", "malformed", "oversized", "not_utf8", "missing_key"]);
    assert_eq!((letters[0].key.clone(), letters[0].value.clone()), (Some(key), Some(wrong)));
    assert_eq!(letters[3].value.as_ref(), Some(&long));
    for (i, letter) in letters.iter().enumerate() {
        let place = (header(letter, "topic"), header(letter, "partition"), header(letter, "offset"));
        let offset = if i < 5 { i } else { 6 };
        assert_eq!(place, (topic.to_owned(), "0".to_owned(), offset.to_string()));
    }
}

async fn dead_letters(log: &dyn Log, n_records: usize) -> Vec<Record> {
    let from = Offsets::default();
    let mut reader = log.read(vec![TopicSelector::Name(topics::DEAD_LETTER.to_owned())], &from).await.unwrap();
    let limit = PollLimit { max_records: 100, max_bytes: 1 << 20, wait: Duration::from_millis(200) };
    let mut letters = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while letters.len() < n_records {
        assert!(Instant::now() < deadline, "the dead letters arrive in time");
        letters.extend(reader.poll(limit).await.unwrap().into_iter().flat_map(|b: LogBatch| b.records));
    }
    letters
}

fn transaction_event(id: i64, lsn: i64, transaction: &str) -> (Bytes, Bytes) {
    let (key, value) = upsert(id, "1", lsn);
    let value = String::from_utf8(value.to_vec()).unwrap();
    let block = format!(r#""transaction":{{"id":"{transaction}","total_order":1}},"op":"u""#);
    (key, value.replace(r#""op":"u""#, &block).into())
}

fn transaction_end(transaction: &str, n_lines: usize) -> Bytes {
    format!(
        r#"{{"status":"END","id":"{transaction}","event_count":9,"data_collections":[{{"data_collection":"public.sale_line","event_count":{n_lines}}},{{"data_collection":"public.unread","event_count":5}}],"ts_ms":1}}"#
    )
    .into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_marked_transaction_arrives_whole() {
    let setup = setup();
    let log = setup.log.as_ref();
    let options = IngestOptions { transaction_wait_max: PATIENCE, ..IngestOptions::default() };
    let mut ingest = Ingest::open(Arc::clone(&setup.log), tables(DDL), options).await.unwrap();
    let topic = "a.public.sale_line";
    // The first transaction shows that this source marks its transactions.
    let (key, value) = transaction_event(1, 10, "5:10");
    append(log, topic, 0, Some(key), Some(value)).await;
    append(log, "a.transaction", 0, None, Some(transaction_end("5:10", 1))).await;
    let mut n_records = 0;
    while n_records < 2 {
        n_records += next(&mut ingest).await.n_records;
    }
    let (key, value) = transaction_event(2, 20, "6:20");
    append(log, topic, 0, Some(key), Some(value)).await;
    // Much longer than an epoch lasts otherwise.
    assert!(ingest.next_epoch(Duration::from_millis(300)).await.unwrap().is_none());
    append(log, "a.transaction", 0, None, Some(transaction_end("6:20", 2))).await;
    let (key, value) = transaction_event(3, 21, "6:20");
    append(log, topic, 0, Some(key), Some(value)).await;
    let epoch = next(&mut ingest).await;
    assert_eq!((epoch.n_records, epoch.tables[0].delta.len()), (3, 2));
}

const APPEND_ONLY: &str = "
CREATE TABLE scans (id INT, at TIMESTAMP(3), WATERMARK FOR at AS at - INTERVAL '1' SECOND)
WITH ('connector' = 'kafka', 'topic' = 'scans', 'format' = 'json');";

async fn scan(log: &dyn Log, partition: i32, id: i64, second: i64) {
    let value = format!(r#"{{"id":{id},"at":{}}}"#, second * 1_000);
    append(log, "scans", partition, None, Some(value.into())).await;
}

/// Reads until the watermark of the only table stands at this second.
async fn until_watermark(ingest: &mut Ingest, second: i64) -> (usize, Vec<TableWatermark>) {
    let (mut n_rows, deadline) = (0, Instant::now() + PATIENCE);
    loop {
        let epoch = next(ingest).await;
        n_rows += epoch.tables.iter().map(|t| t.delta.len()).sum::<usize>();
        if epoch.watermarks.first().is_some_and(|w| w.watermark_us == Some(second * 1_000_000)) {
            return (n_rows, epoch.watermarks);
        }
        assert!(Instant::now() < deadline, "the watermark moves in time");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_only_table_has_rows_and_a_watermark_and_keeps_nothing() {
    let setup = setup();
    let log = setup.log.as_ref();
    log.create_topic("scans", TopicSpec { partitions: 2, ..TopicSpec::default() }).await.unwrap();
    for i in 0..10 {
        scan(log, 0, i, 100 + i).await;
        scan(log, 1, i, 50 + i).await;
    }
    append(log, "scans", 0, Some("1".into()), None).await;
    let options = IngestOptions { idle_timeout: Duration::from_millis(300), ..IngestOptions::default() };
    let mut ingest = Ingest::open(Arc::clone(&setup.log), tables(APPEND_ONLY), options.clone()).await.unwrap();
    let (n_rows, _) = until_watermark(&mut ingest, 58).await;
    assert_eq!((n_rows, ingest.dead_letters()), (20, 1));
    // The silence of the slower partition lets time pass it by, as long as the other one speaks.
    let deadline = Instant::now() + PATIENCE;
    let watermarks = loop {
        assert!(Instant::now() < deadline, "the watermark moves in time");
        scan(log, 0, 10, 109).await;
        let watermarks = next(&mut ingest).await.watermarks;
        if watermarks.first().is_some_and(|w| w.watermark_us == Some(108_000_000)) {
            break watermarks;
        }
    };
    assert!(ingest.table_rows("scans").is_none());
    assert_eq!(dead_letters(log, 1).await[0].header("reason-class").unwrap(), "no_new_row");
    drop(ingest);

    // After a restart nothing that is read again takes time back.
    let options = IngestOptions { watermarks, idle_timeout: Duration::ZERO, ..options };
    let mut ingest = Ingest::open(Arc::clone(&setup.log), tables(APPEND_ONLY), options).await.unwrap();
    let epoch = next(&mut ingest).await;
    assert_eq!(epoch.watermarks[0].watermark_us, Some(108_000_000));
    scan(log, 0, 99, 200).await;
    scan(log, 1, 99, 300).await;
    until_watermark(&mut ingest, 199).await;
}
