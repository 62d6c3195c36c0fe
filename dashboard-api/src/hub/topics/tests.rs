use super::*;

fn topics() -> Topics {
    let namespace = NamespaceConfig { history_size: 10, recovery: true, ..NamespaceConfig::default() };
    Topics::new(&BTreeMap::from([("room".to_owned(), namespace)]))
}

fn publish(topics: &Topics, channel: &str) -> Position {
    let publication = Publication { data: Bytes::from_static(b"1"), time: 1, ..Publication::default() };
    topics.publish(channel, publication, None, true).expect("it is published")
}

#[test]
fn positions_are_kept_for_a_while_and_then_forgotten() {
    let topics = topics();
    let first = publish(&topics, "room:1");
    let history_ends_ms = 300_000 + 2;
    topics.tidy(history_ends_ms);
    assert_eq!(publish(&topics, "room:1").epoch, first.epoch, "its history is gone, its position is not");
    topics.tidy(history_ends_ms + 1);
    topics.tidy(history_ends_ms + POSITION_TTL_MS);
    assert_eq!(topics.all().len(), 1);
    topics.tidy(history_ends_ms + 1 + POSITION_TTL_MS);
    assert_eq!(topics.all().len(), 0);
    assert_ne!(publish(&topics, "room:1").epoch, first.epoch, "nobody takes it for the same stream");
}

#[test]
fn many_positions_that_nobody_uses_take_no_place() {
    let topics = topics();
    for n in 0..=TOPICS_COMFORTABLE {
        publish(&topics, &format!("room:{n}"));
    }
    topics.tidy(2);
    assert_eq!(topics.all().len(), TOPICS_COMFORTABLE + 1, "their history is still there");
    topics.tidy(300_002);
    assert_eq!(topics.all().len(), 0);
}

#[test]
fn names_of_channels_have_a_bound() {
    let topics = topics();
    let name = |n_bytes: usize| format!("room:{}", "x".repeat(n_bytes - 5));
    assert!(topics.namespace(&name(CHANNEL_BYTES_MAX)).is_ok());
    assert_eq!(topics.namespace(&name(CHANNEL_BYTES_MAX + 1)).err(), Some(ErrorCode::BAD_REQUEST));
}
