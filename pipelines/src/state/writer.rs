//! Checkpoints are written behind the engine: it goes on while one is on its way, and waits only when what has
//! gathered for the next one exceeds a bound.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use model::{Offsets, TableDelta, TableWatermark};
use tokio::sync::mpsc;

use super::store::StoredTable;
use super::{Checkpoint, StateChange, StateError, StateStore, StoredTables};
use crate::error::Error;
use crate::fingerprint::Fingerprint;
use crate::program::Program;

/// What the engine hands over: all that changed since the last checkpoint.
#[derive(Debug)]
pub(crate) struct CheckpointData {
    pub(crate) epoch: u64,
    pub(crate) as_of_us: i64,
    pub(crate) offsets: Offsets,
    pub(crate) watermarks: Vec<TableWatermark>,
    pub(crate) views: BTreeMap<String, Fingerprint>,
    pub(crate) operators: Vec<Fingerprint>,
    /// Changes of source tables, in order.
    pub(crate) tables: Vec<TableDelta>,
    /// Changes of operators' and views' own entries.
    pub(crate) changes: Vec<StateChange>,
}

/// Writes checkpoints one after the other.
#[derive(Debug)]
pub(crate) struct StateTask {
    store: StateStore,
    tables: StoredTables,
    /// Cleared when a checkpoint is durable.
    busy: Arc<AtomicBool>,
}

impl StateTask {
    /// `known` are the tables that are in the store already.
    pub(crate) fn new(
        store: StateStore,
        program: &Program,
        known: &BTreeMap<String, StoredTable>,
        busy: Arc<AtomicBool>,
    ) -> Result<Self, StateError> {
        let tables = StoredTables::new(&program.tables, known).map_err(|e| store.damaged(e.to_string()))?;
        Ok(Self { store, tables, busy })
    }

    /// Writes every checkpoint that comes until the sender is gone.
    pub(crate) async fn run(
        self,
        mut checkpoints: mpsc::Receiver<(CheckpointData, BTreeMap<String, i64>)>,
    ) -> Result<(), Error> {
        while let Some((data, topic_ends)) = checkpoints.recv().await {
            let started = Instant::now();
            let epoch = data.epoch;
            let n_entries = self.write(data, topic_ends).await?;
            self.busy.store(false, Ordering::Release);
            metrics::histogram!("pipelines_checkpoint_seconds").record(started.elapsed().as_secs_f64());
            metrics::counter!("pipelines_checkpoint_entries_total").increment(n_entries as u64);
            metrics::gauge!("pipelines_checkpoint_epoch").set(epoch as f64);
        }
        Ok(())
    }

    async fn write(&self, data: CheckpointData, topic_ends: BTreeMap<String, i64>) -> Result<usize, StateError> {
        let mut changes = data.changes;
        for change in &data.tables {
            self.tables.encode(change, &mut changes).map_err(|e| self.store.damaged(e.to_string()))?;
        }
        let n_entries = changes.len();
        let checkpoint = Checkpoint {
            epoch: data.epoch,
            as_of_us: data.as_of_us,
            offsets: data.offsets,
            watermarks: data.watermarks,
            tables: self.tables.stored(),
            views: data.views,
            operators: data.operators,
            topic_ends,
            written_at_ms: chrono::Utc::now().timestamp_millis(),
        };
        self.store.commit(&checkpoint, changes).await?;
        Ok(n_entries)
    }
}
