//! The whole way: a row changes in PostgreSQL, Debezium captures it, Kafka carries it, Andon keeps a view of it, and a
//! WebSocket client sees it.

use std::path::Path;
use std::time::Instant;

use dev_services::DevServices;
use serde_json::{Value, json};

use crate::support::{Client, Node, andon};

/// Folders of SQL files and a configuration that reads `shop.public.item` from Kafka.
fn write_config(dir: &Path, brokers: &str) -> String {
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("created");
        std::fs::write(path, text).expect("written");
    };
    write(
        "source/tables.sql",
        "CREATE TABLE item (id BIGINT NOT NULL, name STRING, quantity DECIMAL(12, 3), PRIMARY KEY (id) NOT ENFORCED)\n\
         WITH ('connector' = 'kafka', 'topic' = 'shop.public.item', 'format' = 'debezium-json');\n",
    );
    write(
        "views/stock.sql",
        "CREATE MATERIALIZED VIEW stock AS\nSELECT COUNT(*) AS items, SUM(quantity) AS quantity FROM item;\n",
    );
    let at = |name: &str| dir.join(name).display().to_string();
    write(
        "andon.toml",
        &format!(
            "[kafka]\nbrokers = {brokers:?}\n[source]\ndir = {:?}\n[views]\ndir = {:?}\n[rules]\nenabled = false\n\
             [state]\nlocation = {:?}\n[database]\nurl = {:?}\n[api]\nlisten = \"127.0.0.1:0\"\n[api.auth]\nmode = \"anonymous\"\n",
            at("source"),
            at("views"),
            at("state"),
            format!("sqlite:{}", at("alerts.db")),
        ),
    );
    at("andon.toml")
}

/// Reads publications until the only row of the view is `expected`.
async fn wait_for_row(client: &mut Client, snapshot: Option<Value>, expected: &Value) {
    let mut row = snapshot.map(|s| s["rows"][0].clone()).unwrap_or_default();
    while row != *expected {
        let (channel, data) = client.publication().await;
        assert_eq!(channel, "view:stock");
        row = data["changes"].as_array().and_then(|all| all.last()).map(|c| c["row"].clone()).unwrap_or_default();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_changed_in_postgresql_reaches_a_websocket_client() {
    let dir = tempfile::tempdir().expect("temp folder");
    let services = tokio::task::spawn_blocking(|| {
        let services = DevServices::start().expect("PostgreSQL, Kafka and Connect start");
        services
            .postgres
            .psql(
                "CREATE TABLE item (id bigint PRIMARY KEY, name text, quantity numeric(12,3)); \
                 INSERT INTO item VALUES (1, 'Zinnsoldat', 10.5), (2, 'Krippe', 2)",
            )
            .expect("SQL runs");
        let settings = ["decimal.handling.mode=string"];
        services.connect.add_postgres("shop", &services.postgres, "shop", &settings).expect("Debezium starts");
        services
    });
    let services = services.await.expect("services start");
    let config = write_config(dir.path(), services.kafka.brokers());
    let node = tokio::task::spawn_blocking(move || Node::start(andon().args(["serve", "--config", &config])));
    let node = node.await.expect("the node starts");
    let node = tokio::task::spawn_blocking(move || {
        node.wait("the view", |n| n.view("stock"));
        node
    });
    let node = node.await.expect("the view is there");

    let mut client = Client::connect(&node.address, None).await;
    let snapshot = client.subscribe("view:stock").await;
    wait_for_row(&mut client, Some(snapshot), &json!({"items": 2, "quantity": "12.500"})).await;

    let changed = Instant::now();
    services.postgres.psql("UPDATE item SET quantity = quantity + 0.125 WHERE id = 1").expect("SQL runs");
    wait_for_row(&mut client, None, &json!({"items": 2, "quantity": "12.625"})).await;
    println!("from the update in PostgreSQL to the client: {:.2} s", changed.elapsed().as_secs_f64());

    services.postgres.psql("DELETE FROM item WHERE id = 2").expect("SQL runs");
    wait_for_row(&mut client, None, &json!({"items": 1, "quantity": "10.625"})).await;
}
