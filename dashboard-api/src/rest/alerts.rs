//! `/api/v1/alerts`: the firing alerts and those resolved last, by priority.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;
use serde::Deserialize;

use crate::auth::{Action, Resource};
use crate::hub::ALERTS_CHANNEL;
use crate::hub::alerts::AlertState;
use crate::problem::Problem;
use crate::rest::{Caller, query, require_loaded};
use crate::state::AppState;

/// Alerts in one answer at most.
const LIMIT_MAX: usize = 1_000;

#[derive(Deserialize)]
pub(crate) struct Parameters {
    /// `firing` or `resolved`; both without it.
    state: Option<AlertState>,
    limit: Option<usize>,
}

pub(crate) async fn list(
    caller: Caller,
    State(state): State<AppState>,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Result<impl IntoResponse, Problem> {
    caller.check(&state, Action::Read, Resource::Channel(ALERTS_CHANNEL))?;
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
