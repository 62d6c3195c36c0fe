//! A small ERP of three tables, random changes of it, and the comparison with plain DataFusion.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{
    ArrayRef, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use model::clock::ManualClock;
use model::log::TopicSelector;
use model::{Delta, SourceEpoch, SourceFormat, SourceTable, SqlFile, TableDelta};
use pipelines::{Engine, Program, StepMode};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub(crate) const NOW_US: i64 = 1_760_000_000_000_000;
const DAY_US: i64 = 86_400_000_000;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    Null,
    Int(i64),
    Text(String),
    Float(f64),
}

pub(crate) type Row = Vec<Cell>;

pub(crate) fn tables() -> Vec<SourceTable> {
    let timestamp = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    vec![
        table("customers", &[("id", DataType::Int64), ("name", DataType::Utf8), ("grp", DataType::Utf8)]),
        table(
            "orders",
            &[
                ("id", DataType::Int64),
                ("customer_id", DataType::Int64),
                ("amount", DataType::Decimal128(12, 2)),
                ("qty", DataType::Int32),
                ("status", DataType::Utf8),
                ("created_at", timestamp),
                ("day", DataType::Date32),
                ("weight", DataType::Float64),
            ],
        ),
        table(
            "items",
            &[
                ("id", DataType::Int64),
                ("order_id", DataType::Int64),
                ("sku", DataType::Utf8),
                ("units", DataType::Decimal128(10, 3)),
            ],
        ),
    ]
}

pub(crate) fn table(name: &str, columns: &[(&str, DataType)]) -> SourceTable {
    let fields: Vec<Field> = columns.iter().enumerate().map(|(i, (n, t))| Field::new(*n, t.clone(), i > 0)).collect();
    SourceTable {
        name: Arc::from(name),
        schema: Arc::new(Schema::new(fields)),
        primary_key: vec![0],
        event_time: None,
        ttl_us: None,
        unread: Vec::new(),
        topic: TopicSelector::Name(name.to_owned()),
        format: SourceFormat::Json,
        time_digits: vec![6; columns.len()],
        declared_at: String::new(),
    }
}

pub(crate) fn batch(schema: &SchemaRef, rows: &[Row]) -> RecordBatch {
    let int = |c: usize| rows.iter().map(move |r| if let Cell::Int(v) = r[c] { Some(v) } else { None });
    let columns = schema.fields().iter().enumerate().map(|(c, field)| -> ArrayRef {
        match field.data_type() {
            DataType::Int64 => Arc::new(int(c).collect::<Int64Array>()),
            DataType::Int32 => Arc::new(int(c).map(|v| v.map(|v| v as i32)).collect::<Int32Array>()),
            DataType::Date32 => Arc::new(int(c).map(|v| v.map(|v| v as i32)).collect::<Date32Array>()),
            DataType::Timestamp(_, zone) => {
                Arc::new(int(c).collect::<TimestampMicrosecondArray>().with_timezone_opt(zone.clone()))
            }
            DataType::Decimal128(p, s) => Arc::new(
                int(c)
                    .map(|v| v.map(i128::from))
                    .collect::<Decimal128Array>()
                    .with_precision_and_scale(*p, *s)
                    .expect("the generator keeps to the precision"),
            ),
            DataType::Float64 => Arc::new(
                rows.iter().map(|r| if let Cell::Float(v) = r[c] { Some(v) } else { None }).collect::<Float64Array>(),
            ),
            _ => Arc::new(
                rows.iter()
                    .map(|r| if let Cell::Text(t) = &r[c] { Some(t.clone()) } else { None })
                    .collect::<StringArray>(),
            ),
        }
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect()).expect("rows fit their schema")
}

/// The tables as they stand, and the random source of their changes.
pub(crate) struct World {
    pub(crate) rng: StdRng,
    tables: Vec<SourceTable>,
    rows: Vec<BTreeMap<i64, Row>>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let tables = tables();
        let rows = vec![BTreeMap::new(); tables.len()];
        Self { rng: StdRng::seed_from_u64(seed), tables, rows }
    }

    fn maybe(&mut self, cell: Cell) -> Cell {
        if self.rng.random_bool(0.12) { Cell::Null } else { cell }
    }

    fn random_row(&mut self, table: usize, id: i64) -> Row {
        let word = |rng: &mut StdRng, words: &[&str]| Cell::Text(words[rng.random_range(0..words.len())].to_owned());
        match table {
            0 => {
                let name = Cell::Text(format!("Kunde {} \"ü\"", self.rng.random_range(0..6)));
                let group = word(&mut self.rng, &["A", "B", "", "Fachhandel"]);
                vec![Cell::Int(id), self.maybe(name), self.maybe(group)]
            }
            1 => {
                let customer = Cell::Int(self.rng.random_range(0..14));
                let amount = Cell::Int(self.rng.random_range(-50_000..500_000));
                let qty = Cell::Int(self.rng.random_range(-3..20));
                let status = word(&mut self.rng, &["open", "done", "late"]);
                let at = Cell::Int(NOW_US + self.rng.random_range(-40 * 24..10 * 24) * DAY_US / 24 - 7);
                let old = Cell::Int(-self.rng.random_range(0..40) * DAY_US - 1);
                let at = if self.rng.random_bool(0.05) { old } else { at };
                let day = Cell::Int(NOW_US / DAY_US + self.rng.random_range(-10..3));
                let weight = Cell::Float(f64::from(self.rng.random_range(0..40)) * 0.1);
                vec![
                    Cell::Int(id),
                    self.maybe(customer),
                    self.maybe(amount),
                    self.maybe(qty),
                    self.maybe(status),
                    self.maybe(at),
                    self.maybe(day),
                    self.maybe(weight),
                ]
            }
            _ => {
                let order = Cell::Int(self.rng.random_range(0..40));
                let sku = word(&mut self.rng, &["S1", "S2", "S3", "s1", "Ω"]);
                let units = Cell::Int(self.rng.random_range(-2_000..9_000));
                vec![Cell::Int(id), self.maybe(order), self.maybe(sku), self.maybe(units)]
            }
        }
    }

    /// Random inserts, updates and deletes of some tables, as exact deltas in random order.
    pub(crate) fn random_epoch(&mut self, n_changes: usize) -> SourceEpoch {
        let mut deltas: Vec<Vec<(Row, i64)>> = vec![Vec::new(); self.tables.len()];
        for _ in 0..n_changes {
            let table = self.rng.random_range(0..self.tables.len());
            let id = self.rng.random_range(0..[12, 40, 70][table]);
            let old = self.rows[table].remove(&id);
            deltas[table].extend(old.map(|row| (row, -1)));
            if self.rng.random_bool(0.75) {
                let row = self.random_row(table, id);
                self.rows[table].insert(id, row.clone());
                deltas[table].push((row, 1));
            }
        }
        let mut epoch = SourceEpoch::default();
        for (table, mut changes) in self.tables.iter().zip(deltas) {
            if changes.is_empty() {
                continue;
            }
            for i in (1..changes.len()).rev() {
                changes.swap(i, self.rng.random_range(0..=i));
            }
            let (rows, weights): (Vec<Row>, Vec<i64>) = changes.into_iter().unzip();
            let delta = Delta::new(batch(&table.schema, &rows), Int64Array::from(weights));
            epoch.tables.push(TableDelta { table: Arc::clone(&table.name), delta, positions: Vec::new() });
        }
        epoch
    }

    pub(crate) fn table_rows(&self, name: &str) -> Option<RecordBatch> {
        let at = self.tables.iter().position(|t| &*t.name == name)?;
        let rows: Vec<Row> = self.rows[at].values().cloned().collect();
        Some(batch(&self.tables[at].schema, &rows))
    }
}

pub(crate) fn program(views: &[(String, String)]) -> Program {
    let files: Vec<SqlFile> = views
        .iter()
        .map(|(name, sql)| SqlFile {
            path: format!("{name}.sql"),
            text: format!("CREATE MATERIALIZED VIEW {name} AS {sql};"),
        })
        .collect();
    Program::load_sharded(&tables(), &files, &[], shards()).unwrap_or_else(|all| {
        panic!(
            "{}",
            all.iter().map(|d| format!("{d} in {:?}\n", files.iter().find(|f| f.path == d.path))).collect::<String>()
        )
    })
}

pub(crate) fn engine(views: &[(String, String)], clock: &ManualClock) -> Engine {
    Engine::new(program(views), Arc::new(clock.clone())).expect("column types can be kept")
}

/// Rows as text, sorted, so that two results can be compared as multisets.
pub(crate) fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let mut lines = Vec::new();
    for batch in batches {
        let columns: Vec<ArrayFormatter<'_>> =
            batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).expect("printable")).collect();
        for row in 0..batch.num_rows() {
            lines.push(columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join(" | "));
        }
    }
    lines.sort();
    lines
}

/// 1, 2, 3, 1 and so on: neither results nor stored state depend on the number of shards.
pub(crate) fn shards() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed) % 3 + 1
}

/// The kept view and the same SQL over the tables as they stand must be equal.
pub(crate) fn check(engine: &mut Engine, world: &World, views: &[(String, String)], context: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    for (name, sql) in views {
        assert_eq!(engine.failures(), vec![], "{context}");
        let kept = engine.contents(name).expect("decodes").expect("known view");
        let rows = |table: &str| world.table_rows(table);
        let (_, plain) = runtime.block_on(engine.query(sql, &rows)).expect("plain SQL runs");
        let (kept, plain) = (lines(&[kept]), lines(&plain));
        assert!(
            kept == plain,
            "{context}\nview {name}: {sql}\nonly kept:  {:#?}\nonly plain: {:#?}",
            kept.iter().filter(|l| !plain.contains(l)).take(5).collect::<Vec<_>>(),
            plain.iter().filter(|l| !kept.contains(l)).take(5).collect::<Vec<_>>(),
        );
    }
}

pub(crate) fn flush(engine: &mut Engine) {
    engine.step(&SourceEpoch::default(), StepMode::Flush);
}
