//! Writes to a log what the engine and alerting write.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ingest::log::{LocalLog, LocalLogOptions};
use model::event::CloudEvent;
use model::view::{EngineStatus, EpochMark, ViewColumn};
use model::{AppendRecord, Log, TopicSpec, ViewInfo, ViewKind, topics};
use serde_json::{Value, json};

/// A local log in a folder.
pub(crate) fn open_log(dir: &Path) -> Arc<dyn Log> {
    LocalLog::open(dir, LocalLogOptions::default()).unwrap()
}

/// The view that the tests use: `stock`, with the key column `item`.
pub(crate) fn stock_view() -> ViewInfo {
    let column = |name: &str, data_type: &str| ViewColumn {
        name: name.to_owned(),
        data_type: data_type.to_owned(),
        nullable: true,
    };
    ViewInfo {
        name: "stock".to_owned(),
        kind: ViewKind::View,
        topic: topics::view("stock"),
        columns: vec![column("item", "Int64"), column("quantity", "Decimal128(20, 2)"), column("note", "Utf8")],
        key: vec!["item".to_owned()],
        description: Some("Stock on hand by item.".to_owned()),
        sql: "CREATE MATERIALIZED VIEW stock AS SELECT item, quantity, note FROM erp.stock_level".to_owned(),
        empty_inputs: vec![],
        maintenance: "incremental".to_owned(),
    }
}

/// A view with one row: `sales`, with the column `total`.
pub(crate) fn sales_view() -> ViewInfo {
    let total = ViewColumn { name: "total".to_owned(), data_type: "Int64".to_owned(), nullable: true };
    ViewInfo {
        name: "sales".to_owned(),
        topic: topics::view("sales"),
        columns: vec![total],
        key: vec![],
        ..stock_view()
    }
}

/// A row of the view `stock`.
pub(crate) fn stock_row(item: u64, quantity: &str) -> Value {
    json!({"item": item, "quantity": quantity, "note": null})
}

/// Writes to a log what the engine and alerting write.
#[derive(Clone)]
pub(crate) struct Feeder {
    log: Arc<dyn Log>,
}

impl Feeder {
    pub(crate) fn new(log: Arc<dyn Log>) -> Self {
        Self { log }
    }

    pub(crate) async fn declare(&self, info: &ViewInfo) {
        self.log.create_topic(&info.topic, TopicSpec::compacted()).await.unwrap();
        self.log.create_topic(topics::CATALOG, TopicSpec::compacted()).await.unwrap();
        let json = serde_json::to_string(info).unwrap();
        self.append(vec![record(topics::CATALOG, info.name.clone(), Some(json), None)]).await;
    }

    /// One epoch of the view `stock`: items with their quantity, `None` where the row leaves.
    pub(crate) async fn epoch(&self, epoch: u64, rows: &[(u64, Option<&str>)]) {
        let topic = topics::view("stock");
        let records = rows.iter().enumerate().map(|(n, (item, quantity))| {
            let row = quantity.map(|quantity| stock_row(*item, quantity).to_string());
            let mark = EpochMark { epoch, as_of_ms: 1_000, last: n + 1 == rows.len() };
            record(&topic, json!({"item": item}).to_string(), row, Some(mark))
        });
        self.append(records.collect()).await;
    }

    /// A new value of the figure `sales`.
    pub(crate) async fn figure(&self, epoch: u64, value: u64) {
        let mark = EpochMark { epoch, as_of_ms: 1_000, last: true };
        let row = json!({"total": value}).to_string();
        self.append(vec![record(&topics::view("sales"), "{}".to_owned(), Some(row), Some(mark))]).await;
    }

    /// An epoch with one row as large as asked.
    pub(crate) async fn large_epoch(&self, epoch: u64, n_bytes: usize) {
        let row = json!({"item": 0, "quantity": epoch.to_string(), "note": "x".repeat(n_bytes)});
        let mark = EpochMark { epoch, as_of_ms: 1_000, last: true };
        let key = json!({"item": 0}).to_string();
        self.append(vec![record(&topics::view("stock"), key, Some(row.to_string()), Some(mark))]).await;
    }

    pub(crate) async fn status(&self, phase: &str) {
        let status = EngineStatus {
            epoch: 1,
            as_of_ms: 1_000,
            written_at_ms: chrono::Utc::now().timestamp_millis(),
            event_time_ms: None,
            records_read: 10,
            lag_records: Some(3),
            dead_letters: 0,
            phase: phase.to_owned(),
        };
        let json = serde_json::to_string(&status).unwrap();
        self.append(vec![record(topics::STATUS, "engine".to_owned(), Some(json), None)]).await;
    }

    /// A report of the engine's dataflow graph.
    pub(crate) async fn graph(&self, graph: &Value) {
        self.append(vec![record(topics::GRAPH, "engine".to_owned(), Some(graph.to_string()), None)]).await;
    }

    pub(crate) async fn alert(&self, id: &str, state: &str, priority: f64) {
        let data = json!({"alert_id": id, "rule": "late", "state": state, "severity": "high", "title": id,
            "priority": priority, "fired_at": "2025-10-01T05:00:00Z", "resolved_at": null, "key": {}, "row": {}});
        let event_type = format!("io.andon.alert.{state}");
        let time = "2025-10-01T05:00:00Z".to_owned();
        let event = CloudEvent::new(format!("{id}-{state}"), "/andon/rules/late".to_owned(), &event_type, time, data);
        let json = serde_json::to_string(&event).unwrap();
        self.append(vec![record(topics::ALERTS, id.to_owned(), Some(json), None)]).await;
    }

    async fn append(&self, records: Vec<AppendRecord>) {
        self.log.append(records).await.unwrap();
    }
}

fn record(topic: &str, key: String, value: Option<String>, mark: Option<EpochMark>) -> AppendRecord {
    AppendRecord {
        topic: topic.into(),
        partition: Some(0),
        timestamp_ms: None,
        key: Some(Bytes::from(key)),
        value: value.map(Bytes::from),
        headers: mark.map(EpochMark::to_headers).unwrap_or_default(),
    }
}
