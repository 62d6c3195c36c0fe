//! Keys in the order in which they close: how operators find what they may forget when event time goes on.
//!
//! A key is here once, however often it comes and goes, and leaves when the operator lets it go before it closes.

use std::collections::BTreeMap;
use std::hash::Hash;

use hashbrown::Equivalent;

use super::Step;
use crate::rows::Set;
use crate::watermark::Horizon;

/// Keys by the value that closes them.
#[derive(Debug)]
pub(crate) struct Closes<K> {
    keys: BTreeMap<i64, Set<K>>,
}

impl<K> Default for Closes<K> {
    fn default() -> Self {
        Self { keys: BTreeMap::new() }
    }
}

impl<K: Hash + Eq> Closes<K> {
    pub(crate) fn add(&mut self, value: i64, key: K) {
        self.keys.entry(value).or_default().insert(key);
    }

    /// Takes out a key that its operator no longer holds.
    pub(crate) fn remove<Q: Hash + Equivalent<K> + ?Sized>(&mut self, value: i64, key: &Q) {
        if let Some(keys) = self.keys.get_mut(&value) {
            keys.remove(key);
            if keys.is_empty() {
                self.keys.remove(&value);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Takes out the keys whose value is before `bound`.
    pub(crate) fn take_before(&mut self, bound: i64) -> Vec<K> {
        let later = self.keys.split_off(&bound);
        let closed: Vec<K> = std::mem::replace(&mut self.keys, later).into_values().flatten().collect();
        if !closed.is_empty() {
            metrics::counter!("pipelines_closed_keys_total").increment(closed.len() as u64);
        }
        closed
    }
}

/// The same for keys in slots, with what decides when they close.
#[derive(Debug)]
pub(crate) struct ClosingSlots {
    part: usize,
    horizon: Horizon,
    closes: Closes<u32>,
    /// The closing value of each slot.
    values: Vec<Option<i64>>,
}

impl ClosingSlots {
    /// `part`: which column of the key closes.
    pub(crate) fn new(part: usize, horizon: Horizon) -> Self {
        Self { part, horizon, closes: Closes::default(), values: Vec::new() }
    }

    pub(crate) fn part(&self) -> usize {
        self.part
    }

    /// A slot has a new key; one whose value is NULL never closes.
    pub(crate) fn add(&mut self, slot: u32, value: Option<i64>) {
        let at = slot as usize;
        if self.values.len() <= at {
            self.values.resize(at + 1, None);
        }
        self.values[at] = value;
        if let Some(value) = value {
            self.closes.add(value, slot);
        }
    }

    /// A slot is free again.
    pub(crate) fn remove(&mut self, slot: u32) {
        if let Some(value) = self.values.get_mut(slot as usize).and_then(Option::take) {
            self.closes.remove(value, &slot);
        }
    }

    /// Whether the step closes something, with or without a change of the input.
    pub(crate) fn wants(&self, step: &Step<'_>) -> bool {
        !self.closes.is_empty() && self.horizon.moves(step.watermarks)
    }

    /// Takes out the slots that are closed when the step ends.
    pub(crate) fn take_closed(&mut self, step: &Step<'_>) -> Vec<u32> {
        let Some(bound) = self.horizon.now(step.watermarks) else { return Vec::new() };
        let closed = self.closes.take_before(bound);
        closed.iter().for_each(|slot| self.values[*slot as usize] = None);
        closed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn keys_that_come_and_go_leave_nothing_behind() {
        let horizon = Horizon { sources: Arc::from([Arc::from("s")]), offset_us: 0 };
        let mut slots = ClosingSlots::new(0, horizon);
        for round in 0..100 {
            slots.add(round % 2, Some(i64::from(round % 5)));
            slots.remove(round % 2);
        }
        assert!(slots.closes.is_empty());
        assert_eq!(slots.values.len(), 2);
        let mut closes = Closes::<Box<[u8]>>::default();
        for _ in 0..100 {
            closes.add(7, Box::from(&b"k"[..]));
        }
        closes.add(8, Box::from(&b"l"[..]));
        assert_eq!(closes.take_before(8), [Box::from(&b"k"[..])]);
        closes.remove(8, &b"l"[..]);
        assert!(closes.is_empty());
    }
}
