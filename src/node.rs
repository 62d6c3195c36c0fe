//! The stages of one process, wired over one log.
//!
//! Each stage is a task that the node owns: if one fails, the others are told to stop and the failure is the node's
//! result. Between the stages there is nothing but the log, so any subset of them may run here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use alerting::Rule;
use clap::ValueEnum;
use ingest::log::{KafkaLog, KafkaOptions, LocalLog, LocalLogOptions};
use metrics_exporter_prometheus::PrometheusHandle;
use model::{Log, Offsets};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::clock::StreamClock;
use crate::config::{ClockMode, Config};
use crate::engine_stage::EngineStage;
use crate::program::{Planned, SourceTopics, SqlSet};
use crate::{BoxError, Error, reload, standby, telemetry};

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
        node.spawn("metrics", telemetry::keep(metrics.clone(), node.shutdown()));
        if stages.contains(&Stage::Dashboard) {
            node.start_dashboard(config, metrics).await?;
        }
        let sql = SqlSet::of_config(config)?;
        if role == Role::Standby {
            // Mistakes are said now, and not when it is needed.
            sql.plan()?;
            standby::wait(&node.log).await.map_err(|e| Error::other("cannot stand by", e))?;
        }
        let (to_engine, news) = mpsc::channel(1);
        let rules = if stages.contains(&Stage::Pipelines) {
            let mut planned = sql.plan()?;
            let (to_alerting, rules) = watch::channel(std::mem::take(&mut planned.rules));
            node.start_pipelines(config, &sql, planned, news, to_alerting).await?;
            rules
        } else {
            let (to_alerting, rules) = watch::channel(sql.load_rules()?);
            node.spawn("rules", reload::pass_rules(news, to_alerting));
            rules
        };
        if stages.contains(&Stage::Alerting) && config.alerting.enabled {
            node.start_alerting(config, rules);
        }
        node.spawn("sql files", reload::watch(config.clone(), sql, to_engine, node.shutdown()));
        Ok(node)
    }

    async fn start_dashboard(&mut self, config: &Config, metrics: PrometheusHandle) -> Result<(), Error> {
        let listen_error = |source| Error::Listen { address: config.api.listen.clone(), source };
        let listener = dashboard_api::listen(&config.api.listen).await.map_err(listen_error)?;
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

    async fn start_pipelines(
        &mut self,
        config: &Config,
        sql: &SqlSet,
        planned: Planned,
        news: mpsc::Receiver<SqlSet>,
        rules: watch::Sender<Vec<Rule>>,
    ) -> Result<(), Error> {
        info!(tables = planned.tables.len(), views = planned.program.views().len(), "planned");
        if config.engine.clock == ClockMode::Stream {
            self.clock = Some(StreamClock::default());
        }
        let topics = planned.source_topics()?;
        let (offsets, seen) = watch::channel(Offsets::default());
        self.consumed = Some(Consumed { topics, offsets: seen });
        let stage = EngineStage::new(config, self.log.clone(), self.clock.clone(), offsets, self.shutdown.clone());
        let running = stage.start(planned).await?;
        self.spawn(Stage::Pipelines.name(), stage.keep(running, sql.clone(), news, rules));
        Ok(())
    }

    fn start_alerting(&mut self, config: &Config, mut rules: watch::Receiver<Vec<Rule>>) {
        let options = alerting::AlertingOptions::new(config.database.url.clone());
        let (log, shutdown) = (self.log.clone(), self.shutdown.clone());
        self.spawn(Stage::Alerting.name(), async move {
            loop {
                let stop = shutdown.child_token();
                let now = rules.borrow_and_update().clone();
                let run = alerting::run(log.clone(), now, options.clone(), stop.clone());
                tokio::pin!(run);
                tokio::select! {
                    ended = &mut run => return ended.map_err(BoxError::from),
                    Ok(()) = rules.changed() => stop.cancel(),
                }
                // It ends between two transactions, and goes on with the new rules where it was.
                run.await?;
            }
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
