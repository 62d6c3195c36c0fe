//! `/api/v1/live`: the connections and channels of this node, for administrators, and an end for one of them.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;

use crate::auth::{Action, Permission, Resource};
use crate::cluster::message::{Control, DisconnectOrder, Selector};
use crate::problem::Problem;
use crate::protocol::Disconnect;
use crate::rest::Caller;
use crate::state::AppState;

/// Connections that one answer names; the count beside them is complete.
const CONNECTIONS_MAX: usize = 1_000;

/// What is live at this node.
#[derive(Debug, Serialize)]
pub(crate) struct Live {
    node: String,
    /// Names of all nodes, this one included.
    nodes: Vec<String>,
    n_connections: usize,
    connections: Vec<Connection>,
    channels: Vec<Channel>,
}

/// A connection.
#[derive(Debug, Serialize)]
struct Connection {
    client: String,
    user: Option<String>,
    library: Option<String>,
    transport: &'static str,
    /// Milliseconds since 1970.
    connected_at_ms: i64,
    /// Bytes that wait to be written.
    waiting_bytes: usize,
}

/// A channel with subscribers.
#[derive(Debug, Serialize)]
struct Channel {
    channel: String,
    n_subscribers: usize,
}

/// Shows what is live.
pub(crate) async fn show(caller: Caller, State(state): State<AppState>) -> Result<Json<Live>, Problem> {
    require_admin(&caller, &state)?;
    let cluster = &state.sessions().cluster;
    let handles = cluster.registry().all();
    let connections = handles.iter().take(CONNECTIONS_MAX).map(|handle| Connection {
        client: handle.client.clone(),
        user: handle.about().map(|about| about.user.to_string()),
        library: handle.about().map(|about| about.library.clone()),
        transport: handle.transport.name(),
        connected_at_ms: handle.connected_at_ms,
        waiting_bytes: handle.outbox.waiting_bytes(),
    });
    let channels = state.hub().channels().into_iter();
    Ok(Json(Live {
        node: cluster.node().to_string(),
        nodes: cluster.nodes().into_keys().collect(),
        n_connections: handles.len(),
        connections: connections.collect(),
        channels: channels.map(|(channel, n_subscribers)| Channel { channel, n_subscribers }).collect(),
    }))
}

/// Ends a connection, at whichever node; the client does not come back by itself.
pub(crate) async fn disconnect(
    caller: Caller,
    State(state): State<AppState>,
    Path(client): Path<String>,
) -> Result<StatusCode, Problem> {
    require_admin(&caller, &state)?;
    let Disconnect { code, reason } = Disconnect::FORCE_DISCONNECT;
    let order = DisconnectOrder { code: code.into(), reason: reason.into_owned() };
    let who = Some(Selector { client, ..Selector::default() });
    state.sessions().cluster.control(Control { who, disconnect: Some(order), ..Control::default() });
    Ok(StatusCode::NO_CONTENT)
}

fn require_admin(caller: &Caller, state: &AppState) -> Result<(), Problem> {
    caller.check(state, Action::Use(Permission::Admin), Resource::Server).map(drop)
}
