//! Business time that follows the data: the `stream` clock of the demo and of captures.
//!
//! The engine moves its stream clock to the newest event time it has seen, and never back. A demo that starts its
//! capture over has to turn it back once; that happens here, when the first epoch of the new round is read.

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
    restarts: Arc<AtomicBool>,
}

impl StreamClock {
    /// The clock as the engine moves it.
    pub fn manual(&self) -> ManualClock {
        self.clock.clone()
    }

    /// Moves forward to an event time; an earlier one changes nothing.
    pub fn observe(&self, event_time_us: i64) {
        if event_time_us > self.clock.now_us() {
            self.clock.set(event_time_us);
        }
    }

    /// The next event time that is read sets the clock even if it is earlier.
    pub fn restart(&self) {
        self.restarts.store(true, Ordering::SeqCst);
    }

    fn restart_at(&self, event_time_us: i64) {
        if self.restarts.swap(false, Ordering::SeqCst) {
            self.clock.set(event_time_us);
        }
    }
}

impl Clock for StreamClock {
    fn now_us(&self) -> i64 {
        self.clock.now_us()
    }
}

/// An epoch source that turns a [`StreamClock`] back when asked to, and tells how far it has been read.
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
    /// Wraps `inner`, and tells `offsets` those of the epochs handed out so far.
    pub fn new(inner: Box<dyn EpochSource>, clock: Option<StreamClock>, offsets: watch::Sender<Offsets>) -> Self {
        Self { inner, clock, offsets }
    }
}

#[async_trait::async_trait]
impl EpochSource for ObservedSource {
    async fn next_epoch(&mut self, wait: Duration) -> Result<Option<SourceEpoch>, BoxError> {
        let epoch = self.inner.next_epoch(wait).await?;
        if let (Some(clock), Some(event_time_us)) = (&self.clock, epoch.as_ref().and_then(|e| e.max_event_time_us)) {
            clock.restart_at(event_time_us);
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
        let clock = StreamClock::default();
        clock.observe(10);
        clock.observe(5);
        clock.restart_at(5);
        assert_eq!(clock.now_us(), 10);
        clock.restart();
        clock.restart_at(5);
        clock.restart_at(3);
        assert_eq!(clock.now_us(), 5);
    }
}
