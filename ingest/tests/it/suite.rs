//! What every log must do. Each case gets a log with topics of other cases in it, and uses names of its own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::{AppendRecord, Log, LogBatch, LogError, LogReader, Offsets, PollLimit, Record, TopicSelector, TopicSpec};

/// Longest wait for something that must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The log under test.
#[derive(Clone)]
pub(crate) struct Subject {
    pub(crate) log: Arc<dyn Log>,
    /// The same log, set up so that it compacts and drops tombstones as soon as it can.
    pub(crate) compacting: Arc<dyn Log>,
}

type Case = fn(Subject) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// Lists the cases for a log that is costly to start, and makes a test of each for one that is not.
macro_rules! cases {
    ($($name:ident),+ $(,)?) => {
        pub(crate) const CASES: &[(&str, Case)] = &[$((stringify!($name), |subject| Box::pin($name(subject)))),+];

        mod local {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let (subject, _dir) = crate::local::subject();
                super::$name(subject).await;
            })+
        }
    };
}

cases!(
    records_come_back_as_written,
    order_is_kept_per_partition,
    keys_choose_their_partition,
    readers_find_new_topics_and_partitions,
    a_reader_is_woken_by_an_append,
    reading_starts_where_it_is_told,
    polls_keep_to_their_limits,
    a_dropped_poll_loses_nothing,
    trimmed_records_are_gone,
    compaction_keeps_the_newest_of_each_key,
    a_large_record_is_refused,
    names_and_patterns_are_checked,
    a_deleted_topic_is_gone,
    appends_under_way_keep_their_order,
);

pub(crate) fn record(topic: &str, key: &str, value: &str) -> AppendRecord {
    AppendRecord {
        topic: Arc::from(topic),
        partition: None,
        timestamp_ms: None,
        key: Some(Bytes::from(key.to_owned())),
        value: Some(Bytes::from(value.to_owned())),
        headers: Vec::new(),
    }
}

pub(crate) fn limit() -> PollLimit {
    PollLimit { max_records: 1000, max_bytes: 1 << 20, wait: Duration::from_millis(500) }
}

pub(crate) fn named(topic: &str) -> Vec<TopicSelector> {
    vec![TopicSelector::Name(topic.to_owned())]
}

/// Polls until so many records are there, then once more to see that there are none beyond.
pub(crate) async fn read(reader: &mut dyn LogReader, n_records: usize) -> Vec<(Arc<str>, i32, Record)> {
    let deadline = Instant::now() + PATIENCE;
    let mut records = Vec::new();
    while records.len() < n_records {
        assert!(Instant::now() < deadline, "{} of {n_records} records came", records.len());
        records.extend(flat(reader.poll(limit()).await.unwrap()));
    }
    let none = PollLimit { wait: Duration::from_millis(50), ..limit() };
    records.extend(flat(reader.poll(none).await.unwrap()));
    assert_eq!(records.len(), n_records);
    records
}

fn flat(batches: Vec<LogBatch>) -> impl Iterator<Item = (Arc<str>, i32, Record)> {
    batches.into_iter().flat_map(|batch| {
        assert!(!batch.records.is_empty());
        batch.records.into_iter().map(move |record| (Arc::clone(&batch.topic), batch.partition, record))
    })
}

/// All records of a topic.
pub(crate) async fn read_topic(log: &Arc<dyn Log>, topic: &str, n_records: usize) -> Vec<(Arc<str>, i32, Record)> {
    let mut reader = log.read(named(topic), &Offsets::default()).await.unwrap();
    read(&mut *reader, n_records).await
}

fn text(bytes: Option<&Bytes>) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| String::from_utf8(bytes.to_vec()).unwrap())
}

pub(crate) fn values(records: &[(Arc<str>, i32, Record)]) -> Vec<String> {
    records.iter().map(|(_, _, record)| text(record.value.as_ref())).collect()
}

async fn records_come_back_as_written(Subject { log, .. }: Subject) {
    let topic = "as-written";
    let headers = vec![(Arc::from("epoch"), Bytes::from("7")), (Arc::from("end"), Bytes::new())];
    let full =
        AppendRecord { timestamp_ms: Some(1_234_567_890_123), headers: headers.clone(), ..record(topic, "k", "v") };
    let tombstone = AppendRecord { value: None, ..record(topic, "k", "") };
    let empty = record(topic, "", "");
    let no_key = AppendRecord { key: None, timestamp_ms: Some(1), ..record(topic, "", "w") };
    let before_ms = model::clock::Clock::now_us(&model::clock::SystemClock) / 1000;
    let offsets = log.append(vec![full, tombstone, empty, no_key]).await.unwrap();
    assert_eq!(offsets, [0, 1, 2, 3]);

    let records = read_topic(&log, topic, 4).await;
    let shown: Vec<_> = records.iter().map(|(_, p, r)| (*p, r.offset, r.key.clone(), r.value.clone())).collect();
    let some = |text: &'static str| Some(Bytes::from(text));
    let expected =
        [(0, 0, some("k"), some("v")), (0, 1, some("k"), None), (0, 2, some(""), some("")), (0, 3, None, some("w"))];
    assert_eq!(shown, expected);
    let record = |index: usize| &records[index].2;
    assert_eq!((record(0).timestamp_ms, &record(0).headers), (1_234_567_890_123, &headers));
    assert_eq!((record(3).timestamp_ms, record(3).headers.len()), (1, 0));
    let stamped_ms = record(1).timestamp_ms;
    assert!((before_ms..before_ms + 60_000).contains(&stamped_ms), "{stamped_ms} is the time of the append");
}

async fn order_is_kept_per_partition(Subject { log, .. }: Subject) {
    let topic = "order";
    log.create_topic(topic, TopicSpec { partitions: 3, ..TopicSpec::default() }).await.unwrap();
    for start in (0..3000).step_by(500) {
        let batch = (start..start + 500)
            .map(|i| AppendRecord { partition: Some(i % 3), ..record(topic, &i.to_string(), &i.to_string()) });
        log.append(batch.collect()).await.unwrap();
    }
    let records = read_topic(&log, topic, 3000).await;
    for partition in 0..3 {
        let found: Vec<(i64, String)> = records
            .iter()
            .filter(|(_, p, _)| *p == partition)
            .map(|(_, _, r)| (r.offset, text(r.value.as_ref())))
            .collect();
        let expected: Vec<_> = (0..1000i64).map(|i| (i, (i * 3 + i64::from(partition)).to_string())).collect();
        assert_eq!(found, expected);
    }
    let bounds = log.offsets(topic).await.unwrap();
    assert_eq!(
        bounds.iter().map(|b| (b.partition, b.earliest, b.end)).collect::<Vec<_>>(),
        [(0, 0, 1000), (1, 0, 1000), (2, 0, 1000)]
    );
    assert!(log.offsets("no-such-topic").await.unwrap().is_empty());
}

/// The partitions are those that Kafka's Java client chooses: murmur2, positive, modulo 3.
async fn keys_choose_their_partition(Subject { log, .. }: Subject) {
    let topic = "by-key";
    log.create_topic(topic, TopicSpec { partitions: 3, ..TopicSpec::default() }).await.unwrap();
    let keys = ["21", "foobar", "a-little-bit-long-string", "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", "abc"];
    log.append(keys.iter().map(|key| record(topic, key, "v")).collect()).await.unwrap();
    let records = read_topic(&log, topic, keys.len()).await;
    let hashes: [i32; 5] = [-973_932_308, -790_332_482, -985_981_536, -58_897_971, 479_470_107];
    for (key, hash) in keys.iter().zip(hashes) {
        let partition = records.iter().find(|(_, _, r)| text(r.key.as_ref()) == *key).unwrap().1;
        assert_eq!(partition, (hash & 0x7fff_ffff) % 3, "{key}");
    }
}

async fn readers_find_new_topics_and_partitions(Subject { log, .. }: Subject) {
    let pattern = TopicSelector::Pattern("grow\\..*".to_owned());
    let mut by_pattern = log.read(vec![pattern], &Offsets::default()).await.unwrap();
    let mut by_name = log.read(named("grow.a"), &Offsets::default()).await.unwrap();
    assert!(by_name.poll(PollLimit { wait: Duration::ZERO, ..limit() }).await.unwrap().is_empty());

    log.append(vec![record("grow.a", "k", "1"), record("grown", "k", "not followed")]).await.unwrap();
    assert_eq!(values(&read(&mut *by_name, 1).await), ["1"]);
    assert_eq!(values(&read(&mut *by_pattern, 1).await), ["1"]);

    let second_partition = AppendRecord { partition: Some(1), ..record("grow.a", "k", "2") };
    log.append(vec![second_partition, record("grow.b", "k", "3")]).await.unwrap();
    let found = read(&mut *by_name, 1).await;
    assert_eq!((found[0].1, values(&found)), (1, vec!["2".to_owned()]));
    let mut found = values(&read(&mut *by_pattern, 2).await);
    found.sort();
    assert_eq!(found, ["2", "3"]);
    let topics = log.topics().await.unwrap();
    let ours: Vec<_> = topics.iter().filter(|name| name.starts_with("grow")).collect();
    assert_eq!(ours, ["grow.a", "grow.b", "grown"]);
    assert_eq!(log.offsets("grow.a").await.unwrap().len(), 2);
}

async fn a_reader_is_woken_by_an_append(Subject { log, .. }: Subject) {
    let topic = "wake";
    log.create_topic(topic, TopicSpec::default()).await.unwrap();
    let mut reader = log.read(named(topic), &Offsets::default()).await.unwrap();
    let waiting = tokio::spawn(async move { reader.poll(PollLimit { wait: PATIENCE, ..limit() }).await });
    let started = Instant::now();
    log.append(vec![record(topic, "k", "v")]).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().len(), 1);
    assert!(started.elapsed() < PATIENCE / 2, "it came by itself, not by the end of the wait");
}

async fn reading_starts_where_it_is_told(Subject { log, .. }: Subject) {
    let topic = "start";
    let batch = (0..10).map(|i| AppendRecord { partition: Some(i % 2), ..record(topic, "k", &i.to_string()) });
    log.append(batch.collect()).await.unwrap();
    let mut from = Offsets::default();
    from.set(topic, 1, 3);
    let mut reader = log.read(named(topic), &from).await.unwrap();
    let mut found = values(&read(&mut *reader, 7).await);
    found.sort();
    assert_eq!(found, ["0", "2", "4", "6", "7", "8", "9"]);

    // From the end there is nothing yet; from beyond it, the log is not the one the offset is from.
    from.set(topic, 0, 5);
    from.set(topic, 1, 99);
    let mut reader = log.read(named(topic), &from).await.unwrap();
    assert_eq!(values(&read(&mut *reader, 5).await), ["1", "3", "5", "7", "9"]);
}

async fn polls_keep_to_their_limits(Subject { log, .. }: Subject) {
    let topic = "limits";
    let value = "x".repeat(1000);
    let batch = (0..100).map(|i| AppendRecord { partition: Some(i % 4), ..record(topic, "k", &value) });
    log.append(batch.collect()).await.unwrap();
    for (max_records, max_bytes, most) in [(7, 1 << 20, 7), (1000, 3500, 3), (1000, 1, 1)] {
        let mut reader = log.read(named(topic), &Offsets::default()).await.unwrap();
        let (mut n_read, deadline) = (0, Instant::now() + PATIENCE);
        while n_read < 100 {
            assert!(Instant::now() < deadline);
            let batches = reader.poll(PollLimit { max_records, max_bytes, ..limit() }).await.unwrap();
            let n_records = flat(batches).count();
            assert!(n_records <= most, "{n_records} at {max_records} records and {max_bytes} bytes");
            n_read += n_records;
        }
        assert_eq!(n_read, 100);
    }
}

async fn a_dropped_poll_loses_nothing(Subject { log, .. }: Subject) {
    let topic = "dropped";
    log.create_topic(topic, TopicSpec::default()).await.unwrap();
    let mut reader = log.read(named(topic), &Offsets::default()).await.unwrap();
    let (mut found, deadline) = (Vec::new(), Instant::now() + PATIENCE);
    let mut n_written = 0;
    while found.len() < 400 {
        assert!(Instant::now() < deadline, "{} records came", found.len());
        if n_written < 400 {
            let batch = (n_written..n_written + 100).map(|i| record(topic, "k", &i.to_string()));
            log.append(batch.collect()).await.unwrap();
            n_written += 100;
        }
        // Dropped at its first wait, wherever that is.
        let small = PollLimit { max_records: 9, ..limit() };
        if let Ok(batches) = tokio::time::timeout(Duration::from_micros(50), reader.poll(small)).await {
            found.extend(flat(batches.unwrap()));
        } else {
            found.extend(flat(reader.poll(small).await.unwrap()));
        }
    }
    let expected: Vec<_> = (0..400).map(|i| i.to_string()).collect();
    assert_eq!(values(&found), expected);
}

async fn trimmed_records_are_gone(Subject { log, .. }: Subject) {
    let topic = "trim";
    let batch = (0..10).map(|i| record(topic, "k", &i.to_string()));
    log.append(batch.collect()).await.unwrap();
    log.trim(topic, 0, 6).await.unwrap();
    let bounds = log.offsets(topic).await.unwrap();
    assert_eq!((bounds[0].earliest, bounds[0].end), (6, 10));
    assert_eq!(values(&read_topic(&log, topic, 4).await), ["6", "7", "8", "9"]);
    // A start offset that is gone: reading goes on at the earliest.
    let mut from = Offsets::default();
    from.set(topic, 0, 2);
    let mut reader = log.read(named(topic), &from).await.unwrap();
    assert_eq!(values(&read(&mut *reader, 4).await), ["6", "7", "8", "9"]);
    // Everything may go; the next offset stays.
    log.trim(topic, 0, 10).await.unwrap();
    assert_eq!(log.append(vec![record(topic, "k", "10")]).await.unwrap(), [10]);
    assert_eq!(values(&read(&mut *reader, 1).await), ["10"]);
    let beyond = log.trim(topic, 0, 99).await.unwrap_err();
    assert!(matches!(beyond, LogError::Refused { .. }), "{beyond}");
}

async fn compaction_keeps_the_newest_of_each_key(Subject { compacting: log, .. }: Subject) {
    let topic = "compacted";
    log.create_topic(topic, TopicSpec::compacted()).await.unwrap();
    for round in 0..5 {
        let batch = (0..20).map(|i| record(topic, &format!("k{i}"), &format!("{i}:{round}")));
        log.append(batch.collect()).await.unwrap();
    }
    let tombstone = AppendRecord { value: None, ..record(topic, "k3", "") };
    log.append(vec![tombstone]).await.unwrap();
    let expected: Vec<_> = (0..20).filter(|i| *i != 3).map(|i| format!("{i}:4")).collect();
    let deadline = Instant::now() + PATIENCE * 2;
    let mut n_fillers = 0;
    loop {
        // Kafka compacts up to the segment being written, which only a further record closes.
        let filler = log.append(vec![record(topic, "filler", "f")]).await.unwrap()[0];
        n_fillers += 1;
        let mut reader = log.read(named(topic), &Offsets::default()).await.unwrap();
        let mut records = Vec::new();
        while records.last().is_none_or(|(_, _, r): &(Arc<str>, i32, Record)| r.offset < filler) {
            assert!(Instant::now() < deadline, "the last record never came");
            records.extend(flat(reader.poll(limit()).await.unwrap()));
        }
        records.retain(|(_, _, r)| text(r.key.as_ref()) != "filler");
        let offsets: Vec<_> = records.iter().map(|(_, _, r)| r.offset).collect();
        assert!(offsets.is_sorted());
        if values(&records) == expected {
            break;
        }
        assert!(Instant::now() < deadline, "{:?} after {n_fillers} rounds", values(&records));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let no_key = AppendRecord { key: None, ..record(topic, "", "v") };
    let error = log.append(vec![no_key]).await.unwrap_err();
    assert!(matches!(error, LogError::Refused { .. }), "{error}");
}

async fn a_large_record_is_refused(Subject { log, .. }: Subject) {
    let topic = "large";
    let large = record(topic, "k", &"x".repeat(20 << 20));
    let error = log.append(vec![large]).await.unwrap_err();
    assert!(matches!(&error, LogError::TooLarge { topic, bytes } if topic == "large" && *bytes >= 20 << 20), "{error}");
    log.append(vec![record(topic, "k", "small")]).await.unwrap();
    assert_eq!(values(&read_topic(&log, topic, 1).await), ["small"]);
}

async fn names_and_patterns_are_checked(Subject { log, .. }: Subject) {
    let error = log.create_topic("no spaces", TopicSpec::default()).await.unwrap_err();
    assert!(matches!(error, LogError::Refused { .. }), "{error}");
    let error = log.append(vec![record("no spaces", "k", "v")]).await.unwrap_err();
    assert!(matches!(error, LogError::Refused { .. }), "{error}");
    let pattern = vec![TopicSelector::Pattern("(".to_owned())];
    assert!(matches!(log.read(pattern, &Offsets::default()).await.err(), Some(LogError::Refused { .. })));
}

async fn a_deleted_topic_is_gone(Subject { log, .. }: Subject) {
    let topic = "deleted";
    log.append(vec![record(topic, "k", "old")]).await.unwrap();
    log.delete_topic(topic).await.unwrap();
    log.delete_topic(topic).await.unwrap();
    assert!(!log.topics().await.unwrap().contains(&topic.to_owned()));
    assert!(log.offsets(topic).await.unwrap().is_empty());
    log.append(vec![record(topic, "k", "new")]).await.unwrap();
    assert_eq!(values(&read_topic(&log, topic, 1).await), ["new"]);
}

async fn appends_under_way_keep_their_order(Subject { log, .. }: Subject) {
    let topic = "under-way";
    log.create_topic(topic, TopicSpec::default()).await.unwrap();
    let append = |i: u32| log.append((0..50).map(|j| record(topic, "k", &(i * 50 + j).to_string())).collect());
    let offsets = futures::future::join_all((0..20).map(append)).await;
    let offsets: Vec<i64> = offsets.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(offsets, (0..1000).collect::<Vec<_>>());
    let expected: Vec<_> = (0..1000).map(|i| i.to_string()).collect();
    assert_eq!(values(&read_topic(&log, topic, 1000).await), expected);
}
