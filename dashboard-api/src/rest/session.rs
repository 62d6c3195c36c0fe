//! `/api/v1/session`: how a page finds out who it is, and gets its token where anybody may have one.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use serde::Serialize;

use crate::config::AuthMode;
use crate::problem::Problem;
use crate::rest::bearer;
use crate::rest::guard::Caller;
use crate::state::AppState;

/// The answer: `token` only where the server gives it out.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct SessionInfo {
    token: Option<String>,
    user: Option<String>,
    /// `token`, `anonymous` or `demo`.
    #[schema(value_type = String)]
    mode: AuthMode,
    /// Names of the caller's roles.
    roles: Vec<String>,
    /// Whether one can sign in with a password here.
    has_users: bool,
}

/// Who the caller is; in mode `demo` also a token for anybody.
#[utoipa::path(get, path = "/api/v1/session", tag = "sign-in", responses((status = 200, body = SessionInfo)))]
pub(crate) async fn show(
    State(state): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Problem> {
    let principal = caller.principal;
    let token = match bearer(&headers)? {
        Some(_) => None,
        None => state.auth().demo_token(),
    };
    let user = match &token {
        Some(_) => Some("demo".to_owned()),
        None => Some(principal.user.to_string()).filter(|user| !user.is_empty()),
    };
    let info = SessionInfo {
        token,
        user,
        mode: state.auth().mode(),
        roles: principal.roles.to_vec(),
        has_users: state.auth().accounts().is_some_and(|accounts| accounts.has_users()),
    };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(info)))
}
