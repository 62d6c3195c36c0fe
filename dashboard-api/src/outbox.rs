//! What waits to be written to one connection: a queue bounded in bytes, filled by the hub and the session, emptied by
//! the transport.
//!
//! Publications and ordinary replies share one budget; snapshots and recovered publications have their own, since
//! the server chose their size and a single one may be larger than the whole budget. A reader that is too slow for
//! either loses its queue and its connection, and comes back with recovery.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::protocol::{Disconnect, Line};

/// Messages that one write takes along; no delay is added to gather them.
const MESSAGES_PER_WRITE_MAX: usize = 16;
/// A write takes no further message once it has so many bytes.
const WRITE_BYTES_MAX: usize = 256 << 10;

/// Which budget a message counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Budget {
    /// Publications, replies and pings.
    Live,
    /// Snapshots and recovered publications.
    State,
}

/// Bounds of an outbox.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutboxLimits {
    pub(crate) live_bytes: usize,
    pub(crate) state_bytes: usize,
}

/// The queue of one connection.
#[derive(Debug)]
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    limits: OutboxLimits,
    filled: Notify,
    overflowed: CancellationToken,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<(Budget, Line)>,
    live_bytes: usize,
    state_bytes: usize,
    close: Option<Disconnect>,
}

/// What the transport does next.
#[derive(Debug)]
pub(crate) enum Next {
    /// Write these, in one frame.
    Write(Vec<Line>),
    /// Everything is written: close.
    Close(Disconnect),
}

impl Outbox {
    pub(crate) fn new(limits: OutboxLimits) -> Self {
        Self { queue: Mutex::default(), limits, filled: Notify::new(), overflowed: CancellationToken::new() }
    }

    /// Queues a publication that is shared with other connections. Returns whether the connection still takes any.
    pub(crate) fn publish(&self, push: &Bytes) -> bool {
        self.push(Budget::Live, Line::Whole(push.clone()))
    }

    /// Queues a message. Returns whether the connection still takes any.
    pub(crate) fn push(&self, budget: Budget, line: Line) -> bool {
        let mut queue = self.lock();
        if queue.close.is_some() {
            return false;
        }
        let n_bytes = line.len();
        let (used, limit) = match budget {
            Budget::Live => (&mut queue.live_bytes, self.limits.live_bytes),
            Budget::State => (&mut queue.state_bytes, self.limits.state_bytes),
        };
        *used += n_bytes;
        if *used > limit {
            *queue = Queue { close: Some(Disconnect::SLOW), ..Queue::default() };
            drop(queue);
            self.overflowed.cancel();
            self.filled.notify_one();
            return false;
        }
        queue.lines.push_back((budget, line));
        drop(queue);
        self.filled.notify_one();
        true
    }

    /// Ends the connection after what is queued now. The first reason counts.
    pub(crate) fn close(&self, disconnect: Disconnect) {
        self.lock().close.get_or_insert(disconnect);
        self.filled.notify_one();
    }

    /// Why the connection ends, if it does.
    pub(crate) fn closing(&self) -> Option<Disconnect> {
        self.lock().close
    }

    /// Resolves when the reader was too slow and its queue is gone: a write in progress is no longer worth waiting for.
    pub(crate) async fn overflowed(&self) {
        self.overflowed.cancelled().await;
    }

    /// Waits for something to do. To be called from one place only.
    pub(crate) async fn next(&self) -> Next {
        loop {
            if let Some(next) = self.try_next() {
                return next;
            }
            self.filled.notified().await;
        }
    }

    /// What is to be done now, if anything.
    pub(crate) fn try_next(&self) -> Option<Next> {
        let mut queue = self.lock();
        let mut lines = Vec::new();
        let mut n_bytes = 0;
        while lines.len() < MESSAGES_PER_WRITE_MAX && n_bytes < WRITE_BYTES_MAX {
            let Some((budget, line)) = queue.lines.pop_front() else { break };
            match budget {
                Budget::Live => queue.live_bytes -= line.len(),
                Budget::State => queue.state_bytes -= line.len(),
            }
            n_bytes += line.len();
            lines.push(line);
        }
        match (lines.is_empty(), queue.close) {
            (false, _) => Some(Next::Write(lines)),
            (true, Some(disconnect)) => Some(Next::Close(disconnect)),
            (true, None) => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox() -> Outbox {
        Outbox::new(OutboxLimits { live_bytes: 100, state_bytes: 1000 })
    }

    #[test]
    fn several_messages_go_into_one_write_in_order() {
        let outbox = outbox();
        for n in 0..20 {
            assert!(outbox.publish(&Bytes::from(n.to_string())));
        }
        outbox.close(Disconnect::SHUTDOWN);
        assert!(!outbox.publish(&PING), "a closing connection takes nothing more");
        let mut written = Vec::new();
        loop {
            match outbox.try_next().expect("it closes in the end") {
                Next::Write(lines) => written.push(lines.len()),
                Next::Close(disconnect) => break assert_eq!(disconnect, Disconnect::SHUTDOWN),
            }
        }
        assert_eq!(written, [16, 4]);
    }

    #[test]
    fn a_slow_reader_loses_its_queue() {
        let outbox = outbox();
        let line = Bytes::from(vec![b'x'; 40]);
        assert!(
            outbox.push(Budget::State, Line::Whole(Bytes::from(vec![b'x'; 900]))),
            "snapshots have their own budget"
        );
        assert!(outbox.publish(&line));
        assert!(outbox.publish(&line));
        assert!(!outbox.publish(&line));
        assert!(outbox.overflowed.is_cancelled());
        assert!(matches!(outbox.try_next(), Some(Next::Close(Disconnect::SLOW))));
    }

    #[test]
    fn what_was_written_no_longer_counts() {
        let outbox = outbox();
        for _ in 0..10 {
            assert!(outbox.publish(&Bytes::from(vec![b'x'; 90])));
            assert!(matches!(outbox.try_next(), Some(Next::Write(_))));
        }
        assert!(outbox.try_next().is_none());
    }

    const PING: Bytes = Bytes::from_static(b"{}");
}
