//! Entries packed into segments: what a checkpoint changes in one space (the rows of a table, the state of an operator).
//!
//! The object store's tree sees a segment as one large value. An entry costs it nothing, where a key of its own would cost
//! a place in a batch, in two logs, in a table in memory and in every compaction.
//!
//! An entry is: length of the key (u32), length of the value (u32; `u32::MAX` if the entry is deleted), key, value.
//! A later entry overrides an earlier one of its key. A segment is compressed once, here, and not again wherever the store
//! moves it.

use bytes::{BufMut, Bytes};

/// A segment ends when it is this long; one entry may be longer.
const SEGMENT_BYTES: usize = 1 << 20;
const DELETED: u32 = u32::MAX;
/// The two lengths in front of an entry.
const HEAD_BYTES: usize = 8;

/// Entries of one space, in order.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    /// Where the space is in the store.
    pub(crate) prefix: Vec<u8>,
    full: Vec<Bytes>,
    last: Vec<u8>,
    pub(crate) n_entries: usize,
}

impl Packed {
    pub(crate) fn new(prefix: Vec<u8>) -> Self {
        Self { prefix, ..Self::default() }
    }

    /// Adds an entry whose value is in two parts; `None` deletes.
    pub(crate) fn push(&mut self, key: &[u8], value: Option<[&[u8]; 2]>) {
        let value_len = value.map_or(DELETED, |[a, b]| length(a.len() + b.len()));
        self.last.put_u32(length(key.len()));
        self.last.put_u32(value_len);
        self.last.extend_from_slice(key);
        for part in value.into_iter().flatten() {
            self.last.extend_from_slice(part);
        }
        self.n_entries += 1;
        if self.last.len() >= SEGMENT_BYTES {
            self.full.push(compressed(&std::mem::take(&mut self.last)));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.n_entries == 0
    }

    /// The segments that are full by now.
    pub(crate) fn take_full(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.full)
    }

    /// All segments.
    pub(crate) fn into_segments(mut self) -> Vec<Bytes> {
        if !self.last.is_empty() {
            self.full.push(compressed(&self.last));
        }
        self.full
    }
}

fn compressed(entries: &[u8]) -> Bytes {
    Bytes::from(lz4_flex::compress_prepend_size(entries))
}

/// Nothing that is kept in memory is as long as 4 GB: Arrow's own columns end before.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).ok().filter(|n| *n != DELETED).expect("an entry is shorter than 4 GB")
}

/// The entries of a segment in order; `None` if it is damaged.
pub(crate) fn unpack(segment: &[u8]) -> Option<Vec<(Bytes, Option<Bytes>)>> {
    let segment = Bytes::from(lz4_flex::decompress_size_prepended(segment).ok()?);
    let mut entries = Vec::new();
    let mut at = 0;
    while at < segment.len() {
        let head = segment.get(at..at + HEAD_BYTES)?;
        let number = |bytes: &[u8]| bytes.try_into().ok().map(u32::from_be_bytes);
        let (key_len, value_len) = (number(&head[..4])? as usize, number(&head[4..])?);
        let key_end = at + HEAD_BYTES + key_len;
        let value_end = key_end + if value_len == DELETED { 0 } else { value_len as usize };
        if value_end > segment.len() {
            return None;
        }
        let value = (value_len != DELETED).then(|| segment.slice(key_end..value_end));
        entries.push((segment.slice(at + HEAD_BYTES..key_end), value));
        at = value_end;
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_in_order_over_several_segments() {
        let mut packed = Packed::new(Vec::new());
        let long = vec![7; SEGMENT_BYTES / 2];
        packed.push(b"a", Some([&long, b"!"]));
        packed.push(b"", Some([b"", b""]));
        packed.push(b"b", Some([b"x", &long]));
        packed.push(b"a", None);
        assert_eq!(packed.n_entries, 4);
        let segments = packed.into_segments();
        assert_eq!(segments.len(), 2);
        let entries: Vec<_> = segments.iter().flat_map(|s| unpack(s).expect("whole")).collect();
        let lengths = entries.iter().map(|(key, value)| (key.len(), value.as_ref().map(Bytes::len)));
        let half = long.len() + 1;
        assert_eq!(lengths.collect::<Vec<_>>(), [(1, Some(half)), (0, Some(0)), (1, Some(half)), (1, None)]);
        assert!(unpack(&segments[0][..segments[0].len() - 1]).is_none());
        assert!(unpack(&segments[0][..3]).is_none());
        assert!(unpack(&compressed(b"\0\0\0\x09\0\0\0\0short")).is_none());
    }
}
