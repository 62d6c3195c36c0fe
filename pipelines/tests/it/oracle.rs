//! The engine's conscience: after any random changes, a kept view equals the same SQL run by plain DataFusion.
//!
//! `ANDON_ORACLE_SEED=n` replays one seed, `ANDON_ORACLE_RUNS=n` says how many seeds to try.

mod case;
mod compare;
mod data;
mod expr;
mod features;
mod grouped;
mod postgres;
mod query;
mod random;
mod shrink;
mod subqueries;

use model::SourceEpoch;
use model::clock::ManualClock;
use pipelines::StepMode;
use rand::Rng;

use crate::world::{NOW_US, World, check, engine, flush};

/// Queries over the world's tables, each a feature or a mistake seen elsewhere.
const QUERIES: &[&str] = &[
    "SELECT id, amount * 2 AS double_amount, upper(status) AS status FROM orders WHERE qty > 3",
    "SELECT status, count(*) AS n, sum(amount) AS total, sum(qty) AS units FROM orders GROUP BY status",
    "SELECT status, count(qty) AS n, avg(amount) AS mean FROM orders GROUP BY status",
    "SELECT customer_id, min(amount) AS lo, max(amount) AS hi, min(status) AS s, max(created_at) AS at FROM orders GROUP BY customer_id",
    "SELECT day, status, count(DISTINCT customer_id) AS customers FROM orders GROUP BY day, status",
    "SELECT count(*) AS n, sum(amount) AS total, max(created_at) AS newest FROM orders",
    "SELECT count(*) AS n FROM orders WHERE status = 'nothing like it'",
    "SELECT status, count(*) FILTER (WHERE qty > 5) AS big, sum(amount) FILTER (WHERE amount > 0) AS plus FROM orders GROUP BY status",
    "SELECT status, sum(amount) AS total FROM orders GROUP BY status HAVING count(*) > 2",
    "SELECT DISTINCT status, day FROM orders",
    "SELECT o.id, c.name, o.amount FROM orders o JOIN customers c ON c.id = o.customer_id",
    "SELECT o.id, c.name, c.grp FROM orders o LEFT JOIN customers c ON c.id = o.customer_id",
    "SELECT o.id, c.name FROM orders o RIGHT JOIN customers c ON c.id = o.customer_id",
    "SELECT o.id, c.id AS cid FROM orders o FULL JOIN customers c ON c.id = o.customer_id",
    "SELECT o.id, i.id AS item, i.units FROM orders o JOIN items i ON i.order_id = o.id AND i.units > o.qty",
    "SELECT o.id, i.id AS item FROM orders o LEFT JOIN items i ON i.order_id = o.id AND i.units > o.qty",
    "SELECT o.id, i.id AS item FROM orders o FULL JOIN items i ON i.order_id = o.id AND i.units > o.qty",
    "SELECT a.id AS a, b.id AS b FROM customers a JOIN customers b ON a.grp = b.grp AND a.id < b.id",
    "SELECT a.id AS a, b.id AS b FROM customers a CROSS JOIN customers b WHERE a.id + b.id = 9",
    "SELECT id FROM orders WHERE EXISTS (SELECT 1 FROM items i WHERE i.order_id = orders.id)",
    "SELECT id FROM orders WHERE NOT EXISTS (SELECT 1 FROM items i WHERE i.order_id = orders.id AND i.units > 1)",
    "SELECT id FROM orders WHERE customer_id IN (SELECT id FROM customers WHERE grp = 'A')",
    "SELECT id FROM orders WHERE customer_id NOT IN (SELECT id FROM customers WHERE grp = 'A')",
    "SELECT id, (SELECT count(*) FROM items i WHERE i.order_id = o.id) AS n FROM orders o",
    "SELECT id, amount FROM orders WHERE amount > (SELECT avg(amount) FROM orders)",
    "SELECT c.grp, o.status, count(*) AS n, sum(i.units) AS units, count(DISTINCT o.id) AS orders FROM items i JOIN orders o ON o.id = i.order_id LEFT JOIN customers c ON c.id = o.customer_id GROUP BY c.grp, o.status",
    "SELECT window_start, window_end, count(*) AS n, sum(amount) AS total FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(created_at), INTERVAL '6' HOUR)) GROUP BY window_start, window_end",
    "SELECT status, window_start, max(qty) AS hi FROM TUMBLE(TABLE orders, DESCRIPTOR(created_at), INTERVAL '1' DAY, INTERVAL '2' HOUR) GROUP BY status, window_start",
    "SELECT window_start, window_end, status, count(*) AS n FROM TABLE(HOP(TABLE orders, DESCRIPTOR(created_at), INTERVAL '6' HOUR, INTERVAL '1' DAY)) GROUP BY window_start, window_end, status",
    "SELECT id, window_start, window_time FROM HOP(DATA => TABLE orders, TIMECOL => DESCRIPTOR(created_at), SLIDE => INTERVAL '1' DAY, SIZE => INTERVAL '8' HOUR, OFFSET => INTERVAL '2' HOUR) AS w",
    "SELECT window_start, window_end, sum(amount) AS total FROM TABLE(CUMULATE(TABLE orders, DESCRIPTOR(created_at), INTERVAL '8' HOUR, INTERVAL '1' DAY)) GROUP BY window_start, window_end",
    "SELECT customer_id, window_start, window_end, count(*) AS n FROM TABLE(SESSION(TABLE orders PARTITION BY customer_id, DESCRIPTOR(created_at), INTERVAL '9' HOURS)) GROUP BY customer_id, window_start, window_end",
    "SELECT id, unnest(make_array(status, 'x', NULL)) AS tag FROM orders",
    "SELECT id FROM orders UNION ALL SELECT order_id FROM items",
    "SELECT customer_id FROM orders UNION SELECT id FROM customers",
    "SELECT customer_id FROM orders INTERSECT SELECT id FROM customers",
    "SELECT id FROM customers EXCEPT SELECT customer_id FROM orders",
    "SELECT id, status FROM orders WHERE created_at > CURRENT_TIMESTAMP - INTERVAL '7' DAY AND created_at <= CURRENT_TIMESTAMP",
    "SELECT CASE WHEN CURRENT_DATE - day > 3 THEN 'old' ELSE 'new' END AS age, count(*) AS n FROM (SELECT CAST(day AS DATE) AS day_, CAST(CURRENT_DATE AS INT) AS x, CAST(day AS INT) AS day, id FROM orders) t CROSS JOIN (SELECT 0 AS z) u WHERE x > 0 GROUP BY CASE WHEN CURRENT_DATE - day > 3 THEN 'old' ELSE 'new' END",
    "SELECT count(*) FILTER (WHERE created_at < CURRENT_TIMESTAMP) AS past, count(*) AS n FROM orders",
    "SELECT id, created_at < CURRENT_TIMESTAMP AS past FROM orders",
    "SELECT customer_id, sum(amount) AS total FROM orders WHERE created_at > CURRENT_TIMESTAMP - INTERVAL '3' DAY GROUP BY customer_id ORDER BY total DESC NULLS LAST, customer_id LIMIT 3",
    "SELECT id, row_number() OVER (PARTITION BY status ORDER BY amount DESC, id) AS rank FROM orders",
    "SELECT status, median(qty) AS m, round(stddev(amount), 6) AS dev, bool_or(qty > 5) AS any_big FROM orders GROUP BY status",
    "SELECT status, round(sum(weight), 6) AS w, avg(qty) AS q FROM orders GROUP BY status",
    "SELECT customer_id, sum(DISTINCT qty) AS q FROM orders GROUP BY customer_id",
    "SELECT status, day, sum(amount) AS total FROM orders GROUP BY GROUPING SETS ((status), (day), ())",
    "SELECT id, amount FROM orders ORDER BY amount DESC NULLS LAST, id LIMIT 5 OFFSET 2",
    "WITH RECURSIVE chain AS (SELECT id, 0 AS depth FROM customers WHERE id = 1 UNION ALL SELECT c.id, depth + 1 FROM customers c JOIN chain ON c.id = chain.id + 1 WHERE depth < 4) SELECT id, depth FROM chain",
    "SELECT o.status, c.grp, count(*) AS n FROM orders o JOIN customers c ON c.grp IS NOT DISTINCT FROM o.status GROUP BY o.status, c.grp",
    "SELECT coalesce(c.grp, '(none)') AS g, sum(CASE WHEN o.status = 'open' THEN o.amount ELSE 0 END) AS open_amount FROM orders o LEFT JOIN customers c ON c.id = o.customer_id GROUP BY coalesce(c.grp, '(none)')",
    "SELECT t.status, t.n, c.n AS customers FROM (SELECT status, count(*) AS n FROM orders GROUP BY status) t CROSS JOIN (SELECT count(*) AS n FROM customers) c",
    "SELECT string_agg(sku, ',') AS skus, order_id FROM (SELECT DISTINCT sku, order_id FROM items WHERE sku = 'S1') GROUP BY order_id",
];

fn views() -> Vec<(String, String)> {
    QUERIES.iter().enumerate().map(|(i, sql)| (format!("q{i}"), (*sql).to_owned())).collect()
}

fn run(seed: u64) {
    let views = views();
    let mut world = World::new(seed);
    let clock = ManualClock::at(NOW_US);
    let mut engine = engine(&views, &clock);
    let mut now_us = NOW_US;
    for round in 0..6 {
        for _ in 0..world.rng.random_range(1..4) {
            let n_changes = world.rng.random_range(0..60);
            let epoch = world.random_epoch(n_changes);
            engine.step(&epoch, StepMode::Normal);
        }
        if world.rng.random_bool(0.6) {
            now_us += world.rng.random_range(-2..9) * 11 * 3_600_000_000;
            clock.set(now_us);
        }
        flush(&mut engine);
        check(&mut engine, &world, &views, &format!("ANDON_ORACLE_SEED={seed}, round {round}"));
    }
}

#[test]
fn kept_views_equal_plain_sql() {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    match number("ANDON_ORACLE_SEED") {
        Some(seed) => run(seed),
        None => {
            for seed in 0..number("ANDON_ORACLE_RUNS").unwrap_or(12) {
                run(seed);
            }
        }
    }
}

#[test]
fn an_untouched_engine_has_the_rows_of_empty_tables() {
    let views = views();
    let world = World::new(0);
    let mut engine = engine(&views, &ManualClock::at(NOW_US));
    engine.step(&SourceEpoch::default(), StepMode::Flush);
    check(&mut engine, &world, &views, "nothing has happened");
}
