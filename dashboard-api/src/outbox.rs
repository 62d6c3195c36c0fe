//! What waits to be written to one connection: a queue bounded in bytes, filled by the hub and the session, emptied by
//! the transport.
//!
//! Publications and ordinary replies share one budget; snapshots and recovered publications have their own, since
//! the server chose their size and a single one may be larger than the whole budget. A reader that is too slow for
//! either loses its queue and its connection, and comes back with recovery.
//!
//! A reply keeps its place before its content is known ([`Outbox::reserve`]): what a new subscription brings meanwhile
//! waits behind it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use metrics::counter;
use tokio::sync::Notify;

use crate::protocol::{Disconnect, Line};

/// Messages that one write takes along; no delay is added to gather them.
const MESSAGES_PER_WRITE_MAX: usize = 32;
/// Places that an empty queue keeps.
const ENTRIES_KEPT_MAX: usize = 8;
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

/// A place in the queue whose message is still to come.
#[derive(Debug)]
#[must_use = "nothing behind it is written until it is filled"]
pub(crate) struct Slot(u64);

/// The queue of one connection.
#[derive(Debug)]
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    /// Something else than the queue wants to be looked at.
    is_called: AtomicBool,
    filled: Notify,
    limits: OutboxLimits,
}

#[derive(Debug, Default)]
struct Queue {
    entries: VecDeque<Entry>,
    live_bytes: usize,
    state_bytes: usize,
    next_slot: u64,
    close: Option<Disconnect>,
}

#[derive(Debug)]
enum Entry {
    Ready(Budget, Line),
    Reserved(u64),
}

/// What the transport does next.
#[derive(Debug)]
pub(crate) enum Next {
    /// Write these, in order.
    Write(Vec<Line>),
    /// Everything is written: close.
    Close(Disconnect),
}

/// What was taken out of a queue.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) n_messages: u64,
    /// Whether more may be there already.
    pub(crate) has_more: bool,
    /// The connection is to be closed: nothing was left to take.
    pub(crate) close: Option<Disconnect>,
}

impl Outbox {
    pub(crate) fn new(limits: OutboxLimits) -> Self {
        Self { queue: Mutex::default(), is_called: AtomicBool::new(false), filled: Notify::new(), limits }
    }

    /// Queues a message. Returns whether the connection still takes any.
    pub(crate) fn push(&self, budget: Budget, line: Line) -> bool {
        let mut queue = self.lock();
        let is_open = queue.count(budget, line.len(), self.limits);
        if is_open {
            queue.entries.push_back(Entry::Ready(budget, line));
        }
        drop(queue);
        self.filled.notify_one();
        is_open
    }

    /// Keeps a place for a message: nothing that is queued later is written before it.
    pub(crate) fn reserve(&self) -> Slot {
        let mut queue = self.lock();
        let slot = queue.next_slot;
        queue.next_slot += 1;
        queue.entries.push_back(Entry::Reserved(slot));
        Slot(slot)
    }

    /// Puts the message into its place.
    pub(crate) fn fill(&self, Slot(slot): Slot, budget: Budget, line: Line) {
        let mut queue = self.lock();
        if queue.count(budget, line.len(), self.limits) {
            let place =
                queue.entries.iter_mut().find(|entry| matches!(entry, Entry::Reserved(other) if *other == slot));
            if let Some(place) = place {
                *place = Entry::Ready(budget, line);
            }
        }
        drop(queue);
        self.filled.notify_one();
    }

    /// Ends the connection after what is queued now. The first reason counts.
    pub(crate) fn close(&self, disconnect: Disconnect) {
        self.lock().close.get_or_insert(disconnect);
        self.filled.notify_one();
    }

    /// Why the connection ends, if it does.
    pub(crate) fn closing(&self) -> Option<Disconnect> {
        self.lock().close.clone()
    }

    /// Bytes that wait.
    pub(crate) fn waiting_bytes(&self) -> usize {
        let queue = self.lock();
        queue.live_bytes + queue.state_bytes
    }

    /// Resolves when there may be something to do. To be awaited in one place only.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Has [`Self::filled`] resolve, for something beside the queue.
    pub(crate) fn call(&self) {
        self.is_called.store(true, Ordering::Release);
        self.filled.notify_one();
    }

    /// Whether [`Self::call`] was used since this was asked last.
    pub(crate) fn was_called(&self) -> bool {
        // Nearly always it was not: then nothing is written, and the line of the cache stays where it is.
        self.is_called.load(Ordering::Acquire) && self.is_called.swap(false, Ordering::AcqRel)
    }

    /// What is to be written now, if anything.
    pub(crate) fn try_next(&self) -> Option<Next> {
        let mut lines = Vec::new();
        let taken = self.take(|line| lines.push(line));
        match taken.close {
            Some(disconnect) => Some(Next::Close(disconnect)),
            None => (!lines.is_empty()).then_some(Next::Write(lines)),
        }
    }

    /// Takes what one write takes along.
    pub(crate) fn take(&self, mut each: impl FnMut(Line)) -> Taken {
        let mut queue = self.lock();
        let (mut n_messages, mut n_bytes) = (0, 0);
        while n_messages < MESSAGES_PER_WRITE_MAX && n_bytes < WRITE_BYTES_MAX {
            let Some(Entry::Ready(..)) = queue.entries.front() else { break };
            let Some(Entry::Ready(budget, line)) = queue.entries.pop_front() else { break };
            match budget {
                Budget::Live => queue.live_bytes -= line.len(),
                Budget::State => queue.state_bytes -= line.len(),
            }
            n_bytes += line.len();
            n_messages += 1;
            each(line);
        }
        if queue.entries.is_empty() && queue.entries.capacity() > ENTRIES_KEPT_MAX {
            // An idle connection keeps no memory for busier times.
            queue.entries = VecDeque::new();
        }
        let close = if n_messages == 0 { queue.close.clone() } else { None };
        let has_more =
            matches!(queue.entries.front(), Some(Entry::Ready(..))) || (queue.close.is_some() && close.is_none());
        Taken { n_messages: n_messages as u64, has_more, close }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Counts a message in. Returns whether it may be queued; if it would be too much, then the queue is dropped and
    /// the connection ends.
    fn count(&mut self, budget: Budget, n_bytes: usize, limits: OutboxLimits) -> bool {
        if self.close.is_some() {
            return false;
        }
        let (used, limit) = match budget {
            Budget::Live => (&mut self.live_bytes, limits.live_bytes),
            Budget::State => (&mut self.state_bytes, limits.state_bytes),
        };
        *used += n_bytes;
        if *used <= limit {
            return true;
        }
        counter!("api_dropped_messages_total").increment(self.entries.len() as u64 + 1);
        *self = Self { close: Some(Disconnect::SLOW), ..Self::default() };
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Encoding;

    fn outbox() -> Outbox {
        Outbox::new(OutboxLimits { live_bytes: 100, state_bytes: 1000 })
    }

    fn line(n_bytes: usize) -> Line {
        Line::new(Encoding::Json, |out| out.extend(std::iter::repeat_n(b'x', n_bytes - 2)))
    }

    #[test]
    fn several_messages_go_into_one_write_in_order() {
        let outbox = outbox();
        for n in 0..40 {
            assert!(outbox.push(Budget::State, Line::new(Encoding::Json, |out| out.extend(n.to_string().bytes()))));
        }
        outbox.close(Disconnect::SHUTDOWN);
        assert!(!outbox.push(Budget::Live, line(4)), "a closing connection takes nothing more");
        let mut written = Vec::new();
        loop {
            match outbox.try_next().expect("it closes in the end") {
                Next::Write(lines) => written.push(lines.len()),
                Next::Close(disconnect) => break assert_eq!(disconnect, Disconnect::SHUTDOWN),
            }
        }
        assert_eq!(written, [32, 8]);
    }

    #[test]
    fn a_slow_reader_loses_its_queue() {
        let outbox = outbox();
        assert!(outbox.push(Budget::State, line(900)), "snapshots have their own budget");
        assert!(outbox.push(Budget::Live, line(40)));
        assert!(outbox.push(Budget::Live, line(40)));
        assert!(!outbox.push(Budget::Live, line(40)));
        assert!(matches!(outbox.try_next(), Some(Next::Close(disconnect)) if disconnect == Disconnect::SLOW));
    }

    #[test]
    fn what_was_written_no_longer_counts() {
        let outbox = outbox();
        for _ in 0..10 {
            assert!(outbox.push(Budget::Live, line(90)));
            assert!(matches!(outbox.try_next(), Some(Next::Write(_))));
        }
        assert!(outbox.try_next().is_none());
    }

    #[test]
    fn nothing_overtakes_a_reserved_place() {
        let outbox = outbox();
        outbox.push(Budget::Live, line(10));
        let slot = outbox.reserve();
        outbox.push(Budget::Live, line(12));
        let lengths = |next| match next {
            Some(Next::Write(lines)) => lines.iter().map(Line::len).collect::<Vec<_>>(),
            _ => vec![],
        };
        assert_eq!(lengths(outbox.try_next()), [10]);
        assert_eq!(lengths(outbox.try_next()), [] as [usize; 0]);
        outbox.fill(slot, Budget::State, line(102));
        assert_eq!(lengths(outbox.try_next()), [102, 12]);
    }
}
