//! The engine as this process runs it: started from its stored state, and given other SQL files while it runs.

use std::sync::Arc;
use std::time::Duration;

use alerting::Rule;
use ingest::{Ingest, IngestOptions};
use model::clock::SystemClock;
use model::{Clock, Log, Offsets};
use pipelines::{Change, Changed, Engine, Program, Restored, RunOptions, StateError, StateOptions, StateStore};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info};

use crate::clock::{ObservedSource, StreamClock};
use crate::config::Config;
use crate::program::{Planned, SqlSet};
use crate::{BoxError, Error, reload};

/// What is needed to start the engine, again and again.
#[derive(Debug)]
pub(crate) struct EngineStage {
    config: Config,
    log: Arc<dyn Log>,
    stream_clock: Option<StreamClock>,
    offsets: watch::Sender<Offsets>,
    shutdown: CancellationToken,
}

/// A running engine.
#[derive(Debug)]
pub(crate) struct Running {
    task: AbortOnDropHandle<Result<(), pipelines::Error>>,
    changes: mpsc::Sender<Change>,
    stop: CancellationToken,
}

/// What to do after other SQL files have been offered.
enum Next {
    /// The program that runs has changed, or it has not.
    GoOn { is_new: bool },
    /// It must be started with these.
    Start,
}

impl EngineStage {
    /// `offsets` is told how far the sources have been read.
    pub(crate) fn new(
        config: &Config,
        log: Arc<dyn Log>,
        stream_clock: Option<StreamClock>,
        offsets: watch::Sender<Offsets>,
        shutdown: CancellationToken,
    ) -> Self {
        Self { config: config.clone(), log, stream_clock, offsets, shutdown }
    }

    /// Starts a program from the stored state, if there is one.
    ///
    /// # Errors
    /// If the state or the sources are not usable.
    pub(crate) async fn start(&self, planned: Planned) -> Result<Running, Error> {
        let clock: Arc<dyn Clock> = match &self.stream_clock {
            None => Arc::new(SystemClock),
            Some(clock) => Arc::new(clock.manual()),
        };
        let ingest = &self.config.ingest;
        let options = IngestOptions {
            epoch_records_max: ingest.epoch_records_max,
            epoch_idle: Duration::from_millis(ingest.epoch_idle_ms),
            epoch_duration_max: Duration::from_millis(ingest.epoch_ms_max),
            record_bytes_max: ingest.record_bytes_max,
            event_time_ahead_max: Duration::from_secs(ingest.future_event_time_max_s),
            idle_timeout: Duration::from_millis(ingest.idle_timeout_ms),
            business_clock: Arc::clone(&clock),
            ..IngestOptions::default()
        };
        let Planned { tables, program, .. } = planned;
        let (program, state, restored) = self.open_state(program).await?;
        let from = restored.as_ref().map(|r| r.source.clone()).unwrap_or_default();
        let source = Ingest::resume(self.log.clone(), tables, options, &from)
            .await
            .map_err(|e| Error::other("cannot start reading the sources", e))?;
        let source = ObservedSource::new(Box::new(source), self.stream_clock.clone(), self.offsets.clone());
        let engine = Engine::new(program, clock).map_err(|e| Error::other("cannot start the engine", e))?;
        let (changes, of_program) = mpsc::channel(1);
        let stream_clock = self.stream_clock.as_ref().map(StreamClock::manual);
        let options = RunOptions { stream_clock, state, changes: Some(of_program) };
        let stop = self.shutdown.child_token();
        let run = pipelines::run(engine, Box::new(source), self.log.clone(), options, restored, stop.clone());
        Ok(Running { task: AbortOnDropHandle::new(tokio::spawn(run)), changes, stop })
    }

    /// Opens the stored state, and reads what the program can use of it.
    async fn open_state(&self, program: Program) -> Result<(Program, Option<StateOptions>, Option<Restored>), Error> {
        let config = &self.config.state;
        if config.location.is_empty() {
            return Ok((program, None, None));
        }
        let failed = |e: StateError| Error::other("cannot use the stored state", e);
        let store = StateStore::open(&config.location).await.map_err(failed)?;
        // Operators cannot be looked at from two threads, so the program stays on one while it is compared.
        let (of_store, runtime) = (store.clone(), Handle::current());
        let reading = move || (runtime.block_on(of_store.restore(&program)), program);
        let (restored, program) = tokio::task::spawn_blocking(reading)
            .await
            .map_err(|e| Error::other("reading the stored state panicked", e))?;
        let restored = restored.map_err(failed)?;
        info!(state = store.place(), found = restored.is_some(), "state");
        let options = StateOptions {
            store,
            interval: Duration::from_millis(config.checkpoint_ms),
            unsaved_bytes_max: config.unsaved_bytes_max,
        };
        Ok((program, Some(options), restored))
    }

    /// Runs until the node stops; takes over the SQL files that come in place of `sql`, and tells the rules among them.
    ///
    /// # Errors
    /// The engine's own, and whatever keeps it from starting with other files.
    pub(crate) async fn keep(
        self,
        mut running: Running,
        mut sql: SqlSet,
        mut news: mpsc::Receiver<SqlSet>,
        rules: watch::Sender<Vec<Rule>>,
    ) -> Result<(), BoxError> {
        loop {
            let next = tokio::select! {
                ended = &mut running.task => return Ok(ended??),
                Some(next) = news.recv() => next,
            };
            let Some(planned) = reload::plan(&next).await else { continue };
            let new_rules = planned.rules;
            let outcome = tokio::select! {
                ended = &mut running.task => return Ok(ended??),
                outcome = offer(&running.changes, planned.program) => outcome,
            };
            let is_new = match outcome {
                Next::GoOn { is_new } => is_new,
                Next::Start => {
                    running.stop.cancel();
                    running.task.await??;
                    let Some(planned) = reload::plan(&next).await else {
                        return Err("SQL files that had been planned cannot be planned again".into());
                    };
                    running = self.start(planned).await?;
                    true
                }
            };
            if !is_new {
                reload::note(reload::Outcome::Refused);
                continue;
            }
            reload::note(reload::Outcome::Taken);
            if next.rules != sql.rules {
                rules.send_replace(new_rules);
            }
            sql = next;
        }
    }
}

/// Offers a program to the running engine.
async fn offer(changes: &mpsc::Sender<Change>, program: Program) -> Next {
    let (answer, outcome) = oneshot::channel();
    if changes.send(Change { program, answer }).await.is_err() {
        // It is about to end, which is noticed where it is waited for.
        return Next::GoOn { is_new: false };
    }
    match outcome.await {
        Ok(Changed::Done(views)) => {
            info!(?views, "the SQL files have changed: these views were built and took over");
            Next::GoOn { is_new: true }
        }
        Ok(Changed::NeedsStart(why)) => {
            info!(
                why,
                "the SQL files have changed: the engine starts again with them; views stay as they are meanwhile"
            );
            Next::Start
        }
        Ok(Changed::Failed(why)) => {
            error!(why, "the SQL files have changed, and cannot be used: what ran before runs on");
            Next::GoOn { is_new: false }
        }
        Err(_) => Next::GoOn { is_new: false },
    }
}
