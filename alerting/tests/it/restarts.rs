//! Stops, kills and changes of the rules: nothing is lost, nothing comes twice.

use std::collections::{HashMap, HashSet};

use alerting::alert::{Reason, State};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::world::{Event, Rows, World, rule};

#[tokio::test]
async fn a_restart_repeats_nothing_and_catches_up() {
    let mut world = World::new(None).await;
    let rules = || vec![rule("low", "info")];
    world.start(rules());
    world.epoch(&[("low", 1, Some(0)), ("low", 2, Some(0))]).await;
    world.expect_events(&["firing low 1: 1 has 0, 0", "firing low 2: 2 has 0, 0"]).await;
    world.stop().await;
    world.epoch(&[("low", 1, None), ("low", 3, Some(0))]).await;
    world.start(rules());
    let all = [
        "firing low 1: 1 has 0, 0",
        "firing low 2: 2 has 0, 0",
        "resolved low 1: 1 has 0, 0",
        "firing low 3: 3 has 0, 0",
    ];
    world.expect_events(&all).await;
    world.stop().await;
    world.start(rules());
    world.epoch(&[("low", 2, None)]).await;
    let last = ["resolved low 2: 2 has 0, 0"];
    world.expect_events(&[&all[..], &last].concat()).await;
    world.stop().await;
}

#[tokio::test]
async fn a_topic_made_anew_is_compared_to_the_open_alerts() {
    let mut world = World::new(None).await;
    world.start(vec![rule("low", "info")]);
    world.epoch(&[("low", 1, Some(0)), ("low", 2, Some(0))]).await;
    world.expect_events(&["firing low 1: 1 has 0, 0", "firing low 2: 2 has 0, 0"]).await;
    world.stop().await;
    world.log.delete_topic(&model::topics::rule("low")).await.unwrap();
    world.epoch(&[("low", 2, Some(0))]).await;
    world.start(vec![rule("low", "info")]);
    world.expect_firing(&Rows::from([(("low".to_owned(), 2), 0)])).await;
    let history = world.history().await;
    assert_eq!(history.len(), 3);
    assert_eq!(history[2].data.reason, Some(Reason::RowGoneAtStart));
    world.stop().await;
}

#[tokio::test]
async fn alerts_of_a_removed_rule_end() {
    let mut world = World::new(None).await;
    world.start(vec![rule("low", "info"), rule("old", "info")]);
    world.epoch(&[("low", 1, Some(0)), ("old", 1, Some(0))]).await;
    world.expect_firing(&Rows::from([(("low".to_owned(), 1), 0), (("old".to_owned(), 1), 0)])).await;
    world.stop().await;
    world.start(vec![rule("low", "info")]);
    world.expect_firing(&Rows::from([(("low".to_owned(), 1), 0)])).await;
    let history = world.history().await;
    let last = &history.last().unwrap().data;
    assert_eq!((last.rule.as_str(), last.state, last.reason), ("old", State::Resolved, Some(Reason::RuleRemoved)));
    world.stop().await;
}

#[tokio::test]
async fn a_rule_that_became_worse_tells_its_open_alerts_again() {
    let mut world = World::new(None).await;
    world.start(vec![rule("low", "info")]);
    world.epoch(&[("low", 1, Some(0))]).await;
    world.expect_events(&["firing low 1: 1 has 0, 0"]).await;
    world.stop().await;
    world.start(vec![rule("low", "critical")]);
    world.expect_events(&["firing low 1: 1 has 0, 0", "firing low 1: 1 has 0, 1000"]).await;
    world.stop().await;
}

/// What happens to the two rules: rows by id, then how the stage goes on.
#[derive(Debug, Clone)]
struct Step {
    changes: Vec<(bool, i64, Option<i64>)>,
    then: Then,
}

#[derive(Debug, Clone, Copy)]
enum Then {
    GoOn,
    Settle,
    Stop,
    Kill,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let change = (any::<bool>(), 0..5_i64, proptest::option::of(0..3_i64));
    let then =
        prop_oneof![4 => Just(Then::GoOn), 1 => Just(Then::Settle), 1 => Just(Then::Stop), 2 => Just(Then::Kill)];
    let step = (proptest::collection::vec(change, 1..6), then).prop_map(|(changes, then)| Step { changes, then });
    proptest::collection::vec(step, 1..15)
}

async fn play(steps: Vec<Step>, database_url: Option<String>) {
    let rules = || vec![rule("a", "high"), rule("b", "critical")];
    let mut world = World::new(database_url).await;
    let mut rows = Rows::new();
    world.start(rules());
    for step in steps {
        let mut epoch: Vec<(&str, i64, Option<i64>)> = Vec::new();
        for (is_b, id, units) in step.changes {
            let name = if is_b { "b" } else { "a" };
            // As the engine does: one change per key, and only real changes.
            let is_new = !epoch.iter().any(|(n, i, _)| (*n, *i) == (name, id));
            let before = rows.get(&(name.to_owned(), id)).copied();
            if is_new && before != units {
                match units {
                    Some(units) => drop(rows.insert((name.to_owned(), id), units)),
                    None => drop(rows.remove(&(name.to_owned(), id))),
                }
                epoch.push((name, id, units));
            }
        }
        world.epoch(&epoch).await;
        match step.then {
            Then::GoOn => {}
            Then::Settle => world.expect_firing(&rows).await,
            Then::Stop => {
                world.stop().await;
                world.start(rules());
            }
            Then::Kill => {
                world.kill().await;
                world.start(rules());
            }
        }
    }
    world.expect_firing(&rows).await;
    world.expect_all_published().await;
    world.stop().await;
    check_history(&world.history().await, &rows);
}

/// Per alert: firing, perhaps again, then resolved at most once. Per instance: one alert after the other.
fn check_history(history: &[Event], rows: &Rows) {
    let mut open: HashMap<(String, i64), uuid::Uuid> = HashMap::new();
    let mut ended = HashSet::new();
    for event in history {
        let data = &event.data;
        let instance = (data.rule.clone(), data.key["id"].as_i64().unwrap());
        assert!(!ended.contains(&data.alert_id), "an event after the end");
        match data.state {
            State::Firing => {
                let alert_id = open.entry(instance).or_insert(data.alert_id);
                assert_eq!(*alert_id, data.alert_id, "two open alerts of one instance");
            }
            State::Resolved => {
                assert_eq!(open.remove(&instance), Some(data.alert_id), "resolved what was not open");
                ended.insert(data.alert_id);
            }
        }
    }
    let open: HashSet<(String, i64)> = open.into_keys().collect();
    assert_eq!(open, rows.keys().cloned().collect());
}

#[test]
fn any_epochs_and_any_restarts_end_in_the_same_place() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut runner = TestRunner::new(Config { cases: 12, failure_persistence: None, ..Config::default() });
    runner
        .run(&steps(), |steps| {
            runtime.block_on(play(steps, None));
            Ok(())
        })
        .unwrap();
}

pub(crate) async fn play_a_few(database_url: String) {
    let step = |changes: &[(bool, i64, Option<i64>)], then| Step { changes: changes.to_vec(), then };
    let steps = vec![
        step(&[(false, 1, Some(1)), (true, 1, Some(2)), (true, 2, Some(0))], Then::Settle),
        step(&[(false, 1, Some(2)), (true, 1, None)], Then::Kill),
        step(&[(false, 3, Some(0)), (true, 1, Some(1))], Then::Stop),
        step(&[(false, 3, None), (true, 2, None)], Then::Kill),
        step(&[(false, 1, None), (false, 4, Some(1))], Then::GoOn),
    ];
    play(steps, Some(database_url)).await;
}
