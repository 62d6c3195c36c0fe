//! What all requests share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::{Clock, Log};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Authority;
use crate::auth::store::Store;
use crate::cluster::Cluster;
use crate::cluster::registry::Registry;
use crate::config::ApiConfig;
use crate::error::Error;
use crate::hub::Hub;
use crate::problem::Problem;
use crate::protocol::Disconnect;
use crate::rest::auth::SignInLimits;
use crate::rest::guard::Gate;
use crate::session::SessionContext;
use crate::sql::SqlEngine;

/// Answers that copy the rows of a view at a time: each takes memory and a core by the size of the view.
const READS_MAX: usize = 16;
/// How long a request waits for its turn to read; then it gets 429.
const READ_PATIENCE: Duration = Duration::from_secs(5);

/// What all requests share. Cheap to clone.
#[derive(Clone)]
pub struct AppState(Arc<Shared>);

struct Shared {
    config: ApiConfig,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    hub: Arc<Hub>,
    auth: Arc<Authority>,
    sessions: Arc<SessionContext>,
    gate: Gate,
    sign_ins: SignInLimits,
    sql: SqlEngine,
    /// Places for reads that copy the rows of a view.
    reads: Arc<Semaphore>,
    permits: Arc<Semaphore>,
    connections: TaskTracker,
    is_draining: AtomicBool,
    shutdown: CancellationToken,
}

impl AppState {
    /// Checks the configuration and prepares an empty hub; [`crate::feed`] fills it.
    ///
    /// # Errors
    /// [`Error::Config`] with every mistake of the configuration.
    pub fn new(
        config: ApiConfig,
        log: Arc<dyn Log>,
        clock: Arc<dyn Clock>,
        shutdown: CancellationToken,
    ) -> Result<Self, Error> {
        let auth = Self::authority(&config, &clock)?;
        Self::with_authority(config, log, clock, shutdown, auth)
    }

    /// The same with the users and the audit log of the database that the configuration names.
    ///
    /// # Errors
    /// As [`Self::new`], and [`Error::Users`] if the database fails.
    pub async fn open(
        config: ApiConfig,
        log: Arc<dyn Log>,
        clock: Arc<dyn Clock>,
        shutdown: CancellationToken,
    ) -> Result<Self, Error> {
        let mut auth = Self::authority(&config, &clock)?;
        if let Some(url) = &config.database_url {
            auth = auth.with_store(Store::open(url).await?).await?;
        }
        Self::with_authority(config, log, clock, shutdown, auth)
    }

    fn authority(config: &ApiConfig, clock: &Arc<dyn Clock>) -> Result<Authority, Error> {
        let wrong = config.validate();
        if !wrong.is_empty() {
            return Err(Error::Config(wrong));
        }
        Authority::new(&config.auth, &config.roles, Arc::clone(clock)).map_err(Error::Config)
    }

    fn with_authority(
        config: ApiConfig,
        log: Arc<dyn Log>,
        clock: Arc<dyn Clock>,
        shutdown: CancellationToken,
        auth: Authority,
    ) -> Result<Self, Error> {
        let hub = Arc::new(Hub::new(&config.limits, &config.live));
        let auth = Arc::new(auth);
        let registry = Arc::new(Registry::default());
        let cluster = Cluster::new(Arc::clone(&hub), registry, Arc::clone(&clock), &config.live.redis);
        let sessions = Arc::new(SessionContext::new(
            Arc::clone(&hub),
            Arc::clone(&auth),
            Arc::new(cluster),
            config.limits.clone(),
            config.heartbeat.clone(),
        ));
        let permits = Arc::new(Semaphore::new(config.limits.connections.min(Semaphore::MAX_PERMITS)));
        let connections = TaskTracker::new();
        let is_draining = AtomicBool::new(false);
        let gate = Gate::new(&config);
        let sign_ins = SignInLimits::new(&config);
        let sql = SqlEngine::new(&config.sql).map_err(Error::Threads)?;
        Ok(Self(Arc::new(Shared {
            config,
            log,
            clock,
            hub,
            auth,
            sessions,
            gate,
            sign_ins,
            sql,
            reads: Arc::new(Semaphore::new(READS_MAX)),
            permits,
            connections,
            is_draining,
            shutdown,
        })))
    }

    /// Keeps keys, users and the audit log up to date until shutdown. To be run beside [`crate::app`].
    pub async fn keep(&self) {
        self.0.auth.run(self.0.shutdown.clone()).await;
    }

    pub(crate) fn config(&self) -> &ApiConfig {
        &self.0.config
    }

    pub(crate) fn log(&self) -> &Arc<dyn Log> {
        &self.0.log
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.0.clock
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.0.hub
    }

    pub(crate) fn auth(&self) -> &Arc<Authority> {
        &self.0.auth
    }

    /// Milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> i64 {
        self.0.clock.now_us() / 1000
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.0.gate
    }

    pub(crate) fn sign_ins(&self) -> &SignInLimits {
        &self.0.sign_ins
    }

    pub(crate) fn sql(&self) -> &SqlEngine {
        &self.0.sql
    }

    /// The right to copy the rows of a view for one answer; whoever comes while there is no place waits a little.
    ///
    /// # Errors
    /// If no place became free.
    pub(crate) async fn read_permit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let permit = tokio::time::timeout(READ_PATIENCE, Arc::clone(&self.0.reads).acquire_owned()).await;
        permit.ok().and_then(Result::ok).ok_or_else(|| Problem::too_many("too many views are being read"))
    }

    pub(crate) fn sessions(&self) -> &Arc<SessionContext> {
        &self.0.sessions
    }

    /// The right to one live connection; `None` if there are as many as allowed.
    pub(crate) fn connection_permit(&self) -> Option<OwnedSemaphorePermit> {
        if self.0.is_draining.load(Ordering::Acquire) {
            return None;
        }
        Arc::clone(&self.0.permits).try_acquire_owned().ok()
    }

    /// From now on no live connection is opened.
    pub(crate) fn start_draining(&self) {
        self.0.is_draining.store(true, Ordering::Release);
    }

    /// Why there is no permit.
    pub(crate) fn connection_refusal(&self) -> Disconnect {
        match self.0.is_draining.load(Ordering::Acquire) {
            true => Disconnect::SHUTDOWN,
            false => Disconnect::CONNECTION_LIMIT,
        }
    }

    /// The tasks of all live connections.
    pub(crate) fn connections(&self) -> &TaskTracker {
        &self.0.connections
    }

    pub(crate) fn shutdown(&self) -> &CancellationToken {
        &self.0.shutdown
    }
}
