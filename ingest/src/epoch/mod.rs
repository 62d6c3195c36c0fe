//! From topics to epochs: [`Ingest`] reads the source topics from their earliest records, decodes them, keeps the
//! tables' rows and hands out what changed, epoch by epoch.
//!
//! Reading and decoding go on in the background while the engine works: up to [`EPOCHS_QUEUED_MAX`] epochs wait for
//! it, then reading waits. Epochs are small when the engine keeps up (a change is seen within milliseconds) and grow
//! when it does not.

mod dead_letter;
mod lag;
mod route;
mod task;
mod transactions;
mod watermark;
mod worker;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::row::{RowConverter, SortField};
use model::clock::SystemClock;
use model::{
    Clock, EpochSource, Log, LogError, Offsets, SourceEpoch, SourceState, SourceTable, TableDelta, TableWatermark,
};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::Error;
use crate::decode::Changes;
use crate::table::Table;
use route::Routes;
use worker::Worker;

/// Epochs that wait for the engine; reading stops at this many.
const EPOCHS_QUEUED_MAX: usize = 2;

/// How epochs are cut and what is believed.
#[derive(Debug, Clone)]
pub struct IngestOptions {
    /// An epoch ends at so many records.
    pub epoch_records_max: usize,
    /// An epoch ends so long after its first record when the engine is waiting for it.
    pub epoch_idle: Duration,
    /// An epoch ends so long after its first record in any case.
    pub epoch_duration_max: Duration,
    /// An epoch is held open so much longer for source transactions that have arrived only in part.
    pub transaction_wait_max: Duration,
    /// Records whose key and value are longer together go to the dead-letter topic.
    pub record_bytes_max: usize,
    /// Event times further ahead of the clock than this are kept in their rows, but do not move time.
    pub event_time_ahead_max: Duration,
    /// A partition that is read to its end and has sent nothing for so long does not hold its tables' watermarks; zero
    /// waits for ever.
    pub idle_timeout: Duration,
    /// Where the watermarks stood when reading was last stopped, as [`SourceEpoch::watermarks`] last said.
    pub watermarks: Vec<TableWatermark>,
    /// What "now" is for `event_time_ahead_max`.
    pub clock: Arc<dyn Clock>,
    /// What CURRENT_TIMESTAMP says: rows that are older than the `ttl` of their table leave by it.
    pub business_clock: Arc<dyn Clock>,
}

impl Default for IngestOptions {
    fn default() -> Self {
        Self {
            epoch_records_max: 32_768,
            epoch_idle: Duration::from_millis(5),
            epoch_duration_max: Duration::from_millis(50),
            transaction_wait_max: Duration::from_millis(200),
            record_bytes_max: 8 * 1024 * 1024,
            event_time_ahead_max: Duration::from_secs(24 * 60 * 60),
            idle_timeout: Duration::from_secs(60),
            watermarks: Vec::new(),
            clock: Arc::new(SystemClock),
            business_clock: Arc::new(SystemClock),
        }
    }
}

/// Rows of all tables as the background task has them, and the epochs the engine has not seen yet.
#[derive(Debug)]
struct Tables {
    states: Vec<Table>,
    undelivered: VecDeque<Vec<TableDelta>>,
}

/// State that the background task and the reader of epochs share.
#[derive(Debug)]
struct Shared {
    tables: Mutex<Tables>,
    dead_letters: AtomicU64,
    ends: Mutex<Option<lag::Ends>>,
}

impl Shared {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Source tables as a stream of epochs.
#[derive(Debug)]
pub struct Ingest {
    tables: Vec<SourceTable>,
    shared: Arc<Shared>,
    epochs: mpsc::Receiver<Result<SourceEpoch, Error>>,
    delivered: Offsets,
    business_clock: Arc<dyn Clock>,
    _reading: AbortOnDropHandle<()>,
    _measuring: AbortOnDropHandle<()>,
}

impl Ingest {
    /// Starts to read the tables' topics from their earliest records. Topics may appear later.
    ///
    /// # Errors
    /// If the log refuses to be read, or a topic pattern is no regular expression.
    pub async fn open(log: Arc<dyn Log>, tables: Vec<SourceTable>, options: IngestOptions) -> Result<Self, Error> {
        Self::resume(log, tables, options, &SourceState::default()).await
    }

    /// Goes on reading where a checkpoint stands.
    ///
    /// # Errors
    /// As [`Ingest::open`]; also if rows of the checkpoint do not fit their table.
    pub async fn resume(
        log: Arc<dyn Log>,
        tables: Vec<SourceTable>,
        options: IngestOptions,
        from: &SourceState,
    ) -> Result<Self, Error> {
        let routes = Routes::new(&tables)?;
        let mut states: Vec<Table> = tables.iter().map(Table::new).collect();
        for part in &from.tables {
            let Some(index) = tables.iter().position(|t| t.name == part.table) else { continue };
            states[index]
                .seed(&part.rows, &part.positions)
                .map_err(|source| Error::Batch { table: Arc::clone(&part.table), source })?;
        }
        let reader = log.read(routes.selectors(), &from.offsets).await?;
        let mut options = options;
        if !from.watermarks.is_empty() {
            options.watermarks.clone_from(&from.watermarks);
        }
        let shared = Arc::new(Shared {
            tables: Mutex::new(Tables { states, undelivered: VecDeque::new() }),
            dead_letters: AtomicU64::new(0),
            ends: Mutex::new(None),
        });
        let (sender, epochs) = mpsc::channel(EPOCHS_QUEUED_MAX);
        let business_clock = Arc::clone(&options.business_clock);
        let mut worker = Worker::new(&tables, routes.clone(), &options, Arc::clone(&shared));
        if worker.wants_watermarks() {
            match lag::look_up(log.as_ref(), &mut routes.clone()).await {
                Ok(ends) => worker.expect(&ends, &from.offsets),
                Err(LogError::Unavailable { reason }) => tracing::warn!(reason, "unread partitions are not known"),
                Err(error) => return Err(error.into()),
            }
        }
        let reading = tokio::spawn(task::run(reader, Arc::clone(&log), worker, options, sender));
        let measuring = tokio::spawn(lag::run(log, routes, Arc::clone(&shared)));
        Ok(Self {
            tables,
            shared,
            epochs,
            delivered: from.offsets.clone(),
            business_clock,
            _reading: AbortOnDropHandle::new(reading),
            _measuring: AbortOnDropHandle::new(measuring),
        })
    }

    /// An epoch of the rows that are too old by the business time as it is now; all epochs before it must have been
    /// taken.
    ///
    /// # Errors
    /// If a column's texts are too long together for one array.
    pub fn expire(&mut self) -> Result<SourceEpoch, Error> {
        let now_us = self.business_clock.now_us();
        let mut epoch = SourceEpoch::default();
        let mut tables = self.shared.tables();
        for (table, state) in self.tables.iter().zip(&mut tables.states) {
            if state.set_now(now_us) {
                let applied = state
                    .apply(&mut Changes::new(&table.schema), i64::MAX)
                    .map_err(|source| Error::Batch { table: Arc::clone(&table.name), source })?;
                let (table, positions) = (Arc::clone(&table.name), applied.positions);
                epoch.tables.push(TableDelta { table, delta: applied.delta, positions });
            }
        }
        Ok(epoch)
    }

    /// The tables that are read.
    pub fn tables(&self) -> &[SourceTable] {
        &self.tables
    }
}

#[async_trait::async_trait]
impl EpochSource for Ingest {
    async fn next_epoch(
        &mut self,
        wait: Duration,
    ) -> Result<Option<SourceEpoch>, Box<dyn std::error::Error + Send + Sync>> {
        match tokio::time::timeout(wait, self.epochs.recv()).await {
            Err(_) => Ok(None),
            Ok(None) => Err(Error::Stopped.into()),
            Ok(Some(Err(error))) => Err(error.into()),
            Ok(Some(Ok(epoch))) => {
                self.shared.tables().undelivered.pop_front();
                self.delivered.merge(&epoch.offsets);
                Ok(Some(epoch))
            }
        }
    }

    fn lag_records(&self) -> Option<u64> {
        let ends = self.shared.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.as_ref().map(|ends| lag::records_behind(ends, &self.delivered))
    }

    fn dead_letters(&self) -> u64 {
        self.shared.dead_letters.load(Ordering::Relaxed)
    }

    fn table_rows(&self, table: &str) -> Option<RecordBatch> {
        let index = self.tables.iter().position(|t| &*t.name == table)?;
        let tables = self.shared.tables();
        let rows = tables.states[index].rows()?;
        let ahead: Vec<TableDelta> =
            tables.undelivered.iter().flatten().filter(|d| &*d.table == table).cloned().collect();
        drop(tables);
        match rows.and_then(|rows| without(rows, &ahead)) {
            Ok(rows) => Some(rows),
            Err(error) => {
                tracing::error!(table, %error, "rows of the table do not fit one batch");
                None
            }
        }
    }
}

/// The rows as they were before these deltas.
fn without(rows: RecordBatch, deltas: &[TableDelta]) -> Result<RecordBatch, arrow::error::ArrowError> {
    if deltas.iter().all(|d| d.delta.is_empty()) {
        return Ok(rows);
    }
    let schema = rows.schema();
    let mut weights = vec![1_i64; rows.num_rows()];
    let mut batches = vec![rows];
    for delta in deltas {
        weights.extend(delta.delta.weights.values().iter().map(|w| -w));
        batches.push(delta.delta.rows.clone());
    }
    let all = concat_batches(&schema, &batches)?;
    let fields = schema.fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
    let encoded = RowConverter::new(fields)?.convert_columns(all.columns())?;
    // Rows are unique by key, so a row's weights sum to 0 or 1.
    let mut sums: hashbrown::HashMap<arrow::row::Row<'_>, (i64, usize)> = hashbrown::HashMap::new();
    for (i, row) in encoded.iter().enumerate() {
        let sum = sums.entry(row).or_insert((0, i));
        sum.0 += weights[i];
    }
    let mut kept: Vec<i64> = sums.values().filter(|(sum, _)| *sum > 0).map(|(_, i)| *i as i64).collect();
    kept.sort_unstable();
    let indices: ArrayRef = Arc::new(Int64Array::from(kept));
    take_record_batch(&all, &indices.slice(0, indices.len()))
}
