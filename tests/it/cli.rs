//! The command line: what it prints, where, and with which exit code.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

use expect_test::{Expect, expect};
use flate2::read::GzDecoder;
use ingest::log::{LocalLog, LocalLogOptions};
use model::Log;
use tempfile::TempDir;

use crate::support::{andon, capture, run};

/// A source pack of one table, its capture of four records, and one view.
fn small() -> TempDir {
    let dir = tempfile::tempdir().expect("temp folder");
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("created");
        std::fs::write(path, text).expect("written");
    };
    write(
        "source/tables.sql",
        "CREATE TABLE item (\n  id BIGINT NOT NULL,\n  name STRING,\n  price DECIMAL(10, 2),\n  active BOOLEAN,\n  \
         changed TIMESTAMP_LTZ(6),\n  PRIMARY KEY (id) NOT ENFORCED\n) WITH ('connector' = 'kafka', 'topic' = \
         's.item', 'format' = 'debezium-json');\n",
    );
    write(
        "views/items.sql",
        "-- Items with their price.\nCREATE MATERIALIZED VIEW items WITH ('key' = 'id') AS\nSELECT id, name, price, \
         active, changed FROM item WHERE id > 0;\nCREATE MATERIALIZED VIEW totals AS\nSELECT COUNT(*) AS n, SUM(price) AS price \
         FROM item;\n",
    );
    let record = |offset: i64, id: i64, value: &str| {
        format!(
            r#"{{"topic":"s.item","partition":0,"offset":{offset},"timestamp":{offset},"key":{{"id":{id}}},"value":{value}}}"#
        )
    };
    let create = |id: i64, name: &str, price: &str, lsn: i64| {
        format!(
            r#"{{"before":null,"after":{{"id":{id},"name":{name},"price":{price},"active":true,"changed":"2025-10-01T05:00:00.25Z"}},"source":{{"lsn":{lsn}}},"op":"c"}}"#
        )
    };
    let lines = [
        record(0, 1, &create(1, r#""a, \"b\"""#, r#""1.50""#, 10)),
        record(1, 2, &create(2, "null", r#""2.25""#, 20)),
        record(2, 3, &create(3, r#""""#, "null", 30)),
        record(3, 2, "null"),
    ];
    write("capture/s.item.ndjson", &(lines.join("\n") + "\n"));
    write("half.json", r#"{"s.item": {"0": 2}}"#);
    dir
}

fn query(dir: &Path, more: &[&str]) -> (i32, String, String) {
    let at = |name: &str| dir.join(name).display().to_string();
    run(andon()
        .args(["query", "--source", &at("source"), "--views", &at("views"), "--replay", &at("capture")])
        .args(more))
}

#[expect(clippy::needless_pass_by_value, reason = "expect! makes a value")]
fn check_query(more: &[&str], expected: Expect) {
    let dir = small();
    let (code, out, err) = query(dir.path(), more);
    assert_eq!(code, 0, "{err}");
    expected.assert_eq(&out);
}

const ITEMS: &str = "SELECT * FROM items ORDER BY id";

#[test]
fn query_prints_csv() {
    check_query(
        &[ITEMS],
        expect![[r#"
        id,name,price,active,changed
        1,"a, ""b""",1.50,true,2025-10-01T05:00:00.250Z
        3,"",,true,2025-10-01T05:00:00.250Z
    "#]],
    );
}

#[test]
fn query_prints_json() {
    check_query(
        &["--format", "json", ITEMS],
        expect![[r#"
        [
        {"id":1,"name":"a, \"b\"","price":"1.50","active":true,"changed":"2025-10-01T05:00:00.250000Z"},
        {"id":3,"name":"","price":null,"active":true,"changed":"2025-10-01T05:00:00.250000Z"}
        ]
    "#]],
    );
}

#[test]
fn query_prints_a_table() {
    check_query(
        &["--format", "table", "SELECT * FROM totals"],
        expect![[r#"
        +---+-------+
        | n | price |
        +---+-------+
        | 2 | 1.50  |
        +---+-------+
    "#]],
    );
}

#[test]
fn query_stops_at_the_given_offsets_and_time() {
    let dir = small();
    let upto = dir.path().join("half.json").display().to_string();
    let sql = "SELECT n, price, CURRENT_TIMESTAMP AS now FROM totals";
    let (code, out, err) = query(dir.path(), &["--upto", &upto, "--now", "2025-10-14T18:00:00Z", sql]);
    assert_eq!(code, 0, "{err}");
    expect![[r#"
        n,price,now
        2,3.75,2025-10-14T18:00:00Z
    "#]]
    .assert_eq(&out);
}

#[test]
fn query_answers_a_folder_of_files() {
    let dir = small();
    let queries = dir.path().join("queries");
    std::fs::create_dir(&queries).expect("created");
    std::fs::write(queries.join("one.sql"), "-- comment\nSELECT n FROM totals;\n").expect("written");
    std::fs::write(queries.join("two.sql"), "SELECT price FROM totals").expect("written");
    let out = dir.path().join("out");
    let at = |path: &Path| path.display().to_string();
    let (code, printed, err) = query(dir.path(), &["--queries", &at(&queries), "--out", &at(&out)]);
    assert_eq!((code, printed.as_str()), (0, ""), "{err}");
    let read = |name: &str| std::fs::read_to_string(out.join(name)).expect("there");
    assert_eq!((read("one.csv").as_str(), read("two.csv").as_str()), ("n\n2\n", "price\n1.50\n"));
}

#[test]
fn a_wrong_statement_is_exit_code_1_and_stdout_stays_empty() {
    let dir = small();
    let (code, out, err) = query(dir.path(), &["SELECT nothing FROM totals"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("nothing"), "{err}");
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    let dir = small();
    for wrong in [vec![], vec!["--queries", "x"], vec!["--now", "yesterday", ITEMS]] {
        assert_eq!(query(dir.path(), &wrong).0, 2, "{wrong:?}");
    }
    let (code, _, err) = run(andon().args(["check", "--source", "nav"]));
    assert_eq!(code, 2);
    assert!(err.contains("shipped packs: pyerp, tryton"), "{err}");
}

#[test]
fn a_broken_capture_is_named_with_its_line() {
    let dir = small();
    let path = dir.path().join("capture/s.item.ndjson");
    std::fs::write(&path, "{\"topic\":\"s.item\",\"partition\":0,\"offset\":0,\"timestamp\":0,\"key\":null\n")
        .expect("written");
    let (code, out, err) = query(dir.path(), &[ITEMS]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("s.item.ndjson:1"), "{err}");
}

#[test]
fn check_names_every_mistake_with_its_place() {
    let dir = small();
    let views = dir.path().join("views");
    std::fs::write(views.join("a.sql"), "CREATE MATERIALIZED VIEW a AS\nSELECT pric FROM item;\n").expect("written");
    std::fs::write(views.join("b.sql"), "CREATE MATERIALIZED VIEW b AS\nSELECT id\nFROM itm;\n").expect("written");
    let at = |path: &Path| path.display().to_string();
    let (code, out, err) =
        run(andon().args(["check", "--source", &at(&dir.path().join("source")), "--views", &at(&views)]));
    assert_eq!((code, out.as_str()), (1, ""));
    let text = err.replace(&at(dir.path()), "DIR");
    expect![[r#"
        error: DIR/views/a.sql:2:8: No field named pric. Did you mean 'item.price'?
        Valid fields are item.id, item.name, item.price, item.active, item.changed.
        DIR/views/b.sql:3:6: table 'itm' not found
    "#]]
    .assert_eq(&text);
}

#[test]
fn check_warns_about_what_flink_would_not_run() {
    let dir = small();
    let at = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(
        dir.path().join("views/w.sql"),
        "CREATE MATERIALIZED VIEW w AS\nSELECT id::STRING AS s FROM item;\n",
    )
    .expect("written");
    let check =
        |more: &[&str]| run(andon().args(["check", "--source", &at("source"), "--views", &at("views")]).args(more));
    let warning = "views/w.sql:2:8: Flink has no ::";
    let (code, _, err) = check(&[]);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("warning: ") && err.contains(warning), "{err}");
    let (code, _, err) = check(&["--deny-warnings"]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("error: ") && err.contains(warning), "{err}");
}

#[test]
fn check_explains_how_each_view_is_kept() {
    let dir = small();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (code, out, err) =
        run(andon().args(["check", "--explain", "--source", &at("source"), "--views", &at("views")]));
    assert_eq!(code, 0, "{err}");
    expect![[r#"
        source: 1 tables, 2 views and rules, no problem
          items   incremental
              items (key: id; incremental)
              filter item.id > Int64(0)
                source item
          totals  incremental
              totals (key: one row; incremental)
              project count(Int64(1)) AS count(*) AS n, sum(item.price) AS price
                aggregate count(Int64(1)), sum(item.price) by ()
                  columns Int64(1), item.price
                    columns price
                      source item
    "#]]
    .assert_eq(&out.replace(&at("source"), "source"));
}

#[test]
fn the_shipped_files_are_right() {
    let (code, out, err) = run(andon().arg("check"));
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("pyerp:") && out.contains("tryton:"), "{out}");
}

#[test]
fn check_lists_every_problem_of_a_configuration() {
    let dir = tempfile::tempdir().expect("temp folder");
    let path = dir.path().join("andon.toml");
    std::fs::write(&path, "[api]\nlisten = \"here\"\n[source]\npack = \"nav\"\n[kafak]\n").expect("written");
    let (code, _, err) = run(andon().args(["check", "--config", &path.display().to_string()]));
    assert_eq!(code, 2);
    assert!(err.contains("[kafak]"), "{err}");
    std::fs::write(&path, "[api]\nlisten = \"here\"\n[source]\npack = \"nav\"\n").expect("written");
    let (code, _, err) = run(andon().args(["check", "--config", &path.display().to_string()]));
    assert_eq!(code, 2);
    for expected in ["api.listen", "source.pack"] {
        assert!(err.contains(expected), "{expected} in {err}");
    }
}

#[tokio::test]
async fn replay_fills_a_local_log_with_every_record_of_the_capture() {
    let dir = tempfile::tempdir().expect("temp folder");
    let log = dir.path().join("log").display().to_string();
    let capture = capture().display().to_string();
    let (code, out, err) = run(andon().args(["replay", &capture, "--log-dir", &log]));
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("35 topics"), "{out}");
    let log = LocalLog::open(&log, LocalLogOptions::default()).expect("nobody has it open");
    for (topic, n_lines) in lines_by_topic(Path::new(&capture)) {
        let partitions = log.offsets(&topic).await.expect("the log answers");
        assert_eq!(partitions.iter().map(|p| p.end - p.earliest).sum::<i64>(), n_lines, "{topic}");
    }
}

/// How many records a capture has of each topic.
fn lines_by_topic(capture: &Path) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for entry in std::fs::read_dir(capture.join("topics")).expect("the capture is there") {
        let path = entry.expect("readable").path();
        let file = std::fs::File::open(&path).expect("readable");
        for line in BufReader::new(GzDecoder::new(file)).lines() {
            let record: serde_json::Value = serde_json::from_str(&line.expect("text")).expect("JSON");
            *counts.entry(record["topic"].as_str().expect("a topic").to_owned()).or_default() += 1;
        }
    }
    counts
}
