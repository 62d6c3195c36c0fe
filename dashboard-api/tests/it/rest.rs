//! The HTTP routes, without sockets.

use std::io::Read;
use std::sync::Arc;

use arrow::array::{Array, Decimal128Array};
use arrow::ipc::reader::StreamReader;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use bytes::Bytes;
use dashboard_api::{ApiConfig, AppState, AuthMode, app, feed};
use model::clock::SystemClock;
use model::{Log, Offsets, PollLimit, Record, TopicSelector};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt;

use crate::feeder::{Feeder, open_log, stock_row, stock_view};
use crate::server::{PATIENCE, config, eventually, token};

struct Site {
    app: Router,
    log: Arc<dyn Log>,
    feeder: Feeder,
    _stop: DropGuard,
    _dir: tempfile::TempDir,
}

impl Site {
    /// An empty log, and the routes over it.
    fn new(config: ApiConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = open_log(dir.path());
        let stop = CancellationToken::new();
        let state = AppState::new(config, log.clone(), Arc::new(SystemClock), stop.clone()).unwrap();
        tokio::spawn(feed(state.clone()));
        Self { app: app(state), feeder: Feeder::new(log.clone()), log, _stop: stop.drop_guard(), _dir: dir }
    }

    /// With the view `stock`, which has the items 1 to 5.
    async fn with_stock(config: ApiConfig) -> Self {
        let site = Self::new(config);
        site.feeder.declare(&stock_view()).await;
        let rows: Vec<(u64, Option<&str>)> = (1..=5).map(|item| (item, Some("2.50"))).collect();
        site.feeder.epoch(7, &rows).await;
        site.feeder.status("live").await;
        eventually("the view is there", async || {
            let listing = site.get("/api/v1/views").await.json();
            (listing["views"][0]["rows"] == 5).then_some(())
        })
        .await;
        site
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.app.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 16 << 20).await.unwrap();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[("authorization", &bearer(json!({"sub": "ann"})))]).await
    }

    async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let request = headers.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
        self.send(request.body(Body::empty()).unwrap()).await
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let request = headers.iter().fold(Request::post(path), |request, (name, value)| request.header(*name, *value));
        self.send(request.body(body.into()).unwrap()).await
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Checks that this is an error with a next step.
    #[track_caller]
    fn expect_problem(&self, status: u16, kind: &str) {
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!((self.status.as_u16(), &problem["type"]), (status, &json!(format!("urn:andon:problem:{kind}"))));
        assert!(problem["detail"].as_str().is_some_and(|next_step| !next_step.is_empty()), "{problem}");
    }
}

fn bearer(claims: Value) -> String {
    format!("Bearer {}", token(&claims))
}

fn mode(mode: AuthMode) -> ApiConfig {
    let mut config = config();
    config.auth.mode = mode;
    config
}

#[tokio::test]
async fn readiness_names_what_is_missing() {
    let site = Site::new(config());
    assert_eq!(site.get_with("/healthz", &[]).await.status, 200);
    let answer = eventually("the log is read", async || {
        let answer = site.get_with("/readyz", &[]).await;
        (answer.json()["reasons"].as_array().unwrap().len() == 1).then_some(answer)
    })
    .await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json(), json!({"ready": false, "reasons": ["the engine has not reported yet"]}));
    site.feeder.status("catching_up").await;
    eventually("it says how far the engine is", async || {
        let reasons = site.get_with("/readyz", &[]).await.json()["reasons"].to_string();
        reasons.contains("catching up with its sources: 3 records to go").then_some(())
    })
    .await;
    site.feeder.status("live").await;
    eventually("it is ready", async || (site.get_with("/readyz", &[]).await.status == 200).then_some(())).await;
}

#[tokio::test]
async fn every_api_route_wants_a_token() {
    let mut config = config();
    config.ingest.enabled = true;
    let site = Site::with_stock(config).await;
    let now_s = chrono::Utc::now().timestamp();
    let expired = bearer(json!({"sub": "ann", "exp": now_s - 100}));
    let forged = bearer(json!({"sub": "ann"})) + "x";
    let wrong: [&[(&str, &str)]; 4] =
        [&[], &[("authorization", "Basic YTpi")], &[("authorization", &expired)], &[("authorization", &forged)]];
    for headers in wrong {
        for path in ["/api/v1/views", "/api/v1/views/stock", "/api/v1/alerts", "/api/v1/session"] {
            let answer = site.get_with(path, headers).await;
            answer.expect_problem(401, "unauthorized");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
        site.post("/api/v1/ingest/erp.t", headers, "{}").await.expect_problem(401, "unauthorized");
    }
    let sender = bearer(json!({"sub": "debezium", "roles": ["ingest"]}));
    for path in ["/api/v1/views", "/api/v1/views/stock", "/api/v1/alerts"] {
        site.get_with(path, &[("authorization", &sender)]).await.expect_problem(403, "forbidden");
        assert_eq!(site.get(path).await.status, 200);
    }
    let session = site.get("/api/v1/session").await.json();
    assert_eq!(
        session,
        json!({"token": null, "user": "ann", "mode": "token", "roles": ["viewer"], "has_users": false})
    );
}

#[tokio::test]
async fn open_modes_let_viewers_in() {
    let site = Site::with_stock(mode(AuthMode::Anonymous)).await;
    assert_eq!(site.get_with("/api/v1/views", &[]).await.status, 200);
    let session = site.get_with("/api/v1/session", &[]).await.json();
    assert_eq!(
        session,
        json!({"token": null, "user": null, "mode": "anonymous", "roles": ["viewer"], "has_users": false})
    );

    let site = Site::with_stock(mode(AuthMode::Demo)).await;
    assert_eq!(site.get_with("/api/v1/views", &[]).await.status, 200);
    let answer = site.get_with("/api/v1/session", &[]).await;
    assert_eq!(answer.header("cache-control"), "no-store");
    let session = answer.json();
    assert_eq!((&session["user"], &session["mode"]), (&json!("demo"), &json!("demo")));
    let token = format!("Bearer {}", session["token"].as_str().unwrap());
    assert_eq!(site.get_with("/api/v1/views", &[("authorization", &token)]).await.status, 200);
}

#[tokio::test]
async fn a_view_is_read_page_by_page() {
    let site = Site::with_stock(config()).await;
    let mut path = "/api/v1/views/stock?limit=2".to_owned();
    let mut items = Vec::new();
    loop {
        let page = site.get(&path).await.json();
        assert_eq!((&page["epoch"], &page["as_of_ms"], &page["total_rows"]), (&json!(7), &json!(1000), &json!(5)));
        assert_eq!(page["sql"], stock_view().sql);
        items.extend(page["rows"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/api/v1/views/stock?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(items, (1..=5).map(|item| stock_row(item, "2.50")).collect::<Vec<_>>());
    site.get("/api/v1/views/stock?cursor=zz").await.expect_problem(400, "bad-request");
    site.get("/api/v1/views/stock?limit=x").await.expect_problem(400, "bad-request");
    site.get("/api/v1/views/nothing").await.expect_problem(404, "not-found");
}

#[tokio::test]
async fn an_unchanged_view_is_not_sent_again() {
    let site = Site::with_stock(config()).await;
    let authorization = bearer(json!({"sub": "ann"}));
    let first = site.get("/api/v1/views/stock").await;
    let tag = first.header("etag").to_owned();
    let again = |tag: String| {
        let authorization = authorization.clone();
        let site = &site;
        async move {
            let headers = [("authorization", &*authorization), ("if-none-match", &*tag)];
            site.get_with("/api/v1/views/stock", &headers).await
        }
    };
    let unchanged = again(tag.clone()).await;
    assert_eq!((unchanged.status.as_u16(), unchanged.body.len()), (304, 0));
    site.feeder.epoch(8, &[(1, None)]).await;
    let changed = eventually("the change is seen", async || {
        let answer = again(tag.clone()).await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert_eq!(changed.json()["total_rows"], 4);
}

#[tokio::test]
async fn an_arrow_stream_has_the_columns_types() {
    let site = Site::with_stock(config()).await;
    let headers =
        [("authorization", &*bearer(json!({"sub": "ann"}))), ("accept", "application/vnd.apache.arrow.stream")];
    let answer = site.get_with("/api/v1/views/stock", &headers).await;
    assert_eq!(answer.header("content-type"), "application/vnd.apache.arrow.stream");
    let batches: Vec<_> = StreamReader::try_new(&answer.body[..], None).unwrap().map(Result::unwrap).collect();
    assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), 5);
    let quantity = batches[0].column_by_name("quantity").unwrap();
    let quantity = quantity.as_any().downcast_ref::<Decimal128Array>().unwrap();
    assert_eq!((quantity.value(0), quantity.scale()), (250, 2));
}

#[tokio::test]
async fn json_is_compressed_and_headers_are_strict() {
    let site = Site::with_stock(config()).await;
    let headers = [("authorization", &*bearer(json!({"sub": "ann"}))), ("accept-encoding", "gzip")];
    let answer = site.get_with("/api/v1/views", &headers).await;
    assert_eq!(answer.header("content-encoding"), "gzip");
    let mut text = String::new();
    flate2::read::GzDecoder::new(&answer.body[..]).read_to_string(&mut text).unwrap();
    assert!(text.contains(r#""name":"stock""#), "{text}");
    let headers = [headers[0], ("accept-encoding", "gzip, deflate, br")];
    assert_eq!(site.get_with("/api/v1/views", &headers).await.header("content-encoding"), "br");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert!(answer.header("content-security-policy").starts_with("default-src 'self';"));
}

#[tokio::test]
async fn alerts_are_listed_by_priority() {
    let site = Site::with_stock(config()).await;
    site.feeder.alert("low", "firing", 1.0).await;
    site.feeder.alert("high", "firing", 9.5).await;
    site.feeder.alert("past", "resolved", 5.0).await;
    let ids = |answer: &Answer| -> Vec<String> {
        let alerts = answer.json()["alerts"].as_array().unwrap().clone();
        alerts.iter().map(|alert| alert["alert_id"].as_str().unwrap().to_owned()).collect()
    };
    eventually("all alerts are there", async || {
        (ids(&site.get("/api/v1/alerts").await) == ["high", "past", "low"]).then_some(())
    })
    .await;
    let answer = site.get("/api/v1/alerts?state=firing&limit=1").await;
    assert_eq!((ids(&answer), &answer.json()["firing"]), (vec!["high".to_owned()], &json!(2)));
    site.get("/api/v1/alerts?state=odd").await.expect_problem(400, "bad-request");
}

/// What a topic has, once it has so many records.
async fn records(log: &Arc<dyn Log>, topic: &str, n_records: usize) -> Vec<Record> {
    let selector = vec![TopicSelector::Name(topic.to_owned())];
    let mut reader = log.read(selector, &Offsets::default()).await.unwrap();
    let mut records = Vec::new();
    while records.len() < n_records {
        let limit = PollLimit { max_records: 100, max_bytes: 1 << 20, wait: PATIENCE };
        let batches = reader.poll(limit).await.unwrap();
        assert!(!batches.is_empty(), "records come");
        records.extend(batches.into_iter().flat_map(|batch| batch.records));
    }
    records
}

#[tokio::test]
async fn records_come_in_over_http() {
    let mut config = mode(AuthMode::Demo);
    config.ingest.enabled = true;
    config.ingest.body_bytes = 100;
    config.ingest.topic_prefixes = vec!["erp.".to_owned()];
    let site = Site::new(config);
    let sender = bearer(json!({"sub": "debezium", "roles": ["ingest"]}));
    let authorized = [("authorization", &*sender)];
    let value = r#"{"after":{"id":1},"op":"c"}"#;
    let answer = site.post("/api/v1/ingest/erp.item", &authorized, value).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"topic": "erp.item", "offset": 0})));
    let keyed = [("authorization", &*sender), ("x-debezium-key", r#"{"id":1}"#)];
    assert_eq!(site.post("/api/v1/ingest/erp.item", &keyed, "").await.status, 200);
    let records = records(&site.log, "erp.item", 2).await;
    assert_eq!((records[0].key.as_ref(), records[0].value.as_deref()), (None, Some(value.as_bytes())));
    assert_eq!((records[1].key.as_deref(), records[1].value.as_ref()), (Some(&br#"{"id":1}"#[..]), None));

    let refuse = async |topic: &str, headers: &[(&str, &str)], body: &str, status, kind| {
        site.post(&format!("/api/v1/ingest/{topic}"), headers, body.to_owned()).await.expect_problem(status, kind);
    };
    refuse("erp.item", &[], value, 401, "unauthorized").await;
    refuse("erp.item", &[("authorization", &bearer(json!({"sub": "ann"})))], value, 403, "forbidden").await;
    refuse("andon.alerts", &authorized, value, 403, "topic").await;
    refuse("other", &authorized, value, 403, "topic").await;
    refuse("erp.%2F", &authorized, value, 400, "bad-request").await;
    refuse("erp.item", &authorized, "{", 400, "bad-request").await;
    refuse("erp.item", &authorized, "", 400, "bad-request").await;
    refuse("erp.item", &authorized, &"1".repeat(101), 413, "body").await;

    let closed = Site::new(mode(AuthMode::Demo));
    closed.post("/api/v1/ingest/erp.item", &authorized, value).await.expect_problem(404, "not-found");
}

#[tokio::test]
async fn the_page_is_served_at_every_place_within_it() {
    let site = Site::new(config());
    for path in ["/", "/index.html", "/alerts/42"] {
        let answer = site.get_with(path, &[]).await;
        assert_eq!((answer.status.as_u16(), answer.header("cache-control")), (200, "no-cache"), "{path}");
        assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
        assert!(answer.body.starts_with(b"<!doctype html>") || answer.body.starts_with(b"<!DOCTYPE html>"));
    }
    site.get_with("/assets/nothing.js", &[]).await.expect_problem(404, "not-found");
    site.get_with("/api/v1/nothing", &[]).await.expect_problem(404, "not-found");
    site.post("/", &[], "").await.expect_problem(405, "method");
}

#[tokio::test]
async fn metrics_are_rendered_where_they_are_recorded() {
    site_metrics(None, 404).await;
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || metrics::counter!("api_things_total").increment(2));
    let body = site_metrics(Some(handle), 200).await;
    assert!(body.contains("api_things_total 2"), "{body}");
}

async fn site_metrics(handle: Option<metrics_exporter_prometheus::PrometheusHandle>, status: u16) -> String {
    let site = Site::new(ApiConfig { metrics: handle, ..config() });
    let answer = site.get_with("/metrics", &[]).await;
    assert_eq!(answer.status, status);
    String::from_utf8(answer.body.to_vec()).unwrap()
}

#[tokio::test]
async fn the_engines_last_graph_is_shown_to_administrators() {
    let site = Site::with_stock(config()).await;
    let admin = bearer(json!({"sub": "root", "roles": ["admin"]}));
    let get = async || site.get_with("/api/v1/graph", &[("authorization", &admin)]).await;
    get().await.expect_problem(404, "not-found");
    for epoch in [8, 9] {
        site.feeder.graph(&json!({"epoch": epoch, "nodes": [{"id": 0, "rows_in": epoch}], "views": []})).await;
        eventually("the graph is there", async || {
            let answer = get().await;
            (answer.status == 200 && answer.json()["epoch"] == epoch).then_some(())
        })
        .await;
    }
    let answer = get().await;
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.json()["nodes"][0]["rows_in"], 9);
    site.get("/api/v1/graph").await.expect_problem(403, "forbidden");
    site.get_with("/api/v1/graph", &[]).await.expect_problem(401, "unauthorized");
}
