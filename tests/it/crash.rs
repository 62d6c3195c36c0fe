//! kill -9 in the middle of a replay, start again: the same numbers as without.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::support::{Node, andon, capture, run};

/// Views that are compared: sales, orders, stock, production.
const VIEWS: [&str; 4] = ["sales_by_day", "open_order", "stock_by_item_and_location", "production_order_status"];
/// The process is killed when sales of so many days are there, of about 100 in the capture.
const DAYS_BEFORE_KILL: usize = 30;

fn serve(dir: &Path, speed: &str) -> Node {
    let config = dir.join("andon.toml");
    let text = format!(
        "[log]\ndir = {:?}\n[state]\nlocation = {:?}\n[database]\nurl = {:?}\n[engine]\nclock = \"stream\"\n[api]\nlisten = \"127.0.0.1:0\"\n\
         [api.auth]\nmode = \"anonymous\"\n",
        dir.join("log").display().to_string(),
        dir.join("state").display().to_string(),
        format!("sqlite:{}", dir.join("alerts.db").display()),
    );
    std::fs::write(&config, text).expect("written");
    Node::start(andon().args(["serve", "--config", &config.display().to_string()]).args([
        "--replay",
        &capture().display().to_string(),
        "--speed",
        speed,
    ]))
}

/// Rows as sorted JSON texts.
fn sorted(rows: &[Value]) -> Vec<String> {
    let mut rows: Vec<String> = rows.iter().map(Value::to_string).collect();
    rows.sort();
    rows
}

fn served(node: &Node) -> Option<BTreeMap<&'static str, Vec<String>>> {
    VIEWS.into_iter().map(|view| Some((view, sorted(&node.view(view)?)))).collect()
}

/// What a run that nobody disturbs says at the end of the capture.
fn undisturbed() -> BTreeMap<&'static str, Vec<String>> {
    let capture = capture().display().to_string();
    let rows = |view: &str| {
        let sql = format!("SELECT * FROM {view}");
        let (code, out, err) =
            run(andon().args(["query", "--source", "pyerp", "--replay", &capture, "--format", "json", &sql]));
        assert_eq!(code, 0, "{err}");
        let rows: Vec<Value> = serde_json::from_str(&out).expect("JSON");
        assert!(!rows.is_empty(), "{view} has rows");
        sorted(&rows)
    };
    VIEWS.into_iter().map(|view| (view, rows(view))).collect()
}

#[test]
fn killed_in_the_middle_of_a_replay_it_ends_with_the_same_numbers() {
    let expected = undisturbed();
    let dir = tempfile::tempdir().expect("temp folder");

    // The capture's twenty minutes in about eight seconds.
    let node = serve(dir.path(), "150");
    let days = node.wait("a month of sales", |n| {
        n.view("sales_by_day").map(|rows| rows.len()).filter(|days| *days >= DAYS_BEFORE_KILL)
    });
    assert!(days < expected["sales_by_day"].len(), "it is killed in the middle: {days} days");
    node.kill();

    // The second run replays from the start: what the log already has comes a second time.
    let node = serve(dir.path(), "max");
    let mut last = None;
    node.wait("the numbers of an undisturbed run", |n| {
        last = served(n);
        last.as_ref().filter(|found| **found == expected).map(drop)
    });
    assert_eq!(node.stop(), Some(0));
}
