//! `andon flink`: the script it writes, and what it leaves out.

use andon::flink::{FlinkOptions, script};
use andon::program::{RuleChoice, SqlSet};
use expect_test::{Expect, expect};
use model::SqlFile;

const SOURCE: &str = "
CREATE TABLE orders (
  id INT NOT NULL, placed_on DATE, changed_at TIMESTAMP(3), amount DECIMAL(10, 2), \"Group\" STRING,
  PRIMARY KEY (id) NOT ENFORCED
) WITH ('connector' = 'kafka', 'topic-pattern' = '.+\\.public\\.orders', 'format' = 'debezium-json');
CREATE TABLE scan (
  place STRING, at TIMESTAMP(3), WATERMARK FOR at AS at - INTERVAL '1500' MILLISECOND
) WITH ('connector' = 'kafka', 'topic' = 'scans', 'format' = 'json');
CREATE TABLE rate (
  currency STRING, value DOUBLE, PRIMARY KEY (currency) NOT ENFORCED
) WITH ('connector' = 'kafka', 'topic' = 'rates', 'format' = 'json');";

const VIEWS: &str = "
-- All that matters of an order.
CREATE VIEW sold AS SELECT id, placed_on, amount, \"Group\" AS kind FROM orders WHERE amount > 0;
CREATE MATERIALIZED VIEW by_day AS
SELECT placed_on, kind, COUNT(*) AS n, SUM(amount) AS total FROM sold GROUP BY placed_on, kind;
CREATE MATERIALIZED VIEW latest WITH ('key' = 'id') AS SELECT id, changed_at FROM orders;
CREATE MATERIALIZED VIEW today AS SELECT id FROM sold WHERE placed_on = CURRENT_DATE;
CREATE MATERIALIZED VIEW n_today AS SELECT COUNT(*) AS n FROM today;
CREATE MATERIALIZED VIEW months AS
SELECT date_trunc('month', placed_on) AS month, COUNT(*) AS n FROM sold GROUP BY date_trunc('month', placed_on);";

fn options() -> FlinkOptions {
    FlinkOptions {
        brokers: "kafka:9092".to_owned(),
        topic_prefix: "andon.view.".to_owned(),
        bounded: false,
        settings: vec![("parallelism.default".to_owned(), "4".to_owned())],
    }
}

fn set() -> SqlSet {
    let file = |path: &str, text: &str| vec![SqlFile { path: path.to_owned(), text: text.to_owned() }];
    SqlSet { source: file("tables.sql", SOURCE), views: file("views.sql", VIEWS), rules: Vec::new() }
}

#[expect(clippy::needless_pass_by_value, reason = "expect! makes a value")]
fn check(only: &[&str], expected: Expect) {
    let set = set();
    let planned = set.plan().expect("plans");
    let only: Vec<String> = only.iter().map(|s| (*s).to_owned()).collect();
    let text = match script(&set, &planned, &options(), &only) {
        Ok(text) => text,
        Err(error) => format!("error: {}\n", error.chain()),
    };
    expected.assert_eq(&text);
}

#[test]
fn the_whole_script() {
    check(&[], expect![[r#""#]]);
}

#[test]
fn a_view_that_is_asked_for_must_run() {
    check(&["n_today"], expect![[r#""#]]);
    check(&["nobody"], expect![[r#""#]]);
}

/// Every kept view of a shipped pack is either written or left out with a reason, and the reasons name places.
#[test]
fn nothing_of_the_shipped_packs_is_forgotten() {
    for (pack, written_min) in [("pyerp", 20), ("tryton", 20)] {
        let set = SqlSet::new(pack, None, RuleChoice::None).expect("shipped");
        let planned = set.plan().expect("plans");
        let text = script(&set, &planned, &options(), &[]).expect("a script");
        let (written, left_out) = text.split_once("-- ---- Left out").expect("some are left out");
        let mut n_written = 0;
        for view in planned.program.views() {
            let is_written = written.contains(&format!("INSERT INTO `{}__sink`", view.name));
            n_written += usize::from(is_written);
            let file = &["CREATE VIEW `", view.name.as_str(), "` AS"].concat();
            assert_eq!(is_written, written.contains(file), "{pack}: {}", view.name);
        }
        assert!(n_written >= written_min, "{pack}: {n_written} views are written");
        let reasons = left_out.lines().filter(|l| l.starts_with("-- ") && !l.starts_with("--   help")).count();
        let n_views = planned.program.views().len();
        assert!(n_written + reasons >= n_views, "{pack}: {n_written} written, {reasons} reasons, {n_views} views");
    }
}
