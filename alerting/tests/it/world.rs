//! A log, a database and an alerting stage that can be killed and started again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use alerting::alert::AlertData;
use alerting::store::Store;
use alerting::{AlertingOptions, Rule};
use bytes::Bytes;
use ingest::log::local::{LocalLog, LocalLogOptions};
use model::clock::ManualClock;
use model::event::CloudEvent;
use model::view::EpochMark;
use model::{AppendRecord, Log, Offsets, PollLimit, SqlFile, TopicSelector, TopicSpec, topics};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) type Event = CloudEvent<AlertData>;

/// Rows by rule and id, as the engine would keep them.
pub(crate) type Rows = BTreeMap<(String, i64), i64>;

pub(crate) struct World {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) database_url: String,
    pub(crate) clock: ManualClock,
    stage: Option<(JoinHandle<Result<(), alerting::Error>>, CancellationToken)>,
    epoch: u64,
    _folder: tempfile::TempDir,
}

/// A rule over rows `{"id", "units"}`.
pub(crate) fn rule(name: &str, severity: &str) -> Rule {
    let text = format!(
        "/*---\nname: {name}\nowner: team\nseverity: {severity}\nkey: [id]\ntitle: \"{{{{ id }}}} has {{{{ units }}}}\"\n\
         impact: units\n---*/\nSELECT id, units FROM t"
    );
    let file = SqlFile { path: format!("rules/{name}.sql"), text };
    alerting::rules::load(&[file]).unwrap().remove(0)
}

impl World {
    pub(crate) async fn new(database_url: Option<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = LocalLogOptions { compaction_lag: PATIENCE * 10, ..LocalLogOptions::default() };
        let log = LocalLog::open(folder.path().join("log"), options).unwrap();
        let database_url = database_url.unwrap_or_else(|| sqlite_url(folder.path()));
        // The tables are there before the stage and the test look at them at once.
        Store::open(&database_url).await.unwrap().close().await;
        let clock = ManualClock::at(1_000_000_000_000);
        Self { log, database_url, clock, stage: None, epoch: 0, _folder: folder }
    }

    pub(crate) fn start(&mut self, rules: Vec<Rule>) {
        let shutdown = CancellationToken::new();
        let clock = Arc::new(self.clock.clone());
        let options = AlertingOptions { database_url: self.database_url.clone(), clock };
        let stage = tokio::spawn(alerting::run(Arc::clone(&self.log), rules, options, shutdown.clone()));
        self.stage = Some((stage, shutdown));
    }

    /// Ends the stage as an operator does.
    pub(crate) async fn stop(&mut self) {
        let (stage, shutdown) = self.stage.take().unwrap();
        shutdown.cancel();
        stage.await.unwrap().unwrap();
    }

    /// Drops the stage in the middle of whatever it does.
    pub(crate) async fn kill(&mut self) {
        let (stage, _) = self.stage.take().unwrap();
        stage.abort();
        assert!(stage.await.is_err_and(|e| e.is_cancelled()), "the stage had ended by itself");
    }

    /// Appends one epoch of the engine: `(rule, id, units)`, `None` for a row that left.
    pub(crate) async fn epoch(&mut self, changes: &[(&str, i64, Option<i64>)]) {
        self.epoch += 1;
        let as_of_ms = i64::try_from(self.epoch).unwrap() * 60_000;
        for (i, (rule, id, units)) in changes.iter().enumerate() {
            let topic = topics::rule(rule);
            self.log.create_topic(&topic, TopicSpec::compacted()).await.unwrap();
            let last = !changes[i + 1..].iter().any(|(other, ..)| other == rule);
            let row = units.map(|units| Bytes::from(json!({"id": id, "units": units.to_string()}).to_string()));
            let record = AppendRecord {
                topic: Arc::from(topic),
                partition: Some(0),
                timestamp_ms: Some(as_of_ms),
                key: Some(Bytes::from(json!({"id": id}).to_string())),
                value: row,
                headers: EpochMark { epoch: self.epoch, as_of_ms, last }.to_headers(),
            };
            self.log.append(vec![record]).await.unwrap();
        }
    }

    /// All events on the topic so far, in order. Compaction leaves superseded records alone for the time of a test.
    pub(crate) async fn published(&self) -> Vec<Event> {
        let end = self.log.offsets(topics::ALERTS).await.unwrap().first().map_or(0, |p| p.end);
        let selector = TopicSelector::Name(topics::ALERTS.to_owned());
        let mut reader = self.log.read(vec![selector], &Offsets::default()).await.unwrap();
        let mut events = Vec::new();
        let mut next_offset = 0;
        while next_offset < end {
            let limit = PollLimit { max_records: 1_000, max_bytes: 1 << 20, wait: PATIENCE };
            for batch in reader.poll(limit).await.unwrap() {
                next_offset = batch.next_offset();
                events.extend(batch.records.iter().map(|r| serde_json::from_slice(r.value.as_ref().unwrap()).unwrap()));
            }
        }
        events
    }

    /// Waits until the published events, one line each, are these.
    pub(crate) async fn expect_events(&self, expected: &[&str]) {
        let lines = || async { self.published().await.iter().map(line).collect::<Vec<_>>() };
        wait_for(&format!("events {expected:#?}"), || async {
            let lines = lines().await;
            if lines == expected { Ok(()) } else { Err(format!("{lines:#?}")) }
        })
        .await;
    }

    /// Waits until the firing alerts in the database are exactly these rows.
    pub(crate) async fn expect_firing(&self, rows: &Rows) {
        let store = Store::open(&self.database_url).await.unwrap();
        let expected: BTreeMap<(String, i64), String> =
            rows.iter().map(|(k, units)| (k.clone(), units.to_string())).collect();
        wait_for(&format!("firing {expected:?}"), || async {
            let alerts = store.alerts(10_000).await.unwrap();
            let firing: BTreeMap<(String, i64), String> = alerts
                .iter()
                .filter(|a| a.resolved_at_ms.is_none())
                .map(|a| {
                    ((a.rule.to_string(), a.row["id"].as_i64().unwrap()), a.row["units"].as_str().unwrap().to_owned())
                })
                .collect();
            if firing == expected { Ok(()) } else { Err(format!("{firing:?}")) }
        })
        .await;
        store.close().await;
    }

    /// Waits until every stored event is published, once and in order.
    pub(crate) async fn expect_all_published(&self) {
        wait_for("all events to be published", || async {
            let published: Vec<String> = self.published().await.into_iter().map(|e| e.id).collect();
            let stored: Vec<String> = self.history().await.into_iter().map(|e| e.id).collect();
            if published == stored { Ok(()) } else { Err(format!("{published:#?} of {stored:#?}")) }
        })
        .await;
    }

    /// Every event ever stored, in order.
    pub(crate) async fn history(&self) -> Vec<Event> {
        let store = Store::open(&self.database_url).await.unwrap();
        let events = store.events(0, 100_000).await.unwrap();
        store.close().await;
        events.iter().map(|e| serde_json::from_str(&e.body).unwrap()).collect()
    }
}

/// `firing stock 1: 1 has 5, 12.3` with the priority last.
pub(crate) fn line(event: &Event) -> String {
    let data = &event.data;
    let state = event.event_type.rsplit('.').next().unwrap();
    format!("{state} {} {}: {}, {}", data.rule, data.key["id"], data.title, data.priority)
}

async fn wait_for<F>(what: &str, mut check: impl FnMut() -> F)
where
    F: Future<Output = Result<(), String>>,
{
    let deadline = Instant::now() + PATIENCE;
    let mut pause = tokio::time::interval(Duration::from_millis(20));
    loop {
        match check().await {
            Ok(()) => return,
            Err(now) => assert!(Instant::now() < deadline, "waited for {what}, but it is {now}"),
        }
        pause.tick().await;
    }
}

fn sqlite_url(folder: &Path) -> String {
    let path: PathBuf = folder.join("alerts.db");
    format!("sqlite:{}", path.display())
}
