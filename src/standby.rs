//! A second node that waits until the first one is gone.
//!
//! The first writes its status every second. When nothing comes for [`SILENCE`], the standby opens the state, which
//! fences the first one should it still be alive, and goes on from its last checkpoint.

use std::sync::Arc;
use std::time::{Duration, Instant};

use model::{Log, LogError, topics};
use tracing::{info, warn};

/// Without a sign of life for so long, the first node counts as gone. Longer than its lease on the state, so that it
/// has stopped publishing by then.
pub const SILENCE: Duration = Duration::from_secs(5);
/// Time between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(250);
/// A look that took longer says nothing about the other node, which could not reach the log either.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// Waits until no other node shows a sign of life.
///
/// # Errors
/// If the log can never be read; outages are waited out.
pub async fn wait(log: &Arc<dyn Log>) -> Result<(), LogError> {
    let mut last_end = None;
    let mut seen_at = Instant::now();
    info!(silence_seconds = SILENCE.as_secs(), "standing by");
    loop {
        let started = Instant::now();
        match log.offsets(topics::STATUS).await {
            Ok(partitions) => {
                let end: i64 = partitions.iter().map(|p| p.end).sum();
                if last_end.replace(end) != Some(end) || started.elapsed() > LOOK_MAX {
                    seen_at = Instant::now();
                }
                if seen_at.elapsed() >= SILENCE {
                    warn!("no sign of life of another node: taking over");
                    return Ok(());
                }
            }
            // Whoever cannot reach the log cannot know whether the other one can.
            Err(LogError::Unavailable { reason }) => {
                warn!(reason, "the log is unavailable, standing by");
                seen_at = Instant::now();
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}
