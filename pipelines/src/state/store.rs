//! The store: an LSM tree on an object store (a folder, S3, …), one atomic batch per checkpoint.
//!
//! | key | value |
//! |---|---|
//! | `0 "format"` | version of this layout, u32 big-endian |
//! | `0 "checkpoint"` | [`Checkpoint`] as JSON |
//! | `0 "lease"` | when the engine last showed that the state is its own, milliseconds since 1970, i64 big-endian |
//! | `0 "runs"` space | where the entries of the space are (`runs`), JSON |
//! | space, number of a run (u64), part (u32) | a segment of entries (`packed`) |
//!
//! A space is one of these, and its entries are:
//!
//! | space | key | value |
//! |---|---|---|
//! | `1` table id | primary key | source position (i64 big-endian), row |
//! | `2` node fingerprint | the operator's own | the operator's own |
//! | `3` view fingerprint | key | its rows with their weights |
//!
//! Keys and rows of entries are in Arrow's row format. Opening the store fences every earlier opener: its next write fails, so
//! two engines can never mix their states.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use model::{Offsets, SourceTable, TableWatermark};
use serde::{Deserialize, Serialize};
use slatedb::config::{CompactionWorkerOptions, CompactorOptions, DbReaderOptions, ScanOptions, Settings};
use slatedb::object_store::ObjectStore;
use slatedb::object_store::local::LocalFileSystem;
use slatedb::{CloseReason, Db, DbReader, DbReaderMode, ErrorKind, WriteBatch};
use tokio::sync::Mutex;

use super::runs::KnownRuns;
use crate::fingerprint::Fingerprint;

/// Version of the layout and of the row format in it. A store of another version is refused.
pub(crate) const FORMAT_VERSION: u32 = 3;

/// A memtable of this size is written out; also the size of the store's cache in memory.
const MEMTABLE_BYTES: usize = 16 << 20;
/// Writes wait when more than this has not reached the object store yet.
const UNFLUSHED_BYTES_MAX: usize = 128 << 20;
/// How soon a checkpoint that was handed over is durable.
const FLUSH_INTERVAL: Duration = Duration::from_millis(50);
/// How long a place may take to answer at all before it counts as not there.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How much a scan reads ahead, and in how many parallel requests.
const SCAN_AHEAD: (usize, usize) = (4 << 20, 4);

const FORMAT_KEY: &[u8] = b"\x00format";
const CHECKPOINT_KEY: &[u8] = b"\x00checkpoint";
const LEASE_KEY: &[u8] = b"\x00lease";
const TABLES: u8 = 1;
const OPERATORS: u8 = 2;
const VIEWS: u8 = 3;

/// What can go wrong with stored state.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The place is no folder that can be made or object store that can be reached.
    #[error("state at {place} cannot be opened; check that the place exists and may be written")]
    Open {
        /// Folder or URL.
        place: String,
        /// What failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another version of Andon wrote it.
    #[error(
        "state at {place} has format {found}, this version of Andon reads {FORMAT_VERSION}; start with an empty \
         place to rebuild it from the topics, or run the version that wrote it"
    )]
    Format {
        /// Folder or URL.
        place: String,
        /// Version found.
        found: u32,
    },
    /// Another engine has opened the same state since.
    #[error("another engine took over the state at {place}; this one must stop")]
    Fenced {
        /// Folder or URL.
        place: String,
    },
    /// Reading or writing failed.
    #[error("state at {place} cannot be read or written")]
    Store {
        /// Folder or URL.
        place: String,
        /// What failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What is stored makes no sense.
    #[error("state at {place} is damaged: {what}; start with an empty place to rebuild it from the topics")]
    Damaged {
        /// Folder or URL.
        place: String,
        /// What is wrong.
        what: String,
    },
}

/// A source table in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredTable {
    pub(crate) id: u32,
    pub(crate) fingerprint: Fingerprint,
}

/// Where a stored state stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    /// Epoch of the engine.
    pub(crate) epoch: u64,
    /// Business time of the epoch, microseconds since 1970.
    pub(crate) as_of_us: i64,
    /// Next offset to read per source partition.
    pub(crate) offsets: Offsets,
    /// How far event time has come.
    pub(crate) watermarks: Vec<TableWatermark>,
    /// Tables by name.
    pub(crate) tables: BTreeMap<String, StoredTable>,
    /// Views by name, with what their query means.
    pub(crate) views: BTreeMap<String, Fingerprint>,
    /// Operators that keep state of their own. One that has failed is left out: it starts anew.
    pub(crate) operators: BTreeSet<Fingerprint>,
    /// Views over such operators, whose rows are stored.
    pub(crate) rows: BTreeSet<Fingerprint>,
    /// End of each output topic after this epoch; a topic that is missing was not in line with it.
    pub(crate) topic_ends: BTreeMap<String, i64>,
    /// When it was written, milliseconds since 1970.
    pub(crate) written_at_ms: i64,
}

/// State of one engine that outlives its process.
#[derive(Clone)]
pub struct StateStore {
    db: Arc<Db>,
    place: Arc<str>,
    /// Locked while a checkpoint is written, so a list of runs is never changed by two at once.
    pub(super) runs: Arc<Mutex<KnownRuns>>,
    /// Held by the task that merges runs.
    pub(super) merging: Arc<Mutex<()>>,
    is_closing: Arc<AtomicBool>,
}

impl std::fmt::Debug for StateStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateStore").field("place", &self.place).finish_non_exhaustive()
    }
}

impl StateStore {
    /// Opens or creates the state at a folder or at a URL such as `s3://bucket/path`, and fences every earlier opener.
    /// Credentials of object stores come from the usual environment variables (`AWS_ACCESS_KEY_ID`, …).
    ///
    /// # Errors
    /// If the place cannot be used, or holds state of another version.
    pub async fn open(place: &str) -> Result<Self, StateError> {
        let failed =
            |source: Box<dyn std::error::Error + Send + Sync>| StateError::Open { place: place.to_owned(), source };
        let (objects, path) = object_store(place).map_err(failed)?;
        answers(&*objects, &path).await.map_err(failed)?;
        let worker = CompactionWorkerOptions { min_filter_keys: u32::MAX, ..CompactionWorkerOptions::default() };
        let settings = Settings {
            flush_interval: Some(FLUSH_INTERVAL),
            l0_sst_size_bytes: MEMTABLE_BYTES,
            max_unflushed_bytes: UNFLUSHED_BYTES_MAX,
            // Filters serve reads of single keys, and there are none but of the few entries in front.
            min_filter_keys: u32::MAX,
            compactor_options: Some(CompactorOptions { worker: Some(worker), ..CompactorOptions::default() }),
            ..Settings::default()
        };
        let db = Db::builder(path, objects).with_settings(settings).with_db_cache_disabled().build().await;
        let db = db.map_err(|e| failed(Box::new(e)))?;
        let store = Self {
            db: Arc::new(db),
            place: Arc::from(place),
            runs: Arc::default(),
            merging: Arc::default(),
            is_closing: Arc::default(),
        };
        match store.get(FORMAT_KEY).await? {
            None => {
                let mut batch = WriteBatch::new();
                batch.put(FORMAT_KEY, FORMAT_VERSION.to_be_bytes());
                store.write(batch).await?;
            }
            Some(bytes) => {
                let found = bytes.as_ref().try_into().map(u32::from_be_bytes).unwrap_or(0);
                if found != FORMAT_VERSION {
                    store.close().await?;
                    return Err(StateError::Format { place: place.to_owned(), found });
                }
            }
        }
        Ok(store)
    }

    /// Folder or URL.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Writes out what is still in memory and lets go of the place.
    ///
    /// # Errors
    /// If the object store refuses.
    pub async fn close(&self) -> Result<(), StateError> {
        self.is_closing.store(true, Ordering::Release);
        let _merged = self.merging.lock().await;
        self.db.close().await.map_err(|e| self.failed(e))
    }

    pub(super) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }

    fn failed(&self, error: slatedb::Error) -> StateError {
        let place = self.place.to_string();
        match error.kind() {
            ErrorKind::Closed(CloseReason::Fenced) => StateError::Fenced { place },
            _ => StateError::Store { place, source: Box::new(error) },
        }
    }

    pub(crate) fn damaged(&self, what: impl Into<String>) -> StateError {
        StateError::Damaged { place: self.place.to_string(), what: what.into() }
    }

    pub(super) async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        self.db.get(key).await.map_err(|e| self.failed(e))
    }

    pub(super) async fn write(&self, batch: WriteBatch) -> Result<(), StateError> {
        if batch.is_empty() {
            return Ok(());
        }
        let written = self.db.write(batch).await.map_err(|e| self.failed(e))?;
        written.await_durable().await.map_err(|e| self.failed(e))
    }

    /// The checkpoint that the state stands at; `None` in a new place.
    pub(crate) async fn checkpoint(&self) -> Result<Option<Checkpoint>, StateError> {
        let Some(bytes) = self.get(CHECKPOINT_KEY).await? else { return Ok(None) };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| self.damaged(format!("its checkpoint cannot be read ({e})")))
    }

    /// Shows that no other engine has opened the state since.
    pub(crate) async fn renew_lease(&self) -> Result<(), StateError> {
        let mut batch = WriteBatch::new();
        batch.put(LEASE_KEY, chrono::Utc::now().timestamp_millis().to_be_bytes());
        self.write(batch).await
    }

    pub(super) fn put_checkpoint(&self, batch: &mut WriteBatch, checkpoint: &Checkpoint) -> Result<(), StateError> {
        let json = serde_json::to_vec(checkpoint).map_err(|e| self.damaged(e.to_string()))?;
        batch.put(CHECKPOINT_KEY, json);
        Ok(())
    }

    /// Calls `each` with every key, without its prefix, and value.
    pub(crate) async fn scan(
        &self,
        prefix: &[u8],
        mut each: impl FnMut(Bytes, Bytes) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        let (read_ahead_bytes, max_fetch_tasks) = SCAN_AHEAD;
        let options = ScanOptions { read_ahead_bytes, max_fetch_tasks, ..ScanOptions::default() };
        let scan = self.db.scan_prefix_with_options(prefix, .., &options).await;
        let mut entries = scan.map_err(|e| self.failed(e))?;
        while let Some(entry) = entries.next().await.map_err(|e| self.failed(e))? {
            each(entry.key.slice(prefix.len()..), entry.value)?;
        }
        Ok(())
    }

    /// Removes some of what is under a prefix; tells how many keys that were.
    pub(super) async fn remove_some(&self, prefix: &[u8], n_most: usize) -> Result<usize, StateError> {
        let scan = self.db.scan_prefix(prefix, ..).await;
        let mut entries = scan.map_err(|e| self.failed(e))?;
        let mut batch = WriteBatch::new();
        let mut n_keys = 0;
        while n_keys < n_most
            && let Some(entry) = entries.next().await.map_err(|e| self.failed(e))?
        {
            batch.delete(entry.key);
            n_keys += 1;
        }
        self.write(batch).await?;
        Ok(n_keys)
    }
}

/// A checkpoint that was read without opening the state.
pub(crate) struct StoredCheckpoint(pub(crate) Checkpoint);

impl StateStore {
    /// Reads the checkpoint of a place that another engine may have open, without fencing it.
    pub(crate) async fn peek(place: &str) -> Result<Option<StoredCheckpoint>, StateError> {
        let failed = |source: BoxError| StateError::Open { place: place.to_owned(), source };
        if !place.contains("://") && !Path::new(place).exists() {
            return Ok(None);
        }
        let (objects, path) = object_store(place).map_err(failed)?;
        if objects.list(Some(&path.as_str().into())).next().await.is_none() {
            return Ok(None);
        }
        let mode = DbReaderMode::FollowLatest;
        let reader = DbReader::open(path, objects, mode, DbReaderOptions::default()).await;
        let reader = reader.map_err(|e| failed(Box::new(e)))?;
        let damaged = |what: String| StateError::Damaged { place: place.to_owned(), what };
        let format = reader.get(FORMAT_KEY).await.map_err(|e| failed(Box::new(e)))?;
        let found = format.and_then(|bytes| bytes.as_ref().try_into().ok()).map_or(0, u32::from_be_bytes);
        if found != FORMAT_VERSION {
            return Err(StateError::Format { place: place.to_owned(), found });
        }
        let bytes = reader.get(CHECKPOINT_KEY).await.map_err(|e| failed(Box::new(e)))?;
        reader.close().await.map_err(|e| failed(Box::new(e)))?;
        let parse = |bytes: Bytes| serde_json::from_slice(&bytes).map(StoredCheckpoint);
        bytes.map(parse).transpose().map_err(|e| damaged(format!("its checkpoint cannot be read ({e})")))
    }
}

/// Whether a table's rows are in the store as the table is declared now; append-only tables keep none.
pub(crate) fn table_is_stored(checkpoint: &Checkpoint, table: &SourceTable) -> bool {
    let fingerprint = super::table_fingerprint(table);
    table.is_append_only() || checkpoint.tables.get(&*table.name).is_some_and(|s| s.fingerprint == fingerprint)
}

pub(crate) fn table_prefix(id: u32) -> Vec<u8> {
    let mut prefix = vec![TABLES];
    prefix.extend_from_slice(&id.to_be_bytes());
    prefix
}

pub(crate) fn operator_prefix(fingerprint: Fingerprint) -> Vec<u8> {
    let mut prefix = vec![OPERATORS];
    prefix.extend_from_slice(&fingerprint.bytes());
    prefix
}

pub(crate) fn view_prefix(fingerprint: Fingerprint) -> Vec<u8> {
    let mut prefix = vec![VIEWS];
    prefix.extend_from_slice(&fingerprint.bytes());
    prefix
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The store below asks a place that refuses again and again, without a word; so it is asked once before.
async fn answers(objects: &dyn ObjectStore, path: &str) -> Result<(), BoxError> {
    let prefix = path.into();
    let mut listed = objects.list(Some(&prefix));
    match tokio::time::timeout(ANSWER_TIMEOUT, listed.next()).await {
        Ok(Some(Err(error))) => Err(Box::new(error)),
        Ok(_) => Ok(()),
        Err(_) => Err(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()).into()),
    }
}

/// The object store of a place, and the path in it.
fn object_store(place: &str) -> Result<(Arc<dyn ObjectStore>, String), BoxError> {
    let Some((scheme, rest)) = place.split_once("://") else {
        std::fs::create_dir_all(Path::new(place))?;
        return Ok((Arc::new(LocalFileSystem::new_with_prefix(place)?), "state".to_owned()));
    };
    let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
    let objects = Db::resolve_object_store(&format!("{scheme}://{bucket}"))?;
    let path = if path.is_empty() { "andon" } else { path.trim_end_matches('/') };
    Ok((objects, path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn state_of_another_format_is_refused_with_the_way_out() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let place = dir.path().display().to_string();
        let store = StateStore::open(&place).await.expect("a new place");
        assert_eq!(store.checkpoint().await.expect("readable"), None);
        let mut batch = WriteBatch::new();
        batch.put(FORMAT_KEY, (FORMAT_VERSION + 1).to_be_bytes());
        store.write(batch).await.expect("written");
        store.close().await.expect("closed");
        let error = StateStore::open(&place).await.expect_err("a newer format");
        assert!(error.to_string().contains("start with an empty place"), "{error}");
    }
}
