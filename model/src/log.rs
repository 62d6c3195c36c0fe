//! The narrow trait between the stages: append, read from an offset, end offsets, retention, compaction.
//!
//! Two implementations live in `ingest::log`: Kafka and a durable local log. Nothing else knows which it runs on.
//!
//! Invariants that the conformance suite holds both to:
//! - offsets of a partition only grow; a reader sees each partition's records in offset order, without gaps other
//!   than those that retention or compaction made;
//! - a batch of `append` is in the log, in order, when the call returns `Ok`; after an error it may be partly there;
//! - a reader finds topics and partitions that appear after it was opened.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::Offsets;

/// A record as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Position in the partition.
    pub offset: i64,
    /// Milliseconds since 1970-01-01 UTC, as the writer set it or the log stamped it.
    pub timestamp_ms: i64,
    /// Key bytes, if any.
    pub key: Option<Bytes>,
    /// Value bytes; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers in order.
    pub headers: Vec<(Arc<str>, Bytes)>,
}

impl Record {
    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&Bytes> {
        self.headers.iter().find(|(n, _)| &**n == name).map(|(_, v)| v)
    }
}

/// Consecutive records of one partition.
#[derive(Debug, Clone)]
pub struct LogBatch {
    /// Topic they were read from.
    pub topic: Arc<str>,
    /// Partition they were read from.
    pub partition: i32,
    /// In offset order; not empty.
    pub records: Vec<Record>,
}

impl LogBatch {
    /// The offset to go on from after this batch.
    pub fn next_offset(&self) -> i64 {
        self.records.last().map_or(0, |r| r.offset + 1)
    }
}

/// A record to write.
#[derive(Debug, Clone)]
pub struct AppendRecord {
    /// Topic; created with the default spec if it does not exist.
    pub topic: Arc<str>,
    /// Partition, or `None` to choose by the hash of the key (Kafka's murmur2), or any without key.
    pub partition: Option<i32>,
    /// Milliseconds since 1970, or `None` for the time of the append.
    pub timestamp_ms: Option<i64>,
    /// Key bytes.
    pub key: Option<Bytes>,
    /// Value bytes; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers in order.
    pub headers: Vec<(Arc<str>, Bytes)>,
}

/// What a topic keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicSpec {
    /// Number of partitions, at least 1. `create_topic` on an existing topic adds partitions up to this number and
    /// never removes any.
    pub partitions: i32,
    /// Keep only the newest record of each key (tombstones go after a while).
    pub compacted: bool,
    /// Drop records older than this, by record timestamp.
    pub retention: Option<Duration>,
}

impl Default for TopicSpec {
    fn default() -> Self {
        Self { partitions: 1, compacted: false, retention: None }
    }
}

impl TopicSpec {
    /// One partition, compacted: the form of view topics.
    pub fn compacted() -> Self {
        Self { compacted: true, ..Self::default() }
    }
}

/// Earliest kept and next offset of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionOffsets {
    /// Partition number.
    pub partition: i32,
    /// Offset of the oldest record still kept.
    pub earliest: i64,
    /// Offset that the next appended record will get.
    pub end: i64,
}

/// Which topics a reader follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicSelector {
    /// One topic by name; it need not exist yet.
    Name(String),
    /// Every topic whose whole name matches this regular expression, now or later (Flink's `topic-pattern`).
    Pattern(String),
}

/// How much one poll may return, and how long it may wait for the first record.
#[derive(Debug, Clone, Copy)]
pub struct PollLimit {
    /// At most so many records, over all partitions.
    pub max_records: usize,
    /// Stop after so many payload bytes (at least one record is returned).
    pub max_bytes: usize,
    /// Return empty-handed after so long.
    pub wait: Duration,
}

/// Why a log operation failed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The log cannot be reached now; the same call may succeed later.
    #[error("log is unavailable: {reason}")]
    Unavailable {
        /// What the client library said.
        reason: String,
    },
    /// A record is larger than the log takes.
    #[error("record of {bytes} bytes for topic {topic} is over the limit")]
    TooLarge {
        /// Topic it was meant for.
        topic: String,
        /// Its size.
        bytes: usize,
    },
    /// The request can never succeed as it is (bad name, bad pattern, no permission).
    #[error("log refused the request: {reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// The stored data is damaged or in an unknown format.
    #[error("log data at {place} is unreadable: {reason}")]
    Corrupt {
        /// File, topic or partition.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Append-only topics of keyed records.
#[async_trait]
pub trait Log: Send + Sync + std::fmt::Debug + 'static {
    /// One line for the start-up message: which log this is and where.
    fn describe(&self) -> String;

    /// Creates a topic, or adds partitions to it; does nothing if it is already so.
    async fn create_topic(&self, topic: &str, spec: TopicSpec) -> Result<(), LogError>;

    /// Removes a topic and its records; does nothing if it does not exist.
    async fn delete_topic(&self, topic: &str) -> Result<(), LogError>;

    /// Names of all topics, sorted.
    async fn topics(&self) -> Result<Vec<String>, LogError>;

    /// Offsets of every partition, by partition; empty if the topic does not exist.
    async fn offsets(&self, topic: &str) -> Result<Vec<PartitionOffsets>, LogError>;

    /// Appends in order per partition and waits until the log has them. Returns each record's offset.
    /// Several appends may be under way at once: they are written in the order in which they were first polled.
    async fn append(&self, records: Vec<AppendRecord>) -> Result<Vec<i64>, LogError>;

    /// Forgets the records of a partition before an offset.
    async fn trim(&self, topic: &str, partition: i32, before_offset: i64) -> Result<(), LogError>;

    /// Opens a reader at `from`; partitions not named there are read from their earliest record.
    async fn read(&self, topics: Vec<TopicSelector>, from: &Offsets) -> Result<Box<dyn LogReader>, LogError>;
}

/// A position in a set of topics that moves forward.
#[async_trait]
pub trait LogReader: Send {
    /// The next records; empty if none came within `limit.wait`. Outages are waited out, logged and counted here;
    /// an error means that reading can never go on. Dropping the future loses no record.
    async fn poll(&mut self, limit: PollLimit) -> Result<Vec<LogBatch>, LogError>;
}
