//! The auction's events in Kafka, and what reading them costs at the least.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::DateTime;
use ingest::capture::{Capture, ReplayOptions, replay};
use ingest::{Ingest, IngestOptions};
use model::log::{PollLimit, TopicSpec};
use model::{AppendRecord, EpochSource, Log, Offsets, SqlFile, TopicSelector};
use nexmark::EventGenerator;
use nexmark::config::NexmarkConfig;
use nexmark::event::Event;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::AnyError;
use crate::process::cpu_seconds;

const TOPIC: &str = "nexmark";
/// 2026-01-01T00:00:00Z: the events are the same in every run.
const BASE_TIME_MS: u64 = 1_767_225_600_000;
const RECORDS_PER_APPEND: usize = 20_000;
const POLL: PollLimit = PollLimit { max_records: 8_192, max_bytes: 16 << 20, wait: Duration::from_millis(250) };

/// Thousand events per CPU-second of this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Floor {
    /// Reading the topic, nothing else.
    pub(crate) read: f64,
    /// Reading and decoding every column, into the batches that the engine takes.
    pub(crate) decoded: f64,
}

/// Writes the events in order; returns the seconds it took.
pub(crate) async fn write(log: &Arc<dyn Log>, n_events: u64) -> Result<f64, AnyError> {
    let started = Instant::now();
    log.create_topic(TOPIC, TopicSpec::default()).await?;
    let config = NexmarkConfig { base_time: BASE_TIME_MS, ..NexmarkConfig::default() };
    let mut events = EventGenerator::new(config).take(usize::try_from(n_events)?);
    loop {
        let records: Vec<AppendRecord> = events.by_ref().take(RECORDS_PER_APPEND).map(|e| record(&e)).collect();
        if records.is_empty() {
            return Ok(started.elapsed().as_secs_f64());
        }
        log.append(records).await?;
    }
}

fn record(event: &Event) -> AppendRecord {
    AppendRecord {
        topic: Arc::from(TOPIC),
        partition: Some(0),
        timestamp_ms: None,
        key: None,
        value: Some(Bytes::from(json(event).to_string())),
        headers: Vec::new(),
    }
}

fn json(event: &Event) -> serde_json::Value {
    match event {
        Event::Person(p) => json!({
            "event_type": 0, "id": p.id, "name": p.name, "email_address": p.email_address,
            "credit_card": p.credit_card, "city": p.city, "state": p.state, "date_time": time(p.date_time),
            "extra": p.extra,
        }),
        Event::Auction(a) => json!({
            "event_type": 1, "id": a.id, "item_name": a.item_name, "description": a.description,
            "initial_bid": a.initial_bid, "reserve": a.reserve, "date_time": time(a.date_time),
            "expires": time(a.expires), "seller": a.seller, "category": a.category, "extra": a.extra,
        }),
        Event::Bid(b) => json!({
            "event_type": 2, "auction": b.auction, "bidder": b.bidder, "price": b.price, "channel": b.channel,
            "url": b.url, "date_time": time(b.date_time), "extra": b.extra,
        }),
    }
}

/// As Flink's JSON format reads a TIMESTAMP(3).
fn time(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default();
    time.format("%Y-%m-%d %H:%M:%S%.3f").to_string()
}

/// Measures the floor in this process.
pub(crate) async fn floor(log: &Arc<dyn Log>, n_events: u64, source: &Path) -> Result<Floor, AnyError> {
    let per_cpu_second = |cpu: f64| n_events as f64 / 1_000.0 / cpu.max(0.01);
    let before = cpu_seconds(std::process::id())?;
    let mut reader = log.read(vec![TopicSelector::Name(TOPIC.to_owned())], &Offsets::default()).await?;
    let mut n = 0;
    while n < n_events {
        n += reader.poll(POLL).await?.iter().map(|b| b.records.len() as u64).sum::<u64>();
    }
    drop(reader);
    let read = cpu_seconds(std::process::id())? - before;

    let path = source.join("nexmark.sql");
    let file = SqlFile { path: path.display().to_string(), text: std::fs::read_to_string(&path)? };
    let tables = ingest::ddl::parse_tables(&[file]).map_err(|all| format!("{all:?}"))?;
    let before = cpu_seconds(std::process::id())?;
    let mut source = Ingest::open(Arc::clone(log), tables, IngestOptions::default()).await?;
    let mut n = 0;
    while n < n_events {
        n += source.next_epoch(POLL.wait).await?.map_or(0, |epoch| epoch.n_records as u64);
    }
    let decoded = cpu_seconds(std::process::id())? - before;
    Ok(Floor { read: per_cpu_second(read), decoded: per_cpu_second(decoded) })
}

/// Writes the recorded ERP; returns the number of its records.
pub(crate) async fn write_capture(log: &Arc<dyn Log>) -> Result<u64, AnyError> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/captures/pyerp");
    let capture = tokio::task::spawn_blocking(|| Capture::open(dir)).await??;
    let report = replay(&capture, log, ReplayOptions::default(), |_| {}, CancellationToken::new()).await?;
    Ok(report.n_records)
}
