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
  place STRING, at TIMESTAMP(3), WATERMARK FOR at AS at - INTERVAL '4' SECOND
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
        append: false,
        settings: vec![("parallelism.default".to_owned(), "4".to_owned())],
    }
}

fn set() -> SqlSet {
    let file = |path: &str, text: &str| vec![SqlFile { path: path.to_owned(), text: text.to_owned() }];
    SqlSet { source: file("tables.sql", SOURCE), views: file("views.sql", VIEWS), rules: Vec::new(), n_shards: 1 }
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
    check(
        &[],
        expect![[r#"
        -- Flink SQL, written by `andon flink`; run it with Flink's SQL client or gateway and the Kafka SQL connector.
        -- All times are in UTC, as Andon's are.
        SET 'execution.runtime-mode' = 'streaming';
        SET 'table.local-time-zone' = 'UTC';
        SET 'parallelism.default' = '4';

        -- ---- Sources

        -- tables.sql:2
        CREATE TABLE `orders__envelope` (
          `id` INT NOT NULL,
          `op` STRING,
          `after` ROW<
            `placed_on` STRING,
            `changed_at` STRING,
            `amount` DECIMAL(10, 2),
            `Group` STRING>,
          PRIMARY KEY (`id`) NOT ENFORCED
        ) WITH (
          'connector' = 'upsert-kafka',
          'topic-pattern' = '.+\.public\.orders',
          'properties.bootstrap.servers' = 'kafka:9092',
          'key.format' = 'json',
          'value.format' = 'json',
          'value.fields-include' = 'EXCEPT_KEY'
        );

        -- tables.sql:2
        CREATE VIEW `orders` AS
        SELECT
          `id`,
          CASE WHEN `after`.`placed_on` LIKE '____-__-__%' THEN CAST(SUBSTRING(`after`.`placed_on`, 1, 10) AS DATE) ELSE CAST(TIMESTAMPADD(DAY, CAST(`after`.`placed_on` AS INT), DATE '1970-01-01') AS DATE) END AS `placed_on`,
          CASE WHEN `after`.`changed_at` LIKE '____-__-__%' THEN CAST(REPLACE(REPLACE(`after`.`changed_at`, 'T', ' '), 'Z', '') AS TIMESTAMP(3)) ELSE CAST(CONCAT(FROM_UNIXTIME((CAST(`after`.`changed_at` AS BIGINT) - MOD(MOD(CAST(`after`.`changed_at` AS BIGINT), 1000) + 1000, 1000)) / 1000), '.', LPAD(CAST(MOD(MOD(CAST(`after`.`changed_at` AS BIGINT), 1000) + 1000, 1000) AS STRING), 3, '0')) AS TIMESTAMP(3)) END AS `changed_at`,
          `after`.`amount` AS `amount`,
          `after`.`Group` AS `Group`
        FROM `orders__envelope`
        WHERE `op` <> 'd';

        -- ---- Views

        -- views.sql:6
        CREATE VIEW `latest` AS
        SELECT id, changed_at FROM orders;

        -- views.sql:3
        CREATE VIEW `sold` AS
        SELECT id, placed_on, amount, `Group` AS kind FROM orders WHERE amount > 0;

        -- views.sql:4
        CREATE VIEW `by_day` AS
        SELECT placed_on, kind, COUNT(*) AS n, SUM(amount) AS total FROM sold GROUP BY placed_on, kind;

        -- ---- Sinks

        CREATE TABLE `latest__sink` (
          `id` INT NOT NULL,
          `changed_at` STRING,
          PRIMARY KEY (`id`) NOT ENFORCED
        ) WITH (
          'connector' = 'upsert-kafka',
          'topic' = 'andon.view.latest',
          'properties.bootstrap.servers' = 'kafka:9092',
          'key.format' = 'json',
          'value.format' = 'json',
          'value.json.encode.decimal-as-plain-number' = 'true'
        );

        CREATE TABLE `by_day__sink` (
          `__key` STRING NOT NULL,
          `placed_on` DATE,
          `kind` STRING,
          `n` BIGINT,
          `total` STRING,
          PRIMARY KEY (`__key`) NOT ENFORCED
        ) WITH (
          'connector' = 'upsert-kafka',
          'topic' = 'andon.view.by_day',
          'properties.bootstrap.servers' = 'kafka:9092',
          'key.format' = 'raw',
          'value.fields-include' = 'EXCEPT_KEY',
          'value.format' = 'json',
          'value.json.encode.decimal-as-plain-number' = 'true'
        );

        EXECUTE STATEMENT SET
        BEGIN

        INSERT INTO `latest__sink`
        SELECT
          CAST(`id` AS INT),
          DATE_FORMAT(CAST(`changed_at` AS TIMESTAMP(6)), 'yyyy-MM-dd''T''HH:mm:ss.SSSSSS')
        FROM `latest`;

        INSERT INTO `by_day__sink`
        SELECT
          CONCAT('{"placed_on":', COALESCE(JSON_STRING(CAST(CAST(`placed_on` AS DATE) AS STRING)), 'null'), ',"kind":', COALESCE(JSON_STRING(`kind`), 'null'), '}'),
          CAST(`placed_on` AS DATE),
          `kind`,
          CAST(`n` AS BIGINT),
          CAST(CAST(`total` AS DECIMAL(20, 2)) AS STRING)
        FROM `by_day`;

        END;

        -- ---- Left out, since Flink would not run it or would mean something else

        -- views.sql:10:8: Flink has no DATE_TRUNC
        --   help: write FLOOR(time TO HOUR)
        -- views.sql:8:1: n_today reads today, which is left out
        -- views.sql:7:73: CURRENT_DATE moves by itself in Andon only
        --   help: Flink reads the clock when a row comes, so rows would not come and go by time alone
    "#]],
    );
}

#[test]
fn a_view_that_is_asked_for_must_run() {
    check(
        &["n_today"],
        expect![[r#"
        error: views.sql:8:1: n_today reads today, which is left out
    "#]],
    );
    check(
        &["nobody"],
        expect![[r#"
        error: there is no kept view named "nobody"
    "#]],
    );
}

/// Every kept view of a shipped pack is either written or left out with a reason, and the reasons name places.
#[test]
fn nothing_of_the_shipped_packs_is_forgotten() {
    for (pack, written_min) in [("pyerp", 20), ("tryton", 10)] {
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
