//! The same rows under every setting of the connector decode to the same columns.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ingest::decode::{Changes, Decoder};
use ingest::table::TableState;
use model::Record;

use crate::fixture::{records, tables, text_rows};

const TRYTON: &str = "
CREATE TABLE party_party (id INT, active BOOLEAN, code STRING, code_digit BIGINT, name STRING, create_date TIMESTAMP(DIGITS),
  write_date TIMESTAMP(DIGITS), PRIMARY KEY (id) NOT ENFORCED) WITH (OPTIONS);
CREATE TABLE production_work_cycle (id INT, cost DECIMAL(20, 6), duration BIGINT, state STRING, write_date TIMESTAMP(DIGITS),
  PRIMARY KEY (id) NOT ENFORCED) WITH (OPTIONS);
CREATE TABLE purchase_product_supplier (id INT, lead_time BIGINT, party INT, product INT, template INT,
  PRIMARY KEY (id) NOT ENFORCED) WITH (OPTIONS);
CREATE TABLE stock_order_point (id INT, location INT, min_quantity DOUBLE, target_quantity DECIMAL(20, 4), type STRING,
  PRIMARY KEY (id) NOT ENFORCED) WITH (OPTIONS);
CREATE TABLE sale_line (id INT, product INT, quantity DOUBLE, type STRING, unit_price DECIMAL(20, 6),
  PRIMARY KEY (id) NOT ENFORCED) WITH (OPTIONS);
CREATE TABLE sale_sale (id INT, comment STRING, state STRING, sale_date DATE, shipping_date DATE,
  total_amount_cache DECIMAL(20, 2), to_ship BOOLEAN, PRIMARY KEY (id) NOT ENFORCED) WITH (OPTIONS);
CREATE TABLE stock_move (id INT, origin STRING, planned_date DATE, effective_date DATE, internal_quantity DOUBLE,
  unit_price DECIMAL(20, 6), cost_price DECIMAL(20, 6), state STRING, create_date TIMESTAMP(DIGITS),
  PRIMARY KEY (id) NOT ENFORCED) WITH (OPTIONS);
";

const PYERP: &str = "
CREATE TABLE business_supplier (id STRING, name STRING, created_at TIMESTAMP_LTZ(6), PRIMARY KEY (id) NOT ENFORCED) WITH (OPTIONS);
CREATE TABLE core_auditlog (id BIGINT, `timestamp` TIMESTAMP_LTZ(6), additional_data STRING, uuid STRING,
  PRIMARY KEY (id) NOT ENFORCED) WITH (OPTIONS);
CREATE TABLE currency_exchangerate (id BIGINT, rate DECIMAL(20, 4), `date` DATE, PRIMARY KEY (id) NOT ENFORCED) WITH (OPTIONS);
CREATE TABLE production_moldproduct (id BIGINT, products_per_mold INT, weight_per_product DECIMAL(10, 3),
  legacy_timestamp TIMESTAMP_LTZ(6), PRIMARY KEY (id) NOT ENFORCED) WITH (OPTIONS);
CREATE TABLE production_productionorderitem (id BIGINT, product_share DOUBLE, standard_time DOUBLE, start_date TIMESTAMP_LTZ(6),
  PRIMARY KEY (id) NOT ENFORCED) WITH (OPTIONS);
CREATE TABLE sales_salesrecord (id BIGINT, record_date DATE, subtotal DECIMAL(10, 2), tax_amount DECIMAL(10, 2),
  total_amount DECIMAL(10, 2), payment_date DATE, amount_paid_external DECIMAL(10, 2), PRIMARY KEY (id) NOT ENFORCED) WITH (OPTIONS);
CREATE TABLE sales_salesrecorditem (id BIGINT, quantity DECIMAL(10, 2), unit_price DECIMAL(10, 2), line_subtotal DECIMAL(10, 2),
  PRIMARY KEY (id) NOT ENFORCED) WITH (OPTIONS);
";

type Rows = BTreeMap<String, BTreeMap<String, Vec<String>>>;

/// The final rows of every table, by table and key.
fn replay(ddl: &str, time_digits: &str, records: &[(Arc<str>, Record)]) -> Rows {
    let options = "'connector' = 'kafka', 'topic' = 'unused', 'format' = 'debezium-json'";
    let tables = tables(&ddl.replace("DIGITS", time_digits).replace("OPTIONS", options));
    let mut all = Rows::new();
    for table in &tables {
        let mut decoder = Decoder::new(table, 1 << 20);
        let mut changes = Changes::new(&table.schema);
        for (topic, record) in records.iter().filter(|(topic, _)| topic.ends_with(&format!(".{}", table.name))) {
            decoder.decode(topic, 0, record, &mut changes).unwrap_or_else(|e| panic!("{topic} {}: {e}", record.offset));
        }
        assert!(!changes.is_empty(), "{} has records", table.name);
        let mut state = TableState::new(table);
        let applied = state.apply(&mut changes, i64::MAX).unwrap();
        assert!(applied.refused.is_empty());
        all.insert(table.name.to_string(), text_rows(&state.rows().unwrap()));
    }
    all
}

/// The records as they are when the converter writes no schemas.
fn without_schemas(records: &[(Arc<str>, Record)]) -> Vec<(Arc<str>, Record)> {
    let payload = |bytes: &Option<Bytes>| {
        let value: serde_json::Value = serde_json::from_slice(bytes.as_ref()?).unwrap();
        Some(Bytes::from(value["payload"].to_string()))
    };
    records
        .iter()
        .map(|(topic, r)| (Arc::clone(topic), Record { key: payload(&r.key), value: payload(&r.value), ..r.clone() }))
        .collect()
}

#[test]
fn tryton_rows_are_the_same_in_every_encoding() {
    let with_schemas = records("tryton/schemas");
    let expected = replay(TRYTON, "6", &with_schemas);
    assert_eq!(expected.values().map(BTreeMap::len).sum::<usize>(), 584);
    assert!(expected == replay(TRYTON, "3", &with_schemas), "a schema's unit wins over the declared digits");
    assert!(expected == replay(TRYTON, "6", &without_schemas(&with_schemas)), "without schemas");
    assert!(expected == replay(TRYTON, "6", &records("tryton/string_iso")), "texts");
    assert!(expected == replay(TRYTON, "3", &records("tryton/double_connect_tx")), "numbers and milliseconds");
    // The flattened recording starts a little earlier, and so knows some rows more.
    let flat = replay(TRYTON, "6", &records("tryton/unwrap"));
    for (table, rows) in &expected {
        for (key, row) in rows {
            assert_eq!(flat[table].get(key), Some(row), "{table} {key}");
        }
    }
}

#[test]
fn pyerp_rows_are_the_same_in_every_encoding() {
    let expected = replay(PYERP, "6", &records("pyerp/string"));
    assert_eq!(expected.values().map(BTreeMap::len).sum::<usize>(), 21);
    for name in ["precise", "double", "schemas_enabled_precise", "time_isostring", "time_connect"] {
        let rows = replay(PYERP, "6", &records(&format!("pyerp/{name}")));
        assert_eq!(expected, rows, "{name}");
    }
}
