//! From the store back to a running engine.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use datafusion::error::DataFusionError;
use model::SourceState;

use super::store::{operator_prefix, table_prefix, view_prefix};
use super::{Checkpoint, StateError, StateStore, StoredTables};
use crate::error::OpResult;
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
    /// Entries by view.
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
        let takeover = program.takeover(&checkpoint);
        if !takeover.again.is_empty() {
            tracing::info!(tables = ?takeover.again, "topics are read from their beginning");
        }
        let damaged = |e: DataFusionError| self.damaged(e.to_string());
        let tables = StoredTables::new(&program.tables, &checkpoint.tables).map_err(damaged)?;
        let mut restored = Restored::default();
        restored.source.tables = tables.read(self, &checkpoint.tables).await?;
        for fingerprint in &takeover.operators {
            restored.operators.insert(*fingerprint, self.entries(&operator_prefix(*fingerprint)).await?);
        }
        for fingerprint in &takeover.rows {
            restored.views.insert(*fingerprint, self.entries(&view_prefix(*fingerprint)).await?);
        }
        let before = checkpoint.clone();
        checkpoint.offsets.0.retain(|topic, _| !takeover.topics.contains(topic));
        // What is read again is not late.
        checkpoint.watermarks.retain(|w| !takeover.again.contains(&w.table));
        let known = tables.stored();
        checkpoint.tables.retain(|name, table| known.get(name) == Some(table));
        checkpoint.operators = takeover.operators;
        checkpoint.rows = takeover.rows;
        // First the record, then the entries: what the record names is always there in whole.
        self.commit(&checkpoint, Vec::new()).await?;
        let leftovers = leftovers(&before, &checkpoint, program).map_err(damaged)?;
        self.remove(&leftovers).await?;
        restored.source.offsets = checkpoint.offsets.clone();
        restored.source.watermarks.clone_from(&checkpoint.watermarks);
        restored.checkpoint = checkpoint;
        Ok(Some(restored))
    }

    async fn entries(&self, prefix: &[u8]) -> Result<Entries, StateError> {
        let mut entries = Entries::new();
        self.each_entry(prefix, |key, value| {
            entries.push((key, value));
            Ok(())
        })
        .await?;
        Ok(entries)
    }
}

/// Prefixes of all that may be stored and is not used: what the program has no more, and what it has and builds anew.
/// The latter may be there from a removal that a crash cut off.
fn leftovers(before: &Checkpoint, now: &Checkpoint, program: &Program) -> OpResult<Vec<Vec<u8>>> {
    let tables = StoredTables::new(&program.tables, &now.tables)?.stored();
    let tables = before.tables.iter().chain(&tables).filter(|(name, table)| now.tables.get(*name) != Some(table));
    let lineage = &program.lineage;
    let own = (0..program.graph.nodes.len()).filter(|id| lineage.own_state(*id));
    let operators = own.map(|id| lineage.fingerprint(id)).chain(before.operators.iter().copied());
    let operators: BTreeSet<_> = operators.filter(|f| !now.operators.contains(f)).collect();
    let views = program.views.iter().filter(|v| lineage.own_state(v.root)).map(|v| v.fingerprint(lineage));
    let views = views.chain(before.rows.iter().copied());
    let views: BTreeSet<_> = views.filter(|f| !now.rows.contains(f)).collect();
    let tables = tables.map(|(_, table)| table_prefix(table.id));
    Ok(tables.chain(operators.into_iter().map(operator_prefix)).chain(views.into_iter().map(view_prefix)).collect())
}
