//! For administrators: the audit log, ending a user's sessions, and API keys.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};

use crate::auth::audit::{AuditContext, AuditEvent};
use crate::auth::store::{ApiKeyInfo, AuditFilter, AuditRow, NewApiKey, Store};
use crate::problem::Problem;
use crate::rest::auth::{changed, unavailable};
use crate::rest::guard::Caller;
use crate::rest::query;
use crate::state::AppState;

/// Entries of a page unless the caller says otherwise.
const PAGE_ENTRIES: i64 = 100;
/// Entries of a page at most.
const PAGE_ENTRIES_MAX: i64 = 1_000;

/// Which entries.
#[derive(Deserialize, utoipa::IntoParams)]
pub(crate) struct AuditQuery {
    /// Of this user only.
    user: Option<String>,
    /// Of this kind only, for example `sign_in` or `denied`.
    event: Option<String>,
    /// The last page's `next_cursor`.
    cursor: Option<String>,
    /// Entries of the page, at most 1,000.
    limit: Option<i64>,
}

/// A page of the audit log, the newest entries first.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct AuditPage {
    entries: Vec<AuditRow>,
    next_cursor: Option<String>,
}

fn store(state: &AppState) -> Result<&Store, Problem> {
    state
        .auth()
        .accounts()
        .map(|accounts| accounts.store())
        .ok_or_else(|| Problem::not_found("this server has no database of users", "configure database.url"))
}

/// The audit log.
#[utoipa::path(get, path = "/api/v1/audit", tag = "administration", params(AuditQuery), responses(
    (status = 200, body = AuditPage), (status = 403, description = "for administrators")))]
pub(crate) async fn audit(
    State(state): State<AppState>,
    parameters: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<impl IntoResponse, Problem> {
    let parameters = query(parameters)?;
    let limit = parameters.limit.unwrap_or(PAGE_ENTRIES).clamp(1, PAGE_ENTRIES_MAX);
    let AuditQuery { user, event, cursor, .. } = parameters;
    let filter = AuditFilter { user, event, before: cursor, limit: limit + 1 };
    let mut entries = store(&state)?.audit(&filter).await.map_err(unavailable)?;
    let has_more = i64::try_from(entries.len()).is_ok_and(|n| n > limit);
    entries.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next_cursor = entries.last().filter(|_| has_more).map(|entry| entry.entry_id.clone());
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(AuditPage { entries, next_cursor })))
}

/// Calls back everything that a user holds, whoever issued it, and cuts the user's connections.
#[utoipa::path(post, path = "/api/v1/users/{name}/revoke", tag = "administration",
    params(("name" = String, Path, description = "the user")), responses((status = 204, description = "done")))]
pub(crate) async fn revoke_user(
    State(state): State<AppState>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    store(&state)?.revoke_user(&name, state.auth().now_s()).await.map_err(unavailable)?;
    record(&state, &caller, AuditEvent::Revoke, &name, "all tokens and sessions");
    changed(&state).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// All API keys, the newest first. The secrets are not kept.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ApiKeys {
    api_keys: Vec<ApiKeyInfo>,
}

/// All API keys.
#[utoipa::path(get, path = "/api/v1/api-keys", tag = "administration", responses((status = 200, body = ApiKeys)))]
pub(crate) async fn api_keys(State(state): State<AppState>) -> Result<impl IntoResponse, Problem> {
    let api_keys = store(&state)?.api_keys().await.map_err(unavailable)?;
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(ApiKeys { api_keys })))
}

/// A key, shown this once.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct CreatedKey {
    key: String,
}

/// Makes an API key.
#[utoipa::path(post, path = "/api/v1/api-keys", tag = "administration", request_body = NewApiKey,
    responses((status = 201, body = CreatedKey)))]
pub(crate) async fn add_api_key(
    State(state): State<AppState>,
    caller: Caller,
    body: Result<Json<NewApiKey>, JsonRejection>,
) -> Result<impl IntoResponse, Problem> {
    let Json(new) = body.map_err(|rejection| Problem::body(&rejection))?;
    if let Some(unknown) = new.roles.iter().find(|role| !state.auth().role_names().any(|known| known == *role)) {
        return Err(Problem::bad_request(format!("there is no role `{unknown}`"), "see the configuration's api.roles"));
    }
    let key = store(&state)?.add_api_key(&new, state.now_ms()).await.map_err(unavailable)?;
    record(&state, &caller, AuditEvent::ApiKey, &new.name, "made");
    changed(&state).await?;
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(CreatedKey { key })))
}

/// Calls an API key back.
#[utoipa::path(delete, path = "/api/v1/api-keys/{id}", tag = "administration",
    params(("id" = String, Path, description = "the key's id")), responses((status = 204, description = "done")))]
pub(crate) async fn revoke_api_key(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    store(&state)?.revoke_api_key(&id, state.now_ms()).await.map_err(unavailable)?;
    record(&state, &caller, AuditEvent::ApiKey, &id, "revoked");
    changed(&state).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn record(state: &AppState, caller: &Caller, event: AuditEvent, subject: &str, detail: &str) {
    let context = AuditContext { user: &caller.principal.user, address: &caller.address, subject, detail };
    state.auth().audit().record(event, "ok", context);
}
