//! Live channels over every transport: general channels, the server API, filters, figures.

use std::collections::BTreeMap;

use dashboard_api::{Allowed, ApiConfig, AuthMode, NamespaceConfig, Store};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::client::Client;
use crate::feeder::{Feeder, open_log, sales_view, stock_row, stock_view};
use crate::server::{PATIENCE, Server, config, token};

/// A key of the server API.
pub(crate) const KEY: &str = "a key of the tests";

/// A server that lets anybody in, with open rooms.
pub(crate) fn rooms() -> ApiConfig {
    let mut config = config();
    config.auth.mode = AuthMode::Anonymous;
    config.live.server_api_keys = vec![KEY.to_owned()];
    let room = NamespaceConfig {
        publish: Allowed::Subscriber,
        query: Allowed::Client,
        presence: true,
        join_leave: true,
        history_size: 10,
        recovery: true,
        ..NamespaceConfig::default()
    };
    let state = NamespaceConfig { cache_recovery: true, publish: Allowed::Client, ..room.clone() };
    let closed = NamespaceConfig { subscribe: false, ..NamespaceConfig::default() };
    config.live.namespaces =
        BTreeMap::from([("room".to_owned(), room), ("state".to_owned(), state), ("closed".to_owned(), closed)]);
    config
}

/// A client that sends what it is told and waits for what it is to get.
pub(crate) struct Raw {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    lines: std::collections::VecDeque<Value>,
    next_id: u64,
}

impl Raw {
    /// Connects, as a user if a name is given.
    pub(crate) async fn connect(server: &Server, user: &str) -> Self {
        let token = if user.is_empty() { String::new() } else { token(&json!({"sub": user})) };
        Self::connect_as(server, &token).await
    }

    /// Connects with a token.
    pub(crate) async fn connect_as(server: &Server, token: &str) -> Self {
        let (socket, _) = connect_async(format!("ws://{}/connection/websocket", server.address)).await.unwrap();
        let mut raw = Self { socket, lines: std::collections::VecDeque::new(), next_id: 1 };
        let reply = raw.call("connect", json!({"token": token})).await;
        assert!(reply["connect"]["client"].is_string(), "{reply}");
        raw
    }

    /// Sends a command and waits for its reply.
    pub(crate) async fn call(&mut self, method: &str, parameters: Value) -> Value {
        let id = self.next_id;
        self.next_id += 1;
        let command = json!({"id": id, method: parameters}).to_string();
        self.socket.send(Message::text(command)).await.unwrap();
        self.find(|line| line["id"] == id).await
    }

    pub(crate) async fn subscribe(&mut self, channel: &str) -> Value {
        let reply = self.call("subscribe", json!({"channel": channel, "join_leave": true})).await;
        assert!(reply["subscribe"].is_object(), "{reply}");
        reply["subscribe"].clone()
    }

    /// The first line that fits; others stay for later.
    pub(crate) async fn find(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            if let Some(idx) = self.lines.iter().position(&fits) {
                return self.lines.remove(idx).unwrap();
            }
            match tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("something comes") {
                Some(Ok(Message::Text(text))) => {
                    self.lines.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
                }
                Some(Ok(Message::Close(frame))) => {
                    let code: u16 = frame.unwrap().code.into();
                    self.lines.push_back(json!({ "close": code }));
                }
                Some(Ok(_)) => {}
                other => panic!("the connection broke: {other:?}; still there: {:?}", self.lines),
            }
        }
    }

    /// The next publication, join, leave or other push of this kind.
    pub(crate) async fn push(&mut self, kind: &str) -> Value {
        self.find(|line| line["push"][kind].is_object()).await["push"][kind].clone()
    }

    pub(crate) async fn close_code(&mut self) -> u64 {
        self.find(|line| line["close"].is_number()).await["close"].as_u64().unwrap()
    }
}

async fn start(config: ApiConfig) -> (Server, Feeder, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let log = open_log(dir.path());
    let feeder = Feeder::new(log.clone());
    feeder.declare(&stock_view()).await;
    feeder.declare(&sales_view()).await;
    feeder.status("live").await;
    feeder.epoch(1, &[(1, Some("10.00"))]).await;
    feeder.figure(1, 0).await;
    (Server::start(config, log).await, feeder, dir)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_transport_of_the_official_client() {
    let (server, feeder, _dir) = start(rooms()).await;
    let mut epoch = 1;
    for (transport, scheme, path) in
        [("websocket", "ws", "websocket"), ("http_stream", "http", "http_stream"), ("sse", "http", "sse")]
    {
        let url = format!("{scheme}://{}/connection/{path}", server.address);
        let emulation = format!("http://{}/emulation", server.address);
        let about = json!({"token": token(&json!({"sub": "ann"})), "transport": transport, "emulation": emulation});
        let mut client = Client::open(&url, about).await;
        client.expect("connected").await;
        client.subscribe("view:stock").await;
        let subscribed = client.expect("subscribed").await;
        assert_eq!(subscribed["data"]["rows"].as_array().unwrap().len(), 1, "{transport}");
        epoch += 1;
        feeder.epoch(epoch, &[(1, Some(&format!("{epoch}.00")))]).await;
        let publication = client.expect("publication").await;
        assert_eq!(publication["data"]["changes"][0]["row"], stock_row(1, &format!("{epoch}.00")));
        let room = format!("room:{transport}");
        client.subscribe(&room).await;
        client.expect("subscribed").await;
        client.tell(json!({"op": "call", "method": "publish", "arguments": [room, {"ä": transport}]})).await;
        let published = client.await_event("publication").await;
        assert_eq!((&published["data"], &published["offset"]), (&json!({"ä": transport}), &json!(1)));
        client.tell(json!({"op": "call", "method": "presenceStats", "arguments": [room]})).await;
        let stats = loop {
            let result = client.await_event("result").await;
            if result["method"] == "presenceStats" {
                break result;
            }
        };
        assert_eq!(stats["result"]["numClients"], 1, "{stats}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_know_who_is_there_and_what_was_said() {
    let (server, _feeder, _dir) = start(rooms()).await;
    let mut ann = Raw::connect(&server, "ann").await;
    let mut bob = Raw::connect(&server, "bob").await;
    let refused = bob.call("publish", json!({"channel": "room:1", "data": {}})).await;
    assert_eq!(refused["error"]["code"], 103, "only subscribers may");
    let unknown = bob.call("subscribe", json!({"channel": "nosuch:1"})).await;
    assert_eq!(unknown["error"]["code"], 102);
    let closed = bob.call("subscribe", json!({"channel": "closed:1"})).await;
    assert_eq!(closed["error"]["code"], 103);
    let for_bob = token(&json!({"sub": "bob", "channel": "closed:1"}));
    let opened = bob.call("subscribe", json!({"channel": "closed:1", "token": for_bob})).await;
    assert!(opened["subscribe"].is_object(), "{opened}");
    let named = bob.call("subscribe", json!({"channel": "closed:x#ann,eve"})).await;
    assert_eq!(named["error"]["code"], 103);

    ann.subscribe("room:1").await;
    assert_eq!(ann.push("join").await["info"]["user"], "ann");
    let position = bob.subscribe("room:1").await;
    assert_eq!(ann.push("join").await["info"]["user"], "bob");
    let presence = ann.call("presence", json!({"channel": "room:1"})).await;
    assert_eq!(presence["presence"]["presence"].as_object().unwrap().len(), 2);
    bob.call("unsubscribe", json!({"channel": "room:1"})).await;
    assert_eq!(ann.push("leave").await["info"]["user"], "bob");
    for n in 1..=3 {
        let published = ann.call("publish", json!({"channel": "room:1", "data": {"n": n}})).await;
        assert!(published["publish"].is_object(), "{published}");
    }
    let back = json!({"channel": "room:1", "recover": true, "epoch": position["epoch"], "offset": 0});
    let recovered = bob.call("subscribe", back).await;
    let said: Vec<u64> = recovered["subscribe"]["publications"]
        .as_array()
        .unwrap()
        .iter()
        .map(|publication| publication["data"]["n"].as_u64().unwrap())
        .collect();
    assert_eq!((said.as_slice(), &recovered["subscribe"]["recovered"]), ([1, 2, 3].as_slice(), &json!(true)));
    let history = bob.call("history", json!({"channel": "room:1", "limit": 2, "reverse": true})).await;
    assert_eq!(history["history"]["publications"][0]["data"]["n"], 3);

    for n in 1..=3 {
        ann.call("publish", json!({"channel": "state:x", "data": {"n": n}})).await;
    }
    let newest = bob.call("subscribe", json!({"channel": "state:x", "recover": true, "epoch": "", "offset": 0})).await;
    assert_eq!(newest["subscribe"]["publications"].as_array().unwrap().len(), 1);
    assert_eq!(newest["subscribe"]["publications"][0]["data"]["n"], 3);
    server.stop().await;
    assert_eq!(ann.close_code().await, 3001);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_programs_call_the_server_api() {
    let (server, _feeder, _dir) = start(rooms()).await;
    let call = async |method: &str, body: Value| server.post(&format!("/api/{method}"), KEY, &body).await.1;
    assert_eq!(server.post("/api/info", "wrong", &json!({})).await.0, 401);
    let mut ann = Raw::connect(&server, "ann").await;
    ann.subscribe("room:1").await;

    let say = json!({"channel": "room:1", "data": {"n": 1}, "idempotency_key": "once"});
    let first = call("publish", say.clone()).await;
    assert_eq!(first["result"]["offset"], 1, "{first}");
    assert_eq!(call("publish", say).await, first, "a repetition is answered as the first");
    assert_eq!(ann.push("pub").await["data"]["n"], 1);
    let sent = call("broadcast", json!({"channels": ["room:1", "nosuch:2"], "data": {"n": 2}})).await;
    assert_eq!(sent["result"]["responses"][0]["result"]["offset"], 2);
    assert_eq!(sent["result"]["responses"][1]["error"]["code"], 102);
    assert_eq!(ann.push("pub").await["data"]["n"], 2, "and not the repetition");

    let stats = call("presence_stats", json!({"channel": "room:1"})).await;
    assert_eq!(stats["result"], json!({"num_clients": 1, "num_users": 1}));
    let history = call("history", json!({"channel": "room:1", "limit": -1})).await;
    assert_eq!(history["result"]["publications"].as_array().unwrap().len(), 2);
    assert_eq!(call("channels", json!({"pattern": "room:*"})).await["result"]["channels"]["room:1"]["num_clients"], 1);
    assert_eq!(call("info", json!({})).await["result"]["nodes"][0]["num_clients"], 1);
    assert_eq!(call("nosuch", json!({})).await["error"]["code"], 104);

    call("subscribe", json!({"user": "ann", "channel": "view:stock"})).await;
    let subscribed = ann.push("subscribe").await;
    assert_eq!(subscribed["data"]["rows"][0]["item"], 1, "{subscribed}");
    let commands = json!([
        {"unsubscribe": {"user": "ann", "channel": "room:1"}},
        {"history_remove": {"channel": "room:1"}},
        {"history": {"channel": "room:1", "limit": -1}},
    ]);
    let replies = call("batch", json!({ "commands": commands })).await;
    assert_eq!(replies["replies"][2]["history"]["publications"], json!([]), "{replies}");
    assert_eq!(ann.push("unsubscribe").await["code"], 2000);
    let wrong = json!({"user": "ann", "disconnect": {"code": 12, "reason": "x"}});
    assert_eq!(call("disconnect", wrong).await["error"]["code"], 107);
    call("disconnect", json!({"user": "ann"})).await;
    assert_eq!(ann.close_code().await, 3503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_may_filter_and_choose_columns() {
    let (server, feeder, _dir) = start(rooms()).await;
    let mut client = Raw::connect(&server, "ann").await;
    let lens = json!({"filter": "quantity > 5", "columns": ["quantity"]});
    let reply = client.call("subscribe", json!({"channel": "view:stock", "data": lens})).await;
    assert_eq!(reply["subscribe"]["data"]["rows"], json!([{"item": 1, "quantity": "10.00"}]), "{reply}");
    assert_eq!(reply["subscribe"]["data"]["columns"].as_array().unwrap().len(), 2);
    feeder.epoch(2, &[(2, Some("1.00"))]).await;
    feeder.epoch(3, &[(1, Some("2.00")), (2, Some("7.00"))]).await;
    feeder.epoch(4, &[(2, None)]).await;
    let changes = client.push("pub").await["data"]["changes"].clone();
    let expected =
        json!([{"key": {"item": 1}, "row": null}, {"key": {"item": 2}, "row": {"item": 2, "quantity": "7.00"}}]);
    assert_eq!(changes, expected, "what did not pass before and does not now is not told");
    assert_eq!(client.push("pub").await["data"]["changes"], json!([{"key": {"item": 2}, "row": null}]));
    for bad in [json!({"filter": "nosuch = 1"}), json!({"columns": ["nosuch"]}), json!({"rule": "true"})] {
        client.call("unsubscribe", json!({"channel": "view:stock"})).await;
        let refused = client.call("subscribe", json!({"channel": "view:stock", "data": bad})).await;
        assert_eq!(refused["error"]["code"], 107, "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_figure_tells_its_newest_value_at_a_bounded_rate() {
    let (server, feeder, _dir) = start(rooms()).await;
    let mut client = Raw::connect(&server, "ann").await;
    client.subscribe("view:sales").await;
    let started = std::time::Instant::now();
    for n in 1..=200 {
        feeder.figure(n + 1, n).await;
    }
    let mut n_updates = 0;
    loop {
        let publication = client.push("pub").await;
        n_updates += 1;
        let changes = publication["data"]["changes"].as_array().unwrap();
        assert_eq!(changes.len(), 1);
        if changes[0]["row"]["total"] == 200 {
            break;
        }
    }
    let allowed = started.elapsed().as_millis() / 250 + 2;
    assert!(n_updates <= allowed, "{n_updates} updates in {:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_roles_reach_live_connections() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("andon.db").display());
    let store = Store::open(&url).await.unwrap();
    let roles = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let none = serde_json::Map::new();
    store.add_user("ann", "correct horse", &roles(&["rooms", "clerk"]), &none, 0).await.unwrap();
    let mut config = rooms();
    config.database_url = Some(url);
    config.roles = serde_json::from_value(json!({
        "rooms": {"channels": ["room:*"]}, "hall": {"channels": ["room:hall"]}, "clerk": {"views": ["stock"]},
    }))
    .unwrap();
    let (server, _feeder, _dir) = start(config).await;
    let login = json!({"user": "ann", "password": "correct horse"});
    let pair = server.post("/api/v1/auth/login", KEY, &login).await.1;
    let mut ann = Raw::connect_as(&server, pair["access_token"].as_str().unwrap()).await;
    for channel in ["room:hall", "room:cellar", "view:stock"] {
        ann.subscribe(channel).await;
    }
    let changed = std::time::Instant::now();
    store.set_roles("ann", &roles(&["hall", "clerk"]), &none, chrono::Utc::now().timestamp_millis()).await.unwrap();
    let ended = ann.find(|line| line["push"]["unsubscribe"].is_object()).await;
    assert_eq!(ended["push"]["channel"], "room:cellar");
    assert!(changed.elapsed() < std::time::Duration::from_secs(5), "{:?}", changed.elapsed());
    assert_eq!(ann.call("subscribe", json!({"channel": "room:cellar"})).await["error"]["code"], 103);
    store.set_roles("ann", &roles(&["hall"]), &none, chrono::Utc::now().timestamp_millis()).await.unwrap();
    assert_eq!(ann.close_code().await, 3507, "a view that it may no longer read");
    store.close().await;
    server.stop().await;
}
