use std::fmt::Write;
use std::sync::Arc;

use arrow::util::pretty::pretty_format_batches;
use bytes::Bytes;
use expect_test::{Expect, expect};
use model::{Record, SourceTable, SqlFile};

use super::{Changes, Decoder};
use crate::table::TableState;

fn table(columns: &str, format: &str) -> SourceTable {
    let text = format!("CREATE TABLE t ({columns}) WITH ('connector' = 'kafka', 'topic' = 't', 'format' = '{format}')");
    crate::ddl::parse_tables(&[SqlFile { path: "t.sql".to_owned(), text }]).unwrap().remove(0)
}

/// Decodes records given as `(key, value)`, an empty text being none, and shows what was refused and what is left.
fn check(table: &SourceTable, records: &[(&str, &str)], expected: Expect) {
    let (mut decoder, mut changes) = (Decoder::new(table, 4_000), Changes::new(&table.schema));
    let bytes = |text: &str| (!text.is_empty()).then(|| Bytes::copy_from_slice(text.as_bytes()));
    let mut out = String::new();
    for (i, (key, value)) in records.iter().enumerate() {
        let offset = i64::try_from(i).unwrap();
        let timestamp_ms = 1_700_000_000_000 + offset;
        let record = Record { offset, timestamp_ms, key: bytes(key), value: bytes(value), headers: Vec::new() };
        if let Err(e) = decoder.decode(&Arc::from("t"), 0, &record, &mut changes) {
            writeln!(out, "{i} {}: {e}", e.class()).unwrap();
        }
        assert!(changes.columns.iter().all(|c| c.len() == changes.len()), "a refused record leaves nothing");
    }
    let mut state = TableState::new(table);
    for (origin, e) in state.apply(&mut changes, i64::MAX).unwrap().refused {
        writeln!(out, "{} {}: {e}", origin.topic, e.class()).unwrap();
    }
    write!(out, "{}", pretty_format_batches(&[state.rows().unwrap()]).unwrap()).unwrap();
    expected.assert_eq(&out);
}

#[test]
fn metadata_columns_come_from_the_record() {
    let columns = "id INT PRIMARY KEY NOT ENFORCED, at TIMESTAMP_LTZ(3) METADATA FROM 'timestamp', `offset` BIGINT METADATA, \
                   part INT METADATA FROM 'partition', topic STRING METADATA, n STRING";
    let records =
        [("", r#"{"id":1,"n":"a","offset":77,"topic":"x"}"#), ("", r#"{"id":2,"n":"b"}"#), ("", r#"{"id":1,"n":"c"}"#)];
    check(
        &table(columns, "json"),
        &records,
        expect![[r#"
        +----+--------------------------+--------+------+-------+---+
        | id | at                       | offset | part | topic | n |
        +----+--------------------------+--------+------+-------+---+
        | 1  | 2023-11-14T22:13:20.002Z | 2      | 0    | t     | c |
        | 2  | 2023-11-14T22:13:20.001Z | 1      | 0    | t     | b |
        +----+--------------------------+--------+------+-------+---+"#]],
    );
}

#[test]
fn every_form_of_a_record_is_told_apart() {
    let t = table("id INT, n STRING, op STRING, PRIMARY KEY (id) NOT ENFORCED", "debezium-json");
    let key_schema = r#""schema":{"type":"struct","fields":[{"type":"int32","field":"id"}]}"#;
    let wrapped_key = |id: i32| format!(r#"{{{key_schema},"payload":{{"id":{id}}}}}"#);
    let upserts = [
        ("", r#"{"before":null,"after":{"id":1,"n":"envelope"},"source":{"lsn":1},"op":"c"}"#),
        ("", r#" { "op" : "r" , "after" : { "n" : "other order" , "new" : [ {} ] , "id" : 2 } } "#),
        ("", r#"{"schema":{"type":"struct"},"payload":{"after":{"id":3,"n":"wrapped"},"op":"c","before":null}}"#),
        ("", r#"{"id":4,"n":"flat","__op":"u","__deleted":"false","__source_lsn":7}"#),
        ("", r#"{"schema":{"type":"struct"},"payload":{"id":5,"n":"wrapped flat","op":"x"}}"#),
        ("", r#"{"id":6,"n":"plain"}"#),
        (r#"{"id":7}"#, r#"{"n":"key only in the key"}"#),
    ];
    check(
        &t,
        &upserts,
        expect![[r#"
        +----+---------------------+----+
        | id | n                   | op |
        +----+---------------------+----+
        | 1  | envelope            |    |
        | 2  | other order         |    |
        | 3  | wrapped             |    |
        | 4  | flat                |    |
        | 5  | wrapped flat        | x  |
        | 6  | plain               |    |
        | 7  | key only in the key |    |
        +----+---------------------+----+"#]],
    );
    let removals = [
        ("", r#"{"before":{"id":1,"n":""},"after":null,"source":{"lsn":2},"op":"d"}"#),
        (r#"{"id":2}"#, ""),
        (&wrapped_key(3), "null"),
        ("", r#"{"id":4,"n":null,"__deleted":"true"}"#),
        (&wrapped_key(5), r#"{"schema":{"type":"struct"},"payload":null}"#),
        (r#"{"id":99}"#, r#"{"before":null,"after":null,"op":"d"}"#),
        ("", r#"{"status":"END","id":"9:1","event_count":1,"data_collections":[],"ts_ms":1}"#),
        ("", r#"{"op":"m","source":{"lsn":3},"message":{"prefix":"p"}}"#),
    ];
    check(
        &t,
        &[&upserts[..], &removals[..]].concat(),
        expect![[r#"
        +----+---------------------+----+
        | id | n                   | op |
        +----+---------------------+----+
        | 6  | plain               |    |
        | 7  | key only in the key |    |
        +----+---------------------+----+"#]],
    );
}

#[test]
fn what_cannot_be_used_says_why() {
    let t = table(
        "id INT, n INT NOT NULL, d DECIMAL(10, 2), e DECIMAL(10, 2), day DATE, ts TIMESTAMP(6), b BOOLEAN, raw BYTES, \
         tags ARRAY<INT>, s STRING NOT NULL, PRIMARY KEY (id) NOT ENFORCED",
        "debezium-json",
    );
    let row = |fields: &str| format!(r#"{{"after":{{"id":1,"n":1,"s":"","e":"1.50",{fields}}},"op":"u"}}"#);
    let bad: Vec<String> = [
        r#""n":null"#,
        r#""n":"x""#,
        r#""n":99999999999"#,
        r#""n":1.5"#,
        r#""n":{}"#,
        r#""d":"oops""#,
        r#""d":"NaN""#,
        r#""d":"1.005""#,
        r#""d":123456789.5"#,
        r#""d":{"scale":1}"#,
        r#""day":"2025-02-30""#,
        r#""day":99999999999"#,
        r#""ts":"soon""#,
        r#""ts":9223372036825200000"#,
        r#""b":"yes""#,
        r#""raw":"***""#,
        r#""tags":[1,"x"]"#,
        r#""tags":1"#,
        r#""s":null"#,
        r#""s":"\ud800""#,
        r#""id":null"#,
    ]
    .iter()
    .map(|fields| row(fields))
    .collect();
    let mut records: Vec<(&str, &str)> = bad.iter().map(|value| ("", value.as_str())).collect();
    let long = format!("\"{}\"", "x".repeat(5_000));
    records.extend([
        ("", r#"{"op":"u","after":{"id":1}"#),
        ("", r#"{"op":"u","after":{"id":1}} x"#),
        ("", r#"{"op":"u","before":{"id":1},"after":null}"#),
        ("", r#"{"op":"z","after":{"id":1}}"#),
        ("", r#"{"status":"x"}"#),
        ("", "7"),
        ("", &long),
        ("", r#"{"op":"u","after":{"id":2,"s":"no n"}}"#),
        ("", r#"{"op":"u","after":{"n":2,"s":"no id"}}"#),
        ("{", ""),
        ("{}", ""),
        ("", ""),
        ("", r#"{"op":"u","after":{"id":3,"n":1,"s":"__debezium_unavailable_value"}}"#),
    ]);
    check(
        &t,
        &records,
        expect![[r#"
            0 missing_column: column n is NOT NULL, but the record has null
            1 wrong_value: column n (Int32): not a number, found x
            2 wrong_value: column n (Int32): out of range, found 99999999999
            3 wrong_value: column n (Int32): digits would be lost at the declared scale, found 1.5
            4 wrong_value: column n (Int32): an object where the declared type has another form, found {}
            5 wrong_value: column d (Decimal128(10, 2)): not a number in the form that this topic sends, found oops
            6 wrong_value: column d (Decimal128(10, 2)): not a number, found NaN
            7 wrong_value: column d (Decimal128(10, 2)): digits would be lost at the declared scale, found 1.005
            8 wrong_value: column d (Decimal128(10, 2)): out of range, found 123456789.5
            9 wrong_value: column d (Decimal128(10, 2)): not a number, found {"scale":1}
            10 wrong_value: column day (Date32): not a date, found 2025-02-30
            11 wrong_value: column day (Date32): out of range, found 99999999999
            12 wrong_value: column ts (Timestamp(µs)): not a date, found soon
            13 wrong_value: column ts (Timestamp(µs)): out of range, found 9223372036825200000
            14 wrong_value: column b (Boolean): a text where the declared type has another form, found yes
            15 wrong_value: column raw (Binary): not base64, found ***
            16 wrong_value: column tags (List(Int32)): not a number, found [1,"x"]
            17 wrong_value: column tags (List(Int32)): a number where the declared type has another form, found 1
            18 missing_column: column s is NOT NULL, but the record has null
            19 wrong_value: column s (Utf8): an escape that JSON does not know, found \ud800
            20 missing_key: primary key column id has no value
            21 malformed: the value is not JSON from byte 26
            22 malformed: the value is not JSON from byte 28
            23 no_row: the value is JSON, but no row and no change of one: it has no after
            24 no_row: the value is JSON, but no row and no change of one: its op is unknown
            25 no_row: the value is JSON, but no row and no change of one: none of the table's columns is in it
            26 malformed: the value is not JSON from byte 0
            27 oversized: the record has 5002 bytes, the limit is 4000
            28 missing_column: column n is NOT NULL, but the record has no value for it
            29 missing_key: primary key column id has no value
            30 malformed: the key is not JSON from byte 1
            31 missing_key: primary key column id has no value
            32 missing_key: primary key column id has no value
            t unknown_unchanged: column s is NOT NULL, its unchanged value was left out, and the row is not known
            +----+---+---+---+-----+----+---+-----+------+---+
            | id | n | d | e | day | ts | b | raw | tags | s |
            +----+---+---+---+-----+----+---+-----+------+---+
            +----+---+---+---+-----+----+---+-----+------+---+"#]],
    );
}

#[test]
fn values_take_the_form_of_their_declared_type() {
    let t = table(
        "id INT, s STRING, d DECIMAL(10, 2), f FLOAT, b BOOLEAN, day DATE, at TIME(3), ts3 TIMESTAMP(3), \
         ts6 TIMESTAMP_LTZ(6), ts9 TIMESTAMP(9), raw BYTES, tags ARRAY<STRING>, PRIMARY KEY (id) NOT ENFORCED",
        "json",
    );
    check(
        &t,
        &[
            (
                "",
                r#"{"id":1,"s":{"a": [1]},"d":-7,"f":1,"b":1,"day":-1,"at":1000,"ts3":1000,"ts6":1000,"ts9":1000,"tags":["a",null]}"#,
            ),
            (
                "",
                r#"{"id":2,"s":"{\"a\": \"\u00e9\"}","d":"-0.01","f":"2.5","b":"false","day":"1969-12-31Z","at":"01:00:00.5Z","ts3":"1969-12-31T23:59:59+01:00","raw":"3q0=","tags":"[\"x\"]"}"#,
            ),
            ("", r#"{"id":"3","s":12.50,"d":"1234","day":2932896,"ts6":"9999-12-31T23:59:59.999999999Z","tags":[]}"#),
            ("", r#"{"id":4,"s":true,"d":"0.10","tags":["__debezium_unavailable_value"]}"#),
            ("", r#"{"id":5,"d":"1234"}"#),
            ("", r#"{"id":6,"d":{"scale":3,"value":"AuKg"}}"#),
        ],
        expect![[r#"
            5 wrong_value: column d (Decimal128(10, 2)): digits would be lost at the declared scale, found {"scale":3,"value":"AuKg"}
            +----+------------+---------+-----+-------+------------+--------------+---------------------+-----------------------------+----------------------------+------+-------+
            | id | s          | d       | f   | b     | day        | at           | ts3                 | ts6                         | ts9                        | raw  | tags  |
            +----+------------+---------+-----+-------+------------+--------------+---------------------+-----------------------------+----------------------------+------+-------+
            | 1  | {"a": [1]} | -7.00   | 1.0 | true  | 1969-12-31 | 00:00:01     | 1970-01-01T00:00:01 | 1970-01-01T00:00:00.001Z    | 1970-01-01T00:00:00.000001 |      | [a, ] |
            | 2  | {"a": "é"} | -0.01   | 2.5 | false | 1969-12-31 | 01:00:00.500 | 1969-12-31T22:59:59 |                             |                            | dead | [x]   |
            | 3  | 12.50      | 1234.00 |     |       | 9999-12-31 |              |                     | 9999-12-31T23:59:59.999999Z |                            |      | []    |
            | 4  | true       | 0.10    |     |       |            |              |                     |                             |                            |      |       |
            | 5  |            | 1234.00 |     |       |            |              |                     |                             |                            |      |       |
            +----+------------+---------+-----+-------+------------+--------------+---------------------+-----------------------------+----------------------------+------+-------+"#]],
    );
}

#[test]
fn a_schema_says_the_unit_and_the_scale() {
    let t = table(
        "id INT, d DECIMAL(10, 4), ts TIMESTAMP(6), day DATE, at TIME(6), PRIMARY KEY (id) NOT ENFORCED",
        "debezium-json",
    );
    let field = |name: &str, semantic: &str| format!(r#"{{"field":"{name}","type":"int64","name":"{semantic}"}}"#);
    let record = |semantics: [&str; 3], values: &str| {
        let [ts, day, at] = semantics;
        format!(
            r#"{{"schema":{{"type":"struct","fields":[{{"field":"after","type":"struct","fields":[{},{},{},
            {{"field":"d","type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{{"scale":"1"}}}}]}}]}},
            "payload":{{"op":"c","after":{{{values}}}}}}}"#,
            field("ts", ts),
            field("day", day),
            field("at", at)
        )
    };
    let micro = record(
        ["io.debezium.time.MicroTimestamp", "io.debezium.time.Date", "io.debezium.time.MicroTime"],
        r#""id":1,"d":"KBU=","ts":1000000,"day":2,"at":1000000"#,
    );
    let milli = record(
        ["io.debezium.time.Timestamp", "io.debezium.time.Timestamp", "io.debezium.time.Time"],
        r#""id":2,"d":"1234","ts":1000,"day":172800000,"at":1000"#,
    );
    let nano = record(
        ["io.debezium.time.NanoTimestamp", "org.apache.kafka.connect.data.Date", "io.debezium.time.NanoTime"],
        r#""id":3,"d":null,"ts":1000000000,"day":2,"at":1000000000"#,
    );
    let bare = r#"{"op":"c","after":{"id":4,"ts":1000000,"day":2,"at":1000000}}"#;
    check(
        &t,
        &[("", &micro), ("", &milli), ("", &nano), ("", bare)],
        expect![[r#"
        +----+--------------+---------------------+------------+----------+
        | id | d            | ts                  | day        | at       |
        +----+--------------+---------------------+------------+----------+
        | 1  | 1026.1000    | 1970-01-01T00:00:01 | 1970-01-03 | 00:00:01 |
        | 2  | -265882.4000 | 1970-01-01T00:00:01 | 1970-01-03 | 00:00:01 |
        | 3  |              | 1970-01-01T00:00:01 | 1970-01-03 | 00:00:01 |
        | 4  |              | 1970-01-01T00:00:01 | 1970-01-03 | 00:00:01 |
        +----+--------------+---------------------+------------+----------+"#]],
    );
}
