//! From a row that appears to the events that people get.

use crate::world::{Rows, World, rule};

#[tokio::test]
async fn rows_fire_and_resolve_in_order_of_priority() {
    let mut world = World::new(None).await;
    world.start(vec![rule("low", "warning"), rule("down", "critical")]);
    world.epoch(&[("low", 1, Some(5)), ("low", 2, Some(5_000)), ("down", 9, Some(0))]).await;
    world
        .expect_firing(&Rows::from([
            (("low".to_owned(), 1), 5),
            (("low".to_owned(), 2), 5_000),
            (("down".to_owned(), 9), 0),
        ]))
        .await;
    world.epoch(&[("low", 2, None)]).await;
    world.expect_firing(&Rows::from([(("low".to_owned(), 1), 5), (("down".to_owned(), 9), 0)])).await;

    let history = world.history().await;
    let low: Vec<String> = history.iter().map(crate::world::line).filter(|l| l.contains(" low ")).collect();
    assert_eq!(
        low,
        ["firing low 2: 2 has 5000, 11.517", "firing low 1: 1 has 5, 4.792", "resolved low 2: 2 has 5000, 11.517"]
    );
    let resolved = history.last().unwrap();
    let fired = history.iter().find(|e| e.data.alert_id == resolved.data.alert_id).unwrap();
    assert_ne!(fired.id, resolved.id);
    assert_eq!(fired.subject, Some(resolved.data.alert_id.to_string()));
    assert_eq!(fired.source, "/andon/rules/low");
    assert_eq!(fired.time, "1970-01-01T00:01:00.000Z");
    assert_eq!(fired.data.fired_at, fired.time);
    assert_eq!(fired.data.resolved_at, None);
    assert_eq!(resolved.time, "1970-01-01T00:02:00.000Z");
    assert_eq!(resolved.data.resolved_at.as_deref(), Some("1970-01-01T00:02:00.000Z"));
    assert_eq!(resolved.data.impact.as_deref(), Some("5000"));
    assert_eq!(resolved.data.row["units"], "5000");
    world.stop().await;
}

#[tokio::test]
async fn a_change_is_told_once_per_interval_and_the_last_one_always() {
    let mut world = World::new(None).await;
    world.start(vec![rule("low", "info")]);
    world.epoch(&[("low", 1, Some(0))]).await;
    world.expect_events(&["firing low 1: 1 has 0, 0"]).await;
    for units in 1..=20 {
        world.epoch(&[("low", 1, Some(units))]).await;
    }
    world.expect_firing(&Rows::from([(("low".to_owned(), 1), 20)])).await;
    world.expect_events(&["firing low 1: 1 has 0, 0"]).await;
    world.clock.set(1_000_010_000_000);
    world.expect_events(&["firing low 1: 1 has 0, 0", "firing low 1: 1 has 20, 3.045"]).await;
    let events = world.published().await;
    assert_eq!(events[0].data.alert_id, events[1].data.alert_id);
    assert_eq!(events[0].data.fired_at, events[1].data.fired_at);
    world.stop().await;
}

#[tokio::test]
async fn an_unreadable_record_stops_nothing() {
    let mut world = World::new(None).await;
    world.start(vec![rule("low", "info")]);
    world.epoch(&[("low", 1, Some(0))]).await;
    let topic = model::topics::rule("low");
    let broken = model::AppendRecord {
        topic: topic.into(),
        partition: Some(0),
        timestamp_ms: None,
        key: Some("{".into()),
        value: Some("{}".into()),
        headers: Vec::new(),
    };
    world.log.append(vec![broken]).await.unwrap();
    world.epoch(&[("low", 1, None)]).await;
    world.expect_events(&["firing low 1: 1 has 0, 0", "resolved low 1: 1 has 0, 0"]).await;
    world.stop().await;
}
