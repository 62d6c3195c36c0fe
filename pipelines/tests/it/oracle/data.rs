//! Random schemas, random rows of them, and the changes that turn one state of the tables into the next.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::DataType;
use model::{Delta, SourceEpoch, SourceTable, SqlFile, TableDelta};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// 2025-10-09 08:53:20 UTC.
pub(crate) const NOW_US: i64 = 1_760_000_000_000_000;
pub(crate) const DAY_US: i64 = 86_400_000_000;
/// Keys of a table are chosen among so many at most, so that rows are met again.
const KEYS_MAX: i64 = 44;

/// What the grammar knows of a column. The last two only ever stand in a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Type {
    Int,
    Dec,
    Double,
    Text,
    Bool,
    Date,
    Time,
    /// A float that depends on the order of summing in its last digits.
    Fuzzy,
    List,
}

/// The values of a column. Arithmetic on wild ones would overflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Range {
    /// Few values, so that groups and joins meet.
    Few,
    /// The keys of other tables, and some that no table has.
    Reference,
    Wide,
    /// With the largest and smallest values of the type.
    Wild,
}

#[derive(Debug, Clone)]
pub(crate) struct ColumnSpec {
    pub(crate) name: String,
    pub(crate) ty: Type,
    pub(crate) ddl: String,
    pub(crate) nullable: bool,
    pub(crate) range: Range,
}

#[derive(Debug, Clone)]
pub(crate) struct TableSpec {
    pub(crate) name: String,
    pub(crate) columns: Vec<ColumnSpec>,
    /// The first so many columns are the key.
    pub(crate) n_key: usize,
    pub(crate) n_keys_max: i64,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    Null,
    Int(i64),
    Dec(i128),
    Text(String),
    Float(f64),
}

pub(crate) type Row = Vec<Cell>;

/// An upsert or delete by key: any part of a list of them is a valid history.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Op {
    pub(crate) table: usize,
    pub(crate) key: i64,
    /// The columns behind the key; `None` deletes.
    pub(crate) row: Option<Row>,
}

pub(crate) fn random_tables(rng: &mut StdRng) -> Vec<TableSpec> {
    (0..rng.random_range(2..=4)).map(|n| random_table(rng, n)).collect()
}

fn random_table(rng: &mut StdRng, n: usize) -> TableSpec {
    let mut columns = Vec::new();
    let mut push = |name: String, ty, ddl: &str, nullable, range| {
        columns.push(ColumnSpec { name, ty, ddl: ddl.to_owned(), nullable, range });
    };
    let n_key = match rng.random_range(0..6) {
        0 => {
            push("code".into(), Type::Text, "VARCHAR(20)", false, Range::Reference);
            1
        }
        1 => {
            push("part".into(), Type::Int, "INT", false, Range::Reference);
            push("line".into(), Type::Text, "STRING", false, Range::Few);
            2
        }
        2 => {
            push("part".into(), Type::Int, "BIGINT", false, Range::Reference);
            push("no".into(), Type::Int, "INT", false, Range::Few);
            2
        }
        _ => {
            push("id".into(), Type::Int, "BIGINT", false, Range::Reference);
            1
        }
    };
    // Every table has an event time, a reference, and something to group by and to sum up.
    push("at".into(), Type::Time, "TIMESTAMP(3)", rng.random_bool(0.7), Range::Wide);
    push("ref".into(), Type::Int, "BIGINT", rng.random_bool(0.7), Range::Reference);
    let kinds: [(Type, &[&str]); 7] = [
        (Type::Int, &["BIGINT", "INT"]),
        (Type::Dec, &["DECIMAL(12, 2)", "DECIMAL(10, 3)", "DECIMAL(18, 0)", "DECIMAL(9, 4)"]),
        (Type::Double, &["DOUBLE"]),
        (Type::Text, &["STRING", "VARCHAR(40)"]),
        (Type::Bool, &["BOOLEAN"]),
        (Type::Date, &["DATE"]),
        (Type::Time, &["TIMESTAMP(3)", "TIMESTAMP(6)"]),
    ];
    for i in 0..rng.random_range(3..=6) {
        let (ty, ddl) = if i < 2 { kinds[[3, 1][i]] } else { *kinds.choose(rng).expect("not empty") };
        let ddl = ddl.choose(rng).expect("not empty");
        let range = match ty {
            Type::Int => *[Range::Few, Range::Wide, Range::Wild].choose(rng).expect("not empty"),
            Type::Text | Type::Double => *[Range::Few, Range::Few, Range::Wide].choose(rng).expect("not empty"),
            _ => *[Range::Few, Range::Wide, Range::Wide, Range::Wild].choose(rng).expect("not empty"),
        };
        push(format!("{}{i}", ["a", "b", "x"][i.min(2)]), ty, ddl, rng.random_bool(0.75), range);
    }
    TableSpec { name: format!("t{n}"), columns, n_key, n_keys_max: rng.random_range(8..KEYS_MAX) }
}

impl TableSpec {
    /// Flink's DDL, as a source pack has it.
    pub(crate) fn ddl(&self) -> String {
        let mut text = format!("CREATE TABLE {} (", self.name);
        for c in &self.columns {
            let not_null = if c.nullable { "" } else { " NOT NULL" };
            write!(text, "{} {}{not_null}, ", c.name, c.ddl).expect("a String takes every text");
        }
        let key: Vec<&str> = self.columns[..self.n_key].iter().map(|c| c.name.as_str()).collect();
        write!(
            text,
            "PRIMARY KEY ({}) NOT ENFORCED) WITH ('connector' = 'kafka', 'topic' = 'shop.public.{}', 'format' = \
             'debezium-json');",
            key.join(", "),
            self.name
        )
        .expect("a String takes every text");
        text
    }

    /// The key columns' values of key number `key`.
    pub(crate) fn key_cells(&self, key: i64) -> Row {
        match (self.n_key, self.columns[0].ty) {
            (1, Type::Text) => vec![Cell::Text(format!("K{key}"))],
            (1, _) => vec![Cell::Int(key)],
            _ => {
                let second = key % 5;
                let second = match self.columns[1].ty {
                    Type::Text => Cell::Text(WORDS[usize::try_from(second).expect("small")].to_owned()),
                    _ => Cell::Int(second),
                };
                vec![Cell::Int(key / 5), second]
            }
        }
    }

    pub(crate) fn random_row(&self, rng: &mut StdRng) -> Row {
        let one = |c: &ColumnSpec, rng: &mut StdRng| match c.nullable && rng.random_bool(0.15) {
            true => Cell::Null,
            false => random_cell(c, rng),
        };
        self.columns[self.n_key..].iter().map(|c| one(c, rng)).collect()
    }
}

/// Words that differ in case, accents and blanks only, and those that LIKE and CSV find special.
pub(crate) const WORDS: [&str; 10] = ["ab", "AB", "", "Zür ich", "a_b%", " ab", "abc", "ö", "it's", "b\"c,d"];

fn random_cell(column: &ColumnSpec, rng: &mut StdRng) -> Cell {
    let wild = column.range == Range::Wild && rng.random_bool(0.25);
    match column.ty {
        Type::Int => Cell::Int(match (column.range, column.ddl.as_str()) {
            (Range::Wild, "INT") if wild => *[i64::from(i32::MIN), i64::from(i32::MAX)].choose(rng).expect("not empty"),
            (Range::Wild, _) if wild => *[i64::MIN, i64::MIN + 1, i64::MAX].choose(rng).expect("not empty"),
            (Range::Few, _) => rng.random_range(0..5),
            (Range::Reference, _) => rng.random_range(0..KEYS_MAX),
            _ => rng.random_range(-300..900),
        }),
        Type::Dec => {
            let (p, s) = precision_scale(&column.ddl);
            let max = 10_i128.pow(u32::from(p)) - 1;
            Cell::Dec(match column.range {
                Range::Wild if wild => *[max, -max].choose(rng).expect("not empty"),
                Range::Few => i128::from(rng.random_range(0..4)) * 10_i128.pow(u32::try_from(s).unwrap_or(0)) / 2,
                _ => i128::from(rng.random_range(-90_000..400_000_i64)),
            })
        }
        Type::Double => Cell::Float(match column.range {
            Range::Few => f64::from(rng.random_range(0..5)) * 0.5,
            _ => f64::from(rng.random_range(-400..4_000)) * 0.1,
        }),
        Type::Text => Cell::Text(match column.range {
            Range::Few => WORDS.choose(rng).copied().expect("not empty").to_owned(),
            _ => format!("{}{}", WORDS.choose(rng).expect("not empty"), rng.random_range(0..30)),
        }),
        Type::Bool => Cell::Int(rng.random_range(0..2)),
        Type::Date => Cell::Int(match column.range {
            // 0001-01-01 and 9999-12-31.
            Range::Wild if wild => *[-719_162, 2_932_896].choose(rng).expect("not empty"),
            Range::Few => 20_370 + rng.random_range(0..4),
            _ => 20_370 + rng.random_range(-500..40),
        }),
        Type::Time => Cell::Int(match column.range {
            Range::Wild if wild => *[-62_135_596_800_000_000, 253_402_300_799_999_000].choose(rng).expect("not empty"),
            _ if rng.random_bool(0.06) => -rng.random_range(0..90_000) * 1_000_003 / 1_000 * 1_000 - 1_000,
            Range::Few => NOW_US - rng.random_range(0..5) * DAY_US,
            _ => (NOW_US + rng.random_range(-20 * 24 * 60..6 * 24 * 60) * 60_000_000) / 1_000 * 1_000 + 7_000,
        }),
        Type::Fuzzy | Type::List => unreachable!("no table has such a column"),
    }
}

/// `DECIMAL(p, s)`.
pub(crate) fn precision_scale(ddl: &str) -> (u8, i8) {
    let inside = ddl.trim_start_matches("DECIMAL(").trim_end_matches(')');
    let (p, s) = inside.split_once(", ").expect("DECIMAL(p, s)");
    (p.parse().expect("a number"), s.parse().expect("a number"))
}

/// The tables as the DDL parser reads them.
pub(crate) fn source_tables(tables: &[TableSpec]) -> Vec<SourceTable> {
    let text: String = tables.iter().map(|t| t.ddl() + "\n").collect();
    ingest::ddl::parse_tables(&[SqlFile { path: "tables.sql".to_owned(), text }]).expect("the DDL is right")
}

/// Changes of random keys: inserts, updates, updates that change nothing, deletes, deletes of what is not there.
pub(crate) fn random_ops(rng: &mut StdRng, tables: &[TableSpec], n: usize) -> Vec<Op> {
    let mut ops: Vec<Op> = Vec::new();
    for _ in 0..n {
        let table = rng.random_range(0..tables.len());
        let key = rng.random_range(0..tables[table].n_keys_max);
        let again = ops.iter().rev().find(|o| o.table == table && o.row.is_some());
        let op = match rng.random_range(0..20) {
            0 if again.is_some() => again.expect("checked").clone(),
            // One column alone changes.
            1..4 if again.is_some() => {
                let mut op = again.expect("checked").clone();
                let fresh = tables[table].random_row(rng);
                let row = op.row.as_mut().expect("an upsert");
                let at = rng.random_range(0..row.len());
                row[at] = fresh[at].clone();
                op
            }
            4..9 => Op { table, key, row: None },
            _ => Op { table, key, row: Some(tables[table].random_row(rng)) },
        };
        ops.push(op);
    }
    ops
}

/// All rows of all tables.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) rows: Vec<BTreeMap<i64, Row>>,
}

impl State {
    pub(crate) fn new(tables: &[TableSpec]) -> Self {
        Self { rows: vec![BTreeMap::new(); tables.len()] }
    }

    /// Takes changes in and gives them as exact deltas, in an order that `shuffle` decides. `net`: a row that comes
    /// and goes within the epoch is not in it, as sources give their changes.
    pub(crate) fn apply(
        &mut self,
        ops: &[Op],
        specs: &[TableSpec],
        tables: &[SourceTable],
        shuffle: &mut StdRng,
        net: bool,
    ) -> SourceEpoch {
        let mut deltas: Vec<Vec<(Row, i64)>> = vec![Vec::new(); specs.len()];
        for op in ops {
            let whole = |row: &Row| [specs[op.table].key_cells(op.key), row.clone()].concat();
            let old = match &op.row {
                Some(row) => {
                    deltas[op.table].push((whole(row), 1));
                    self.rows[op.table].insert(op.key, row.clone())
                }
                None => self.rows[op.table].remove(&op.key),
            };
            deltas[op.table].extend(old.map(|row| (whole(&row), -1)));
        }
        if net {
            deltas.iter_mut().for_each(cancel);
        }
        let mut epoch = SourceEpoch { n_records: ops.len(), ..SourceEpoch::default() };
        for (table, mut changes) in tables.iter().zip(deltas) {
            if changes.is_empty() {
                continue;
            }
            for i in (1..changes.len()).rev() {
                changes.swap(i, shuffle.random_range(0..=i));
            }
            let (rows, weights): (Vec<Row>, Vec<i64>) = changes.into_iter().unzip();
            let delta = Delta::new(batch(table, &rows), Int64Array::from(weights));
            epoch.tables.push(TableDelta { table: Arc::clone(&table.name), delta, positions: Vec::new() });
        }
        epoch
    }

    pub(crate) fn table_rows(&self, at: usize, spec: &TableSpec, table: &SourceTable) -> RecordBatch {
        let rows: Vec<Row> =
            self.rows[at].iter().map(|(key, row)| [spec.key_cells(*key), row.clone()].concat()).collect();
        batch(table, &rows)
    }
}

/// Sums the weights of equal rows.
fn cancel(changes: &mut Vec<(Row, i64)>) {
    let mut sums: Vec<(Row, i64)> = Vec::new();
    for (row, weight) in changes.drain(..) {
        match sums.iter_mut().find(|(known, _)| *known == row) {
            Some((_, sum)) => *sum += weight,
            None => sums.push((row, weight)),
        }
    }
    sums.retain(|(_, weight)| *weight != 0);
    *changes = sums;
}

/// Rows as columns.
pub(crate) fn batch(table: &SourceTable, rows: &[Row]) -> RecordBatch {
    let columns = table.schema.fields().iter().enumerate().map(|(c, field)| -> ArrayRef {
        let ints = || rows.iter().map(move |r| if let Cell::Int(v) = r[c] { Some(v) } else { None });
        match field.data_type() {
            DataType::Int64 => Arc::new(ints().collect::<Int64Array>()),
            DataType::Int32 => Arc::new(ints().map(|v| v.map(narrow)).collect::<Int32Array>()),
            DataType::Date32 => Arc::new(ints().map(|v| v.map(narrow)).collect::<Date32Array>()),
            DataType::Boolean => Arc::new(ints().map(|v| v.map(|v| v != 0)).collect::<BooleanArray>()),
            DataType::Timestamp(_, zone) => {
                Arc::new(ints().collect::<TimestampMicrosecondArray>().with_timezone_opt(zone.clone()))
            }
            DataType::Decimal128(p, s) => Arc::new(
                rows.iter()
                    .map(|r| if let Cell::Dec(v) = r[c] { Some(v) } else { None })
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
    RecordBatch::try_new(Arc::clone(&table.schema), columns.collect()).expect("rows fit their schema")
}

fn narrow(value: i64) -> i32 {
    i32::try_from(value).expect("the generator keeps to the range")
}
