//! The second engine, on a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Instant;

use arrow::array::RecordBatch;
use bytes::Bytes;
use model::clock::ManualClock;
use model::{Delta, SourceEpoch, TableDelta, ViewInfo};
use tokio::sync::oneshot;

use super::{Change, Changed, Evolution, tell};
use crate::engine::{Engine, EpochOutput, StepMode, ViewParts};
use crate::error::Error;
use crate::kept::ViewChange;
use crate::program::Program;
use crate::publish::encoded;

/// Epochs that wait for the second engine. When it is further behind, the first one waits: both read the same changes,
/// and the second computes a part of what the first does.
const EPOCHS_BEHIND_MAX: usize = 1_024;

/// An epoch as the first engine took it.
struct Repeated {
    epoch: SourceEpoch,
    now_us: i64,
    mode: StepMode,
}

/// What readers must be told when the new program takes over.
#[derive(Debug)]
pub(crate) struct Switch {
    /// The views that are kept from now on.
    pub(crate) views: Vec<ViewInfo>,
    /// Those that were built.
    pub(crate) built: Vec<BuiltView>,
    answer: oneshot::Sender<Changed>,
}

/// A view that was built.
#[derive(Debug)]
pub(crate) struct BuiltView {
    /// Which one it is.
    pub(crate) view: usize,
    /// Its rows, in parts.
    pub(crate) whole: ViewParts,
    /// What its topic holds, as keys and rows; `None` if nothing is known of it.
    pub(crate) held: Option<Vec<(Bytes, Option<Bytes>)>>,
}

impl Switch {
    /// Everything has been published.
    pub(crate) fn done(self) {
        let names = self.built.iter().map(|built| self.views[built.view].name.clone()).collect();
        tell(self.answer, Changed::Done(names));
    }
}

/// Builds what is new of a program, beside the engine that runs.
#[derive(Debug)]
pub(crate) struct Builder {
    evolution: Evolution,
    answer: oneshot::Sender<Changed>,
    to_thread: mpsc::SyncSender<Repeated>,
    n_sent: u64,
    n_taken: Arc<AtomicU64>,
    thread: JoinHandle<Engine>,
    started: Instant,
}

impl Builder {
    /// Starts. `rows` are those of the tables that [`Evolution::tables`] names, as they stand after the running engine's
    /// last epoch.
    ///
    /// # Errors
    /// If the engine cannot be made; then the change has been answered.
    pub(crate) fn start(
        change: Change,
        evolution: Evolution,
        rows: Vec<(Arc<str>, RecordBatch)>,
        now_us: i64,
    ) -> Option<Self> {
        let Change { program, answer } = change;
        let (views, n_rows) = (evolution.names(&program), rows.iter().map(|(_, r)| r.num_rows()).sum::<usize>());
        tracing::info!(?views, rows = n_rows, "views are built beside the running ones");
        let (to_thread, epochs) = mpsc::sync_channel(EPOCHS_BEHIND_MAX);
        let n_taken = Arc::new(AtomicU64::new(0));
        let is_built = evolution.is_built.clone();
        let taken = Arc::clone(&n_taken);
        let clock = ManualClock::default();
        let made = Engine::new(program, Arc::new(clock.clone())).map(|mut engine| {
            engine.rest(&is_built);
            std::thread::Builder::new()
                .name("builder".to_owned())
                .spawn(move || follow(engine, &clock, &epochs, &taken))
        });
        let thread = match made {
            Ok(Ok(thread)) => thread,
            Ok(Err(error)) => {
                tell(answer, Changed::NeedsStart(error.to_string()));
                return None;
            }
            Err(error) => {
                tell(answer, Changed::Failed(chain(&error)));
                return None;
            }
        };
        let tables = rows.into_iter().map(|(table, rows)| TableDelta {
            table,
            delta: Delta::inserts(rows),
            positions: Vec::new(),
        });
        let epoch = SourceEpoch { tables: tables.collect(), ..SourceEpoch::default() };
        let mut builder = Self { evolution, answer, to_thread, n_sent: 0, n_taken, thread, started: Instant::now() };
        builder.repeat(epoch, now_us, StepMode::Flush);
        Some(builder)
    }

    /// Hands on what the running engine has just taken, at the business time that it then had.
    pub(crate) fn repeat(&mut self, epoch: SourceEpoch, now_us: i64, mode: StepMode) {
        // A thread that is gone is noticed at the end.
        if self.to_thread.send(Repeated { epoch, now_us, mode }).is_ok() {
            self.n_sent += 1;
        }
    }

    /// Whether the new views stand where the running engine stands, or never will.
    pub(crate) fn is_ready(&self) -> bool {
        self.thread.is_finished() || self.n_taken.load(Ordering::Acquire) == self.n_sent
    }

    /// Puts the new program in the place of the running one. Both must have taken the same epochs, the last one with
    /// [`StepMode::Flush`]; `output` is what the running engine put out in it, and is put in terms of the new program.
    ///
    /// # Errors
    /// [`Error::Compute`] if rows cannot be decoded: a bug.
    pub(crate) fn finish(self, engine: &mut Engine, output: &mut EpochOutput) -> Result<Option<Switch>, Error> {
        let Self { evolution, answer, to_thread, thread, started, .. } = self;
        drop(to_thread);
        let Ok(next) = thread.join() else {
            tell(answer, Changed::Failed("a bug: building the views panicked, see the log".to_owned()));
            return Ok(None);
        };
        let names = evolution.names(next.program());
        if let Some((view, reason)) = next.failures().into_iter().find(|(view, _)| names.iter().any(|n| n == view)) {
            tell(answer, Changed::Failed(format!("{view} failed on a row: {reason}")));
            return Ok(None);
        }
        let held = held(engine, next.program(), &evolution, output)?;
        let now = next.program().views();
        output.changes = std::mem::take(&mut output.changes)
            .into_iter()
            .filter_map(|change| {
                let name = &engine.program().views[change.view].info.name;
                let view = now.iter().position(|v| v.name == *name).filter(|i| !evolution.fresh[*i])?;
                Some(ViewChange { view, ..change })
            })
            .collect();
        engine.replace_program(next, &evolution.is_built, &evolution.fresh);
        let mut built = engine.everything(|view| evolution.fresh[view])?;
        let fresh = (0..now.len()).filter(|view| evolution.fresh[*view]).zip(held);
        let built = fresh
            .map(|(view, held)| BuiltView { view, whole: built.remove(&view).unwrap_or_default(), held })
            .collect();
        tracing::info!(views = ?names, seconds = started.elapsed().as_secs_f64(), "views were built and take over");
        Ok(Some(Switch { views: now, built, answer }))
    }
}

/// What is on the topics of the views that were built, as the running engine knows it. What it changed in `output` has
/// not been written: such keys hold an empty row, which no view has.
fn held(
    engine: &mut Engine,
    next: &Program,
    evolution: &Evolution,
    output: &EpochOutput,
) -> Result<Vec<Option<Vec<(Bytes, Option<Bytes>)>>>, Error> {
    let mut held = Vec::new();
    for view in next.views.iter().zip(&evolution.fresh).filter(|(_, fresh)| **fresh).map(|(view, _)| view) {
        let old = engine.program().views.iter().position(|v| v.info.topic == view.info.topic);
        // A view that had failed stood still, but the rows that are kept of it are what it had published.
        held.push(match old.filter(|old| engine.knows_rows(*old)) {
            Some(old) => {
                let whole = engine.everything(|i| i == old)?;
                let key = &engine.program().views[old].info.key;
                let mut rows: Vec<_> = whole.values().flatten().flat_map(|part| encoded(part, key)).collect();
                let unwritten = output.changes.iter().filter(|change| change.view == old);
                let unwritten = unwritten.flat_map(|change| encoded(change, key));
                rows.extend(unwritten.map(|(key, _)| (key, Some(Bytes::new()))));
                Some(rows)
            }
            None => None,
        });
    }
    Ok(held)
}

/// Takes every epoch that comes.
fn follow(mut engine: Engine, clock: &ManualClock, epochs: &mpsc::Receiver<Repeated>, taken: &AtomicU64) -> Engine {
    while let Ok(Repeated { epoch, now_us, mode }) = epochs.recv() {
        clock.set(now_us);
        engine.step(&epoch, mode);
        taken.fetch_add(1, Ordering::Release);
    }
    engine
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
