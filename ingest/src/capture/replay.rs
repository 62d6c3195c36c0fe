//! Putting a capture into a log again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::FuturesOrdered;
use futures::{StreamExt, TryStreamExt};
use model::{AppendRecord, Log, LogError, Offsets, TopicSpec};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Capture, CaptureError, CaptureRecord, Records, position};

/// Records and bytes appended at once.
const BATCH_RECORDS_MAX: usize = 2048;
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Batches that may be read ahead of the appends.
const BATCHES_AHEAD_MAX: usize = 4;
/// Appends under way at once at full speed; they keep their order.
const APPENDS_MAX: usize = 4;
/// Topics made at once.
const TOPICS_AT_ONCE_MAX: usize = 8;
/// A record that is due within this time is sent at once: timers are no finer.
const PACE_SLACK: Duration = Duration::from_millis(2);

/// How fast a capture is replayed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// As fast as the log takes it.
    Max,
    /// So many times as fast as it was captured, by the records' Kafka timestamps. Snapshot rows go at full speed.
    Times(f64),
}

/// Which timestamps the records get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timestamps {
    /// Those of the capture.
    Capture,
    /// The time of the append.
    Append,
}

/// What is replayed, and how.
#[derive(Debug, Clone)]
pub struct ReplayOptions {
    /// How fast.
    pub speed: Speed,
    /// Replay only records below these offsets of the capture; a topic or partition that is not named is left out.
    pub upto: Option<Offsets>,
    /// Make the topics with as many partitions as were captured, and keep each record's partition. Otherwise records go
    /// into the topics as they are, by the hash of their keys.
    pub create_partitions: bool,
    /// Records with an earlier Kafka timestamp go at full speed, milliseconds since 1970.
    pub start_at_ms: Option<i64>,
    /// Added to Debezium's `source.lsn` and both parts of `source.sequence`, so that replaying the same capture again is not
    /// taken for old news.
    pub position_shift: i64,
    /// Timestamps of the appended records.
    pub timestamps: Timestamps,
}

impl Default for ReplayOptions {
    fn default() -> Self {
        Self {
            speed: Speed::Max,
            upto: None,
            create_partitions: true,
            start_at_ms: None,
            position_shift: 0,
            timestamps: Timestamps::Capture,
        }
    }
}

/// How far a replay is, told after each append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Records in the log so far.
    pub n_records: u64,
    /// Records of the whole capture, whatever `upto` leaves out.
    pub n_records_total: u64,
    /// Bytes of keys and values so far.
    pub n_bytes: u64,
    /// Kafka timestamp of the last record in the capture, milliseconds since 1970.
    pub timestamp_ms: i64,
}

/// What a replay did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayReport {
    /// Records appended.
    pub n_records: u64,
    /// Bytes of their keys and values.
    pub n_bytes: u64,
    /// Topics appended to.
    pub n_topics: usize,
    /// The log's end offsets after the last record, of every partition that got one.
    pub end_offsets: Offsets,
    /// The largest log position among the records, after the shift.
    pub lsn_max: Option<i64>,
    /// Whether all was replayed; false if it was cancelled.
    pub is_complete: bool,
}

/// Why a replay broke off. What was appended before stays in the log.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The capture cannot be read.
    #[error("replay broke off: capture unreadable")]
    Capture(#[from] CaptureError),
    /// The log does not take the records.
    #[error("replay broke off: log does not take the records")]
    Log(#[from] LogError),
}

/// A record ready to be appended, with what pacing needs to know.
struct Ready {
    record: AppendRecord,
    timestamp_ms: i64,
    lsn: Option<i64>,
    is_paced: bool,
}

/// Appends a capture to a log, in the order of [`Records`], and tells `progress` after every append.
///
/// Cancelling ends it after the append under way; the report says so.
///
/// # Errors
/// [`ReplayError`].
pub async fn replay(
    capture: &Capture,
    log: &Arc<dyn Log>,
    options: ReplayOptions,
    progress: impl FnMut(Progress) + Send,
    cancel: CancellationToken,
) -> Result<ReplayReport, ReplayError> {
    if options.create_partitions {
        create_topics(capture, log, options.upto.as_ref()).await?;
    }
    let (sender, mut batches) = mpsc::channel(BATCHES_AHEAD_MAX);
    let (streams, ahead) = (capture.clone(), options.clone());
    let reading = tokio::task::spawn_blocking(move || {
        if let Err(error) = read_ahead(&streams, &ahead, &sender) {
            // Nobody listens if the replay was cancelled.
            sender.blocking_send(Err(error)).ok();
        }
    });
    let mut replay = Replay {
        log,
        under_way: FuturesOrdered::new(),
        pending: Vec::new(),
        pacer: Pacer { speed: options.speed, origin: None },
        progress,
        told: Progress { n_records: 0, n_records_total: capture.n_records(), n_bytes: 0, timestamp_ms: 0 },
        end_offsets: Offsets::default(),
        topics: BTreeMap::new(),
        lsn_max: None,
    };
    let mut is_complete = true;
    while let Some(batch) = tokio::select! {
        batch = batches.recv() => batch,
        () = cancel.cancelled() => { is_complete = false; None }
    } {
        tokio::select! {
            result = replay.batch(batch?) => result?,
            () = cancel.cancelled() => { is_complete = false; break }
        }
    }
    drop(batches);
    replay.pending.clear();
    replay.settle(0).await?;
    if reading.await.is_err() {
        return Err(LogError::Unavailable { reason: "the reading thread ended".to_owned() }.into());
    }
    replay.report(is_complete).await
}

async fn create_topics(capture: &Capture, log: &Arc<dyn Log>, upto: Option<&Offsets>) -> Result<(), LogError> {
    let mut topics: BTreeMap<Arc<str>, i32> = BTreeMap::new();
    for captured in capture.partitions() {
        if upto.is_none_or(|upto| upto.get(&captured.topic, captured.partition).is_some()) {
            let n_partitions = topics.entry(captured.topic).or_insert(1);
            *n_partitions = (*n_partitions).max(captured.partition + 1);
        }
    }
    // Kafka takes a while for each.
    let made = futures::stream::iter(topics)
        .map(|(topic, partitions)| async move {
            log.create_topic(&topic, TopicSpec { partitions, ..TopicSpec::default() }).await
        })
        .buffer_unordered(TOPICS_AT_ONCE_MAX);
    made.try_collect().await
}

/// Reads and parses ahead of the appends, on a thread of its own.
fn read_ahead(
    capture: &Capture,
    options: &ReplayOptions,
    sender: &mpsc::Sender<Result<Vec<Ready>, CaptureError>>,
) -> Result<(), CaptureError> {
    let mut batch = Vec::with_capacity(BATCH_RECORDS_MAX);
    let mut n_bytes = 0;
    let records: Records = capture.records(options.upto.as_ref())?;
    for record in records {
        let ready = make_ready(record?, options);
        n_bytes += payload_bytes(&ready.record);
        batch.push(ready);
        if batch.len() >= BATCH_RECORDS_MAX || n_bytes >= BATCH_BYTES_MAX {
            n_bytes = 0;
            let full = std::mem::replace(&mut batch, Vec::with_capacity(BATCH_RECORDS_MAX));
            if sender.blocking_send(Ok(full)).is_err() {
                return Ok(());
            }
        }
    }
    // Nobody listens if the replay was cancelled.
    sender.blocking_send(Ok(batch)).ok();
    Ok(())
}

fn make_ready(record: CaptureRecord, options: &ReplayOptions) -> Ready {
    let is_snapshot = record.position.is_some_and(|position| !position.is_change);
    let is_early = options.start_at_ms.is_some_and(|start_ms| record.timestamp_ms < start_ms);
    let value = match (&record.value, options.position_shift) {
        (Some(value), shift) if shift != 0 => {
            position::shifted(value, shift).map_or_else(|| Some(value.clone()), |moved| Some(Bytes::from(moved)))
        }
        _ => record.value.clone(),
    };
    Ready {
        timestamp_ms: record.timestamp_ms,
        lsn: record.position.map(|position| position.lsn.saturating_add(options.position_shift)),
        is_paced: options.speed != Speed::Max && !is_snapshot && !is_early,
        record: AppendRecord {
            topic: record.topic,
            partition: options.create_partitions.then_some(record.partition),
            timestamp_ms: (options.timestamps == Timestamps::Capture).then_some(record.timestamp_ms),
            key: record.key,
            value,
            headers: Vec::new(),
        },
    }
}

fn payload_bytes(record: &AppendRecord) -> usize {
    record.key.as_ref().map_or(0, Bytes::len) + record.value.as_ref().map_or(0, Bytes::len)
}

/// When records are due.
struct Pacer {
    speed: Speed,
    /// The first paced record's timestamp, and when it was sent.
    origin: Option<(i64, Instant)>,
}

impl Pacer {
    fn due(&mut self, timestamp_ms: i64) -> Instant {
        let (first_ms, started) = *self.origin.get_or_insert_with(|| (timestamp_ms, Instant::now()));
        let Speed::Times(times) = self.speed else {
            return started;
        };
        let elapsed_ms = timestamp_ms.saturating_sub(first_ms).max(0) as f64;
        let wait = Duration::try_from_secs_f64(elapsed_ms / 1000.0 / times.max(f64::MIN_POSITIVE));
        // A wait that no clock can hold is one nobody sees the end of.
        started
            .checked_add(wait.unwrap_or(Duration::MAX))
            .unwrap_or_else(|| started + Duration::from_secs(u32::MAX.into()))
    }
}

/// What an append under way is about: topic and partition of each record.
type Places = Vec<(Arc<str>, Option<i32>)>;
type UnderWay<'a> = futures::future::BoxFuture<'a, (Places, Progress, Result<Vec<i64>, LogError>)>;

/// A replay under way.
struct Replay<'a, P> {
    log: &'a Arc<dyn Log>,
    under_way: FuturesOrdered<UnderWay<'a>>,
    pending: Vec<Ready>,
    pacer: Pacer,
    progress: P,
    told: Progress,
    end_offsets: Offsets,
    /// Topics appended to, and whether their partitions were left to the log.
    topics: BTreeMap<Arc<str>, bool>,
    lsn_max: Option<i64>,
}

impl<P: FnMut(Progress)> Replay<'_, P> {
    /// Appends the records of a batch, each when it is due.
    async fn batch(&mut self, batch: Vec<Ready>) -> Result<(), LogError> {
        for ready in batch {
            if ready.is_paced {
                let due = self.pacer.due(ready.timestamp_ms);
                if due > Instant::now() + PACE_SLACK {
                    self.flush(0).await?;
                    tokio::time::sleep_until(due).await;
                }
            }
            self.pending.push(ready);
        }
        self.flush(APPENDS_MAX - 1).await
    }

    /// Begins an append of what is pending, and waits until at most so many are under way.
    async fn flush(&mut self, under_way_max: usize) -> Result<(), LogError> {
        if !self.pending.is_empty() {
            let mut records = Vec::with_capacity(self.pending.len());
            let mut places = Places::with_capacity(self.pending.len());
            let mut step = Progress { n_records: self.pending.len() as u64, n_bytes: 0, ..self.told };
            for ready in self.pending.drain(..) {
                step.n_bytes += payload_bytes(&ready.record) as u64;
                step.timestamp_ms = ready.timestamp_ms;
                self.lsn_max = self.lsn_max.max(ready.lsn);
                places.push((Arc::clone(&ready.record.topic), ready.record.partition));
                records.push(ready.record);
            }
            let log = self.log;
            self.under_way.push_back(Box::pin(async move { (places, step, log.append(records).await) }));
        }
        self.settle(under_way_max).await
    }

    async fn settle(&mut self, under_way_max: usize) -> Result<(), LogError> {
        while self.under_way.len() > under_way_max {
            let Some((places, step, offsets)) = self.under_way.next().await else { break };
            for ((topic, partition), offset) in places.into_iter().zip(offsets?) {
                if let Some(partition) = partition {
                    self.end_offsets.set(&topic, partition, offset + 1);
                }
                self.topics.entry(topic).or_insert(partition.is_none());
            }
            self.told.n_records += step.n_records;
            self.told.n_bytes += step.n_bytes;
            self.told.timestamp_ms = step.timestamp_ms;
            (self.progress)(self.told);
        }
        Ok(())
    }

    async fn report(self, is_complete: bool) -> Result<ReplayReport, ReplayError> {
        let mut end_offsets = self.end_offsets;
        for topic in self.topics.iter().filter_map(|(topic, by_log)| by_log.then_some(topic)) {
            for bounds in self.log.offsets(topic).await? {
                end_offsets.set(topic, bounds.partition, bounds.end);
            }
        }
        Ok(ReplayReport {
            n_records: self.told.n_records,
            n_bytes: self.told.n_bytes,
            n_topics: self.topics.len(),
            end_offsets,
            lsn_max: self.lsn_max,
            is_complete,
        })
    }
}
