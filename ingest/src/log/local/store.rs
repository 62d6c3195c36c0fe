//! The tables of a local log in its storage engine, and the form of their keys.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `format` | format version, decimal |
//! | `topics` | topic name | [`TopicEntry`] as JSON |
//! | `partitions` | topic id, partition | earliest and end offset |
//! | `blocks` | topic id, partition, first offset | a block of records ([`super::block`]) of a topic that is not compacted |
//! | `keyed` | topic id, partition, offset | a block of one record of a compacted topic |
//! | `newest` | topic id, partition, record key | offset of the newest record with that key |
//! | `garbage` | due time, topic id, partition, offset | a record of `keyed` to remove at that time |
//!
//! Numbers in keys are big endian, so that they sort. Every append is one atomic batch over all tables.

use std::path::Path;

use bytes::Bytes;
use fjall::{Database, KeyspaceCreateOptions, KvSeparationOptions};
use model::{LogError, TopicSpec};
use serde::{Deserialize, Serialize};

/// Version of everything in this file and in [`super::block`]. A log of another version is not opened.
pub(super) const FORMAT_VERSION: &str = "1";
const FORMAT_KEY: &str = "format";

/// Bytes of written records kept in memory per table until they are flushed into a file.
const BLOCKS_MEMTABLE_BYTES: u64 = 16 << 20;
const KEYED_MEMTABLE_BYTES: u64 = 8 << 20;
const SMALL_MEMTABLE_BYTES: u64 = 2 << 20;
/// Cache of file blocks; the operating system's page cache stands behind it.
const CACHE_BYTES: u64 = 16 << 20;
/// Journal files together; beyond it the storage engine flushes tables to let go of the oldest.
const JOURNAL_BYTES_MAX: u64 = 256 << 20;
/// Values from this size on are moved out of the sorted files, which then compact without rewriting them.
const SEPARATED_VALUE_BYTES_MIN: u32 = 2048;

/// A topic as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct TopicEntry {
    pub(super) id: u32,
    pub(super) partitions: i32,
    pub(super) compacted: bool,
    pub(super) retention_ms: Option<u64>,
}

impl TopicEntry {
    pub(super) fn new(id: u32, spec: TopicSpec) -> Self {
        let retention_ms = spec.retention.map(|r| u64::try_from(r.as_millis()).unwrap_or(u64::MAX));
        Self { id, partitions: spec.partitions.max(1), compacted: spec.compacted, retention_ms }
    }
}

/// The open tables.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) db: Database,
    pub(super) topics: fjall::Keyspace,
    pub(super) partitions: fjall::Keyspace,
    pub(super) blocks: fjall::Keyspace,
    pub(super) keyed: fjall::Keyspace,
    pub(super) newest: fjall::Keyspace,
    pub(super) garbage: fjall::Keyspace,
}

impl Store {
    /// Opens or makes the tables in a folder.
    pub(super) fn open(dir: &Path) -> Result<Self, LogError> {
        let place = dir.display().to_string();
        std::fs::create_dir_all(dir)
            .map_err(|e| LogError::Refused { reason: format!("folder {place} cannot be made: {e}") })?;
        let db = Database::builder(dir)
            .cache_size(CACHE_BYTES)
            .journal_compression(fjall::CompressionType::None)
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .worker_threads(1)
            .open()
            .map_err(|e| match e {
                fjall::Error::Locked => {
                    LogError::Refused { reason: format!("the log in {place} is in use by another process") }
                }
                other => unreadable(&place, other),
            })?;
        let small =
            |name| db.keyspace(name, || KeyspaceCreateOptions::default().max_memtable_size(SMALL_MEMTABLE_BYTES));
        let open = || -> fjall::Result<(fjall::Keyspace, Self)> {
            let blocks = db.keyspace("blocks", || {
                KeyspaceCreateOptions::default().max_memtable_size(BLOCKS_MEMTABLE_BYTES).with_kv_separation(Some(
                    KvSeparationOptions::default().separation_threshold(SEPARATED_VALUE_BYTES_MIN),
                ))
            })?;
            let keyed =
                db.keyspace("keyed", || KeyspaceCreateOptions::default().max_memtable_size(KEYED_MEMTABLE_BYTES))?;
            let (topics, partitions) = (small("topics")?, small("partitions")?);
            let (newest, garbage) = (small("newest")?, small("garbage")?);
            Ok((small("meta")?, Self { db: db.clone(), topics, partitions, blocks, keyed, newest, garbage }))
        };
        let (meta, store) = open().map_err(|e| unreadable(&place, e))?;
        check_format(&meta, &place)?;
        Ok(store)
    }

    /// The table that holds the records of a topic.
    pub(super) fn records(&self, compacted: bool) -> &fjall::Keyspace {
        if compacted { &self.keyed } else { &self.blocks }
    }
}

fn check_format(meta: &fjall::Keyspace, place: &str) -> Result<(), LogError> {
    match meta.get(FORMAT_KEY).map_err(|e| unreadable(place, e))? {
        None => meta.insert(FORMAT_KEY, FORMAT_VERSION).map_err(|e| unreadable(place, e)),
        Some(found) if *found == *FORMAT_VERSION.as_bytes() => Ok(()),
        Some(found) => Err(LogError::Corrupt {
            place: place.to_owned(),
            reason: format!(
                "it has format version {}, this program reads {FORMAT_VERSION}",
                String::from_utf8_lossy(&found)
            ),
        }),
    }
}

fn unreadable(place: &str, error: fjall::Error) -> LogError {
    match error {
        fjall::Error::Io(e) => LogError::Unavailable { reason: format!("{place}: {e}") },
        other => LogError::Corrupt { place: place.to_owned(), reason: other.to_string() },
    }
}

/// A storage error while running: a full or failing disk as a rule.
pub(super) fn storage_error(error: fjall::Error) -> LogError {
    LogError::Unavailable { reason: error.to_string() }
}

/// Key of a partition, and the prefix of everything in it.
pub(super) fn partition_key(topic_id: u32, partition: i32) -> [u8; 8] {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&topic_id.to_be_bytes());
    key[4..].copy_from_slice(&partition.to_be_bytes());
    key
}

/// Key of a block by its first offset. Offsets and partitions are never negative, so their bytes sort as they do.
pub(super) fn block_key(partition: [u8; 8], offset: i64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&partition);
    key[8..].copy_from_slice(&offset.to_be_bytes());
    key
}

/// The first offset in a block's key.
pub(super) fn offset_of(key: &[u8]) -> Option<i64> {
    Some(i64::from_be_bytes(key.get(8..16)?.try_into().ok()?))
}

/// Key in `newest`.
pub(super) fn newest_key(partition: [u8; 8], record_key: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(8 + record_key.len());
    key.extend_from_slice(&partition);
    key.extend_from_slice(record_key);
    key
}

/// Key in `garbage`.
pub(super) fn garbage_key(due_ms: i64, record: [u8; 16]) -> [u8; 24] {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&due_ms.max(0).to_be_bytes());
    key[8..].copy_from_slice(&record);
    key
}

/// Value in `partitions`.
pub(super) fn bounds_value(earliest: i64, end: i64) -> Bytes {
    let mut value = Vec::with_capacity(16);
    value.extend_from_slice(&earliest.to_le_bytes());
    value.extend_from_slice(&end.to_le_bytes());
    Bytes::from(value)
}

/// Earliest and end offset from a value in `partitions`.
pub(super) fn bounds_of(value: &[u8]) -> Option<(i64, i64)> {
    let earliest = i64::from_le_bytes(value.get(..8)?.try_into().ok()?);
    let end = i64::from_le_bytes(value.get(8..16)?.try_into().ok()?);
    Some((earliest, end))
}
