//! Business time that follows the data: the `stream` clock of the demo and of captures.
//!
//! The engine asks a [`model::Clock`] what time it is. With the `stream` clock that is the newest event time seen in
//! the sources, moved on just before the epoch that carries it is handed to the engine. It never goes back by itself;
//! a demo that starts its capture over tells it to ([`StreamClock::restart`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use model::clock::ManualClock;
use model::{Clock, EpochSource, Offsets, SourceEpoch};
use tokio::sync::watch;

use crate::BoxError;

/// A clock at the newest event time of the sources.
#[derive(Debug, Clone, Default)]
pub struct StreamClock {
    clock: ManualClock,
    may_go_back: Arc<AtomicBool>,
}

impl StreamClock {
    /// A clock that stands at `now_us` until the first event.
    pub fn at(now_us: i64) -> Self {
        Self { clock: ManualClock::at(now_us), may_go_back: Arc::default() }
    }

    /// Takes over an event time.
    fn observe(&self, event_time_us: i64) {
        let may_go_back = self.may_go_back.swap(false, Ordering::SeqCst);
        if may_go_back || event_time_us > self.clock.now_us() {
            self.clock.set(event_time_us);
        }
    }

    /// The next event time sets the clock even if it is earlier than the current one.
    pub fn restart(&self) {
        self.may_go_back.store(true, Ordering::SeqCst);
    }
}

impl Clock for StreamClock {
    fn now_us(&self) -> i64 {
        self.clock.now_us()
    }
}

/// An epoch source that moves a [`StreamClock`] and tells how far it has been read.
pub struct ObservedSource {
    inner: Box<dyn EpochSource>,
    clock: Option<StreamClock>,
    offsets: watch::Sender<Offsets>,
}

impl std::fmt::Debug for ObservedSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObservedSource").field("clock", &self.clock).finish_non_exhaustive()
    }
}

impl ObservedSource {
    /// Wraps `inner`. The receiver tells the offsets of the epochs that the engine has finished: an epoch counts as
    /// finished when the next one is asked for.
    pub fn new(inner: Box<dyn EpochSource>, clock: Option<StreamClock>) -> (Self, watch::Receiver<Offsets>) {
        let (offsets, seen) = watch::channel(Offsets::default());
        (Self { inner, clock, offsets }, seen)
    }
}

#[async_trait::async_trait]
impl EpochSource for ObservedSource {
    async fn next_epoch(&mut self, wait: Duration) -> Result<Option<SourceEpoch>, BoxError> {
        let epoch = self.inner.next_epoch(wait).await?;
        if let (Some(clock), Some(event_time_us)) =
            (&self.clock, epoch.as_ref().and_then(|e| e.max_event_time_us))
        {
            clock.observe(event_time_us);
        }
        if let Some(epoch) = &epoch {
            self.offsets.send_modify(|at| at.merge(&epoch.offsets));
        }
        Ok(epoch)
    }

    fn lag_records(&self) -> Option<u64> {
        self.inner.lag_records()
    }

    fn dead_letters(&self) -> u64 {
        self.inner.dead_letters()
    }

    fn table_rows(&self, table: &str) -> Option<RecordBatch> {
        self.inner.table_rows(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_time_goes_back_only_when_told_to() {
        let clock = StreamClock::at(0);
        clock.observe(10);
        clock.observe(5);
        assert_eq!(clock.now_us(), 10);
        clock.restart();
        clock.observe(5);
        clock.observe(3);
        assert_eq!(clock.now_us(), 5);
    }
}
