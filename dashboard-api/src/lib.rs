//! The dashboard API: kept views, alerts and the engine's status, live over WebSocket and on request over REST, and
//! the user interface.
//!
//! In: the topics `andon.catalog`, `andon.view.*`, `andon.alerts` and `andon.status` of a [`model::Log`]. Out: HTTP.
//!
//! From the outside in:
//! - `transport`: carries messages (WebSocket);
//! - `session`: one client's commands, subscriptions and timers, by the rules of the Centrifuge client protocol;
//! - `outbox`: what waits to be written to one client, bounded;
//! - `hub`: channels with their content, position and subscribers, fed from the log;
//! - `protocol`: the protocol's words as JSON;
//! - `rest`: the HTTP routes; `ui`: the embedded page; `auth`: callers and permissions.
//!
//! Invariants: a subscriber's snapshot and the publications after it are exact, with nothing missed or doubled;
//! a publication is encoded once and its bytes are shared; every queue is bounded, and a client at a bound loses its
//! connection or gets an error, never a silent hole.

mod auth;
mod config;
mod error;
#[cfg(test)]
mod fixtures;
mod functions;
mod hub;
mod outbox;
mod problem;
mod protocol;
mod rest;
mod server;
mod session;
mod state;
mod table;
mod transport;
mod ui;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use model::Log;
use model::clock::SystemClock;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use crate::auth::store::{ApiKeyInfo, NewApiKey, Store, StoreError, UserInfo};
pub use crate::config::{
    ApiConfig, AuthConfig, AuthMode, HeartbeatConfig, HttpIngestConfig, KeyConfig, LimitsConfig, Permission,
    RoleConfig, ServerConfig, SqlConfig, TlsConfig,
};
pub use crate::error::Error;
pub use crate::state::AppState;

/// How long connections get to end at shutdown before they are dropped.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// All routes. Needs [`feed`] to run beside it for the channels to have content.
pub fn app(state: AppState) -> Router {
    rest::router(state)
}

/// Fills the channels of `state` from the log until shutdown.
///
/// # Errors
/// [`Error::Log`] if the log can never be read on.
pub async fn feed(state: AppState) -> Result<(), Error> {
    let (hub, log) = (Arc::clone(state.hub()), Arc::clone(state.log()));
    hub::tail::run(hub, log, Arc::clone(state.clock()), state.shutdown().clone()).await
}

/// Serves on `listener` until `shutdown`, then closes all connections in order.
///
/// # Errors
/// [`Error::Config`] at once; [`Error::Log`] if the log can never be read on; [`Error::Users`] and [`Error::Certificate`] at the start.
pub async fn run(
    listener: TcpListener,
    config: ApiConfig,
    log: Arc<dyn Log>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    // Ends with this function, so that no connection outlives a failure of the feed.
    let stop = shutdown.child_token();
    let _stop_at_the_end = stop.clone().drop_guard();
    let state = AppState::open(config, log, Arc::new(SystemClock), stop.clone()).await?;
    let mut feeding = tokio::spawn(feed(state.clone()));
    let authority = Arc::clone(state.auth());
    let keeping = tokio::spawn({
        let stop = stop.clone();
        async move { authority.run(stop).await }
    });
    let connections = state.connections().clone();
    let stop_serving = stop.clone();
    let mut serving =
        tokio::spawn(async move { server::serve(listener, state.config(), app(state.clone()), stop_serving).await });
    let result = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        fed = &mut feeding => fed.unwrap_or(Err(Error::Task { task: "feeds the channels" })),
        served = &mut serving => served.unwrap_or(Err(Error::Task { task: "serves http" })),
    };
    stop.cancel();
    connections.close();
    let is_over = tokio::time::timeout(SHUTDOWN_TIMEOUT, async {
        connections.wait().await;
        if !serving.is_finished() {
            drop((&mut serving).await);
        }
    });
    if is_over.await.is_err() {
        tracing::warn!("dropped connections that did not end in time");
        serving.abort();
    }
    feeding.abort();
    // It writes what is left of the audit log.
    if tokio::time::timeout(SHUTDOWN_TIMEOUT, keeping).await.is_err() {
        tracing::warn!("the audit log's last entries could not be written in time");
    }
    result
}
