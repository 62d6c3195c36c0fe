//! The engine on its own thread.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::Clock;
use model::clock::ManualClock;
use tokio::sync::mpsc;

use super::{Done, NewProgram, Phase, StateOptions, Work};
use crate::change::{Builder, Changed, Outline};
use crate::engine::{Engine, StepMode};
use crate::error::Error;

/// Time between two looks at the sizes of views and state.
const METRICS_INTERVAL: Duration = Duration::from_secs(10);
/// The engine waits so long at most for a checkpoint on its way, and looks so often whether it has arrived.
const BUSY_WAIT_MAX: Duration = Duration::from_secs(60);
const BUSY_PAUSE: Duration = Duration::from_millis(2);

/// When checkpoints are taken.
pub(super) struct Saving {
    interval: Duration,
    unsaved_bytes_max: usize,
    due: Instant,
    busy: Arc<AtomicBool>,
}

impl Saving {
    pub(super) fn new(options: &StateOptions, busy: Arc<AtomicBool>) -> Self {
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
pub(super) struct Computing {
    pub(super) engine: Engine,
    pub(super) clock: Option<ManualClock>,
    pub(super) saving: Option<Saving>,
    /// Views that are needed in whole when the sources have been read up to now.
    pub(super) wants_whole: Vec<bool>,
    pub(super) metrics_due: Instant,
    /// Builds another program beside this one.
    pub(super) builder: Option<Builder>,
    /// Of the program that runs, for the task that reads.
    pub(super) outline: Arc<Mutex<Outline>>,
}

impl Computing {
    pub(super) fn run(mut self, mut work: mpsc::Receiver<Work>, to_writer: &mpsc::Sender<Done>) -> Result<(), Error> {
        while let Some(work) = work.blocking_recv() {
            let done = self.compute(work)?;
            if to_writer.blocking_send(done).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn compute(&mut self, work: Work) -> Result<Done, Error> {
        if let Some(NewProgram { change, evolution, rows }) = work.change {
            match self.builder {
                Some(_) => change.tell(Changed::Failed("another change is under way".to_owned())),
                None => self.builder = Builder::start(change, evolution, rows, self.engine.now_us()),
            }
        }
        if let (Some(clock), Some(newest_us)) = (&self.clock, work.epoch.max_event_time_us)
            && newest_us > clock.now_us()
        {
            clock.set(newest_us);
        }
        let is_built = self.builder.as_ref().is_some_and(Builder::is_ready);
        let mode = if is_built { StepMode::Flush } else { work.mode };
        let newest_record_ms = work.epoch.max_log_timestamp_ms;
        let started = Instant::now();
        let mut output = self.engine.step(&work.epoch, mode);
        metrics::histogram!("pipelines_epoch_seconds").record(started.elapsed().as_secs_f64());
        if let Some(builder) = &mut self.builder {
            builder.repeat(work.epoch, output.as_of_us, mode);
        }
        let switch = match self.builder.take_if(|_| is_built) {
            Some(builder) => builder.finish(&mut self.engine, &mut output)?,
            None => None,
        };
        if switch.is_some() {
            *self.outline.lock().unwrap_or_else(PoisonError::into_inner) = Outline::of(self.engine.program());
        }
        let mut whole = BTreeMap::new();
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
        Ok(Done { output, whole, switch, checkpoint, graph, phase: work.phase, report: work.report, newest_record_ms })
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
