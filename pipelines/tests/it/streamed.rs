//! Views that only grow: their rows are written as they come and not kept, over restarts too.

use std::sync::Arc;
use std::time::Duration;

use ingest::log::local::{LocalLog, LocalLogOptions};
use model::clock::ManualClock;
use model::view::EpochMark;
use model::{Delta, Log, SourceEpoch, SqlFile, TableDelta, topics};
use pipelines::{Engine, Program, RunOptions, StateOptions, StateStore, run};
use tokio_util::sync::CancellationToken;

use crate::closing::{appended, row};
use crate::publish::{Prepared, read_all, rows, until_live};
use crate::world::{NOW_US, batch};

/// Rows in one epoch.
const EPOCH_ROWS: i64 = 100;

const VIEWS: &str = "
CREATE MATERIALIZED VIEW large AS SELECT id, k, amount FROM s WHERE amount >= 50;
CREATE MATERIALIZED VIEW pairs AS SELECT s.id, t.amount FROM s JOIN s AS t ON s.k = t.id;
CREATE MATERIALIZED VIEW counted AS SELECT k, count(*) AS n FROM s GROUP BY k;
";
const STREAMED: [&str; 2] = ["large", "pairs"];

fn epoch(number: i64) -> SourceEpoch {
    let table = appended("s");
    let first = number * EPOCH_ROWS;
    let one = |id: i64| row(id, id * 7 % 1_000, Some(id), id * 31 % 100);
    let delta = Delta::inserts(batch(&table.schema, &(first..first + EPOCH_ROWS).map(one).collect::<Vec<_>>()));
    let mut epoch = SourceEpoch { n_records: EPOCH_ROWS as usize, ..SourceEpoch::default() };
    epoch.tables.push(TableDelta { table: Arc::clone(&table.name), delta, positions: Vec::new() });
    epoch.offsets.set("s", 0, first + EPOCH_ROWS);
    epoch
}

fn program() -> Program {
    let file = SqlFile { path: "v.sql".to_owned(), text: VIEWS.to_owned() };
    Program::load(&[appended("s")], &[file], &[]).expect("the views are right")
}

/// Runs the stage over epochs until it is live, and stops it.
async fn run_over(log: &Arc<dyn Log>, epochs: impl Iterator<Item = i64>, state: Option<&str>) {
    let since_ms = chrono::Utc::now().timestamp_millis();
    let program = program();
    let (mut options, mut restored) = (RunOptions::default(), None);
    if let Some(place) = state {
        let store = StateStore::open(place).await.expect("the place can be used");
        restored = store.restore(&program).await.expect("readable");
        options.state = Some(StateOptions { store, interval: Duration::from_millis(20), unsaved_bytes_max: 1 << 24 });
    }
    let next = restored.as_ref().and_then(|r| r.source.offsets.get("s", 0)).unwrap_or(0);
    let left = epochs.filter(|number| number * EPOCH_ROWS >= next);
    let source = Box::new(Prepared { epochs: left.map(epoch).collect() });
    let engine = Engine::new(program, Arc::new(ManualClock::at(NOW_US))).expect("columns can be kept");
    let shutdown = CancellationToken::new();
    let stage = tokio::spawn(run(engine, source, Arc::clone(log), options, restored, shutdown.clone()));
    until_live(log, since_ms).await;
    shutdown.cancel();
    stage.await.expect("no panic").expect("no error");
}

fn new_log() -> (tempfile::TempDir, Arc<dyn Log>) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let log = LocalLog::open(dir.path(), LocalLogOptions::default()).expect("the log opens");
    (dir, log)
}

/// What an engine that nobody disturbs writes.
async fn assert_same(log: &Arc<dyn Log>, epochs: impl Iterator<Item = i64>) {
    let (_dir, fresh) = new_log();
    run_over(&fresh, epochs, None).await;
    for view in ["large", "pairs", "counted"] {
        let topic = topics::view(view);
        let expected = rows(&read_all(&*fresh, &topic).await);
        assert!(!expected.is_empty(), "{view} has rows");
        assert_eq!(rows(&read_all(&**log, &topic).await), expected, "{view}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_a_growing_view_are_written_as_they_come() {
    let (_dir, log) = new_log();
    run_over(&log, 0..6, None).await;
    for (view, at_once) in [("large", false), ("pairs", false), ("counted", true)] {
        let records = read_all(&*log, &topics::view(view)).await;
        let mut epochs: Vec<u64> = records.iter().filter_map(|r| Some(EpochMark::from_record(r)?.epoch)).collect();
        epochs.dedup();
        assert_eq!(epochs.len() == 1, at_once, "{view} is written in the epochs {epochs:?}");
    }
    // The same history again: nothing is written.
    let written = |view: &'static str| {
        let log = Arc::clone(&log);
        async move { read_all(&*log, &topics::view(view)).await.len() }
    };
    let before = written("large").await;
    run_over(&log, 0..6, None).await;
    assert_eq!(written("large").await, before);
    // Another history: what is not in it goes, what is new comes.
    run_over(&log, 2..8, None).await;
    assert_same(&log, 2..8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_growing_view_goes_on_from_stored_state() {
    let (dir, log) = new_log();
    let place = dir.path().join("state").display().to_string();
    run_over(&log, 0..4, Some(&place)).await;
    let before = read_all(&*log, &topics::view("large")).await;
    run_over(&log, 0..7, Some(&place)).await;
    let after = read_all(&*log, &topics::view("large")).await;
    assert_eq!(after[..before.len()], before[..], "what was written is not touched");
    assert!(after.iter().all(|r| r.value.is_some()), "no row is taken back");
    let keys: std::collections::BTreeSet<_> = after.iter().map(|r| r.key.clone()).collect();
    assert_eq!(keys.len(), after.len(), "no row is written twice");
    assert_same(&log, 0..7).await;

    // The topics are lost: all is read again and written.
    for view in STREAMED.into_iter().chain(["counted"]) {
        log.delete_topic(&topics::view(view)).await.expect("deleted");
    }
    std::fs::remove_dir_all(&place).expect("removed");
    run_over(&log, 0..7, Some(&place)).await;
    assert_same(&log, 0..7).await;
}
