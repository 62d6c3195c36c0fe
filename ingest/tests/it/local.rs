//! The local log beyond the suite: crashes, reopening, retention, random operations against a model.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ingest::log::{LocalLog, LocalLogOptions};
use model::{AppendRecord, Log, LogError, Offsets, TopicSpec};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::suite::{PATIENCE, Subject, named, read, read_topic, record, values};

/// A log for the suite, and the folder it lives in.
pub(crate) fn subject() -> (Subject, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let options = LocalLogOptions {
        compaction_lag: Duration::ZERO,
        tombstone_grace: Duration::ZERO,
        ..LocalLogOptions::default()
    };
    let log: Arc<dyn Log> = LocalLog::open(dir.path(), options).unwrap();
    (Subject { compacting: Arc::clone(&log), log }, dir)
}

fn open(dir: &TempDir) -> Arc<dyn Log> {
    LocalLog::open(dir.path(), LocalLogOptions::default()).unwrap()
}

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    log.create_topic("plain", TopicSpec { partitions: 2, ..TopicSpec::default() }).await.unwrap();
    log.append(vec![AppendRecord { partition: Some(1), ..record("plain", "k", "1") }]).await.unwrap();
    log.create_topic("keyed", TopicSpec::compacted()).await.unwrap();
    log.append(vec![record("keyed", "a", "1"), record("keyed", "a", "2")]).await.unwrap();
    log.append(vec![record("gone", "k", "v")]).await.unwrap();
    log.delete_topic("gone").await.unwrap();
    log.trim("keyed", 0, 1).await.unwrap();
    drop(log);

    let log = open(&dir);
    assert_eq!(log.topics().await.unwrap(), ["keyed", "plain"]);
    assert_eq!(log.offsets("plain").await.unwrap().len(), 2);
    assert_eq!(values(&read_topic(&log, "plain", 1).await), ["1"]);
    assert_eq!(values(&read_topic(&log, "keyed", 1).await), ["2"]);
    assert_eq!(log.append(vec![record("keyed", "a", "3")]).await.unwrap(), [2]);
    log.append(vec![record("gone", "k", "new")]).await.unwrap();
    assert_eq!(values(&read_topic(&log, "gone", 1).await), ["new"]);
}

#[tokio::test]
async fn a_folder_is_open_once() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    let error = LocalLog::open(dir.path(), LocalLogOptions::default()).unwrap_err();
    assert!(matches!(&error, LogError::Refused { reason } if reason.contains("in use by another process")), "{error}");
    drop(log);
    open(&dir);
}

#[tokio::test]
async fn an_unknown_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(&dir));
    {
        let db = fjall::Database::builder(dir.path()).open().unwrap();
        let meta = db.keyspace("meta", fjall::KeyspaceCreateOptions::default).unwrap();
        meta.insert("format", "99").unwrap();
    }
    let error = LocalLog::open(dir.path(), LocalLogOptions::default()).unwrap_err();
    assert!(matches!(&error, LogError::Corrupt { reason, .. } if reason.contains("99")), "{error}");
}

#[tokio::test]
async fn old_records_go_with_retention() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    let retention = Some(Duration::from_secs(3600));
    log.create_topic("short", TopicSpec { retention, ..TopicSpec::default() }).await.unwrap();
    log.append(vec![AppendRecord { timestamp_ms: Some(1000), ..record("short", "k", "old") }]).await.unwrap();
    log.append(vec![record("short", "k", "new")]).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    while log.offsets("short").await.unwrap()[0].earliest != 1 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(values(&read_topic(&log, "short", 1).await), ["new"]);
}

/// Set for the child process of the crash test: the folder it appends to.
const CRASH_DIR: &str = "ANDON_TEST_CRASH_DIR";

/// The test runs itself as a child that appends and tells what was acknowledged, and kills it in the midst of that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_by_kill_9() {
    if let Ok(dir) = std::env::var(CRASH_DIR) {
        append_until_killed(&dir).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut n_before = 0;
    for round in 0..3 {
        let acknowledged = run_and_kill(&dir, 200);
        let log = open(&dir);
        let bounds = log.offsets("crash").await.unwrap()[0];
        let n_records = usize::try_from(bounds.end).unwrap();
        assert!(bounds.end > acknowledged, "round {round}: acknowledged {acknowledged}, there are {n_records}");
        assert!(n_records > n_before);
        n_before = n_records;
        let records = read_topic(&log, "crash", n_records).await;
        let expected: Vec<_> = (0..n_records).map(|i| format!("{i}{}", "x".repeat(i % 500))).collect();
        assert_eq!(values(&records), expected);
        // The compacted topic was written by the same appends, so it stands at the same record.
        let newest = read_topic(&log, "crash-newest", newest_count(&log).await).await;
        assert_eq!(values(&newest).last().unwrap(), &(n_records - 1).to_string());
    }
}

/// Records of the compacted topic that are there now: between its superseded ones there may be gaps.
async fn newest_count(log: &Arc<dyn Log>) -> usize {
    let mut reader = log.read(named("crash-newest"), &Offsets::default()).await.unwrap();
    let end = log.offsets("crash-newest").await.unwrap()[0].end;
    let mut n_records = 0;
    loop {
        for batch in reader.poll(crate::suite::limit()).await.unwrap() {
            n_records += batch.records.len();
            if batch.next_offset() == end {
                return n_records;
            }
        }
    }
}

async fn append_until_killed(dir: &str) {
    let options = LocalLogOptions { compaction_lag: Duration::from_secs(3600), ..LocalLogOptions::default() };
    let log = LocalLog::open(dir, options).unwrap();
    log.create_topic("crash", TopicSpec::default()).await.unwrap();
    log.create_topic("crash-newest", TopicSpec::compacted()).await.unwrap();
    let mut next = log.offsets("crash").await.unwrap()[0].end;
    loop {
        let size = 1 + next % 7;
        let plain = (next..next + size).map(|i| {
            let value = format!("{i}{}", "x".repeat(usize::try_from(i % 500).unwrap()));
            record("crash", "k", &value)
        });
        next += size;
        let newest = record("crash-newest", "k", &(next - 1).to_string());
        log.append(plain.chain([newest]).collect()).await.unwrap();
        eprintln!("acknowledged {}", next - 1);
    }
}

/// Returns the last offset that the child told before it was killed.
fn run_and_kill(dir: &TempDir, n_appends: usize) -> i64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "local::nothing_acknowledged_is_lost_by_kill_9", "--nocapture"])
        .env(CRASH_DIR, dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut last = None;
    let mut n_told = 0;
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(offset) = line.strip_prefix("acknowledged ") {
            last = Some(offset.parse().unwrap());
            n_told += 1;
            if n_told == n_appends {
                child.kill().unwrap();
            }
        }
    }
    child.wait().unwrap();
    last.expect("the child appended")
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<(bool, i32, u8, Option<u16>)>),
    Trim { keyed: bool, partition: i32, part: u8 },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let one = (any::<bool>(), 0..3i32, 0..6u8, proptest::option::of(0..5000u16));
    prop_oneof![
        6 => proptest::collection::vec(one, 1..40).prop_map(Step::Append),
        1 => (any::<bool>(), 0..3i32, 0..4u8).prop_map(|(keyed, partition, part)| Step::Trim { keyed, partition, part }),
        1 => Just(Step::Reopen),
    ]
}

/// What a partition should hold.
#[derive(Debug, Default, Clone)]
struct Expected {
    earliest: i64,
    records: Vec<(u8, Option<u16>)>,
}

impl Expected {
    /// Offset, key and value of what must be readable; of a compacted partition, the newest of each key at least.
    fn must_have(&self, keyed: bool) -> Vec<(i64, u8, Option<u16>)> {
        let all = self.records.iter().enumerate().map(|(i, (key, value))| (i as i64, *key, *value));
        let kept = all.filter(|(offset, key, value)| {
            let is_newest = !self.records[*offset as usize + 1..].iter().any(|(later, _)| later == key);
            *offset >= self.earliest && (!keyed || (is_newest && value.is_some()))
        });
        kept.collect()
    }
}

fn topic_of(keyed: bool) -> &'static str {
    if keyed { "keyed" } else { "plain" }
}

/// A value as long as its number, so that blocks of many sizes come up.
fn value_of(number: u16) -> Bytes {
    Bytes::from(format!("{number:0>width$}", width = usize::from(number)))
}

async fn check_steps(steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let options = || LocalLogOptions {
        compaction_lag: Duration::ZERO,
        tombstone_grace: Duration::ZERO,
        ..LocalLogOptions::default()
    };
    let mut log: Arc<dyn Log> = LocalLog::open(dir.path(), options()).unwrap();
    let mut expected: BTreeMap<(bool, i32), Expected> = BTreeMap::new();
    log.create_topic("plain", TopicSpec { partitions: 3, ..TopicSpec::default() }).await.unwrap();
    log.create_topic("keyed", TopicSpec { partitions: 3, ..TopicSpec::compacted() }).await.unwrap();
    for step in steps {
        match step {
            Step::Append(records) => {
                let mut offsets = Vec::new();
                for (keyed, partition, key, value) in &records {
                    let partition = expected.entry((*keyed, *partition)).or_default();
                    offsets.push(partition.records.len() as i64);
                    partition.records.push((*key, *value));
                }
                let batch = records.into_iter().map(|(keyed, partition, key, value)| AppendRecord {
                    partition: Some(partition),
                    value: value.map(value_of),
                    ..record(topic_of(keyed), &key.to_string(), "")
                });
                assert_eq!(log.append(batch.collect()).await.unwrap(), offsets);
            }
            Step::Trim { keyed, partition, part } => {
                let expected = expected.entry((keyed, partition)).or_default();
                let before = expected.records.len() as i64 * i64::from(part) / 3;
                log.trim(topic_of(keyed), partition, before).await.unwrap();
                expected.earliest = expected.earliest.max(before);
            }
            Step::Reopen => {
                drop(log);
                log = LocalLog::open(dir.path(), options()).unwrap();
            }
        }
        check_contents(&log, &expected).await;
    }
}

async fn check_contents(log: &Arc<dyn Log>, expected: &BTreeMap<(bool, i32), Expected>) {
    for ((keyed, partition), expected) in expected {
        let bounds = log.offsets(topic_of(*keyed)).await.unwrap()[usize::try_from(*partition).unwrap()];
        assert_eq!((bounds.earliest, bounds.end), (expected.earliest, expected.records.len() as i64));
    }
    for keyed in [false, true] {
        let mut reader = log.read(named(topic_of(keyed)), &Offsets::default()).await.unwrap();
        let mut found: BTreeMap<i32, Vec<(i64, u8, Option<u16>)>> = BTreeMap::new();
        loop {
            let some = model::PollLimit { max_records: 13, max_bytes: 9000, wait: Duration::ZERO };
            let batches = reader.poll(some).await.unwrap();
            if batches.is_empty() {
                break;
            }
            for batch in batches {
                let rows = batch.records.iter().map(|r| {
                    let key = std::str::from_utf8(r.key.as_ref().unwrap()).unwrap().parse().unwrap();
                    let number = |v: &Bytes| std::str::from_utf8(v).unwrap().parse().unwrap();
                    (r.offset, key, r.value.as_ref().map(number))
                });
                found.entry(batch.partition).or_default().extend(rows);
            }
        }
        for partition in 0..3 {
            let expected = expected.get(&(keyed, partition)).cloned().unwrap_or_default();
            let found = found.remove(&partition).unwrap_or_default();
            let must_have = expected.must_have(keyed);
            if keyed {
                // Superseded records and tombstones may still be there, as they were written.
                assert!(found.iter().map(|row| row.0).is_sorted());
                assert!(must_have.iter().all(|row| found.contains(row)), "{found:?} lacks some of {must_have:?}");
                for (offset, key, value) in found {
                    assert_eq!(expected.records[usize::try_from(offset).unwrap()], (key, value));
                    assert!(offset >= expected.earliest);
                }
            } else {
                assert_eq!(found, must_have);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn random_operations_match_a_model(steps in proptest::collection::vec(step(), 1..20)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(check_steps(steps));
    }
}

#[tokio::test]
async fn a_busy_partition_does_not_starve_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    let busy = (0..5000).map(|i| record("busy", "k", &i.to_string()));
    log.append(busy.chain([record("quiet", "k", "here")]).collect()).await.unwrap();
    let both = vec![model::TopicSelector::Name("busy".to_owned()), model::TopicSelector::Name("quiet".to_owned())];
    let mut reader = log.read(both, &Offsets::default()).await.unwrap();
    let some = model::PollLimit { max_records: 100, ..crate::suite::limit() };
    let batches = reader.poll(some).await.unwrap();
    let topics: Vec<_> = batches.iter().map(|batch| &*batch.topic).collect();
    assert!(topics.contains(&"quiet"), "{topics:?}");
    let left = 5001 - batches.iter().map(|batch| batch.records.len()).sum::<usize>();
    read(&mut *reader, left).await;
}
