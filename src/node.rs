//! The stages of one process, wired over one log.
//!
//! Each stage is a task that the node owns: if one fails, the others are told to stop and the failure is the node's
//! result. Between the stages there is nothing but the log, so any subset of them may run here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use ingest::log::{KafkaLog, KafkaOptions, LocalLog, LocalLogOptions};
use ingest::{Ingest, IngestOptions};
use metrics_exporter_prometheus::PrometheusHandle;
use model::clock::SystemClock;
use model::{Clock, Log, Offsets};
use pipelines::{Engine, Program, Restored, RunOptions, StateError, StateOptions, StateStore};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::clock::{ObservedSource, StreamClock};
use crate::config::{ClockMode, Config};
use crate::program::{SourceTopics, SqlSet};
use crate::{BoxError, Error, standby};

/// After a request to stop, tasks get so long to finish what they are doing.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A part of Andon that can run alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// Reads the ERP's changes and keeps the views.
    Pipelines,
    /// Turns the rules' rows into alerts.
    Alerting,
    /// Serves the page, the API and live connections.
    Dashboard,
}

impl Stage {
    /// All stages, in the direction of the data.
    pub const ALL: [Self; 3] = [Self::Pipelines, Self::Alerting, Self::Dashboard];

    fn name(self) -> &'static str {
        match self {
            Self::Pipelines => "pipelines",
            Self::Alerting => "alerting",
            Self::Dashboard => "dashboard",
        }
    }
}

/// How far the engine of this process has read its sources.
#[derive(Debug, Clone)]
pub struct Consumed {
    topics: SourceTopics,
    offsets: watch::Receiver<Offsets>,
}

impl Consumed {
    /// Waits until everything before `target` has been read, as far as some table reads it; false if the engine ends.
    pub async fn wait_for(&mut self, target: &Offsets) -> bool {
        let target = self.topics.only(target);
        self.offsets.wait_for(|at| at.reached(&target)).await.is_ok()
    }
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    log: Arc<dyn Log>,
    address: Option<SocketAddr>,
    clock: Option<StreamClock>,
    consumed: Option<Consumed>,
    shutdown: CancellationToken,
    tasks: JoinSet<(&'static str, Result<(), BoxError>)>,
}

/// Opens the log that a configuration names: Kafka if there are brokers, else the local log.
///
/// # Errors
/// [`Error::Log`] if it cannot be reached or opened.
pub async fn open_log(config: &Config) -> Result<Arc<dyn Log>, Error> {
    match &config.kafka.brokers {
        Some(brokers) => {
            let options = KafkaOptions {
                client: config.kafka.client.clone(),
                connect_timeout: Duration::from_millis(config.kafka.connect_timeout_ms),
                linger: Duration::from_millis(config.kafka.linger_ms),
                ..KafkaOptions::new(brokers)
            };
            Ok(KafkaLog::connect(options).await?)
        }
        None => {
            let options = LocalLogOptions {
                sync_interval: Duration::from_millis(config.log.sync_ms),
                ..LocalLogOptions::default()
            };
            Ok(LocalLog::open(&config.log.dir, options)?)
        }
    }
}

/// Whether a node works from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// At once.
    Active,
    /// When no other node does any more.
    Standby,
}

/// Opens the stored state, and reads what the program can use of it.
async fn open_state(config: &Config, program: &Program) -> Result<(Option<StateOptions>, Option<Restored>), Error> {
    if config.state.location.is_empty() {
        return Ok((None, None));
    }
    let failed = |e: StateError| Error::other("cannot use the stored state", e);
    let store = StateStore::open(&config.state.location).await.map_err(failed)?;
    let restored = store.restore(program).await.map_err(failed)?;
    info!(state = store.place(), found = restored.is_some(), "state");
    let options = StateOptions {
        store,
        interval: Duration::from_millis(config.state.checkpoint_ms),
        unsaved_bytes_max: config.state.unsaved_bytes_max,
    };
    Ok((Some(options), restored))
}

impl Node {
    /// Starts the stages. The page is served before the views are planned and caught up; `/readyz` tells when they
    /// are.
    ///
    /// # Errors
    /// If the log, the listener or the SQL files are not usable; then nothing keeps running.
    pub async fn start(
        config: &Config,
        stages: &[Stage],
        role: Role,
        metrics: PrometheusHandle,
    ) -> Result<Self, Error> {
        let log = open_log(config).await?;
        info!(log = log.describe(), "log");
        let mut node = Self {
            log,
            address: None,
            clock: None,
            consumed: None,
            shutdown: CancellationToken::new(),
            tasks: JoinSet::new(),
        };
        if stages.contains(&Stage::Dashboard) {
            node.start_dashboard(config, metrics).await?;
        }
        let sql = SqlSet::of_config(config)?;
        if role == Role::Standby {
            // Mistakes are said now, and not when it is needed.
            sql.plan()?;
            standby::wait(&node.log).await.map_err(|e| Error::other("cannot stand by", e))?;
        }
        let rules = if stages.contains(&Stage::Pipelines) {
            node.start_pipelines(config, &sql).await?
        } else {
            sql.load_rules()?
        };
        if stages.contains(&Stage::Alerting) && config.alerting.enabled {
            node.start_alerting(config, rules);
        }
        Ok(node)
    }

    async fn start_dashboard(&mut self, config: &Config, metrics: PrometheusHandle) -> Result<(), Error> {
        let listen_error = |source| Error::Listen { address: config.api.listen.clone(), source };
        let listener = TcpListener::bind(&config.api.listen).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        self.address = Some(address);
        let api = dashboard_api::ApiConfig { metrics: Some(metrics), ..config.api.to_api_config(&config.database) };
        let (log, shutdown) = (self.log.clone(), self.shutdown.clone());
        self.spawn(Stage::Dashboard.name(), async move {
            dashboard_api::run(listener, api, log, shutdown).await.map_err(BoxError::from)
        });
        info!(%address, "dashboard listens");
        Ok(())
    }

    async fn start_pipelines(&mut self, config: &Config, sql: &SqlSet) -> Result<Vec<alerting::Rule>, Error> {
        let planned = sql.plan()?;
        info!(tables = planned.tables.len(), views = planned.program.views().len(), "planned");
        let topics = planned.source_topics()?;
        let clock: Arc<dyn Clock> = match config.engine.clock {
            ClockMode::Wall => Arc::new(SystemClock),
            ClockMode::Stream => Arc::new(self.clock.insert(StreamClock::default()).manual()),
        };
        let options = IngestOptions {
            epoch_records_max: config.ingest.epoch_records_max,
            epoch_idle: Duration::from_millis(config.ingest.epoch_idle_ms),
            epoch_duration_max: Duration::from_millis(config.ingest.epoch_ms_max),
            record_bytes_max: config.ingest.record_bytes_max,
            event_time_ahead_max: Duration::from_secs(config.ingest.future_event_time_max_s),
            idle_timeout: Duration::from_millis(config.ingest.idle_timeout_ms),
            business_clock: Arc::clone(&clock),
            ..IngestOptions::default()
        };
        let (state, restored) = open_state(config, &planned.program).await?;
        let from = restored.as_ref().map(|r| r.source.clone()).unwrap_or_default();
        let source = Ingest::resume(self.log.clone(), planned.tables, options, &from)
            .await
            .map_err(|e| Error::other("cannot start reading the sources", e))?;
        let (source, consumed) = ObservedSource::new(Box::new(source), self.clock.clone());
        self.consumed = Some(Consumed { topics, offsets: consumed });
        let engine = Engine::new(planned.program, clock).map_err(|e| Error::other("cannot start the engine", e))?;
        let run_options = RunOptions { stream_clock: self.clock.as_ref().map(StreamClock::manual), state };
        let (log, shutdown) = (self.log.clone(), self.shutdown.clone());
        self.spawn(Stage::Pipelines.name(), async move {
            pipelines::run(engine, Box::new(source), log, run_options, restored, shutdown).await.map_err(BoxError::from)
        });
        Ok(planned.rules)
    }

    fn start_alerting(&mut self, config: &Config, rules: Vec<alerting::Rule>) {
        let options = alerting::AlertingOptions::new(config.database.url.clone());
        let (log, shutdown) = (self.log.clone(), self.shutdown.clone());
        self.spawn(Stage::Alerting.name(), async move {
            alerting::run(log, rules, options, shutdown).await.map_err(BoxError::from)
        });
    }

    /// Adds a task of the node, for example one that feeds it. Its failure ends the node; its success does not.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = Result<(), BoxError>> + Send + 'static) {
        self.tasks.spawn(async move { (name, task.await) });
    }

    /// The log of this node.
    pub fn log(&self) -> Arc<dyn Log> {
        self.log.clone()
    }

    /// Where the page is served, if this node serves it.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The stream clock, if the engine has one.
    pub fn stream_clock(&self) -> Option<StreamClock> {
        self.clock.clone()
    }

    /// The source offsets that the engine has read, if it runs here.
    pub fn consumed(&self) -> Option<Consumed> {
        self.consumed.clone()
    }

    /// Cancelling this token stops the node.
    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Runs until a task fails, the token is cancelled, or the process is told to stop; then stops everything.
    ///
    /// # Errors
    /// [`Error::Stage`] for the first task that failed.
    pub async fn run(mut self) -> Result<(), Error> {
        let mut result = Ok(());
        loop {
            tokio::select! {
                ended = self.tasks.join_next() => match ended {
                    None => break,
                    Some(ended) => {
                        if let Err(error) = self.task_ended(ended) {
                            result = Err(error);
                            break;
                        }
                    }
                },
                signal = stop_signal() => {
                    info!(signal, "stopping");
                    break;
                }
                () = self.shutdown.cancelled() => break,
            }
        }
        self.stop(result).await
    }

    fn task_ended(
        &self,
        ended: Result<(&'static str, Result<(), BoxError>), tokio::task::JoinError>,
    ) -> Result<(), Error> {
        match ended {
            Ok((stage, Ok(()))) if Stage::ALL.iter().any(|s| s.name() == stage) && !self.shutdown.is_cancelled() => {
                Err(Error::Stage { stage, source: "it ended although nobody asked it to".into() })
            }
            Ok((_, Ok(()))) => Ok(()),
            Ok((stage, Err(source))) => Err(Error::Stage { stage, source }),
            Err(error) => Err(Error::other("a stage panicked", error)),
        }
    }

    async fn stop(mut self, mut result: Result<(), Error>) -> Result<(), Error> {
        self.shutdown.cancel();
        let stopped = tokio::time::timeout(STOP_TIMEOUT, async {
            while let Some(ended) = self.tasks.join_next().await {
                match self.task_ended(ended) {
                    Err(error) if result.is_err() => error!(error = error.chain(), "another stage failed"),
                    Err(error) => result = Err(error),
                    Ok(()) => {}
                }
            }
        });
        if stopped.await.is_err() {
            warn!(seconds = STOP_TIMEOUT.as_secs(), "some stages did not stop in time and were cut off");
            self.tasks.shutdown().await;
        }
        result
    }
}

/// Waits for SIGTERM or SIGINT and names it.
pub async fn stop_signal() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        // Without handlers the signals keep their default effect, which ends the process as well.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
