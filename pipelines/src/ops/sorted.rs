//! A sorted map of row bytes for state that is small most of the time and large sometimes: the values of one group,
//! the rows of one partition.
//!
//! Entries lie in sorted chunks of at most [`CHUNK_ENTRIES_MAX`]. A small map is one chunk, so one allocation. Every
//! chunk knows how often its entries count together, so the n-th value of a large map (median, percentile, a slice of
//! a partition) is found without walking over what lies before it. Cost of a change: two binary searches and a move
//! within one chunk.

use crate::rows::RowBytes;

/// A chunk that grows beyond this is split in two halves.
const CHUNK_ENTRIES_MAX: usize = 256;

/// A value that says how often its key is there.
pub(crate) trait Counted {
    /// Number of copies, never less than zero.
    fn count(&self) -> u64;
}

impl Counted for i64 {
    fn count(&self) -> u64 {
        u64::try_from(*self).unwrap_or(0)
    }
}

#[derive(Debug)]
struct Chunk<V> {
    entries: Vec<(RowBytes, V)>,
    total: u64,
}

impl<V> Default for Chunk<V> {
    fn default() -> Self {
        Self { entries: Vec::new(), total: 0 }
    }
}

/// The map. The first chunk stands apart so that a small map has no list of chunks.
#[derive(Debug)]
pub(crate) struct Sorted<V> {
    first: Chunk<V>,
    rest: Vec<Chunk<V>>,
}

impl<V> Default for Sorted<V> {
    fn default() -> Self {
        Self { first: Chunk::default(), rest: Vec::new() }
    }
}

impl<V: Counted + Default> Sorted<V> {
    fn chunk(&self, i: usize) -> &Chunk<V> {
        if i == 0 { &self.first } else { &self.rest[i - 1] }
    }

    fn chunk_mut(&mut self, i: usize) -> &mut Chunk<V> {
        if i == 0 { &mut self.first } else { &mut self.rest[i - 1] }
    }

    /// The chunk in which a key is or would be.
    fn chunk_of(&self, key: &[u8]) -> usize {
        self.rest.partition_point(|c| c.entries.first().is_some_and(|(k, _)| &**k <= key))
    }

    fn find(&self, key: &[u8]) -> (usize, Result<usize, usize>) {
        let at = self.chunk_of(key);
        (at, self.chunk(at).entries.binary_search_by(|(k, _)| (**k).cmp(key)))
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&V> {
        let (chunk, found) = self.find(key);
        found.ok().map(|i| &self.chunk(chunk).entries[i].1)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.entries.is_empty() && self.rest.is_empty()
    }

    /// Number of keys.
    pub(crate) fn len(&self) -> usize {
        self.first.entries.len() + self.rest.iter().map(|c| c.entries.len()).sum::<usize>()
    }

    /// Number of copies of all keys.
    pub(crate) fn total(&self) -> u64 {
        self.first.total + self.rest.iter().map(|c| c.total).sum::<u64>()
    }

    /// Number of copies of all keys before this one.
    pub(crate) fn total_before(&self, key: &[u8]) -> u64 {
        let (chunk, found) = self.find(key);
        let (Ok(i) | Err(i)) = found;
        let before: u64 = (0..chunk).map(|c| self.chunk(c).total).sum();
        before + self.chunk(chunk).entries[..i].iter().map(|(_, v)| v.count()).sum::<u64>()
    }

    /// The key of the copy at this place, counted from 0.
    pub(crate) fn nth(&self, mut place: u64) -> Option<&[u8]> {
        for c in 0..=self.rest.len() {
            let chunk = self.chunk(c);
            if place >= chunk.total {
                place -= chunk.total;
                continue;
            }
            for (key, value) in &chunk.entries {
                match place.checked_sub(value.count()) {
                    None => return Some(key),
                    Some(left) => place = left,
                }
            }
        }
        None
    }

    pub(crate) fn first(&self) -> Option<(&[u8], &V)> {
        self.first.entries.first().map(|(k, v)| (&**k, v))
    }

    pub(crate) fn last(&self) -> Option<(&[u8], &V)> {
        self.rest.last().unwrap_or(&self.first).entries.last().map(|(k, v)| (&**k, v))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &V)> {
        let all = self.first.entries.iter().chain(self.rest.iter().flat_map(|c| c.entries.iter()));
        all.map(|(k, v)| (&**k, v))
    }

    /// Entries from the given place on, if every entry counts once.
    pub(crate) fn iter_from(&self, place: u64) -> impl Iterator<Item = (&[u8], &V)> {
        let mut skip = usize::try_from(place).unwrap_or(usize::MAX);
        let mut from = 0;
        while from < self.rest.len() && skip >= self.chunk(from).entries.len() {
            skip -= self.chunk(from).entries.len();
            from += 1;
        }
        (from..=self.rest.len()).flat_map(|c| self.chunk(c).entries.iter()).skip(skip).map(|(k, v)| (&**k, v))
    }

    /// Visits entries in order and lets them change in a way that leaves their count as it is, until `f` says stop.
    pub(crate) fn visit(&mut self, mut f: impl FnMut(&[u8], &mut V) -> std::ops::ControlFlow<()>) {
        let all = self.first.entries.iter_mut().chain(self.rest.iter_mut().flat_map(|c| c.entries.iter_mut()));
        for (key, value) in all {
            if f(key, value).is_break() {
                return;
            }
        }
    }

    /// Keeps the entries for which `f` is true.
    pub(crate) fn retain(&mut self, mut f: impl FnMut(&[u8], &V) -> bool) {
        for c in 0..=self.rest.len() {
            let chunk = self.chunk_mut(c);
            chunk.entries.retain(|(k, v)| f(k, v));
            chunk.total = chunk.entries.iter().map(|(_, v)| v.count()).sum();
        }
        self.drop_empty_chunks();
    }

    fn drop_empty_chunks(&mut self) {
        self.rest.retain(|c| !c.entries.is_empty());
        if self.first.entries.is_empty() && !self.rest.is_empty() {
            self.first = self.rest.remove(0);
        }
    }

    /// Lets `f` see and replace the value of a key; `None` stands for an absent key, before and after.
    pub(crate) fn alter<R>(&mut self, key: &[u8], f: impl FnOnce(&mut Option<V>) -> R) -> R {
        let (at, found) = self.find(key);
        let chunk = self.chunk_mut(at);
        match found {
            Ok(i) => {
                let value = std::mem::take(&mut chunk.entries[i].1);
                let before = value.count();
                let mut slot = Some(value);
                let result = f(&mut slot);
                let after = slot.as_ref().map_or(0, Counted::count);
                chunk.total = chunk.total - before + after;
                match slot {
                    Some(value) => chunk.entries[i].1 = value,
                    None => {
                        chunk.entries.remove(i);
                        if chunk.entries.is_empty() {
                            self.drop_empty_chunks();
                        }
                    }
                }
                result
            }
            Err(i) => {
                let mut slot = None;
                let result = f(&mut slot);
                if let Some(value) = slot {
                    chunk.total += value.count();
                    chunk.entries.insert(i, (key.into(), value));
                    if chunk.entries.len() > CHUNK_ENTRIES_MAX {
                        self.split(at);
                    }
                }
                result
            }
        }
    }

    fn split(&mut self, at: usize) {
        let chunk = self.chunk_mut(at);
        let entries = chunk.entries.split_off(chunk.entries.len() / 2);
        let total = entries.iter().map(|(_, v)| v.count()).sum();
        chunk.total -= total;
        self.rest.insert(at, Chunk { entries, total });
    }
}

impl Sorted<i64> {
    /// Adds a weight to a key of a multiset; a key without weight is gone.
    pub(crate) fn add(&mut self, key: &[u8], weight: i64) {
        self.alter(key, |slot| {
            let sum = slot.unwrap_or(0) + weight;
            *slot = (sum != 0).then_some(sum);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// `ANDON_SORTED_SEED=n` replays one seed.
    #[test]
    fn it_is_a_sorted_map_with_places() {
        let one = std::env::var("ANDON_SORTED_SEED").ok().and_then(|v| v.parse::<u64>().ok());
        for seed in one.map_or(0..8, |s| s..s + 1) {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut sorted = Sorted::<i64>::default();
            let mut plain = BTreeMap::<Vec<u8>, i64>::new();
            for _ in 0..4_000 {
                let key = rng.random_range(0..1_500_u32).to_be_bytes();
                let weight = rng.random_range(-2..4);
                sorted.add(&key, weight);
                let sum = plain.entry(key.to_vec()).or_insert(0);
                *sum += weight;
                plain.retain(|_, w| *w != 0);
            }
            let all: Vec<(Vec<u8>, i64)> = sorted.iter().map(|(k, w)| (k.to_vec(), *w)).collect();
            assert_eq!(all, plain.clone().into_iter().collect::<Vec<_>>(), "ANDON_SORTED_SEED={seed}");
            let copies: Vec<&Vec<u8>> = plain.iter().flat_map(|(k, w)| vec![k; w.count() as usize]).collect();
            assert_eq!(sorted.total(), copies.len() as u64);
            for place in (0..copies.len()).step_by(97) {
                assert_eq!(sorted.nth(place as u64), Some(copies[place].as_slice()), "ANDON_SORTED_SEED={seed}");
            }
            for key in plain.keys().step_by(53) {
                let before = copies.iter().filter(|c| **c < key).count() as u64;
                assert_eq!(sorted.total_before(key), before, "ANDON_SORTED_SEED={seed}");
            }
            sorted.retain(|_, w| *w > 2);
            assert!(sorted.iter().all(|(_, w)| *w > 2));
            assert_eq!(sorted.len(), plain.values().filter(|w| **w > 2).count());
        }
    }

    #[test]
    fn entries_from_a_place() {
        let mut sorted = Sorted::<i64>::default();
        for i in 0..1_000_u32 {
            sorted.add(&i.to_be_bytes(), 1);
        }
        for from in [0, 1, 255, 256, 600, 999, 1_000] {
            let keys: Vec<u32> =
                sorted.iter_from(from).map(|(k, _)| u32::from_be_bytes(k.try_into().expect("four bytes"))).collect();
            assert_eq!(keys, (from as u32..1_000).collect::<Vec<_>>());
        }
    }
}
