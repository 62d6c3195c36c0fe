//! The HTTP routes and what holds for all of them: security headers, body limits, compression, counting.

mod alerts;
mod arrow_stream;
mod health;
mod ingest;
mod live;
mod session;
mod views;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, FromRequestParts, MatchedPath, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{any, delete, get, post};
use metrics::{counter, histogram};
use tower_http::compression::CompressionLayer;

use crate::auth::{Access, Action, Principal, Resource, RowRule};
use crate::problem::Problem;
use crate::server_api;
use crate::state::AppState;
use crate::transport::{emulation, stream, websocket};
use crate::ui;

/// Largest request body of routes that say nothing else: they take none.
const BODY_BYTES_MAX: usize = 64 << 10;

/// The page may load and connect to nothing but this server, and nobody may frame it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; \
                                       form-action 'self'; frame-ancestors 'none'";

pub(crate) fn router(state: AppState) -> Router {
    let ingest_limit = DefaultBodyLimit::max(state.config().ingest.body_bytes);
    Router::new()
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/api/v1/session", get(session::show))
        .route("/api/v1/views", get(views::list))
        .route("/api/v1/views/{name}", get(views::show))
        .route("/api/v1/alerts", get(alerts::list))
        .route("/api/v1/live", get(live::show))
        .route("/api/v1/live/{client}", delete(live::disconnect))
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
        .layer(from_fn(secure))
        .layer(from_fn(count))
        .with_state(state)
}

async fn secure(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &'static str| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "no-referrer");
    set(header::X_FRAME_OPTIONS, "DENY");
    set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
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

/// The caller.
pub(crate) struct Caller(pub(crate) Principal);

impl FromRequestParts<AppState> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        principal(&parts.headers, state).map(Self)
    }
}

impl Caller {
    /// Whether the caller may do that, and with which rows.
    fn check(&self, state: &AppState, action: Action, resource: Resource<'_>) -> Result<Option<Arc<RowRule>>, Problem> {
        match state.auth().access(&self.0, action, resource) {
            Access::Allowed { row_rule } => Ok(row_rule),
            Access::Denied(denial) => Err(Problem::forbidden(denial.as_str())),
        }
    }
}

/// Who sent these headers.
fn principal(headers: &HeaderMap, state: &AppState) -> Result<Principal, Problem> {
    let token = bearer(headers)?.unwrap_or_default();
    state.auth().authenticate(token).map_err(|error| Problem::unauthorized(&error.to_string()))
}

fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
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
