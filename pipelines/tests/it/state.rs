//! Stored state: what an engine is after kill and restore equals what it would be without.
//!
//! `ANDON_STATE_SEED=7 cargo test -p pipelines --test it state` replays one seed.

use std::collections::BTreeMap;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, TimeUnit};
use model::clock::ManualClock;
use model::{Delta, EventTime, SourceEpoch, SourceTable, SqlFile, TableDelta, TableWatermark};
use pipelines::{Engine, Program, Saver, StateStore, StepMode};
use rand::Rng;

use crate::world::{Cell, NOW_US, Row, World, batch, check, flush, lines, program, shards, table, tables};

/// Seeds in one run of the tests; a seed takes about a second.
const RUNS: u64 = 4;
const EPOCHS: usize = 24;

fn views() -> Vec<(String, String)> {
    let views = [
        (
            "by_status",
            "SELECT status, count(*) AS n, sum(amount) AS total, min(qty) AS least FROM orders GROUP BY status",
        ),
        ("named", "SELECT o.id, c.name, o.amount FROM orders o JOIN customers c ON c.id = o.customer_id"),
        (
            "lonely",
            "SELECT c.id FROM customers c LEFT JOIN orders o ON o.customer_id = c.id AND o.qty > 3 WHERE o.id IS NULL",
        ),
        ("recent", "SELECT id FROM orders WHERE created_at > CURRENT_TIMESTAMP - INTERVAL '5' DAY"),
        (
            "skus",
            "SELECT sku, count(DISTINCT order_id) AS orders, max(units) AS most, avg(units) AS mean FROM items GROUP BY sku",
        ),
        ("kinds", "SELECT DISTINCT grp FROM customers"),
        (
            "chain",
            "WITH RECURSIVE r AS (SELECT id, 1 AS depth FROM customers WHERE id < 3 UNION ALL \
                   SELECT r.id + 3, depth + 1 FROM r WHERE depth < 3) SELECT count(*) AS n, max(id) AS top FROM r",
        ),
        (
            "top",
            "SELECT id, status, n FROM (SELECT *, row_number() OVER (PARTITION BY status ORDER BY amount DESC, id) AS n FROM orders) WHERE n <= 3",
        ),
        ("largest", "SELECT id, amount FROM orders ORDER BY amount DESC NULLS LAST, id LIMIT 5 OFFSET 1"),
        (
            "steps",
            "SELECT id, lag(qty) OVER (PARTITION BY status ORDER BY id) AS before, sum(qty) OVER (PARTITION BY status ORDER BY id) AS running FROM orders",
        ),
        (
            "figures",
            "SELECT status, array_agg(id ORDER BY amount DESC, id) AS ids, last_value(qty ORDER BY id) AS newest, sum(DISTINCT qty) AS d, median(qty) AS m, round(stddev(weight), 9) AS s, round(sum(weight), 9) AS w FROM orders GROUP BY status",
        ),
        (
            "sets",
            "SELECT status, day, count(*) AS n, sum(amount) AS total FROM orders GROUP BY GROUPING SETS ((status), (day), ())",
        ),
        (
            "regression",
            "SELECT status, round(regr_slope(weight, qty) + 1.7e-7, 6) AS b, round(corr(amount, qty) + 1.7e-7, 6) AS c, bit_and(qty) AS a, bit_xor(id) AS x, approx_distinct(amount) AS d FROM orders GROUP BY status",
        ),
        (
            "heavier",
            "SELECT o.id, i.id AS item FROM orders o FULL JOIN items i ON i.order_id % 4 = o.id % 4 AND i.units > o.qty * 30",
        ),
        ("unlike", "SELECT id FROM orders WHERE status NOT IN (SELECT grp FROM customers)"),
        ("over_view", "SELECT count(*) AS statuses, sum(total) AS total FROM by_status"),
    ];
    views.into_iter().map(|(n, q)| (n.to_owned(), q.to_owned())).collect()
}

/// One net change per row, as the sources give it.
pub(crate) fn net(mut epoch: SourceEpoch) -> SourceEpoch {
    for table in &mut epoch.tables {
        let mut rows: BTreeMap<String, (usize, i64)> = BTreeMap::new();
        let batch = &table.delta.rows;
        for i in 0..batch.num_rows() {
            let text = format!("{:?}", batch.slice(i, 1));
            rows.entry(text).or_insert((i, 0)).1 += table.delta.weights.value(i);
        }
        let kept: Vec<(usize, i64)> = rows.into_values().filter(|(_, w)| *w != 0).collect();
        let slices: Vec<RecordBatch> = kept.iter().map(|(i, _)| batch.slice(*i, 1)).collect();
        let rows = arrow::compute::concat_batches(&batch.schema(), &slices).expect("one schema");
        table.delta = Delta::new(rows, Int64Array::from_iter_values(kept.iter().map(|(_, w)| *w)));
    }
    epoch
}

fn engine(views: &[(String, String)], clock: &ManualClock, all_operators: bool) -> Engine {
    let mut program = program(views);
    if all_operators {
        program.store_all_operators();
    }
    Engine::new(program, std::sync::Arc::new(clock.clone())).expect("column types can be kept")
}

async fn killed_and_restored(seed: u64, all_operators: bool) -> (Engine, World) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let place = dir.path().display().to_string();
    let mut world = World::new(seed);
    let mut random_epoch = || {
        let n_changes = world.rng.random_range(1..30);
        net(world.random_epoch(n_changes))
    };
    let epochs: Vec<SourceEpoch> = (0..EPOCHS).map(|_| random_epoch()).collect();
    let views = views();
    let clock = ManualClock::at(NOW_US);
    let mut at = 0;
    let mut saved_at = 0;
    let mut lives = 0;
    loop {
        lives += 1;
        let store = StateStore::open(&place).await.expect("the place can be used");
        let mut engine = engine(&views, &clock, all_operators);
        let restored = store.restore(&program_of(&views, all_operators)).await.expect("readable");
        assert_eq!(restored.is_some(), saved_at > 0, "seed {seed}");
        let saver = Saver::new(store, &mut engine, restored.as_ref()).expect("storable");
        if let Some(restored) = &restored {
            engine.restore(restored).expect("restorable");
        }
        at = at.min(saved_at);
        while at < EPOCHS {
            engine.step(&epochs[at], if world.rng.random_bool(0.5) { StepMode::Normal } else { StepMode::Flush });
            at += 1;
            clock.set(NOW_US + at as i64 * 3_600_000_000);
            if world.rng.random_bool(0.3) {
                saver.save(&mut engine).await.expect("stored");
                saved_at = at;
            }
            if world.rng.random_bool(0.2) {
                break;
            }
        }
        if at == EPOCHS {
            flush(&mut engine);
            println!("{lives} lives, all operators: {all_operators}");
            return (engine, world);
        }
        // Killed: neither saved nor closed.
    }
}

fn program_of(views: &[(String, String)], all_operators: bool) -> Program {
    let mut program = program(views);
    if all_operators {
        program.store_all_operators();
    }
    program
}

fn seeds() -> Vec<u64> {
    match std::env::var("ANDON_STATE_SEED") {
        Ok(seed) => vec![seed.parse().expect("ANDON_STATE_SEED is a number")],
        Err(_) => (0..RUNS).map(|_| rand::random_range(0..1_000_000)).collect(),
    }
}

#[test]
fn a_killed_engine_goes_on_from_its_state() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    for seed in seeds() {
        println!("ANDON_STATE_SEED={seed}");
        for all_operators in [false, true] {
            let (mut engine, world) = runtime.block_on(killed_and_restored(seed, all_operators));
            check(&mut engine, &world, &views(), &format!("seed {seed}, all operators: {all_operators}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_view_is_rebuilt_and_a_second_opener_fences_the_first() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let place = dir.path().display().to_string();
    let mut world = World::new(3);
    let clock = ManualClock::at(NOW_US);
    let mut views = views();
    let store = StateStore::open(&place).await.expect("the place can be used");
    let mut first = engine(&views, &clock, false);
    let old_saver = Saver::new(store, &mut first, None).expect("storable");
    for _ in 0..5 {
        let epoch = net(world.random_epoch(40));
        first.step(&epoch, StepMode::Normal);
    }
    old_saver.save(&mut first).await.expect("stored");

    views[0].1 =
        "SELECT status, count(*) AS n, sum(amount) AS total FROM orders WHERE qty > 0 GROUP BY status".to_owned();
    let store = StateStore::open(&place).await.expect("the place can be used");
    let restored = store.restore(&program_of(&views, false)).await.expect("readable").expect("stored before");
    let mut second = engine(&views, &clock, false);
    let saver = Saver::new(store, &mut second, Some(&restored)).expect("storable");
    second.restore(&restored).expect("restorable");
    second.step(&net(world.random_epoch(40)), StepMode::Flush);
    saver.save(&mut second).await.expect("stored");
    tokio::task::spawn_blocking(move || check(&mut second, &world, &views, "changed view")).await.expect("equal");

    first.step(&SourceEpoch::default(), StepMode::Flush);
    let error = old_saver.save(&mut first).await.expect_err("fenced");
    assert!(error.to_string().contains("took over"), "{error}");
}

/// Events that only ever come, and one changing table; every epoch says how far the topic `events` has been read.
fn stream(seed: u64) -> Vec<SourceEpoch> {
    let mut world = World::new(seed);
    let mut n_events = 0;
    (0..EPOCHS)
        .map(|no| {
            let now_s = 10 * no as i64;
            let mut epoch = net(world.random_epoch(4));
            epoch.tables.retain(|t| &*t.table == "customers");
            let rows: Vec<Row> = (0..world.rng.random_range(0..9))
                .map(|i| {
                    let kind = ["scan", "move", "count"][world.rng.random_range(0..3)].to_owned();
                    let amount = world.rng.random_range(-500..5_000);
                    let at = (now_s - world.rng.random_range(0..25)) * 1_000_000;
                    vec![Cell::Int(n_events + i), Cell::Text(kind), Cell::Int(amount), Cell::Int(at)]
                })
                .collect();
            n_events += rows.len() as i64;
            epoch.offsets.set("events", 0, n_events);
            let delta = Delta::inserts(batch(&events().schema, &rows));
            epoch.tables.push(TableDelta { table: events().name, delta, positions: Vec::new() });
            let watermark_us = Some((now_s - 15) * 1_000_000);
            epoch.watermarks = vec![TableWatermark { table: events().name, watermark_us, partitions: Vec::new() }];
            epoch
        })
        .collect()
}

fn events() -> SourceTable {
    let columns = [
        ("id", DataType::Int64),
        ("kind", DataType::Utf8),
        ("amount", DataType::Decimal128(12, 2)),
        ("at", DataType::Timestamp(TimeUnit::Microsecond, None)),
    ];
    let mut events = table("events", &columns);
    events.primary_key = Vec::new();
    events.event_time = Some(EventTime { column: 3, delay_us: 0 });
    events
}

const OVER_EVENTS: [&str; 9] = [
    "CREATE MATERIALIZED VIEW raw AS SELECT * FROM events;",
    "CREATE MATERIALIZED VIEW by_kind AS SELECT kind, count(*) AS n, max(amount) AS most FROM events GROUP BY kind;",
    "CREATE MATERIALIZED VIEW named AS SELECT e.id, c.name FROM events e JOIN customers c ON c.id = e.id % 12;",
    "CREATE MATERIALIZED VIEW windows AS SELECT window_end, count(*) AS n FROM \
       TABLE(TUMBLE(TABLE events, DESCRIPTOR(at), INTERVAL '30' SECOND)) GROUP BY window_start, window_end;",
    "CREATE MATERIALIZED VIEW largest AS SELECT id, window_end, n FROM (SELECT *, \
       row_number() OVER (PARTITION BY kind, window_start, window_end ORDER BY amount DESC, id) AS n \
       FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(at), INTERVAL '30' SECOND))) WHERE n <= 2;",
    "CREATE MATERIALIZED VIEW running AS SELECT id, sum(amount) OVER (PARTITION BY window_start, window_end \
       ORDER BY id) AS s FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(at), INTERVAL '30' SECOND));",
    "CREATE MATERIALIZED VIEW over_raw AS SELECT count(*) AS n, sum(amount) AS total FROM raw;",
    "CREATE MATERIALIZED VIEW by_size AS SELECT n % 3 AS size, count(*) AS kinds, sum(most) AS total FROM by_kind GROUP BY n % 3;",
    "CREATE MATERIALIZED VIEW first_kind AS SELECT size, kind, most FROM (SELECT *, n % 3 AS size, \
       row_number() OVER (PARTITION BY n % 3 ORDER BY most DESC, kind) AS place FROM by_kind) WHERE place = 1;",
];
/// What its operators have put out follows from the state of those below it.
const LATECOMER: &str = "CREATE MATERIALIZED VIEW by_count WITH ('key' = 'n') AS SELECT kind, count(*) AS n, \
                         max(amount) AS most FROM events GROUP BY kind;";

fn over_events(statements: &[&str]) -> Program {
    let files: Vec<SqlFile> =
        statements.iter().map(|text| SqlFile { path: "views.sql".to_owned(), text: (*text).to_owned() }).collect();
    let tables: Vec<SourceTable> = tables().into_iter().chain([events()]).collect();
    Program::load_sharded(&tables, &files, &[], shards()).unwrap_or_else(|all| panic!("{all:?}"))
}

/// It wants to know of every event what nobody has noted.
const STRANGER: &str =
    "CREATE MATERIALIZED VIEW least_by_kind AS SELECT kind, min(amount) AS least FROM events GROUP BY kind;";

/// Steps from the stored state on until `end`, storing it now and then; returns what all views hold.
async fn live_until(
    place: &str,
    epochs: &[SourceEpoch],
    statements: &[&str],
    (end, save_every): (usize, usize),
) -> (bool, Vec<Vec<String>>) {
    let clock = std::sync::Arc::new(ManualClock::at(NOW_US));
    let store = StateStore::open(place).await.expect("the place can be used");
    let program = over_events(statements);
    let names: Vec<String> = program.views().into_iter().map(|v| v.name).collect();
    let restored = store.restore(&program).await.expect("readable");
    let mut engine = Engine::new(program, clock).expect("column types can be kept");
    let saver = Saver::new(store, &mut engine, restored.as_ref()).expect("storable");
    let read_until = restored.as_ref().and_then(|r| r.source.offsets.get("events", 0));
    if let Some(restored) = &restored {
        engine.restore(restored).expect("restorable");
    }
    // The changing table's rows came with the state, and what is read again of it is old.
    let stored = restored.as_ref().map_or(0, |_| stored_epochs(place));
    for (at, epoch) in epochs[..end].iter().enumerate() {
        let mut epoch = epoch.clone();
        let is_read = epoch.offsets.get("events", 0) <= read_until;
        epoch.tables.retain(|t| if &*t.table == "events" { !is_read } else { at >= stored });
        engine.step(&epoch, StepMode::Normal);
        let reads_again = restored.is_some() && read_until.is_none();
        if (at >= stored && (at + 1) % save_every == 0) || (reads_again && at + 1 == EPOCHS) {
            saver.save(&mut engine).await.expect("stored");
            std::fs::write(format!("{place}.epochs"), (at + 1).to_string()).expect("written");
        }
    }
    let contents = |name: &String| lines(&[engine.contents(name).expect("decodes").expect("known")]);
    (read_until.is_some(), names.iter().map(contents).collect())
}

fn stored_epochs(place: &str) -> usize {
    std::fs::read_to_string(format!("{place}.epochs")).map_or(0, |text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_over_append_only_tables_survive_and_a_new_one_makes_them_start_anew() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let place = |name: &str| dir.path().join(name).display().to_string();
    let more: Vec<&str> = OVER_EVENTS.iter().chain([&LATECOMER]).copied().collect();
    let all: Vec<&str> = more.iter().chain([&STRANGER]).copied().collect();
    for seed in seeds() {
        println!("ANDON_STATE_SEED={seed}");
        let epochs = stream(seed);
        let (_, expected) = live_until(&place(&format!("{seed}-whole")), &epochs, &OVER_EVENTS, (EPOCHS, 99)).await;
        let killed = place(&format!("{seed}-killed"));
        for end in [7, 8, 15, EPOCHS] {
            let (went_on, found) = live_until(&killed, &epochs, &OVER_EVENTS, (end, 3)).await;
            assert_eq!(went_on, end > 7, "seed {seed}");
            if end == EPOCHS {
                assert_eq!(found, expected, "seed {seed}");
            }
        }
        let (_, expected) = live_until(&place(&format!("{seed}-more")), &epochs, &more, (EPOCHS, 99)).await;
        let (went_on, found) = live_until(&killed, &epochs, &more, (EPOCHS, 3)).await;
        assert!(went_on, "the new view is made of what is stored");
        assert_eq!(found, expected, "seed {seed}, with a new view over stored operators");
        let (_, expected) = live_until(&place(&format!("{seed}-all")), &epochs, &all, (EPOCHS, 99)).await;
        let (went_on, found) = live_until(&killed, &epochs, &all, (EPOCHS, 3)).await;
        assert!(!went_on, "the topic is read again for the new view");
        assert_eq!(found, expected, "seed {seed}, with a new view");
        let (went_on, found) = live_until(&killed, &epochs, &all, (EPOCHS, 3)).await;
        assert!(went_on, "and then no more");
        assert_eq!(found, expected, "seed {seed}, after another restart");
    }
}
