//! Reading a local log: every partition has a cursor; whoever appends wakes the readers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use metrics::counter;
use model::{LogBatch, LogError, LogReader, Offsets, PollLimit, Record};
use tracing::warn;

use super::block::{Decoder, Place};
use super::store::{Store, block_key, offset_of, storage_error};
use super::{Partition, Shared, Topic};
use crate::log::selection::Selection;

/// So many waiting records are read on the spot; more go to the blocking pool, which costs some microseconds.
const INLINE_RECORDS_MAX: i64 = 64;

/// A place in a partition.
#[derive(Debug, Clone)]
struct Cursor {
    topic: Arc<Topic>,
    partition: Arc<Partition>,
    position: i64,
    /// Whether a block starts at `position`, as far as is known. If not, the one that contains it must be looked for.
    aligned: bool,
    /// A block that was read in part: the next record is in it.
    open: Option<(Bytes, Place)>,
}

impl Cursor {
    fn waiting(&self) -> i64 {
        (self.partition.end.load(Ordering::Acquire) - self.position).max(0)
    }
}

/// A reader of a local log.
pub(super) struct LocalReader {
    shared: Arc<Shared>,
    selection: Selection,
    start: Offsets,
    cursors: Vec<Cursor>,
    /// The cursor that the next poll begins with, so that a busy partition does not starve the others.
    turn: usize,
    catalog_version: u64,
    changes: tokio::sync::watch::Receiver<u64>,
}

impl LocalReader {
    pub(super) fn new(shared: Arc<Shared>, selection: Selection, start: Offsets) -> Self {
        let changes = shared.changes.subscribe();
        Self { shared, selection, start, cursors: Vec::new(), turn: 0, catalog_version: 0, changes }
    }

    /// Takes up topics and partitions that are new, and lets go of those that are gone.
    fn follow_catalog(&mut self) {
        let version = self.shared.catalog_version.load(Ordering::Acquire);
        if version == self.catalog_version {
            return;
        }
        self.catalog_version = version;
        let topics = self.shared.all_topics();
        let mut cursors = Vec::with_capacity(self.cursors.len());
        for topic in topics.into_iter().filter(|topic| self.selection.matches(&topic.name)) {
            for partition in &topic.partitions {
                let known = self.cursors.iter().find(|cursor| cursor.partition.key == partition.key);
                cursors.push(match known {
                    Some(cursor) => Cursor { topic: Arc::clone(&topic), ..cursor.clone() },
                    None => self.cursor_at_start(&topic, partition),
                });
            }
        }
        self.cursors = cursors;
    }

    fn cursor_at_start(&self, topic: &Arc<Topic>, partition: &Arc<Partition>) -> Cursor {
        let earliest = partition.earliest.load(Ordering::Acquire);
        let end = partition.end.load(Ordering::Acquire);
        let wanted = self.start.get(&topic.name, partition.number).unwrap_or(earliest);
        let position = if (earliest..=end).contains(&wanted) { wanted } else { earliest };
        if position != wanted {
            warn!(
                topic = &*topic.name,
                partition = partition.number,
                wanted,
                position,
                "start offset is no longer there"
            );
            counter!("log_start_offsets_missing_total", "log" => "local").increment(1);
        }
        Cursor { topic: Arc::clone(topic), partition: Arc::clone(partition), position, aligned: false, open: None }
    }

    /// What is waiting now, up to the limit.
    async fn take(&mut self, limit: PollLimit) -> Result<Vec<LogBatch>, LogError> {
        let n_cursors = self.cursors.len().max(1);
        let turn = self.turn % n_cursors;
        let mut active: Vec<(usize, Cursor)> = (turn..self.cursors.len())
            .chain(0..turn)
            .filter(|index| self.cursors[*index].waiting() > 0)
            .map(|index| (index, self.cursors[index].clone()))
            .collect();
        if active.is_empty() {
            return Ok(Vec::new());
        }
        let waiting: i64 = active.iter().map(|(_, cursor)| cursor.waiting()).sum();
        let (active, batches) = if waiting <= INLINE_RECORDS_MAX {
            let batches = read_all(&self.shared.store, &mut active, limit)?;
            (active, batches)
        } else {
            let store = self.shared.store.clone();
            let work = move || read_all(&store, &mut active, limit).map(|batches| (active, batches));
            match tokio::task::spawn_blocking(work).await {
                Ok(result) => result?,
                Err(_) => return Err(LogError::Unavailable { reason: "the reading thread ended".to_owned() }),
            }
        };
        // Only now, so that a dropped poll has read nothing.
        for (index, cursor) in active {
            self.cursors[index] = cursor;
        }
        self.turn = turn + 1;
        Ok(batches)
    }
}

#[async_trait]
impl LogReader for LocalReader {
    async fn poll(&mut self, limit: PollLimit) -> Result<Vec<LogBatch>, LogError> {
        let deadline = tokio::time::Instant::now() + limit.wait.min(Duration::from_secs(60 * 60 * 24));
        loop {
            self.changes.mark_unchanged();
            self.follow_catalog();
            let batches = self.take(limit).await?;
            if !batches.is_empty() {
                return Ok(batches);
            }
            if self.cursors.iter().any(|cursor| cursor.waiting() > 0) {
                continue;
            }
            match tokio::time::timeout_at(deadline, self.changes.changed()).await {
                Ok(Ok(())) => {}
                // The sender is in `shared`, which this reader holds: it cannot be gone.
                Ok(Err(_)) | Err(_) => return Ok(Vec::new()),
            }
        }
    }
}

/// Reads from each cursor in turn: first everyone's share, then whoever has more.
fn read_all(store: &Store, active: &mut [(usize, Cursor)], limit: PollLimit) -> Result<Vec<LogBatch>, LogError> {
    let mut left = Left { records: limit.max_records.max(1), bytes: limit.max_bytes, any: false };
    let share = left.records.div_ceil(active.len().max(1));
    let mut decoder = Decoder::default();
    let mut batches: Vec<LogBatch> = Vec::with_capacity(active.len());
    for share in [share, usize::MAX] {
        for (_, cursor) in active.iter_mut() {
            if left.is_used_up() {
                break;
            }
            let records = read_cursor(store, cursor, &mut decoder, share, &mut left)?;
            if records.is_empty() {
                continue;
            }
            let topic = Arc::clone(&cursor.topic.name);
            batches.push(LogBatch { topic, partition: cursor.partition.number, records });
        }
    }
    Ok(batches)
}

/// What a poll may still return.
struct Left {
    records: usize,
    bytes: usize,
    any: bool,
}

impl Left {
    fn is_used_up(&self) -> bool {
        self.any && (self.records == 0 || self.bytes == 0)
    }

    fn take(&mut self, bytes: usize) -> bool {
        if self.any && (self.records == 0 || self.bytes < bytes) {
            self.bytes = 0;
            return false;
        }
        self.any = true;
        self.records -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
        true
    }
}

/// Reads blocks until about `share` records are there, and moves the cursor.
fn read_cursor(
    store: &Store,
    cursor: &mut Cursor,
    decoder: &mut Decoder,
    share: usize,
    left: &mut Left,
) -> Result<Vec<Record>, LogError> {
    // In this order: what is below `end` is visible in the storage, and what is not found there is gone for good.
    let end = cursor.partition.end.load(Ordering::Acquire);
    let earliest = cursor.partition.earliest.load(Ordering::Acquire);
    if cursor.position < earliest {
        cursor.position = earliest;
        cursor.aligned = false;
        cursor.open = None;
    }
    let mut records = Vec::new();
    if cursor.position >= end {
        return Ok(records);
    }
    let table = store.records(cursor.topic.entry.compacted);
    let (topic, number) = (Arc::clone(&cursor.topic), cursor.partition.number);
    let damaged = || LogError::Corrupt {
        place: format!("topic {} partition {number}", topic.name),
        reason: "a block is unreadable".to_owned(),
    };
    if let Some(open) = cursor.open.take()
        && !read_block(cursor, open, decoder, &mut records, share, left).ok_or_else(damaged)?
    {
        return Ok(records);
    }
    let mut start = cursor.position;
    if !cursor.aligned && !cursor.topic.entry.compacted {
        let at_or_before = block_key(cursor.partition.key, 0)..=block_key(cursor.partition.key, start);
        if let Some(guard) = table.range(at_or_before).next_back() {
            start = offset_of(&guard.key().map_err(storage_error)?).ok_or_else(damaged)?;
        }
    }
    for guard in table.range(block_key(cursor.partition.key, start)..block_key(cursor.partition.key, end)) {
        let (key, block) = guard.into_inner().map_err(storage_error)?;
        let block = Bytes::from(block);
        let first = offset_of(&key).ok_or_else(damaged)?;
        let place = Place::start_of(&block, first).ok_or_else(damaged)?;
        if !read_block(cursor, (block, place), decoder, &mut records, share, left).ok_or_else(damaged)? {
            return Ok(records);
        }
    }
    // Everything up to `end` was read, or compacted or trimmed away.
    cursor.position = cursor.position.max(end);
    cursor.aligned = true;
    Ok(records)
}

/// Reads from a block and moves the cursor. Returns whether to go on with the next block; `None` if this one is damaged.
fn read_block(
    cursor: &mut Cursor,
    (block, mut place): (Bytes, Place),
    decoder: &mut Decoder,
    records: &mut Vec<Record>,
    share: usize,
    left: &mut Left,
) -> Option<bool> {
    let mut n_taken = records.len();
    let take = |bytes| {
        let taken = n_taken < share && left.take(bytes);
        n_taken += usize::from(taken);
        taken
    };
    if decoder.decode(&block, &mut place, cursor.position, records, take)? {
        cursor.position = cursor.position.max(place.end());
        cursor.aligned = true;
        return Some(records.len() < share);
    }
    cursor.position = records.last().map_or(cursor.position, |record| record.offset + 1);
    cursor.aligned = false;
    cursor.open = Some((block, place));
    Some(false)
}
