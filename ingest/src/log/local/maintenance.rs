//! What a local log does beside appends and reads: asking the disk to write, compaction, retention.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fjall::PersistMode;
use metrics::histogram;
use tracing::error;

use super::Shared;
use super::store::storage_error;

/// Pause between two rounds, unless syncs are asked for more often.
const ROUND_INTERVAL: Duration = Duration::from_secs(1);
/// Shortest pause, so that a sync interval of zero does not spin.
const ROUND_INTERVAL_MIN: Duration = Duration::from_millis(10);

/// The maintenance thread; ends, after a last sync, when this is dropped.
#[derive(Debug)]
pub(super) struct Maintenance {
    ending: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Maintenance {
    pub(super) fn start(shared: Arc<Shared>) -> std::io::Result<Self> {
        let ending = Arc::new((Mutex::new(false), Condvar::new()));
        let seen = Arc::clone(&ending);
        let options = &shared.options;
        let interval = ROUND_INTERVAL.min(options.sync_interval).min(options.compaction_lag).max(ROUND_INTERVAL_MIN);
        let thread = std::thread::Builder::new().name("log-maintenance".to_owned()).spawn(move || {
            while !wait(&seen, interval) {
                round(&shared);
            }
            sync(&shared);
        })?;
        Ok(Self { ending, thread: Some(thread) })
    }
}

impl Drop for Maintenance {
    fn drop(&mut self) {
        *self.ending.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.ending.1.notify_all();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            error!("log maintenance had panicked");
        }
    }
}

/// Waits for the next round; true when there is none because the log is being closed.
fn wait(ending: &(Mutex<bool>, Condvar), interval: Duration) -> bool {
    let guard = ending.0.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = ending.1.wait_timeout_while(guard, interval, |ending| !*ending);
    *waited.unwrap_or_else(PoisonError::into_inner).0
}

fn round(shared: &Shared) {
    sync(shared);
    // The lock is taken anew for each step, so that appends get their turn in between.
    loop {
        match shared.lock_writer().collect_garbage(shared) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                error!(%error, "could not compact");
                break;
            }
        }
    }
    for topic in shared.all_topics() {
        if let Err(error) = shared.lock_writer().apply_retention(shared, &topic) {
            error!(topic = &*topic.name, %error, "could not drop old records");
        }
    }
}

fn sync(shared: &Shared) {
    if !shared.unsynced.swap(false, Ordering::AcqRel) {
        return;
    }
    let started = Instant::now();
    if let Err(error) = shared.store.db.persist(PersistMode::SyncData).map_err(storage_error) {
        // The next round tries again; the storage engine refuses appends from now on if the disk has really failed.
        shared.unsynced.store(true, Ordering::Release);
        error!(%error, "could not sync the log to disk");
    }
    histogram!("log_sync_seconds").record(started.elapsed());
}
