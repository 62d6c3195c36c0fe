//! The HTTP routes and what holds for all of them: security headers, body limits, compression, counting.

mod admin;
mod alerts;
mod arrow_stream;
pub(crate) mod auth;
mod graph;
pub(crate) mod guard;
mod health;
mod ingest;
mod live;
#[cfg(test)]
mod matrix;
mod openapi;
pub(crate) mod origin;
mod session;
mod sql;
mod views;

use std::time::Instant;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, MatchedPath, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{any, delete, get, post};
use metrics::{counter, histogram};
use tower_http::compression::CompressionLayer;

use crate::problem::Problem;
pub(crate) use crate::rest::guard::Caller;
use crate::server_api;
use crate::state::AppState;
use crate::transport::{emulation, stream, websocket};
use crate::ui;

/// Header with an API key, for programs that cannot set `Authorization`.
const API_KEY_HEADER: &str = "x-api-key";
/// Largest request body of routes that say nothing else: they take none.
const BODY_BYTES_MAX: usize = 64 << 10;

/// The page may load and connect to nothing but this server, and nobody may frame it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; \
                                       form-action 'self'; frame-ancestors 'none'";

pub(crate) fn router(state: AppState) -> Router {
    let ingest_limit = DefaultBodyLimit::max(state.config().ingest.body_bytes);
    // JSON may take six bytes for one.
    let sql_limit =
        DefaultBodyLimit::max(state.config().sql.query_bytes.saturating_mul(6).saturating_add(BODY_BYTES_MAX));
    Router::new()
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/api/v1/session", get(session::show))
        .route("/api/v1/views", get(views::list))
        .route("/api/v1/views/{name}", get(views::show))
        .route("/api/v1/views/{name}/series", get(views::series))
        .route("/api/v1/views/{name}/changes", get(views::changes))
        .route("/api/v1/alerts", get(alerts::list))
        .route("/api/v1/graph", get(graph::show))
        .route("/api/v1/live", get(live::show))
        .route("/api/v1/live/{client}", delete(live::disconnect))
        .route("/api/v1/sql", post(sql::run).layer(sql_limit))
        .route("/api/v1/openapi.json", get(openapi::json))
        .route("/api/v1/docs", get(openapi::page))
        .route("/api/v1/auth/login", post(auth::login))
        .route("/api/v1/auth/refresh", post(auth::refresh))
        .route("/api/v1/auth/logout", post(auth::logout))
        .route("/api/v1/auth/logout-everywhere", post(auth::logout_everywhere))
        .route("/api/v1/auth/password", post(auth::password))
        .route("/api/v1/audit", get(admin::audit))
        .route("/api/v1/users/{name}/revoke", post(admin::revoke_user))
        .route("/api/v1/api-keys", get(admin::api_keys).post(admin::add_api_key))
        .route("/api/v1/api-keys/{id}", delete(admin::revoke_api_key))
        .route("/api/v1/ingest/{topic}", post(ingest::append).layer(ingest_limit))
        .fallback(ui::serve)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(CompressionLayer::new())
        // Compression has no business with an upgrade or a stream; the others bound their bodies themselves.
        .route("/connection/websocket", get(websocket::connect))
        .route("/connection/sse", any(stream::sse))
        .route("/connection/http_stream", any(stream::http_stream))
        .route("/emulation", any(emulation::pass))
        .route("/api/{method}", post(server_api::call))
        .layer(from_fn_with_state(state.clone(), guard::guard))
        .layer(from_fn_with_state(state.clone(), secure))
        .layer(from_fn(count))
        .with_state(state)
}

async fn secure(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let is_encrypted = state.config().tls.certificate_file.is_some();
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &'static str| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "no-referrer");
    set(header::X_FRAME_OPTIONS, "DENY");
    set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    set(HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()");
    if is_encrypted {
        set(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
    response
}

async fn count(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("ui", MatchedPath::as_str).to_owned();
    let started = Instant::now();
    let response = next.run(request).await;
    let status = response.status().as_u16().to_string();
    counter!("api_http_requests_total", "route" => route.clone(), "status" => status).increment(1);
    histogram!("api_http_request_seconds", "route" => route).record(started.elapsed().as_secs_f64());
    response
}

/// The credential that a request carries: a bearer token, or an API key in the header `x-api-key`.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Ok(headers.get(API_KEY_HEADER).and_then(|key| key.to_str().ok()));
    };
    let token = value.to_str().ok().and_then(|value| value.split_once(' '));
    match token {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim())),
        _ => Err(Problem::unauthorized("the Authorization header is not of the form `Bearer <token>`")),
    }
}

/// The query parameters, or what is wrong with them.
fn query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Problem> {
    match query {
        Ok(Query(parameters)) => Ok(parameters),
        Err(rejection) => {
            Err(Problem::bad_request(rejection.body_text(), "correct the query parameter that the title names"))
        }
    }
}

/// What is shown depends on records that are still being read.
fn require_loaded(state: &AppState) -> Result<(), Problem> {
    if state.hub().is_loaded() {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "not-ready",
        "the views are still being read from the log",
        "try again in a second; /readyz says when it is done",
    ))
}
