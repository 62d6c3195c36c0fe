use std::fmt::Write;

use expect_test::{Expect, expect};
use model::SqlFile;

use super::parse_tables;

#[expect(clippy::needless_pass_by_value, reason = "expect! makes a value")]
fn check(text: &str, expected: Expect) {
    let file = SqlFile { path: "t.sql".to_owned(), text: text.to_owned() };
    let mut out = String::new();
    match parse_tables(&[file]) {
        Ok(tables) => {
            for t in tables {
                writeln!(out, "{} {:?} {:?} key {:?} at {}", t.name, t.topic, t.format, t.primary_key, t.declared_at)
                    .unwrap();
                for (field, digits) in t.schema.fields().iter().zip(&t.time_digits) {
                    let null = if field.is_nullable() { "" } else { " not null" };
                    writeln!(out, "  {} {}{null} {digits}", field.name(), field.data_type()).unwrap();
                }
                if let Some(e) = t.event_time {
                    writeln!(out, "  event time {} - {} us", e.column, e.delay_us).unwrap();
                }
            }
        }
        Err(errors) => errors.iter().for_each(|e| writeln!(out, "{e}").unwrap()),
    }
    expected.assert_eq(&out);
}

#[test]
fn every_type_and_clause() {
    check(
        "-- a comment; here
         CREATE TABLE IF NOT EXISTS orders (
           id BIGINT, `from` VARCHAR(20) NOT NULL COMMENT 'where', b BOOLEAN, s SMALLINT, t TINYINT, i INT,
           f FLOAT, d DOUBLE PRECISION, n DECIMAL(12, 2), n0 NUMERIC(5), day DATE, at TIME(3),
           ts TIMESTAMP(6) NOT NULL, lz TIMESTAMP_LTZ(3), lz2 TIMESTAMP(6) WITH LOCAL TIME ZONE, raw BYTES,
           tags ARRAY<STRING>, nested ARRAY<ARRAY<DECIMAL(10, 1)>>,
           PRIMARY KEY (id, `from`) NOT ENFORCED,
           WATERMARK FOR ts AS ts - INTERVAL '5' MINUTE
         ) WITH ('connector' = 'kafka', 'topic-pattern' = 'shop[0-9]+\\.orders', 'format' = 'debezium-json');
         CREATE VIEW v AS SELECT 1;
         CREATE TABLE plain (k STRING PRIMARY KEY NOT ENFORCED, v STRING)
         WITH ('connector'='kafka','topic'='plain','format'='json')",
        expect![[r#"
            orders Pattern("shop[0-9]+\\.orders") DebeziumJson key [0, 1] at t.sql:2
              id Int64 not null 0
              from Utf8 not null 0
              b Boolean 0
              s Int16 0
              t Int8 0
              i Int32 0
              f Float32 0
              d Float64 0
              n Decimal128(12, 2) 0
              n0 Decimal128(5, 0) 0
              day Date32 0
              at Time64(µs) 3
              ts Timestamp(µs) not null 6
              lz Timestamp(µs, "UTC") 3
              lz2 Timestamp(µs, "UTC") 6
              raw Binary 0
              tags List(Utf8) 0
              nested List(List(Decimal128(10, 1))) 0
              event time 12 - 300000000 us
            plain Name("plain") Json key [0] at t.sql:11
              k Utf8 not null 0
              v Utf8 0
        "#]],
    );
}

#[test]
fn computed_and_metadata_columns() {
    check(
        "CREATE TABLE line (id BIGINT PRIMARY KEY NOT ENFORCED, net DECIMAL(10, 2), at TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL,
           gross AS CAST(net * 1.19 AS DECIMAL(10, 2)) COMMENT 'with tax',
           `offset` BIGINT METADATA, part INT METADATA FROM 'partition', topic STRING METADATA,
           label AS 'it''s ' || topic, WATERMARK FOR at AS at)
         WITH ('connector' = 'kafka', 'topic' = 't', 'format' = 'json');",
        expect![[r#"
            line__physical Name("t") Json key [0] at t.sql:1
              id Int64 not null 0
              net Decimal128(10, 2) 0
              at Timestamp(µs, "UTC") 3
              offset Int64 0
              part Int32 0
              topic Utf8 0
              event time 2 - 0 us
        "#]],
    );
}

#[test]
fn computed_columns_are_a_view_whose_expressions_stand_where_they_were_written() {
    let text = "-- c\nCREATE TABLE line (\n  id BIGINT PRIMARY KEY NOT ENFORCED,\n  twice AS id * 2,\n  label AS 'it''s',\n  net INT)\n\
                WITH ('connector' = 'kafka', 'topic' = 't', 'format' = 'json');"
        .to_owned();
    let views = super::computed_views(&[SqlFile { path: "t.sql".to_owned(), text }]);
    assert_eq!(views.len(), 1);
    let lines: Vec<&str> = views[0].text.lines().collect();
    assert_eq!(lines[1].trim(), "CREATE VIEW `line` AS SELECT `id`,");
    assert_eq!(lines[3], "           id * 2 AS `twice`,");
    assert_eq!(lines[4], "           'it''s' AS `label`, `net` FROM `line__physical`");
}

#[test]
fn columns_that_cannot_be_computed_or_read() {
    for (columns, expected) in [
        ("id INT PRIMARY KEY NOT ENFORCED, p AS PROCTIME()", "there is no processing time here"),
        (
            "id INT PRIMARY KEY NOT ENFORCED, o INT METADATA FROM 'offset'",
            "metadata 'offset' cannot be read into this type",
        ),
        ("id INT PRIMARY KEY NOT ENFORCED, h STRING METADATA FROM 'headers'", "unknown metadata key 'headers'"),
        ("id INT PRIMARY KEY NOT ENFORCED, id AS 3", "column id is declared twice"),
        ("id INT PRIMARY KEY NOT ENFORCED, x AS", "expected the expression of column x"),
        ("id INT, k AS id, PRIMARY KEY (k) NOT ENFORCED", "computed column k cannot be a key"),
        ("id BIGINT METADATA FROM 'offset', PRIMARY KEY (id) NOT ENFORCED", "metadata column id cannot be a key"),
        ("x STRING, ts AS TO_TIMESTAMP(x), WATERMARK FOR ts AS ts", "the watermark is of ts, which is computed"),
    ] {
        let text = format!("CREATE TABLE t ({columns}) WITH ('connector' = 'kafka', 'topic' = 't', 'format' = 'json')");
        let errors = parse_tables(&[SqlFile { path: "t.sql".to_owned(), text }]).err().unwrap_or_default();
        assert!(errors.iter().any(|e| e.message.starts_with(expected)), "{columns}: {errors:?}");
    }
}

#[test]
fn all_mistakes_at_once_with_their_place() {
    check(
        "CREATE TABLE a (id BIGINT, x JSONB, m MAP<STRING, INT>, c AS id + 1, o BIGINT METADATA,
           d DECIMAL(50, 2), id INT, PRIMARY KEY (nope) NOT ENFORCED, WATERMARK FOR id AS id)
         WITH ('connector' = 'kafka', 'topic' = 't', 'format' = 'csv', 'scan.startup.mode' = 'earliest');
         CREATE TABLE b (id BIGINT) WITH ('connector' = 'kafka', 'topic-pattern' = '(', 'format' = 'json');
         CREATE TABLE c (id BIGINT, PRIMARY KEY (id)) WITH ('format' = 'json');
         CREATE TABLE d (id BIGINT PRIMARY KEY NOT ENFORCED)",
        expect![[r#"
            t.sql:1:30: unknown type JSONB
              help: declare it as STRING
            t.sql:1:39: type MAP is not supported yet
              help: declare a JSON column as STRING: it then holds the JSON text
            t.sql:1:79: unknown metadata key 'o'
              help: the keys are 'timestamp', 'offset', 'partition' and 'topic'
            t.sql:2:14: DECIMAL(50, 2) is out of range
              help: the precision is 1 to 38, the scale 0 to the precision
            t.sql:2:30: column id is declared twice
            t.sql:2:51: primary key column nope is not declared
              help: the columns are id, id
            t.sql:2:85: column id is no timestamp, so it cannot be the event time
              help: use a TIMESTAMP, TIMESTAMP_LTZ or DATE column
            t.sql:3:72: unknown option 'scan.startup.mode'
              help: leave it out: where Kafka is and where reading starts is said in the configuration
            t.sql:3:54: unknown format 'csv'
              help: the formats are 'debezium-json' and 'json'
            t.sql:4:66: 'topic-pattern' is no regular expression: regex parse error:
                ^(?:()$
                 ^
            error: unclosed group
            t.sql:5:53: the primary key lacks NOT ENFORCED, found )
              help: write PRIMARY KEY (…) NOT ENFORCED: the ERP's database enforces it
            t.sql:5:10: the WITH clause has no 'connector'
              help: add 'connector' = 'kafka'
            t.sql:5:10: the WITH clause has no 'topic' and no 'topic-pattern'
              help: add 'topic' = 'name', or a regular expression
            t.sql:6:60: expected WITH, found the end of the statement
              help: add WITH ('connector' = 'kafka', 'topic' = '…', 'format' = 'debezium-json')
        "#]],
    );
}

#[test]
fn ttl_wants_a_key_and_an_event_time() {
    let table = |columns: &str, ttl: &str| {
        format!("CREATE TABLE t ({columns}) WITH ('connector'='kafka','topic'='t','format'='json','ttl'='{ttl}')")
    };
    let whole = "id INT, ts TIMESTAMP(3), PRIMARY KEY (id) NOT ENFORCED, WATERMARK FOR ts AS ts";
    let ttl_us = |text: &str| {
        let file = SqlFile { path: "t.sql".to_owned(), text: text.to_owned() };
        parse_tables(&[file]).map(|t| t[0].ttl_us).map_err(|e| e[0].to_string())
    };
    assert_eq!(ttl_us(&table(whole, "90 days")), Ok(Some(90 * 86_400_000_000)));
    assert_eq!(ttl_us(&table(whole, "1 day 12 HOURS")), Ok(Some(36 * 3_600_000_000)));
    for (columns, ttl, message) in [
        (whole, "soon", "'soon' is no duration"),
        (whole, "0 days", "'0 days' is no duration"),
        ("id INT PRIMARY KEY NOT ENFORCED", "1 day", "'ttl' wants an event time"),
        ("ts TIMESTAMP(3), WATERMARK FOR ts AS ts", "1 day", "an append-only table keeps no rows, so it has no 'ttl'"),
    ] {
        assert!(ttl_us(&table(columns, ttl)).is_err_and(|e| e.contains(message)), "{columns} {ttl}");
    }
}
