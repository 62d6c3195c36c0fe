//! All partitions of a capture in one order.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use model::Offsets;

use super::files::{Stream, StreamReader};
use super::{CaptureError, CaptureRecord, Position};

/// The records of a capture in the order in which the database made them: snapshot rows first, then by the position
/// of the commit before the row's transaction, then by the row's own.
///
/// A partition's own order is always kept: what it has behind a record comes after that record, whatever its position.
/// Tombstones follow the record before them. Partitions whose records have no position are woven in by timestamp.
pub struct Records {
    streams: Vec<Head>,
    /// Partitions with positions, and those without: the least is the next.
    positioned: BinaryHeap<Reverse<(Position, usize)>>,
    timed: BinaryHeap<Reverse<(i64, usize)>>,
    failed: bool,
}

/// The next record of a partition.
struct Head {
    reader: StreamReader,
    next: Option<CaptureRecord>,
    /// Records read ahead in search of a first position.
    ahead: VecDeque<CaptureRecord>,
    /// Position of the last record that had one.
    last: Option<Position>,
}

/// So many records at a partition's beginning may lack a position before it counts as having none.
const LOOK_AHEAD_RECORDS_MAX: usize = 16;

impl Records {
    pub(super) fn open(streams: &[Arc<Stream>], upto: Option<&Offsets>) -> Result<Self, CaptureError> {
        let mut records = Self {
            streams: Vec::with_capacity(streams.len()),
            positioned: BinaryHeap::new(),
            timed: BinaryHeap::new(),
            failed: false,
        };
        for stream in streams {
            let end = match upto {
                None => None,
                Some(upto) => match upto.get(&stream.summary.topic, stream.summary.partition) {
                    Some(end) => Some(end),
                    None => continue,
                },
            };
            let mut head = Head {
                reader: StreamReader::open(Arc::clone(stream), end)?,
                next: None,
                ahead: VecDeque::new(),
                last: None,
            };
            head.find_position()?;
            records.streams.push(head);
            records.advance(records.streams.len() - 1)?;
        }
        Ok(records)
    }

    /// Reads a partition's next record and queues the partition by it.
    fn advance(&mut self, index: usize) -> Result<(), CaptureError> {
        let head = &mut self.streams[index];
        head.next = match head.ahead.pop_front() {
            Some(record) => Some(record),
            None => head.reader.next()?,
        };
        let Some(record) = &head.next else {
            return Ok(());
        };
        head.last = record.position.map(order).or(head.last);
        match head.last {
            Some(position) => self.positioned.push(Reverse((position, index))),
            None => self.timed.push(Reverse((record.timestamp_ms, index))),
        }
        Ok(())
    }

    /// The partition whose record is next.
    fn pop(&mut self) -> Option<usize> {
        let positioned = self.positioned.peek().map(|Reverse((_, index))| *index);
        let timestamp_ms = |index: usize| self.streams[index].next.as_ref().map_or(i64::MAX, |r| r.timestamp_ms);
        let timed_first = match (positioned, self.timed.peek()) {
            (Some(index), Some(Reverse((timed_ms, _)))) => *timed_ms < timestamp_ms(index),
            (positioned, _) => positioned.is_none(),
        };
        if timed_first {
            self.timed.pop().map(|Reverse((_, index))| index)
        } else {
            self.positioned.pop().map(|Reverse((_, index))| index)
        }
    }
}

/// Snapshot rows have no order among themselves but that of their partitions.
fn order(position: Position) -> Position {
    match position.is_change {
        true => position,
        false => Position { is_change: false, commit_lsn: 0, lsn: 0 },
    }
}

impl Head {
    /// Looks for the first position, so that leading records without one (a tombstone of before the capture) take it.
    fn find_position(&mut self) -> Result<(), CaptureError> {
        while self.ahead.len() < LOOK_AHEAD_RECORDS_MAX {
            let Some(record) = self.reader.next()? else { break };
            let position = record.position;
            self.ahead.push_back(record);
            if position.is_some() {
                self.last = position.map(order);
                break;
            }
        }
        Ok(())
    }
}

impl Iterator for Records {
    type Item = Result<CaptureRecord, CaptureError>;

    /// The next record; after an error there is none.
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let index = self.pop()?;
        let record = self.streams[index].next.take()?;
        if let Err(error) = self.advance(index) {
            self.failed = true;
            return Some(Err(error));
        }
        Some(Ok(record))
    }
}
