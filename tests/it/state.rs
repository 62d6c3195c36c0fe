//! State that outlives the process: `query --state` in several runs, `plan`, and a standby that takes over.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dev_services::{Kafka, S3};
use serde_json::Value;

use crate::support::{Node, PATIENCE, andon, capture, run};

/// Views of every kind: sums by day, joins, what depends on the time.
const VIEWS: [&str; 5] =
    ["sales_by_day", "open_order", "stock_by_item_and_location", "production_order_status", "kpi_open_orders"];

/// Rows of the views at a checkpoint of the capture, sorted.
fn asked(upto: &Path, state: Option<&Path>, environment: &[(&str, &str)]) -> Vec<Vec<String>> {
    let queries = tempfile::tempdir().expect("temp folder");
    let out = tempfile::tempdir().expect("temp folder");
    for view in VIEWS {
        std::fs::write(queries.path().join(format!("{view}.sql")), format!("SELECT * FROM {view}")).expect("written");
    }
    let mut command = andon();
    command.args(["query", "--source", "pyerp", "--replay"]).arg(capture()).arg("--upto").arg(upto);
    command.arg("--queries").arg(queries.path()).arg("--out").arg(out.path());
    if let Some(dir) = state {
        command.arg("--state").arg(dir);
    }
    command.envs(environment.iter().copied());
    let (code, _, err) = run(&mut command);
    assert_eq!(code, 0, "{err}");
    let rows = |view: &str| {
        let text = std::fs::read_to_string(out.path().join(format!("{view}.csv"))).expect("the result is there");
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    VIEWS.into_iter().map(rows).collect()
}

/// Where the capture can be stopped, in order.
fn stops() -> Vec<PathBuf> {
    let mut checkpoints: Vec<_> = std::fs::read_dir(capture().join("truth"))
        .expect("the capture has checkpoints")
        .map(|entry| entry.expect("readable").path().join("checkpoint.json"))
        .filter(|path| path.exists())
        .collect();
    checkpoints.sort();
    assert!(checkpoints.len() >= 3, "{checkpoints:?}");
    [0, checkpoints.len() / 2, checkpoints.len() - 1].map(|i| checkpoints[i].clone()).to_vec()
}

#[test]
fn a_query_goes_on_from_its_state_and_says_the_same_as_one_that_reads_everything() {
    let dir = tempfile::tempdir().expect("temp folder");
    let state = dir.path().join("state");
    let checkpoints = stops();
    for upto in &checkpoints {
        assert_eq!(asked(upto, Some(&state), &[]), asked(upto, None, &[]), "at {}", upto.display());
    }
    // Back in time there is no way.
    let mut command = andon();
    command.args(["query", "--source", "pyerp", "--replay"]).arg(capture()).arg("--upto").arg(&checkpoints[0]);
    let (code, _, err) = run(command.arg("--state").arg(&state).arg("SELECT 1"));
    assert_ne!(code, 0);
    assert!(err.contains("it cannot go back"), "{err}");
}

#[test]
fn state_lies_in_an_object_store_and_a_missing_bucket_is_named() {
    let s3 = S3::start("andon-state").expect("the S3 server starts");
    let environment = s3.environment();
    for upto in &stops()[1..] {
        let found = asked(upto, Some(Path::new("s3://andon-state/node")), &environment);
        assert_eq!(found, asked(upto, None, &[]), "at {}", upto.display());
    }
    let mut command = andon();
    command.args(["query", "--source", "pyerp", "--replay"]).arg(capture()).envs(environment);
    let (code, _, err) = run(command.args(["--state", "s3://no-such-bucket/node", "SELECT 1"]));
    assert_ne!(code, 0);
    assert!(err.contains("s3://no-such-bucket/node cannot be opened"), "{err}");
}

/// Two nodes share a broker and a folder of state.
fn write_config(dir: &Path, name: &str, brokers: &str) -> String {
    let path = dir.join(format!("{name}.toml"));
    let text = format!(
        "[kafka]\nbrokers = {brokers:?}\n[state]\nlocation = {:?}\n[database]\nurl = {:?}\n[engine]\nclock = \"stream\"\n\
         [api]\nlisten = \"127.0.0.1:0\"\n[api.auth]\nmode = \"anonymous\"\n",
        dir.join("state").display().to_string(),
        format!("sqlite:{}", dir.join(format!("{name}.db")).display()),
    );
    std::fs::write(&path, text).expect("written");
    path.display().to_string()
}

fn plan(config: &str) -> String {
    let (code, out, err) = run(andon().args(["plan", "--config", config]));
    assert_eq!(code, 0, "{err}");
    out
}

fn sales(node: &Node) -> Option<Vec<String>> {
    let mut rows: Vec<String> = node.view("sales_by_day")?.iter().map(Value::to_string).collect();
    rows.sort();
    Some(rows)
}

/// What a run that nobody disturbs says at the end of the capture.
fn undisturbed(capture: &str) -> Vec<String> {
    let sql = "SELECT * FROM sales_by_day";
    let (code, out, err) =
        run(andon().args(["query", "--source", "pyerp", "--replay", capture, "--format", "json", sql]));
    assert_eq!(code, 0, "{err}");
    let rows: Vec<Value> = serde_json::from_str(&out).expect("JSON");
    let mut rows: Vec<String> = rows.iter().map(Value::to_string).collect();
    rows.sort();
    rows
}

#[test]
fn a_standby_takes_over_from_the_stored_state_when_the_first_node_is_killed() {
    let dir = tempfile::tempdir().expect("temp folder");
    let kafka = Kafka::start().expect("Kafka starts");
    let config = write_config(dir.path(), "first", kafka.brokers());
    assert!(plan(&config).contains("Nothing is stored"));
    let first = Node::start(andon().args(["serve", "--config", &config]));
    first.wait("the first node's views", |n| n.get("/readyz").filter(|(status, _)| *status == 200));

    let second_config = write_config(dir.path(), "second", kafka.brokers());
    let mut standby = Node::start(andon().args(["serve", "--standby", "--config", &second_config]));
    let capture = capture().display().to_string();
    let (code, _, err) = run(andon().args(["replay", &capture, "--brokers", kafka.brokers()]));
    assert_eq!(code, 0, "{err}");
    // The standby's page shows what the first one publishes.
    let expected = undisturbed(&capture);
    standby.wait("all sales", |n| sales(n).filter(|rows| *rows == expected));
    let epoch = |n: &Node| n.metric("pipelines_checkpoint_epoch");
    first.wait("a checkpoint", epoch);
    assert_eq!(epoch(&standby), None, "a standby keeps no views");
    let text = plan(&config);
    assert!(text.contains("0 rebuilt, 0 added, 0 dropped"), "{text}");

    first.kill();
    let killed = Instant::now();
    standby.wait("a checkpoint of the standby", epoch);
    println!("taken over after {:.1} s", killed.elapsed().as_secs_f64());
    standby.wait("its views", |n| sales(n).filter(|rows| *rows == expected));
    assert!(standby.child.try_wait().expect("it can be asked").is_none(), "it goes on running");

    // A third one that does not stand by fences the second, which ends with a message.
    let third_config = write_config(dir.path(), "third", kafka.brokers());
    let third = Node::start(andon().args(["serve", "--config", &third_config]));
    third.wait("a checkpoint of the third", epoch);
    let waiting = Instant::now();
    while standby.child.try_wait().expect("it can be asked").is_none() {
        assert!(waiting.elapsed() < PATIENCE, "the fenced node ends");
        std::thread::park_timeout(Duration::from_millis(50));
    }
    third.wait("its views", |n| sales(n).filter(|rows| *rows == expected));
}
