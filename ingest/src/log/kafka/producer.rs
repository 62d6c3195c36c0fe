//! Appending to Kafka: one idempotent producer, in order per partition, with a bounded queue.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use metrics::counter;
use model::{AppendRecord, LogError, TopicSpec};
use rdkafka::Message;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;

use super::KafkaOptions;
use super::cluster::{Cluster, Context, blocking, refused};

/// Records and kilobytes that may wait for the brokers, over all appends; beyond it appends wait.
const QUEUE_RECORDS_MAX: &str = "100000";
const QUEUE_KILOBYTES_MAX: &str = "65536";
/// Pause of an append that found the queue full.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(1);
/// Pause before the next attempt to write to a partition that the producer has not heard of yet.
const NEW_PARTITION_PAUSE: Duration = Duration::from_millis(20);
/// Time for the last records when the log is closed.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for one question about a topic's partitions.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);

/// The deliveries that one append waits for.
#[derive(Debug)]
struct Append {
    /// Offset of each record, once delivered.
    offsets: Vec<AtomicI64>,
    /// Records not yet delivered, and one for the append that is still handing records over.
    n_missing: AtomicUsize,
    failure: Mutex<Option<LogError>>,
    done: Mutex<Option<oneshot::Sender<()>>>,
}

impl Append {
    fn fail(&self, error: LogError) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    fn arrived(&self) {
        if self.n_missing.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(done) = self.done.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            // Nobody listens if the append was dropped; its records are in the log all the same.
            done.send(()).ok();
        }
    }
}

/// One record of an append, on its way.
pub(super) struct Delivery {
    append: Arc<Append>,
    place: usize,
}

/// The context of the producer: what librdkafka calls when a record is in the log or has failed.
#[derive(Debug, Clone)]
struct DeliveryContext(Context);

impl ClientContext for DeliveryContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl ProducerContext for DeliveryContext {
    type DeliveryOpaque = Box<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Box<Delivery>) {
        let Delivery { append, place } = *delivery;
        match result {
            Ok(message) => append.offsets[place].store(message.offset(), Ordering::Release),
            Err((error, message)) => {
                append.fail(delivery_error(error, message.topic(), message.payload().map_or(0, <[u8]>::len)))
            }
        }
        append.arrived();
    }
}

/// The producer of a Kafka log.
pub(super) struct Producer {
    inner: ThreadedProducer<DeliveryContext>,
    cluster: Arc<Cluster>,
    /// Held while an append hands its records over, and given out in turn: appends that are under way at the same time
    /// are written in the order in which they were begun, even if the queue is full in between.
    turn: tokio::sync::Mutex<()>,
}

impl Producer {
    pub(super) fn new(options: &KafkaOptions, cluster: Arc<Cluster>) -> Result<Self, LogError> {
        let linger_ms = options.linger.as_millis().to_string();
        let timeout_ms = options.delivery_timeout.as_millis().to_string();
        let config = options.client_config(&[
            ("enable.idempotence", "true"),
            ("partitioner", "murmur2_random"),
            ("compression.codec", "lz4"),
            ("linger.ms", &linger_ms),
            ("message.timeout.ms", &timeout_ms),
            ("queue.buffering.max.messages", QUEUE_RECORDS_MAX),
            ("queue.buffering.max.kbytes", QUEUE_KILOBYTES_MAX),
            ("retry.backoff.ms", "50"),
        ]);
        let context = DeliveryContext(cluster.context());
        let inner = ThreadedProducer::from_config_and_context(&config, context).map_err(refused)?;
        Ok(Self { inner, cluster, turn: tokio::sync::Mutex::new(()) })
    }

    /// Hands all records over in order, then waits until the brokers have them.
    pub(super) async fn append(&self, records: Vec<AppendRecord>) -> Result<Vec<i64>, LogError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let turn = self.turn.lock().await;
        self.make_room(&records).await?;
        let (done, arrival) = oneshot::channel();
        let append = Arc::new(Append {
            offsets: records.iter().map(|_| AtomicI64::new(-1)).collect(),
            n_missing: AtomicUsize::new(records.len() + 1),
            failure: Mutex::new(None),
            done: Mutex::new(Some(done)),
        });
        let mut n_bytes = 0;
        for (place, record) in records.iter().enumerate() {
            n_bytes += record.key.as_ref().map_or(0, Bytes::len) + record.value.as_ref().map_or(0, Bytes::len);
            if let Err(error) = self.hand_over(record, &append, place).await {
                // What comes after the failed record is not written, so that order holds.
                append.fail(error);
                for _ in place..records.len() {
                    append.arrived();
                }
                break;
            }
        }
        drop(turn);
        append.arrived();
        if arrival.await.is_err() {
            return Err(LogError::Unavailable { reason: "the producer ended".to_owned() });
        }
        if let Some(error) = append.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        counter!("log_appended_records_total", "log" => "kafka").increment(records.len() as u64);
        counter!("log_appended_bytes_total", "log" => "kafka").increment(n_bytes as u64);
        Ok(append.offsets.iter().map(|offset| offset.load(Ordering::Acquire)).collect())
    }

    /// Makes the topics and partitions that the records name and that do not exist yet.
    async fn make_room(&self, records: &[AppendRecord]) -> Result<(), LogError> {
        let catalog = self.cluster.catalog();
        let mut missing: Vec<(&str, i32)> = Vec::new();
        let mut last: Option<(&str, i32)> = None;
        for record in records {
            let n_wanted = record.partition.map_or(1, |partition| partition.saturating_add(1)).max(1);
            if last.is_some_and(|(topic, n)| topic == &*record.topic && n >= n_wanted) {
                continue;
            }
            let n_known = catalog.get(&*record.topic).copied().unwrap_or(0);
            last = Some((&record.topic, n_known));
            if n_known >= n_wanted {
                continue;
            }
            match missing.iter_mut().find(|(topic, _)| *topic == &*record.topic) {
                Some((_, n)) => *n = (*n).max(n_wanted),
                None => missing.push((&record.topic, n_wanted)),
            }
        }
        for (topic, partitions) in missing {
            super::check_topic_name(topic)?;
            self.cluster.create_topic(topic, TopicSpec { partitions, ..TopicSpec::default() }).await?;
        }
        Ok(())
    }

    /// Puts one record into the producer's queue, waiting while that is full.
    async fn hand_over(&self, record: &AppendRecord, append: &Arc<Append>, place: usize) -> Result<(), LogError> {
        let mut delivery = Box::new(Delivery { append: Arc::clone(append), place });
        let deadline = Instant::now() + METADATA_TIMEOUT * 4;
        loop {
            let (error, returned) = match self.inner.send(base_record(record, delivery)) {
                Ok(()) => return Ok(()),
                Err((error, returned)) => (error, returned),
            };
            match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => tokio::time::sleep(QUEUE_FULL_PAUSE).await,
                Some(
                    RDKafkaErrorCode::UnknownPartition
                    | RDKafkaErrorCode::UnknownTopic
                    | RDKafkaErrorCode::UnknownTopicOrPartition,
                ) if Instant::now() < deadline => {
                    self.hear_of(&record.topic).await?;
                    tokio::time::sleep(NEW_PARTITION_PAUSE).await;
                }
                _ => {
                    let n_bytes = record.value.as_ref().map_or(0, Bytes::len);
                    return Err(delivery_error(&error, &record.topic, n_bytes));
                }
            }
            delivery = returned.delivery_opaque;
        }
    }

    /// Makes the producer ask the brokers for a topic's partitions.
    async fn hear_of(&self, topic: &str) -> Result<(), LogError> {
        let (client, topic) = (self.inner.clone(), topic.to_owned());
        blocking(move || {
            // A failure here shows as the same error of the next attempt.
            client.client().fetch_metadata(Some(&topic), METADATA_TIMEOUT).ok();
            Ok(())
        })
        .await
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        if let Err(error) = self.inner.flush(FLUSH_TIMEOUT) {
            tracing::warn!(%error, "records were still on their way to Kafka");
        }
    }
}

fn base_record(record: &AppendRecord, delivery: Box<Delivery>) -> BaseRecord<'_, [u8], [u8], Box<Delivery>> {
    let mut base = BaseRecord::with_opaque_to(&record.topic, delivery);
    base.partition = record.partition;
    base.timestamp = record.timestamp_ms;
    base.key = record.key.as_deref();
    base.payload = record.value.as_deref();
    if !record.headers.is_empty() {
        let headers = OwnedHeaders::new_with_capacity(record.headers.len());
        base.headers = Some(
            record.headers.iter().fold(headers, |h, (key, value)| h.insert(Header { key, value: Some(&value[..]) })),
        );
    }
    base
}

fn delivery_error(error: &KafkaError, topic: &str, bytes: usize) -> LogError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge) => LogError::TooLarge { topic: topic.to_owned(), bytes },
        Some(
            RDKafkaErrorCode::InvalidRecord
            | RDKafkaErrorCode::InvalidTopic
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::InvalidTimestamp
            | RDKafkaErrorCode::UnknownPartition,
        ) => LogError::Refused { reason: format!("topic {topic}: {error}") },
        _ => LogError::Unavailable { reason: format!("topic {topic}: {error}") },
    }
}
