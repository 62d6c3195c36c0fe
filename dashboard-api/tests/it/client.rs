//! The official Centrifuge client (npm) against the real server on a real log.

use std::path::Path;
use std::process::Stdio;
use std::sync::OnceLock;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::feeder::{Feeder, open_log, stock_row, stock_view};
use crate::proxy::Proxy;
use crate::server::{PATIENCE, Server, config, token};

/// A Node process with the client library.
pub(crate) struct Client {
    stdin: ChildStdin,
    events: Lines<BufReader<ChildStdout>>,
    /// Killed when dropped.
    _process: Child,
}

impl Client {
    /// Starts the process and opens a connection.
    pub(crate) async fn open(url: &str, about: Value) -> Self {
        let mut process = Command::new("node")
            .arg("driver.mjs")
            .current_dir(installed())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("node runs");
        let stdin = process.stdin.take().unwrap();
        let events = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut client = Self { stdin, events, _process: process };
        let mut command = about;
        command["op"] = "open".into();
        command["url"] = url.into();
        client.tell(command).await;
        client
    }

    pub(crate) async fn tell(&mut self, command: Value) {
        self.stdin.write_all(format!("{command}\n").as_bytes()).await.unwrap();
    }

    pub(crate) async fn subscribe(&mut self, channel: &str) {
        self.tell(json!({"op": "subscribe", "channel": channel})).await;
    }

    /// The next event.
    pub(crate) async fn next(&mut self) -> Value {
        let line = tokio::time::timeout(PATIENCE, self.events.next_line()).await.expect("an event comes");
        serde_json::from_str(&line.unwrap().expect("node still runs")).unwrap()
    }

    /// The next event, which is of this kind.
    pub(crate) async fn expect(&mut self, event: &str) -> Value {
        let next = self.next().await;
        assert_eq!(next["event"], event, "{next}");
        next
    }

    /// The next event of this kind; others before it are passed over.
    pub(crate) async fn await_event(&mut self, event: &str) -> Value {
        loop {
            let next = self.next().await;
            if next["event"] == event {
                return next;
            }
        }
    }
}

/// The folder of the driver, with its packages.
fn installed() -> &'static Path {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/client"));
    INSTALLED.get_or_init(|| {
        if !folder.join("node_modules/eventsource").is_dir() {
            let status =
                std::process::Command::new("npm").args(["ci", "--ignore-scripts"]).current_dir(folder).status();
            assert!(status.expect("npm runs").success(), "npm ci failed in {}", folder.display());
        }
    });
    folder
}

fn ann() -> Value {
    json!({"token": token(&json!({"sub": "ann"}))})
}

struct World {
    feeder: Feeder,
    server: Server,
    proxy: Proxy,
    log: std::sync::Arc<dyn model::Log>,
    _dir: tempfile::TempDir,
}

impl World {
    /// A server whose view `stock` has item 1 at 10.00, reached through a network that can be cut.
    async fn new(config: dashboard_api::ApiConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = open_log(dir.path());
        let feeder = Feeder::new(log.clone());
        feeder.declare(&stock_view()).await;
        feeder.status("live").await;
        feeder.epoch(1, &[(1, Some("10.00"))]).await;
        let server = Server::start(config, log.clone()).await;
        let proxy = Proxy::start(server.address).await;
        Self { feeder, server, proxy, log, _dir: dir }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_then_every_change() {
    let world = World::new(config()).await;
    let mut client = Client::open(&world.proxy.url(), ann()).await;
    client.expect("connected").await;
    client.subscribe("view:stock").await;
    let subscribed = client.expect("subscribed").await;
    let data = &subscribed["data"];
    assert_eq!((&data["view"], &data["key"], &data["epoch"]), (&json!("stock"), &json!(["item"]), &json!(1)));
    assert_eq!(data["columns"][1], json!({"name": "quantity", "type": "Decimal128(20, 2)", "nullable": true}));
    assert_eq!(data["rows"], json!([stock_row(1, "10.00")]));

    world.feeder.epoch(2, &[(1, Some("9.50")), (2, Some("3.00"))]).await;
    world.feeder.epoch(3, &[(1, None)]).await;
    let publication = client.expect("publication").await;
    let changes = json!([
        {"key": {"item": 1}, "row": stock_row(1, "9.50")},
        {"key": {"item": 2}, "row": stock_row(2, "3.00")},
    ]);
    let data = &publication["data"];
    assert_eq!((&data["epoch"], &data["as_of_ms"], &data["changes"]), (&json!(2), &json!(1000), &changes));
    assert!(data["written_at_ms"].as_i64().unwrap() > 1_000_000_000_000);
    let publication = client.expect("publication").await;
    assert_eq!(publication["data"]["changes"], json!([{"key": {"item": 1}, "row": null}]));
    assert_eq!(publication["offset"], 4, "the place in the topic after its fourth record");
    world.server.stop().await;
    assert_eq!(client.expect("connecting").await["code"], 3001, "the server says that it goes");
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_and_status_are_channels_too() {
    let world = World::new(config()).await;
    let mut client = Client::open(&world.proxy.url(), ann()).await;
    client.expect("connected").await;
    client.subscribe("alerts").await;
    assert_eq!(client.expect("subscribed").await["data"], json!({"alerts": [], "firing": 0}));
    world.feeder.alert("a", "firing", 5.0).await;
    let publication = client.expect("publication").await;
    assert_eq!(publication["data"]["type"], "io.andon.alert.firing");
    assert_eq!(publication["data"]["data"]["alert_id"], "a");
    client.subscribe("status").await;
    assert_eq!(client.expect("subscribed").await["data"]["phase"], "live");
    world.feeder.status("catching_up").await;
    assert_eq!(client.expect("publication").await["data"]["phase"], "catching_up");

    let call = |method, arguments| json!({"op": "call", "method": method, "arguments": arguments});
    client.tell(call("history", json!(["alerts", {"limit": 10}]))).await;
    assert_eq!(client.expect("result").await["result"]["publications"][0]["data"]["subject"], Value::Null);
    client.tell(call("presenceStats", json!(["alerts"]))).await;
    assert_eq!(client.expect("failed").await["code"], 108);
    client.tell(call("rpc", json!(["x", {}]))).await;
    assert_eq!(client.expect("failed").await["code"], 108);
    client.tell(call("publish", json!(["alerts", {}]))).await;
    assert_eq!(client.expect("failed").await["code"], 103);
    client.subscribe("chat").await;
    assert_eq!(client.expect("unsubscribed").await["code"], 102);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_while_cut_off_is_recovered() {
    let world = World::new(config()).await;
    let mut client = Client::open(&world.proxy.url(), ann()).await;
    client.subscribe("view:stock").await;
    client.await_event("subscribed").await;
    world.feeder.epoch(2, &[(1, Some("9.00"))]).await;
    client.expect("publication").await;

    world.proxy.cut();
    client.expect("connecting").await;
    for epoch in 3..6 {
        world.feeder.epoch(epoch, &[(1, Some(&format!("{epoch}.00")))]).await;
    }
    world.proxy.mend(world.server.address);
    let subscribed = client.await_event("subscribed").await;
    assert_eq!((&subscribed["wasRecovering"], &subscribed["recovered"]), (&json!(true), &json!(true)));
    world.feeder.epoch(6, &[(1, Some("6.00"))]).await;
    for epoch in 3..7 {
        let publication = client.expect("publication").await;
        assert_eq!((&publication["offset"], &publication["data"]["epoch"]), (&json!(epoch), &json!(epoch)));
    }
}

/// Applies publications to the rows of `stock`, by item, until an epoch.
async fn items_at(client: &mut Client, items: &mut Vec<u64>, epoch: u64) {
    loop {
        let publication = client.expect("publication").await;
        for change in publication["data"]["changes"].as_array().unwrap() {
            let item = change["key"]["item"].as_u64().unwrap();
            items.retain(|other| *other != item);
            items.extend(change["row"]["item"].as_u64());
        }
        if publication["data"]["epoch"] == epoch {
            items.sort_unstable();
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_missed_more_than_is_kept_gets_the_net_change() {
    let mut config = config();
    config.limits.history_size = 2;
    let world = World::new(config).await;
    let mut client = Client::open(&world.proxy.url(), ann()).await;
    client.subscribe("view:stock").await;
    client.await_event("subscribed").await;

    world.proxy.cut();
    client.await_event("connecting").await;
    for epoch in 2..6 {
        world.feeder.epoch(epoch, &[(epoch, Some("1.00"))]).await;
    }
    world.feeder.epoch(6, &[(1, None)]).await;
    world.proxy.mend(world.server.address);
    let subscribed = client.await_event("subscribed").await;
    assert_eq!((&subscribed["wasRecovering"], &subscribed["recovered"]), (&json!(true), &json!(true)));
    let mut items = vec![1];
    items_at(&mut client, &mut items, 6).await;
    assert_eq!(items, [2, 3, 4, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_outlive_the_server() {
    let world = World::new(config()).await;
    let mut client = Client::open(&world.proxy.url(), ann()).await;
    client.subscribe("view:stock").await;
    client.await_event("subscribed").await;
    world.feeder.epoch(2, &[(1, Some("9.00"))]).await;
    client.expect("publication").await;

    world.proxy.cut();
    world.server.stop().await;
    world.feeder.epoch(3, &[(7, Some("7.00"))]).await;
    world.feeder.epoch(4, &[(1, None)]).await;
    let reborn = Server::start(config(), world.log.clone()).await;
    world.proxy.mend(reborn.address);
    let subscribed = client.await_event("subscribed").await;
    assert_eq!((&subscribed["wasRecovering"], &subscribed["recovered"]), (&json!(true), &json!(true)));
    let mut items = vec![1];
    items_at(&mut client, &mut items, 4).await;
    assert_eq!(items, [7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_of_another_form_starts_anew() {
    let world = World::new(config()).await;
    let mut client = Client::open(&world.proxy.url(), ann()).await;
    client.subscribe("view:stock").await;
    client.await_event("subscribed").await;
    let mut info = stock_view();
    info.sql.push_str(" WHERE quantity > 0");
    info.empty_inputs = vec!["stock_level".to_owned()];
    world.feeder.declare(&info).await;
    let subscribed = client.await_event("subscribed").await;
    assert_eq!(subscribed["data"]["empty_inputs"], json!(["stock_level"]));
    assert_eq!(subscribed["data"]["rows"], json!([stock_row(1, "10.00")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_do_not_get_in() {
    let world = World::new(config()).await;
    let url = world.proxy.url();
    let forged = token(&json!({"sub": "ann"})) + "x";
    // {"alg":"none"} . {"sub":"ann"} . no signature
    for bad in [forged.as_str(), "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ."] {
        let mut client = Client::open(&url, json!({"token": bad})).await;
        let disconnected = client.expect("disconnected").await;
        assert_eq!((&disconnected["code"], &disconnected["reason"]), (&json!(3500), &json!("invalid token")));
    }
    let mut client = Client::open(&url, json!({})).await;
    assert_eq!(client.expect("disconnected").await["code"], 3501);

    // An expired token makes the client fetch another one.
    let now_s = chrono::Utc::now().timestamp();
    let mut client = Client::open(&url, json!({"ask": true})).await;
    client.expect("token wanted").await;
    client.tell(json!({"op": "token", "token": token(&json!({"sub": "ann", "exp": now_s - 100}))})).await;
    client.await_event("token wanted").await;
    client.tell(json!({"op": "token", "token": token(&json!({"sub": "ann", "exp": now_s + 100}))})).await;
    client.await_event("connected").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_refreshed_while_connected() {
    let world = World::new(config()).await;
    let now_s = chrono::Utc::now().timestamp();
    let claims = |life_s: i64| json!({"sub": "ann", "exp": now_s + life_s});
    let mut client = Client::open(&world.proxy.url(), json!({"ask": true, "token": token(&claims(2))})).await;
    client.expect("connected").await;
    client.expect("token wanted").await;
    client.tell(json!({"op": "token", "token": token(&claims(3_600))})).await;
    client.subscribe("view:stock").await;
    client.expect("subscribed").await;
}
