//! Several nodes over a real Redis: what one node is told reaches all, an outage is survived, and views do not need it.

use dashboard_api::ApiConfig;
use dev_services::Redis;
use serde_json::json;

use crate::client::Client;
use crate::feeder::{Feeder, open_log, stock_view};
use crate::live::{KEY, Raw, rooms};
use crate::server::{Server, eventually, token};

struct Nodes {
    redis: Redis,
    a: Server,
    b: Server,
    feeder: Feeder,
    _dir: tempfile::TempDir,
}

impl Nodes {
    async fn start() -> Self {
        let redis = tokio::task::spawn_blocking(Redis::start).await.unwrap().unwrap();
        let mut config: ApiConfig = rooms();
        config.live.redis.url = Some(redis.url().to_owned());
        let dir = tempfile::tempdir().unwrap();
        let log = open_log(dir.path());
        let feeder = Feeder::new(log.clone());
        feeder.declare(&stock_view()).await;
        feeder.status("live").await;
        feeder.epoch(1, &[(1, Some("10.00"))]).await;
        let a = Server::start(config.clone(), log.clone()).await;
        let b = Server::start(config, log).await;
        let nodes = Self { redis, a, b, feeder, _dir: dir };
        nodes.both_know_each_other().await;
        nodes
    }

    async fn both_know_each_other(&self) {
        for node in [&self.a, &self.b] {
            eventually("the nodes know each other", async || {
                let info = node.post("/api/info", KEY, &json!({})).await.1;
                (info["result"]["nodes"].as_array().unwrap().len() == 2).then_some(())
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_is_told_reaches_all() {
    let nodes = Nodes::start().await;
    let mut ann = Raw::connect(&nodes.a, "ann").await;
    let mut bob = Raw::connect(&nodes.b, "bob").await;
    ann.subscribe("room:1").await;
    ann.push("join").await;
    let position = bob.subscribe("room:1").await;
    assert_eq!(ann.push("join").await["info"]["user"], "bob");
    let said = ann.call("publish", json!({"channel": "room:1", "data": {"n": 1}})).await;
    assert!(said["publish"].is_object(), "{said}");
    let at_b = bob.push("pub").await;
    assert_eq!((&at_b["data"]["n"], &at_b["info"]["user"]), (&json!(1), &json!("ann")));
    assert_eq!(ann.push("pub").await["offset"], at_b["offset"], "a place is the same everywhere");

    // Bob goes to the other node, with his position.
    nodes.b.post("/api/publish", KEY, &json!({"channel": "room:1", "data": {"n": 2}})).await;
    ann.push("pub").await;
    let mut moved = Raw::connect(&nodes.a, "bob").await;
    let back = json!({"channel": "room:1", "recover": true, "epoch": position["epoch"], "offset": at_b["offset"]});
    let recovered = moved.call("subscribe", back).await;
    assert_eq!(recovered["subscribe"]["publications"][0]["data"]["n"], 2, "{recovered}");
    assert_eq!(recovered["subscribe"]["publications"].as_array().unwrap().len(), 1);

    // A call at one node ends a connection at the other.
    nodes.a.post("/api/disconnect", KEY, &json!({"user": "bob"})).await;
    assert_eq!(bob.close_code().await, 3503);
    eventually("bob has left", async || {
        let stats = nodes.a.post("/api/presence_stats", KEY, &json!({"channel": "room:1"})).await.1;
        (stats["result"]["num_clients"] == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_find_the_session_at_another_node() {
    let nodes = Nodes::start().await;
    let url = format!("http://{}/connection/http_stream", nodes.a.address);
    let emulation = format!("http://{}/emulation", nodes.b.address);
    let about = json!({"token": token(&json!({"sub": "ann"})), "transport": "http_stream", "emulation": emulation});
    let mut client = Client::open(&url, about).await;
    client.expect("connected").await;
    client.subscribe("view:stock").await;
    assert_eq!(client.expect("subscribed").await["data"]["rows"][0]["item"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_redis_costs_no_view_and_heals() {
    let nodes = Nodes::start().await;
    let mut ann = Raw::connect(&nodes.a, "ann").await;
    let mut bob = Raw::connect(&nodes.b, "bob").await;
    ann.subscribe("view:stock").await;
    ann.subscribe("room:1").await;
    bob.subscribe("room:1").await;
    nodes.redis.kill().unwrap();
    nodes.feeder.epoch(2, &[(1, Some("9.00"))]).await;
    assert_eq!(ann.push("pub").await["data"]["epoch"], 2, "views go on");
    let refused = ann.call("publish", json!({"channel": "room:1", "data": {}})).await;
    assert_eq!((&refused["error"]["code"], &refused["error"]["temporary"]), (&json!(100), &json!(true)));

    // It comes back without its data: who relies on a position is told to start anew.
    nodes.redis.restart().unwrap();
    for client in [&mut ann, &mut bob] {
        assert_eq!(client.push("unsubscribe").await["code"], 2500);
        client.call("unsubscribe", json!({"channel": "room:1"})).await;
        client.subscribe("room:1").await;
    }
    eventually("publishing works again", async || {
        let said = nodes.a.post("/api/publish", KEY, &json!({"channel": "room:1", "data": {"n": 3}})).await.1;
        said["result"]["offset"].is_u64().then_some(())
    })
    .await;
    assert_eq!(bob.push("pub").await["data"]["n"], 3);
    eventually("each node knows who is at the other", async || {
        let stats = nodes.b.post("/api/presence_stats", KEY, &json!({"channel": "room:1"})).await.1;
        (stats["result"]["num_clients"] == 2).then_some(())
    })
    .await;
}
