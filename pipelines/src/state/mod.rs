//! State that survives the process.
//!
//! A checkpoint stands between two epochs. It holds the rows of the changing source tables, the offsets, and the state
//! of those operators that cannot be rebuilt from such rows: the ones over append-only tables, and those that close
//! windows. Everything else is rebuilt after a start by taking the stored rows through the graph as one epoch.

mod plan;
mod restore;
mod store;
mod tables;
mod takeover;
mod writer;

pub use plan::{Fate, StartPlan};
pub use restore::Restored;
pub(crate) use store::{Checkpoint, StoredCheckpoint, operator_prefix, view_prefix};
pub use store::{StateError, StateStore};
pub(crate) use tables::{StoredTables, table_fingerprint};
pub(crate) use writer::CheckpointData;
pub(crate) use writer::Lease;
pub use writer::Saver;

/// What a checkpoint changes in the stored state of one operator.
///
/// Keys are the operator's own; the place of the operator in the store is put in front of them.
#[derive(Debug)]
pub(crate) struct StateWriter<'a> {
    prefix: &'a [u8],
    changes: &'a mut Vec<StateChange>,
}

/// Key and new value; `None` deletes.
pub(crate) type StateChange = (Vec<u8>, Option<Vec<u8>>);

impl<'a> StateWriter<'a> {
    pub(crate) fn new(prefix: &'a [u8], changes: &'a mut Vec<StateChange>) -> Self {
        Self { prefix, changes }
    }

    /// Stores an entry, in place of an earlier one with this key.
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) {
        let key = self.key(key);
        self.changes.push((key, Some(value.to_vec())));
    }

    /// Removes an entry; one that was never stored is fine.
    pub(crate) fn delete(&mut self, key: &[u8]) {
        let key = self.key(key);
        self.changes.push((key, None));
    }

    fn key(&self, key: &[u8]) -> Vec<u8> {
        let mut full = Vec::with_capacity(self.prefix.len() + key.len());
        full.extend_from_slice(self.prefix);
        full.extend_from_slice(key);
        full
    }
}
