//! Checkpoints are written behind the engine: it goes on while one is on its way, and waits only when what has
//! gathered for the next one exceeds a bound.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use model::{Offsets, TableDelta, TableWatermark};
use tokio::sync::{mpsc, watch};

use super::{Checkpoint, Packed, Restored, StateError, StateStore, StoredTables};
use crate::engine::Engine;
use crate::error::Error;
use crate::fingerprint::Fingerprint;

/// What the engine hands over: all that changed since the last checkpoint.
#[derive(Debug)]
pub(crate) struct CheckpointData {
    pub(crate) epoch: u64,
    pub(crate) as_of_us: i64,
    pub(crate) offsets: Offsets,
    pub(crate) watermarks: Vec<TableWatermark>,
    pub(crate) views: BTreeMap<String, Fingerprint>,
    pub(crate) operators: BTreeSet<Fingerprint>,
    pub(crate) rows: BTreeSet<Fingerprint>,
    /// Changes of source tables, in order.
    pub(crate) tables: Vec<TableDelta>,
    /// Changes of operators' and views' own entries.
    pub(crate) changes: Vec<Packed>,
}

/// Turns what the engine hands over into checkpoints of the store.
#[derive(Debug)]
pub struct Saver {
    store: StateStore,
    tables: StoredTables,
}

impl Saver {
    /// Makes the engine remember what changes. To be called before the engine's first step and before
    /// [`Engine::restore`]; `restored` is what will be restored.
    ///
    /// # Errors
    /// [`Error::State`] if a table has a column type that cannot be stored.
    pub fn new(store: StateStore, engine: &mut Engine, restored: Option<&Restored>) -> Result<Self, Error> {
        let known = restored.map(|r| r.checkpoint.tables.clone()).unwrap_or_default();
        let tables = StoredTables::new(&engine.program().tables, &known).map_err(|e| store.damaged(e.to_string()))?;
        engine.track();
        Ok(Self { store, tables })
    }

    /// Stores the engine's state as it stands; durable when it returns.
    ///
    /// # Errors
    /// [`Error::State`] if it cannot be written, [`Error::Compute`] if it cannot be encoded.
    pub async fn save(&self, engine: &mut Engine) -> Result<(), Error> {
        if let Some(data) = engine.take_checkpoint()? {
            self.write(data, BTreeMap::new()).await?;
        }
        Ok(())
    }

    /// Writes out what is still in memory and lets go of the store.
    ///
    /// # Errors
    /// If the object store refuses.
    pub async fn close(self) -> Result<(), StateError> {
        self.store.close().await
    }

    async fn write(&self, data: CheckpointData, topic_ends: BTreeMap<String, i64>) -> Result<usize, StateError> {
        let mut changes = data.changes;
        changes.extend(self.tables.encode(&data.tables).map_err(|e| self.store.damaged(e.to_string()))?);
        let n_entries = changes.iter().map(|packed| packed.n_entries).sum();
        let checkpoint = Checkpoint {
            epoch: data.epoch,
            as_of_us: data.as_of_us,
            offsets: data.offsets,
            watermarks: data.watermarks,
            tables: self.tables.stored(),
            views: data.views,
            operators: data.operators,
            rows: data.rows,
            topic_ends,
            written_at_ms: chrono::Utc::now().timestamp_millis(),
        };
        self.store.commit(&checkpoint, changes).await?;
        self.store.merge_in_background();
        Ok(n_entries)
    }

    /// Writes every checkpoint that comes until the sender is gone, then closes the store. `busy` is cleared when a
    /// checkpoint is durable. In between it shows again and again, through `lease`, that the state is still ours.
    pub(crate) async fn run(
        self,
        mut checkpoints: mpsc::Receiver<(CheckpointData, BTreeMap<String, i64>)>,
        busy: Arc<AtomicBool>,
        lease: watch::Sender<Instant>,
    ) -> Result<(), Error> {
        loop {
            let next = tokio::time::timeout(LEASE_RENEWAL, checkpoints.recv()).await;
            let started = Instant::now();
            match next {
                Err(_) => self.store.renew_lease().await?,
                Ok(None) => return Ok(self.store.close().await?),
                Ok(Some((data, topic_ends))) => {
                    let epoch = data.epoch;
                    let n_entries = self.write(data, topic_ends).await?;
                    busy.store(false, Ordering::Release);
                    metrics::histogram!("pipelines_checkpoint_seconds").record(started.elapsed().as_secs_f64());
                    metrics::counter!("pipelines_checkpoint_entries_total").increment(n_entries as u64);
                    metrics::gauge!("pipelines_checkpoint_epoch").set(epoch as f64);
                }
            }
            // From before the write: only what was ours then is certain.
            lease.send_replace(started);
        }
    }
}

/// How often an idle engine shows that the state is its own.
const LEASE_RENEWAL: Duration = Duration::from_millis(500);
/// An engine that could not show it for so long publishes nothing until it can. A standby waits longer than this
/// before it takes over, so two engines never write to the view topics at once.
const LEASE: Duration = Duration::from_secs(3);

/// The right to publish.
#[derive(Debug)]
pub(crate) struct Lease(pub(crate) watch::Receiver<Instant>);

impl Lease {
    /// Waits until the lease holds; false if the state has been lost for good.
    pub(crate) async fn holds(&mut self) -> bool {
        let mut is_waiting = false;
        loop {
            if self.0.borrow_and_update().elapsed() < LEASE {
                return true;
            }
            if !std::mem::replace(&mut is_waiting, true) {
                tracing::warn!("the state cannot be reached; results wait until it is certain that it is still ours");
                metrics::counter!("pipelines_lease_waits_total").increment(1);
            }
            if self.0.changed().await.is_err() {
                return false;
            }
        }
    }
}
