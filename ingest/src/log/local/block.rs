//! How records lie in a stored block: some consecutive records of one partition in one value.
//!
//! One storage entry per record would cost a key, a checksum and an index insertion each; a block shares them among all
//! records of an append, and its records are handed out as slices of the one buffer, without copying.
//!
//! Layout, little endian: `count: u32`, `max_timestamp_ms: i64`, then per record
//! `timestamp_ms: i64, key_len: i32, value_len: i32, n_headers: u16, key, value, headers`, a length of −1 meaning "none", and
//! per header `name_len: u16, value_len: u32, name, value`. Offsets are not stored: the storage key has the first one.

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use model::{AppendRecord, Record};

const HEAD_BYTES: usize = 12;
const RECORD_HEAD_BYTES: usize = 18;
const HEADER_HEAD_BYTES: usize = 6;
/// Header names that one decoder remembers; beyond it a name is allocated anew for each record.
const NAMES_MAX: usize = 16;

/// Bytes of a record within a block.
pub(super) fn record_bytes(record: &AppendRecord) -> usize {
    let headers: usize = record.headers.iter().map(|(n, v)| HEADER_HEAD_BYTES + n.len() + v.len()).sum();
    let payload = record.key.as_ref().map_or(0, Bytes::len) + record.value.as_ref().map_or(0, Bytes::len);
    RECORD_HEAD_BYTES + payload + headers
}

/// A block being filled.
#[derive(Debug)]
pub(super) struct BlockBuilder {
    buffer: Vec<u8>,
    count: u32,
    max_timestamp_ms: i64,
}

impl BlockBuilder {
    /// An empty block with room for so many bytes of records.
    pub(super) fn with_capacity(record_bytes: usize) -> Self {
        let mut buffer = Vec::with_capacity(HEAD_BYTES + record_bytes);
        buffer.resize(HEAD_BYTES, 0);
        Self { buffer, count: 0, max_timestamp_ms: i64::MIN }
    }

    /// Number of records so far.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Adds a record, whose parts are shorter than 2 GiB: the log's limit on records is far below.
    pub(super) fn push(&mut self, record: &AppendRecord, timestamp_ms: i64) {
        let buffer = &mut self.buffer;
        let stored_len = |part: &Option<Bytes>| part.as_ref().map_or(-1, |part| part.len() as i32);
        buffer.put_i64_le(timestamp_ms);
        buffer.put_i32_le(stored_len(&record.key));
        buffer.put_i32_le(stored_len(&record.value));
        buffer.put_u16_le(record.headers.len() as u16);
        buffer.put_slice(record.key.as_deref().unwrap_or_default());
        buffer.put_slice(record.value.as_deref().unwrap_or_default());
        for (name, value) in &record.headers {
            buffer.put_u16_le(name.len() as u16);
            buffer.put_u32_le(value.len() as u32);
            buffer.put_slice(name.as_bytes());
            buffer.put_slice(value);
        }
        self.count += 1;
        self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
    }

    /// The finished block.
    pub(super) fn finish(mut self) -> Bytes {
        self.buffer[..4].copy_from_slice(&self.count.to_le_bytes());
        self.buffer[4..HEAD_BYTES].copy_from_slice(&self.max_timestamp_ms.to_le_bytes());
        Bytes::from(self.buffer)
    }
}

/// Number of records in a block and the largest of their timestamps.
pub(super) fn head(block: &[u8]) -> Option<(i64, i64)> {
    let count = u32::from_le_bytes(block.get(..4)?.try_into().ok()?);
    let max_timestamp_ms = i64::from_le_bytes(block.get(4..HEAD_BYTES)?.try_into().ok()?);
    Some((i64::from(count), max_timestamp_ms))
}

/// The next record within a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    at: usize,
    offset: i64,
    end: i64,
}

impl Place {
    /// The first record of a block whose first offset is `base`; `None` if the block is damaged.
    pub(super) fn start_of(block: &[u8], base: i64) -> Option<Self> {
        let (count, _) = head(block)?;
        Some(Self { at: HEAD_BYTES, offset: base, end: base + count })
    }

    /// One more than the offset of the block's last record.
    pub(super) fn end(&self) -> i64 {
        self.end
    }
}

/// Takes blocks apart. Keeps the header names it has seen, since a topic's records repeat them.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    names: Vec<Arc<str>>,
}

impl Decoder {
    /// Appends the records of a block from `place` on, without those before offset `from`, while `take` says so for a
    /// record's bytes. Returns whether the block's end was reached; if not, `place` is at the record not taken.
    /// `None` if the block is damaged.
    pub(super) fn decode(
        &mut self,
        block: &Bytes,
        place: &mut Place,
        from: i64,
        out: &mut Vec<Record>,
        mut take: impl FnMut(usize) -> bool,
    ) -> Option<bool> {
        while place.offset < place.end {
            let mut at = place.at;
            let fixed = block.get(at..at + RECORD_HEAD_BYTES)?;
            let timestamp_ms = i64::from_le_bytes(fixed[..8].try_into().ok()?);
            let key_len = i32::from_le_bytes(fixed[8..12].try_into().ok()?);
            let value_len = i32::from_le_bytes(fixed[12..16].try_into().ok()?);
            let n_headers = u16::from_le_bytes(fixed[16..].try_into().ok()?);
            at += RECORD_HEAD_BYTES;
            let payload_at = at;
            at += usize::try_from(key_len).unwrap_or(0) + usize::try_from(value_len).unwrap_or(0);
            if place.offset >= from && !take(at - payload_at) {
                return Some(false);
            }
            let headers = self.headers(block, &mut at, n_headers)?;
            if place.offset >= from {
                let mut part_at = payload_at;
                let key = part(block, &mut part_at, key_len)?;
                let value = part(block, &mut part_at, value_len)?;
                out.push(Record { offset: place.offset, timestamp_ms, key, value, headers });
            }
            *place = Place { at, offset: place.offset + 1, ..*place };
        }
        Some(true)
    }

    fn headers(&mut self, block: &Bytes, at: &mut usize, count: u16) -> Option<Vec<(Arc<str>, Bytes)>> {
        let mut headers = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let fixed = block.get(*at..*at + HEADER_HEAD_BYTES)?;
            let name_len = usize::from(u16::from_le_bytes(fixed[..2].try_into().ok()?));
            let value_len = u32::from_le_bytes(fixed[2..].try_into().ok()?) as usize;
            *at += HEADER_HEAD_BYTES;
            let name = std::str::from_utf8(block.get(*at..*at + name_len)?).ok()?;
            let name = self.name(name);
            *at += name_len;
            block.get(*at..*at + value_len)?;
            headers.push((name, block.slice(*at..*at + value_len)));
            *at += value_len;
        }
        Some(headers)
    }

    fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.iter().find(|known| ***known == *name) {
            return Arc::clone(known);
        }
        let new: Arc<str> = Arc::from(name);
        if self.names.len() < NAMES_MAX {
            self.names.push(Arc::clone(&new));
        }
        new
    }
}

/// The outer `None` is damage, the inner one a missing part.
fn part(block: &Bytes, at: &mut usize, len: i32) -> Option<Option<Bytes>> {
    let Ok(len) = usize::try_from(len) else {
        return Some(None);
    };
    block.get(*at..*at + len)?;
    let bytes = block.slice(*at..*at + len);
    *at += len;
    Some(Some(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Bytes> {
        vec(any::<u8>(), 0..40).prop_map(Bytes::from)
    }

    prop_compose! {
        fn any_record()(
            timestamp_ms in any::<i64>(),
            key in option::of(bytes()),
            value in option::of(bytes()),
            headers in vec(("[a-z]{0,3}", bytes()), 0..4),
        ) -> (AppendRecord, i64) {
            let headers = headers.into_iter().map(|(name, value)| (Arc::from(name), value)).collect();
            (AppendRecord { topic: Arc::from("t"), partition: None, timestamp_ms: None, key, value, headers }, timestamp_ms)
        }
    }

    proptest! {
        #[test]
        fn records_come_back_from_any_offset(records in vec(any_record(), 1..20), from in 0i64..25) {
            let mut builder = BlockBuilder::with_capacity(records.iter().map(|(r, _)| record_bytes(r)).sum());
            for (record, timestamp_ms) in &records {
                builder.push(record, *timestamp_ms);
            }
            let block = builder.finish();
            let mut out = Vec::new();
            let mut place = Place::start_of(&block, 100).unwrap();
            // In pieces of three records.
            loop {
                let mut left = 3;
                let take = |_| { left -= 1; left >= 0 };
                if Decoder::default().decode(&block, &mut place, 100 + from, &mut out, take).unwrap() {
                    break;
                }
            }
            let expected: Vec<_> = records
                .iter()
                .enumerate()
                .skip(usize::try_from(from).unwrap())
                .map(|(i, (r, timestamp_ms))| Record {
                    offset: 100 + i64::try_from(i).unwrap(),
                    timestamp_ms: *timestamp_ms,
                    key: r.key.clone(),
                    value: r.value.clone(),
                    headers: r.headers.clone(),
                })
                .collect();
            prop_assert_eq!(out, expected);
        }

        /// Whatever is cut off, nothing panics and the damage is told.
        #[test]
        fn a_cut_block_is_damaged(records in vec(any_record(), 1..5), cut in 1usize..30) {
            let mut builder = BlockBuilder::with_capacity(0);
            for (record, timestamp_ms) in &records {
                builder.push(record, *timestamp_ms);
            }
            let block = builder.finish();
            let block = block.slice(..block.len() - cut.min(block.len()));
            let decode = |mut place| Decoder::default().decode(&block, &mut place, 0, &mut Vec::new(), |_| true);
            prop_assert!(Place::start_of(&block, 0).and_then(decode).is_none());
        }
    }
}
