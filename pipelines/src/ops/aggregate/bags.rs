//! The ordered multisets of all groups of one aggregate, and which of their entries have changed.

use hashbrown::HashSet;

use crate::error::OpResult;
use crate::ops::keyed::malformed;
use crate::ops::sorted::Sorted;
use crate::rows::RowBytes;

/// Entries (group, key) that changed since the last checkpoint; `None` until someone wants to know.
#[derive(Debug, Default)]
pub(super) struct ChangedEntries(Option<HashSet<(u32, RowBytes), foldhash::fast::RandomState>>);

impl ChangedEntries {
    pub(super) fn track(&mut self) {
        self.0 = Some(HashSet::default());
    }

    pub(super) fn is_tracking(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn note(&mut self, group: u32, key: &[u8]) {
        if let Some(set) = &mut self.0 {
            set.insert((group, key.into()));
        }
    }

    pub(super) fn take(&mut self) -> Vec<(u32, RowBytes)> {
        self.0.as_mut().map(|set| set.drain().collect()).unwrap_or_default()
    }
}

/// One multiset per group.
#[derive(Debug, Default)]
pub(super) struct Bags {
    groups: Vec<Sorted<i64>>,
    changed: ChangedEntries,
}

impl Bags {
    pub(super) fn resize(&mut self, n_groups: usize) {
        self.groups.resize_with(n_groups, Sorted::default);
    }

    pub(super) fn clear(&mut self, group: usize) {
        let bag = std::mem::take(&mut self.groups[group]);
        if self.changed.is_tracking() {
            bag.iter().for_each(|(key, _)| self.changed.note(slot_of(group), key));
        }
    }

    pub(super) fn add(&mut self, group: u32, key: &[u8], weight: i64) {
        self.changed.note(group, key);
        self.groups[group as usize].add(key, weight);
    }

    pub(super) fn of(&self, group: u32) -> &Sorted<i64> {
        &self.groups[group as usize]
    }

    pub(super) fn track(&mut self) {
        self.changed.track();
    }

    pub(super) fn take_changed(&mut self) -> Vec<(u32, RowBytes)> {
        self.changed.take()
    }

    pub(super) fn entry(&self, group: usize, key: &[u8]) -> Option<Vec<u8>> {
        self.groups[group].get(key).map(|weight| weight.to_be_bytes().to_vec())
    }

    pub(super) fn load_entry(&mut self, group: usize, key: &[u8], mut value: &[u8]) -> OpResult<()> {
        let weight = take_i64(&mut value)?;
        self.groups[group].alter(key, |known| *known = Some(weight));
        Ok(())
    }
}

/// The number of a group as its slot.
pub(super) fn slot_of(group: usize) -> u32 {
    u32::try_from(group).expect("fewer than 2^32 groups fit in memory")
}

/// Takes eight bytes off stored state.
pub(super) fn take_i64(bytes: &mut &[u8]) -> OpResult<i64> {
    let (value, rest) = bytes.split_first_chunk::<8>().ok_or_else(malformed)?;
    *bytes = rest;
    Ok(i64::from_be_bytes(*value))
}
