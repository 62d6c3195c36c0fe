//! Positions in topics: topic → partition → next offset to read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Topic → partition → next offset. As JSON: `{"erp.public.t": {"0": 17}}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offsets(pub BTreeMap<String, BTreeMap<i32, i64>>);

impl Offsets {
    /// The next offset of a partition, if known.
    pub fn get(&self, topic: &str, partition: i32) -> Option<i64> {
        self.0.get(topic)?.get(&partition).copied()
    }

    /// Sets the next offset of a partition.
    pub fn set(&mut self, topic: &str, partition: i32, next_offset: i64) {
        match self.0.get_mut(topic) {
            Some(partitions) => {
                partitions.insert(partition, next_offset);
            }
            None => {
                self.0.insert(topic.to_owned(), BTreeMap::from([(partition, next_offset)]));
            }
        }
    }

    /// Takes over every position of `other`.
    pub fn merge(&mut self, other: &Offsets) {
        for (topic, partition, next) in other.iter() {
            self.set(topic, partition, next);
        }
    }

    /// All positions in order of topic and partition.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i32, i64)> {
        self.0.iter().flat_map(|(topic, ps)| ps.iter().map(move |(p, o)| (topic.as_str(), *p, *o)))
    }

    /// Whether every position of `target` has been reached.
    pub fn reached(&self, target: &Offsets) -> bool {
        target.iter().all(|(topic, p, next)| next <= 0 || self.get(topic, p).is_some_and(|at| at >= next))
    }

    /// Whether no position is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
