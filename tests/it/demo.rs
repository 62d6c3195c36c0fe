//! `andon demo` from the bare binary: a page at once, live numbers soon after, and a restart that goes on.

use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use crate::support::{Node, andon};

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
    let sales_of_last_day = |n: &Node| {
        let rows = n.view("sales_by_day")?;
        rows.iter().find(|row| row["record_date"] == "2025-12-22").cloned()
    };
    let first = node.wait("the last day of the capture", sales_of_last_day);
    println!("demo: page after {page_seconds:.2} s, {} MB resident after a whole round", node.memory_mb());
    assert_eq!(node.stop(), Some(0), "a request to stop ends it in order");

    let node = demo(dir.path());
    let again = node.wait("the last day again", |n| sales_of_last_day(n).filter(|row| *row == first));
    assert_eq!(again, first);
    assert_eq!(node.stop(), Some(0));
}
