//! All changes of a local log's storage, one at a time, each an atomic batch.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use fjall::OwnedWriteBatch;
use foldhash::fast::FixedState;
use metrics::counter;
use model::{AppendRecord, LogError, Record, TopicSpec};

use super::block::{self, BlockBuilder, Decoder, Place, record_bytes};
use super::store::{
    TopicEntry, block_key, bounds_value, garbage_key, newest_key, offset_of, partition_key, storage_error,
};
use super::{Partition, Shared, Topic};
use crate::log::partitioner::partition_of_key;
use crate::log::selection::check_topic_name;

/// A block is closed when it has reached this size: large enough to share the cost of an entry, small enough that a reader
/// who keeps one value does not hold much else in memory.
const BLOCK_BYTES: usize = 256 << 10;
/// Partitions of one topic; a typing error in a partition number must not make millions.
const PARTITIONS_MAX: i32 = 1024;
/// Entries removed by one batch when a topic or its beginning goes.
const REMOVALS_PER_BATCH: usize = 1024;

/// The one writer of a log.
#[derive(Debug)]
pub(super) struct Writer {
    next_topic_id: u32,
    /// Where the next record without key goes, among the partitions of its topic.
    next_partition: i32,
    decoder: Decoder,
}

/// The records of one append that go into one partition: their places in the append, in order.
struct Group {
    topic: Arc<Topic>,
    partition: Arc<Partition>,
    members: Vec<usize>,
}

impl Writer {
    pub(super) fn new(topics: &BTreeMap<Arc<str>, Arc<Topic>>) -> Self {
        let next_topic_id = topics.values().map(|topic| topic.entry.id + 1).max().unwrap_or(0);
        Self { next_topic_id, next_partition: 0, decoder: Decoder::default() }
    }

    /// Makes a topic, or gives it more partitions.
    pub(super) fn create_topic(
        &mut self,
        shared: &Shared,
        name: &str,
        spec: TopicSpec,
    ) -> Result<Arc<Topic>, LogError> {
        check_topic_name(name)?;
        if spec.partitions > PARTITIONS_MAX {
            let reason = format!("{} partitions for topic {name}: the most are {PARTITIONS_MAX}", spec.partitions);
            return Err(LogError::Refused { reason });
        }
        let (name, entry, mut partitions) = match shared.topic(name) {
            Some(topic) if topic.entry.partitions >= spec.partitions => return Ok(topic),
            Some(topic) => {
                let entry = TopicEntry { partitions: spec.partitions, ..topic.entry.clone() };
                (Arc::clone(&topic.name), entry, topic.partitions.clone())
            }
            None => (Arc::from(name), TopicEntry::new(self.next_topic_id, spec), Vec::new()),
        };
        self.next_topic_id = self.next_topic_id.max(entry.id + 1);
        let json = serde_json::to_vec(&entry).map_err(|e| LogError::Refused { reason: e.to_string() })?;
        shared.store.topics.insert(name.as_bytes(), json).map_err(storage_error)?;
        for number in i32::try_from(partitions.len()).unwrap_or(i32::MAX)..entry.partitions {
            let key = partition_key(entry.id, number);
            partitions.push(Arc::new(Partition { number, key, earliest: AtomicI64::new(0), end: AtomicI64::new(0) }));
        }
        let topic = Arc::new(Topic { name, entry, partitions });
        shared.put_topic(Arc::clone(&topic));
        Ok(topic)
    }

    /// Writes records in order per partition and returns their offsets.
    pub(super) fn append(&mut self, shared: &Shared, records: Vec<AppendRecord>) -> Result<Vec<i64>, LogError> {
        let now_ms = now_ms();
        let mut n_bytes = 0;
        for record in &records {
            let bytes = record_bytes(record);
            n_bytes += bytes;
            if bytes > shared.options.record_bytes_max {
                return Err(LogError::TooLarge { topic: record.topic.to_string(), bytes });
            }
        }
        let groups = self.group(shared, &records)?;
        let mut offsets = vec![0; records.len()];
        let mut batch = shared.store.db.batch();
        for group in &groups {
            let mut next = group.partition.end.load(Ordering::Acquire);
            for member in &group.members {
                offsets[*member] = next;
                next += 1;
            }
            if group.topic.entry.compacted {
                self.put_keyed(shared, &mut batch, group, &records, &offsets, now_ms)?;
            } else {
                put_blocks(shared, &mut batch, group, &records, &offsets, now_ms);
            }
            let bounds = bounds_value(group.partition.earliest.load(Ordering::Acquire), next);
            batch.insert(&shared.store.partitions, group.partition.key, bounds);
        }
        batch.commit().map_err(storage_error)?;
        for group in &groups {
            let n_new = i64::try_from(group.members.len()).unwrap_or(i64::MAX);
            group.partition.end.fetch_add(n_new, Ordering::Release);
        }
        shared.unsynced.store(true, Ordering::Release);
        shared.announce();
        counter!("log_appended_records_total", "log" => "local").increment(records.len() as u64);
        counter!("log_appended_bytes_total", "log" => "local").increment(n_bytes as u64);
        Ok(offsets)
    }

    /// Sorts the records of an append by partition, making topics and partitions that are missing.
    fn group(&mut self, shared: &Shared, records: &[AppendRecord]) -> Result<Vec<Group>, LogError> {
        let mut groups: Vec<Group> = Vec::new();
        let mut places: HashMap<(u32, i32), usize, FixedState> = HashMap::default();
        let mut topics: HashMap<&str, Arc<Topic>, FixedState> = HashMap::default();
        for (place, record) in records.iter().enumerate() {
            let mut topic = match topics.get(&*record.topic) {
                Some(topic) => Arc::clone(topic),
                None => match shared.topic(&record.topic) {
                    Some(topic) => topic,
                    None => self.create_topic(shared, &record.topic, TopicSpec::default())?,
                },
            };
            let number = self.partition_number(&topic, record)?;
            if number >= topic.entry.partitions {
                let spec = TopicSpec { partitions: number + 1, ..TopicSpec::default() };
                topic = self.create_topic(shared, &record.topic, spec)?;
            }
            let group = *places.entry((topic.entry.id, number)).or_insert_with(|| {
                let partition = Arc::clone(&topic.partitions[number as usize]);
                groups.push(Group { topic: Arc::clone(&topic), partition, members: Vec::new() });
                groups.len() - 1
            });
            groups[group].members.push(place);
            topics.insert(&record.topic, topic);
        }
        Ok(groups)
    }

    fn partition_number(&mut self, topic: &Topic, record: &AppendRecord) -> Result<i32, LogError> {
        match (record.partition, &record.key) {
            (Some(number), _) if (0..PARTITIONS_MAX).contains(&number) => Ok(number),
            (Some(number), _) => {
                let reason = format!("partition {number} of topic {}: they go from 0 to {PARTITIONS_MAX}", topic.name);
                Err(LogError::Refused { reason })
            }
            (None, Some(key)) => Ok(partition_of_key(key, topic.entry.partitions)),
            (None, None) => {
                self.next_partition = self.next_partition.wrapping_add(1) & i32::MAX;
                Ok(self.next_partition % topic.entry.partitions)
            }
        }
    }

    /// One entry per record, so that each can be removed when its key has a newer one.
    fn put_keyed(
        &mut self,
        shared: &Shared,
        batch: &mut OwnedWriteBatch,
        group: &Group,
        records: &[AppendRecord],
        offsets: &[i64],
        now_ms: i64,
    ) -> Result<(), LogError> {
        let store = &shared.store;
        let superseded_due_ms = after(now_ms, shared.options.compaction_lag);
        let tombstone_due_ms = after(now_ms, shared.options.tombstone_grace);
        let mut newest_here: HashMap<&Bytes, i64, FixedState> = HashMap::default();
        for member in &group.members {
            let (record, offset) = (&records[*member], offsets[*member]);
            let Some(key) = &record.key else {
                let reason = format!("a record without key in the compacted topic {}", group.topic.name);
                return Err(LogError::Refused { reason });
            };
            let index_key = newest_key(group.partition.key, key);
            let superseded = match newest_here.insert(key, offset) {
                Some(old) => Some(old),
                None => store.newest.get(&index_key).map_err(storage_error)?.and_then(|value| offset_in(&value)),
            };
            let record_key = block_key(group.partition.key, offset);
            if let Some(old) = superseded {
                let old_key = block_key(group.partition.key, old);
                batch.insert(&store.garbage, garbage_key(superseded_due_ms, old_key), Bytes::new());
            }
            if record.value.is_none() {
                batch.insert(&store.garbage, garbage_key(tombstone_due_ms, record_key), Bytes::new());
            }
            let mut block = BlockBuilder::with_capacity(record_bytes(record));
            block.push(record, record.timestamp_ms.unwrap_or(now_ms));
            batch.insert(&store.keyed, record_key, block.finish());
            batch.insert(&store.newest, index_key, offset.to_le_bytes());
        }
        Ok(())
    }

    /// Forgets the records of a partition before an offset.
    pub(super) fn trim(
        &mut self,
        shared: &Shared,
        topic: &str,
        partition: i32,
        before_offset: i64,
    ) -> Result<(), LogError> {
        let Some(topic) = shared.topic(topic) else {
            return Err(LogError::Refused { reason: format!("there is no topic {topic}") });
        };
        let Some(partition) = usize::try_from(partition).ok().and_then(|number| topic.partitions.get(number)) else {
            return Err(LogError::Refused { reason: format!("topic {} has no partition {partition}", topic.name) });
        };
        let end = partition.end.load(Ordering::Acquire);
        if before_offset > end {
            let reason = format!("cannot trim topic {} to {before_offset}: it ends at {end}", topic.name);
            return Err(LogError::Refused { reason });
        }
        if before_offset <= partition.earliest.load(Ordering::Acquire) {
            return Ok(());
        }
        // Readers stop at once; the space comes back after.
        shared.store.partitions.insert(partition.key, bounds_value(before_offset, end)).map_err(storage_error)?;
        partition.earliest.store(before_offset, Ordering::Release);
        shared.unsynced.store(true, Ordering::Release);
        self.remove_before(shared, &topic, partition, before_offset)
    }

    /// Removes entries all of whose records are before an offset.
    fn remove_before(
        &mut self,
        shared: &Shared,
        topic: &Topic,
        partition: &Partition,
        before_offset: i64,
    ) -> Result<(), LogError> {
        let table = shared.store.records(topic.entry.compacted);
        let range = block_key(partition.key, 0)..block_key(partition.key, before_offset);
        let mut batch = shared.store.db.batch();
        for guard in table.range(range) {
            let (key, value) = guard.into_inner().map_err(storage_error)?;
            let first = offset_of(&key).ok_or_else(|| damaged(topic, "a key"))?;
            let (count, _) = block::head(&value).ok_or_else(|| damaged(topic, "a block"))?;
            if first + count > before_offset {
                break;
            }
            batch.remove(table, key);
            if topic.entry.compacted {
                self.forget_newest(shared, &mut batch, partition, first, &Bytes::from(value))?;
            }
            if batch.len() >= REMOVALS_PER_BATCH {
                std::mem::replace(&mut batch, shared.store.db.batch()).commit().map_err(storage_error)?;
            }
        }
        batch.commit().map_err(storage_error)
    }

    /// Removes the key of a record from the index if no newer record has it.
    fn forget_newest(
        &mut self,
        shared: &Shared,
        batch: &mut OwnedWriteBatch,
        partition: &Partition,
        offset: i64,
        block: &Bytes,
    ) -> Result<(), LogError> {
        let record = self.only_record(offset, block)?;
        let index_key = newest_key(partition.key, record.key.as_deref().unwrap_or_default());
        let newest = shared.store.newest.get(&index_key).map_err(storage_error)?;
        if newest.and_then(|value| offset_in(&value)) == Some(offset) {
            batch.remove(&shared.store.newest, index_key);
        }
        Ok(())
    }

    /// The record of a block of a compacted topic.
    fn only_record(&mut self, offset: i64, block: &Bytes) -> Result<Record, LogError> {
        let mut records = Vec::with_capacity(1);
        let decoded = Place::start_of(block, offset)
            .and_then(|mut place| self.decoder.decode(block, &mut place, offset, &mut records, |_| true));
        decoded.and_then(|_| records.pop()).ok_or_else(|| LogError::Corrupt {
            place: format!("compacted record {offset}"),
            reason: "it is unreadable".to_owned(),
        })
    }

    /// Drops old records of a topic that has a retention time.
    pub(super) fn apply_retention(&mut self, shared: &Shared, topic: &Topic) -> Result<(), LogError> {
        let Some(retention_ms) = topic.entry.retention_ms else {
            return Ok(());
        };
        let keep_from_ms = now_ms().saturating_sub(i64::try_from(retention_ms).unwrap_or(i64::MAX));
        let table = shared.store.records(topic.entry.compacted);
        for partition in &topic.partitions {
            let mut trim_to = None;
            let range = block_key(partition.key, 0)..=block_key(partition.key, i64::MAX);
            for guard in table.range(range) {
                let (key, value) = guard.into_inner().map_err(storage_error)?;
                let first = offset_of(&key).ok_or_else(|| damaged(topic, "a key"))?;
                let (count, max_timestamp_ms) = block::head(&value).ok_or_else(|| damaged(topic, "a block"))?;
                if max_timestamp_ms >= keep_from_ms {
                    break;
                }
                trim_to = Some(first + count);
            }
            if let Some(offset) = trim_to {
                self.trim(shared, &topic.name, partition.number, offset)?;
            }
        }
        Ok(())
    }

    /// Removes superseded records and tombstones whose time has come. Returns whether there may be more.
    pub(super) fn collect_garbage(&mut self, shared: &Shared) -> Result<bool, LogError> {
        let store = &shared.store;
        let due = garbage_key(now_ms(), [0xff; 16]);
        let mut batch = store.db.batch();
        let mut n_found = 0;
        for guard in store.garbage.range([0; 24]..=due).take(REMOVALS_PER_BATCH) {
            let garbage = guard.key().map_err(storage_error)?;
            n_found += 1;
            let record_key = garbage.slice(8..);
            batch.remove(&store.garbage, garbage);
            let Some(block) = store.keyed.get(&record_key).map_err(storage_error)? else {
                continue;
            };
            let (Some(partition), Some(offset)) = (record_key.first_chunk::<8>(), offset_of(&record_key)) else {
                continue;
            };
            let record = self.only_record(offset, &Bytes::from(block))?;
            let index_key = newest_key(*partition, record.key.as_deref().unwrap_or_default());
            let newest = store.newest.get(&index_key).map_err(storage_error)?;
            if newest.and_then(|value| offset_in(&value)) == Some(offset) {
                if record.value.is_some() {
                    // Left over from a deleted topic whose number was given out again: this record is alive.
                    continue;
                }
                batch.remove(&store.newest, index_key);
            }
            batch.remove(&store.keyed, record_key);
        }
        if n_found > 0 {
            batch.commit().map_err(storage_error)?;
            counter!("log_compacted_records_total", "log" => "local").increment(n_found as u64);
        }
        Ok(n_found == REMOVALS_PER_BATCH)
    }

    /// Removes a topic; its name is free again when this returns.
    pub(super) fn delete_topic(&mut self, shared: &Shared, name: &str) -> Result<(), LogError> {
        let Some(topic) = shared.topic(name) else {
            return Ok(());
        };
        shared.remove_topic(name);
        let store = &shared.store;
        let prefix = topic.entry.id.to_be_bytes();
        for table in [store.records(topic.entry.compacted), &store.newest, &store.partitions] {
            let mut batch = store.db.batch();
            for guard in table.prefix(prefix) {
                batch.remove(table, guard.key().map_err(storage_error)?);
                if batch.len() >= REMOVALS_PER_BATCH {
                    std::mem::replace(&mut batch, store.db.batch()).commit().map_err(storage_error)?;
                }
            }
            batch.commit().map_err(storage_error)?;
        }
        store.topics.remove(name.as_bytes()).map_err(storage_error)
    }
}

/// Blocks of about [`BLOCK_BYTES`], at least one record each.
fn put_blocks(
    shared: &Shared,
    batch: &mut OwnedWriteBatch,
    group: &Group,
    records: &[AppendRecord],
    offsets: &[i64],
    now_ms: i64,
) {
    let mut rest = &group.members[..];
    while let Some(first) = rest.first() {
        let mut n_bytes = 0;
        let fits = |member: &&usize| {
            let before = n_bytes;
            n_bytes += record_bytes(&records[**member]);
            before == 0 || n_bytes <= BLOCK_BYTES
        };
        let n_records = rest.iter().take_while(fits).count();
        let mut block = BlockBuilder::with_capacity(n_bytes);
        for member in &rest[..n_records] {
            let record = &records[*member];
            block.push(record, record.timestamp_ms.unwrap_or(now_ms));
        }
        debug_assert_eq!(block.count() as usize, n_records);
        batch.insert(&shared.store.blocks, block_key(group.partition.key, offsets[*first]), block.finish());
        rest = &rest[n_records..];
    }
}

fn offset_in(value: &[u8]) -> Option<i64> {
    Some(i64::from_le_bytes(value.try_into().ok()?))
}

fn damaged(topic: &Topic, what: &str) -> LogError {
    LogError::Corrupt { place: topic.name.to_string(), reason: format!("{what} is unreadable") }
}

/// The wall clock: it stamps records that bring no time of their own, and is never asked for business time.
fn now_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

fn after(now_ms: i64, wait: Duration) -> i64 {
    now_ms.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX))
}
