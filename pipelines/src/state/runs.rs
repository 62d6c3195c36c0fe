//! Where the entries of a space are: a list of runs, one for each checkpoint that changed it, oldest first.
//!
//! A run is some [segments](super::packed). Runs of like size are merged in the background, so that there are few of
//! them, and entries that were overridden or deleted leave the store. Every entry is written again once per level, and levels
//! grow by [`MERGED_AT_ONCE`].

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use slatedb::WriteBatch;

use super::packed::{Packed, unpack};
use super::store::StateStore;
use super::{Checkpoint, StateError};
use crate::rows::Set;

/// So many runs of like size become one.
const MERGED_AT_ONCE: usize = 4;
/// Segments that are read while others are removed in one batch.
const SEGMENTS_AT_ONCE: usize = 16;
/// Segments that are removed unread in one batch.
const KEYS_AT_ONCE: usize = 1_024;

const RUNS_KEY: &[u8] = b"\x00runs";

/// One run. Its segments have the keys: prefix, number (u64), part (u32).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    no: u64,
    parts: u32,
    bytes: u64,
}

/// The runs of a space, oldest first, and the number of the next one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Runs {
    next_no: u64,
    runs: Vec<Run>,
}

/// The runs of the spaces that were looked at, by prefix.
pub(super) type KnownRuns = BTreeMap<Vec<u8>, Runs>;

fn segment_key(prefix: &[u8], no: u64, part: u32) -> Vec<u8> {
    [prefix, &no.to_be_bytes(), &part.to_be_bytes()].concat()
}

fn runs_key(prefix: &[u8]) -> Vec<u8> {
    [RUNS_KEY, prefix].concat()
}

/// From which run on all should become one: enough of them, and each no larger than half of what came after it, so that a
/// large run is not written again for the sake of a small one.
fn first_to_merge(runs: &[Run]) -> Option<usize> {
    let newer = |i: usize| runs[i + 1..].iter().map(|r| r.bytes).sum::<u64>();
    (0..(runs.len() + 1).saturating_sub(MERGED_AT_ONCE)).find(|i| runs[*i].bytes * 2 <= newer(*i))
}

/// Keys that were met, by 128 bits of two hashes: two keys that are taken for one are rarer than a broken disk.
struct Met {
    hashers: [foldhash::quality::RandomState; 2],
    keys: Set<[u64; 2]>,
}

impl Met {
    fn new() -> Self {
        Self { hashers: Default::default(), keys: Set::default() }
    }

    /// Whether the key is met for the first time.
    fn is_new(&mut self, key: &[u8]) -> bool {
        use std::hash::BuildHasher as _;
        self.keys.insert([self.hashers[0].hash_one(key), self.hashers[1].hash_one(key)])
    }
}

impl StateStore {
    /// Brings the state to a checkpoint, all or nothing; durable when it returns.
    pub(crate) async fn commit(&self, checkpoint: &Checkpoint, changes: Vec<Packed>) -> Result<(), StateError> {
        let mut batch = WriteBatch::new();
        let mut known = self.runs.lock().await;
        // What is changed by more than one of the changes gets a run of each.
        let mut touched: BTreeMap<Vec<u8>, Runs> = BTreeMap::new();
        for packed in changes.into_iter().filter(|packed| !packed.is_empty()) {
            let prefix = packed.prefix.clone();
            if !touched.contains_key(&prefix) {
                touched.insert(prefix.clone(), self.runs_of(&mut known, &prefix).await?.clone());
            }
            let runs = touched.entry(prefix.clone()).or_default();
            let mut run = Run { no: runs.next_no, parts: 0, bytes: 0 };
            for segment in packed.into_segments() {
                run.bytes += segment.len() as u64;
                batch.put_bytes(Bytes::from(segment_key(&prefix, run.no, run.parts)), segment);
                run.parts += 1;
            }
            runs.next_no += 1;
            runs.runs.push(run);
        }
        for (prefix, runs) in &touched {
            batch.put(runs_key(prefix), self.json(runs)?);
        }
        self.put_checkpoint(&mut batch, checkpoint)?;
        self.write(batch).await?;
        known.extend(touched);
        Ok(())
    }

    fn json<T: Serialize>(&self, value: &T) -> Result<Vec<u8>, StateError> {
        serde_json::to_vec(value).map_err(|e| self.damaged(e.to_string()))
    }

    /// The runs of a space; empty if nothing was ever stored in it.
    async fn runs_of<'k>(&self, known: &'k mut KnownRuns, prefix: &[u8]) -> Result<&'k mut Runs, StateError> {
        if !known.contains_key(prefix) {
            let runs = match self.get(&runs_key(prefix)).await? {
                None => Runs::default(),
                Some(bytes) => serde_json::from_slice(&bytes)
                    .map_err(|e| self.damaged(format!("a list of runs cannot be read ({e})")))?,
            };
            known.insert(prefix.to_vec(), runs);
        }
        Ok(known.entry(prefix.to_vec()).or_default())
    }

    async fn segment(&self, prefix: &[u8], no: u64, part: u32) -> Result<Vec<(Bytes, Option<Bytes>)>, StateError> {
        let key = segment_key(prefix, no, part);
        let segment = self.get(&key).await?.ok_or_else(|| self.damaged("a segment is missing"))?;
        unpack(&segment).ok_or_else(|| self.damaged("a segment is damaged"))
    }

    /// Calls `each` with the key and value of every entry of a space, each key once, in no order.
    pub(crate) async fn each_entry(
        &self,
        prefix: &[u8],
        mut each: impl FnMut(Bytes, Bytes) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        let runs = self.runs_of(&mut *self.runs.lock().await, prefix).await?.clone();
        let mut found: BTreeMap<(u64, u32), Bytes> = BTreeMap::new();
        let mut strangers = WriteBatch::new();
        let wanted: BTreeMap<u64, u32> = runs.runs.iter().map(|run| (run.no, run.parts)).collect();
        self.scan(prefix, |key, segment| {
            let (no, part) = key.split_at(key.len().min(8));
            let place = (
                no.try_into().map_or(u64::MAX, u64::from_be_bytes),
                part.try_into().map_or(u32::MAX, u32::from_be_bytes),
            );
            match wanted.get(&place.0).is_some_and(|parts| place.1 < *parts) {
                true => drop(found.insert(place, segment)),
                // From a merge that was broken off.
                false => strangers.delete(segment_key(prefix, place.0, place.1)),
            }
            Ok(())
        })
        .await?;
        self.write(strangers).await?;
        let mut met: Set<Bytes> = Set::default();
        let newest_first = runs.runs.iter().rev().flat_map(|run| (0..run.parts).rev().map(|part| (run.no, part)));
        for place in newest_first {
            let segment = found.remove(&place).ok_or_else(|| self.damaged("a segment is missing"))?;
            let entries = unpack(&segment).ok_or_else(|| self.damaged("a segment is damaged"))?;
            for (key, value) in entries.into_iter().rev() {
                match (met.insert(key.clone()), value) {
                    (true, Some(value)) => each(key, value)?,
                    (true, None) | (false, _) => {}
                }
            }
        }
        Ok(())
    }

    /// Removes everything under the prefixes, in bounded steps.
    pub(crate) async fn remove(&self, prefixes: &[Vec<u8>]) -> Result<(), StateError> {
        for prefix in prefixes {
            let mut known = self.runs.lock().await;
            let is_there = !self.runs_of(&mut known, prefix).await?.runs.is_empty();
            known.remove(prefix);
            if is_there {
                let mut batch = WriteBatch::new();
                batch.delete(runs_key(prefix));
                self.write(batch).await?;
            }
            drop(known);
            while self.remove_some(prefix, SEGMENTS_AT_ONCE).await? > 0 {}
        }
        Ok(())
    }

    /// Merges runs until none are to be merged, beside everything else; one such task at a time.
    pub(super) fn merge_in_background(&self) {
        let Ok(turn) = Arc::clone(&self.merging).try_lock_owned() else { return };
        let store = self.clone();
        tokio::spawn(async move {
            let _turn = turn;
            loop {
                match store.merge_some().await {
                    Ok(true) => {}
                    Ok(false) => return,
                    // What is stored stays as it is; the next checkpoint says what is wrong with the store.
                    Err(error) if store.is_closing() => return tracing::debug!(%error, "a merge was broken off"),
                    Err(error) => return tracing::warn!(%error, "runs of the state were not merged"),
                }
            }
        });
    }

    /// Merges the runs of one space, if there is one whose runs are to be merged; whether there was.
    pub(super) async fn merge_some(&self) -> Result<bool, StateError> {
        let known = self.runs.lock().await;
        let due = known.iter().find_map(|(prefix, of)| Some((prefix.clone(), of.clone(), first_to_merge(&of.runs)?)));
        drop(known);
        let Some((prefix, before, first)) = due else { return Ok(false) };
        let old = &before.runs[first..];
        let no = self.new_run(&prefix).await?;
        let merged = self.merge(&prefix, old, no, first == 0).await?;
        let mut known = self.runs.lock().await;
        let mut runs = self.runs_of(&mut known, &prefix).await?.clone();
        // A space that was removed meanwhile stays removed.
        if !runs.runs.get(first..).is_some_and(|now| now.starts_with(old)) {
            return Ok(true);
        }
        runs.runs.splice(first..first + old.len(), (merged.parts > 0).then_some(merged));
        let mut batch = WriteBatch::new();
        batch.put(runs_key(&prefix), self.json(&runs)?);
        self.write(batch).await?;
        known.insert(prefix.clone(), runs);
        drop(known);
        let keys: Vec<Vec<u8>> =
            old.iter().flat_map(|run| (0..run.parts).map(|part| segment_key(&prefix, run.no, part))).collect();
        for some in keys.chunks(KEYS_AT_ONCE) {
            let mut batch = WriteBatch::new();
            some.iter().for_each(|key| batch.delete(key));
            self.write(batch).await?;
        }
        metrics::counter!("pipelines_state_merges_total").increment(1);
        metrics::counter!("pipelines_state_merged_bytes_total").increment(merged.bytes);
        Ok(true)
    }

    /// A number that no run has.
    async fn new_run(&self, prefix: &[u8]) -> Result<u64, StateError> {
        let mut known = self.runs.lock().await;
        let runs = self.runs_of(&mut known, prefix).await?;
        runs.next_no += 1;
        Ok(runs.next_no - 1)
    }

    /// Writes what some runs say together as a run of its own, which nothing refers to yet.
    async fn merge(&self, prefix: &[u8], old: &[Run], no: u64, is_oldest: bool) -> Result<Run, StateError> {
        let mut merged = Run { no, parts: 0, bytes: 0 };
        let mut met = Met::new();
        let mut packed = Packed::new(prefix.to_vec());
        let newest_first = old.iter().rev().flat_map(|run| (0..run.parts).rev().map(|part| (run.no, part)));
        for (no, part) in newest_first {
            if self.is_closing() {
                return Err(self.damaged("closed while runs were merged"));
            }
            for (key, value) in self.segment(prefix, no, part).await?.into_iter().rev() {
                // Below the oldest run there is nothing that a deletion would have to hide.
                if met.is_new(&key) && (value.is_some() || !is_oldest) {
                    packed.push(&key, value.as_ref().map(|value| [&value[..], &[]]));
                }
            }
            self.put_segments(prefix, &mut merged, packed.take_full()).await?;
        }
        self.put_segments(prefix, &mut merged, packed.into_segments()).await?;
        Ok(merged)
    }

    async fn put_segments(&self, prefix: &[u8], run: &mut Run, segments: Vec<Bytes>) -> Result<(), StateError> {
        let mut batch = WriteBatch::new();
        for segment in segments {
            run.bytes += segment.len() as u64;
            batch.put_bytes(Bytes::from(segment_key(prefix, run.no, run.parts)), segment);
            run.parts += 1;
        }
        self.write(batch).await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    use super::*;

    #[track_caller]
    fn check_first(bytes: &[u64], expected: Option<usize>) {
        let runs: Vec<Run> = bytes.iter().zip(0..).map(|(bytes, no)| Run { no, parts: 1, bytes: *bytes }).collect();
        assert_eq!(first_to_merge(&runs), expected, "{bytes:?}");
    }

    #[test]
    fn runs_of_like_size_are_merged_and_large_ones_left_alone() {
        check_first(&[], None);
        check_first(&[1, 1, 1], None);
        check_first(&[1, 1, 1, 1], Some(0));
        check_first(&[100, 1, 1, 1], None);
        check_first(&[100, 1, 1, 1, 1], Some(1));
        check_first(&[4, 4, 4, 1, 1, 1, 1], Some(0));
        check_first(&[100, 60, 60, 60, 60], Some(0));
        check_first(&[100, 0, 0, 0, 0], Some(1));
    }

    type Model = BTreeMap<Vec<u8>, Vec<u8>>;

    async fn entries(store: &StateStore, prefix: &[u8]) -> Model {
        let mut found = Model::new();
        let each = |key: Bytes, value: Bytes| {
            assert!(found.insert(key.to_vec(), value.to_vec()).is_none(), "a key comes once");
            Ok(())
        };
        store.each_entry(prefix, each).await.expect("readable");
        found
    }

    /// Random checkpoints in two spaces, with merges, removals and restarts in between.
    #[tokio::test]
    async fn what_is_read_is_what_was_last_written() {
        let seed = std::env::var("ANDON_RUNS_SEED").ok().and_then(|s| s.parse().ok());
        let seed: u64 = seed.unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
        println!("ANDON_RUNS_SEED={seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let dir = tempfile::tempdir().expect("a temporary folder");
        let place = dir.path().display().to_string();
        let mut store = StateStore::open(&place).await.expect("a new place");
        let mut models = [Model::new(), Model::new()];
        let prefix = |space: usize| vec![9, space as u8];
        for no in 0..50_u32 {
            let mut changes = Vec::new();
            for (space, model) in models.iter_mut().enumerate() {
                let mut packed = Packed::new(prefix(space));
                for _ in 0..random.random_range(0..60) {
                    let key = random.random_range(0..200_u16).to_be_bytes();
                    let value = random.random_bool(0.6).then(|| vec![no as u8; random.random_range(0..9)]);
                    packed.push(&key, value.as_ref().map(|v| [&v[..], &[]]));
                    match value {
                        Some(value) => drop(model.insert(key.to_vec(), value)),
                        None => drop(model.remove(&key[..])),
                    }
                }
                changes.push(packed);
            }
            store.commit(&Checkpoint::default(), changes).await.expect("stored");
            if random.random_bool(0.3) {
                while store.merge_some().await.expect("merged") {}
            }
            if random.random_bool(0.02) {
                store.remove(&[prefix(1)]).await.expect("removed");
                models[1].clear();
            }
            if random.random_bool(0.1) {
                // A merge that was broken off leaves a run that nothing refers to.
                let left = store.new_run(&prefix(0)).await.expect("a number");
                let mut run = Run { no: left, parts: 0, bytes: 0 };
                let segment = Bytes::from_static(b"nobody reads this");
                store.put_segments(&prefix(0), &mut run, vec![segment]).await.expect("written");
                store.close().await.expect("closed");
                store = StateStore::open(&place).await.expect("the same place");
                assert_eq!(entries(&store, &prefix(0)).await, models[0], "seed {seed}, checkpoint {no}");
                let mut n_segments = 0;
                let count = |_, _| {
                    n_segments += 1;
                    Ok(())
                };
                store.scan(&prefix(0), count).await.expect("readable");
                let known = store.runs.lock().await[&prefix(0)].clone();
                assert_eq!(n_segments, known.runs.iter().map(|r| r.parts as usize).sum::<usize>(), "seed {seed}");
            }
        }
        while store.merge_some().await.expect("merged") {}
        for (space, model) in models.iter().enumerate() {
            assert_eq!(entries(&store, &prefix(space)).await, *model, "seed {seed}, space {space}");
            assert!(store.runs.lock().await[&prefix(space)].runs.len() < 3 * MERGED_AT_ONCE);
        }
        store.close().await.expect("closed");
    }
}
