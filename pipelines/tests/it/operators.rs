//! Every shape that an operator of ours keeps incrementally: never a recomputation, and equal to plain DataFusion after
//! any random changes.
//!
//! `ANDON_OPERATORS_SEED=n` replays one seed, `ANDON_OPERATORS_RUNS=n` says how many seeds to try.

use model::SourceEpoch;
use model::clock::ManualClock;
use pipelines::StepMode;
use rand::Rng;

use crate::world::{NOW_US, World, check, engine, flush};

const WINDOWS: &[&str] = &[
    "SELECT id, row_number() OVER (PARTITION BY status ORDER BY amount DESC, id) AS n FROM orders",
    "SELECT id, rank() OVER (PARTITION BY status ORDER BY qty) AS r, dense_rank() OVER (PARTITION BY status ORDER BY qty) AS d FROM orders",
    "SELECT id, ntile(3) OVER (ORDER BY amount, id) AS third, percent_rank() OVER (ORDER BY qty) AS p FROM orders",
    "SELECT id, lag(amount) OVER (PARTITION BY customer_id ORDER BY created_at, id) AS before, lead(amount, 2) OVER (PARTITION BY customer_id ORDER BY created_at, id) AS after FROM orders",
    "SELECT id, lag(qty, 3, -1) OVER (ORDER BY id) AS before FROM orders",
    "SELECT id, sum(amount) OVER (ORDER BY id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS s, min(qty) OVER (ORDER BY id ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING) AS m FROM orders",
    "SELECT id, first_value(id) OVER (PARTITION BY day ORDER BY amount NULLS FIRST, id ROWS BETWEEN 3 PRECEDING AND 1 FOLLOWING) AS f FROM orders",
    "SELECT id, sum(amount) OVER (PARTITION BY status ORDER BY created_at RANGE BETWEEN INTERVAL '5' DAY PRECEDING AND CURRENT ROW) AS s FROM orders WHERE created_at IS NOT NULL",
    "SELECT id, sum(qty) OVER (PARTITION BY status ORDER BY day, id) AS running, count(*) OVER (PARTITION BY status) AS n, avg(amount) OVER () AS mean FROM orders",
    "SELECT id, first_value(id) OVER w AS f, last_value(id) OVER w AS l, nth_value(id, 2) OVER w AS second FROM orders WINDOW w AS (PARTITION BY day ORDER BY amount, id ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)",
    "SELECT status, row_number() OVER (ORDER BY status) AS n FROM orders",
    "SELECT customer_id, sum(total) OVER (ORDER BY customer_id) AS running FROM (SELECT customer_id, sum(amount) AS total FROM orders GROUP BY customer_id)",
    "SELECT id, sum(qty) FILTER (WHERE amount > 0) OVER (PARTITION BY coalesce(status, '-') ORDER BY amount * 2, id) AS s FROM orders",
    "SELECT id, amount - lag(amount) OVER (PARTITION BY extract(month FROM created_at) ORDER BY created_at, id) AS change FROM orders",
];

const TOP_N: &[&str] = &[
    "SELECT id, status, n FROM (SELECT *, row_number() OVER (PARTITION BY status ORDER BY amount DESC, id) AS n FROM orders) WHERE n <= 3",
    "SELECT id, status, amount FROM (SELECT *, row_number() OVER (PARTITION BY status ORDER BY amount DESC, id) AS n FROM orders) WHERE n <= 3",
    "SELECT id, customer_id FROM (SELECT *, row_number() OVER (PARTITION BY customer_id ORDER BY created_at DESC NULLS LAST, id DESC) AS n FROM orders) WHERE n = 1",
    "SELECT id, n FROM (SELECT *, row_number() OVER (ORDER BY qty * 2, id) AS n FROM orders) WHERE n < 6 AND n > 2",
    "SELECT id, n FROM (SELECT *, row_number() OVER (PARTITION BY status ORDER BY id) AS n FROM orders) WHERE n < 2.5",
    "SELECT id, n FROM (SELECT *, row_number() OVER (PARTITION BY day ORDER BY id) AS n FROM orders) WHERE n = 2 AND id > 4",
    "SELECT id, r FROM (SELECT *, rank() OVER (PARTITION BY status ORDER BY qty DESC) AS r FROM orders) WHERE r <= 2",
    "SELECT id, r FROM (SELECT *, dense_rank() OVER (PARTITION BY day ORDER BY qty) AS r FROM orders) WHERE r <= 2",
    "SELECT status, n FROM (SELECT status, row_number() OVER (PARTITION BY status ORDER BY status) AS n FROM orders) WHERE n <= 4",
    "SELECT id, amount FROM orders ORDER BY amount DESC NULLS LAST, id LIMIT 5 OFFSET 2",
    "SELECT status FROM orders ORDER BY status LIMIT 7",
    "SELECT upper(status) AS s, total FROM (SELECT status, sum(amount) AS total FROM orders GROUP BY status ORDER BY total DESC NULLS LAST LIMIT 2)",
    "SELECT o.id FROM orders o JOIN (SELECT id FROM customers ORDER BY id LIMIT 3) c ON c.id = o.customer_id",
    "SELECT id FROM orders ORDER BY qty % 3, id OFFSET 4",
    "SELECT DISTINCT ON (status) status, id, amount FROM orders ORDER BY status, amount DESC, id",
    "SELECT count(*) AS n FROM (SELECT id FROM items LIMIT 12)",
];

/// What is added before rounding keeps sums of short decimals from lying in the middle between two results.
const AGGREGATES: &[&str] = &[
    "SELECT status, day, sum(amount) AS total, count(*) AS n FROM orders GROUP BY GROUPING SETS ((status), (day), (status, day))",
    "SELECT status, day, grouping(status) AS g, grouping(day) AS h, sum(qty) AS q FROM orders GROUP BY ROLLUP (status, day)",
    "SELECT status, customer_id % 3 AS c, count(*) AS n, sum(customer_id) AS s FROM orders GROUP BY CUBE (status, customer_id % 3)",
    "SELECT status, count(*) AS n FROM orders GROUP BY GROUPING SETS ((status), (status))",
    "SELECT day, qty, sum(qty) AS s, count(DISTINCT status) AS d FROM orders GROUP BY GROUPING SETS ((day), (qty))",
    "SELECT status, array_agg(id ORDER BY amount DESC, id) AS ids FROM orders GROUP BY status",
    "SELECT order_id, string_agg(sku, '/' ORDER BY units, id) AS skus FROM items GROUP BY order_id",
    "SELECT customer_id, first_value(amount ORDER BY id) AS f, last_value(amount ORDER BY created_at NULLS FIRST, id) AS l, first_value(qty ORDER BY id DESC) FILTER (WHERE qty > 2) AS q FROM orders GROUP BY customer_id",
    "SELECT status, array_agg(DISTINCT qty ORDER BY qty) AS quantities FROM orders GROUP BY status",
    "SELECT status, sum(DISTINCT qty) AS s, avg(DISTINCT amount) AS a, count(DISTINCT day) AS d, count(*) AS n FROM orders GROUP BY status",
    "SELECT status, median(qty) AS m, median(amount) AS a, percentile_cont(0.9) WITHIN GROUP (ORDER BY qty) AS p, percentile_cont(0.25) WITHIN GROUP (ORDER BY qty DESC) AS d FROM orders GROUP BY status",
    "SELECT status, bool_and(qty > 0) AS every, bool_or(qty > 15) AS some, bit_xor(qty) AS x FROM orders GROUP BY status",
    "SELECT day, round(stddev(qty), 9) AS s, round(var_pop(amount), 6) AS v, round(stddev_pop(weight), 9) AS p, round(var(weight), 9) AS w FROM orders GROUP BY day",
    "SELECT status, round(sum(weight), 9) AS s, round(avg(weight), 9) AS a, max(weight) AS m, round(corr(qty, weight), 6) AS c FROM orders GROUP BY status",
    "SELECT status, round(covar_samp(weight, qty) + 1.7e-7, 6) AS c, round(covar_pop(amount, weight) + 1.7e-7, 6) AS p, round(corr(amount, qty) + 1.7e-7, 6) AS r, bit_and(qty) AS a, bit_or(customer_id) AS o, bit_xor(customer_id) AS x FROM orders GROUP BY status",
    "SELECT day, round(regr_slope(weight, qty) + 1.7e-7, 6) AS b, round(regr_intercept(weight, qty) + 1.7e-7, 6) AS a, regr_count(weight, qty) AS n, round(regr_r2(weight, qty) + 1.7e-7, 6) AS r2, round(regr_avgx(weight, qty) + 1.7e-7, 6) AS x, round(regr_avgy(weight, qty) + 1.7e-7, 6) AS y, round(regr_sxx(weight, qty) + 1.7e-7, 6) AS sxx, round(regr_syy(weight, qty) + 1.7e-7, 6) AS syy, round(regr_sxy(weight, qty) + 1.7e-7, 6) AS sxy FROM orders GROUP BY day",
    "SELECT status, approx_distinct(day) AS d, approx_distinct(amount) AS a, approx_distinct(created_at) AS c FROM orders GROUP BY status",
    "SELECT order_id, approx_distinct(sku) AS s, approx_distinct(units) FILTER (WHERE units > 0) AS u FROM items GROUP BY order_id",
    "SELECT approx_distinct(customer_id) AS n, approx_median(qty) AS m FROM orders",
    "SELECT round(sum(weight), 9) AS s, median(weight) AS m, array_agg(id ORDER BY id) AS ids, min(status) AS lo FROM orders WHERE qty > 1000",
];

const JOINS: &[&str] = &[
    "SELECT id FROM orders WHERE customer_id NOT IN (SELECT id FROM customers WHERE grp = 'A')",
    "SELECT id FROM orders WHERE status NOT IN (SELECT grp FROM customers)",
    "SELECT id FROM orders WHERE status NOT IN (SELECT grp FROM customers WHERE grp IS NOT NULL)",
    "SELECT id FROM orders WHERE status NOT IN (SELECT grp FROM customers WHERE id > 9)",
    "SELECT id FROM orders WHERE qty > 12 OR EXISTS (SELECT 1 FROM items i WHERE i.order_id = orders.id)",
    "SELECT o.id, i.id AS item FROM orders o JOIN items i ON i.order_id = o.id AND o.created_at > CURRENT_TIMESTAMP - INTERVAL '9' DAY",
    "SELECT o.id, c.id AS customer FROM customers c LEFT JOIN orders o ON o.customer_id = c.id AND o.created_at < CURRENT_TIMESTAMP",
    "SELECT id FROM customers c WHERE NOT EXISTS (SELECT 1 FROM orders o WHERE o.customer_id = c.id AND o.created_at > CURRENT_TIMESTAMP - INTERVAL '20' DAY)",
    "SELECT o.id, c.id AS customer FROM orders o JOIN customers c ON o.qty = c.id",
    "SELECT o.id, i.id AS item FROM orders o JOIN items i ON o.amount = i.units",
    "SELECT o.id, i.id AS item FROM orders o LEFT JOIN items i ON i.units > o.amount * 100",
    "SELECT o.id, i.id AS item FROM orders o RIGHT JOIN items i ON i.order_id % 5 = o.id % 5 AND i.units > o.amount",
    "SELECT o.id, i.id AS item FROM orders o FULL JOIN items i ON i.order_id = o.id AND i.units > o.qty",
    "SELECT id FROM orders o WHERE EXISTS (SELECT 1 FROM items i WHERE i.order_id % 3 = o.id % 3 AND i.units > o.qty * 40)",
    "SELECT id FROM orders o WHERE NOT EXISTS (SELECT 1 FROM items i WHERE i.order_id % 3 = o.id % 3 AND i.units > o.qty * 40)",
    "SELECT id, (SELECT count(*) FROM items i WHERE i.order_id = o.id AND i.units > 0) AS n FROM orders o",
    "SELECT o.id, l.n FROM orders o, LATERAL (SELECT count(*) AS n FROM items i WHERE i.order_id = o.id) l",
];

fn views(groups: &[&[&str]]) -> Vec<(String, String)> {
    groups.concat().iter().enumerate().map(|(i, sql)| (format!("q{i}"), (*sql).to_owned())).collect()
}

fn run(seed: u64, views: &[(String, String)]) {
    let mut world = World::new(seed);
    let clock = ManualClock::at(NOW_US);
    let mut engine = engine(views, &clock);
    for view in engine.views() {
        assert_eq!(view.maintenance, "incremental", "{}", view.sql);
    }
    for round in 0..5 {
        for _ in 0..world.rng.random_range(1..4) {
            let n_changes = world.rng.random_range(0..60);
            let epoch = world.random_epoch(n_changes);
            engine.step(&epoch, StepMode::Normal);
        }
        flush(&mut engine);
        check(&mut engine, &world, views, &format!("ANDON_OPERATORS_SEED={seed}, round {round}"));
    }
}

fn run_all(groups: &[&[&str]]) {
    let views = views(groups);
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    match number("ANDON_OPERATORS_SEED") {
        Some(seed) => run(seed, &views),
        None => (0..number("ANDON_OPERATORS_RUNS").unwrap_or(6)).for_each(|seed| run(seed, &views)),
    }
}

#[test]
fn over_windows_equal_plain_sql() {
    run_all(&[WINDOWS]);
}

#[test]
fn first_rows_equal_plain_sql() {
    run_all(&[TOP_N]);
}

#[test]
fn aggregates_equal_plain_sql() {
    run_all(&[AGGREGATES]);
}

#[test]
fn joins_equal_plain_sql() {
    run_all(&[JOINS]);
}

#[test]
fn nothing_has_happened() {
    let views = views(&[WINDOWS, TOP_N, AGGREGATES, JOINS]);
    let world = World::new(0);
    let mut engine = engine(&views, &ManualClock::at(NOW_US));
    engine.step(&SourceEpoch::default(), StepMode::Flush);
    check(&mut engine, &world, &views, "nothing has happened");
}
