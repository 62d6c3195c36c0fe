//! A row on which a view's SQL fails is left out; everything else goes on, also when the row changes or leaves.

use model::clock::ManualClock;
use pipelines::StepMode;

use crate::world::{NOW_US, World, engine, flush, lines};

#[test]
fn rows_that_fail_are_left_out_and_come_back_when_they_are_mended() {
    let fails = "SELECT id, 100 / qty AS share FROM orders WHERE qty IS NOT NULL".to_owned();
    let mended = "SELECT id, 100 / qty AS share FROM orders WHERE qty IS NOT NULL AND qty <> 0".to_owned();
    let by_time =
        "SELECT id, 100 / qty AS share, created_at < CURRENT_TIMESTAMP AS past FROM orders WHERE qty IS NOT NULL";
    let views = vec![
        ("fails".to_owned(), fails),
        ("mended".to_owned(), mended.clone()),
        ("by_time".to_owned(), by_time.to_owned()),
        ("total".to_owned(), "SELECT sum(100 / qty) AS s FROM orders".to_owned()),
    ];
    let mut world = World::new(5);
    let clock = ManualClock::at(NOW_US);
    let mut engine = engine(&views, &clock);
    for day in 1..12 {
        engine.step(&world.random_epoch(40), StepMode::Normal);
        clock.set(NOW_US + day * 86_400_000_000);
        flush(&mut engine);
        assert_eq!(engine.failures(), vec![]);
        let mut rows = |view: &str| lines(&[engine.contents(view).expect("decodes").expect("known view")]);
        assert!(!rows("mended").is_empty());
        assert_eq!(rows("fails"), rows("mended"));
        let without_time: Vec<String> =
            rows("by_time").iter().map(|l| l.rsplit_once(" | ").expect("three columns").0.to_owned()).collect();
        assert_eq!(without_time, rows("mended"));
    }
}

/// Each view and the same with the rows that fail taken out by hand.
const JOINS: [[&str; 2]; 4] = [
    [
        "SELECT o.id, c.id AS customer FROM orders o JOIN customers c ON 100 / o.qty = c.id",
        "SELECT o.id, c.id AS customer FROM orders o JOIN customers c ON 100 / nullif(o.qty, 0) = c.id",
    ],
    [
        "SELECT c.id, o.id AS o FROM customers c LEFT JOIN orders o ON 100 / o.qty = c.id",
        "SELECT c.id, o.id AS o FROM customers c LEFT JOIN orders o ON 100 / nullif(o.qty, 0) = c.id",
    ],
    [
        "SELECT o.id, c.id AS customer FROM orders o JOIN customers c ON c.id = o.customer_id AND c.id < 100 / (o.qty - c.id)",
        "SELECT o.id, c.id AS customer FROM orders o JOIN customers c ON c.id = o.customer_id \
         AND c.id < 100 / nullif(o.qty - c.id, 0)",
    ],
    [
        "SELECT o.id, c.id AS customer FROM orders o LEFT JOIN customers c ON c.id = o.customer_id AND c.id < 100 / (o.qty - c.id)",
        "SELECT o.id, c.id AS customer FROM orders o LEFT JOIN customers c ON c.id = o.customer_id \
         AND c.id < 100 / nullif(o.qty - c.id, 0)",
    ],
];

#[test]
fn rows_and_pairs_on_which_a_join_fails_are_left_out() {
    let views: Vec<(String, String)> =
        JOINS.concat().iter().enumerate().map(|(i, sql)| (format!("v{i}"), (*sql).to_owned())).collect();
    let mut world = World::new(7);
    let mut engine = engine(&views, &ManualClock::at(NOW_US));
    for _ in 0..12 {
        engine.step(&world.random_epoch(40), StepMode::Normal);
        flush(&mut engine);
        assert_eq!(engine.failures(), vec![]);
        for pair in views.chunks(2) {
            let mut rows = |i: usize| lines(&[engine.contents(&pair[i].0).expect("decodes").expect("known view")]);
            assert!(!rows(1).is_empty());
            assert_eq!(rows(0), rows(1), "{}", pair[0].1);
        }
    }
}
