//! Which source transactions have arrived only in part, where Debezium marks them.
//!
//! With `provide.transaction.metadata` every event names its transaction, and the topic `<prefix>.transaction` says at
//! its end how many events each table has. An epoch is held open, for a bounded time, until its transactions are
//! whole, so that no view shows half of one. While history is read no such order can be had: topics come one after
//! another, and all of them are in the end.

use hashbrown::HashMap;
use model::Record;
use serde::Deserialize;

/// Beyond so many transactions in part all are forgotten: their events are used, only not held back.
const IN_PART_MAX: usize = 16_384;
const TOPIC_SUFFIX: &str = ".transaction";
/// Topics of transaction marks: a prefix without dots, which topics of tables never are.
pub(super) const TOPIC_PATTERN: &str = r"[^.]+\.transaction";

#[derive(Debug, Deserialize)]
struct Mark {
    status: String,
    id: String,
    data_collections: Option<Vec<Collection>>,
}

#[derive(Debug, Deserialize)]
struct Collection {
    data_collection: String,
    event_count: u64,
}

#[derive(Debug, Deserialize)]
struct Wrapped {
    payload: Mark,
}

#[derive(Debug, Clone, Copy, Default)]
struct InPart {
    n_seen: u64,
    n_expected: Option<u64>,
}

/// Counts the events of each transaction until it is whole.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    in_part: HashMap<u64, InPart>,
    /// Whether the last transaction waited for became whole: marks that never come must not slow every epoch.
    are_marked: bool,
}

impl Transactions {
    /// Whether waiting is likely to complete a transaction.
    pub(super) fn is_in_part(&self) -> bool {
        self.are_marked && !self.in_part.is_empty()
    }

    /// An event of a transaction has arrived.
    pub(super) fn event(&mut self, transaction: u64) {
        self.update(transaction, |t| t.n_seen += 1);
    }

    /// A record of a transaction topic; `is_read` says whether a topic is read at all.
    pub(super) fn mark(&mut self, topic: &str, record: &Record, mut is_read: impl FnMut(&str) -> bool) {
        let (Some(prefix), Some(value)) = (topic.strip_suffix(TOPIC_SUFFIX), record.value.as_deref()) else { return };
        let mark = serde_json::from_slice::<Mark>(value)
            .or_else(|_| serde_json::from_slice::<Wrapped>(value).map(|wrapped| wrapped.payload));
        let Some(mark) = mark.ok().filter(|m| m.status == "END") else { return };
        let n_expected = mark
            .data_collections
            .unwrap_or_default()
            .iter()
            .filter(|c| is_read(&format!("{prefix}.{}", c.data_collection)))
            .map(|c| c.event_count)
            .sum();
        if n_expected > 0 {
            self.update(crate::decode::transaction_hash(mark.id.as_bytes()), |t| t.n_expected = Some(n_expected));
        }
    }

    fn update(&mut self, transaction: u64, change: impl FnOnce(&mut InPart)) {
        if self.in_part.len() >= IN_PART_MAX {
            self.in_part.clear();
        }
        let entry = self.in_part.entry(transaction).or_default();
        change(entry);
        if entry.n_expected.is_some_and(|n| entry.n_seen >= n) {
            self.in_part.remove(&transaction);
            self.are_marked = true;
        }
    }

    /// The epoch ends with transactions in part; returns how many.
    pub(super) fn give_up(&mut self) -> usize {
        self.are_marked = false;
        std::mem::take(&mut self.in_part).len()
    }
}
