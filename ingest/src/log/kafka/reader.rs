//! Reading from Kafka: a consumer on a thread of its own, with the partitions assigned by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use metrics::counter;
use model::{LogBatch, LogError, LogReader, Offsets, PollLimit};
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::{mpsc, watch};
use tracing::{debug, error, warn};

use super::cluster::{Catalog, Cluster, Context, refused};
use super::parcel::{Packing, Parcel, Waiting};
use super::{KafkaOptions, is_internal};
use crate::log::selection::Selection;

/// Records that the thread hands over at once, and how many such parcels may wait to be polled.
const PARCEL_RECORDS_MAX: usize = 1000;
const PARCELS_MAX: usize = 8;
/// Kilobytes that librdkafka fetches ahead.
const AHEAD_KILOBYTES_MAX: &str = "32768";
/// How long the thread waits for a record before it looks for new partitions and for its end.
const TICK: Duration = Duration::from_millis(50);
/// Time for one question about a partition's bounds.
const BOUNDS_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
struct ReaderContext(Context);

impl ClientContext for ReaderContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl ConsumerContext for ReaderContext {}

/// A reader of a Kafka log.
pub(super) struct KafkaReader {
    parcels: mpsc::Receiver<Result<Parcel, LogError>>,
    /// Records taken from the channel and not yet returned.
    waiting: Waiting,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl KafkaReader {
    pub(super) fn start(
        options: &KafkaOptions,
        cluster: Arc<Cluster>,
        selection: Selection,
        from: Offsets,
    ) -> Result<Self, LogError> {
        let config = options.client_config(&[
            // Never joined or committed to; the client library wants a name.
            ("group.id", "andon"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            ("allow.auto.create.topics", "false"),
            ("fetch.wait.max.ms", "100"),
            ("fetch.queue.backoff.ms", "5"),
            ("fetch.error.backoff.ms", "100"),
            ("queued.max.messages.kbytes", AHEAD_KILOBYTES_MAX),
        ]);
        let consumer =
            BaseConsumer::from_config_and_context(&config, ReaderContext(cluster.context())).map_err(refused)?;
        let (sender, parcels) = mpsc::channel(PARCELS_MAX);
        let ending = Arc::new(AtomicBool::new(false));
        let catalog = cluster.watch_catalog();
        let mut worker = Worker {
            consumer,
            catalog,
            selection,
            start: from,
            positions: BTreeMap::new(),
            names: BTreeSet::new(),
            sender,
            ending: Arc::clone(&ending),
            _cluster: cluster,
        };
        let thread = std::thread::Builder::new()
            .name("kafka-reader".to_owned())
            .spawn(move || worker.run())
            .map_err(|e| LogError::Unavailable { reason: format!("no thread for a reader: {e}") })?;
        Ok(Self { parcels, waiting: Waiting::default(), ending, thread: Some(thread) })
    }
}

#[async_trait]
impl LogReader for KafkaReader {
    async fn poll(&mut self, limit: PollLimit) -> Result<Vec<LogBatch>, LogError> {
        if self.waiting.n_records() == 0 {
            match tokio::time::timeout(limit.wait, self.parcels.recv()).await {
                Err(_) => return Ok(Vec::new()),
                Ok(None) => return Err(LogError::Unavailable { reason: "the reading thread ended".to_owned() }),
                Ok(Some(parcel)) => self.waiting.extend(parcel?),
            }
        }
        while self.waiting.n_records() < limit.max_records {
            match self.parcels.try_recv() {
                Ok(parcel) => self.waiting.extend(parcel?),
                Err(_) => break,
            }
        }
        Ok(self.waiting.take(limit))
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
        self.parcels.close();
        while self.parcels.try_recv().is_ok() {}
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            error!("a Kafka reader's thread had panicked");
        }
    }
}

/// What the reading thread owns.
struct Worker {
    consumer: BaseConsumer<ReaderContext>,
    catalog: watch::Receiver<Arc<Catalog>>,
    selection: Selection,
    start: Offsets,
    /// Next offset per assigned partition; `None` until its first record when it starts at the earliest.
    positions: BTreeMap<(Arc<str>, i32), Option<i64>>,
    names: BTreeSet<Arc<str>>,
    sender: mpsc::Sender<Result<Parcel, LogError>>,
    ending: Arc<AtomicBool>,
    /// Keeps the catalog up to date for as long as there is a reader.
    _cluster: Arc<Cluster>,
}

impl Worker {
    fn run(&mut self) {
        let mut outcome = self.follow_catalog();
        while outcome.is_ok() && !self.ending.load(Ordering::Acquire) {
            if self.catalog.has_changed().unwrap_or(false) {
                outcome = self.follow_catalog();
                continue;
            }
            outcome = self.read_parcel();
        }
        if let Err(error) = outcome {
            // Nobody listens any more if the reader was dropped.
            self.sender.blocking_send(Err(error)).ok();
        }
    }

    fn read_parcel(&mut self) -> Result<(), LogError> {
        let mut packing = Packing::default();
        let mut wait = TICK;
        let mut out_of_range = false;
        while packing.n_records() < PARCEL_RECORDS_MAX {
            match self.consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    packing.push(&message, |topic| name(&mut self.names, topic));
                }
                Some(Err(error)) => {
                    out_of_range |= judge(&error)?;
                }
            }
            wait = Duration::ZERO;
        }
        let parcel = packing.finish();
        for batch in &parcel {
            self.positions.insert((Arc::clone(&batch.topic), batch.partition), Some(batch.next_offset()));
        }
        if !parcel.is_empty() && self.sender.blocking_send(Ok(parcel)).is_err() {
            self.ending.store(true, Ordering::Release);
        }
        if out_of_range { self.assign(Check::All) } else { Ok(()) }
    }

    /// Takes up new topics and partitions, and lets go of those that are gone.
    fn follow_catalog(&mut self) -> Result<(), LogError> {
        let catalog = Arc::clone(&self.catalog.borrow_and_update());
        let mut followed = BTreeMap::new();
        for (topic, n_partitions) in catalog.iter() {
            if is_internal(topic) || !self.selection.matches(topic) {
                continue;
            }
            let topic = name(&mut self.names, topic);
            for partition in 0..*n_partitions {
                let place = (Arc::clone(&topic), partition);
                let position = match self.positions.get(&place) {
                    Some(position) => *position,
                    None => self.start.get(&topic, partition),
                };
                followed.insert(place, position);
            }
        }
        let is_same = followed.keys().eq(self.positions.keys());
        let new: BTreeSet<_> = followed.keys().filter(|place| !self.positions.contains_key(place)).cloned().collect();
        self.positions = followed;
        if is_same { Ok(()) } else { self.assign(Check::Only(new)) }
    }

    /// Assigns all partitions at their positions, after a check that these positions still exist.
    fn assign(&mut self, check: Check) -> Result<(), LogError> {
        for (place, position) in &mut self.positions {
            let is_checked = match &check {
                Check::All => true,
                Check::Only(places) => places.contains(place),
            };
            let (true, Some(wanted)) = (is_checked, *position) else { continue };
            match self.consumer.fetch_watermarks(&place.0, place.1, BOUNDS_TIMEOUT) {
                Ok((earliest, end)) if !(earliest..=end).contains(&wanted) => {
                    warn!(
                        topic = &*place.0,
                        partition = place.1,
                        wanted,
                        earliest,
                        end,
                        "offset is no longer there; going on at the earliest"
                    );
                    counter!("log_start_offsets_missing_total", "log" => "kafka").increment(1);
                    *position = Some(earliest);
                }
                Ok(_) => {}
                // The broker says so again if the offset is really gone.
                Err(error) => debug!(topic = &*place.0, partition = place.1, %error, "no bounds"),
            }
        }
        let mut list = TopicPartitionList::with_capacity(self.positions.len());
        for ((topic, partition), position) in &self.positions {
            let offset = position.map_or(Offset::Beginning, Offset::Offset);
            list.add_partition_offset(topic, *partition, offset).map_err(refused)?;
        }
        debug!(partitions = self.positions.len(), "following");
        self.consumer.assign(&list).map_err(refused)
    }
}

/// Which positions to check before they are assigned.
enum Check {
    All,
    Only(BTreeSet<(Arc<str>, i32)>),
}

/// Whether an error of the consumer means that a position no longer exists. Most others pass by themselves.
fn judge(error: &KafkaError) -> Result<bool, LogError> {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => Ok(true),
        Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
            Err(LogError::Refused { reason: format!("reading is not allowed: {error}") })
        }
        _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => Err(refused(error.clone())),
        _ => {
            debug!(%error, "consumer");
            Ok(false)
        }
    }
}

/// One shared copy of each topic's name.
fn name(names: &mut BTreeSet<Arc<str>>, topic: &str) -> Arc<str> {
    if let Some(known) = names.get(topic) {
        return Arc::clone(known);
    }
    let new: Arc<str> = Arc::from(topic);
    names.insert(Arc::clone(&new));
    new
}
