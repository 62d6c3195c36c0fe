//! Records of rule topics to whole epochs, and the rows that a topic holds at the start.
//!
//! At a start every rule topic is read from its oldest record, since compaction keeps exactly the newest record of
//! each key: what lies before the stored position is only collected, what comes after it is passed on as epochs. Once
//! the end that the topic had at the start is reached, the collected rows are what the rule returns, and the book is
//! compared to them.

use std::collections::HashMap;
use std::sync::Arc;

use model::view::EpochMark;
use model::{LogBatch, Record};
use serde_json::{Map, Value};
use tracing::warn;

use crate::alert::canonical_key;
use crate::book::rule_error;

/// Changes of one epoch held back until its last record; then the epoch is passed on in parts.
const PENDING_CHANGES_MAX: usize = 100_000;

/// One row of a rule that appeared, changed or left.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Change {
    pub(crate) key: Arc<str>,
    pub(crate) row: Option<Map<String, Value>>,
}

/// What one epoch of the engine changed in one rule. At most one change per key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RuleEpoch {
    pub(crate) rule: String,
    pub(crate) epoch: u64,
    pub(crate) as_of_ms: i64,
    /// The offset to go on from after this epoch.
    pub(crate) next_offset: i64,
    pub(crate) changes: Vec<Change>,
}

/// A row as a topic holds it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SnapshotRow {
    pub(crate) row: Map<String, Value>,
    pub(crate) as_of_ms: i64,
    pub(crate) epoch: u64,
}

/// The reader of one rule's topic, without the reading.
#[derive(Debug)]
pub(crate) struct Tail {
    rule: String,
    /// Records before this offset are already in the book.
    resume_at: i64,
    next_offset: i64,
    pending: Option<RuleEpoch>,
    start: Option<Start>,
}

#[derive(Debug)]
struct Start {
    end_offset: i64,
    rows: HashMap<Arc<str>, SnapshotRow>,
}

impl Tail {
    /// `resume_at`: the stored position; `end_offset`: the end of the topic now, 0 if there is none yet.
    pub(crate) fn new(rule: &str, resume_at: i64, end_offset: i64) -> Self {
        // A topic that is shorter than what was read of it has been made anew.
        let resume_at = if resume_at > end_offset { 0 } else { resume_at };
        let start = Some(Start { end_offset, rows: HashMap::new() });
        Self { rule: rule.to_owned(), resume_at, next_offset: 0, pending: None, start }
    }

    /// Takes in records in offset order and returns the epochs that are now complete.
    pub(crate) fn push(&mut self, batch: &LogBatch) -> Vec<RuleEpoch> {
        let mut complete = Vec::new();
        for record in &batch.records {
            let mark = EpochMark::from_record(record);
            let own_epoch = EpochMark {
                epoch: u64::try_from(record.offset).unwrap_or_default(),
                as_of_ms: record.timestamp_ms,
                last: true,
            };
            let mark = mark.unwrap_or(own_epoch);
            self.next_offset = record.offset + 1;
            if self.pending.as_ref().is_some_and(|p| p.epoch != mark.epoch) {
                complete.extend(self.flush());
            }
            match self.decode(record) {
                Ok(change) => self.take(change, mark, record.offset),
                Err(reason) => {
                    rule_error(&self.rule, "record");
                    warn!(rule = self.rule, offset = record.offset, reason, "skipped unreadable record of a rule");
                }
            }
            let is_full = self.pending.as_ref().is_some_and(|p| p.changes.len() >= PENDING_CHANGES_MAX);
            if mark.last || is_full {
                complete.extend(self.flush());
            }
        }
        complete
    }

    /// The epoch held back, complete or not: its last record may have been compacted away.
    pub(crate) fn flush(&mut self) -> Option<RuleEpoch> {
        let mut epoch = self.pending.take()?;
        epoch.next_offset = self.next_offset;
        Some(epoch)
    }

    /// Whether the end that the topic had at the start is still ahead.
    pub(crate) fn is_starting(&self) -> bool {
        self.start.is_some()
    }

    /// Whether all that the topic held at the start has been read.
    pub(crate) fn has_reached_end(&self) -> bool {
        self.start.as_ref().is_some_and(|s| self.next_offset >= s.end_offset)
    }

    /// Ends the start: the rows that the topic holds.
    pub(crate) fn finish_start(&mut self) -> Option<HashMap<Arc<str>, SnapshotRow>> {
        self.start.take().map(|s| s.rows)
    }

    fn decode(&self, record: &Record) -> Result<Change, &'static str> {
        let key = record.key.as_deref().ok_or("no key")?;
        let key: Map<String, Value> = serde_json::from_slice(key).map_err(|_| "key is not a JSON object")?;
        let row = match &record.value {
            Some(value) => Some(serde_json::from_slice(value).map_err(|_| "value is not a JSON object")?),
            None => None,
        };
        Ok(Change { key: canonical_key(&key), row })
    }

    fn take(&mut self, change: Change, mark: EpochMark, offset: i64) {
        if let Some(start) = &mut self.start {
            match &change.row {
                Some(row) => {
                    let row = SnapshotRow { row: row.clone(), as_of_ms: mark.as_of_ms, epoch: mark.epoch };
                    start.rows.insert(Arc::clone(&change.key), row);
                }
                None => drop(start.rows.remove(&change.key)),
            }
        }
        if offset < self.resume_at {
            return;
        }
        let pending = self.pending.get_or_insert_with(|| RuleEpoch {
            rule: self.rule.clone(),
            epoch: mark.epoch,
            as_of_ms: mark.as_of_ms,
            next_offset: offset + 1,
            changes: Vec::new(),
        });
        match pending.changes.iter_mut().rev().take(SAME_KEY_LOOK_BACK).find(|c| c.key == change.key) {
            Some(earlier) => *earlier = change,
            None => pending.changes.push(change),
        }
    }
}

/// How far back an earlier change of the same key is looked for within an epoch. The engine writes one change per key
/// and epoch; other writers may write a delete just before an insert.
const SAME_KEY_LOOK_BACK: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use serde_json::json;

    fn record(offset: i64, key: &str, row: Option<Value>, epoch: u64, last: bool) -> Record {
        let as_of_ms = 1_000 * i64::try_from(epoch).expect("small");
        Record {
            offset,
            timestamp_ms: 5,
            key: Some(Bytes::from(key.to_owned())),
            value: row.map(|r| Bytes::from(r.to_string())),
            headers: EpochMark { epoch, as_of_ms, last }.to_headers(),
        }
    }

    fn batch(records: Vec<Record>) -> LogBatch {
        LogBatch { topic: Arc::from("andon.rule.r"), partition: 0, records }
    }

    fn shape(epochs: &[RuleEpoch]) -> Vec<(u64, i64, usize)> {
        epochs.iter().map(|e| (e.epoch, e.next_offset, e.changes.len())).collect()
    }

    #[test]
    fn epochs_come_out_whole_over_batches() {
        let mut tail = Tail::new("r", 0, 0);
        let first = tail.push(&batch(vec![
            record(0, r#"{"a":1}"#, Some(json!({"a": 1})), 7, false),
            record(1, r#"{"a":2}"#, Some(json!({"a": 2})), 7, true),
            record(2, r#"{"a":1}"#, None, 8, false),
        ]));
        assert_eq!(shape(&first), [(7, 2, 2)]);
        let second = tail.push(&batch(vec![record(3, r#"{"a":2}"#, None, 8, true)]));
        assert_eq!(shape(&second), [(8, 4, 2)]);
    }

    #[test]
    fn an_epoch_whose_last_record_was_compacted_away_ends_with_the_next_one() {
        let mut tail = Tail::new("r", 0, 0);
        let complete = tail.push(&batch(vec![
            record(0, r#"{"a":1}"#, Some(json!({"a": 1})), 7, false),
            record(5, r#"{"a":2}"#, None, 9, false),
        ]));
        assert_eq!(shape(&complete).len(), 1);
        assert_eq!(shape(tail.flush().as_slice()), [(9, 6, 1)]);
    }

    #[test]
    fn what_was_read_before_is_collected_and_not_passed_on() {
        let mut tail = Tail::new("r", 2, 3);
        let passed = tail.push(&batch(vec![
            record(0, r#"{"b":2,"a":1}"#, Some(json!({"a": 1})), 7, true),
            record(2, r#"{"a":1,"b":3}"#, Some(json!({"a": 2})), 8, true),
        ]));
        assert_eq!(shape(&passed), [(8, 3, 1)]);
        assert!(tail.has_reached_end());
        let rows = tail.finish_start().expect("was starting");
        let mut keys: Vec<&str> = rows.keys().map(|k| &**k).collect();
        keys.sort_unstable();
        assert_eq!(keys, [r#"{"a":1,"b":2}"#, r#"{"a":1,"b":3}"#]);
    }

    #[test]
    fn a_topic_made_anew_is_read_from_its_start() {
        let mut tail = Tail::new("r", 100, 1);
        let passed = tail.push(&batch(vec![record(0, r#"{"a":1}"#, Some(json!({"a": 1})), 1, true)]));
        assert_eq!(shape(&passed), [(1, 1, 1)]);
    }

    #[test]
    fn unreadable_records_are_skipped_and_foreign_records_are_epochs_of_their_own() {
        let mut tail = Tail::new("r", 0, 0);
        let mut no_key = record(0, "{}", None, 1, true);
        no_key.key = None;
        let mut foreign = record(2, r#"{"a":1}"#, Some(json!({"a": 1})), 1, false);
        foreign.headers.clear();
        let list = record(1, "[1]", Some(json!({})), 1, true);
        assert_eq!(shape(&tail.push(&batch(vec![no_key, list, foreign]))), [(2, 3, 1)]);
    }
}
