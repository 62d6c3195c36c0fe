//! A multiset that can say which of its rows changed since the last checkpoint.

use super::keyed::malformed;
use crate::error::OpResult;
use crate::rows::{RowBytes, Set, ZSet, add_weight};
use crate::state::StateWriter;

/// Row → weight, with the rows that the next checkpoint must write.
#[derive(Debug, Default)]
pub(crate) struct TrackedSet {
    rows: ZSet,
    dirty: Option<Set<RowBytes>>,
}

impl TrackedSet {
    pub(crate) fn rows(&self) -> &ZSet {
        &self.rows
    }

    pub(crate) fn track(&mut self) {
        self.dirty = Some(Set::default());
    }

    pub(crate) fn add(&mut self, row: &[u8], weight: i64) {
        add_weight(&mut self.rows, row, weight);
        if let Some(dirty) = &mut self.dirty
            && weight != 0
        {
            dirty.get_or_insert_with(row, |row: &[u8]| RowBytes::from(row));
        }
    }

    /// Writes what changed, each key with `tag` in front.
    pub(crate) fn checkpoint(&mut self, tag: u8, out: &mut StateWriter<'_>) {
        let mut key = vec![tag];
        for row in self.dirty.iter_mut().flat_map(Set::drain) {
            key.truncate(1);
            key.extend_from_slice(&row);
            match self.rows.get(&row) {
                Some(weight) => out.put(&key, &weight.to_be_bytes()),
                None => out.delete(&key),
            }
        }
    }

    /// Takes back one entry, its key without the tag.
    pub(crate) fn restore(&mut self, row: &[u8], value: &[u8]) -> OpResult<()> {
        add_weight(&mut self.rows, row, stored_weight(value)?);
        Ok(())
    }
}

/// A weight as [`TrackedSet`] and the join indexes store it.
pub(crate) fn stored_weight(value: &[u8]) -> OpResult<i64> {
    Ok(i64::from_be_bytes(value.try_into().map_err(|_| malformed())?))
}
