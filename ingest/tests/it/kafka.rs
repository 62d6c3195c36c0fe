//! The log on a real broker: the suite, and the broker's death under a reader and a writer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dev_services::Kafka;
use ingest::log::{KafkaLog, KafkaOptions};
use model::{AppendRecord, Log, LogError, Offsets, TopicSpec};

use crate::suite::{CASES, PATIENCE, Subject, limit, named, record};

fn options(kafka: &Kafka) -> KafkaOptions {
    KafkaOptions { discovery_interval: Duration::from_millis(300), ..KafkaOptions::new(kafka.brokers()) }
}

async fn connect(options: KafkaOptions) -> Arc<dyn Log> {
    KafkaLog::connect(options).await.unwrap()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_passes_the_suite() {
    let settings = ["log.cleaner.backoff.ms=100", "log.cleaner.min.cleanable.ratio=0.01"];
    let kafka = blocking(move || Kafka::start_with(&settings).unwrap()).await;
    let soon = [("segment.ms", "100"), ("delete.retention.ms", "0"), ("min.cleanable.dirty.ratio", "0.01")];
    let topic_config: BTreeMap<_, _> = soon.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let subject = Subject {
        log: connect(options(&kafka)).await,
        compacting: connect(KafkaOptions { topic_config, ..options(&kafka) }).await,
    };
    for (name, case) in CASES {
        let started = Instant::now();
        eprintln!("{name}");
        case(subject.clone()).await;
        eprintln!("{name}: {:?}", started.elapsed());
    }
    blocking(move || drop((subject, kafka))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_the_broker_dies() {
    const N_RECORDS: usize = 3000;
    let kafka = Arc::new(blocking(|| Kafka::start().unwrap()).await);
    let log = connect(options(&kafka)).await;
    log.create_topic("outage", TopicSpec { partitions: 3, ..TopicSpec::default() }).await.unwrap();
    let mut reader = log.read(named("outage"), &Offsets::default()).await.unwrap();
    let writing = {
        let log = Arc::clone(&log);
        tokio::spawn(async move {
            for i in 0..N_RECORDS {
                let record = AppendRecord {
                    partition: Some(i32::try_from(i % 3).unwrap()),
                    ..record("outage", "k", &i.to_string())
                };
                log.append(vec![record]).await.unwrap();
            }
        })
    };
    let deadline = Instant::now() + PATIENCE * 3;
    let mut found: [Vec<(i64, usize)>; 3] = Default::default();
    let mut restarting = None;
    let n_found = |found: &[Vec<_>; 3]| found.iter().map(Vec::len).sum::<usize>();
    while n_found(&found) < N_RECORDS {
        assert!(Instant::now() < deadline, "{} of {N_RECORDS} records came", n_found(&found));
        for batch in reader.poll(limit()).await.unwrap() {
            let rows = batch.records.iter().map(|record| {
                let value = std::str::from_utf8(record.value.as_ref().unwrap()).unwrap();
                (record.offset, value.parse().unwrap())
            });
            found[usize::try_from(batch.partition).unwrap()].extend(rows);
        }
        if restarting.is_none() && n_found(&found) > N_RECORDS / 4 {
            let kafka = Arc::clone(&kafka);
            restarting = Some(tokio::task::spawn_blocking(move || {
                kafka.kill().unwrap();
                kafka.restart().unwrap();
            }));
        }
    }
    restarting.expect("the broker was restarted").await.unwrap();
    writing.await.unwrap();
    for (partition, rows) in found.iter().enumerate() {
        let expected: Vec<_> = (0..N_RECORDS / 3).map(|i| (i as i64, i * 3 + partition)).collect();
        assert_eq!(rows, &expected, "each once, in order");
    }
    blocking(move || drop((reader, log, kafka))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connecting_gives_up_after_its_timeout() {
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let options =
        KafkaOptions { connect_timeout: Duration::from_millis(500), ..KafkaOptions::new(format!("127.0.0.1:{port}")) };
    let started = Instant::now();
    let error = KafkaLog::connect(options).await.unwrap_err();
    assert!(matches!(&error, LogError::Unavailable { reason } if reason.contains(&port.to_string())), "{error}");
    assert!(started.elapsed() < Duration::from_secs(10));
    let wrong = BTreeMap::from([("no.such.property".to_owned(), "1".to_owned())]);
    let error =
        KafkaLog::connect(KafkaOptions { client: wrong, ..KafkaOptions::new("127.0.0.1:1") }).await.unwrap_err();
    assert!(matches!(error, LogError::Refused { .. }), "{error}");
}
