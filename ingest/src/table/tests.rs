use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::Bytes;
use model::{Delta, Record, SourceTable, SqlFile};
use proptest::prelude::*;

use super::{Applied, TableState};
use crate::decode::{Changes, Decoded, Decoder, Undecodable};

const COLUMNS: &str = "name STRING, qty DECIMAL(12, 2), n INT, f DOUBLE, b BOOLEAN, d DATE, ts TIMESTAMP_LTZ(6), \
    tm TIME(3), raw BYTES, tags ARRAY<STRING>, big STRING";

fn table(key: &str, format: &str) -> SourceTable {
    let columns = key.replace(", ", " BIGINT, ");
    let text = format!(
        "CREATE TABLE t ({columns} BIGINT, {COLUMNS}, PRIMARY KEY ({key}) NOT ENFORCED, WATERMARK FOR ts AS ts)
         WITH ('connector' = 'kafka', 'topic' = 't', 'format' = '{format}')"
    );
    crate::ddl::parse_tables(&[SqlFile { path: "t.sql".to_owned(), text }]).unwrap().remove(0)
}

/// A table with its decoder, fed record by record.
struct Fed {
    decoder: Decoder,
    changes: Changes,
    state: TableState,
    topic: Arc<str>,
}

impl Fed {
    fn new(table: &SourceTable) -> Self {
        Self {
            decoder: Decoder::new(table, 1 << 20),
            changes: Changes::new(&table.schema),
            state: TableState::new(table),
            topic: Arc::from("t"),
        }
    }

    fn push(&mut self, key: Option<&str>, value: Option<&str>) -> Result<Decoded, Undecodable> {
        let bytes = |text: Option<&str>| text.map(|t| Bytes::copy_from_slice(t.as_bytes()));
        let record = Record { offset: 0, timestamp_ms: 0, key: bytes(key), value: bytes(value), headers: Vec::new() };
        self.decoder.decode(&self.topic, 0, &record, &mut self.changes)
    }

    fn apply(&mut self) -> Applied {
        let applied = self.state.apply(&mut self.changes, i64::MAX).unwrap();
        self.changes.clear();
        applied
    }

    fn rows(&self) -> Vec<String> {
        let mut rows = text(&self.state.rows().unwrap());
        rows.sort();
        rows
    }
}

fn text(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let columns: Vec<ArrayFormatter<'_>> =
        batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options).unwrap()).collect();
    (0..batch.num_rows())
        .map(|row| columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join("|"))
        .collect()
}

/// Adds a delta to weighted rows, net per epoch: no row may come and go in one delta.
fn add(sums: &mut BTreeMap<String, i64>, delta: &Delta) {
    let rows = text(&delta.rows);
    for (i, row) in rows.iter().enumerate() {
        let weight = delta.weights.value(i);
        assert!(rows.iter().enumerate().all(|(j, other)| j == i || other != row), "{row} is twice in one delta");
        *sums.entry(row.clone()).or_default() += weight;
    }
    sums.retain(|_, weight| *weight != 0);
    assert!(sums.values().all(|w| *w == 1), "{sums:?}");
}

#[derive(Debug, Clone)]
enum Op {
    /// `keep_big`: the connector leaves the long text out.
    Upsert {
        key: u8,
        seed: u32,
        keep_big: bool,
    },
    Delete {
        key: u8,
    },
    Tombstone {
        key: u8,
    },
    Truncate,
}

fn op(with_lone_tombstones: bool) -> impl Strategy<Value = Op> {
    let key = 0..5_u8;
    prop_oneof![
        8 => (key.clone(), 0..60_u32, any::<bool>()).prop_map(|(key, seed, keep_big)| Op::Upsert { key, seed, keep_big }),
        3 => key.clone().prop_map(|key| Op::Delete { key }),
        2 => key.prop_map(move |key| if with_lone_tombstones { Op::Tombstone { key } } else { Op::Delete { key } }),
        1 => Just(if with_lone_tombstones { Op::Delete { key: 0 } } else { Op::Truncate }),
    ]
}

fn columns(seed: u32, big: &str) -> String {
    let pick = |n: u32, some: &str| if seed.is_multiple_of(n) { "null".to_owned() } else { some.to_owned() };
    let name = ["", "Grüße", "a\\\"b\\n", "\\u00e9\\ud83d\\ude00", "قطعة", "plain"][seed as usize % 6];
    format!(
        r#""name":{},"qty":{},"n":{},"f":{},"b":{},"d":{},"ts":{},"tm":{},"raw":{},"tags":{},"big":"{big}","extra":{{"x":[1]}}"#,
        pick(7, &format!("\"{name}\"")),
        pick(5, &format!("\"{}.{:02}\"", i64::from(seed) - 30, seed)),
        pick(3, &seed.to_string()),
        pick(11, &format!("{}.5", seed)),
        pick(2, if seed % 4 == 1 { "true" } else { "false" }),
        pick(13, &(i64::from(seed) * 1000 - 30_000).to_string()),
        pick(17, &format!("\"20{:02}-02-03T04:05:06.{seed:06}Z\"", seed)),
        pick(19, &(seed * 1000).to_string()),
        pick(4, "\"3q2+7w==\""),
        pick(6, &format!("[\"x{seed}\",null,\"y\"]")),
    )
}

fn key_json(key: u8) -> String {
    format!(r#"{{"id":{key},"part":{}}}"#, key % 2)
}

/// The records of an operation, and what it means for a plain map of rows.
fn play(
    op: &Op,
    lsn: i64,
    model: &mut BTreeMap<u8, String>,
    bigs: &mut BTreeMap<u8, String>,
) -> Vec<(String, Option<String>)> {
    match op {
        Op::Upsert { key, seed, keep_big } => {
            let known = model.contains_key(key);
            let big = format!("long {seed}");
            let sent = if *keep_big && known { "__debezium_unavailable_value" } else { &big };
            if !(*keep_big && known) {
                bigs.insert(*key, big.clone());
            }
            model.insert(*key, columns(*seed, &bigs[key]));
            let (id, part) = (key, key % 2);
            let value = format!(
                r#"{{"before":null,"after":{{"id":{id},"part":{part},{}}},"source":{{"table":"t","lsn":{lsn}}},"op":"u","ts_ms":1}}"#,
                columns(*seed, sent)
            );
            vec![(key_json(*key), Some(value))]
        }
        Op::Delete { key } => {
            model.remove(key);
            let value = format!(
                r#"{{"before":{{"id":{key},"part":{},{}}},"after":null,"source":{{"lsn":{lsn}}},"op":"d"}}"#,
                key % 2,
                columns(0, "")
            );
            vec![(key_json(*key), Some(value)), (key_json(*key), None)]
        }
        Op::Tombstone { key } => {
            model.remove(key);
            vec![(key_json(*key), None)]
        }
        Op::Truncate => {
            model.clear();
            vec![(String::new(), Some(format!(r#"{{"source":{{"lsn":{lsn}}},"op":"t"}}"#)))]
        }
    }
}

/// The rows of the model, decoded one by one into an empty table.
fn expected(table: &SourceTable, model: &BTreeMap<u8, String>) -> Vec<String> {
    let mut fed = Fed::new(table);
    for (key, columns) in model {
        let value = format!(r#"{{"id":{key},"part":{},{columns}}}"#, key % 2);
        fed.push(None, Some(&value)).unwrap();
    }
    fed.apply();
    fed.rows()
}

/// A record, and the rows as they should be after it.
type Sent = (String, Option<String>, Rc<BTreeMap<u8, String>>);

/// Feeds the records, cutting an epoch after each index in `cuts`; there the rows must be the expected ones, and the
/// sum of all deltas.
fn feed(table: &SourceTable, records: &[Sent], cuts: &[usize]) {
    let mut fed = Fed::new(table);
    let mut sums = BTreeMap::new();
    for (i, (key, value, model)) in records.iter().enumerate() {
        let key = Some(key.as_str()).filter(|k| !k.is_empty());
        fed.push(key, value.as_deref()).unwrap();
        if cuts.contains(&i) || i + 1 == records.len() {
            let applied = fed.apply();
            assert!(applied.refused.is_empty());
            add(&mut sums, &applied.delta);
            let rows = fed.rows();
            assert_eq!(rows, expected(table, model));
            assert_eq!(sums.keys().cloned().collect::<Vec<_>>(), rows);
            assert_eq!(fed.state.len(), rows.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// A connector that crashes sends the end of its history again; nothing of that may be seen.
    #[test]
    fn what_is_sent_again_changes_nothing(
        ops in prop::collection::vec(op(false), 1..40),
        crashes in prop::collection::vec((0..60_usize, 0..60_usize), 0..4),
        cuts in prop::collection::vec(0..120_usize, 0..8),
        composite in any::<bool>(),
    ) {
        let table = table(if composite { "id, part" } else { "id" }, "debezium-json");
        let (mut model, mut bigs) = (BTreeMap::new(), BTreeMap::new());
        let mut history = Vec::new();
        let mut sent: Vec<Sent> = Vec::new();
        for (i, op) in ops.iter().enumerate() {
            history.push(play(op, (i as i64 + 1) * 10, &mut model, &mut bigs));
            let now = Rc::new(model.clone());
            let again = crashes.iter().filter(|(at, _)| at % ops.len() == i).map(|(_, back)| i.saturating_sub(*back));
            for from in std::iter::once(i).chain(again) {
                let records = history[from..].iter().flatten();
                sent.extend(records.map(|(key, value)| (key.clone(), value.clone(), Rc::clone(&now))));
            }
        }
        feed(&table, &sent, &cuts);
    }

    /// Without positions and without delete events, as on a compacted topic.
    #[test]
    fn tombstones_alone_delete(
        ops in prop::collection::vec(op(true), 1..40),
        cuts in prop::collection::vec(0..60_usize, 0..8),
    ) {
        let table = table("id, part", "json");
        let mut model = BTreeMap::new();
        let mut records = Vec::new();
        for op in &ops {
            match op {
                Op::Upsert { key, seed, .. } => {
                    let columns = columns(*seed, "text");
                    let value = format!(r#"{{"id":{key},"part":{},{columns}}}"#, key % 2);
                    model.insert(*key, columns);
                    records.push((key_json(*key), Some(value), Rc::new(model.clone())));
                }
                Op::Delete { key } | Op::Tombstone { key } => {
                    model.remove(key);
                    records.push((key_json(*key), None, Rc::new(model.clone())));
                }
                Op::Truncate => {}
            }
        }
        feed(&table, &records, &cuts);
    }
}

fn envelope(op: &str, row: &str, lsn: i64) -> String {
    let (before, after) = if op == "d" { (row, "null") } else { ("null", row) };
    format!(r#"{{"before":{before},"after":{after},"source":{{"lsn":{lsn}}},"op":"{op}"}}"#)
}

#[test]
fn a_row_that_ends_as_it_began_gives_nothing() {
    let table = table("id", "debezium-json");
    let mut fed = Fed::new(&table);
    fed.push(None, Some(&envelope("c", r#"{"id":1,"n":5}"#, 1))).unwrap();
    assert_eq!(fed.apply().delta.len(), 1);
    for (n, lsn) in [(6, 2), (7, 3), (5, 4)] {
        fed.push(None, Some(&envelope("u", &format!(r#"{{"id":1,"n":{n}}}"#), lsn))).unwrap();
    }
    assert_eq!(fed.apply().delta.len(), 0);
    fed.push(None, Some(&envelope("c", r#"{"id":2,"n":5}"#, 5))).unwrap();
    fed.push(None, Some(&envelope("d", r#"{"id":2,"n":0}"#, 6))).unwrap();
    assert_eq!(fed.apply().delta.len(), 0);
    for (n, lsn) in [(8, 7), (9, 8)] {
        fed.push(None, Some(&envelope("u", &format!(r#"{{"id":1,"n":{n}}}"#), lsn))).unwrap();
    }
    let delta = fed.apply().delta;
    let rows: Vec<_> = text(&delta.rows).iter().map(|r| r.split('|').nth(3).unwrap().to_owned()).collect();
    assert_eq!((rows, delta.weights.values().to_vec()), (vec!["5".to_owned(), "9".to_owned()], vec![-1, 1]));
}

#[test]
fn what_is_late_to_a_truncate_or_a_delete_stays_away() {
    let table = table("id", "debezium-json");
    let mut fed = Fed::new(&table);
    fed.push(None, Some(&envelope("c", r#"{"id":1}"#, 10))).unwrap();
    fed.push(None, Some(&envelope("c", r#"{"id":2}"#, 30))).unwrap();
    fed.push(None, Some(r#"{"source":{"lsn":20},"op":"t"}"#)).unwrap();
    fed.push(None, Some(&envelope("c", r#"{"id":3}"#, 15))).unwrap();
    // A delete of a key that was never seen is remembered too.
    fed.push(None, Some(&envelope("d", r#"{"id":4}"#, 50))).unwrap();
    fed.push(None, Some(&envelope("u", r#"{"id":4}"#, 40))).unwrap();
    let applied = fed.apply();
    assert_eq!((applied.n_old, fed.state.len()), (2, 1));
    assert!(fed.rows()[0].starts_with("2|"));
}

#[test]
fn an_unchanged_value_of_an_unknown_row_is_null_or_refused() {
    let mut strict = table("id", "debezium-json");
    let mut fed = Fed::new(&strict);
    let row = r#"{"id":1,"n":1,"big":"__debezium_unavailable_value"}"#;
    fed.push(None, Some(&envelope("u", row, 1))).unwrap();
    assert!(fed.apply().refused.is_empty());
    assert!(fed.rows()[0].ends_with("|NULL"));

    let fields: Vec<_> = strict.schema.fields().iter().map(|f| f.as_ref().clone()).collect();
    let strict_fields: Vec<_> =
        fields.into_iter().map(|f| if f.name() == "big" { f.with_nullable(false) } else { f }).collect();
    strict.schema = Arc::new(arrow::datatypes::Schema::new(strict_fields));
    let mut fed = Fed::new(&strict);
    fed.push(None, Some(&envelope("u", row, 2))).unwrap();
    let applied = fed.apply();
    assert_eq!(applied.refused[0].1, Undecodable::UnknownUnchanged { column: "big".to_owned() });
    // The record was not used, so sending the row whole at that position still counts.
    fed.push(None, Some(&envelope("u", r#"{"id":1,"big":"x"}"#, 2))).unwrap();
    assert_eq!(fed.apply().delta.len(), 1);
}

#[test]
fn event_time_is_the_largest_that_is_believed() {
    let table = table("id", "debezium-json");
    let mut fed = Fed::new(&table);
    for (id, ts) in [(1, "\"2025-01-01T00:00:00Z\""), (2, "\"2999-01-01T00:00:00Z\""), (3, "null")] {
        fed.push(None, Some(&envelope("c", &format!(r#"{{"id":{id},"ts":{ts}}}"#), 1))).unwrap();
    }
    let applied = fed.state.apply(&mut fed.changes, 1_800_000_000_000_000).unwrap();
    assert_eq!(applied.event_time_us, Some(1_735_689_600_000_000));
}

fn append_table(format: &str) -> SourceTable {
    let text = format!(
        "CREATE TABLE t (id BIGINT, {COLUMNS}, WATERMARK FOR ts AS ts)
         WITH ('connector' = 'kafka', 'topic' = 't', 'format' = '{format}')"
    );
    crate::ddl::parse_tables(&[SqlFile { path: "t.sql".to_owned(), text }]).unwrap().remove(0)
}

/// A table that keeps nothing gives the same values as one that keeps its rows.
#[test]
fn an_append_only_table_gives_every_row_once() {
    let (keyed, plain) = (table("id", "json"), append_table("json"));
    let mut fed = Fed::new(&keyed);
    let (mut decoder, mut changes) = (Decoder::new(&plain, 1 << 20), Changes::new(&plain.schema));
    let mut state = super::Table::new(&plain);
    for epoch in 0..3_u32 {
        for id in epoch * 40..(epoch + 1) * 40 {
            let value = format!(r#"{{"id":{id},{}}}"#, columns(id % 60, "long"));
            fed.push(None, Some(&value)).unwrap();
            let value = Some(Bytes::from(value));
            let record = Record { offset: 0, timestamp_ms: 0, key: None, value, headers: Vec::new() };
            decoder.decode(&Arc::from("t"), 0, &record, &mut changes).unwrap();
            // A record that is refused leaves nothing behind in the row after it.
            let bad = Record { value: Some(Bytes::from(r#"{"id":1,"name":"x","big":7,"n":"many"}"#)), ..record };
            decoder.decode(&Arc::from("t"), 0, &bad, &mut changes).unwrap_err();
        }
        let (applied, expected) = (state.apply(&mut changes, 1_700_000_000_000_000).unwrap(), fed.apply());
        changes.clear();
        assert_eq!(text(&applied.delta.rows), text(&expected.delta.rows));
        assert!(applied.delta.weights.values().iter().all(|w| *w == 1));
        assert!(applied.event_time_us.is_some_and(|t| t <= 1_700_000_000_000_000));
        assert_eq!((state.len(), state.rows().is_none()), (0, true));
    }
}

#[test]
fn an_append_only_table_refuses_what_is_no_new_row() {
    let plain = append_table("debezium-json");
    let (mut decoder, mut changes) = (Decoder::new(&plain, 1 << 20), Changes::new(&plain.schema));
    let mut decode = |value: Option<&str>| {
        let value = value.map(|v| Bytes::copy_from_slice(v.as_bytes()));
        let key = Some(Bytes::from(r#"{"id":1}"#));
        let record = Record { offset: 0, timestamp_ms: 0, key, value, headers: Vec::new() };
        decoder.decode(&Arc::from("t"), 0, &record, &mut changes)
    };
    for op in ["c", "r"] {
        decode(Some(&envelope(op, r#"{"id":1,"n":5}"#, 1))).unwrap();
    }
    let flat_delete = r#"{"id":1,"__deleted":"true"}"#;
    for value in [Some(envelope("u", r#"{"id":1}"#, 2)), Some(envelope("d", r#"{"id":1}"#, 3)), None] {
        assert_eq!(decode(value.as_deref()).unwrap_err().class(), "no_new_row", "{value:?}");
    }
    assert_eq!(decode(Some(flat_delete)).unwrap_err().class(), "no_new_row");
    let unchanged = envelope("c", r#"{"id":1,"big":"__debezium_unavailable_value"}"#, 1);
    assert_eq!(decode(Some(&unchanged)).unwrap_err().class(), "no_new_row");
    assert_eq!(changes.len(), 2);
}

/// What no view reads is neither decoded nor judged; the rest is as it would be.
#[test]
fn unread_columns_are_null() {
    let mut plain = append_table("json");
    plain.read_only(|column| column <= 2);
    assert!(plain.is_read(plain.event_time.unwrap().column));
    let (mut decoder, mut changes) = (Decoder::new(&plain, 1 << 20), Changes::new(&plain.schema));
    for id in 0..3 {
        let text = format!(
            r#"{{"id":{id},"name":"x","qty":"{id}.50","n":"no number","big":"y","ts":"2025-01-01T00:00:00Z"}}"#
        );
        let value = Some(Bytes::from(text));
        let record = Record { offset: 0, timestamp_ms: 0, key: None, value, headers: Vec::new() };
        decoder.decode(&Arc::from("t"), 0, &record, &mut changes).unwrap();
    }
    let rows = super::Table::new(&plain).apply(&mut changes, i64::MAX).unwrap().delta.rows;
    let n_nulls: Vec<usize> = rows.columns().iter().map(|c| c.null_count()).collect();
    assert_eq!(n_nulls, [0, 0, 0, 3, 3, 3, 3, 0, 3, 3, 3, 3]);
    assert!(text(&rows)[2].contains("2.50"), "{:?}", text(&rows));
}

#[test]
fn rows_leave_when_they_are_older_than_the_ttl() {
    const DAY_US: i64 = 86_400_000_000;
    let mut with_ttl = table("id", "json");
    with_ttl.ttl_us = Some(10 * DAY_US);
    let mut fed = Fed::new(&with_ttl);
    let row = |id: i64, day: i64| format!(r#"{{"id":{id},"n":{day},"ts":"2025-01-{day:02}T00:00:00Z"}}"#);
    let jan = |day: i64| 1_735_689_600_000_000 + (day - 1) * DAY_US;
    assert!(!fed.state.set_now(jan(12)));
    for (id, day) in [(1, 1), (2, 3), (3, 12)] {
        fed.push(None, Some(&row(id, day))).unwrap();
    }
    fed.push(None, Some(r#"{"id":4,"n":0}"#)).unwrap();
    // The first is too old as it comes; one without a time stays for ever.
    assert_eq!((fed.apply().delta.len(), fed.state.len()), (3, 3));
    assert!(!fed.state.set_now(jan(13)));
    assert!(fed.state.set_now(jan(13) + 1));
    let applied = fed.apply();
    assert_eq!((applied.delta.weights.values().to_vec(), fed.state.len()), (vec![-1], 2));
    // Neither does time go backwards, nor does an old row come back; a younger one does.
    assert!(!fed.state.set_now(jan(1)));
    fed.push(None, Some(&row(2, 3))).unwrap();
    assert_eq!(fed.apply().delta.len(), 0);
    fed.push(None, Some(&row(2, 20))).unwrap();
    fed.push(None, Some(&row(3, 2))).unwrap();
    assert_eq!(fed.apply().delta.len(), 2);
    // After a restart the rows that are there go on ageing.
    let mut again = Fed::new(&with_ttl);
    again.state.seed(&fed.state.rows().unwrap(), &[0, 0]).unwrap();
    assert!(again.state.set_now(jan(31)));
    assert_eq!((again.apply().delta.len(), again.rows().len()), (1, 1));
}

/// Keys that come and go for ever: memory follows the rows that are there, not those that ever were.
#[test]
fn deleted_keys_are_forgotten_and_their_room_is_used_again() {
    for key in ["id", "id, part"] {
        let table = table(key, "debezium-json");
        let mut fed = Fed::new(&table);
        fed.state.dead.keys_max = 10;
        let mut model = BTreeMap::new();
        let mut bigs = BTreeMap::new();
        for i in 0..2_000_u32 {
            let id = (i % 251) as u8;
            let op = if i % 3 == 2 {
                Op::Delete { key: id.wrapping_sub(7) }
            } else {
                Op::Upsert { key: id, seed: i % 60, keep_big: false }
            };
            for (key, value) in play(&op, i64::from(i) * 10 + 10, &mut model, &mut bigs) {
                fed.push(Some(&key), value.as_deref()).unwrap();
            }
            // Few rows at a time, and all keys in turn.
            if i % 5 == 0 {
                let oldest = model.keys().copied().find(|k| k.abs_diff(id) > 20);
                if let Some(key) = oldest {
                    for (key, value) in play(&Op::Delete { key }, i64::from(i) * 10 + 15, &mut model, &mut bigs) {
                        fed.push(Some(&key), value.as_deref()).unwrap();
                    }
                }
                fed.apply();
            }
        }
        fed.apply();
        assert_eq!(fed.rows(), expected(&table, &model));
        assert!(fed.state.live.len() <= model.len() + 120, "{} slots for {} rows", fed.state.live.len(), model.len());
    }
}

#[test]
fn a_key_that_is_forgotten_can_come_again() {
    let table = table("id", "debezium-json");
    let mut fed = Fed::new(&table);
    fed.state.dead.keys_max = 1;
    for id in 0..5 {
        // A delete of a key that was never there, and of one that was.
        fed.push(None, Some(&envelope("d", &format!(r#"{{"id":{}}}"#, id + 100), 10))).unwrap();
        fed.push(None, Some(&envelope("c", &format!(r#"{{"id":{id},"n":1}}"#), 10))).unwrap();
        fed.apply();
        fed.push(None, Some(&envelope("d", &format!(r#"{{"id":{id}}}"#), 20))).unwrap();
        fed.apply();
    }
    assert!(fed.state.live.len() <= 4, "{}", fed.state.live.len());
    for id in [0, 3, 101] {
        fed.push(None, Some(&envelope("c", &format!(r#"{{"id":{id},"n":2,"name":"new"}}"#), 30))).unwrap();
    }
    assert_eq!(fed.apply().delta.len(), 3);
    // The newest deleted key is still known, and what is sent again of it stays away.
    fed.push(None, Some(&envelope("c", r#"{"id":4,"n":1}"#, 10))).unwrap();
    assert_eq!((fed.apply().n_old, fed.state.len()), (1, 3));
}
