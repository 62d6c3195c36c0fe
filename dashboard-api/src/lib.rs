//! The dashboard API: kept views, alerts and the engine's status, live over WebSocket and on request over REST, and
//! the user interface.
//!
//! In: the topics `andon.catalog`, `andon.view.*`, `andon.alerts` and `andon.status` of a [`model::Log`]. Out: HTTP.
//!
//! From the outside in:
//! - `transport`: carries messages (WebSocket, server-sent events, HTTP streaming);
//! - `session`: one client's commands, subscriptions and timers, by the rules of the Centrifuge client protocol;
//! - `outbox`: what waits to be written to one client, bounded;
//! - `hub`: channels with their content, position and subscribers, fed from the log;
//! - `cluster`: several nodes as one: presence, publications of clients, orders to connections;
//! - `protocol`: the protocol's words as JSON and Protobuf; `fossil`: deltas;
//! - `server_api`: what other programs call;
//! - `rest`: the HTTP routes; `ui`: the embedded page; `auth`: callers and permissions.
//!
//! Invariants: a subscriber's snapshot and the publications after it are exact, with nothing missed or doubled;
//! a publication is encoded once and its bytes are shared; every queue is bounded, and a client at a bound loses its
//! connection or gets an error, never a silent hole.

mod auth;
mod cluster;
mod config;
mod dialect;
mod error;
#[cfg(test)]
mod fixtures;
mod fossil;
mod functions;
#[doc(hidden)]
pub mod fuzz;
mod hub;
mod limits;
mod live;
mod outbox;
mod problem;
mod protocol;
mod rest;
mod server;
mod server_api;
mod session;
mod sql;
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

use crate::cluster::message::Control;
use crate::protocol::Disconnect;

pub use crate::auth::store::{ApiKeyInfo, NewApiKey, Store, StoreError, UserInfo};
pub use crate::config::{
    Allowed, ApiConfig, AuthConfig, AuthMode, CommandLimits, HeartbeatConfig, HttpIngestConfig, KeyConfig,
    LimitsConfig, LiveConfig, NamespaceConfig, Permission, RedisConfig, RoleConfig, ServerConfig, SqlConfig, TlsConfig,
};
pub use crate::error::Error;
pub use crate::server::listen;
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
    let pacing = Arc::clone(&hub);
    let cluster = Arc::clone(&state.sessions().cluster);
    let following = hub::tail::run(hub, log, Arc::clone(state.clock()), state.shutdown().clone());
    let beside = async {
        tokio::join!(pacing.pacer().run(), cluster.run(state.shutdown().clone()), look_again(&state));
    };
    tokio::select! {
        result = following => result,
        () = beside => Ok(()),
    }
}

/// Has every live connection checked whenever credentials are revoked, here or at another node.
async fn look_again(state: &AppState) {
    let cluster = Arc::clone(&state.sessions().cluster);
    let registry = Arc::clone(cluster.registry());
    cluster.set_on_revoked(Box::new(move || registry.check_again()));
    let mut revocations = state.auth().revocations();
    while revocations.changed().await.is_ok() {
        cluster.control(Control { revoked: true, ..Control::default() });
    }
    // Nothing more can be revoked; the other tasks go on.
    state.shutdown().cancelled().await;
}

/// Tells every client to go elsewhere, spread over the configured time. Until its turn each gets every update.
async fn drain(state: &AppState) {
    state.start_draining();
    let registry = state.sessions().cluster.registry();
    let handles = registry.all();
    let spread = Duration::from_secs(state.config().live.drain_seconds.into());
    let pause = spread / u32::try_from(handles.len().max(1)).unwrap_or(u32::MAX);
    tracing::info!(n_connections = handles.len(), seconds = spread.as_secs(), "telling clients to go elsewhere");
    for handle in handles {
        handle.outbox.close(Disconnect::SHUTDOWN);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
    // Those that came meanwhile.
    registry.all().iter().for_each(|handle| handle.outbox.close(Disconnect::SHUTDOWN));
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
    // What feeds the connections goes on until the last of them is gone.
    let finish = CancellationToken::new();
    let _finish_at_the_end = finish.clone().drop_guard();
    let state = AppState::open(config, log, Arc::new(SystemClock), finish.clone()).await?;
    let mut feeding = tokio::spawn(feed(state.clone()));
    let authority = Arc::clone(state.auth());
    let keeping = tokio::spawn({
        let stop = stop.clone();
        async move { authority.run(stop).await }
    });
    let connections = state.connections().clone();
    let stop_serving = stop.clone();
    let serving_state = state.clone();
    let mut serving = tokio::spawn(async move {
        let state = serving_state;
        server::serve(listener, state.config(), app(state.clone()), stop_serving).await
    });
    let result = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        fed = &mut feeding => fed.unwrap_or(Err(Error::Task { task: "feeds the channels" })),
        served = &mut serving => served.unwrap_or(Err(Error::Task { task: "serves http" })),
    };
    stop.cancel();
    if result.is_ok() {
        drain(&state).await;
    } else {
        finish.cancel();
        state.sessions().cluster.registry().all().iter().for_each(|handle| handle.outbox.close(Disconnect::SHUTDOWN));
    }
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
