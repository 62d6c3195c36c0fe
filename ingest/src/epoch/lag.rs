//! How far the engine is behind the ends of the source topics.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use model::{Log, LogError, Offsets, PartitionOffsets};

use super::Shared;
use super::route::Routes;

/// How often the ends are looked up. They are for people and for telling catching up from live.
const INTERVAL: Duration = Duration::from_millis(500);

/// Offsets of every partition of the source topics.
pub(super) type Ends = Vec<(Arc<str>, PartitionOffsets)>;

/// Looks up the ends again and again until it is aborted.
pub(super) async fn run(log: Arc<dyn Log>, mut routes: Routes, shared: Arc<Shared>) {
    let mut away = false;
    loop {
        match look_up(log.as_ref(), &mut routes).await {
            Ok(ends) => {
                away = false;
                *shared.ends.lock().unwrap_or_else(PoisonError::into_inner) = Some(ends);
            }
            // Said once; the reader itself reports what matters.
            Err(error) if !away => {
                away = true;
                tracing::warn!(%error, "ends of the source topics are unknown");
            }
            Err(_) => {}
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Looks up the ends once.
pub(super) async fn look_up(log: &dyn Log, routes: &mut Routes) -> Result<Ends, LogError> {
    let mut ends = Vec::new();
    for topic in log.topics().await? {
        let topic: Arc<str> = Arc::from(topic);
        if !routes.tables(&topic).is_empty() {
            let partitions = log.offsets(&topic).await?;
            ends.extend(partitions.into_iter().map(|p| (Arc::clone(&topic), p)));
        }
    }
    Ok(ends)
}

/// Records between `at` and the ends.
pub(super) fn records_behind(ends: &Ends, at: &Offsets) -> u64 {
    ends.iter()
        .map(|(topic, p)| {
            let next = at.get(topic, p.partition).unwrap_or(p.earliest).max(p.earliest);
            u64::try_from(p.end - next).unwrap_or(0)
        })
        .sum()
}
