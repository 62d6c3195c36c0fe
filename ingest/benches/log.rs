//! Throughput and latency of the log: append and read together, the path of a replay.
//!
//! `cargo bench -p ingest --bench log [-- kafka] [records=N]`; `kafka` starts a real broker beside the local log.
//! Prints one line per figure; nothing is judged here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use ingest::capture::{Capture, ReplayOptions, replay};
use ingest::log::{KafkaLog, KafkaOptions, LocalLog, LocalLogOptions};
use model::{AppendRecord, Log, Offsets, PollLimit, TopicSelector, TopicSpec};
use tokio_util::sync::CancellationToken;

/// Bytes of a value: the mean of a captured ERP's change records.
const VALUE_BYTES: usize = 1100;
/// Topics that the records go round.
const N_TOPICS: usize = 30;
/// Records per append: what a replay hands over at once.
const APPEND_RECORDS: usize = 2048;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), AnyError> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let n_records = args.iter().find_map(|arg| arg.strip_prefix("records=")?.parse().ok()).unwrap_or(500_000);
    if args.iter().any(|arg| arg == "kafka") {
        let kafka = tokio::task::spawn_blocking(dev_services::Kafka::start).await??;
        measure(KafkaLog::connect(KafkaOptions::new(kafka.brokers())).await?, n_records).await?;
        tokio::task::spawn_blocking(|| drop(kafka)).await?;
    }
    let dir = tempfile::tempdir()?;
    measure(LocalLog::open(dir.path(), LocalLogOptions::default())?, n_records).await
}

async fn measure(log: Arc<dyn Log>, n_records: usize) -> Result<(), AnyError> {
    println!("{}", log.describe());
    capture(&log).await?;
    throughput(&log, n_records).await?;
    keyed_throughput(&log, n_records / 5).await?;
    latency(&log).await
}

/// The shipped capture: decompressed, parsed, put in order and appended.
async fn capture(log: &Arc<dyn Log>) -> Result<(), AnyError> {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/captures/pyerp");
    let watch = Stopwatch::start();
    let capture = tokio::task::spawn_blocking(|| Capture::open(dir)).await??;
    let n_records = usize::try_from(capture.n_records())?;
    println!("  capture looked through: {}", watch.rate(n_records));
    let watch = Stopwatch::start();
    replay(&capture, log, ReplayOptions::default(), |_| {}, CancellationToken::new()).await?;
    println!("  capture replayed: {}", watch.rate(n_records));
    Ok(())
}

/// Elapsed and processor time since its making, all threads together: on a busy machine only the latter says much.
struct Stopwatch {
    started: Instant,
    cpu_seconds: f64,
}

impl Stopwatch {
    fn start() -> Self {
        Self { started: Instant::now(), cpu_seconds: cpu_seconds() }
    }

    /// `N records/s, N records per CPU-second`.
    fn rate(&self, n_records: usize) -> String {
        let (seconds, cpu) = (self.started.elapsed().as_secs_f64(), cpu_seconds() - self.cpu_seconds);
        let per = |seconds: f64| n_records as f64 / seconds.max(0.01);
        format!("{:.0} records/s, {:.0} records per CPU-second", per(seconds), per(cpu))
    }
}

/// User and system time of this process, in seconds; 0 where the system does not tell.
fn cpu_seconds() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = after_name.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum();
    ticks / TICKS_PER_SECOND
}

fn records(n_records: usize, topic: impl Fn(usize) -> Arc<str>, n_keys: usize) -> Vec<AppendRecord> {
    // JSON-like text, so that compression has something like its usual work.
    let text: String = (0..200).map(|i| format!("\"column_{}\":{},", i % 23, (i * 7919) % 100_003)).collect();
    let value = Bytes::from(text.into_bytes());
    let record = |i: usize| AppendRecord {
        topic: topic(i),
        partition: Some(0),
        timestamp_ms: Some(1_700_000_000_000 + i as i64),
        key: Some(Bytes::from(format!("{{\"id\":{}}}", i % n_keys))),
        value: Some(value.slice(i % 997..i % 997 + VALUE_BYTES)),
        headers: Vec::new(),
    };
    (0..n_records).map(record).collect()
}

/// A writer and a reader at the same time, until the reader has everything.
async fn throughput(log: &Arc<dyn Log>, n_records: usize) -> Result<(), AnyError> {
    let topics: Vec<Arc<str>> = (0..N_TOPICS).map(|i| format!("bench.plain.{i}").into()).collect();
    for topic in &topics {
        log.create_topic(topic, TopicSpec::default()).await?;
    }
    // Made outside the measured time, and cloned within it: a clone copies no payload.
    let batch = records(APPEND_RECORDS, |i| Arc::clone(&topics[i % N_TOPICS]), usize::MAX);
    let mut reader =
        log.read(vec![TopicSelector::Pattern("bench\\.plain\\..*".to_owned())], &Offsets::default()).await?;
    let watch = Stopwatch::start();
    let writing = {
        let log = Arc::clone(log);
        tokio::spawn(async move {
            // Some at once, as a replay does it.
            let n_appends = n_records.div_ceil(APPEND_RECORDS);
            let mut appends = futures::stream::iter(0..n_appends).map(|_| log.append(batch.clone())).buffered(4);
            while let Some(appended) = appends.next().await {
                appended?;
            }
            Ok::<_, AnyError>(())
        })
    };
    let limit = PollLimit { max_records: 8192, max_bytes: 32 << 20, wait: Duration::from_millis(200) };
    let (mut n_read, mut n_bytes) = (0, 0);
    let wanted = n_records.div_ceil(APPEND_RECORDS) * APPEND_RECORDS;
    while n_read < wanted {
        for batch in reader.poll(limit).await? {
            n_read += batch.records.len();
            n_bytes += batch.records.iter().map(|r| r.value.as_ref().map_or(0, Bytes::len)).sum::<usize>();
        }
    }
    writing.await??;
    println!("  append and read together: {}, {} MB", watch.rate(n_read), n_bytes >> 20);
    let mut again =
        log.read(vec![TopicSelector::Pattern("bench\\.plain\\..*".to_owned())], &Offsets::default()).await?;
    let (watch, mut n_read) = (Stopwatch::start(), 0);
    while n_read < wanted {
        n_read += again.poll(limit).await?.iter().map(|batch| batch.records.len()).sum::<usize>();
    }
    println!("  read again from the start: {}", watch.rate(n_read));
    Ok(())
}

/// Upserts into a compacted topic, as views are published.
async fn keyed_throughput(log: &Arc<dyn Log>, n_records: usize) -> Result<(), AnyError> {
    log.create_topic("bench.keyed", TopicSpec::compacted()).await?;
    let topic: Arc<str> = "bench.keyed".into();
    let all = records(n_records, |_| Arc::clone(&topic), 20_000);
    let watch = Stopwatch::start();
    for batch in all.chunks(APPEND_RECORDS) {
        log.append(batch.to_vec()).await?;
    }
    println!("  upsert into a compacted topic: {}", watch.rate(n_records));
    Ok(())
}

/// From the call of append to the return of poll, one record at a time, 1,000 a second.
async fn latency(log: &Arc<dyn Log>) -> Result<(), AnyError> {
    const N_RECORDS: usize = 3000;
    log.create_topic("bench.latency", TopicSpec::default()).await?;
    let mut reader = log.read(vec![TopicSelector::Name("bench.latency".to_owned())], &Offsets::default()).await?;
    let topic: Arc<str> = "bench.latency".into();
    let all = records(N_RECORDS, |_| Arc::clone(&topic), usize::MAX);
    let limit = PollLimit { max_records: 1000, max_bytes: 1 << 20, wait: Duration::from_secs(1) };
    // Until the reader has caught up for the first time, it is still connecting.
    log.append(records(1, |_| Arc::clone(&topic), 1)).await?;
    while reader.poll(limit).await?.is_empty() {}
    let (sender, mut sent) = tokio::sync::mpsc::channel(N_RECORDS);
    let writing = {
        let log = Arc::clone(log);
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(1));
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            for record in all {
                tick.tick().await;
                sender.send(Instant::now()).await?;
                log.append(vec![record]).await?;
            }
            Ok::<_, AnyError>(())
        })
    };
    let mut latencies = Vec::with_capacity(N_RECORDS);
    while latencies.len() < N_RECORDS {
        for batch in reader.poll(limit).await? {
            for _ in &batch.records {
                let started = sent.recv().await.ok_or("fewer sends than records")?;
                latencies.push(started.elapsed());
            }
        }
    }
    writing.await??;
    latencies.sort();
    let at = |percent: usize| latencies[(latencies.len() * percent / 100).min(latencies.len() - 1)];
    println!("  append to poll: p50 {:?}, p99 {:?}, max {:?}", at(50), at(99), at(100));
    Ok(())
}
