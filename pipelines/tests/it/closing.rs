//! What time does to views over append-only tables: windows close, state goes, what comes too late is not lost.
//!
//! `ANDON_CLOSING_SEED=n` replays one seed.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use model::clock::ManualClock;
use model::log::TopicSelector;
use model::{
    Delta, EventTime, SourceEpoch, SourceFormat, SourceTable, SqlFile, SqlStatement, TableDelta, TableWatermark,
};
use pipelines::{Engine, Program, RuleQuery, StepMode};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::world::{Cell, NOW_US, Row, batch, lines, shards};

pub(crate) const S: i64 = 1_000_000;

/// An append-only table `(id, k, ts, amount)` with a watermark on `ts`.
pub(crate) fn appended(name: &str) -> SourceTable {
    let fields = vec![
        Field::new("id", DataType::Int64, true),
        Field::new("k", DataType::Int64, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("amount", DataType::Int64, true),
    ];
    SourceTable {
        name: Arc::from(name),
        time_digits: vec![3; fields.len()],
        schema: Arc::new(Schema::new(fields)),
        primary_key: Vec::new(),
        event_time: Some(EventTime { column: 2, delay_us: 0 }),
        ttl_us: None,
        unread: Vec::new(),
        topic: TopicSelector::Name(name.to_owned()),
        format: SourceFormat::Json,
        declared_at: String::new(),
    }
}

pub(crate) fn row(id: i64, k: i64, second: Option<i64>, amount: i64) -> Row {
    let ts = second.map_or(Cell::Null, |s| Cell::Int(s * S));
    vec![Cell::Int(id), Cell::Int(k), ts, Cell::Int(amount)]
}

/// Append-only tables, all rows sent so far, and an engine over them.
pub(crate) struct Streams {
    pub(crate) engine: Engine,
    clock: ManualClock,
    pub(crate) tables: Vec<SourceTable>,
    pub(crate) rows: BTreeMap<String, Vec<Row>>,
    watermarks: BTreeMap<String, i64>,
}

impl Streams {
    pub(crate) fn new(tables: &[&str], sql: &str) -> Self {
        let tables: Vec<SourceTable> = tables.iter().map(|t| appended(t)).collect();
        let file = SqlFile { path: "v.sql".to_owned(), text: sql.to_owned() };
        let program = Program::load_sharded(&tables, &[file], &[], shards())
            .unwrap_or_else(|all| panic!("{}", all.iter().map(|d| format!("{d}\n")).collect::<String>()));
        Self::of(tables, program)
    }

    fn of(tables: Vec<SourceTable>, program: Program) -> Self {
        let clock = ManualClock::at(NOW_US);
        let engine = Engine::new(program, Arc::new(clock.clone())).expect("columns can be kept");
        Self { engine, clock, tables, rows: BTreeMap::new(), watermarks: BTreeMap::new() }
    }

    /// One epoch: new rows by table, and the watermarks after it in seconds.
    pub(crate) fn step(&mut self, rows: &[(&str, Vec<Row>)], watermarks: &[(&str, i64)]) {
        let mut epoch = SourceEpoch::default();
        for (name, rows) in rows.iter().filter(|(_, rows)| !rows.is_empty()) {
            let table = self.tables.iter().find(|t| &*t.name == *name).expect("a table of the test");
            let delta = Delta::inserts(batch(&table.schema, rows));
            epoch.tables.push(TableDelta { table: Arc::clone(&table.name), delta, positions: Vec::new() });
            self.rows.entry((*name).to_owned()).or_default().extend(rows.iter().cloned());
        }
        for (name, second) in watermarks {
            self.watermarks.insert((*name).to_owned(), second * S);
        }
        let one = |(table, us): (&String, &i64)| TableWatermark {
            table: Arc::from(table.as_str()),
            watermark_us: Some(*us),
            partitions: Vec::new(),
        };
        epoch.watermarks = self.watermarks.iter().map(one).collect();
        self.engine.step(&epoch, StepMode::Flush);
        assert_eq!(self.engine.failures(), vec![]);
    }

    pub(crate) fn view(&mut self, name: &str) -> Vec<String> {
        lines(&[self.engine.contents(name).expect("decodes").expect("a view of the test")])
    }

    /// The rows of a table without those of a late relation, matched by id.
    pub(crate) fn in_time(&mut self, table: &str, late: &str) -> RecordBatch {
        let late = self.engine.contents(late).expect("decodes").expect("a late relation");
        let id = late.schema().index_of("id").expect("late rows are whole");
        let ids: Vec<i64> =
            arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(late.column(id)).values().to_vec();
        let schema = &self.tables.iter().find(|t| &*t.name == table).expect("a table of the test").schema;
        let all = self.rows.get(table).cloned().unwrap_or_default();
        let rows: Vec<Row> = all.into_iter().filter(|r| !ids.iter().any(|id| r[0] == Cell::Int(*id))).collect();
        batch(schema, &rows)
    }

    pub(crate) fn plain(&mut self, sql: &str, rows: &(dyn Fn(&str) -> Option<RecordBatch> + Sync)) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        lines(&runtime.block_on(self.engine.query(sql, rows)).expect("plain SQL runs").1)
    }

    pub(crate) fn state_rows(&self) -> usize {
        self.engine.state_rows().iter().map(|(_, rows)| rows).sum()
    }
}

const TUMBLING: &str = "SELECT k, window_start, window_end, count(*) AS n, sum(amount) AS total, max(amount) AS hi \
     FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '10' SECOND)) WHERE amount <> 3 \
     GROUP BY k, window_start, window_end";

#[test]
fn a_window_closes_with_the_watermark_and_its_state_goes() {
    let mut s = Streams::new(&["s"], &format!("CREATE MATERIALIZED VIEW v AS {TUMBLING};"));
    s.step(&[("s", vec![row(1, 1, Some(1), 5), row(2, 1, Some(9), 7), row(3, 2, Some(12), 1)])], &[("s", 9)]);
    assert_eq!(s.state_rows(), 2);
    // In time: the watermark had not reached the end of the window when the row came.
    s.step(&[("s", vec![row(4, 1, Some(2), 1)])], &[("s", 10)]);
    let first = "1 | 1970-01-01T00:00:00 | 1970-01-01T00:00:10 | 3 | 13 | 7";
    assert!(s.view("v").contains(&first.to_owned()), "{:?}", s.view("v"));
    assert_eq!(s.state_rows(), 1);
    // Too late, and a row of the open window that is old as well: that one is in time.
    s.step(&[("s", vec![row(5, 1, Some(9), 100), row(6, 2, Some(10), 100)])], &[("s", 10)]);
    assert!(s.view("v").contains(&first.to_owned()));
    let late = s.view("v__late");
    assert_eq!(late, ["5 | 1 | 1970-01-01T00:00:09 | 100 | behind the watermark | 1970-01-01T00:00:10Z | 0"]);
    // Nor does a row that the view leaves out count as late.
    s.step(&[("s", vec![row(7, 1, Some(1), 3)])], &[("s", 30)]);
    assert_eq!((s.view("v__late").len(), s.state_rows()), (1, 1));
}

#[test]
fn times_that_are_null_close_nothing() {
    let mut s = Streams::new(
        &["s"],
        "CREATE MATERIALIZED VIEW v AS SELECT date_trunc('minute', ts) AS m, count(*) AS n FROM s GROUP BY 1;",
    );
    s.step(&[("s", vec![row(1, 1, None, 5), row(2, 1, Some(-100), 7)])], &[("s", -50)]);
    s.step(&[("s", vec![row(3, 1, None, 5), row(4, 1, Some(-130), 7), row(5, 1, Some(-55), 7)])], &[("s", 1_000)]);
    assert_eq!(s.view("v"), ["1969-12-31T23:58:00 | 1", "1969-12-31T23:59:00 | 1", "NULL | 2"]);
    assert_eq!(s.view("v__late").len(), 1);
}

fn seeds() -> Vec<u64> {
    match std::env::var("ANDON_CLOSING_SEED").ok().and_then(|v| v.parse().ok()) {
        Some(seed) => vec![seed],
        None => (0..10).collect(),
    }
}

/// Rows with random times around a time that goes on.
fn random_rows(rng: &mut StdRng, next_id: &mut i64, now: i64) -> Vec<Row> {
    let n_rows = rng.random_range(0..30);
    let mut one = || {
        *next_id += 1;
        let second = (!rng.random_bool(0.03)).then(|| now - rng.random_range(0..25));
        row(*next_id, rng.random_range(0..4), second, rng.random_range(0..9))
    };
    (0..n_rows).map(|_| one()).collect()
}

/// Views over one stream: whatever is declared late, the view is the plain SQL over the rest; and state stays small.
fn check(queries: &[String], state_max: usize) {
    let sql: String =
        queries.iter().enumerate().map(|(i, q)| format!("CREATE MATERIALIZED VIEW v{i} AS {q};\n")).collect();
    for seed in seeds() {
        let mut s = Streams::new(&["s"], &sql);
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut now, mut next_id, mut most) = (0, 0, 0);
        for round in 0..40 {
            now += rng.random_range(0..8);
            let rows = random_rows(&mut rng, &mut next_id, now);
            s.step(&[("s", rows)], &[("s", now - 12)]);
            if round > 20 {
                let n_late: usize = (0..queries.len()).map(|i| s.view(&format!("v{i}__late")).len()).sum();
                most = most.max(s.state_rows() - n_late);
            }
        }
        for (i, query) in queries.iter().enumerate() {
            let in_time = s.in_time("s", &format!("v{i}__late"));
            let rows = |table: &str| (table == "s").then(|| in_time.clone());
            assert_eq!(s.view(&format!("v{i}")), s.plain(query, &rows), "ANDON_CLOSING_SEED={seed}: {query}");
        }
        assert!(most < state_max, "ANDON_CLOSING_SEED={seed}: {most} entries of state");
        assert!(!s.view("v0__late").is_empty(), "ANDON_CLOSING_SEED={seed}: some rows are late");
    }
}

#[test]
fn closed_views_equal_plain_sql_over_what_was_in_time() {
    let queries = [
        TUMBLING.to_owned(),
        "SELECT DISTINCT k, date_trunc('minute', ts) AS minute FROM s".to_owned(),
        "SELECT k, ts, sum(amount) AS total FROM s GROUP BY k, ts".to_owned(),
        format!("SELECT window_end, sum(n) AS n, max(total) AS best FROM ({TUMBLING}) GROUP BY window_end"),
        "SELECT window_start, window_end, count(DISTINCT k) AS n FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '15' SECOND)) \
         GROUP BY window_start, window_end HAVING count(*) > 1"
            .to_owned(),
        "SELECT minute, max(n) AS most FROM (SELECT date_trunc('minute', ts) AS minute, k, count(*) AS n FROM s GROUP BY 1, 2) GROUP BY minute"
            .to_owned(),
    ];
    check(&queries, 200);
}

#[test]
fn partitions_by_window_close_as_groups_do() {
    let windows = "FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '10' SECOND))";
    let queries = [
        format!(
            "SELECT id, k, window_end, n FROM (SELECT *, row_number() OVER \
             (PARTITION BY k, window_start, window_end ORDER BY amount DESC, id) AS n {windows}) WHERE n <= 2"
        ),
        format!(
            "SELECT id, window_end, sum(amount) OVER (PARTITION BY window_start, window_end ORDER BY id) AS running, \
             lag(id) OVER (PARTITION BY k, window_end ORDER BY id) AS before {windows}"
        ),
        format!(
            "SELECT k, window_end, total FROM (SELECT *, rank() OVER (PARTITION BY window_end ORDER BY total DESC) AS r \
             FROM ({TUMBLING})) WHERE r = 1"
        ),
        "SELECT id FROM (SELECT *, row_number() OVER (PARTITION BY date_trunc('minute', ts), k ORDER BY id) AS n FROM s) \
         WHERE n = 1"
            .to_owned(),
    ];
    // The rows of two or three open windows, twice for the two OVER.
    check(&queries, 450);
}

#[test]
fn the_first_rows_of_a_window_are_emitted_when_it_closes() {
    let mut s = Streams::new(
        &["s"],
        "CREATE MATERIALIZED VIEW v AS SELECT id, window_end FROM (SELECT *, row_number() OVER \
           (PARTITION BY window_start, window_end ORDER BY amount DESC, id) AS n \
           FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '10' SECOND))) WHERE n = 1 EMIT ON WINDOW CLOSE;",
    );
    s.step(&[("s", vec![row(1, 1, Some(1), 5), row(2, 1, Some(2), 7)])], &[("s", 3)]);
    s.step(&[("s", vec![row(3, 2, Some(3), 9)])], &[("s", 9)]);
    assert_eq!(s.view("v"), Vec::<String>::new());
    s.step(&[], &[("s", 10)]);
    assert_eq!((s.view("v"), s.state_rows()), (vec!["3 | 1970-01-01T00:00:10".to_owned()], 0));
    s.step(&[("s", vec![row(4, 2, Some(3), 99)])], &[("s", 20)]);
    assert_eq!((s.view("v").len(), s.view("v__late").len()), (1, 1));
}

#[test]
fn a_union_waits_for_the_slower_source() {
    let sql = "CREATE MATERIALIZED VIEW v AS SELECT date_trunc('minute', ts) AS m, count(*) AS n \
               FROM (SELECT ts FROM a UNION ALL SELECT ts FROM b) GROUP BY 1;";
    let mut s = Streams::new(&["a", "b"], sql);
    s.step(&[("a", vec![row(1, 1, Some(10), 5)])], &[("a", 1_000)]);
    s.step(&[("b", vec![row(2, 1, Some(20), 5)])], &[("a", 2_000)]);
    assert_eq!((s.view("v"), s.state_rows()), (vec!["1970-01-01T00:00:00 | 2".to_owned()], 1));
    s.step(&[], &[("b", 60)]);
    assert_eq!(s.state_rows(), 0);
    s.step(&[("a", vec![row(3, 1, Some(30), 5)])], &[("b", 60)]);
    assert_eq!((s.view("v").len(), s.view("v__late").len()), (1, 1));
}

/// What has to wait for its window is there once, final; what is in no window is kept up to date.
#[test]
fn emit_on_window_close_shows_final_rows_only() {
    let mut s = Streams::new(
        &["s"],
        "CREATE MATERIALIZED VIEW v AS SELECT date_trunc('minute', ts) AS m, count(*) AS n FROM s GROUP BY 1 \
           EMIT ON WINDOW CLOSE;
         CREATE MATERIALIZED VIEW least AS SELECT m, min(n) AS n FROM v GROUP BY m;
         CREATE MATERIALIZED VIEW at_once AS SELECT date_trunc('minute', ts) AS m, count(*) AS n FROM s GROUP BY 1;",
    );
    s.step(&[("s", vec![row(1, 1, Some(10), 5), row(2, 1, None, 5), row(3, 1, Some(70), 5)])], &[("s", 10)]);
    assert_eq!(s.view("v"), ["NULL | 1"]);
    assert_eq!(s.view("at_once").len(), 3);
    s.step(&[("s", vec![row(4, 1, Some(50), 5), row(5, 1, None, 5)])], &[("s", 59)]);
    assert_eq!(s.view("v"), ["NULL | 2"]);
    // The row without a window was taken back, which an aggregate above must see.
    assert_eq!(s.view("least"), ["NULL | 2"]);
    s.step(&[], &[("s", 60)]);
    assert_eq!(s.view("v"), ["1970-01-01T00:00:00 | 2", "NULL | 2"]);
    s.step(&[("s", vec![row(6, 1, Some(11), 5)])], &[("s", 130)]);
    assert_eq!(s.view("v"), ["1970-01-01T00:00:00 | 2", "1970-01-01T00:01:00 | 1", "NULL | 2"]);
    assert_eq!(s.view("v__late").len(), 1);
}

#[test]
fn aggregates_above_truncated_times_close_as_well() {
    let counts = "SELECT date_trunc('minute', ts) AS m, k, count(*) AS n FROM s GROUP BY 1, 2";
    let mut s = Streams::new(
        &["s"],
        &format!("CREATE MATERIALIZED VIEW v AS SELECT m, max(n) AS most, count(*) AS ks FROM ({counts}) GROUP BY m;"),
    );
    s.step(&[("s", vec![row(1, 1, Some(10), 5), row(2, 1, Some(70), 5), row(3, 2, Some(71), 5)])], &[("s", 60)]);
    assert_eq!(s.state_rows(), 3);
    s.step(&[], &[("s", 120)]);
    assert_eq!(s.state_rows(), 0);
    assert_eq!(s.view("v"), ["1970-01-01T00:00:00 | 1 | 1", "1970-01-01T00:01:00 | 1 | 2"]);
}

#[test]
fn rows_that_have_come_for_good_are_not_remembered() {
    let mut s = Streams::new(
        &["s"],
        "CREATE MATERIALIZED VIEW past AS SELECT id FROM s WHERE ts <= CURRENT_TIMESTAMP;
         CREATE MATERIALIZED VIEW soon AS SELECT id FROM s WHERE ts + INTERVAL '1' DAY > CURRENT_TIMESTAMP;",
    );
    let now = NOW_US / S;
    s.step(&[("s", vec![row(1, 1, Some(now - 10), 5), row(2, 1, Some(now + 10), 5)])], &[]);
    assert_eq!((s.view("past"), s.view("soon").len()), (vec!["1".to_owned()], 2));
    // One row is to come into the one view, both are to leave the other.
    assert_eq!(s.state_rows(), 3);
    s.clock.set(NOW_US + 20 * S);
    s.step(&[], &[]);
    assert_eq!((s.view("past").len(), s.state_rows()), (2, 2));
    s.clock.set(NOW_US + 2 * 86_400 * S);
    s.step(&[], &[]);
    assert_eq!((s.view("past").len(), s.view("soon").len(), s.state_rows()), (2, 0, 0));
}

/// A late row is shown whole, so every column of its table must be decoded.
#[test]
fn late_relations_read_all_columns_of_their_table() {
    let text = format!(
        "CREATE MATERIALIZED VIEW closes AS {};
         CREATE MATERIALIZED VIEW b AS SELECT id FROM other;",
        "SELECT date_trunc('minute', ts) AS m, count(*) AS n FROM s GROUP BY 1"
    );
    let file = SqlFile { path: "v.sql".to_owned(), text };
    let program = Program::load(&[appended("s"), appended("other")], &[file], &[]).expect("loads");
    assert!((0..4).all(|column| program.reads("s", column)));
    assert!((1..4).all(|column| !program.reads("other", column)));
}

#[test]
fn late_rows_of_a_rule_are_readable() {
    let sql = "SELECT k, window_end, count(*) AS n FROM \
               TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY k, window_start, window_end";
    let statement = |sql: &str| SqlStatement {
        path: "r.sql".to_owned(),
        line: 1,
        column: 1,
        sql: sql.to_owned(),
        comment: String::new(),
    };
    let rule = |name: &str, sql: &str| RuleQuery {
        name: name.to_owned(),
        key: vec!["k".to_owned()],
        statement: statement(sql),
        description: None,
    };
    let program = Program::load(&[appended("s")], &[], &[rule("busy", sql)]).expect("loads");
    let mut s = Streams::of(vec![appended("s")], program);
    s.step(&[("s", vec![row(1, 1, Some(5), 5)])], &[("s", 10)]);
    s.step(&[("s", vec![row(2, 1, Some(5), 5)])], &[("s", 10)]);
    assert_eq!(s.view("busy__late").len(), 1);
    for (views, name) in [
        ("CREATE VIEW busy__late AS SELECT 1 AS k;", "busy"),
        (&*format!("CREATE MATERIALIZED VIEW v AS {sql};"), "v__late"),
    ] {
        let file = SqlFile { path: "v.sql".to_owned(), text: views.to_owned() };
        let refused = Program::load(&[appended("s")], &[file], &[rule(name, sql)]).expect_err("two of one name");
        assert!(
            refused.iter().all(|d| d.message.contains("has the name of") || d.message.contains("have the name of")),
            "{refused:?}"
        );
    }
}
