//! What is recomputed from its inputs.

use std::sync::mpsc;
use std::time::Duration;

use model::clock::ManualClock;
use pipelines::StepMode;

use crate::world::{NOW_US, World, engine, lines};

/// Longer than the steps of this test take anywhere, and short enough to wait for.
const STUCK_AFTER: Duration = Duration::from_secs(120);

/// DataFusion's streams give way to other tasks when tokio's budget of the polling task is used up. Nobody renews it
/// while the engine steps, so the engine must not wait for that.
#[test]
fn many_recomputations_within_one_poll_of_an_async_caller() {
    let counting = "WITH RECURSIVE t (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 40) \
                    SELECT id, n FROM customers JOIN t ON t.n = customers.id";
    let (done, finished) = mpsc::channel();
    let steps = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let mut engine = engine(&[("counted".to_owned(), counting.to_owned())], &ManualClock::at(NOW_US));
            let mut world = World::new(11);
            for _ in 0..40 {
                engine.step(&world.random_epoch(5), StepMode::Flush);
            }
            assert_eq!(engine.failures(), vec![]);
            let rows = lines(&[engine.contents("counted").expect("decodes").expect("known view")]);
            done.send(rows.len()).expect("the test waits");
        });
    });
    let n_rows = finished.recv_timeout(STUCK_AFTER).expect("the engine goes on");
    assert!(n_rows > 0);
    steps.join().expect("no panic");
}

/// A recursion that never ends would hold up every other view.
#[test]
fn a_recursion_without_end_stops_its_view_and_no_other() {
    let endless = "WITH RECURSIVE t (n) AS (SELECT id FROM customers UNION ALL SELECT n + 1 FROM t) SELECT n FROM t";
    let counted = "SELECT count(*) AS n FROM customers";
    let views = [("endless", endless), ("counted", counted)].map(|(name, sql)| (name.to_owned(), sql.to_owned()));
    let mut engine = engine(&views, &ManualClock::at(NOW_US));
    let mut world = World::new(5);
    engine.step(&world.random_epoch(30), StepMode::Flush);
    let failures = engine.failures();
    assert_eq!(failures.len(), 1, "{failures:?}");
    let (view, reason) = &failures[0];
    assert!(*view == "endless" && reason.contains("WITH RECURSIVE goes on for more than 10000 steps"), "{failures:?}");
    let counted = lines(&[engine.contents("counted").expect("decodes").expect("known view")]);
    assert_ne!(counted, ["0 | "]);
    assert_eq!(counted.len(), 1);
}
