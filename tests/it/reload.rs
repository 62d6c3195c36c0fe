//! SQL files that change while a node serves them.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Node, andon};

const TABLES: &str = "CREATE TABLE item (id BIGINT NOT NULL, name STRING, quantity BIGINT, at TIMESTAMP(3),
  PRIMARY KEY (id) NOT ENFORCED, WATERMARK FOR at AS at)
WITH ('connector' = 'kafka', 'topic' = 'shop.public.item', 'format' = 'debezium-json');\n";
const RULE: &str = "/*---\nname: low\nowner: purchasing\nseverity: high\nkey: [id]\ntitle: \"TITLE {{ name }}\"\n---*/\n\
                    SELECT id, name FROM item WHERE quantity < 3\n";

/// A node's folder.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().expect("temp folder"));
        folder.write("source/tables.sql", TABLES);
        folder.write("rules/low.sql", &RULE.replace("TITLE", "buy"));
        folder.write("views/stock.sql", "CREATE MATERIALIZED VIEW stock AS SELECT id, quantity FROM item;\n");
        let item = |id: i64| {
            json!({"topic": "shop.public.item", "partition": 0, "offset": id - 1, "timestamp": 1_760_000_000_000_i64 + id,
                "key": {"id": id}, "value": {"before": null, "op": "c", "ts_ms": 1_760_000_000_000_i64 + id,
                "after": {"id": id, "name": format!("item {id}"), "quantity": id, "at": 1_760_000_000_000_i64 + 1_000 * id}}})
            .to_string()
        };
        folder.write("capture/topics/item.ndjson", &(1..=5).map(|id| item(id) + "\n").collect::<String>());
        let at = |name: &str| folder.path(name).display().to_string();
        let text = format!(
            "[log]\ndir = {:?}\n[source]\ndir = {:?}\n[views]\ndir = {:?}\n[rules]\ndir = {:?}\n[state]\nlocation = {:?}\n\
             [database]\nurl = {:?}\n[engine]\nsql_poll_ms = 100\n[api]\nlisten = \"127.0.0.1:0\"\n\
             [api.auth]\nmode = \"anonymous\"\n",
            at("log"),
            at("source"),
            at("views"),
            at("rules"),
            at("state"),
            format!("sqlite:{}", at("alerts.db")),
        );
        folder.write("andon.toml", &text);
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("created");
        std::fs::write(path, text).expect("written");
    }

    fn serve(&self, capture: Option<&Path>) -> Node {
        let mut command = andon();
        command.args(["serve", "--config", &self.path("andon.toml").display().to_string()]);
        if let Some(capture) = capture {
            command.arg("--replay").arg(capture);
        }
        Node::start(&mut command)
    }
}

/// Values of a column, sorted.
fn column(node: &Node, view: &str, column: &str) -> Option<Vec<Value>> {
    let mut values: Vec<Value> = node.view(view)?.iter().map(|row| row[column].clone()).collect();
    values.sort_by_key(ToString::to_string);
    Some(values)
}

fn wait_for(node: &Node, view: &str, name: &str, expected: &[i64]) {
    let expected: Vec<Value> = expected.iter().map(|n| json!(n)).collect();
    node.wait(&format!("{view}.{name} = {expected:?}"), |n| column(n, view, name).filter(|values| *values == expected));
}

fn titles(node: &Node) -> Option<Vec<String>> {
    let (status, body) = node.get("/api/v1/alerts?state=firing")?;
    let body: Value = serde_json::from_str(&body).ok().filter(|_| status == 200)?;
    let mut titles: Vec<String> =
        body["alerts"].as_array()?.iter().filter_map(|a| Some(a["title"].as_str()?.to_owned())).collect();
    titles.sort();
    Some(titles)
}

#[test]
fn views_and_rules_follow_their_files_while_they_are_served() {
    let folder = Folder::new();
    let node = folder.serve(Some(&folder.path("capture")));
    wait_for(&node, "stock", "quantity", &[1, 2, 3, 4, 5]);
    node.wait("the alerts", |n| titles(n).filter(|t| *t == ["buy item 1", "buy item 2"]));

    // A view changes and another one is new: both are built in place.
    folder.write(
        "views/stock.sql",
        "CREATE MATERIALIZED VIEW stock AS SELECT id, quantity * 10 AS quantity FROM item;\n\
         CREATE MATERIALIZED VIEW total AS SELECT SUM(quantity) AS quantity FROM stock;\n",
    );
    wait_for(&node, "stock", "quantity", &[10, 20, 30, 40, 50]);
    node.wait("the new view", |n| n.view("total").filter(|rows| !rows.is_empty()));

    // A mistake changes nothing, and is seen in the metrics.
    let refused = |n: &Node| n.metric("andon_sql_refused");
    folder.write("views/total.sql", "CREATE MATERIALIZED VIEW broken AS SELECT nothing FROM item;\n");
    node.wait("the refusal", |n| refused(n).filter(|v| *v == 1));
    wait_for(&node, "stock", "quantity", &[10, 20, 30, 40, 50]);
    std::fs::remove_file(folder.path("views/total.sql")).expect("removed");
    node.wait("the files to be right", |n| refused(n).filter(|v| *v == 0));

    // What keeps state that the tables' rows do not give needs a start, which the node makes by itself.
    folder.write(
        "views/late.sql",
        "CREATE MATERIALIZED VIEW closed AS SELECT window_end, COUNT(*) AS n\n\
         FROM TABLE(TUMBLE(TABLE item, DESCRIPTOR(at), INTERVAL '2' SECOND)) GROUP BY window_end EMIT ON WINDOW CLOSE;\n",
    );
    node.wait("the view that closes", |n| n.view("closed").filter(|rows| !rows.is_empty()));
    wait_for(&node, "stock", "quantity", &[10, 20, 30, 40, 50]);

    // A rule says the same in other words, then another thing.
    folder.write("rules/low.sql", &RULE.replace("TITLE", "order"));
    folder.write("views/stock.sql", "CREATE MATERIALIZED VIEW stock AS SELECT id, quantity FROM item;\n");
    wait_for(&node, "stock", "quantity", &[1, 2, 3, 4, 5]);
    folder.write("rules/low.sql", &RULE.replace("TITLE", "order").replace("< 3", "< 4"));
    node.wait("another alert", |n| titles(n).filter(|t| t.contains(&"order item 3".to_owned())));

    // After a start everything is as it was.
    assert_eq!(node.stop(), Some(0));
    let node = folder.serve(None);
    wait_for(&node, "stock", "quantity", &[1, 2, 3, 4, 5]);
    node.wait("the alerts", |n| titles(n).filter(|t| t.len() == 3));
}

#[test]
fn sighup_makes_a_node_look_at_its_files() {
    let folder = Folder::new();
    let text = std::fs::read_to_string(folder.path("andon.toml")).expect("readable");
    folder.write("andon.toml", &text.replace("sql_poll_ms = 100", "sql_poll_ms = 0"));
    let node = folder.serve(Some(&folder.path("capture")));
    wait_for(&node, "stock", "quantity", &[1, 2, 3, 4, 5]);
    folder.write("views/stock.sql", "CREATE MATERIALIZED VIEW stock AS SELECT id, -quantity AS quantity FROM item;\n");
    let pid = node.child.id().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().expect("kill runs").success());
    wait_for(&node, "stock", "quantity", &[-1, -2, -3, -4, -5]);
    assert_eq!(node.stop(), Some(0));
}
