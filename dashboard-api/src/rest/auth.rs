//! Signing in with a password: `/api/v1/auth/…`.
//!
//! A sign-in gives an access token, which lives for minutes, and a refresh token, which is used once for the next pair.
//! A page asks for the refresh token as a cookie that no script can read and that no other site's request carries
//! (`HttpOnly`, `SameSite=Strict`); beside the cookie it sends the header `x-andon-csrf`, which a form cannot.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use metrics::counter;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::auth::audit::{AuditContext, AuditEvent};
use crate::auth::local::LocalAccounts;
use crate::auth::store::{Refreshed, SignedIn, StoreError};
use crate::config::ApiConfig;
use crate::limits::{Rates, network_of};
use crate::problem::Problem;
use crate::rest::guard::{Caller, ClientAddress};
use crate::state::AppState;

/// Name of the cookie with the refresh token.
const COOKIE: &str = "andon_refresh";
/// The cookie goes to these routes only.
const COOKIE_PATH: &str = "/api/v1/auth";
/// A request that relies on the cookie has this header, whatever its value.
const CSRF_HEADER: &str = "x-andon-csrf";
/// Passwords that are checked at a time: each check takes 19 MiB and some 30 ms of a core.
const CHECKS_MAX: usize = 4;

/// Counts sign-ins.
pub(crate) struct SignInLimits {
    attempts: Rates,
    checks: Semaphore,
}

impl SignInLimits {
    pub(crate) fn new(config: &ApiConfig) -> Self {
        Self { attempts: Rates::per_minute(config.auth.sign_ins_per_minute), checks: Semaphore::new(CHECKS_MAX) }
    }

    fn admit(&self, address: &str, user: &str) -> Result<(), Problem> {
        // Both are counted, so that neither one guesser nor many get far.
        let network = address.parse().map_or_else(|_| address.to_owned(), |address| network_of(address).to_string());
        let by_address = self.attempts.is_too_fast(&format!("address {network}"));
        let by_user = self.attempts.is_too_fast(&format!("user {user}"));
        if by_address || by_user {
            counter!("api_sign_ins_total", "outcome" => "throttled").increment(1);
            return Err(Problem::too_many("too many sign-ins were tried"));
        }
        Ok(())
    }
}

/// Who signs in.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Login {
    user: String,
    password: String,
    /// Whether the refresh token is set as a cookie instead of being in the answer: for pages.
    #[serde(default)]
    cookie: bool,
}

/// The refresh token, unless it is in the cookie.
#[derive(Default, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RefreshBody {
    refresh_token: Option<String>,
}

/// The passwords.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PasswordChange {
    old: String,
    new: String,
}

/// What a sign-in gives.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Tokens {
    access_token: String,
    /// Always `Bearer`.
    token_type: &'static str,
    /// Seconds that the access token lives.
    expires_in: u64,
    user: String,
    /// Absent where it is in the cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
}

/// Signs in with a password.
#[utoipa::path(post, path = "/api/v1/auth/login", tag = "sign-in", request_body = Login, responses(
    (status = 200, body = Tokens), (status = 401, description = "wrong user or password"),
    (status = 429, description = "too many were tried")))]
pub(crate) async fn login(
    State(state): State<AppState>,
    ClientAddress(address): ClientAddress,
    headers: HeaderMap,
    body: Result<Json<Login>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(login) = body.map_err(|rejection| Problem::body(&rejection))?;
    let accounts = accounts(&state)?;
    state.sign_ins().admit(&address, &login.user)?;
    let _check = state.sign_ins().checks.acquire().await.map_err(|error| Problem::internal(&error))?;
    let is_right = accounts.store().check_password(&login.user, &login.password).await.map_err(unavailable)?;
    let context = AuditContext { user: &login.user, address: &address, ..AuditContext::default() };
    if !is_right {
        counter!("api_sign_ins_total", "outcome" => "refused").increment(1);
        state.auth().audit().record(AuditEvent::SignIn, "wrong user or password", context);
        return Err(Problem::unauthorized("the user or the password is wrong"));
    }
    let now_ms = state.now_ms();
    let signed_in =
        accounts.store().sign_in(&login.user, &address, accounts.lives(), now_ms).await.map_err(unavailable)?;
    counter!("api_sign_ins_total", "outcome" => "ok").increment(1);
    state.auth().audit().record(AuditEvent::SignIn, "ok", context);
    tokens(&state, accounts, &signed_in, login.cookie, &headers)
}

/// Takes a refresh token and gives a new pair. A token that comes a second time ends the session.
#[utoipa::path(post, path = "/api/v1/auth/refresh", tag = "sign-in", request_body = RefreshBody, responses(
    (status = 200, body = Tokens), (status = 401, description = "the refresh token is no longer good")))]
pub(crate) async fn refresh(
    State(state): State<AppState>,
    ClientAddress(address): ClientAddress,
    headers: HeaderMap,
    body: Option<Json<RefreshBody>>,
) -> Result<Response, Problem> {
    let accounts = accounts(&state)?;
    let (token, is_cookie) = refresh_token(&headers, body)?;
    let context = AuditContext { address: &address, ..AuditContext::default() };
    match accounts.store().refresh(&token, accounts.lives(), state.now_ms()).await.map_err(unavailable)? {
        Refreshed::Renewed(signed_in) => tokens(&state, accounts, &signed_in, is_cookie, &headers),
        Refreshed::Refused => {
            state.auth().audit().record(AuditEvent::Refresh, "not known, or over", context);
            Err(Problem::unauthorized("the refresh token is no longer good"))
        }
        Refreshed::Replayed { user } => {
            counter!("api_refresh_replays_total").increment(1);
            let detail = "the session has been ended: the token was stolen, or sent twice";
            let context = AuditContext { user: &user, detail, ..context };
            state.auth().audit().record(AuditEvent::Refresh, "used before", context);
            changed(&state).await?;
            Err(Problem::unauthorized("the refresh token was used before; its session has been ended"))
        }
    }
}

/// Ends the session that the refresh token belongs to.
#[utoipa::path(post, path = "/api/v1/auth/logout", tag = "sign-in", request_body = RefreshBody, responses(
    (status = 204, description = "the session is over")))]
pub(crate) async fn logout(
    State(state): State<AppState>,
    ClientAddress(address): ClientAddress,
    headers: HeaderMap,
    body: Option<Json<RefreshBody>>,
) -> Result<Response, Problem> {
    let accounts = accounts(&state)?;
    let (token, _) = refresh_token(&headers, body)?;
    if let Some((session_id, user)) = accounts.store().session_of(&token).await.map_err(unavailable)? {
        accounts.store().end_session(&session_id, state.now_ms()).await.map_err(unavailable)?;
        let context = AuditContext { user: &user, address: &address, ..AuditContext::default() };
        state.auth().audit().record(AuditEvent::SignOut, "ok", context);
        changed(&state).await?;
    }
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie("", 0, &headers, &state)?)]).into_response())
}

/// Ends all sessions of the caller, on all devices.
#[utoipa::path(post, path = "/api/v1/auth/logout-everywhere", tag = "sign-in", responses(
    (status = 204, description = "all sessions are over")))]
pub(crate) async fn logout_everywhere(
    State(state): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let user = &caller.principal.user;
    accounts(&state)?.store().end_sessions(user, state.now_ms()).await.map_err(unavailable)?;
    let context = AuditContext { user, address: &caller.address, detail: "everywhere", ..AuditContext::default() };
    state.auth().audit().record(AuditEvent::SignOut, "ok", context);
    changed(&state).await?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie("", 0, &headers, &state)?)]).into_response())
}

/// Changes the caller's password, which ends all sessions.
#[utoipa::path(post, path = "/api/v1/auth/password", tag = "sign-in", request_body = PasswordChange, responses(
    (status = 204, description = "changed"), (status = 401, description = "the old password is wrong")))]
pub(crate) async fn password(
    State(state): State<AppState>,
    caller: Caller,
    body: Result<Json<PasswordChange>, JsonRejection>,
) -> Result<StatusCode, Problem> {
    let Json(change) = body.map_err(|rejection| Problem::body(&rejection))?;
    let accounts = accounts(&state)?;
    let user = &caller.principal.user;
    let length_min = state.config().auth.password_length_min;
    if change.new.chars().count() < length_min {
        let title = format!("the new password has less than {length_min} characters");
        return Err(Problem::bad_request(title, "choose a longer one"));
    }
    state.sign_ins().admit(&caller.address, user)?;
    let _check = state.sign_ins().checks.acquire().await.map_err(|error| Problem::internal(&error))?;
    let context = AuditContext { user, address: &caller.address, ..AuditContext::default() };
    if !accounts.store().check_password(user, &change.old).await.map_err(unavailable)? {
        state.auth().audit().record(AuditEvent::Password, "wrong password", context);
        return Err(Problem::unauthorized("the old password is wrong"));
    }
    accounts.store().set_password(user, &change.new, state.now_ms()).await.map_err(unavailable)?;
    state.auth().audit().record(AuditEvent::Password, "ok", context);
    changed(&state).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn accounts(state: &AppState) -> Result<&LocalAccounts, Problem> {
    state.auth().accounts().ok_or_else(|| {
        Problem::not_found("nobody can sign in with a password here", "bring a token of your identity provider")
    })
}

/// Takes over at once what was changed through this node.
pub(crate) async fn changed(state: &AppState) -> Result<(), Problem> {
    state.auth().refresh_accounts().await.map_err(unavailable)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(crate) fn unavailable(error: StoreError) -> Problem {
    match &error {
        StoreError::Invalid(reason) => Problem::bad_request(reason, "correct it and try again"),
        StoreError::Unknown(name) => Problem::not_found(format!("there is no `{name}`"), "see the list"),
        StoreError::Exists(name) => {
            Problem::new(StatusCode::CONFLICT, "exists", format!("there is `{name}` already"), "choose another name")
        }
        _ => {
            tracing::error!(error = &error as &dyn std::error::Error, "the database of users failed");
            Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "users-unavailable",
                "the database of users cannot be reached now",
                "try again later",
            )
        }
    }
}

fn refresh_token(headers: &HeaderMap, body: Option<Json<RefreshBody>>) -> Result<(String, bool), Problem> {
    if let Some(token) = body.and_then(|Json(body)| body.refresh_token) {
        return Ok((token, false));
    }
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let token = cookies
        .flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
        .filter(|token| !token.is_empty());
    let Some(token) = token else {
        return Err(Problem::unauthorized("there is no refresh token"));
    };
    if !headers.contains_key(CSRF_HEADER) {
        counter!("api_csrf_refused_total").increment(1);
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "csrf",
            "a request with the cookie needs the header x-andon-csrf",
            "send `x-andon-csrf: 1`",
        ));
    }
    Ok((token.to_owned(), true))
}

fn tokens(
    state: &AppState,
    accounts: &LocalAccounts,
    signed_in: &SignedIn,
    as_cookie: bool,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let SignedIn { user, session_id, refresh_token } = signed_in;
    let (access_token, expires_in) =
        accounts.access_token(user, session_id, state.auth().now_s()).map_err(|error| Problem::internal(&error))?;
    let body = Tokens {
        access_token,
        token_type: "Bearer",
        expires_in,
        user: user.clone(),
        refresh_token: (!as_cookie).then(|| refresh_token.clone()),
    };
    let mut response = ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response();
    if as_cookie {
        let life_s = state.config().auth.refresh_token_seconds;
        response.headers_mut().insert(header::SET_COOKIE, cookie(refresh_token, life_s, headers, state)?);
    }
    Ok(response)
}

/// The cookie is for encrypted connections only, but for a server that has none.
fn cookie(token: &str, life_s: u64, headers: &HeaderMap, state: &AppState) -> Result<HeaderValue, Problem> {
    let by_proxy = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
    let secure = if by_proxy || state.config().tls.certificate_file.is_some() { "; Secure" } else { "" };
    let text = format!("{COOKIE}={token}; Path={COOKIE_PATH}; Max-Age={life_s}; HttpOnly; SameSite=Strict{secure}");
    HeaderValue::from_str(&text).map_err(|error| Problem::internal(&error))
}
