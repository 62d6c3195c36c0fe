//! Lets held-back updates of tiles go when their time has come.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::hub::channel::Channel;
use crate::hub::view::View;

/// Channels with an update that is held back; one entry a channel, since a channel asks once per held update.
#[derive(Default)]
pub(crate) struct Pacer {
    held: Mutex<Vec<(Instant, Arc<Channel<View>>)>>,
    added: Notify,
}

impl Pacer {
    /// Flushes a channel at `due`.
    pub(crate) fn hold(&self, channel: &Arc<Channel<View>>, due: Instant) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if !held.iter().any(|(_, other)| Arc::ptr_eq(other, channel)) {
            held.push((due, Arc::clone(channel)));
            self.added.notify_one();
        }
    }

    /// Flushes what is due at `now`. Returns when the next one is.
    pub(crate) fn flush(&self, now: Instant) -> Option<Instant> {
        let due: Vec<_> = {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            held.extract_if(.., |(due, _)| *due <= now).collect()
        };
        for (_, channel) in due {
            if let Some(due) = channel.flush(now) {
                self.hold(&channel, due);
            }
        }
        self.held.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(due, _)| *due).min()
    }

    /// Flushes whatever becomes due, for ever.
    pub(crate) async fn run(&self) {
        loop {
            match self.flush(Instant::now()) {
                Some(next) => tokio::select! {
                    () = sleep_until(next) => {}
                    () = self.added.notified() => {}
                },
                None => self.added.notified().await,
            }
        }
    }
}
