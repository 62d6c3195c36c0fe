//! Joins over time of append-only tables: equal to plain SQL over what was in time, with state that does not grow.
//!
//! `ANDON_JOINS_SEED=n` replays one seed.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::closing::{Streams, row};
use crate::world::Row;

const WITHIN: &str = "a.k = b.k AND b.ts BETWEEN a.ts - INTERVAL '5' SECOND AND a.ts + INTERVAL '3' SECOND";
const TUMBLED: &str = "TABLE(TUMBLE(TABLE a, DESCRIPTOR(ts), INTERVAL '10' SECOND))";

fn queries() -> Vec<String> {
    let kinds = ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"];
    let mut all: Vec<String> = kinds
        .iter()
        .map(|kind| {
            format!("SELECT a.id, b.id AS other, a.ts, b.amount FROM a {kind} b ON {WITHIN} AND a.amount <> b.amount")
        })
        .collect();
    all.extend([
        format!("SELECT id, ts FROM a WHERE EXISTS (SELECT 1 FROM b WHERE {WITHIN})"),
        format!("SELECT id, ts FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE {WITHIN})"),
        "SELECT a.id, b.id AS other FROM a JOIN b ON a.ts <= b.ts AND b.ts < a.ts + INTERVAL '2' SECOND".to_owned(),
        format!(
            "SELECT date_bin(INTERVAL '10' SECOND, at) AS w, count(*) AS n FROM \
             (SELECT a.ts AS at FROM a JOIN b ON {WITHIN}) GROUP BY 1"
        ),
        format!(
            "SELECT x.k, x.window_end, x.n, y.n AS others FROM \
             (SELECT k, window_end, count(*) AS n FROM {TUMBLED} GROUP BY k, window_start, window_end) x JOIN \
             (SELECT k, window_end, count(*) AS n FROM {} GROUP BY k, window_start, window_end) y \
             ON x.k = y.k AND x.window_end = y.window_end",
            TUMBLED.replace("TABLE a", "TABLE b")
        ),
        format!(
            "SELECT x.id, y.id AS other FROM {TUMBLED} x LEFT JOIN {} y \
             ON x.k = y.k AND x.window_end = y.window_end AND y.amount > x.amount",
            TUMBLED.replace("TABLE a", "TABLE b")
        ),
        // NEXMark q7: the rows that reach the highest value of their window.
        format!(
            "SELECT b.id, b.amount, b.ts FROM b JOIN \
             (SELECT max(amount) AS most, window_end AS at FROM {} GROUP BY window_start, window_end) m \
             ON b.amount = m.most AND b.ts BETWEEN m.at - INTERVAL '10' SECOND AND m.at",
            TUMBLED.replace("TABLE a", "TABLE b")
        ),
    ]);
    all
}

/// How far the rows' times are behind the newest at most; the watermarks are behind by [`DELAY`].
fn rows(rng: &mut StdRng, next_id: &mut i64, now: i64, disorder: i64) -> Vec<Row> {
    let n_rows = rng.random_range(0..12);
    let mut one = || {
        *next_id += 1;
        let second = (!rng.random_bool(0.03)).then(|| now - rng.random_range(0..disorder));
        row(*next_id, rng.random_range(0..3), second, rng.random_range(0..5))
    };
    (0..n_rows).map(|_| one()).collect()
}

/// How far the watermark is behind, seconds.
const DELAY: i64 = 8;

fn run(seed: u64, disorder: i64) {
    let mut queries = queries();
    if disorder > DELAY {
        // It reads one table in two ways, and a row may be late for one of them alone.
        queries.pop();
    }
    let sql: String =
        queries.iter().enumerate().map(|(i, q)| format!("CREATE MATERIALIZED VIEW v{i} AS {q};\n")).collect();
    let mut s = Streams::new(&["a", "b"], &sql);
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut a_now, mut b_now, mut next_id, mut most) = (0, 0, 0, 0);
    for round in 0..50 {
        a_now += rng.random_range(0..6);
        // One of the two may be ahead of the other.
        b_now = (b_now + rng.random_range(0..6)).max(a_now - 30);
        let a = rows(&mut rng, &mut next_id, a_now, disorder);
        let b = rows(&mut rng, &mut next_id, b_now, disorder);
        s.step(&[("a", a), ("b", b)], &[("a", a_now - DELAY), ("b", b_now - DELAY)]);
        if round > 30 {
            let n_late: usize = (0..queries.len()).map(|i| s.view(&format!("v{i}__late")).len()).sum();
            most = most.max(s.state_rows() - n_late);
        }
    }
    for (i, query) in queries.iter().enumerate() {
        let late = format!("v{i}__late");
        let (a, b) = (s.in_time("a", &late), s.in_time("b", &late));
        let rows = |table: &str| if table == "a" { Some(a.clone()) } else { Some(b.clone()) };
        let (kept, plain) = (s.view(&format!("v{i}")), s.plain(query, &rows));
        assert!(
            kept == plain,
            "ANDON_JOINS_SEED={seed}: {query}\nonly kept: {:#?}\nonly plain: {:#?}",
            kept.iter().filter(|l| !plain.contains(l)).take(5).collect::<Vec<_>>(),
            plain.iter().filter(|l| !kept.contains(l)).take(5).collect::<Vec<_>>(),
        );
        assert!(plain.len() > 3, "{query} finds something");
    }
    assert!(most < 4_000, "ANDON_JOINS_SEED={seed}: {most} entries of state");
}

#[test]
fn joins_over_time_equal_plain_sql_over_what_was_in_time() {
    match std::env::var("ANDON_JOINS_SEED").ok().and_then(|v| v.parse().ok()) {
        Some(seed) => run(seed, 8 + 7 * (seed % 2) as i64),
        None => (0..8).for_each(|seed| run(seed, 8 + 7 * (seed % 2) as i64)),
    }
}

#[test]
fn state_of_joins_over_time_goes() {
    let sql: String =
        queries().iter().enumerate().map(|(i, q)| format!("CREATE MATERIALIZED VIEW v{i} AS {q};\n")).collect();
    let mut s = Streams::new(&["a", "b"], &sql);
    let some = |from: i64| (0..20).map(|i| row(from + i, i % 3, Some(i), i % 5)).collect::<Vec<_>>();
    s.step(&[("a", some(0)), ("b", some(100))], &[("a", 0), ("b", 0)]);
    assert!(s.state_rows() > 100);
    s.step(&[], &[("a", 1_000), ("b", 1_000)]);
    assert_eq!(s.state_rows(), 0);
}
