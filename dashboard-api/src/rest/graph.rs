//! `/api/v1/graph`: the engine's dataflow graph with the numbers of each operator, for operators of the server.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::problem::Problem;
use crate::rest::{Caller, require_loaded};
use crate::state::AppState;

/// The engine's dataflow graph, as of its last report: `nodes` with `id`, `kind`, `label`, `view`, `inputs`, `columns`,
/// `recompute`, `steps`, `rows_in`, `rows_out`, `state_rows`, `busy_seconds` and `stopped`, and the `views` on top of them.
#[utoipa::path(get, path = "/api/v1/graph", tag = "about", responses(
    (status = 200, body = Object), (status = 404, description = "the engine has not reported one yet")))]
pub(crate) async fn show(_caller: Caller, State(state): State<AppState>) -> Result<Response, Problem> {
    require_loaded(&state)?;
    let graph = state
        .hub()
        .graph()
        .ok_or_else(|| Problem::not_found("the engine has not reported its graph yet", "try again in some seconds"))?;
    Ok(([(header::CACHE_CONTROL, "no-store"), (header::CONTENT_TYPE, "application/json")], graph).into_response())
}
