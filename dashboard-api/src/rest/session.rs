//! `/api/v1/session`: how a page finds out who it is, and gets its token where anybody may have one.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use serde::Serialize;

use crate::config::AuthMode;
use crate::problem::Problem;
use crate::rest::{bearer, principal};
use crate::state::AppState;

/// The answer: `token` only where the server gives it out.
#[derive(Serialize)]
struct SessionInfo {
    token: Option<String>,
    user: Option<String>,
    mode: AuthMode,
}

pub(crate) async fn show(State(state): State<AppState>, headers: HeaderMap) -> Result<impl IntoResponse, Problem> {
    let principal = principal(&headers, &state)?;
    let token = match bearer(&headers)? {
        Some(_) => None,
        None => state.auth().demo_token(),
    };
    let user = match &token {
        Some(_) => Some("demo".to_owned()),
        None => Some(principal.user.to_string()).filter(|user| !user.is_empty()),
    };
    let info = SessionInfo { token, user, mode: state.auth().mode() };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(info)))
}
