//! The whole product: a capture in the log to kept views, and a change to a client.
//!
//! `cargo bench -p andon --bench whole [-- kafka] [records=N] [seconds=N]`; `kafka` measures a real broker beside the
//! local log. Prints one line per figure; nothing is judged here. docs/benchmarks.md holds figures with their machine.
//!
//! - *throughput*: the pyERP capture, repeated with later source positions until there are N records, lies in the log;
//!   measured is the time from opening the sources to the last epoch, and the CPU time of the process.
//! - *latency*: 1,000 changes a second are appended one by one; a WebSocket client of a view over them takes the time
//!   from the append of a change to its arrival.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use andon::program::{RuleChoice, SqlSet};
use bytes::Bytes;
use dashboard_api::{ApiConfig, AuthMode};
use futures::{SinkExt, StreamExt};
use ingest::capture::{Capture, ReplayOptions, replay};
use ingest::log::{KafkaLog, KafkaOptions, LocalLog, LocalLogOptions};
use ingest::{Ingest, IngestOptions};
use model::clock::SystemClock;
use model::{AppendRecord, EpochSource, Log, Offsets, SqlFile};
use pipelines::{Engine, Program, RunOptions, StepMode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

/// Source positions of one repetition lie in a range of this size.
const ROUND_POSITIONS: i64 = 1 << 32;
/// Changes a second in the latency measurement.
const CHANGES_PER_SECOND: u64 = 1_000;
/// Rows that these changes go round.
const N_KEYS: u64 = 5_000;
/// Latencies of the first seconds are left out: code and caches warm up.
const WARM_UP: Duration = Duration::from_secs(3);

/// Five aggregates over the tables with the most changes.
const FIVE: &str = "
CREATE MATERIALIZED VIEW stock AS
SELECT product_id, storage_location_id, SUM(quantity) AS quantity FROM inventory_productstorage
GROUP BY product_id, storage_location_id;
CREATE MATERIALIZED VIEW movements AS
SELECT movement_type, COUNT(*) AS n, SUM(quantity) AS quantity FROM inventory_inventorymovement GROUP BY movement_type;
CREATE MATERIALIZED VIEW documents AS
SELECT record_type, payment_status, COUNT(*) AS n, SUM(total_amount) AS amount FROM sales_salesrecord
GROUP BY record_type, payment_status;
CREATE MATERIALIZED VIEW sold AS
SELECT product_id, SUM(quantity) AS quantity, SUM(line_subtotal) AS amount FROM sales_salesrecorditem GROUP BY product_id;
CREATE MATERIALIZED VIEW production AS
SELECT status, COUNT(*) AS n, SUM(quantity) AS quantity FROM production_productionorder GROUP BY status;
";

const PING_TABLE: &str = "CREATE TABLE ping (id BIGINT NOT NULL, sent_us BIGINT, PRIMARY KEY (id) NOT ENFORCED) \
     WITH ('connector' = 'kafka', 'topic' = 'bench.ping', 'format' = 'debezium-json');";
const PING_VIEW: &str = "CREATE MATERIALIZED VIEW pings WITH ('key' = 'id') AS SELECT id, sent_us FROM ping;";

type AnyError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), AnyError> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, default| {
        args.iter().find_map(|arg| arg.strip_prefix(name)?.strip_prefix('=')?.parse().ok()).unwrap_or(default)
    };
    let (n_records, seconds) = (number("records", 500_000), number("seconds", 20));
    let dir = tempfile::tempdir()?;
    measure(LocalLog::open(dir.path(), LocalLogOptions::default())?, n_records, seconds).await?;
    if args.iter().any(|arg| arg == "kafka") {
        let kafka = tokio::task::spawn_blocking(dev_services::Kafka::start).await??;
        measure(KafkaLog::connect(KafkaOptions::new(kafka.brokers())).await?, n_records, seconds).await?;
        tokio::task::spawn_blocking(|| drop(kafka)).await?;
    }
    Ok(())
}

async fn measure(log: Arc<dyn Log>, n_records: u64, seconds: u64) -> Result<(), AnyError> {
    println!("{}", log.describe());
    let end = fill(&log, n_records).await?;
    let source = andon::shipped::source("pyerp")?;
    let five = SqlFile { path: "five.sql".to_owned(), text: FIVE.to_owned() };
    // The mapping views of the pack are planned as well, but nothing reads them.
    throughput("five aggregates", &log, &end, &source, &[five]).await?;
    let shipped = SqlSet::new("pyerp", None, RuleChoice::None)?;
    throughput("all shipped views", &log, &end, &shipped.source, &shipped.views).await?;
    latency(log, seconds).await
}

/// Appends the capture again and again; returns the end offsets.
async fn fill(log: &Arc<dyn Log>, n_records: u64) -> Result<Offsets, AnyError> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/captures/pyerp");
    let capture = tokio::task::spawn_blocking(|| Capture::open(dir)).await??;
    let started = Instant::now();
    let (mut n, mut bytes, mut round, mut end) = (0, 0, 0, Offsets::default());
    while n < n_records {
        let options = ReplayOptions { position_shift: round * ROUND_POSITIONS, ..ReplayOptions::default() };
        let report = replay(&capture, log, options, |_| {}, CancellationToken::new()).await?;
        n += report.n_records;
        bytes += report.n_bytes;
        round += 1;
        end.merge(&report.end_offsets);
    }
    let s = started.elapsed().as_secs_f64();
    println!(
        "  replay into the log: {n} records, {:.0} MB in {s:.2} s, {:.0} records/s",
        bytes as f64 / 1e6,
        n as f64 / s
    );
    Ok(end)
}

async fn throughput(
    name: &str,
    log: &Arc<dyn Log>,
    end: &Offsets,
    source: &[SqlFile],
    views: &[SqlFile],
) -> Result<(), AnyError> {
    let tables = ingest::ddl::parse_tables(source).map_err(|all| format!("{all:?}"))?;
    let files: Vec<SqlFile> = source.iter().chain(views).cloned().collect();
    let program = Program::load(&tables, &files, &[]).map_err(|all| format!("{all:?}"))?;
    let mut engine = Engine::new(program, Arc::new(SystemClock))?;
    let (started, cpu) = (Instant::now(), cpu_seconds()?);
    let mut source = Ingest::open(Arc::clone(log), tables, IngestOptions::default()).await?;
    let (mut n_records, mut n_epochs, mut at, mut target) = (0, 0, Offsets::default(), None);
    while target.as_ref().is_none_or(|target| !at.reached(target)) {
        let Some(epoch) = source.next_epoch(Duration::from_millis(100)).await? else { continue };
        at.merge(&epoch.offsets);
        // Topics that no table reads never appear in an epoch.
        let known: Offsets = Offsets(end.0.iter().filter(|(t, _)| reads(source.tables(), t)).map(own).collect());
        target = Some(known);
        n_records += epoch.n_records;
        n_epochs += 1;
        engine.step(&epoch, StepMode::Normal);
    }
    let (s, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
    let n = n_records as f64;
    println!(
        "  {name}: {n_records} changes in {n_epochs} epochs, {s:.2} s: {:.0} changes/s, {:.0} per CPU-second",
        n / s,
        n / cpu
    );
    Ok(())
}

fn own<K: Clone, V: Clone>((key, value): (&K, &V)) -> (K, V) {
    (key.clone(), value.clone())
}

/// Whether a table of the pack reads the topic; its patterns end with the name of the topic's table.
fn reads(tables: &[model::SourceTable], topic: &str) -> bool {
    topic.rsplit('.').next().is_some_and(|name| tables.iter().any(|table| *table.name == *name))
}

/// CPU time of this process so far, all threads.
fn cpu_seconds() -> Result<f64, AnyError> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |at: usize| -> Result<f64, AnyError> { Ok(fields.get(at).ok_or("short stat")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

async fn latency(log: Arc<dyn Log>, seconds: u64) -> Result<(), AnyError> {
    let file = |path: &str, text: &str| SqlFile { path: path.to_owned(), text: text.to_owned() };
    let tables = ingest::ddl::parse_tables(&[file("ping.sql", PING_TABLE)]).map_err(|all| format!("{all:?}"))?;
    let program = Program::load(&tables, &[file("pings.sql", PING_VIEW)], &[]).map_err(|all| format!("{all:?}"))?;
    let engine = Engine::new(program, Arc::new(SystemClock))?;
    let source = Ingest::open(Arc::clone(&log), tables, IngestOptions::default()).await?;
    let stop = CancellationToken::new();
    let _stop_at_the_end = stop.clone().drop_guard();
    tokio::spawn(pipelines::run(engine, Box::new(source), Arc::clone(&log), RunOptions::default(), None, stop.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut config = ApiConfig::default();
    config.auth.mode = AuthMode::Anonymous;
    tokio::spawn(dashboard_api::run(listener, config, Arc::clone(&log), stop.clone()));
    send_ping(&log, 0).await?;
    let mut socket = subscribed(&format!("ws://{address}/connection/websocket")).await?;
    let sender = tokio::spawn(send_pings(Arc::clone(&log), seconds * CHANGES_PER_SECOND));
    let started = Instant::now();
    let mut latencies_ms = Vec::new();
    while started.elapsed() < Duration::from_secs(seconds) {
        let Some(frame) = socket.next().await else { break };
        let Message::Text(frame) = frame? else { continue };
        let now_us = now_us()?;
        for line in frame.lines() {
            let message: Value = serde_json::from_str(line)?;
            if message == json!({}) {
                socket.send(Message::text("{}")).await?;
            }
            let changes = message["push"]["pub"]["data"]["changes"].as_array();
            let sent = changes.into_iter().flatten().filter_map(|change| change["row"]["sent_us"].as_u64());
            if started.elapsed() > WARM_UP {
                latencies_ms.extend(sent.map(|sent_us| now_us.saturating_sub(sent_us) as f64 / 1e3));
            }
        }
    }
    sender.await??;
    latencies_ms.sort_by(f64::total_cmp);
    let at = |share: f64| latencies_ms.get((latencies_ms.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
    println!(
        "  change to client at {CHANGES_PER_SECOND}/s, {} changes seen: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
        latencies_ms.len(),
        at(0.5),
        at(0.99),
        latencies_ms.last().copied().unwrap_or(f64::NAN)
    );
    Ok(())
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

/// A client of the view; tries again until the view exists.
async fn subscribed(url: &str) -> Result<Socket, AnyError> {
    loop {
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await?;
        socket.send(Message::text(json!({"id": 1, "connect": {}}).to_string())).await?;
        socket.send(Message::text(json!({"id": 2, "subscribe": {"channel": "view:pings"}}).to_string())).await?;
        while let Some(frame) = socket.next().await {
            let Message::Text(frame) = frame? else { continue };
            let replies: Vec<Value> = frame.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            match replies.iter().find(|reply| reply["id"] == 2) {
                Some(reply) if reply.get("subscribe").is_some() => return Ok(socket),
                Some(_) => break,
                None => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn send_pings(log: Arc<dyn Log>, n: u64) -> Result<(), AnyError> {
    let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / CHANGES_PER_SECOND));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let mut appends = tokio::task::JoinSet::new();
    for i in 1..=n {
        ticks.tick().await;
        let log = Arc::clone(&log);
        appends.spawn(async move { send_ping(&log, i).await });
        while let Some(done) = appends.try_join_next() {
            done??;
        }
    }
    while let Some(done) = appends.join_next().await {
        done??;
    }
    Ok(())
}

async fn send_ping(log: &Arc<dyn Log>, i: u64) -> Result<(), AnyError> {
    let id = i % N_KEYS;
    let value = json!({"before": null, "after": {"id": id, "sent_us": now_us()?}, "source": {"lsn": i + 1}, "op": "c"});
    let record = AppendRecord {
        topic: Arc::from("bench.ping"),
        partition: Some(0),
        timestamp_ms: None,
        key: Some(Bytes::from(json!({"id": id}).to_string())),
        value: Some(Bytes::from(value.to_string())),
        headers: Vec::new(),
    };
    log.append(vec![record]).await?;
    Ok(())
}

fn now_us() -> Result<u64, AnyError> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?)
}
