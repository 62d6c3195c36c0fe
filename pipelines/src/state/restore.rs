//! From the store back to a running engine.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use model::{Offsets, SourceState, SourceTable, TopicSelector};

use super::store::{operator_prefix, table_is_stored, table_prefix, view_prefix};
use super::{Checkpoint, StateError, StateStore, StoredTables};
use crate::fingerprint::Fingerprint;
use crate::program::Program;

/// Entries of an operator or view.
pub(crate) type Entries = Vec<(Bytes, Bytes)>;

/// What a program takes over from stored state.
#[derive(Default)]
pub struct Restored {
    /// Where the sources are read on, with the tables' rows.
    pub source: SourceState,
    pub(crate) checkpoint: Checkpoint,
    /// Entries by operator; an operator that is missing starts empty, and its inputs are read from the beginning.
    pub(crate) operators: HashMap<Fingerprint, Entries>,
    /// Entries by rows of a view.
    pub(crate) views: HashMap<Fingerprint, Entries>,
}

impl std::fmt::Debug for Restored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Restored").field("checkpoint", &self.checkpoint).finish_non_exhaustive()
    }
}

impl Restored {
    /// Business time of the stored state, microseconds since 1970.
    pub fn as_of_us(&self) -> i64 {
        self.checkpoint.as_of_us
    }

    /// End of each view's topic as the stored state knows it; only of views that still mean the same.
    pub(crate) fn topic_ends(&self, program: &Program) -> BTreeMap<String, i64> {
        let now = program.view_fingerprints();
        let is_same = |name: &String| now.get(name).is_some_and(|f| self.checkpoint.views.get(name) == Some(f));
        let views = program.views.iter().filter(|v| is_same(&v.info.name));
        views.filter_map(|v| Some((v.info.topic.clone(), *self.checkpoint.topic_ends.get(&v.info.topic)?))).collect()
    }
}

impl StateStore {
    /// Reads what the program can use of the stored state, and removes the rest. `None` if nothing is stored.
    ///
    /// Tables whose declaration changed, and append-only tables that feed a query which is new or changed, are read
    /// again from the beginning of their topics.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn restore(&self, program: &Program) -> Result<Option<Restored>, StateError> {
        let Some(mut checkpoint) = self.checkpoint().await? else { return Ok(None) };
        let tables = StoredTables::new(&program.tables, &checkpoint.tables);
        let tables = tables.map_err(|e| self.damaged(e.to_string()))?;
        let stored: BTreeSet<Fingerprint> = checkpoint.operators.iter().copied().collect();
        let is_new = |t: &&SourceTable| !table_is_stored(&checkpoint, t);
        let new_tables = program.tables.iter().filter(is_new).map(|t| Arc::clone(&t.name)).collect();
        let takeover = program.takeover(&stored, new_tables);
        // What is read again is not late.
        checkpoint.watermarks.retain(|w| !takeover.again.contains(&w.table));
        for table in program.tables.iter().filter(|t| takeover.again.contains(&t.name)) {
            tracing::info!(table = %table.name, "its topics are read from their beginning");
            forget(&mut checkpoint.offsets, &table.topic);
        }
        let mut restored = Restored::default();
        for fingerprint in takeover.operators {
            restored.operators.insert(fingerprint, self.entries(&operator_prefix(fingerprint)).await?);
            restored.views.insert(fingerprint, self.entries(&view_prefix(fingerprint)).await?);
        }
        restored.source.tables = tables.read(self, &checkpoint.tables).await?;
        restored.source.offsets = checkpoint.offsets.clone();
        restored.source.watermarks = checkpoint.watermarks.clone();
        // First the record, then the entries: what it names is always there in whole.
        let leftovers = leftovers(&checkpoint, &tables, &restored);
        let known = tables.stored();
        checkpoint.tables.retain(|name, table| known.get(name) == Some(table));
        checkpoint.operators.retain(|f| restored.operators.contains_key(f));
        self.commit(&checkpoint, Vec::new()).await?;
        self.remove(&leftovers).await?;
        restored.checkpoint = checkpoint;
        Ok(Some(restored))
    }

    async fn entries(&self, prefix: &[u8]) -> Result<Entries, StateError> {
        let mut entries = Entries::new();
        self.scan(prefix, |key, value| {
            entries.push((key, value));
            Ok(())
        })
        .await?;
        Ok(entries)
    }
}

/// Prefixes of stored tables and operators that the program does not use.
fn leftovers(checkpoint: &Checkpoint, tables: &StoredTables, restored: &Restored) -> Vec<Vec<u8>> {
    let used: BTreeMap<_, _> = tables.stored();
    let old_tables = checkpoint.tables.iter().filter(|(name, t)| used.get(*name) != Some(t));
    let old_operators = checkpoint.operators.iter().filter(|f| !restored.operators.contains_key(f));
    old_tables
        .map(|(_, t)| table_prefix(t.id))
        .chain(old_operators.flat_map(|f| [operator_prefix(*f), view_prefix(*f)]))
        .collect()
}

fn forget(offsets: &mut Offsets, topics: &TopicSelector) {
    match topics {
        TopicSelector::Name(name) => {
            offsets.0.remove(name);
        }
        TopicSelector::Pattern(pattern) => match regex::Regex::new(&format!("^(?:{pattern})$")) {
            Ok(regex) => offsets.0.retain(|topic, _| !regex.is_match(topic)),
            // The reader refuses such a pattern with its place.
            Err(error) => tracing::debug!(%error, "pattern of a topic"),
        },
    }
}
