//! `andon demo` from the bare binary: a page at once, live numbers soon after, and a restart that goes on.

use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use crate::support::{Node, andon, capture, run};

fn demo(dir: &Path) -> Node {
    // The binary needs nothing from the repository.
    Node::start(
        andon()
            .current_dir(dir)
            .args(["demo", "--listen", "127.0.0.1:0", "--speed", "max", "--rounds", "1"])
            .args(["--data-dir", &dir.join("data").display().to_string()]),
    )
}

/// The demo's mode gives everybody a token.
fn session(node: &Node) -> Option<Value> {
    let (status, body) = node.get("/api/v1/session")?;
    serde_json::from_str(&body).ok().filter(|_| status == 200)
}

fn records_read(node: &Node) -> Option<u64> {
    node.metric("pipelines_records_total")
}

/// The last day of the capture, as a plain run says.
fn sales_of_last_day() -> Value {
    let sql = "SELECT * FROM sales_by_day WHERE record_date = DATE '2025-12-22'";
    let capture = capture().display().to_string();
    let (code, out, err) =
        run(andon().args(["query", "--source", "pyerp", "--replay", &capture, "--format", "json", sql]));
    assert_eq!(code, 0, "{err}");
    serde_json::from_str::<Vec<Value>>(&out).expect("JSON").pop().expect("one row")
}

#[test]
fn the_demo_serves_a_page_and_live_numbers_and_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().expect("temp folder");
    let started = Instant::now();
    let node = demo(dir.path());
    let (status, page) = node.wait("the page", |n| n.get("/"));
    let page_seconds = started.elapsed().as_secs_f64();
    assert_eq!(status, 200);
    assert!(page.contains("<html"), "{page}");
    assert_eq!(node.get("/healthz").map(|(status, _)| status), Some(200));
    node.wait("readiness", |n| n.get("/readyz").filter(|(status, _)| *status == 200));
    assert_eq!(session(&node).expect("a session")["mode"], "demo");
    let expected = sales_of_last_day();
    let is_there = |n: &Node| n.view("sales_by_day")?.contains(&expected).then_some(());
    node.wait("the last day of the capture", is_there);
    let of_one_round = node.wait("its metrics", records_read);
    println!("demo: page after {page_seconds:.2} s, {} MB resident after a whole round", node.memory_mb());
    assert_eq!(node.stop(), Some(0), "a request to stop ends it in order");

    // It goes on from its stored state, empties the tables, and replays a second round.
    let node = demo(dir.path());
    node.wait("a second round", |n| records_read(n).filter(|read| *read >= of_one_round));
    node.wait("the last day again", is_there);
    assert_eq!(node.stop(), Some(0));
}
