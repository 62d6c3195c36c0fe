//! `/healthz`, `/readyz` and `/metrics`, for the machines that watch over this one. They need no token and tell
//! nothing of the business.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::problem::Problem;
use crate::state::AppState;

/// Answers as long as the process does.
#[utoipa::path(get, path = "/healthz", tag = "about", responses((status = 200, description = "the process answers")))]
pub(crate) async fn live() -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "no-store")], "ok\n")
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    reasons: Vec<String>,
}

/// 200 when every number shown is current, else 503 with the reasons.
#[utoipa::path(get, path = "/readyz", tag = "about", responses((status = 200, description = "every number is current")))]
pub(crate) async fn ready(State(state): State<AppState>) -> impl IntoResponse {
    let reasons = state.hub().unreadiness(state.clock().now_us() / 1000);
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(Readiness { ready: reasons.is_empty(), reasons }))
}

/// All metrics of the process in Prometheus' text form.
#[utoipa::path(get, path = "/metrics", tag = "about", responses((status = 200, description = "Prometheus' text form")))]
pub(crate) async fn metrics(State(state): State<AppState>) -> Response {
    let Some(handle) = &state.config().metrics else {
        return Problem::not_found("this process records no metrics", "switch metrics on in the configuration")
            .into_response();
    };
    let form = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, form)], handle.render()).into_response()
}
