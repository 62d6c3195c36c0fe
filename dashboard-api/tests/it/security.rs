//! What must not get in: by token, by sign-in, by rows, by SQL, and by the wire.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Request};
use dashboard_api::{ApiConfig, AppState, AuthMode, Store, app, feed};
use model::clock::SystemClock;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt;

use crate::feeder::{Feeder, open_log, stock_view};
use crate::server::{PATIENCE, Server, config, eventually, token};

struct Site {
    state: AppState,
    store: Store,
    feeder: Feeder,
    _stop: DropGuard,
    _dir: tempfile::TempDir,
}

impl Site {
    /// The view `stock` with the items 1 to 5, and the user ann.
    async fn new(mut config: ApiConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", dir.path().join("andon.db").display());
        let store = Store::open(&url).await.unwrap();
        let claims = Map::from_iter([("item".to_owned(), json!(2))]);
        store.add_user("ann", "correct horse", &["clerk".to_owned()], &claims, 0).await.unwrap();
        config.database_url = Some(url);
        config.roles = serde_json::from_value(json!({
            "clerk": {"views": ["stock"], "allow": ["sql"], "rows": {"stock": "item = claims.item"}},
            "broken": {"views": ["stock"], "allow": ["sql"], "rows": {"stock": "no_such_column = 1"}},
        }))
        .unwrap();
        let log = open_log(&dir.path().join("log"));
        let stop = CancellationToken::new();
        let state = AppState::open(config, log.clone(), Arc::new(SystemClock), stop.clone()).await.unwrap();
        tokio::spawn(feed(state.clone()));
        let authority = state.clone();
        tokio::spawn(async move { authority.keep().await });
        let site = Self { state, store, feeder: Feeder::new(log), _stop: stop.drop_guard(), _dir: dir };
        site.feeder.declare(&stock_view()).await;
        let rows: Vec<(u64, Option<&str>)> = (1..=5).map(|item| (item, Some("2.50"))).collect();
        site.feeder.epoch(7, &rows).await;
        eventually("the view is there", async || {
            let listing = site.get("/api/v1/views", &json!({"sub": "a"})).await.json();
            (listing["views"][0]["rows"] == 5).then_some(())
        })
        .await;
        site
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = app(self.state.clone()).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 16 << 20).await.unwrap();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body: body.to_vec() }
    }

    async fn get_as(&self, path: &str, credential: &str) -> Answer {
        let request = Request::get(path).header("authorization", format!("Bearer {credential}"));
        self.send(request.body(Body::empty()).unwrap()).await
    }

    async fn get(&self, path: &str, claims: &Value) -> Answer {
        self.get_as(path, &token(claims)).await
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let request = Request::post(path).header("content-type", "application/json");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    async fn sql(&self, claims: &Value, query: &str) -> Answer {
        let authorization = format!("Bearer {}", token(claims));
        self.post("/api/v1/sql", &[("authorization", &authorization)], &json!({"query": query})).await
    }

    async fn sign_in(&self) -> Value {
        let answer = self.post("/api/v1/auth/login", &[], &json!({"user": "ann", "password": "correct horse"})).await;
        assert_eq!(answer.status, 200);
        answer.json()
    }

    async fn refresh(&self, token: &Value) -> Answer {
        self.post("/api/v1/auth/refresh", &[], &json!({"refresh_token": token})).await
    }
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    fn items(&self) -> Vec<u64> {
        self.json()["rows"].as_array().unwrap().iter().map(|row| row["item"].as_u64().unwrap()).collect()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[tokio::test]
async fn row_rules_hold_by_every_way_in() {
    let site = Site::new(config()).await;
    let clerk = |item: Value| json!({"sub": "c", "roles": ["clerk"], "item": item});
    let viewer = json!({"sub": "v"});
    assert_eq!(site.get("/api/v1/views/stock", &viewer).await.items(), [1, 2, 3, 4, 5]);
    for (claims, expected) in [
        (clerk(json!(2)), vec![2]),
        (clerk(json!(null)), vec![]),
        (clerk(json!("2 OR true")), vec![]),
        (json!({"sub": "c", "roles": ["clerk"]}), vec![]),
        (json!({"sub": "c", "roles": ["clerk", "viewer"]}), vec![1, 2, 3, 4, 5]),
    ] {
        let page = site.get("/api/v1/views/stock", &claims).await;
        assert_eq!(page.items(), expected, "{claims}");
        assert_eq!(page.json()["total_rows"], expected.len());
        let series = site.get("/api/v1/views/stock/series?columns=item,quantity", &claims).await.json();
        assert_eq!(series["columns"]["item"], json!(expected), "{claims}");
        let changes = site.get("/api/v1/views/stock/changes?wait=0", &claims).await;
        assert_eq!(changes.items(), expected, "{claims}");
        let rows = site.sql(&claims, "SELECT item FROM stock ORDER BY item").await;
        assert_eq!(rows.items(), expected, "{claims}");
        // However a query asks, what it counts are the caller's rows.
        for query in [
            "SELECT count(*) AS item FROM stock",
            "SELECT count(*) AS item FROM stock WHERE item = 2 OR item <> 2",
            "SELECT count(DISTINCT b.item) AS item FROM stock a RIGHT JOIN stock b ON true",
            "WITH s AS (SELECT * FROM stock) SELECT count(*) AS item FROM s",
        ] {
            assert_eq!(site.sql(&claims, query).await.items(), [expected.len() as u64], "{query}");
        }
        let arrow = Request::get("/api/v1/views/stock")
            .header("authorization", format!("Bearer {}", token(&claims)))
            .header("accept", "application/vnd.apache.arrow.stream");
        let arrow = site.send(arrow.body(Body::empty()).unwrap()).await;
        let batches = arrow::ipc::reader::StreamReader::try_new(&arrow.body[..], None).unwrap();
        assert_eq!(batches.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), expected.len());
    }
    // A rule that does not fit the view shows nothing rather than everything.
    let broken = json!({"sub": "c", "roles": ["broken"]});
    assert_eq!(site.get("/api/v1/views/stock", &broken).await.status, 403);
    assert_eq!(site.sql(&broken, "SELECT * FROM stock").await.status, 403);
    // The number of rows is told to those who see them all.
    let listing = site.get("/api/v1/views", &clerk(json!(2))).await.json();
    assert_eq!(listing["views"][0].get("rows"), None);
    // A name that a role does not reach is refused whether or not there is such a view.
    for name in ["/api/v1/views/other", "/api/v1/views/nothing_like_it"] {
        assert_eq!(site.get(name, &clerk(json!(2))).await.status, 403);
    }
}

#[tokio::test]
async fn sql_reads_views_and_nothing_else() {
    let site = Site::new(config()).await;
    let viewer = json!({"sub": "v"});
    let answer = site.sql(&viewer, "SELECT sum(quantity) AS total, max(item) AS item FROM stock").await;
    assert_eq!(answer.json()["rows"], json!([{"total": "12.50", "item": 5}]));
    assert_eq!(answer.json()["views"], json!([{"view": "stock", "epoch": 7, "as_of_ms": 1000}]));
    assert_eq!(answer.headers["x-andon-truncated"], "false");
    for query in [
        "DROP TABLE stock",
        "INSERT INTO stock VALUES (9, 9, 'x')",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "COPY (SELECT * FROM stock) TO '/tmp/andon-out.csv'",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM information_schema.tables",
        "SHOW TABLES",
        "SET datafusion.execution.batch_size = 1",
        "EXPLAIN SELECT * FROM stock",
        "SELECT 1; SELECT 2",
        "SELECT repeat('x', 1000000000)",
        "SELECT read_csv('/etc/passwd')",
        "SELECT",
        "",
    ] {
        let answer = site.sql(&viewer, query).await;
        assert_eq!(answer.status, 400, "{query}: {}", String::from_utf8_lossy(&answer.body));
        assert_eq!(answer.headers["content-type"], "application/problem+json");
    }
    assert!(!std::path::Path::new("/tmp/andon-out.csv").exists());
    assert_eq!(site.sql(&viewer, &format!("SELECT '{}'", "x".repeat(70_000))).await.status, 413);
    assert_eq!(site.sql(&json!({"sub": "v", "roles": ["ingest"]}), "SELECT 1").await.status, 403);
    assert_eq!(site.sql(&json!({"sub": "v", "roles": ["clerk"]}), "SELECT * FROM other").await.status, 403);
}

#[tokio::test]
async fn a_refresh_token_is_good_once() {
    let site = Site::new(config()).await;
    let wrong = site.post("/api/v1/auth/login", &[], &json!({"user": "ann", "password": "wrong horse"})).await;
    assert_eq!(wrong.status, 401);
    let first = site.sign_in().await;
    assert_eq!(site.get_as("/api/v1/views/stock", text(&first["access_token"])).await.items(), [2]);
    let second = site.refresh(&first["refresh_token"]).await.json();
    assert_eq!(site.get_as("/api/v1/views/stock", text(&second["access_token"])).await.status, 200);
    assert_eq!(site.refresh(&first["refresh_token"]).await.status, 401, "it comes a second time");
    // The thief and the owner are both out, at once, with the access tokens too.
    assert_eq!(site.refresh(&second["refresh_token"]).await.status, 401);
    for pair in [&first, &second] {
        assert_eq!(site.get_as("/api/v1/views/stock", text(&pair["access_token"])).await.status, 401);
    }
    // An access token is not a refresh token, nor the other way round.
    let third = site.sign_in().await;
    assert_eq!(site.refresh(&third["access_token"]).await.status, 401);
    assert_eq!(site.get_as("/api/v1/views/stock", text(&third["refresh_token"])).await.status, 401);
}

#[tokio::test]
async fn sessions_end_when_their_owner_or_an_operator_says_so() {
    let site = Site::new(config()).await;
    let status = async |pair: &Value| site.get_as("/api/v1/views/stock", text(&pair["access_token"])).await.status;
    let (one, two) = (site.sign_in().await, site.sign_in().await);
    let logout = site.post("/api/v1/auth/logout", &[], &json!({"refresh_token": one["refresh_token"]})).await;
    assert_eq!((logout.status, status(&one).await, status(&two).await), (204, 401, 200));
    let three = site.sign_in().await;
    let authorization = format!("Bearer {}", text(&two["access_token"]));
    let everywhere =
        site.post("/api/v1/auth/logout-everywhere", &[("authorization", &authorization)], &json!({})).await;
    assert_eq!((everywhere.status, status(&two).await, status(&three).await), (204, 401, 401));

    // Another process disables the user: this node knows within a second.
    let four = site.sign_in().await;
    assert_eq!(status(&four).await, 200);
    let now_ms = chrono::Utc::now().timestamp_millis();
    let disabled = std::time::Instant::now();
    site.store.set_disabled("ann", true, now_ms).await.unwrap();
    eventually("the session is cut", async || (status(&four).await == 401).then_some(())).await;
    assert!(disabled.elapsed() < Duration::from_secs(5), "{:?}", disabled.elapsed());
    let again = site.post("/api/v1/auth/login", &[], &json!({"user": "ann", "password": "correct horse"})).await;
    assert_eq!(again.status, 401);

    // A token of the identity provider is called back by its user's name.
    let now_s = chrono::Utc::now().timestamp();
    let bob = token(&json!({"sub": "bob", "iat": now_s - 10}));
    assert_eq!(site.get_as("/api/v1/views/stock", &bob).await.status, 200);
    let admin = format!("Bearer {}", token(&json!({"sub": "root", "roles": ["admin"]})));
    let revoked = site.post("/api/v1/users/bob/revoke", &[("authorization", &admin)], &json!({})).await;
    assert_eq!((revoked.status, site.get_as("/api/v1/views/stock", &bob).await.status), (204, 401));
    let later = token(&json!({"sub": "bob", "iat": now_s + 10}));
    assert_eq!(site.get_as("/api/v1/views/stock", &later).await.status, 200);
}

#[tokio::test]
async fn the_cookie_needs_a_header_that_no_form_sends() {
    let site = Site::new(config()).await;
    let login = json!({"user": "ann", "password": "correct horse", "cookie": true});
    let answer = site.post("/api/v1/auth/login", &[], &login).await;
    assert_eq!(answer.json().get("refresh_token"), None);
    let cookie = answer.headers["set-cookie"].to_str().unwrap().to_owned();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/api/v1/auth"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let cookie = cookie.split(';').next().unwrap();
    let check = async |headers: &[(&str, &str)]| site.post("/api/v1/auth/refresh", headers, &json!({})).await;
    assert_eq!(check(&[("cookie", cookie)]).await.status, 403);
    let foreign = [("cookie", cookie), ("x-andon-csrf", "1"), ("host", "andon.test"), ("origin", "https://evil.test")];
    assert_eq!(check(&foreign).await.status, 403);
    let own = [("cookie", cookie), ("x-andon-csrf", "1"), ("host", "andon.test"), ("origin", "https://andon.test")];
    let renewed = check(&own).await;
    assert_eq!(renewed.status, 200);
    assert_ne!(renewed.headers["set-cookie"].to_str().unwrap().split(';').next(), Some(cookie));
}

#[tokio::test]
async fn guessing_passwords_is_slowed_down_and_written_down() {
    let mut config = config();
    config.auth.sign_ins_per_minute = 3;
    let site = Site::new(config).await;
    let guess = json!({"user": "ann", "password": "a guess"});
    for _ in 0..3 {
        assert_eq!(site.post("/api/v1/auth/login", &[], &guess).await.status, 401);
    }
    let refused = site.post("/api/v1/auth/login", &[], &guess).await;
    assert_eq!(refused.status, 429);
    assert!(refused.headers.contains_key("retry-after"));
    let admin = json!({"sub": "root", "roles": ["admin"]});
    let entries = eventually("the guesses are in the audit log", async || {
        let page = site.get("/api/v1/audit?event=sign_in", &admin).await.json();
        let entries = page["entries"].as_array()?.clone();
        (entries.len() == 3).then_some(entries)
    })
    .await;
    assert!(entries.iter().all(|entry| entry["user"] == "ann" && entry["outcome"] == "wrong user or password"));
    assert_eq!(site.get("/api/v1/audit", &json!({"sub": "v"})).await.status, 403);
    eventually("and so is the denial", async || {
        let page = site.get("/api/v1/audit?event=denied&user=v", &admin).await.json();
        (page["entries"][0]["subject"] == "/api/v1/audit").then_some(())
    })
    .await;
}

#[tokio::test]
async fn api_keys_are_shown_once_and_called_back() {
    let site = Site::new(config()).await;
    let admin = format!("Bearer {}", token(&json!({"sub": "root", "roles": ["admin"]})));
    let authorized = [("authorization", &*admin)];
    let new = json!({"name": "report", "roles": ["clerk"], "claims": {"item": 3}});
    let made = site.post("/api/v1/api-keys", &authorized, &new).await;
    assert_eq!(made.status, 201);
    let key = text(&made.json()["key"]).to_owned();
    assert_eq!(site.get_as("/api/v1/views/stock", &key).await.items(), [3]);
    let by_header = Request::get("/api/v1/views/stock").header("x-api-key", &key).body(Body::empty()).unwrap();
    assert_eq!(site.send(by_header).await.items(), [3]);
    let id = key.split('_').nth(1).unwrap();
    for forged in [format!("andon_{id}_"), format!("andon_{id}_{}", "0".repeat(64)), format!("{key}0"), "andon_".into()]
    {
        assert_eq!(site.get_as("/api/v1/views/stock", &forged).await.status, 401, "{forged}");
    }
    let listing = Request::get("/api/v1/api-keys").header("authorization", &admin).body(Body::empty()).unwrap();
    let listing = String::from_utf8(site.send(listing).await.body).unwrap();
    assert!(listing.contains(id) && !listing.contains(&key[20..]));
    let revoke = Request::delete(format!("/api/v1/api-keys/{id}")).header("authorization", &admin);
    assert_eq!(site.send(revoke.body(Body::empty()).unwrap()).await.status, 204);
    assert_eq!(site.get_as("/api/v1/views/stock", &key).await.status, 401);
    let odd = site.post("/api/v1/api-keys", &authorized, &json!({"name": "x", "roles": ["no such role"]})).await;
    assert_eq!(odd.status, 400);
}

#[tokio::test]
async fn foreign_pages_and_names_are_refused() {
    let mut config = config();
    config.auth.mode = AuthMode::Anonymous;
    config.allowed_origins = vec!["https://erp.test".to_owned()];
    let site = Site::new(config).await;
    let get = async |headers: &[(&str, &str)]| {
        let request = headers.iter().fold(Request::get("/api/v1/views"), |r, (name, value)| r.header(*name, *value));
        site.send(request.body(Body::empty()).unwrap()).await
    };
    assert_eq!(get(&[("host", "127.0.0.1:8080")]).await.status, 200);
    // A name that a foreign page made point here.
    assert_eq!(get(&[("host", "evil.test")]).await.status, 421);
    let listed = get(&[("origin", "https://erp.test")]).await;
    assert_eq!(listed.headers["access-control-allow-origin"], "https://erp.test");
    let foreign = get(&[("origin", "https://evil.test")]).await;
    assert!(!foreign.headers.contains_key("access-control-allow-origin"));
    let preflight = async |origin: &str| {
        let request =
            Request::options("/api/v1/sql").header("origin", origin).header("access-control-request-method", "POST");
        site.send(request.body(Body::empty()).unwrap()).await
    };
    assert_eq!(preflight("https://erp.test").await.status, 204);
    let foreign = preflight("https://evil.test").await;
    assert!(!foreign.headers.contains_key("access-control-allow-origin") && foreign.status >= 400);
    // Live connections too, whatever their method; HTTP/2 names the host in the address alone.
    let stream = async |address: &str, origin: &str| {
        let request = Request::get(format!("{address}/connection/sse?cf_connect=%7B%7D")).header("origin", origin);
        site.send(request.body(Body::empty()).unwrap()).await
    };
    assert_eq!(stream("", "https://evil.test").await.status, 403);
    assert_eq!(stream("https://127.0.0.1:8443", "https://127.0.0.1:8443").await.status, 200);
    let listed = stream("", "https://erp.test").await;
    assert_eq!(
        (listed.status, &listed.headers["access-control-allow-origin"]),
        (200, &"https://erp.test".parse().unwrap())
    );
    let from_foreign = [("host", "127.0.0.1"), ("origin", "https://evil.test")];
    assert_eq!(site.post("/api/v1/sql", &from_foreign, &json!({"query": "SELECT 1"})).await.status, 403);
}

#[tokio::test]
async fn keys_of_an_identity_provider_are_fetched_and_followed() {
    let keys = Arc::new(std::sync::Mutex::new(String::new()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = Arc::clone(&keys);
    let provider = axum::Router::new().route(
        "/keys",
        axum::routing::get(move || {
            let body = served.lock().unwrap().clone();
            async move { ([("content-type", "application/json")], body) }
        }),
    );
    tokio::spawn(axum::serve(listener, provider).into_future());
    let pair = |id: &str| {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let key = jsonwebtoken::EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
        let mut jwk = serde_json::to_value(
            jsonwebtoken::jwk::Jwk::from_encoding_key(&key, jsonwebtoken::Algorithm::ES256).unwrap(),
        )
        .unwrap();
        jwk["kid"] = json!(id);
        let header = jsonwebtoken::Header {
            kid: Some(id.to_owned()),
            ..jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256)
        };
        (jwk, jsonwebtoken::encode(&header, &json!({"sub": "ann"}), &key).unwrap())
    };
    let ((first_key, first), (second_key, second)) = (pair("first"), pair("second"));
    *keys.lock().unwrap() = json!({"keys": [first_key, {"kty": "future"}]}).to_string();
    let mut config = config();
    config.auth.jwks_url = Some(format!("http://{address}/keys"));
    let site = Site::new(config).await;
    let status = async |token: &str| site.get_as("/api/v1/views", token).await.status;
    eventually("the key set is read", async || (status(&first).await == 200).then_some(())).await;
    assert_eq!(status(&second).await, 401);
    // A token with a new key makes the set be read again; the old key is then no longer good.
    *keys.lock().unwrap() = json!({"keys": [second_key]}).to_string();
    eventually("the new key is known", async || (status(&second).await == 200).then_some(())).await;
    assert_eq!(status(&first).await, 401);
    // A set that cannot be read leaves the last one in force.
    *keys.lock().unwrap() = "rubbish".to_owned();
    assert_eq!(status(&first).await, 401);
    assert_eq!(status(&second).await, 200);
}

/// What comes back, until the server closes.
async fn raw(address: std::net::SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may close before all is written.
    drop(stream.write_all(request).await);
    let mut answer = Vec::new();
    drop(tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the server closes"));
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_large_and_many_connections_are_cut() {
    let mut config = config();
    config.server.header_seconds = 1;
    config.server.body_seconds = 1;
    config.server.header_bytes = 8192;
    config.server.headers = 20;
    config.server.connections_per_address = 20;
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(config, open_log(dir.path())).await;
    // Slow-loris: a head that never ends.
    let started = std::time::Instant::now();
    raw(server.address, b"GET / HTTP/1.1\r\nhost: a\r\nx").await;
    assert!(started.elapsed() < Duration::from_secs(10));
    // A body that never ends.
    let post = "POST /api/v1/auth/login HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 100\r\nconnection: close\r\n\r\n{";
    let answer = raw(server.address, post.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    let large = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(20_000));
    assert!(raw(server.address, large.as_bytes()).await.starts_with("HTTP/1.1 431"));
    let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(30));
    assert!(raw(server.address, many.as_bytes()).await.starts_with("HTTP/1.1 431"));
    assert!(raw(server.address, b"\x16\x03\x01\x00\x00rubbish\r\n\r\n").await.starts_with("HTTP/1.1 400"));

    // One address has so many connections; when they end there is room again.
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(TcpStream::connect(server.address).await.unwrap());
    }
    eventually("one more is closed at once", async || {
        let answer = raw(server.address, b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        answer.is_empty().then_some(())
    })
    .await;
    drop(held);
    eventually("there is room again", async || {
        let answer = raw(server.address, b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        answer.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_replaced_while_serving() {
    let dir = tempfile::tempdir().unwrap();
    let files = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let write = || {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(&files.0, made.cert.pem()).unwrap();
        std::fs::write(&files.1, made.signing_key.serialize_pem()).unwrap();
        made.cert.pem()
    };
    let first = write();
    let mut config = config();
    config.tls.certificate_file = Some(files.0.clone());
    config.tls.key_file = Some(files.1.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let shutdown = CancellationToken::new();
    let log = open_log(&dir.path().join("log"));
    let running = tokio::spawn(dashboard_api::run(listener, config, log, shutdown.clone()));
    let status = async |pem: &str| {
        let root = reqwest::Certificate::from_pem(pem.as_bytes()).unwrap();
        let client = reqwest::Client::builder().tls_certs_only([root]).build().unwrap();
        client.get(format!("https://localhost:{port}/healthz")).send().await.ok().map(|answer| {
            let is_strict = answer.headers().contains_key("strict-transport-security");
            (answer.status().as_u16(), answer.version(), is_strict)
        })
    };
    let (code, _, is_strict) = eventually("it serves", async || status(&first).await).await;
    assert_eq!((code, is_strict), (200, true));
    let second = write();
    eventually("it serves with the new certificate", async || status(&second).await).await;
    assert_eq!(status(&first).await, None);
    // A pair that cannot be used leaves the last one in force.
    std::fs::write(&files.1, "rubbish").unwrap();
    assert!(status(&second).await.is_some());
    shutdown.cancel();
    running.await.unwrap().unwrap();
}
