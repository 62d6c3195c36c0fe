//! The engine as a stage: reads epochs, keeps the views, writes their changes to the log.
//!
//! Three tasks work side by side: the source decodes the next epoch while the engine's own thread computes this one
//! and the last one is written; the channels between them hold [`IN_FLIGHT_MAX`] epochs each.
//!
//! After a start the views are rebuilt from the sources' history while readers go on seeing what the view topics hold
//! from before. When the history is read, the difference between the two is written in one epoch, so a restart shows
//! nobody a half-built view.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::clock::ManualClock;
use model::log::{PollLimit, TopicSelector, TopicSpec};
use model::view::{EngineStatus, EpochMark};
use model::{AppendRecord, Clock, EpochSource, Log, LogError, Offsets, SourceEpoch, ViewInfo, topics};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, EpochOutput, StepMode};
use crate::error::Error;
use crate::json;
use crate::kept::ViewChange;

/// Epochs waiting between two tasks; a full channel holds the source back.
const IN_FLIGHT_MAX: usize = 2;
/// How long a missing epoch is waited for before time-dependent views are looked at.
const IDLE_WAIT: Duration = Duration::from_millis(200);
/// Time between two status records.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two looks at the sizes of views and state.
const METRICS_INTERVAL: Duration = Duration::from_secs(10);
/// Records in one append.
const APPEND_RECORDS_MAX: usize = 4_096;
/// A topic whose announced end does not come for so long has been read to its end.
const QUIET_MAX: Duration = Duration::from_secs(5);
/// First and longest pause between attempts to write while the log is unavailable.
const RETRY_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How the stage runs.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Business time follows the newest event time of the sources through this clock, which must be the engine's;
    /// without it the engine's clock moves by itself.
    pub stream_clock: Option<ManualClock>,
}

/// What the reading task hands to the engine.
struct Work {
    epoch: SourceEpoch,
    mode: StepMode,
    phase: Phase,
    report: Report,
}

/// What the reading task knows for the status record.
#[derive(Debug, Clone, Copy)]
struct Report {
    records_read: u64,
    lag_records: Option<u64>,
    dead_letters: u64,
    event_time_us: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    CatchingUp,
    /// The first step after the history: publish everything.
    CaughtUp,
    Live,
}

/// What the engine hands to the writing task.
struct Done {
    output: EpochOutput,
    phase: Phase,
    report: Report,
    /// When the newest record of the epoch was written to the log, milliseconds since 1970.
    newest_record_ms: Option<i64>,
}

/// Runs until `shutdown`; publishes the catalog, the views, the rules' rows and the status.
///
/// # Errors
/// [`Error::Source`] or [`Error::Publish`] if the log can never be used again; outages are waited out.
pub async fn run(
    mut engine: Engine,
    mut source: Box<dyn EpochSource>,
    log: Arc<dyn Log>,
    options: RunOptions,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let views = engine.views();
    publish_catalog(&*log, &views).await?;
    let mut before = Vec::with_capacity(views.len());
    let mut last_epoch = 0;
    for view in &views {
        let (rows, epoch) = read_view_topic(&*log, &view.topic).await?;
        before.push(rows);
        last_epoch = last_epoch.max(epoch);
    }
    engine.continue_after(last_epoch);
    tracing::info!(views = views.len(), last_epoch, "engine starts");

    let (to_engine, mut work) = mpsc::channel::<Work>(IN_FLIGHT_MAX);
    let (to_writer, done) = mpsc::channel::<Done>(IN_FLIGHT_MAX);
    let clock = options.stream_clock;
    let thread = std::thread::Builder::new().name("engine".to_owned()).spawn(move || {
        let mut metrics_due = Instant::now();
        while let Some(work) = work.blocking_recv() {
            let done = compute(&mut engine, &work, clock.as_ref(), &mut metrics_due)?;
            if to_writer.blocking_send(done).is_err() {
                break;
            }
        }
        Ok(())
    });
    let thread = thread.map_err(|e| Error::Source(Box::new(e)))?;
    let writer = tokio::spawn(write(log, views, before, done));
    let read = read(&mut *source, &to_engine, &writer, shutdown).await;
    drop(to_engine);
    let written = writer.await.map_err(|_| Error::Died)?;
    let computed =
        tokio::task::spawn_blocking(move || thread.join()).await.map_err(|_| Error::Died)?.map_err(|_| Error::Died)?;
    read.and(computed).and(written)
}

/// Reads epochs until shutdown, or until one of the other tasks has ended.
async fn read(
    source: &mut dyn EpochSource,
    to_engine: &mpsc::Sender<Work>,
    writer: &tokio::task::JoinHandle<Result<(), Error>>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let mut phase = Phase::CatchingUp;
    let mut records_read = 0_u64;
    let mut event_time_us = None;
    loop {
        let next = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            next = source.next_epoch(IDLE_WAIT) => next.map_err(Error::Source)?,
        };
        if writer.is_finished() || to_engine.is_closed() {
            return Ok(());
        }
        let lag_records = source.lag_records();
        if phase == Phase::CatchingUp && lag_records == Some(0) {
            phase = Phase::CaughtUp;
        }
        let epoch = next.unwrap_or_default();
        records_read += epoch.n_records as u64;
        event_time_us = event_time_us.max(epoch.max_event_time_us);
        metrics::counter!("pipelines_records_total").increment(epoch.n_records as u64);
        if let Some(lag) = lag_records {
            metrics::gauge!("pipelines_lag_records").set(lag as f64);
        }
        let report = Report { records_read, lag_records, dead_letters: source.dead_letters(), event_time_us };
        let mode = if phase == Phase::CaughtUp { StepMode::Flush } else { StepMode::Normal };
        if to_engine.send(Work { epoch, mode, phase, report }).await.is_err() {
            return Ok(());
        }
        if phase == Phase::CaughtUp {
            phase = Phase::Live;
        }
    }
}

/// One step on the engine's own thread.
fn compute(
    engine: &mut Engine,
    work: &Work,
    clock: Option<&ManualClock>,
    metrics_due: &mut Instant,
) -> Result<Done, Error> {
    if let (Some(clock), Some(newest_us)) = (clock, work.epoch.max_event_time_us)
        && newest_us > clock.now_us()
    {
        clock.set(newest_us);
    }
    let started = Instant::now();
    let mut output = engine.step(&work.epoch, work.mode);
    metrics::histogram!("pipelines_epoch_seconds").record(started.elapsed().as_secs_f64());
    match work.phase {
        Phase::CatchingUp => output.changes.clear(),
        Phase::CaughtUp => output.changes = engine.everything()?,
        Phase::Live => {}
    }
    if *metrics_due <= Instant::now() {
        *metrics_due = Instant::now() + METRICS_INTERVAL;
        measure(engine);
    }
    let newest_record_ms = work.epoch.max_log_timestamp_ms;
    Ok(Done { output, phase: work.phase, report: work.report, newest_record_ms })
}

/// Sizes that are too costly to look at after every epoch.
fn measure(engine: &Engine) {
    for (view, rows) in engine.row_counts() {
        metrics::gauge!("pipelines_view_rows", "view" => view.to_owned()).set(rows as f64);
    }
    for (view, rows) in engine.state_rows() {
        metrics::gauge!("pipelines_state_rows", "view" => view.to_owned()).set(rows as f64);
    }
    metrics::gauge!("pipelines_views_stopped").set(engine.failures().len() as f64);
}

/// Content of a view topic: key → value.
type Rows = HashMap<Bytes, Bytes>;

/// Writes what the engine computed, in order, and the status once a second.
async fn write(
    log: Arc<dyn Log>,
    views: Vec<ViewInfo>,
    mut before: Vec<Rows>,
    mut done: mpsc::Receiver<Done>,
) -> Result<(), Error> {
    let topics: Vec<Arc<str>> = views.iter().map(|v| Arc::from(v.topic.as_str())).collect();
    let keys: Vec<&[String]> = views.iter().map(|v| v.key.as_slice()).collect();
    let mut status_due = Instant::now();
    while let Some(Done { output, phase, report, newest_record_ms }) = done.recv().await {
        let as_of_ms = output.as_of_us.div_euclid(1_000);
        let mut records = Vec::new();
        for change in &output.changes {
            let mut rows = encode(change, keys[change.view]);
            if phase == Phase::CaughtUp {
                rows = unlike(&mut before[change.view], rows);
            }
            mark(rows, &topics[change.view], output.epoch, as_of_ms, &mut records);
        }
        metrics::counter!("pipelines_changes_published_total").increment(records.len() as u64);
        append(&*log, records).await?;
        if phase == Phase::CaughtUp {
            before = Vec::new();
            tracing::info!(epoch = output.epoch, records_read = report.records_read, "views are up to date");
        }
        let now_ms = chrono::Utc::now().timestamp_millis();
        if let Some(newest_ms) = newest_record_ms {
            let seconds = (now_ms - newest_ms).max(0) as f64 / 1_000.0;
            metrics::histogram!("pipelines_record_to_view_seconds").record(seconds);
        }
        if status_due <= Instant::now() || phase == Phase::CaughtUp {
            status_due = Instant::now() + STATUS_INTERVAL;
            publish_status(&*log, output.epoch, as_of_ms, now_ms, phase, report).await?;
        }
    }
    Ok(())
}

async fn publish_status(
    log: &dyn Log,
    epoch: u64,
    as_of_ms: i64,
    written_at_ms: i64,
    phase: Phase,
    report: Report,
) -> Result<(), Error> {
    let status = EngineStatus {
        epoch,
        as_of_ms,
        written_at_ms,
        event_time_ms: report.event_time_us.map(|us| us.div_euclid(1_000)),
        records_read: report.records_read,
        lag_records: report.lag_records,
        dead_letters: report.dead_letters,
        phase: if phase == Phase::CatchingUp { "catching_up" } else { "live" }.to_owned(),
    };
    append(log, vec![record(topics::STATUS, Bytes::from_static(b"engine"), Some(to_json(&status)))]).await
}

/// Keys and rows of a change; `None` for a key that is gone.
fn encode(change: &ViewChange, key: &[String]) -> Vec<(Bytes, Option<Bytes>)> {
    let columns: Vec<usize> = key.iter().filter_map(|name| change.upserts.schema().index_of(name).ok()).collect();
    let keys = change.upserts.project(&columns).map(|k| json::rows(&k)).unwrap_or_default();
    let deleted = json::rows(&change.deletes).into_iter().map(|key| (key, None));
    keys.into_iter().zip(json::rows(&change.upserts).into_iter().map(Some)).chain(deleted).collect()
}

/// The difference between what a topic holds and what it should hold.
fn unlike(before: &mut Rows, now: Vec<(Bytes, Option<Bytes>)>) -> Vec<(Bytes, Option<Bytes>)> {
    let mut out: Vec<(Bytes, Option<Bytes>)> =
        now.into_iter().filter(|(key, row)| before.remove(key) != *row).collect();
    out.extend(before.drain().map(|(key, _)| (key, None)));
    out
}

fn mark(rows: Vec<(Bytes, Option<Bytes>)>, topic: &Arc<str>, epoch: u64, as_of_ms: i64, out: &mut Vec<AppendRecord>) {
    let n_rows = rows.len();
    let inner = EpochMark { epoch, as_of_ms, last: false }.to_headers();
    let last = EpochMark { epoch, as_of_ms, last: true }.to_headers();
    for (i, (key, value)) in rows.into_iter().enumerate() {
        let headers = if i + 1 == n_rows { last.clone() } else { inner.clone() };
        out.push(AppendRecord {
            topic: Arc::clone(topic),
            partition: Some(0),
            timestamp_ms: None,
            key: Some(key),
            value,
            headers,
        });
    }
}

fn record(topic: &str, key: Bytes, value: Option<Bytes>) -> AppendRecord {
    AppendRecord {
        topic: Arc::from(topic),
        partition: Some(0),
        timestamp_ms: None,
        key: Some(key),
        value,
        headers: Vec::new(),
    }
}

fn to_json(value: &impl serde::Serialize) -> Bytes {
    Bytes::from(serde_json::to_vec(value).unwrap_or_default())
}

/// Appends in order; while the log is unavailable, tries again with growing pauses. A part that had been written
/// before an outage is written again, which a reader by key does not notice.
async fn append(log: &dyn Log, mut records: Vec<AppendRecord>) -> Result<(), Error> {
    while !records.is_empty() {
        let rest = records.split_off(records.len().min(APPEND_RECORDS_MAX));
        retried(|| log.append(records.clone())).await?;
        records = rest;
    }
    Ok(())
}

/// Tries again while the log is unavailable, and says once that it is.
async fn retried<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, LogError>>,
{
    let mut pause = RETRY_PAUSE.0;
    loop {
        match attempt().await {
            Err(LogError::Unavailable { reason }) => {
                if pause == RETRY_PAUSE.0 {
                    tracing::warn!(reason, "log is unavailable, results wait");
                }
                metrics::counter!("pipelines_publish_retries_total").increment(1);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_PAUSE.1);
            }
            other => return other.map_err(Error::Publish),
        }
    }
}

/// Creates the topics and brings the catalog topic in line with the program.
async fn publish_catalog(log: &dyn Log, views: &[ViewInfo]) -> Result<(), Error> {
    for topic in [topics::CATALOG, topics::STATUS].into_iter().chain(views.iter().map(|v| v.topic.as_str())) {
        retried(|| log.create_topic(topic, TopicSpec::compacted())).await?;
    }
    let (mut before, _) = read_view_topic(log, topics::CATALOG).await?;
    let now = views.iter().map(|v| (Bytes::from(v.name.clone()), Some(to_json(v)))).collect();
    let changes = unlike(&mut before, now);
    let records = changes.into_iter().map(|(key, value)| record(topics::CATALOG, key, value)).collect();
    append(log, records).await
}

/// The rows a compacted topic holds now, and the newest epoch in it.
async fn read_view_topic(log: &dyn Log, topic: &str) -> Result<(Rows, u64), Error> {
    let ends = retried(|| log.offsets(topic)).await?;
    let mut target = Offsets::default();
    for p in ends.iter().filter(|p| p.end > p.earliest) {
        target.set(topic, p.partition, p.end);
    }
    let mut rows = Rows::new();
    let mut epoch = 0;
    if target.is_empty() {
        return Ok((rows, epoch));
    }
    let selector = vec![TopicSelector::Name(topic.to_owned())];
    let from = Offsets::default();
    let mut reader = retried(|| log.read(selector.clone(), &from)).await?;
    let limit = PollLimit { max_records: APPEND_RECORDS_MAX, max_bytes: 16 << 20, wait: IDLE_WAIT };
    let mut at = Offsets::default();
    let mut quiet_since = None;
    while !at.reached(&target) {
        let batches = reader.poll(limit).await.map_err(Error::Publish)?;
        if batches.is_empty() {
            // Compaction may have removed the records before the end: a tombstone whose grace is over.
            if quiet_since.get_or_insert_with(Instant::now).elapsed() > QUIET_MAX {
                tracing::debug!(topic, "the records before the end are gone");
                break;
            }
        } else {
            quiet_since = None;
        }
        for batch in batches {
            at.set(topic, batch.partition, batch.next_offset());
            for record in batch.records {
                epoch = epoch.max(EpochMark::from_record(&record).map_or(0, |m| m.epoch));
                match (record.key, record.value) {
                    (Some(key), Some(value)) => {
                        rows.insert(key, value);
                    }
                    (Some(key), None) => {
                        rows.remove(&key);
                    }
                    (None, _) => {}
                }
            }
        }
    }
    Ok((rows, epoch))
}
