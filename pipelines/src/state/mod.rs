//! State that survives the process.
//!
//! A checkpoint stands between two epochs. It holds the rows of the changing source tables, the offsets, and the state
//! of those operators that cannot be rebuilt from what else is stored: the first ones over append-only tables, and those
//! that close windows. Everything else is rebuilt after a start by taking through the graph the stored rows, and what the
//! stored operators say they had put out.

mod packed;
mod plan;
mod restore;
mod runs;
mod store;
mod tables;
mod takeover;
mod writer;

pub(crate) use packed::Packed;
#[cfg(test)]
pub(crate) use packed::unpack;
pub use plan::{Fate, StartPlan};
pub use restore::Restored;
pub(crate) use store::{Checkpoint, StoredCheckpoint, operator_prefix, view_prefix};
pub use store::{StateError, StateStore};
pub(crate) use tables::{StoredTables, table_fingerprint};
pub(crate) use writer::CheckpointData;
pub(crate) use writer::Lease;
pub use writer::Saver;

/// What a checkpoint changes in the stored state of one operator. Keys are the operator's own.
#[derive(Debug)]
pub(crate) struct StateWriter<'a>(pub(crate) &'a mut Packed);

impl StateWriter<'_> {
    /// Stores an entry, in place of an earlier one with this key.
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) {
        self.0.push(key, Some([value, &[]]));
    }

    /// Removes an entry; one that was never stored is fine.
    pub(crate) fn delete(&mut self, key: &[u8]) {
        self.0.push(key, None);
    }
}
