//! Every route × every kind of caller, by asking: what the authorization table says is what happens.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use expect_test::expect;
use ingest::log::{LocalLog, LocalLogOptions};
use model::clock::SystemClock;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::guard::{Need, ROUTES};
use crate::auth::store::{NewApiKey, Store};
use crate::config::{ApiConfig, AuthMode};
use crate::fixtures::{SECRET, batch, token};
use crate::hub::tail::Tail;
use crate::{AppState, app};

async fn state(mode: AuthMode, dir: &std::path::Path) -> AppState {
    let url = format!("sqlite:{}", dir.join("andon.db").display());
    let store = Store::open(&url).await.expect("it opens");
    store.add_user("ann", "correct horse", &["viewer".to_owned()], &serde_json::Map::new(), 0).await.expect("added");
    let mut config = ApiConfig { database_url: Some(url), ..ApiConfig::default() };
    config.auth.mode = mode;
    config.auth.jwt_secret = Some(SECRET.to_owned());
    config.server.requests_per_second = 100_000;
    config.ingest.enabled = true;
    config.roles = serde_json::from_value(json!({
        "sales": {"views": ["a*"], "rows": {"*": "id = claims.id"}},
        "nothing": {},
    }))
    .expect("roles");
    let log = LocalLog::open(&dir.join("log"), LocalLogOptions::default()).expect("a log");
    let state = AppState::open(config, log, Arc::new(SystemClock), CancellationToken::new())
        .await
        .expect("a good configuration");
    let mut tail = Tail::new(Arc::clone(state.hub()), Arc::new(SystemClock));
    for name in ["a", "b"] {
        let info = crate::fixtures::view_info(name);
        crate::fixtures::feed(&mut tail, crate::fixtures::catalog(&info));
        let rows = vec![(r#"{"id":1}"#.to_owned(), Some(r#"{"id":1,"n":2}"#.to_owned()), None)];
        crate::fixtures::feed(&mut tail, batch(&info.topic, rows));
    }
    state.hub().set_loaded();
    state
}

fn body_of(path: &str) -> &'static str {
    match path {
        "/api/v1/sql" => r#"{"query":"SELECT 1"}"#,
        "/api/v1/api-keys" => r#"{"name":"k","roles":["viewer"]}"#,
        _ => r#"{"user":"x","password":"x"}"#,
    }
}

/// `-` = let through, whatever the route then says; else 401 or 403.
async fn verdict(state: &AppState, method: &str, path: &str, credential: Option<&str>) -> String {
    let concrete = path
        .replace("{name}", if path.contains("/users/") { "nobody" } else { "a" })
        .replace("{topic}", "t")
        .replace("{id}", "0")
        .replace("{client}", "0")
        .replace("{method}", "info");
    let concrete = if path.ends_with("/changes") { concrete + "?wait=0" } else { concrete };
    let method = if method == "*" { "POST" } else { method };
    let mut request = Request::builder().method(method).uri(concrete).header("content-type", "application/json");
    if let Some(credential) = credential {
        request = request.header("authorization", format!("Bearer {credential}"));
    }
    let body = if method == "GET" { "" } else { body_of(path) };
    let response =
        app(state.clone()).oneshot(request.body(Body::from(body)).expect("a request")).await.expect("an answer");
    match response.status().as_u16() {
        status @ (401 | 403) => status.to_string(),
        status => {
            assert!(status < 500 || path.starts_with("/readyz"), "{method} {path}: {status}");
            "-".to_owned()
        }
    }
}

async fn sign_in(state: &AppState) -> String {
    let accounts = state.auth().accounts().expect("a database");
    let session = accounts.store().sign_in("ann", "", accounts.lives(), state.now_ms()).await.expect("signed in");
    accounts.access_token("ann", &session.session_id, state.auth().now_s()).expect("a token").0
}

async fn matrix(mode: AuthMode) -> String {
    let dir = tempfile::tempdir().expect("a folder");
    let state = state(mode, dir.path()).await;
    let of_role = |role: &str| token(&json!({"sub": "u", "roles": [role], "id": 1}));
    let accounts = state.auth().accounts().expect("a database");
    let key = NewApiKey { name: "k".to_owned(), roles: vec!["service".to_owned()], ..NewApiKey::default() };
    let key = accounts.store().add_api_key(&key, 0).await.expect("added");
    state.auth().refresh_accounts().await.expect("read");
    let callers: BTreeMap<&str, Option<String>> = BTreeMap::from([
        ("0 none", None),
        ("1 forged", Some(of_role("admin") + "x")),
        ("2 nothing", Some(of_role("nothing"))),
        ("3 sales", Some(of_role("sales"))),
        ("4 viewer", Some(of_role("viewer"))),
        ("5 ingest", Some(of_role("ingest"))),
        ("6 service", Some(key)),
        ("7 admin", Some(of_role("admin"))),
        ("8 session", None),
    ]);
    let mut table = format!("{:<45}", "");
    callers.keys().for_each(|name| table.push_str(&format!("{:<9}", name.split(' ').nth(1).unwrap_or_default())));
    let mut table = table.trim_end().to_owned();
    for (method, path, need) in ROUTES {
        if *need == Need::Protocol {
            continue;
        }
        let mut line = format!("\n{:<45}", format!("{method} {path}"));
        for (name, credential) in &callers {
            // A session of its own for each route, since some end it.
            let credential = if name.ends_with("session") { Some(sign_in(&state).await) } else { credential.clone() };
            line.push_str(&format!("{:<9}", verdict(&state, method, path, credential.as_deref()).await));
        }
        table.push_str(line.trim_end());
    }
    table
}

#[tokio::test]
async fn every_route_for_every_caller_in_mode_token() {
    let expected = expect![[r#"
                                                     none     forged   nothing  sales    viewer   ingest   service  admin    session
        GET /healthz                                 -        -        -        -        -        -        -        -        -
        GET /readyz                                  -        -        -        -        -        -        -        -        -
        GET /metrics                                 -        -        -        -        -        -        -        -        -
        GET /api/v1/openapi.json                     -        -        -        -        -        -        -        -        -
        GET /api/v1/docs                             -        -        -        -        -        -        -        -        -
        GET /api/v1/session                          401      401      -        -        -        -        -        -        -
        POST /api/v1/auth/login                      401      401      401      401      401      401      401      401      401
        POST /api/v1/auth/refresh                    -        -        -        -        -        -        -        -        -
        POST /api/v1/auth/logout                     -        -        -        -        -        -        -        -        -
        POST /api/v1/auth/logout-everywhere          401      401      401      401      401      401      401      401      -
        POST /api/v1/auth/password                   401      401      401      401      401      401      401      401      -
        GET /api/v1/views                            401      401      403      -        -        403      403      -        -
        GET /api/v1/views/{name}                     401      401      403      -        -        403      403      -        -
        GET /api/v1/views/{name}/series              401      401      403      -        -        403      403      -        -
        GET /api/v1/views/{name}/changes             401      401      403      -        -        403      403      -        -
        GET /api/v1/alerts                           401      401      403      403      -        403      403      -        -
        POST /api/v1/sql                             401      401      403      403      -        403      403      -        -
        POST /api/v1/ingest/{topic}                  401      401      403      403      403      -        403      -        403
        GET /api/v1/audit                            401      401      403      403      403      403      403      -        403
        POST /api/v1/users/{name}/revoke             401      401      403      403      403      403      403      -        403
        GET /api/v1/api-keys                         401      401      403      403      403      403      403      -        403
        POST /api/v1/api-keys                        401      401      403      403      403      403      403      -        403
        DELETE /api/v1/api-keys/{id}                 401      401      403      403      403      403      403      -        403
        GET /api/v1/graph                            401      401      403      403      403      403      403      -        403
        GET /api/v1/live                             401      401      403      403      403      403      403      -        403
        DELETE /api/v1/live/{client}                 401      401      403      403      403      403      403      -        403"#]];
    expected.assert_eq(&matrix(AuthMode::Token).await);
}

#[tokio::test]
async fn every_route_for_every_caller_in_mode_anonymous() {
    let expected = expect![[r#"
                                                     none     forged   nothing  sales    viewer   ingest   service  admin    session
        GET /healthz                                 -        -        -        -        -        -        -        -        -
        GET /readyz                                  -        -        -        -        -        -        -        -        -
        GET /metrics                                 -        -        -        -        -        -        -        -        -
        GET /api/v1/openapi.json                     -        -        -        -        -        -        -        -        -
        GET /api/v1/docs                             -        -        -        -        -        -        -        -        -
        GET /api/v1/session                          -        401      -        -        -        -        -        -        -
        POST /api/v1/auth/login                      401      401      401      401      401      401      401      401      401
        POST /api/v1/auth/refresh                    -        -        -        -        -        -        -        -        -
        POST /api/v1/auth/logout                     -        -        -        -        -        -        -        -        -
        POST /api/v1/auth/logout-everywhere          401      401      401      401      401      401      401      401      -
        POST /api/v1/auth/password                   401      401      401      401      401      401      401      401      -
        GET /api/v1/views                            -        401      403      -        -        403      403      -        -
        GET /api/v1/views/{name}                     -        401      403      -        -        403      403      -        -
        GET /api/v1/views/{name}/series              -        401      403      -        -        403      403      -        -
        GET /api/v1/views/{name}/changes             -        401      403      -        -        403      403      -        -
        GET /api/v1/alerts                           -        401      403      403      -        403      403      -        -
        POST /api/v1/sql                             -        401      403      403      -        403      403      -        -
        POST /api/v1/ingest/{topic}                  401      401      403      403      403      -        403      -        403
        GET /api/v1/audit                            401      401      403      403      403      403      403      -        403
        POST /api/v1/users/{name}/revoke             401      401      403      403      403      403      403      -        403
        GET /api/v1/api-keys                         401      401      403      403      403      403      403      -        403
        POST /api/v1/api-keys                        401      401      403      403      403      403      403      -        403
        DELETE /api/v1/api-keys/{id}                 401      401      403      403      403      403      403      -        403
        GET /api/v1/graph                            401      401      403      403      403      403      403      -        403
        GET /api/v1/live                             401      401      403      403      403      403      403      -        403
        DELETE /api/v1/live/{client}                 401      401      403      403      403      403      403      -        403"#]];
    expected.assert_eq(&matrix(AuthMode::Anonymous).await);
}

#[tokio::test]
async fn a_route_that_the_table_does_not_name_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let state = state(AuthMode::Anonymous, dir.path()).await;
    let hidden = axum::Router::new()
        .route("/hidden", axum::routing::get(|| async { "secret" }))
        .layer(axum::middleware::from_fn_with_state(state, super::guard::guard));
    let response =
        hidden.oneshot(Request::get("/hidden").body(Body::empty()).expect("a request")).await.expect("an answer");
    assert_eq!(response.status(), 403);
}

#[tokio::test]
async fn reads_of_whole_views_take_turns() {
    let dir = tempfile::tempdir().expect("a folder");
    let state = state(AuthMode::Anonymous, dir.path()).await;
    let status = async || {
        let request = Request::get("/api/v1/views/a").body(Body::empty()).expect("a request");
        app(state.clone()).oneshot(request).await.expect("an answer").status()
    };
    let mut held = Vec::new();
    tokio::time::pause();
    while let Ok(permit) = state.read_permit().await {
        held.push(permit);
    }
    assert!(!held.is_empty());
    assert_eq!(status().await, 429);
    held.pop();
    assert_eq!(status().await, 200);
    assert_eq!(status().await, 200, "the place is given back");
}
