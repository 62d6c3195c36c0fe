//! The engine as a stage: reads epochs, keeps the views, writes their changes to the log.
//!
//! Three tasks work side by side: the source decodes the next epoch while the engine's own thread computes this one
//! and the last one is written; the channels between them hold [`IN_FLIGHT_MAX`] epochs each.
//!
//! After a start without stored state the views are rebuilt from the sources' history while readers go on seeing what
//! the view topics hold from before. When the history is read, the difference between the two is written in one epoch,
//! so a restart shows nobody a half-built view. With stored state only what came after it is read, compared and written.
//!
//! Views that only grow are *streamed* if their rows are their own keys: neither the engine nor the state holds their
//! rows, which are written as they come, also while history is read. What a topic holds from before is written again only
//! where it is missing; what is there and does not come again is taken back when the history is read.
//!
//! Another program for the running engine ([`Change`]) is taken in the same way: what is new is built beside the views
//! that run, and takes their place in one epoch.

mod computing;
mod topics;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use model::clock::ManualClock;
use model::{Clock, EpochSource, Log, SourceEpoch};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::change::{Change, Changed, Evolution, Outline, Switch};
use crate::engine::{Engine, EpochOutput, StepMode, ViewParts};
use crate::error::Error;
use crate::state::{CheckpointData, Lease, Restored, Saver, StateStore};
use computing::{Computing, Saving};
pub(crate) use topics::encode as encoded;
use topics::{Before, Changes, present, publish_catalog, read_view_topic};
use writer::Writer;

/// Epochs waiting between two tasks; a full channel holds the source back.
const IN_FLIGHT_MAX: usize = 2;
/// How long a missing epoch is waited for before time-dependent views are looked at.
const IDLE_WAIT: Duration = Duration::from_millis(200);
/// View topics that are read at once at the start.
const TOPICS_AT_ONCE: usize = 8;

/// How the stage runs.
#[derive(Debug, Default)]
pub struct RunOptions {
    /// Business time follows the newest event time of the sources through this clock, which must be the engine's;
    /// without it the engine's clock moves by itself.
    pub stream_clock: Option<ManualClock>,
    /// Where state is stored between runs; without it the views are rebuilt from the topics after a start.
    pub state: Option<StateOptions>,
    /// Other programs that come while it runs; see [`Change`].
    pub changes: Option<mpsc::Receiver<Change>>,
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
    /// Another program, to be built beside the running one from before this epoch on.
    change: Option<NewProgram>,
    epoch: SourceEpoch,
    mode: StepMode,
    phase: Phase,
    report: Report,
}

impl Work {
    /// An epoch without changes.
    fn nothing(phase: Phase, report: Report) -> Self {
        Self { change: None, epoch: SourceEpoch::default(), mode: StepMode::Normal, phase, report }
    }
}

/// A change of program with all that the engine needs for it.
struct NewProgram {
    change: Change,
    evolution: Evolution,
    rows: Vec<(Arc<str>, RecordBatch)>,
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
    whole: BTreeMap<usize, ViewParts>,
    /// Another program has taken over in this epoch.
    switch: Option<Switch>,
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
    let outline = Arc::new(Mutex::new(Outline::of(engine.program())));
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
        builder: None,
        outline: Arc::clone(&outline),
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
    let reading =
        Reading { source: &mut *source, to_engine: &to_engine, writer: &writer, changes: options.changes, outline };
    let read = reading.run(shutdown).await;
    if read.is_ok() {
        // The last state is stored, so that the next start has nothing to read again.
        let last = Work::nothing(Phase::Last, Report::default());
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

/// The task that reads.
struct Reading<'a> {
    source: &'a mut dyn EpochSource,
    to_engine: &'a mpsc::Sender<Work>,
    writer: &'a tokio::task::JoinHandle<Result<(), Error>>,
    changes: Option<mpsc::Receiver<Change>>,
    /// Of the program that runs.
    outline: Arc<Mutex<Outline>>,
}

impl Reading<'_> {
    /// Reads epochs until shutdown, or until one of the other tasks has ended.
    async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let mut phase = Phase::CatchingUp;
        let mut records_read = 0_u64;
        let mut event_time_us = None;
        loop {
            let next = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                next = self.source.next_epoch(IDLE_WAIT) => next.map_err(Error::Source)?,
            };
            if self.writer.is_finished() || self.to_engine.is_closed() {
                return Ok(());
            }
            let lag_records = self.source.lag_records();
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
            let dead_letters = self.source.dead_letters();
            let report = Report { records_read, lag_records, dead_letters, event_time_us };
            let mode = if phase == Phase::CaughtUp { StepMode::Flush } else { StepMode::Normal };
            if self.to_engine.send(Work { change: None, epoch, mode, phase, report }).await.is_err() {
                return Ok(());
            }
            if phase == Phase::CaughtUp {
                phase = Phase::Live;
            }
            if phase == Phase::Live
                && let Some(Ok(change)) = self.changes.as_mut().map(mpsc::Receiver::try_recv)
                && let Some(change) = self.prepare(change)
                && self.to_engine.send(Work { change: Some(change), ..Work::nothing(phase, report) }).await.is_err()
            {
                return Ok(());
            }
        }
    }

    /// Compares another program with the one that runs, and takes the rows of the tables that it is built from as they
    /// stand after the last epoch.
    fn prepare(&self, change: Change) -> Option<NewProgram> {
        let evolution = Evolution::new(&self.outline.lock().unwrap_or_else(PoisonError::into_inner), &change.program);
        match evolution {
            Ok(evolution) => {
                let rows = |table: &Arc<str>| Some((Arc::clone(table), self.source.table_rows(table)?));
                let rows = evolution.tables.iter().filter_map(rows).collect();
                Some(NewProgram { change, evolution, rows })
            }
            Err(why) => {
                change.tell(Changed::NeedsStart(why));
                None
            }
        }
    }
}
