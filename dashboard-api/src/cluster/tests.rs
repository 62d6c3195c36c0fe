use std::sync::Barrier;

use bytes::Bytes;

use super::*;
use crate::config::NamespaceConfig;
use crate::fixtures::{context, open_config};
use crate::protocol::message::{HistoryRequest, Publication};

#[test]
fn repetitions_at_the_same_time_are_published_once() {
    const N_THREADS: usize = 4;
    const N_ROUNDS: u64 = 300;
    let mut config = open_config();
    let room = NamespaceConfig { history_size: 10, ..NamespaceConfig::default() };
    config.live.namespaces.insert("room".to_owned(), room);
    let (hub, context) = context(&config);
    let (cluster, start) = (&context.cluster, Barrier::new(N_THREADS));
    std::thread::scope(|scope| {
        for _ in 0..N_THREADS {
            scope.spawn(|| {
                for round in 1..=N_ROUNDS {
                    start.wait();
                    let publication = Publication { data: Bytes::from_static(b"1"), ..Publication::default() };
                    let publish = Publish {
                        channel: "room:1".to_owned(),
                        publication: Some(publication),
                        idempotency_key: round.to_string(),
                        ..Publish::default()
                    };
                    let done = move |outcome: Result<Position, ErrorCode>| {
                        assert_eq!(outcome.map(|position| position.offset), Ok(round));
                    };
                    cluster.publish(publish, Box::new(done));
                }
            });
        }
    });
    let history = hub.topics().history("room:1", &HistoryRequest::default()).expect("there is one");
    assert_eq!(history.offset, N_ROUNDS);
}
