//! `/api/v1/alerts`: the firing alerts and those resolved last, by priority.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;
use serde::Deserialize;

use crate::hub::alerts::AlertState;
use crate::problem::Problem;
use crate::rest::{query, require_loaded};
use crate::state::AppState;

/// Alerts in one answer at most.
const LIMIT_MAX: usize = 1_000;

/// Which alerts.
#[derive(Deserialize, utoipa::IntoParams)]
pub(crate) struct Parameters {
    /// `firing` or `resolved`; both without it.
    #[param(value_type = Option<String>)]
    state: Option<AlertState>,
    /// At most 1,000.
    limit: Option<usize>,
}

/// Alerts by priority.
#[utoipa::path(get, path = "/api/v1/alerts", tag = "alerts", params(Parameters), responses(
    (status = 200, body = Object, description = "`{alerts: […], firing: n}`")))]
pub(crate) async fn list(
    State(state): State<AppState>,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Result<impl IntoResponse, Problem> {
    let parameters = query(parameters)?;
    require_loaded(&state)?;
    let limit = parameters.limit.unwrap_or(LIMIT_MAX).min(LIMIT_MAX);
    let mut body = Vec::new();
    state.hub().alerts().read(|alerts, _, _| alerts.write_json(&mut body, parameters.state, limit));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    Ok((headers, body))
}
