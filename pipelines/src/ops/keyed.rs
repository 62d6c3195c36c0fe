//! State by key, in slots: a key is hashed once per row, everything else of it is found by its slot's number.

use std::hash::BuildHasher;

use datafusion::error::DataFusionError;
use hashbrown::HashTable;

use crate::error::OpResult;
use crate::rows::{Map, RowBytes};

#[derive(Debug)]
struct Slot<T> {
    key: RowBytes,
    value: T,
    /// The step that touched the slot last.
    touched: u64,
}

/// A map from row bytes to `T`, and the slots that the current step has touched.
#[derive(Debug)]
pub(crate) struct Keyed<T> {
    hasher: foldhash::fast::RandomState,
    table: HashTable<u32>,
    slots: Vec<Option<Slot<T>>>,
    free: Vec<u32>,
    step_no: u64,
    touched: Vec<u32>,
}

impl<T> Default for Keyed<T> {
    fn default() -> Self {
        Self {
            hasher: foldhash::fast::RandomState::default(),
            table: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            step_no: 1,
            touched: Vec::new(),
        }
    }
}

impl<T: Default> Keyed<T> {
    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().flatten().map(|s| &s.value)
    }

    /// All keys with their slots.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (u32, &[u8])> {
        (0_u32..).zip(&self.slots).filter_map(|(no, slot)| Some((no, &*slot.as_ref()?.key)))
    }

    /// Number of keys.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&T> {
        let slots = &self.slots;
        let is = |slot: &u32| slots[*slot as usize].as_ref().is_some_and(|s| *s.key == *key);
        let slot = self.table.find(self.hasher.hash_one(key), is)?;
        self.slots[*slot as usize].as_ref().map(|s| &s.value)
    }

    /// The slot of a key, made if it is not there.
    pub(crate) fn slot(&mut self, key: &[u8]) -> u32 {
        let (slots, hasher) = (&self.slots, &self.hasher);
        let is = |slot: &u32| slots[*slot as usize].as_ref().is_some_and(|s| *s.key == *key);
        let hash_of = |slot: &u32| hasher.hash_one(slots[*slot as usize].as_ref().map_or(&[][..], |s| &*s.key));
        match self.table.entry(hasher.hash_one(key), is, hash_of) {
            hashbrown::hash_table::Entry::Occupied(entry) => *entry.get(),
            hashbrown::hash_table::Entry::Vacant(entry) => {
                let new = Slot { key: key.into(), value: T::default(), touched: 0 };
                match self.free.pop() {
                    Some(slot) => {
                        entry.insert(slot);
                        self.slots[slot as usize] = Some(new);
                        slot
                    }
                    None => {
                        let slot = u32::try_from(self.slots.len()).expect("fewer than 2^32 keys fit in memory");
                        entry.insert(slot);
                        self.slots.push(Some(new));
                        slot
                    }
                }
            }
        }
    }

    /// Key and value of a slot in use.
    pub(crate) fn at(&mut self, slot: u32) -> (&[u8], &mut T) {
        let slot = self.slots[slot as usize].as_mut().expect("the slot of a key that is there");
        (&slot.key, &mut slot.value)
    }

    /// Notes that the step changes a slot; tells whether this is the first time in the step.
    pub(crate) fn touch(&mut self, slot: u32) -> bool {
        let step_no = self.step_no;
        let Some(of) = self.slots[slot as usize].as_mut() else { return false };
        let is_new = of.touched != step_no;
        if is_new {
            of.touched = step_no;
            self.touched.push(slot);
        }
        is_new
    }

    /// Ends the step: the slots it touched.
    pub(crate) fn take_touched(&mut self) -> Vec<u32> {
        self.step_no += 1;
        std::mem::take(&mut self.touched)
    }

    /// Forgets a key.
    pub(crate) fn release(&mut self, slot: u32) {
        let Some(of) = self.slots[slot as usize].take() else { return };
        if let Ok(entry) = self.table.find_entry(self.hasher.hash_one(&*of.key), |s| *s == slot) {
            entry.remove();
        }
        self.free.push(slot);
    }
}

/// Entries of state whose value has changed since the last checkpoint: pairs of a key and a place below it.
#[derive(Debug, Default)]
pub(crate) struct Changed(Option<Map<RowBytes, Origin>>);

/// Whether the store has an entry of that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Stored,
    /// It came into being after the last checkpoint.
    New,
}

impl Changed {
    /// Starts to remember; before that, [`Changed::note`] costs nothing.
    pub(crate) fn track(&mut self) {
        self.0 = Some(Map::default());
    }

    pub(crate) fn is_tracking(&self) -> bool {
        self.0.is_some()
    }

    /// An entry changes, comes or goes.
    pub(crate) fn note(&mut self, key: &[u8], below: &[u8]) {
        if let Some(known) = &mut self.0 {
            known.entry(pair(key, below).into()).or_insert(Origin::Stored);
        }
    }

    /// An entry comes that was not there just before.
    pub(crate) fn note_new(&mut self, key: &[u8], below: &[u8]) {
        if let Some(known) = &mut self.0 {
            known.entry(pair(key, below).into()).or_insert(Origin::New);
        }
    }

    /// An entry goes. One that has come since the last checkpoint leaves no trace.
    pub(crate) fn note_gone(&mut self, key: &[u8], below: &[u8]) {
        let Some(known) = &mut self.0 else { return };
        let name = pair(key, below);
        match known.get(&name[..]) {
            Some(Origin::New) => drop(known.remove(&name[..])),
            Some(Origin::Stored) => {}
            None => drop(known.insert(name.into(), Origin::Stored)),
        }
    }

    /// The pairs (see [`unpair`]) that were noted, in no order.
    pub(crate) fn take(&mut self) -> Vec<RowBytes> {
        self.0.as_mut().map(|known| known.drain().map(|(name, _)| name).collect()).unwrap_or_default()
    }
}

/// Two keys as one: the length of the first, the first, the second.
pub(crate) fn pair(key: &[u8], below: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + key.len() + below.len());
    bytes.extend_from_slice(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(below);
    bytes
}

/// The two keys of a [`pair`].
pub(crate) fn unpair(bytes: &[u8]) -> OpResult<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(malformed)?;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or_else(malformed)
}

/// The error for stored bytes that no version of this program has written.
pub(crate) fn malformed() -> DataFusionError {
    DataFusionError::Execution("stored state is malformed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left for the checkpoint after entries have come (`+`), changed (`~`) and gone (`-`).
    #[track_caller]
    fn check(notes: &str, expected: &str) {
        let mut changed = Changed::default();
        changed.track();
        for note in notes.split_whitespace() {
            let below = &note.as_bytes()[1..];
            match note.as_bytes()[0] {
                b'+' => changed.note_new(b"k", below),
                b'-' => changed.note_gone(b"k", below),
                _ => changed.note(b"k", below),
            }
        }
        let mut left = changed.take();
        left.sort_unstable();
        let names = left.iter().map(|name| std::str::from_utf8(unpair(name).expect("a pair").1).expect("letters"));
        assert_eq!(names.collect::<Vec<_>>().join(" "), expected, "{notes}");
        assert!(changed.take().is_empty());
    }

    #[test]
    fn what_comes_and_goes_between_two_checkpoints_is_not_stored() {
        check("+a +b -a", "b");
        check("+a ~a -a +c", "c");
        check("+a -a +a", "a");
        // What is stored must be removed, also if it comes back in between.
        check("-a", "a");
        check("-a +a -a", "a");
        check("~a -a", "a");
    }
}
