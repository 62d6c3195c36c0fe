//! The position of a channel and its bounded history of publications.
//!
//! Offsets grow by one per publication. The epoch string is random: streams live as long as the process, and a
//! compacted topic cannot bring their publications back, so that a position of an earlier process is refused honestly.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::config::LimitsConfig;
use crate::protocol::{ErrorCode, HistoryRequest, Publication};

/// Position and history of one channel.
///
/// Invariant: `history` holds the publications `top - history.len() + 1 ..= top`.
#[derive(Debug)]
pub(crate) struct Stream {
    channel_json: String,
    epoch: Arc<str>,
    top: u64,
    history: VecDeque<Publication>,
    history_bytes: usize,
    size_max: usize,
    bytes_max: usize,
}

impl Stream {
    pub(crate) fn new(channel: &str, limits: &LimitsConfig) -> Self {
        Self {
            channel_json: serde_json::Value::from(channel).to_string(),
            epoch: new_epoch(),
            top: 0,
            history: VecDeque::new(),
            history_bytes: 0,
            size_max: limits.history_size,
            bytes_max: limits.history_bytes,
        }
    }

    pub(crate) fn epoch(&self) -> &str {
        &self.epoch
    }

    pub(crate) fn top(&self) -> u64 {
        self.top
    }

    /// The channel's name as a JSON string.
    pub(crate) fn channel_json(&self) -> &str {
        &self.channel_json
    }

    /// Adds a publication with this data. Returns the push for live subscribers, or `None` if it is too large to be
    /// sent: then the stream has started anew.
    pub(crate) fn append(&mut self, data: &[u8]) -> Option<Bytes> {
        if data.len() > self.bytes_max {
            self.restart();
            return None;
        }
        self.top += 1;
        let publication = Publication::encode(&self.channel_json, data, self.top);
        let push = publication.push.clone();
        self.history_bytes += push.len();
        self.history.push_back(publication);
        while self.history.len() > self.size_max || self.history_bytes > self.bytes_max {
            let Some(oldest) = self.history.pop_front() else { break };
            self.history_bytes -= oldest.push.len();
        }
        Some(push)
    }

    /// Forgets everything: no earlier position can be recovered.
    pub(crate) fn restart(&mut self) {
        self.epoch = new_epoch();
        self.top = 0;
        self.history.clear();
        self.history_bytes = 0;
    }

    /// The publications after a position, or `None` if they are not all there.
    ///
    /// The protocol lets a client with an empty epoch recover from 0. Here a stream does not begin with an empty
    /// channel, so that such a client would lack the beginning: it is refused too.
    pub(crate) fn recover(&self, epoch: &str, offset: u64) -> Option<Vec<Bytes>> {
        if epoch != &*self.epoch {
            return None;
        }
        let n_missed = usize::try_from(self.top.checked_sub(offset)?).ok()?;
        let first = self.history.len().checked_sub(n_missed)?;
        Some(self.history.range(first..).map(|p| p.object.clone()).collect())
    }

    /// Kept publications as a `history` command asks for them.
    ///
    /// # Errors
    /// [`ErrorCode::UNRECOVERABLE_POSITION`] if `since` is of another stream or what follows it is no longer kept.
    pub(crate) fn history(&self, request: &HistoryRequest) -> Result<Vec<Bytes>, ErrorCode> {
        let limit = match usize::try_from(request.limit) {
            Ok(limit) => limit,
            Err(_) => self.size_max,
        };
        let kept_from = self.top - self.history.len() as u64 + 1;
        let (from, to) = match &request.since {
            None => (kept_from, self.top),
            Some(since) => {
                let is_other_stream = !since.epoch.is_empty() && since.epoch != *self.epoch;
                let is_lost = !request.reverse && since.offset + 1 < kept_from;
                if is_other_stream || is_lost || since.offset > self.top {
                    return Err(ErrorCode::UNRECOVERABLE_POSITION);
                }
                match request.reverse {
                    false => (since.offset + 1, self.top),
                    true => (kept_from, since.offset.saturating_sub(1)),
                }
            }
        };
        let wanted = self.history.iter().filter(|p| (from..=to).contains(&p.offset)).map(|p| p.object.clone());
        Ok(match request.reverse {
            false => wanted.take(limit).collect(),
            true => wanted.rev().take(limit).collect(),
        })
    }
}

fn new_epoch() -> Arc<str> {
    let random = uuid::Uuid::new_v4().simple().to_string();
    Arc::from(&random[..8])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Since;

    fn stream(size: usize, n_publications: usize) -> Stream {
        let limits = LimitsConfig { history_size: size, history_bytes: 10_000, ..LimitsConfig::default() };
        let mut stream = Stream::new("c", &limits);
        for n in 0..n_publications {
            assert!(stream.append(n.to_string().as_bytes()).is_some());
        }
        stream
    }

    fn offsets(publications: &[Bytes]) -> Vec<u64> {
        let offset = |p: &Bytes| serde_json::from_slice::<serde_json::Value>(p).ok()?["offset"].as_u64();
        publications.iter().filter_map(offset).collect()
    }

    #[test]
    fn only_a_complete_range_is_recovered() {
        let stream = stream(3, 5);
        let epoch = stream.epoch().to_owned();
        let check = |offset| stream.recover(&epoch, offset).map(|all| offsets(&all));
        assert_eq!(check(5), Some(vec![]));
        assert_eq!(check(3), Some(vec![4, 5]));
        assert_eq!(check(2), Some(vec![3, 4, 5]));
        assert_eq!(check(1), None, "publication 2 is gone");
        assert_eq!(check(6), None, "a position of the future is not ours");
        assert_eq!(stream.recover("", 5), None);
        assert_eq!(stream.recover("other", 5), None);
    }

    #[test]
    fn a_publication_that_is_too_large_starts_the_stream_anew() {
        let mut stream = stream(3, 2);
        let before = stream.epoch().to_owned();
        assert!(stream.append(&[b'1'; 10_001]).is_none());
        assert_ne!(stream.epoch(), before);
        assert_eq!(stream.top(), 0);
        assert_eq!(stream.recover(&before, 2), None);
    }

    #[test]
    fn history_is_bounded_in_bytes() {
        let mut stream = stream(300, 0);
        for _ in 0..10 {
            assert!(stream.append(&[b'1'; 4_000]).is_some());
        }
        assert_eq!(stream.history.len(), 2);
        assert!(stream.recover(stream.epoch(), 8).is_some());
    }

    #[test]
    fn history_goes_both_ways() {
        let stream = stream(4, 6);
        let check = |limit, since: Option<u64>, reverse| {
            let since = since.map(|offset| Since { offset, epoch: String::new() });
            let request = HistoryRequest { limit, since, reverse, ..HistoryRequest::default() };
            stream.history(&request).map(|all| offsets(&all))
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
