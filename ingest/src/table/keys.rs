//! From a primary key to its slot.

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::column::Column;

/// Slots by key; most keys are one integer.
#[derive(Debug)]
pub(super) struct KeyIndex {
    columns: Vec<usize>,
    slots: Slots,
    scratch: Vec<u8>,
}

#[derive(Debug)]
enum Slots {
    Int(HashMap<i64, u32, RandomState>),
    Bytes(HashMap<Box<[u8]>, u32, RandomState>),
}

impl KeyIndex {
    /// An index over the key columns; `is_int` if there is one and it has an integer form.
    pub(super) fn new(columns: Vec<usize>, is_int: bool) -> Self {
        let slots = if is_int { Slots::Int(HashMap::default()) } else { Slots::Bytes(HashMap::default()) };
        Self { columns, slots, scratch: Vec::new() }
    }

    /// The slot of the key in a row.
    #[inline]
    pub(super) fn get(&mut self, columns: &[Column], row: usize) -> Option<u32> {
        match &self.slots {
            Slots::Int(slots) => slots.get(&columns[self.columns[0]].int(row)?).copied(),
            Slots::Bytes(slots) => {
                self.scratch.clear();
                self.columns.iter().for_each(|c| columns[*c].key_bytes(row, &mut self.scratch));
                slots.get(self.scratch.as_slice()).copied()
            }
        }
    }

    /// The slot of the key in a row, or `next` if it is new.
    #[inline]
    pub(super) fn get_or_insert(&mut self, columns: &[Column], row: usize, next: u32) -> u32 {
        match &mut self.slots {
            Slots::Int(slots) => {
                let key = columns[self.columns[0]].int(row).unwrap_or_default();
                *slots.entry(key).or_insert(next)
            }
            Slots::Bytes(slots) => {
                self.scratch.clear();
                self.columns.iter().for_each(|c| columns[*c].key_bytes(row, &mut self.scratch));
                match slots.get(self.scratch.as_slice()) {
                    Some(slot) => *slot,
                    None => {
                        slots.insert(self.scratch.as_slice().into(), next);
                        next
                    }
                }
            }
        }
    }

    /// Whether a column is part of the key.
    pub(super) fn has(&self, column: usize) -> bool {
        self.columns.contains(&column)
    }

    /// Forgets the key in a row.
    pub(super) fn remove(&mut self, columns: &[Column], row: usize) {
        match &mut self.slots {
            Slots::Int(slots) => {
                slots.remove(&columns[self.columns[0]].int(row).unwrap_or_default());
            }
            Slots::Bytes(slots) => {
                self.scratch.clear();
                self.columns.iter().for_each(|c| columns[*c].key_bytes(row, &mut self.scratch));
                slots.remove(self.scratch.as_slice());
            }
        }
    }
}
