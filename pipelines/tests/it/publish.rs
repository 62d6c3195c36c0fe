//! What readers of the view topics see, over a restart too.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use ingest::log::local::{LocalLog, LocalLogOptions};
use model::clock::ManualClock;
use model::log::{PollLimit, TopicSelector};
use model::view::{EngineStatus, EpochMark};
use model::{EpochSource, Log, Offsets, Record, SourceEpoch, topics};
use pipelines::{RunOptions, run};
use tokio_util::sync::CancellationToken;

use crate::world::{NOW_US, World, engine};

/// Epochs that were made beforehand, as if read from a log.
pub(crate) struct Prepared {
    pub(crate) epochs: VecDeque<SourceEpoch>,
}

#[async_trait::async_trait]
impl EpochSource for Prepared {
    async fn next_epoch(
        &mut self,
        wait: Duration,
    ) -> Result<Option<SourceEpoch>, Box<dyn std::error::Error + Send + Sync>> {
        match self.epochs.pop_front() {
            Some(epoch) => Ok(Some(epoch)),
            None => {
                tokio::time::sleep(wait).await;
                Ok(None)
            }
        }
    }

    fn lag_records(&self) -> Option<u64> {
        Some(self.epochs.len() as u64)
    }

    fn dead_letters(&self) -> u64 {
        0
    }

    fn table_rows(&self, _: &str) -> Option<RecordBatch> {
        None
    }
}

fn views() -> Vec<(String, String)> {
    vec![
        (
            "by_status".to_owned(),
            "SELECT status, count(*) AS n, sum(amount) AS total FROM orders GROUP BY status".to_owned(),
        ),
        ("all_orders".to_owned(), "SELECT count(*) AS n FROM orders".to_owned()),
        ("named".to_owned(), "SELECT o.id, c.name FROM orders o JOIN customers c ON c.id = o.customer_id".to_owned()),
    ]
}

pub(crate) async fn read_all(log: &dyn Log, topic: &str) -> Vec<Record> {
    let end: i64 = log.offsets(topic).await.expect("offsets").iter().map(|p| p.end).sum();
    let selector = vec![TopicSelector::Name(topic.to_owned())];
    let mut reader = log.read(selector, &Offsets::default()).await.expect("reader");
    let mut records: Vec<Record> = Vec::new();
    let limit = PollLimit { max_records: 10_000, max_bytes: 1 << 24, wait: Duration::from_millis(300) };
    while records.last().map_or(0, |r| r.offset + 1) < end {
        let batches = reader.poll(limit).await.expect("poll");
        if batches.is_empty() {
            break;
        }
        records.extend(batches.into_iter().flat_map(|b| b.records));
    }
    records
}

pub(crate) fn rows(records: &[Record]) -> BTreeMap<String, String> {
    let text = |b: &bytes::Bytes| String::from_utf8_lossy(b).into_owned();
    let mut rows = BTreeMap::new();
    for record in records {
        let key = text(record.key.as_ref().expect("view records have keys"));
        match &record.value {
            Some(value) => rows.insert(key, text(value)),
            None => rows.remove(&key),
        };
    }
    rows
}

/// Waits until a stage's status says that all is read and live.
pub(crate) async fn until_live(log: &Arc<dyn Log>, since_ms: i64) {
    let live = async {
        loop {
            let newest = read_all(&**log, topics::STATUS).await.into_iter().next_back().and_then(|r| r.value);
            let status: Option<EngineStatus> = newest.and_then(|v| serde_json::from_slice(&v).ok());
            if status.is_some_and(|s| s.phase == "live" && s.written_at_ms >= since_ms) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), live).await.expect("the stage gets live");
}

/// Runs the stage over `epochs` until its status says that all is read and live, then stops it.
async fn run_until_live(log: &Arc<dyn Log>, epochs: Vec<SourceEpoch>, since_ms: i64) {
    run_views_until_live(log, &views(), epochs, since_ms).await;
}

async fn run_views_until_live(log: &Arc<dyn Log>, views: &[(String, String)], epochs: Vec<SourceEpoch>, since_ms: i64) {
    let clock = ManualClock::at(NOW_US);
    let engine = engine(views, &clock);
    let shutdown = CancellationToken::new();
    let source = Box::new(Prepared { epochs: epochs.into() });
    let stage = tokio::spawn(run(engine, source, Arc::clone(log), RunOptions::default(), None, shutdown.clone()));
    until_live(log, since_ms).await;
    shutdown.cancel();
    stage.await.expect("no panic").expect("no error");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_publishes_the_difference_only() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let log: Arc<dyn Log> = LocalLog::open(dir.path(), LocalLogOptions::default()).expect("the log opens");
    let mut world = World::new(7);
    let first: Vec<SourceEpoch> = (0..4).map(|_| world.random_epoch(50)).collect();
    run_until_live(&log, first.clone(), 0).await;
    let topic = topics::view("by_status");
    let before = read_all(&*log, &topic).await;

    // The same history again: nothing differs, so nothing is written.
    run_until_live(&log, first.clone(), chrono::Utc::now().timestamp_millis()).await;
    assert_eq!(read_all(&*log, &topic).await, before);

    let more: Vec<SourceEpoch> = (0..2).map(|_| world.random_epoch(60)).collect();
    let all: Vec<SourceEpoch> = first.into_iter().chain(more).collect();
    run_until_live(&log, all.clone(), chrono::Utc::now().timestamp_millis()).await;
    let after = read_all(&*log, &topic).await;
    let epoch = |r: &Record| EpochMark::from_record(r).expect("records carry their epoch");
    let old_end = before.last().expect("rows").offset;
    let new: Vec<&Record> = after.iter().filter(|r| r.offset > old_end).collect();
    assert!(!new.is_empty(), "the second history differs");
    assert!(new.iter().all(|r| epoch(r).epoch > epoch(before.last().expect("rows")).epoch), "epochs grow");
    assert_eq!(new.iter().filter(|r| epoch(r).last).count(), 1, "one epoch, marked at its end");

    // What the topics hold equals what an engine without a restart would hold.
    let fresh_dir = tempfile::tempdir().expect("a temporary folder");
    let fresh: Arc<dyn Log> = LocalLog::open(fresh_dir.path(), LocalLogOptions::default()).expect("the log opens");
    run_until_live(&fresh, all, 0).await;
    for (name, _) in views() {
        let topic = topics::view(&name);
        assert_eq!(rows(&read_all(&*log, &topic).await), rows(&read_all(&*fresh, &topic).await), "{name}");
    }
}

/// Readers go on seeing what was right; that nothing is known of the view any more does not mean that it is empty.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_fails_while_history_is_read_keeps_its_topic() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let log: Arc<dyn Log> = LocalLog::open(dir.path(), LocalLogOptions::default()).expect("the log opens");
    let epochs = vec![World::new(7).random_epoch(50)];
    let chained = |until: &str| {
        let sql = format!(
            "WITH RECURSIVE t (n) AS (SELECT id FROM customers UNION ALL SELECT n + 1 FROM t {until}) \
             SELECT n % 2 AS half, count(*) AS times FROM t GROUP BY n % 2"
        );
        vec![("chained".to_owned(), sql)]
    };
    run_views_until_live(&log, &chained("WHERE n < 9"), epochs.clone(), 0).await;
    let topic = topics::view("chained");
    let before = rows(&read_all(&*log, &topic).await);
    assert_eq!(before.len(), 2);
    run_views_until_live(&log, &chained(""), epochs, chrono::Utc::now().timestamp_millis()).await;
    assert_eq!(rows(&read_all(&*log, &topic).await), before);
}
