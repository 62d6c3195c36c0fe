//! The background task: poll, decode, cut epochs, hand them over.

use std::sync::Arc;
use std::time::Duration;

use model::{Log, LogReader, PollLimit, SourceEpoch};
use tokio::sync::mpsc;

use super::dead_letter;
use super::worker::Worker;
use super::{EPOCHS_QUEUED_MAX, IngestOptions};
use crate::Error;

/// One poll returns at most so much, so that decoding starts early and memory stays bounded.
const POLL_RECORDS_MAX: usize = 8_192;
const POLL_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long a poll waits for the first record of an epoch before it looks around.
const POLL_WAIT: Duration = Duration::from_millis(250);
/// So few records are decoded where they are; handing them to another thread would cost more.
const INLINE_RECORDS_MAX: usize = 32;
/// So many dead letters of an epoch are logged; all are counted and kept.
const WARNED_LETTERS_MAX: usize = 3;

/// Reads until the receiver is gone or the log can never be read again.
pub(super) async fn run(
    mut reader: Box<dyn LogReader>,
    log: Arc<dyn Log>,
    mut worker: Worker,
    options: IngestOptions,
    epochs: mpsc::Sender<Result<SourceEpoch, Error>>,
) {
    loop {
        let result = next(&mut reader, log.as_ref(), worker, &options, &epochs).await;
        let failed = match result {
            Ok((returned, epoch)) => {
                worker = returned;
                if epochs.send(Ok(epoch)).await.is_err() {
                    return;
                }
                continue;
            }
            Err(error) => error,
        };
        // Nobody left to tell is the normal end.
        if epochs.send(Err(failed)).await.is_err() {
            tracing::debug!("reading ended after its reader");
        }
        return;
    }
}

async fn next(
    reader: &mut Box<dyn LogReader>,
    log: &dyn Log,
    mut worker: Worker,
    options: &IngestOptions,
    epochs: &mpsc::Sender<Result<SourceEpoch, Error>>,
) -> Result<(Worker, SourceEpoch), Error> {
    let mut is_behind = false;
    loop {
        let engine_waits = epochs.capacity() == EPOCHS_QUEUED_MAX;
        let mut duration = if engine_waits && !is_behind { options.epoch_idle } else { options.epoch_duration_max };
        if worker.is_in_part() && !is_behind {
            duration += options.transaction_wait_max;
        }
        let left = worker.since().map(|since| duration.saturating_sub(since.elapsed()));
        let room = options.epoch_records_max.saturating_sub(worker.n_records());
        if left == Some(Duration::ZERO) || room == 0 {
            break;
        }
        let max_records = room.min(POLL_RECORDS_MAX);
        let limit = PollLimit { max_records, max_bytes: POLL_BYTES_MAX, wait: left.unwrap_or(POLL_WAIT) };
        let batches = reader.poll(limit).await?;
        let n_records: usize = batches.iter().map(|b| b.records.len()).sum();
        is_behind = n_records >= max_records / 2;
        if n_records == 0 {
            if worker.has_time_moved() {
                break;
            }
            continue;
        }
        worker = if n_records <= INLINE_RECORDS_MAX {
            worker.decode(&batches);
            worker
        } else {
            blocking(worker, move |worker| worker.decode(&batches)).await?.0
        };
    }
    let is_small = worker.n_records() <= INLINE_RECORDS_MAX;
    let (worker, finished) = if is_small {
        let finished = worker.finish();
        (worker, finished)
    } else {
        blocking(worker, Worker::finish).await?
    };
    let (epoch, dead_letters) = finished?;
    for letter in dead_letters.iter().take(WARNED_LETTERS_MAX) {
        let (topic, offset) = (&*letter.topic, letter.record.offset);
        tracing::warn!(topic, letter.partition, offset, reason = %letter.reason, "record went to the dead letters");
    }
    dead_letter::write(log, &dead_letters).await?;
    Ok((worker, epoch))
}

/// Lends the worker to the blocking pool.
async fn blocking<T: Send + 'static>(
    mut worker: Worker,
    work: impl FnOnce(&mut Worker) -> T + Send + 'static,
) -> Result<(Worker, T), Error> {
    let lent = tokio::task::spawn_blocking(move || {
        let result = work(&mut worker);
        (worker, result)
    });
    lent.await.map_err(|_| Error::Stopped)
}
