//! Records on their way from a reader's thread to who polls it.
//!
//! The bytes of a parcel's records share buffers, so a record costs no allocation of its own; grouping by partition
//! happens once, where the records are taken from the client library.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use model::{LogBatch, PollLimit, Record};
use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Headers};

/// Bytes of one shared buffer. A record that is kept for long keeps its buffer, so it is not larger.
const BUFFER_BYTES: usize = 64 * 1024;

/// Batches of consecutive records; a partition may have several.
pub(super) type Parcel = Vec<LogBatch>;

/// A parcel in the making.
#[derive(Debug, Default)]
pub(super) struct Packing {
    batches: Parcel,
    /// Where the last record went.
    last: usize,
    n_records: usize,
    buffer: BytesMut,
}

impl Packing {
    pub(super) fn n_records(&self) -> usize {
        self.n_records
    }

    /// Copies a message out of the client library; `name` gives the shared copy of a topic's name.
    pub(super) fn push(&mut self, message: &BorrowedMessage<'_>, name: impl FnOnce(&str) -> Arc<str>) {
        let (topic, partition) = (message.topic(), message.partition());
        let is_of = |batch: &LogBatch| batch.partition == partition && &*batch.topic == topic;
        if !self.batches.get(self.last).is_some_and(is_of) {
            self.last = self.batches.iter().position(is_of).unwrap_or_else(|| {
                self.batches.push(LogBatch { topic: name(topic), partition, records: Vec::new() });
                self.batches.len() - 1
            });
        }
        let record = Record {
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
            key: message.key().map(|key| self.copy(key)),
            value: message.payload().map(|value| self.copy(value)),
            headers: message.headers().map_or_else(Vec::new, |headers| {
                headers.iter().map(|h| (Arc::from(h.key), self.copy(h.value.unwrap_or_default()))).collect()
            }),
        };
        self.batches[self.last].records.push(record);
        self.n_records += 1;
    }

    fn copy(&mut self, bytes: &[u8]) -> Bytes {
        if self.buffer.capacity() < bytes.len() {
            self.buffer = BytesMut::with_capacity(BUFFER_BYTES.max(bytes.len()));
        }
        self.buffer.extend_from_slice(bytes);
        self.buffer.split().freeze()
    }

    /// The parcel; its batches are not empty.
    pub(super) fn finish(self) -> Parcel {
        self.batches
    }
}

/// Parcels that have arrived and are not yet polled.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    batches: VecDeque<LogBatch>,
    n_records: usize,
}

impl Waiting {
    pub(super) fn n_records(&self) -> usize {
        self.n_records
    }

    pub(super) fn extend(&mut self, parcel: Parcel) {
        self.n_records += parcel.iter().map(|b| b.records.len()).sum::<usize>();
        self.batches.extend(parcel);
    }

    /// Takes as much as the limit allows, and at least one record, one batch per partition.
    pub(super) fn take(&mut self, limit: PollLimit) -> Vec<LogBatch> {
        let (mut n_records, mut n_bytes) = (0, 0);
        let mut taken: Vec<LogBatch> = Vec::new();
        while let Some(mut batch) = self.batches.pop_front() {
            let fits = |record: &Record| {
                let bytes = record.key.as_ref().map_or(0, Bytes::len) + record.value.as_ref().map_or(0, Bytes::len);
                let fits = n_records == 0 || (n_records < limit.max_records && n_bytes + bytes <= limit.max_bytes);
                n_records += usize::from(fits);
                n_bytes += bytes;
                fits
            };
            let n_fit = count_while(&batch.records, fits);
            let rest = batch.records.split_off(n_fit);
            self.n_records -= n_fit;
            let is_full = !rest.is_empty();
            if is_full {
                let topic = Arc::clone(&batch.topic);
                self.batches.push_front(LogBatch { topic, partition: batch.partition, records: rest });
            }
            if n_fit > 0 {
                match taken.iter_mut().find(|t| t.partition == batch.partition && t.topic == batch.topic) {
                    Some(same) => same.records.append(&mut batch.records),
                    None => taken.push(batch),
                }
            }
            if is_full {
                break;
            }
        }
        taken
    }
}

fn count_while(records: &[Record], mut holds: impl FnMut(&Record) -> bool) -> usize {
    records.iter().take_while(|record| holds(record)).count()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn batch(topic: &str, partition: i32, offsets: std::ops::Range<i64>) -> LogBatch {
        let record = |offset| Record {
            offset,
            timestamp_ms: 0,
            key: None,
            value: Some(Bytes::from_static(b"ten bytes!")),
            headers: Vec::new(),
        };
        LogBatch { topic: Arc::from(topic), partition, records: offsets.map(record).collect() }
    }

    fn taken(waiting: &mut Waiting, max_records: usize, max_bytes: usize) -> String {
        let limit = PollLimit { max_records, max_bytes, wait: Duration::ZERO };
        let show = |b: &LogBatch| {
            let offsets: Vec<String> = b.records.iter().map(|r| r.offset.to_string()).collect();
            format!("{}/{} {}", b.topic, b.partition, offsets.join(","))
        };
        waiting.take(limit).iter().map(show).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn limits_cut_within_a_batch_and_nothing_is_lost() {
        let mut waiting = Waiting::default();
        waiting.extend(vec![batch("a", 0, 0..3), batch("a", 1, 7..8)]);
        waiting.extend(vec![batch("a", 0, 3..6)]);
        assert_eq!(taken(&mut waiting, 2, 1_000), "a/0 0,1");
        assert_eq!(waiting.n_records(), 5);
        assert_eq!(taken(&mut waiting, 100, 30), "a/0 2,3; a/1 7");
        // One record comes in any case.
        assert_eq!(taken(&mut waiting, 100, 1), "a/0 4");
        assert_eq!(taken(&mut waiting, 100, 1_000), "a/0 5");
        assert_eq!((taken(&mut waiting, 100, 1_000), waiting.n_records()), (String::new(), 0));
    }

    #[test]
    fn bytes_share_buffers_and_stay_apart() {
        let mut packing = Packing::default();
        let parts: Vec<Bytes> = (0..20_000_u32).map(|i| packing.copy(&i.to_be_bytes())).collect();
        assert!(parts.iter().enumerate().all(|(i, part)| part[..] == (i as u32).to_be_bytes()));
        let large = packing.copy(&vec![7; BUFFER_BYTES * 2]);
        assert_eq!((large.len(), large[0]), (BUFFER_BYTES * 2, 7));
    }
}
