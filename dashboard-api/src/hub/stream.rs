//! The position of a channel and its bounded history of publications.
//!
//! Offsets grow from publication to publication, not always by one: where a channel shows a topic of the log, the
//! offset is the place in that topic, so that it means the same on every node and after every restart. A stream knows
//! from which offset on its history is complete.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::protocol::ErrorCode;
use crate::protocol::message::{HistoryRequest, Publication};

/// Position and history of one channel.
///
/// Invariant: `history` holds every publication after `floor`, in order of offsets, none beyond `top`.
#[derive(Debug)]
pub(crate) struct Stream {
    epoch: Arc<str>,
    top: u64,
    floor: u64,
    history: VecDeque<Publication>,
    history_bytes: usize,
    bounds: StreamBounds,
}

/// How much history is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamBounds {
    pub(crate) size_max: usize,
    pub(crate) bytes_max: usize,
}

impl Stream {
    /// An empty stream that begins after `top`.
    pub(crate) fn new(epoch: Arc<str>, top: u64, bounds: StreamBounds) -> Self {
        Self { epoch, top, floor: top, history: VecDeque::new(), history_bytes: 0, bounds }
    }

    pub(crate) fn epoch(&self) -> &str {
        &self.epoch
    }

    pub(crate) fn top(&self) -> u64 {
        self.top
    }

    /// Moves the position on without a publication.
    pub(crate) fn advance(&mut self, top: u64) {
        self.top = self.top.max(top);
    }

    /// The publication kept last.
    pub(crate) fn last(&self) -> Option<&Publication> {
        self.history.back()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.history.is_empty()
    }

    /// Adds a publication at its offset. Returns whether it can be sent: one that is too large starts the stream anew
    /// at its offset.
    pub(crate) fn append(&mut self, publication: Publication) -> bool {
        self.advance(publication.offset);
        if publication.data.len() > self.bounds.bytes_max {
            self.clear();
            return false;
        }
        self.history_bytes += publication.data.len();
        self.history.push_back(publication);
        while self.history.len() > self.bounds.size_max || self.history_bytes > self.bounds.bytes_max {
            self.drop_oldest();
        }
        true
    }

    /// Forgets the publications up to now; the position stays.
    pub(crate) fn clear(&mut self) {
        self.history = VecDeque::new();
        self.history_bytes = 0;
        self.floor = self.top;
    }

    /// Forgets publications that were published before.
    pub(crate) fn drop_before(&mut self, time_ms: i64) {
        while self.history.front().is_some_and(|oldest| oldest.time < time_ms) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.history.pop_front() {
            self.history_bytes -= oldest.data.len();
            self.floor = oldest.offset;
        }
    }

    /// The publications after a position, or `None` if they are not all there.
    pub(crate) fn recover(&self, epoch: &str, offset: u64) -> Option<impl Iterator<Item = &Publication>> {
        let is_complete = epoch == &*self.epoch && (self.floor..=self.top).contains(&offset);
        is_complete.then(|| self.after(offset))
    }

    fn after(&self, offset: u64) -> impl DoubleEndedIterator<Item = &Publication> {
        let start = self.history.partition_point(|publication| publication.offset <= offset);
        self.history.range(start..)
    }

    /// Kept publications as a `history` command asks for them.
    ///
    /// # Errors
    /// [`ErrorCode::UNRECOVERABLE_POSITION`] if `since` is of another stream or what follows it is no longer kept.
    pub(crate) fn history(&self, request: &HistoryRequest) -> Result<Vec<Publication>, ErrorCode> {
        let limit = usize::try_from(request.limit).unwrap_or(self.bounds.size_max);
        if let Some(since) = &request.since {
            let is_other_stream = !since.epoch.is_empty() && since.epoch != *self.epoch;
            let is_lost = !request.reverse && since.offset < self.floor;
            if is_other_stream || is_lost || since.offset > self.top {
                return Err(ErrorCode::UNRECOVERABLE_POSITION);
            }
        }
        Ok(match (request.reverse, &request.since) {
            (false, since) => {
                self.after(since.as_ref().map_or(self.floor, |since| since.offset)).take(limit).cloned().collect()
            }
            (true, since) => {
                let end = since.as_ref().map_or(u64::MAX, |since| since.offset);
                self.history.iter().rev().filter(|p| p.offset < end).take(limit).cloned().collect()
            }
        })
    }
}

/// A name of a stream that nothing else ever had.
pub(crate) fn random_epoch() -> Arc<str> {
    let random = uuid::Uuid::new_v4().simple().to_string();
    Arc::from(&random[..8])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message::StreamPosition;
    use bytes::Bytes;

    /// A stream with publications at these offsets.
    fn stream(size_max: usize, offsets: &[u64]) -> Stream {
        let mut stream = Stream::new(Arc::from("e"), 0, StreamBounds { size_max, bytes_max: 10_000 });
        for offset in offsets {
            assert!(stream.append(publication(*offset, 1)));
        }
        stream
    }

    fn publication(offset: u64, n_bytes: usize) -> Publication {
        Publication { offset, data: Bytes::from(vec![b'1'; n_bytes]), ..Publication::default() }
    }

    #[test]
    fn only_a_complete_range_is_recovered() {
        let stream = stream(3, &[1, 2, 5, 6, 9]);
        let check = |offset| stream.recover("e", offset).map(|all| all.map(|p| p.offset).collect::<Vec<_>>());
        assert_eq!(check(9), Some(vec![]));
        assert_eq!(check(7), Some(vec![9]));
        assert_eq!(check(5), Some(vec![6, 9]));
        assert_eq!(check(2), Some(vec![5, 6, 9]));
        assert_eq!(check(1), None, "publication 2 is gone");
        assert_eq!(check(10), None, "a position of the future is not ours");
        assert!(stream.recover("", 9).is_none());
        assert!(stream.recover("other", 9).is_none());
    }

    #[test]
    fn a_publication_that_is_too_large_starts_the_stream_anew() {
        let mut stream = stream(3, &[1, 2]);
        assert!(!stream.append(publication(3, 10_001)));
        assert_eq!(stream.top(), 3);
        assert!(stream.recover("e", 2).is_none());
        assert!(stream.recover("e", 3).is_some());
    }

    #[test]
    fn history_is_bounded_in_bytes_and_in_time() {
        let mut stream = stream(300, &[]);
        for offset in 1..=10 {
            assert!(stream.append(Publication { time: i64::from(offset as u32), ..publication(offset, 4_000) }));
        }
        assert_eq!(stream.history.len(), 2);
        assert!(stream.recover("e", 8).is_some());
        stream.drop_before(10);
        assert!(stream.recover("e", 8).is_none() && stream.recover("e", 9).is_some());
        stream.drop_before(11);
        assert!(stream.is_empty() && stream.recover("e", 10).is_some());
    }

    #[test]
    fn history_goes_both_ways() {
        let stream = stream(4, &[1, 2, 3, 4, 5, 6]);
        let check = |limit, since: Option<u64>, reverse| {
            let since = since.map(|offset| StreamPosition { offset, epoch: String::new() });
            let request = HistoryRequest { limit, since, reverse, ..HistoryRequest::default() };
            stream.history(&request).map(|all| all.iter().map(|p| p.offset).collect::<Vec<_>>())
        };
        assert_eq!(check(0, None, false), Ok(vec![]));
        assert_eq!(check(-1, None, false), Ok(vec![3, 4, 5, 6]));
        assert_eq!(check(2, None, true), Ok(vec![6, 5]));
        assert_eq!(check(2, Some(3), false), Ok(vec![4, 5]));
        assert_eq!(check(-1, Some(5), true), Ok(vec![4, 3]));
        assert_eq!(check(-1, Some(2), false), Ok(vec![3, 4, 5, 6]));
        assert_eq!(check(-1, Some(1), false), Err(ErrorCode::UNRECOVERABLE_POSITION));
        assert_eq!(check(-1, Some(7), false), Err(ErrorCode::UNRECOVERABLE_POSITION));
    }
}
