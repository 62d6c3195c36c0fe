//! The shipped rules on the pyERP capture, through the real stages: the trouble that its calendar names fires, and
//! resolves when it has passed.
//!
//! The capture is written to a local log in the order of the ERP's database, stretch by stretch; ingest, engine and
//! alerting run live behind it, with business time following the data.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alerting::AlertingOptions;
use alerting::alert::{Alert, State};
use alerting::store::Store;
use andon::program::{RuleChoice, SqlSet};
use bytes::Bytes;
use flate2::read::GzDecoder;
use ingest::log::{LocalLog, LocalLogOptions};
use ingest::{Ingest, IngestOptions};
use model::clock::ManualClock;
use model::{AppendRecord, Log, TopicSpec};
use pipelines::{Engine, RunOptions};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

/// Longest wait for one stretch to show in the alerts.
const PATIENCE: Duration = Duration::from_secs(120);
const APPEND_RECORDS: usize = 2_000;
/// Columns that tell when a row was written, in the ERP's own time.
const TIME_COLUMNS: [&str; 4] = ["created_at", "modified_at", "updated_at", "timestamp"];
const TIMED_TOPICS: [&str; 4] =
    ["sales_salesrecord", "inventory_inventorymovement", "inventory_productstorage", "production_productionorder"];

/// A record and its place in the order of the database.
struct Captured {
    order: (bool, i64, i64),
    time: Option<String>,
    record: AppendRecord,
}

#[derive(serde::Deserialize)]
struct Line {
    topic: String,
    partition: i32,
    timestamp: i64,
    key: Option<Box<RawValue>>,
    value: Option<Box<RawValue>>,
}

fn read_capture(dir: &Path) -> Vec<Captured> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir.join("topics")).expect("the capture is there") {
        let path = entry.expect("readable").path();
        let mut order = (false, 0, 0);
        for line in BufReader::new(GzDecoder::new(File::open(&path).expect("readable"))).lines() {
            let line: Line = serde_json::from_str(&line.expect("text")).expect("a line of the capture");
            let mut time = None;
            // A tombstone has no place of its own: it comes right after the delete before it.
            if let Some(value) = &line.value {
                let envelope: Value = serde_json::from_str(value.get()).expect("an envelope");
                order = place(&envelope);
                time = time_of(&line.topic, &envelope["after"]);
            }
            let bytes = |json: Box<RawValue>| Bytes::from(json.get().to_owned());
            let record = AppendRecord {
                topic: Arc::from(line.topic),
                partition: Some(line.partition),
                timestamp_ms: Some(line.timestamp),
                key: line.key.map(bytes),
                value: line.value.map(bytes),
                headers: Vec::new(),
            };
            all.push(Captured { order, time, record });
        }
    }
    all.sort_by_key(|c| c.order);
    all
}

/// Snapshot rows first, then by the commit before the transaction and the row's own position.
fn place(envelope: &Value) -> (bool, i64, i64) {
    let source = &envelope["source"];
    let sequence: Vec<Option<String>> =
        serde_json::from_str(source["sequence"].as_str().unwrap_or("[]")).unwrap_or_default();
    let commit = sequence.first().cloned().flatten().and_then(|s| s.parse().ok()).unwrap_or_default();
    (envelope["op"] != "r", commit, source["lsn"].as_i64().unwrap_or_default())
}

fn time_of(topic: &str, row: &Value) -> Option<String> {
    let is_timed = TIMED_TOPICS.iter().any(|t| topic.ends_with(&format!(".public.{t}")));
    let times = TIME_COLUMNS.iter().filter_map(|c| row.get(*c)?.as_str());
    times.max().filter(|_| is_timed).map(str::to_owned)
}

/// The stages over one log.
struct World {
    log: Arc<dyn Log>,
    store: Store,
    shutdown: CancellationToken,
    engine: tokio::task::JoinHandle<Result<(), pipelines::Error>>,
    alerting: tokio::task::JoinHandle<Result<(), alerting::Error>>,
    rest: std::vec::IntoIter<Captured>,
    next: Option<Captured>,
    _folder: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("temp folder");
        let log: Arc<dyn Log> = LocalLog::open(folder.path().join("log"), LocalLogOptions::default()).expect("log");
        let set = SqlSet::new("pyerp", None, RuleChoice::Shipped).expect("shipped SQL");
        let rules = alerting::rules::load(&set.rules).expect("the rules are right");
        let planned = set.plan().expect("the views and rules are right");
        let capture = read_capture(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures/pyerp"));
        for topic in capture.iter().map(|c| Arc::clone(&c.record.topic)).collect::<BTreeSet<_>>() {
            log.create_topic(&topic, TopicSpec::default()).await.expect("topic");
        }
        let clock = ManualClock::default();
        let engine = Engine::new(planned.program, Arc::new(clock.clone())).expect("engine");
        let source = Ingest::open(Arc::clone(&log), planned.tables, IngestOptions::default()).await.expect("sources");
        let shutdown = CancellationToken::new();
        let options = RunOptions { stream_clock: Some(clock), ..RunOptions::default() };
        let engine =
            tokio::spawn(pipelines::run(engine, Box::new(source), Arc::clone(&log), options, None, shutdown.clone()));
        let database_url = format!("sqlite:{}", folder.path().join("alerts.db").display());
        let store = Store::open(&database_url).await.expect("store");
        let options = AlertingOptions::new(database_url);
        let alerting = tokio::spawn(alerting::run(Arc::clone(&log), rules, options, shutdown.clone()));
        let rest = capture.into_iter();
        Self { log, store, shutdown, engine, alerting, rest, next: None, _folder: folder }
    }

    /// Lets the ERP live on until this time, UTC.
    async fn live_until(&mut self, time: &str) {
        let mut records = Vec::new();
        while let Some(captured) = self.next.take().or_else(|| self.rest.next()) {
            if captured.time.as_deref().is_some_and(|t| t > time) {
                self.next = Some(captured);
                break;
            }
            records.push(captured.record);
            if records.len() == APPEND_RECORDS {
                self.log.append(std::mem::take(&mut records)).await.expect("append");
            }
        }
        self.log.append(records).await.expect("append");
    }

    /// Waits until, of these alerts (rule, column, value), all fire, or none does any more after it did.
    async fn expect(&self, state: State, wanted: &[(&str, &str, &str)]) {
        let deadline = Instant::now() + PATIENCE;
        let mut pause = tokio::time::interval(Duration::from_millis(50));
        loop {
            let alerts = self.store.alerts(100_000).await.expect("alerts");
            let wrong: Vec<_> = wanted.iter().filter(|w| !is_so(&alerts, state, w)).collect();
            if wrong.is_empty() {
                return;
            }
            assert!(!self.engine.is_finished() && !self.alerting.is_finished(), "a stage has ended");
            let titles: Vec<_> = alerts.iter().map(|a| (a.state, &a.title)).take(60).collect();
            assert!(Instant::now() < deadline, "expected {state:?}: {wrong:?}, but there is {titles:#?}");
            pause.tick().await;
        }
    }

    /// The alerts of a rule that fire now.
    async fn firing(&self, rule: &str) -> Vec<Alert> {
        let alerts = self.store.alerts(100_000).await.expect("alerts");
        alerts.into_iter().filter(|a| a.state == State::Firing && &*a.rule == rule).collect()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.engine.await.expect("engine").expect("engine ends well");
        self.alerting.await.expect("alerting").expect("alerting ends well");
    }
}

fn is_so(alerts: &[Alert], state: State, (rule, column, value): &(&str, &str, &str)) -> bool {
    let mut states = alerts.iter().filter(|a| &*a.rule == *rule && a.row[*column] == **value).map(|a| a.state);
    match state {
        State::Firing => states.any(|s| s == State::Firing),
        State::Resolved => states.clone().next().is_some() && states.all(|s| s == State::Resolved),
    }
}

const STOCK: &str = "stock_below_threshold";
const LATE: &str = "production_order_late";
const BURST: &str = "customer_order_burst";

#[tokio::test(flavor = "multi_thread")]
async fn the_troubles_of_the_calendar_fire_and_resolve() {
    let mut world = World::start().await;

    // Stock-out 1: mold F0109 is broken and a big order takes the last pieces of 1280-BE2.
    world.live_until("2025-10-09T12:00").await;
    world.expect(State::Firing, &[(STOCK, "sku", "1280-BE2")]).await;
    assert!(world.firing(STOCK).await.len() < 20, "too many alerts help nobody");

    // The mold's orders are late, and customer 10768 places 21 orders within two hours.
    world.live_until("2025-10-29T10:58").await;
    world
        .expect(
            State::Firing,
            &[(BURST, "number", "10768"), (LATE, "number", "WA25-00073"), (LATE, "number", "WA25-00075")],
        )
        .await;
    let bursts = world.firing(BURST).await;
    assert_eq!(bursts.len(), 1, "nobody else orders so much, the till's customer included: {bursts:#?}");
    world.live_until("2025-10-29T15:30").await;
    world.expect(State::Resolved, &[(BURST, "number", "10768")]).await;
    world.expect(State::Firing, &[(LATE, "number", "WA25-00072"), (LATE, "number", "WA25-00074")]).await;

    // The mold is repaired, its orders are done, the figures are back.
    world.live_until("2025-11-21T18:00").await;
    let late = ["WA25-00072", "WA25-00073", "WA25-00074", "WA25-00075"].map(|number| (LATE, "number", number));
    world.expect(State::Resolved, &late).await;
    world.expect(State::Resolved, &[(STOCK, "sku", "1280-BE2")]).await;

    // Stock-out 2: a newspaper article, and nothing comes for nine days.
    world.live_until("2025-11-26T00:00").await;
    world.expect(State::Firing, &[(STOCK, "sku", "1109-BE2")]).await;
    world.live_until("2025-12-18T12:00").await;
    world.expect(State::Resolved, &[(STOCK, "sku", "1109-BE2")]).await;
    assert!(world.firing(STOCK).await.len() < 20, "too many alerts help nobody");
    world.stop().await;
}
