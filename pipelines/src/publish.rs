//! The engine as a stage: reads epochs, keeps the views, writes their changes to the log.
//!
//! Three tasks work side by side: the source decodes the next epoch while the engine's own thread computes this one
//! and the last one is written; the channels between them hold [`IN_FLIGHT_MAX`] epochs each.
//!
//! After a start without stored state the views are rebuilt from the sources' history while readers go on seeing what the view topics hold
//! from before. When the history is read, the difference between the two is written in one epoch, so a restart shows
//! nobody a half-built view. With stored state only what came after it is read, compared and written.
//!
//! Views that only grow are *streamed* if their rows are their own keys: neither the engine nor the state holds their
//! rows, which are written as they come, also while history is read. What a topic holds from before is written again only
//! where it is missing; what is there and does not come again is taken back when the history is read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use model::clock::ManualClock;
use model::log::{PollLimit, TopicSelector, TopicSpec};
use model::view::{EngineStatus, EpochMark};
use model::{AppendRecord, Clock, EpochSource, Log, LogError, Offsets, SourceEpoch, ViewInfo, topics};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, EpochOutput, StepMode};
use crate::error::Error;
use crate::json;
use crate::kept::ViewChange;
use crate::state::{CheckpointData, Lease, Restored, Saver, StateStore};

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
/// The engine waits so long at most for a checkpoint on its way, and looks so often whether it has arrived.
const BUSY_WAIT_MAX: Duration = Duration::from_secs(60);
const BUSY_PAUSE: Duration = Duration::from_millis(2);
/// View topics that are read at once at the start.
const TOPICS_AT_ONCE: usize = 8;
/// First and longest pause between attempts to write while the log is unavailable.
const RETRY_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How the stage runs.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Business time follows the newest event time of the sources through this clock, which must be the engine's;
    /// without it the engine's clock moves by itself.
    pub stream_clock: Option<ManualClock>,
    /// Where state is stored between runs; without it the views are rebuilt from the topics after a start.
    pub state: Option<StateOptions>,
}

/// How state is stored.
#[derive(Debug, Clone)]
pub struct StateOptions {
    /// Where.
    pub store: StateStore,
    /// Time between two checkpoints.
    pub interval: Duration,
    /// While a checkpoint is being written, the engine goes on until so much has gathered for the next one; then it
    /// waits. Bytes, about.
    pub unsaved_bytes_max: usize,
}

/// What the reading task hands to the engine.
struct Work {
    epoch: SourceEpoch,
    mode: StepMode,
    phase: Phase,
    report: Report,
}

/// What the reading task knows for the status record.
#[derive(Debug, Clone, Copy, Default)]
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
    /// The stage is about to end.
    Last,
}

/// What the engine hands to the writing task.
struct Done {
    output: EpochOutput,
    /// Views in whole, where their topics must be brought in line.
    whole: Vec<ViewChange>,
    /// State at this epoch, to be stored when its changes are on their topics.
    checkpoint: Option<CheckpointData>,
    /// The dataflow graph with its numbers, now and then.
    graph: Option<Bytes>,
    phase: Phase,
    report: Report,
    /// When the newest record of the epoch was written to the log, milliseconds since 1970.
    newest_record_ms: Option<i64>,
}

/// Runs until `shutdown`; publishes the catalog, the views, the rules' rows and the status.
///
/// `restored` is what the engine's program took over from stored state; the source must go on from there too.
///
/// # Errors
/// [`Error::Source`] or [`Error::Publish`] if the log can never be used again; outages are waited out. [`Error::State`]
/// if the state cannot be stored any more, above all because another engine took it over.
pub async fn run(
    mut engine: Engine,
    mut source: Box<dyn EpochSource>,
    log: Arc<dyn Log>,
    options: RunOptions,
    restored: Option<Restored>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let views = engine.views();
    publish_catalog(&*log, &views).await?;
    let busy = Arc::new(AtomicBool::new(false));
    let (to_store, stored) = mpsc::channel(1);
    let state = options.state.as_ref().map(|state| Saving::new(state, Arc::clone(&busy)));
    let mut lease = None;
    let storing = match &options.state {
        Some(state) => {
            let saver = Saver::new(state.store.clone(), &mut engine, restored.as_ref())?;
            let (renewals, lease_seen) = watch::channel(Instant::now());
            lease = Some(Lease(lease_seen));
            Some(tokio::spawn(saver.run(stored, busy, renewals)))
        }
        None => None,
    };
    let streamed = engine.stream_growing_views();
    let topic_ends = restored.as_ref().map(|r| r.topic_ends(engine.program())).unwrap_or_default();
    let mut before = Vec::with_capacity(views.len());
    let mut last_epoch = 0;
    let wanted: Vec<(String, Option<i64>)> =
        views.iter().map(|v| (v.topic.clone(), topic_ends.get(&v.topic).copied())).collect();
    let held = futures::stream::iter(wanted).map(|(topic, end)| {
        let log = Arc::clone(&log);
        async move { Ok::<_, Error>((end, read_view_topic(&*log, &topic, end).await?)) }
    });
    let held: Vec<_> = held.buffered(TOPICS_AT_ONCE).try_collect().await?;
    for ((end, (rows, epoch)), is_streamed) in held.into_iter().zip(streamed) {
        before.push(match end {
            _ if is_streamed => Before::Streamed { held: present(rows), is_all: end.is_none() },
            Some(_) => Before::Since { tail: rows, changed: Changes::default() },
            None => Before::All(present(rows)),
        });
        last_epoch = last_epoch.max(epoch);
    }
    engine.set_unconfirmed((0..before.len()).filter(|view| before[*view].is_unconfirmed()).collect());
    if let Some(restored) = restored {
        let (started, epoch) = (Instant::now(), restored.checkpoint.epoch);
        if let Some(clock) = &options.stream_clock {
            clock.set(clock.now_us().max(restored.checkpoint.as_of_us));
        }
        engine = tokio::task::spawn_blocking(move || engine.restore(&restored).map(|()| engine))
            .await
            .map_err(|_| Error::Died)??;
        let seconds = started.elapsed().as_secs_f64();
        tracing::info!(epoch, seconds, "views stand where the stored state stands");
    }
    // Views that are compared in whole once the history is read.
    engine.want_changes(|view| !before[view].wants_all());
    engine.continue_after(last_epoch);
    tracing::info!(views = views.len(), last_epoch, "engine starts");

    let (to_engine, work) = mpsc::channel::<Work>(IN_FLIGHT_MAX);
    let (to_writer, done) = mpsc::channel::<Done>(IN_FLIGHT_MAX);
    let computing = Computing {
        engine,
        clock: options.stream_clock,
        saving: state,
        wants_whole: before.iter().map(Before::wants_whole).collect(),
        metrics_due: Instant::now(),
    };
    let thread = std::thread::Builder::new().name("engine".to_owned()).spawn(move || computing.run(work, &to_writer));
    let thread = thread.map_err(|e| Error::Source(Box::new(e)))?;
    let writer = Writer {
        log,
        views,
        before,
        topic_ends,
        written: BTreeSet::new(),
        is_live: false,
        lease,
        to_store,
        status_due: Instant::now(),
    };
    let writer = tokio::spawn(writer.run(done));
    let read = read(&mut *source, &to_engine, &writer, shutdown).await;
    if read.is_ok() {
        // The last state is stored, so that the next start has nothing to read again.
        let last = Work {
            epoch: SourceEpoch::default(),
            mode: StepMode::Normal,
            phase: Phase::Last,
            report: Report::default(),
        };
        if to_engine.send(last).await.is_err() {
            tracing::debug!("the engine ended before its last checkpoint");
        }
    }
    drop(to_engine);
    let written = writer.await.map_err(|_| Error::Died)?;
    let computed =
        tokio::task::spawn_blocking(move || thread.join()).await.map_err(|_| Error::Died)?.map_err(|_| Error::Died)?;
    let stored = match storing {
        Some(task) => task.await.map_err(|_| Error::Died)?,
        None => Ok(()),
    };
    // What failed first made the others stop: a failed store ends the writer, the writer the reader.
    stored.and(written).and(computed).and(read)
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

/// When checkpoints are taken.
struct Saving {
    interval: Duration,
    unsaved_bytes_max: usize,
    due: Instant,
    busy: Arc<AtomicBool>,
}

impl Saving {
    fn new(options: &StateOptions, busy: Arc<AtomicBool>) -> Self {
        let StateOptions { interval, unsaved_bytes_max, .. } = *options;
        Self { interval, unsaved_bytes_max, due: Instant::now() + interval, busy }
    }

    /// Whether to take a checkpoint now. Waits for the one on its way if too much has gathered since.
    fn is_due(&mut self, engine: &Engine) -> bool {
        let is_full = engine.unsaved_bytes() > self.unsaved_bytes_max;
        if is_full && self.busy.load(Ordering::Acquire) {
            metrics::counter!("pipelines_checkpoint_waits_total").increment(1);
            let waiting = Instant::now();
            while self.busy.load(Ordering::Acquire) && waiting.elapsed() < BUSY_WAIT_MAX {
                std::thread::sleep(BUSY_PAUSE);
            }
        }
        let now = Instant::now();
        let due = (is_full || now >= self.due) && !self.busy.load(Ordering::Acquire);
        if due {
            self.due = now + self.interval;
            self.busy.store(true, Ordering::Release);
        }
        due
    }
}

/// The engine on its own thread.
struct Computing {
    engine: Engine,
    clock: Option<ManualClock>,
    saving: Option<Saving>,
    /// Views that are needed in whole when the sources have been read up to now.
    wants_whole: Vec<bool>,
    metrics_due: Instant,
}

impl Computing {
    fn run(mut self, mut work: mpsc::Receiver<Work>, to_writer: &mpsc::Sender<Done>) -> Result<(), Error> {
        while let Some(work) = work.blocking_recv() {
            let done = self.compute(&work)?;
            if to_writer.blocking_send(done).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn compute(&mut self, work: &Work) -> Result<Done, Error> {
        if let (Some(clock), Some(newest_us)) = (&self.clock, work.epoch.max_event_time_us)
            && newest_us > clock.now_us()
        {
            clock.set(newest_us);
        }
        let started = Instant::now();
        let output = self.engine.step(&work.epoch, work.mode);
        metrics::histogram!("pipelines_epoch_seconds").record(started.elapsed().as_secs_f64());
        let mut whole = Vec::new();
        match work.phase {
            Phase::CatchingUp => {}
            Phase::CaughtUp => {
                self.engine.want_changes(|_| true);
                whole = self.engine.everything(|view| self.wants_whole[view])?;
                self.engine.set_unconfirmed(BTreeSet::new());
            }
            Phase::Live | Phase::Last => {}
        }
        let mut graph = None;
        if self.metrics_due <= Instant::now() || work.phase == Phase::CaughtUp {
            self.metrics_due = Instant::now() + METRICS_INTERVAL;
            measure(&self.engine);
            graph = Some(Bytes::from(self.engine.graph_report().to_string()));
        }
        let engine = &mut self.engine;
        let due = self.saving.as_mut().is_some_and(|s| work.phase == Phase::Last || s.is_due(engine));
        let checkpoint = if due { engine.take_checkpoint()? } else { None };
        let newest_record_ms = work.epoch.max_log_timestamp_ms;
        Ok(Done { output, whole, checkpoint, graph, phase: work.phase, report: work.report, newest_record_ms })
    }
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

/// What a view's topic held before the start.
enum Before {
    /// All of it.
    All(Rows),
    /// What was written after the stored state, and what has changed since that state while the sources are read up to
    /// now.
    Since { tail: Changes, changed: Changes },
    /// Of a view that is streamed: what has not come again yet. If it is all that the topic held, and not only what was
    /// written after the stored state, then what never comes again goes.
    Streamed { held: Rows, is_all: bool },
}

/// New values by key; `None` for a key that is gone.
type Changes = HashMap<Bytes, Option<Bytes>>;

/// Writes what the engine computed, in order, and the status once a second.
struct Writer {
    log: Arc<dyn Log>,
    views: Vec<ViewInfo>,
    before: Vec<Before>,
    /// End of each view topic that is in line with the engine.
    topic_ends: BTreeMap<String, i64>,
    /// Views written to since their topic's end was looked up.
    written: BTreeSet<usize>,
    is_live: bool,
    lease: Option<Lease>,
    to_store: mpsc::Sender<(CheckpointData, BTreeMap<String, i64>)>,
    status_due: Instant,
}

impl Writer {
    async fn run(mut self, mut done: mpsc::Receiver<Done>) -> Result<(), Error> {
        while let Some(done) = done.recv().await {
            let Done { output, whole, checkpoint, graph, phase, report, newest_record_ms } = done;
            let as_of_ms = output.as_of_us.div_euclid(1_000);
            if let Some(lease) = &mut self.lease
                && !lease.holds().await
            {
                return Ok(());
            }
            self.publish(&output, whole, phase).await?;
            let now_ms = chrono::Utc::now().timestamp_millis();
            if let Some(newest_ms) = newest_record_ms {
                let seconds = (now_ms - newest_ms).max(0) as f64 / 1_000.0;
                metrics::histogram!("pipelines_record_to_view_seconds").record(seconds);
            }
            if self.status_due <= Instant::now() || phase == Phase::CaughtUp {
                self.status_due = Instant::now() + STATUS_INTERVAL;
                publish_status(&*self.log, output.epoch, as_of_ms, now_ms, self.is_live, report).await?;
            }
            if let Some(graph) = graph {
                append(&*self.log, vec![record(topics::GRAPH, Bytes::from_static(b"engine"), Some(graph))]).await?;
            }
            if phase == Phase::CaughtUp {
                tracing::info!(epoch = output.epoch, records_read = report.records_read, "views are up to date");
            }
            if let Some(checkpoint) = checkpoint {
                let topic_ends = self.checkpoint_ends().await?;
                if self.to_store.send((checkpoint, topic_ends)).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn publish(&mut self, output: &EpochOutput, whole: Vec<ViewChange>, phase: Phase) -> Result<(), Error> {
        let mut rows: BTreeMap<usize, Vec<(Bytes, Option<Bytes>)>> = BTreeMap::new();
        for change in &output.changes {
            rows.insert(change.view, encode(change, &self.views[change.view].key));
        }
        if phase == Phase::CaughtUp {
            self.is_live = true;
            let mut whole: BTreeMap<usize, _> =
                whole.iter().map(|c| (c.view, encode(c, &self.views[c.view].key))).collect();
            for (view, before) in std::mem::take(&mut self.before).into_iter().enumerate() {
                let now = rows.remove(&view).unwrap_or_default();
                rows.insert(view, before.difference(now, whole.remove(&view).unwrap_or_default()));
            }
            self.written.extend(0..self.views.len());
        }
        if !self.is_live {
            rows.retain(|view, now| self.before[*view].take(now));
        }
        let as_of_ms = output.as_of_us.div_euclid(1_000);
        let mut records = Vec::new();
        for (view, rows) in rows.into_iter().filter(|(_, rows)| !rows.is_empty()) {
            self.written.insert(view);
            mark(rows, &Arc::from(self.views[view].topic.as_str()), output.epoch, as_of_ms, &mut records);
        }
        metrics::counter!("pipelines_changes_published_total").increment(records.len() as u64);
        append(&*self.log, records).await
    }

    /// Ends of the view topics that are in line with the epoch just written.
    async fn checkpoint_ends(&mut self) -> Result<BTreeMap<String, i64>, Error> {
        for view in std::mem::take(&mut self.written) {
            let topic = &self.views[view].topic;
            let ends = retried(|| self.log.offsets(topic)).await?;
            if let Some(end) = ends.iter().find(|p| p.partition == 0).map(|p| p.end) {
                self.topic_ends.insert(topic.clone(), end);
            }
        }
        let mut ends = self.topic_ends.clone();
        for (view, before) in self.before.iter().enumerate() {
            // Its topic lags behind the engine until the sources are read up to now.
            if matches!(before, Before::Since { changed, .. } if !changed.is_empty()) || before.is_unconfirmed() {
                ends.remove(&self.views[view].topic);
            }
        }
        Ok(ends)
    }
}

impl Before {
    /// Whether nothing of the topic's content is known to be right.
    fn wants_all(&self) -> bool {
        matches!(self, Self::All(_))
    }

    /// Whether the topic may hold rows that are gone.
    fn is_unconfirmed(&self) -> bool {
        matches!(self, Self::Streamed { held, is_all: true } if !held.is_empty())
    }

    /// While history is read: takes in what has changed. Tells whether it is to be written now; of that it leaves what the
    /// topic does not hold.
    fn take(&mut self, now: &mut Vec<(Bytes, Option<Bytes>)>) -> bool {
        match self {
            Self::All(_) => false,
            Self::Since { changed, .. } => {
                changed.extend(now.drain(..));
                false
            }
            Self::Streamed { held, .. } => {
                if !held.is_empty() {
                    now.retain(|(key, row)| held.remove(key) != *row);
                }
                true
            }
        }
    }

    /// What must be written so that the topic holds what the view holds now. `now` is what changed in this epoch,
    /// `whole` the whole view if [`Before::wants_whole`].
    fn difference(
        self,
        now: Vec<(Bytes, Option<Bytes>)>,
        whole: Vec<(Bytes, Option<Bytes>)>,
    ) -> Vec<(Bytes, Option<Bytes>)> {
        match self {
            Self::All(mut rows) => unlike(&mut rows, whole),
            Self::Streamed { mut held, is_all } => {
                let mut new: Vec<_> = now.into_iter().filter(|(key, row)| held.remove(key) != *row).collect();
                if is_all {
                    new.extend(held.into_keys().map(|key| (key, None)));
                }
                new
            }
            Self::Since { tail, mut changed } => {
                changed.extend(now);
                if tail.is_empty() {
                    return changed.into_iter().collect();
                }
                let whole: Changes = whole.into_iter().collect();
                let keys: BTreeSet<Bytes> = tail.keys().chain(changed.keys()).cloned().collect();
                let current = keys.into_iter().map(|key| (whole.get(&key).cloned().flatten(), key));
                current.filter(|(row, key)| tail.get(key) != Some(row)).map(|(row, key)| (key, row)).collect()
            }
        }
    }

    fn wants_whole(&self) -> bool {
        match self {
            Self::All(_) => true,
            Self::Since { tail, .. } => !tail.is_empty(),
            Self::Streamed { .. } => false,
        }
    }
}
async fn publish_status(
    log: &dyn Log,
    epoch: u64,
    as_of_ms: i64,
    written_at_ms: i64,
    is_live: bool,
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
        phase: if is_live { "live" } else { "catching_up" }.to_owned(),
    };
    append(log, vec![record(topics::STATUS, Bytes::from_static(b"engine"), Some(to_json(&status)))]).await
}

/// Keys and rows of a change; `None` for a key that is gone.
fn encode(change: &ViewChange, key: &[String]) -> Vec<(Bytes, Option<Bytes>)> {
    let columns: Vec<usize> = key.iter().filter_map(|name| change.upserts.schema().index_of(name).ok()).collect();
    let rows = json::rows(&change.upserts);
    let keys = match columns.iter().copied().eq(0..change.upserts.num_columns()) {
        true => rows.clone(),
        false => change.upserts.project(&columns).map(|k| json::rows(&k)).unwrap_or_default(),
    };
    let deleted = json::rows(&change.deletes).into_iter().map(|key| (key, None));
    keys.into_iter().zip(rows.into_iter().map(Some)).chain(deleted).collect()
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
    for topic in
        [topics::CATALOG, topics::STATUS, topics::GRAPH].into_iter().chain(views.iter().map(|v| v.topic.as_str()))
    {
        retried(|| log.create_topic(topic, TopicSpec::compacted())).await?;
    }
    let (before, _) = read_view_topic(log, topics::CATALOG, None).await?;
    let mut before = present(before);
    let now = views.iter().map(|v| (Bytes::from(v.name.clone()), Some(to_json(v)))).collect();
    let changes = unlike(&mut before, now);
    let records = changes.into_iter().map(|(key, value)| record(topics::CATALOG, key, value)).collect();
    append(log, records).await
}

fn present(changes: Changes) -> Rows {
    changes.into_iter().filter_map(|(key, row)| Some((key, row?))).collect()
}

/// What a compacted topic holds from an offset on, and the newest epoch in it.
async fn read_view_topic(log: &dyn Log, topic: &str, from: Option<i64>) -> Result<(Changes, u64), Error> {
    let ends = retried(|| log.offsets(topic)).await?;
    let mut at = Offsets::default();
    let mut target = Offsets::default();
    for p in ends.iter().filter(|p| p.end > from.unwrap_or(p.earliest).max(p.earliest)) {
        target.set(topic, p.partition, p.end);
        if let Some(from) = from {
            at.set(topic, p.partition, from);
        }
    }
    let mut rows = Changes::new();
    let mut epoch = 0;
    if target.is_empty() {
        return Ok((rows, epoch));
    }
    let selector = vec![TopicSelector::Name(topic.to_owned())];
    let from = at.clone();
    let mut reader = retried(|| log.read(selector.clone(), &from)).await?;
    let limit = PollLimit { max_records: APPEND_RECORDS_MAX, max_bytes: 16 << 20, wait: IDLE_WAIT };
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
                if let Some(key) = record.key {
                    rows.insert(key, record.value);
                }
            }
        }
    }
    Ok((rows, epoch))
}
