//! What a start would do with stored state: `andon plan`.

use std::sync::Arc;

use super::store::StateStore;
use super::{StateError, StoredCheckpoint};
use crate::program::Program;

/// What becomes of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its query means what it meant; its topic stays as it is.
    Kept,
    /// Its query, or one below it, means something else; its rows are made anew and the difference is published.
    Rebuilt,
    /// It is new.
    Added,
    /// It is gone; its topic stays, its entry in the catalog goes.
    Dropped,
}

/// What a start would do.
#[derive(Debug, Clone)]
pub struct StartPlan {
    /// Epoch of the stored state.
    pub epoch: u64,
    /// When the state was stored, milliseconds since 1970.
    pub written_at_ms: i64,
    /// Views and rules by name.
    pub views: Vec<(String, Fate)>,
    /// Tables whose topics would be read from their beginning.
    pub read_again: Vec<Arc<str>>,
}

impl StateStore {
    /// What a start of this program at this place would do; nothing is changed, and a running engine is not disturbed.
    /// `None` if nothing is stored there.
    ///
    /// # Errors
    /// If the place cannot be read.
    pub async fn plan(place: &str, program: &Program) -> Result<Option<StartPlan>, StateError> {
        let Some(StoredCheckpoint(checkpoint)) = Self::peek(place).await? else { return Ok(None) };
        let now = program.view_fingerprints();
        let mut views: Vec<(String, Fate)> = now
            .iter()
            .map(|(name, fingerprint)| match checkpoint.views.get(name) {
                None => (name.clone(), Fate::Added),
                Some(stored) if stored == fingerprint => (name.clone(), Fate::Kept),
                Some(_) => (name.clone(), Fate::Rebuilt),
            })
            .collect();
        views.extend(checkpoint.views.keys().filter(|n| !now.contains_key(*n)).map(|n| (n.clone(), Fate::Dropped)));
        views.sort_by(|a, b| a.0.cmp(&b.0));
        let read_again = program.takeover(&checkpoint).again.into_iter().collect();
        let (epoch, written_at_ms) = (checkpoint.epoch, checkpoint.written_at_ms);
        Ok(Some(StartPlan { epoch, written_at_ms, views, read_again }))
    }
}
