//! Which rows are late does not depend on how they arrive: in one go or in several runs that go on from stored state.
//!
//! `ANDON_LATENESS_SEED=N` replays one case.

use std::collections::BTreeMap;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::support::{andon, run};

const SECOND_MS: i64 = 1_000;
const DELAY_MS: i64 = 2 * SECOND_MS;
const WINDOW_MS: i64 = 5 * SECOND_MS;
const LATENESS_MS: i64 = 4 * SECOND_MS;

const TABLES: &str = "CREATE TABLE scan (id BIGINT, gate STRING, at TIMESTAMP(3), \
    WATERMARK FOR at AS at - INTERVAL '2' SECOND) WITH ('connector' = 'kafka', 'topic' = 'scans', 'format' = 'json');\n";
const VIEWS: &str = "CREATE MATERIALIZED VIEW by_window AS SELECT window_start, gate, COUNT(*) AS n, MAX(id) AS newest \
    FROM TABLE(TUMBLE(TABLE scan, DESCRIPTOR(at), INTERVAL '5' SECOND)) GROUP BY window_start, window_end, gate;\n\
    CREATE MATERIALIZED VIEW lenient WITH ('allowed_lateness' = '4 seconds') AS SELECT window_start, COUNT(*) AS n \
    FROM TABLE(TUMBLE(TABLE scan, DESCRIPTOR(at), INTERVAL '5' SECOND)) GROUP BY window_start, window_end;\n\
    CREATE MATERIALIZED VIEW hops AS SELECT window_start, COUNT(*) AS n FROM TABLE(HOP(TABLE scan, DESCRIPTOR(at), \
    INTERVAL '2' SECOND, INTERVAL '6' SECOND)) GROUP BY window_start, window_end;\n\
    CREATE MATERIALIZED VIEW closed AS SELECT window_start, COUNT(*) AS n FROM TABLE(TUMBLE(TABLE scan, \
    DESCRIPTOR(at), INTERVAL '5' SECOND)) GROUP BY window_start, window_end EMIT ON WINDOW CLOSE;\n";
const QUERIES: [(&str, &str); 6] = [
    ("by_window", "SELECT * FROM by_window"),
    ("lenient", "SELECT * FROM lenient"),
    ("hops", "SELECT * FROM hops"),
    ("closed", "SELECT * FROM closed"),
    ("late", "SELECT id, watermark FROM by_window__late"),
    ("late_hops", "SELECT watermark FROM hops__late"),
];

/// A row: gate and time.
type Scan = (char, i64);

fn write(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("created");
    std::fs::write(path, text).expect("written");
}

/// Times go on, and every now and then one lies so far back that it is late for some windows and not for others.
fn scans(random: &mut StdRng) -> Vec<Scan> {
    let mut newest_ms = 1_700_000_000_000;
    let mut one = |_| {
        newest_ms += random.random_range(0..2 * SECOND_MS);
        let back_ms = if random.random_bool(0.3) { random.random_range(0..15 * SECOND_MS) } else { 0 };
        (['a', 'b'][random.random_range(0..2)], newest_ms - back_ms)
    };
    (0..120).map(&mut one).collect()
}

/// Rows of the queries, sorted, after all records were read: in one go, or with stops at these offsets.
fn asked(dir: &Path, stops: &[usize]) -> BTreeMap<&'static str, Vec<String>> {
    let state = tempfile::tempdir().expect("temp folder");
    let at = |name: &str| dir.join(name).display().to_string();
    for stop in stops.iter().map(Some).chain([None]) {
        let mut command = andon();
        command.args(["query", "--source", &at("source"), "--views", &at("views"), "--replay", &at("capture")]);
        command.args(["--queries", &at("queries"), "--out", &at("out")]);
        if !stops.is_empty() {
            command.arg("--state").arg(state.path());
        }
        if let Some(stop) = stop {
            write(dir, "upto.json", &format!(r#"{{"scans": {{"0": {stop}}}}}"#));
            command.args(["--upto", &at("upto.json")]);
        }
        let (code, _, err) = run(&mut command);
        assert_eq!(code, 0, "{err}");
    }
    let rows = |name: &'static str| {
        let text = std::fs::read_to_string(dir.join("out").join(format!("{name}.csv"))).expect("the result is there");
        let mut lines: Vec<String> = text.lines().skip(1).map(str::to_owned).collect();
        lines.sort();
        (name, lines)
    };
    QUERIES.iter().map(|(name, _)| rows(name)).collect()
}

/// Rows per window: a row is late if its window had ended, `lateness_ms` included, when it came.
fn on_time(scans: &[Scan], lateness_ms: i64) -> BTreeMap<i64, i64> {
    let mut counts = BTreeMap::new();
    let mut watermark_ms = i64::MIN;
    for (_, at_ms) in scans {
        let start_ms = at_ms.div_euclid(WINDOW_MS) * WINDOW_MS;
        if start_ms + WINDOW_MS + lateness_ms > watermark_ms {
            *counts.entry(start_ms).or_insert(0) += 1;
        }
        watermark_ms = watermark_ms.max(at_ms - DELAY_MS);
    }
    counts
}

#[test]
fn rows_are_late_by_their_own_history_in_one_run_and_in_many() {
    let seed: Option<u64> = std::env::var("ANDON_LATENESS_SEED").ok().map(|text| text.parse().expect("a number"));
    let seed = seed.unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    println!("ANDON_LATENESS_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let scans = scans(&mut random);
    let dir = tempfile::tempdir().expect("temp folder");
    let record = |(offset, (gate, at_ms)): (usize, &Scan)| {
        let at = chrono::DateTime::from_timestamp_millis(*at_ms).expect("a time").format("%Y-%m-%d %H:%M:%S%.3f");
        let value = format!(r#"{{"id":{offset},"gate":"{gate}","at":"{at}"}}"#);
        format!(
            r#"{{"topic":"scans","partition":0,"offset":{offset},"timestamp":{offset},"key":null,"value":{value}}}"#
        )
    };
    let lines: Vec<String> = scans.iter().enumerate().map(record).collect();
    write(dir.path(), "capture/scans.ndjson", &(lines.join("\n") + "\n"));
    write(dir.path(), "source/tables.sql", TABLES);
    write(dir.path(), "views/views.sql", VIEWS);
    for (name, sql) in QUERIES {
        write(dir.path(), &format!("queries/{name}.sql"), sql);
    }

    let whole = asked(dir.path(), &[]);
    assert!(whole["late"].len() > 3 && whole["late_hops"].len() > 3, "{whole:?}");
    let counts = on_time(&scans, LATENESS_MS);
    let lenient: Vec<i64> =
        whole["lenient"].iter().map(|row| row.split(',').nth(1).expect("n").parse().expect("n")).collect();
    assert_eq!(lenient, counts.into_values().collect::<Vec<_>>());
    let n_late = scans.len() as i64 - on_time(&scans, 0).values().sum::<i64>();
    assert_eq!(whole["late"].len() as i64, n_late);

    let mut stops: Vec<usize> = (0..4).map(|_| random.random_range(1..scans.len())).collect();
    stops.sort_unstable();
    assert_eq!(asked(dir.path(), &stops), whole, "stops at {stops:?}");
}
