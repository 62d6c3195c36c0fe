//! The server API (`POST /api/<method>`), in the form that back ends of Centrifugo know: publish, broadcast, subscribe,
//! unsubscribe, disconnect, presence, presence_stats, history, history_remove, channels, info, batch.
//!
//! A call is always answered with status 200 and `{"result":…}` or `{"error":…}`, once its key is good.

use std::collections::BTreeMap;

use axum::body::to_bytes;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::future::join_all;
use metrics::counter;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::auth::{Action, Permission, Resource, matches};
use crate::cluster::message::{Control, DisconnectOrder, Publish, Selector, SubscribeOrder};
use crate::hub::is_built_in;
use crate::hub::topics::Position;
use crate::problem::Problem;
use crate::protocol::message::{HistoryRequest, Publication, StreamPosition};
use crate::protocol::{Disconnect, ErrorCode, payload};
use crate::state::AppState;

/// Largest request.
const BODY_BYTES_MAX: usize = 4 << 20;
/// Channels of one broadcast, and commands of one batch.
const PARTS_MAX: usize = 1_000;
/// Longest idempotency key.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// The parameters of all methods together; each reads its own.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Parameters {
    channel: String,
    channels: Vec<String>,
    data: Option<Box<RawValue>>,
    b64data: String,
    skip_history: bool,
    tags: BTreeMap<String, String>,
    idempotency_key: String,
    user: Option<String>,
    client: String,
    session: String,
    whitelist: Vec<String>,
    disconnect: Option<DisconnectParameter>,
    info: Option<Box<RawValue>>,
    expire_at: i64,
    limit: i32,
    since: Option<StreamPosition>,
    reverse: bool,
    pattern: String,
    commands: Vec<Value>,
}

impl Parameters {
    /// Reads a call's body.
    ///
    /// # Errors
    /// If it is not JSON of the form.
    pub(crate) fn parse(body: &[u8]) -> serde_json::Result<Self> {
        if body.is_empty() { Ok(Self::default()) } else { serde_json::from_slice(body) }
    }
}

#[derive(Debug, Deserialize)]
struct DisconnectParameter {
    code: u32,
    #[serde(default)]
    reason: String,
}

/// An error in an answer.
#[derive(Debug, Serialize)]
pub(crate) struct ApiError {
    code: u32,
    message: &'static str,
}

impl From<ErrorCode> for ApiError {
    fn from(error: ErrorCode) -> Self {
        Self { code: error.code, message: error.message }
    }
}

/// Answers a call.
pub(crate) async fn call(State(state): State<AppState>, Path(method): Path<String>, request: Request) -> Response {
    if !has_key(&state, request.headers(), request.uri().query()) {
        counter!("api_server_calls_refused_total").increment(1);
        return Problem::unauthorized("the server API wants a key in the header X-API-Key").into_response();
    }
    let Ok(body) = to_bytes(request.into_body(), BODY_BYTES_MAX).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let answer = match Parameters::parse(&body) {
        Ok(parameters) => run(&state, &method, parameters).await,
        Err(_) => error(ErrorCode::BAD_REQUEST.into()),
    };
    counter!("api_server_calls_total", "method" => known(&method)).increment(1);
    ([(header::CONTENT_TYPE, "application/json")], answer.to_string()).into_response()
}

/// The method's name for metrics.
fn known(method: &str) -> &'static str {
    const METHODS: [&str; 12] = [
        "publish",
        "broadcast",
        "subscribe",
        "unsubscribe",
        "disconnect",
        "presence",
        "presence_stats",
        "history",
        "history_remove",
        "channels",
        "info",
        "batch",
    ];
    METHODS.into_iter().find(|known| *known == method).unwrap_or("unknown")
}

fn has_key(state: &AppState, headers: &HeaderMap, query: Option<&str>) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let authorization = text("authorization").and_then(|value| value.strip_prefix("apikey "));
    let in_query = query.unwrap_or("").split('&').find_map(|pair| pair.strip_prefix("api_key="));
    let key = text("x-api-key").or(authorization).or(in_query);
    let Some(key) = key else { return false };
    let is_configured = state.config().live.server_api_keys.iter().any(|known| is_equal(known, key));
    let by_role =
        |principal| state.auth().access(&principal, Action::Use(Permission::ServerApi), Resource::Server).is_allowed();
    is_configured || state.auth().authenticate(key).is_ok_and(by_role)
}

/// Compares in a time that does not tell how much is right.
fn is_equal(known: &str, given: &str) -> bool {
    let differences = known.bytes().zip(given.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
    known.len() == given.len() && differences == 0
}

async fn run(state: &AppState, method: &str, parameters: Parameters) -> Value {
    if method == "batch" {
        return batch(state, parameters.commands).await;
    }
    run_one(state, method, parameters).await
}

async fn batch(state: &AppState, commands: Vec<Value>) -> Value {
    if commands.len() > PARTS_MAX {
        return error(ErrorCode::LIMIT_EXCEEDED.into());
    }
    let mut replies = Vec::new();
    for command in commands {
        let Value::Object(command) = command else { return error(ErrorCode::BAD_REQUEST.into()) };
        let Some((method, parameters)) = command.into_iter().next() else {
            return error(ErrorCode::BAD_REQUEST.into());
        };
        // Through text, since embedded raw JSON is only read from text.
        let Ok(parameters) = serde_json::from_str(&parameters.to_string()) else {
            return error(ErrorCode::BAD_REQUEST.into());
        };
        let mut answer = run_one(state, &method, parameters).await;
        replies.push(match answer.get_mut("result") {
            Some(result) => json!({ method: result.take() }),
            None => answer,
        });
    }
    json!({ "replies": replies })
}

async fn run_one(state: &AppState, method: &str, parameters: Parameters) -> Value {
    let topics = state.hub().topics();
    let outcome = match method {
        "publish" => publish(state, &parameters.channel, &parameters).await,
        "broadcast" => broadcast(state, &parameters).await,
        "subscribe" | "unsubscribe" | "disconnect" => control(state, method, &parameters),
        "presence" => {
            presence(state, &parameters.channel).map(|()| json!({"presence": topics.presence(&parameters.channel)}))
        }
        "presence_stats" => presence(state, &parameters.channel).and_then(|()| {
            serde_json::to_value(topics.presence_stats(&parameters.channel)).map_err(|_| ErrorCode::NOT_YET.into())
        }),
        "history" => history(state, &parameters),
        "history_remove" => topics.namespace(&parameters.channel).map_err(ApiError::from).map(|_| {
            let remove_history = Some(parameters.channel.clone());
            state.sessions().cluster.control(Control { remove_history, ..Control::default() });
            json!({})
        }),
        "channels" => Ok(channels(state, &parameters.pattern)),
        "info" => Ok(info(state)),
        _ => Err(ErrorCode::METHOD_NOT_FOUND.into()),
    };
    match outcome {
        Ok(result) => json!({ "result": result }),
        Err(failure) => error(failure),
    }
}

fn error(error: ApiError) -> Value {
    json!({ "error": error })
}

pub(crate) fn payload_of(parameters: &Parameters) -> Result<Bytes, ApiError> {
    match &parameters.data {
        Some(data) => Ok(payload::one_line(&Bytes::copy_from_slice(data.get().as_bytes()))),
        None if !parameters.b64data.is_empty() => {
            BASE64_STANDARD.decode(&parameters.b64data).map(Bytes::from).map_err(|_| ErrorCode::BAD_REQUEST.into())
        }
        None => Err(ErrorCode::BAD_REQUEST.into()),
    }
}

async fn publish(state: &AppState, channel: &str, parameters: &Parameters) -> Result<Value, ApiError> {
    let is_sound = !channel.is_empty() && parameters.idempotency_key.len() <= IDEMPOTENCY_KEY_BYTES_MAX;
    if !is_sound || is_built_in(channel) {
        return Err(ErrorCode::BAD_REQUEST.into());
    }
    let publication = Publication {
        data: payload_of(parameters)?,
        tags: parameters.tags.clone(),
        time: state.clock().now_us() / 1000,
        ..Publication::default()
    };
    let publish = Publish {
        channel: channel.to_owned(),
        publication: Some(publication),
        skip_history: parameters.skip_history,
        idempotency_key: parameters.idempotency_key.clone(),
    };
    let (sender, receiver) = oneshot::channel();
    // Nobody waits any more if the caller has gone.
    state.sessions().cluster.publish(publish, Box::new(move |outcome| drop(sender.send(outcome))));
    match receiver.await {
        Ok(Ok(Position { offset: 0, .. })) => Ok(json!({})),
        Ok(Ok(Position { offset, epoch })) => Ok(json!({"offset": offset, "epoch": epoch})),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(ErrorCode::NOT_YET.into()),
    }
}

async fn broadcast(state: &AppState, parameters: &Parameters) -> Result<Value, ApiError> {
    if parameters.channels.is_empty() || parameters.channels.len() > PARTS_MAX {
        return Err(ErrorCode::BAD_REQUEST.into());
    }
    let published = parameters.channels.iter().map(|channel| publish(state, channel, parameters));
    let responses: Vec<Value> = join_all(published)
        .await
        .into_iter()
        .map(|outcome| match outcome {
            Ok(result) => json!({ "result": result }),
            Err(failure) => error(failure),
        })
        .collect();
    Ok(json!({ "responses": responses }))
}

fn control(state: &AppState, method: &str, parameters: &Parameters) -> Result<Value, ApiError> {
    let Parameters { channel, user, client, session, whitelist, .. } = parameters;
    let who =
        Selector { user: user.clone(), client: client.clone(), session: session.clone(), except: whitelist.clone() };
    let mut control = Control { who: Some(who), ..Control::default() };
    match method {
        "disconnect" => {
            let Disconnect { code, reason } = match &parameters.disconnect {
                Some(wanted) => Disconnect::custom(wanted.code, &wanted.reason).ok_or(ErrorCode::BAD_REQUEST)?,
                None => Disconnect::FORCE_DISCONNECT,
            };
            control.disconnect = Some(DisconnectOrder { code: code.into(), reason: reason.into_owned() });
        }
        _ if channel.is_empty() => return Err(ErrorCode::BAD_REQUEST.into()),
        "subscribe" => {
            if !is_built_in(channel) {
                state.hub().topics().namespace(channel)?;
            }
            let info = parameters.info.as_ref();
            let info = info.map_or_else(Bytes::new, |info| Bytes::copy_from_slice(info.get().as_bytes()));
            let expire_at_s = parameters.expire_at;
            control.subscribe = Some(SubscribeOrder { channel: channel.clone(), info, expire_at_s });
        }
        _ => control.unsubscribe = Some(channel.clone()),
    }
    state.sessions().cluster.control(control);
    Ok(json!({}))
}

fn presence(state: &AppState, channel: &str) -> Result<(), ApiError> {
    match state.hub().topics().namespace(channel)?.presence {
        true => Ok(()),
        false => Err(ErrorCode::NOT_AVAILABLE.into()),
    }
}

fn history(state: &AppState, parameters: &Parameters) -> Result<Value, ApiError> {
    let request = HistoryRequest {
        channel: parameters.channel.clone(),
        limit: parameters.limit,
        since: parameters.since.clone(),
        reverse: parameters.reverse,
    };
    let history = state.hub().topics().history(&parameters.channel, &request)?;
    serde_json::to_string(&history).and_then(|json| serde_json::from_str(&json)).map_err(|_| ErrorCode::NOT_YET.into())
}

/// The channels with subscribers, on all nodes.
fn channels(state: &AppState, pattern: &str) -> Value {
    let mut channels: BTreeMap<String, u32> = BTreeMap::new();
    for alive in state.sessions().cluster.nodes().into_values() {
        for (channel, n_clients) in alive.channels {
            if pattern.is_empty() || matches(pattern, &channel) {
                *channels.entry(channel).or_default() += n_clients;
            }
        }
    }
    let channels: BTreeMap<String, Value> =
        channels.into_iter().map(|(channel, n)| (channel, json!({ "num_clients": n }))).collect();
    json!({ "channels": channels })
}

fn info(state: &AppState) -> Value {
    let nodes: Vec<Value> = state
        .sessions()
        .cluster
        .nodes()
        .into_iter()
        .map(|(uid, alive)| {
            json!({
                "uid": uid,
                "name": uid,
                "version": alive.version,
                "num_clients": alive.n_clients,
                "num_users": alive.n_users,
                "num_channels": alive.n_channels,
                "num_subs": alive.n_subscriptions,
                "uptime": alive.uptime_s,
            })
        })
        .collect();
    json!({ "nodes": nodes })
}
