//! The durable log on this machine: the default where no broker is configured.
//!
//! **Durability.** An append is in the operating system's hands when it returns, so it survives the death of the process
//! (`kill -9` included). The disk is asked to write at an interval ([`LocalLogOptions::sync_interval`]) and on close: a
//! power cut may lose that much at most, and never leaves half an append.
//!
//! **Speed.** Sketch for records of 1.2 KB: one append of 1,000 records over 30 partitions writes 30 blocks of 40 KB, so
//! the storage engine's cost per entry is shared by 33 records; payload bytes are copied twice on the way in (into the
//! block, into the journal) and not at all on the way out of memory. `cargo bench -p ingest --bench log` measures it.
//!
//! **Compaction** of a compacted topic happens record by record: the append that supersedes a key's newest record marks the
//! old one, and it is removed [`LocalLogOptions::compaction_lag`] later, so that a reader that keeps up sees every
//! change. A tombstone is removed after [`LocalLogOptions::tombstone_grace`].

mod block;
mod maintenance;
mod reader;
mod store;
mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use model::{AppendRecord, Log, LogError, LogReader, Offsets, PartitionOffsets, TopicSelector, TopicSpec};
use tokio::sync::watch;

use self::maintenance::Maintenance;
use self::reader::LocalReader;
use self::store::{Store, TopicEntry, bounds_of, partition_key, storage_error};
use self::writer::Writer;
use super::selection::Selection;

/// What can be chosen about a local log.
#[derive(Debug, Clone)]
pub struct LocalLogOptions {
    /// A record with its key and headers may have so many bytes; larger ones are refused.
    pub record_bytes_max: usize,
    /// The disk is asked to write what was appended at least this often.
    pub sync_interval: Duration,
    /// A superseded record of a compacted topic stays readable this long.
    pub compaction_lag: Duration,
    /// A tombstone of a compacted topic stays readable this long.
    pub tombstone_grace: Duration,
}

impl Default for LocalLogOptions {
    fn default() -> Self {
        Self {
            record_bytes_max: 8 << 20,
            sync_interval: Duration::from_secs(1),
            compaction_lag: Duration::from_secs(10),
            tombstone_grace: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// A partition's bounds, which readers look at without touching the storage.
#[derive(Debug)]
struct Partition {
    number: i32,
    key: [u8; 8],
    earliest: AtomicI64,
    end: AtomicI64,
}

/// A topic; replaced as a whole when it gets more partitions.
#[derive(Debug)]
struct Topic {
    name: Arc<str>,
    entry: TopicEntry,
    partitions: Vec<Arc<Partition>>,
}

/// What the log, its readers and its maintenance share.
struct Shared {
    dir: PathBuf,
    options: LocalLogOptions,
    store: Store,
    topics: RwLock<BTreeMap<Arc<str>, Arc<Topic>>>,
    /// Changes when a topic or partition comes or goes.
    catalog_version: AtomicU64,
    /// Bumped after every append and catalog change: what readers wait for.
    changes: watch::Sender<u64>,
    /// All changes of the storage happen under this lock, so that offsets are given out in order.
    writer: Mutex<Writer>,
    /// Whether something was appended since the last sync.
    unsynced: AtomicBool,
}

impl Shared {
    fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.topics.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn all_topics(&self) -> Vec<Arc<Topic>> {
        self.topics.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn put_topic(&self, topic: Arc<Topic>) {
        let name = Arc::clone(&topic.name);
        self.topics.write().unwrap_or_else(PoisonError::into_inner).insert(name, topic);
        self.catalog_version.fetch_add(1, Ordering::Release);
        self.announce();
    }

    fn remove_topic(&self, name: &str) {
        self.topics.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        self.catalog_version.fetch_add(1, Ordering::Release);
        self.announce();
    }

    fn announce(&self) {
        self.changes.send_modify(|version| *version = version.wrapping_add(1));
    }

    fn lock_writer(&self) -> MutexGuard<'_, Writer> {
        // A writer that panicked left the storage as it was: its batch is committed whole or not at all.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalLog").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// A log in a folder of this machine, open in one process at a time.
#[derive(Debug)]
pub struct LocalLog {
    shared: Arc<Shared>,
    /// Held during an append, and given out in turn: appends under way at the same time are written in the order in which
    /// they were begun.
    turn: tokio::sync::Mutex<()>,
    _maintenance: Maintenance,
}

impl LocalLog {
    /// Opens the log in `dir`, or makes one there. Blocks for as long as recovery after a crash takes.
    ///
    /// The folder is free for another process once the log and all its readers are dropped.
    ///
    /// # Errors
    /// [`LogError::Refused`] if another process has it open or the folder cannot be made, [`LogError::Corrupt`] if what is
    /// there is damaged or of another format version.
    pub fn open(dir: impl AsRef<Path>, options: LocalLogOptions) -> Result<Arc<Self>, LogError> {
        let dir = dir.as_ref().to_owned();
        let store = Store::open(&dir)?;
        let topics = load_topics(&store, &dir)?;
        let shared = Arc::new(Shared {
            writer: Mutex::new(Writer::new(&topics)),
            dir,
            options,
            store,
            topics: RwLock::new(topics),
            catalog_version: AtomicU64::new(1),
            changes: watch::Sender::new(0),
            unsynced: AtomicBool::new(false),
        });
        let maintenance = Maintenance::start(Arc::clone(&shared))
            .map_err(|e| LogError::Unavailable { reason: format!("no thread for maintenance: {e}") })?;
        Ok(Arc::new(Self { shared, turn: tokio::sync::Mutex::new(()), _maintenance: maintenance }))
    }

    /// Runs a change of the storage where blocking is allowed.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let shared = Arc::clone(&self.shared);
        match tokio::task::spawn_blocking(move || work(&shared)).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(LogError::Unavailable { reason: "the program is ending".to_owned() }),
            },
        }
    }
}

fn load_topics(store: &Store, dir: &Path) -> Result<BTreeMap<Arc<str>, Arc<Topic>>, LogError> {
    let damaged = |what: &str| LogError::Corrupt { place: dir.display().to_string(), reason: what.to_owned() };
    let mut topics = BTreeMap::new();
    for guard in store.topics.iter() {
        let (name, entry) = guard.into_inner().map_err(storage_error)?;
        let name: Arc<str> = std::str::from_utf8(&name).map_err(|_| damaged("a topic's name is not text"))?.into();
        let entry: TopicEntry = serde_json::from_slice(&entry).map_err(|_| damaged("a topic's entry is unreadable"))?;
        let partitions = (0..entry.partitions).map(|number| {
            let key = partition_key(entry.id, number);
            let bounds = match store.partitions.get(key).map_err(storage_error)? {
                Some(value) => bounds_of(&value).ok_or_else(|| damaged("a partition's bounds are unreadable"))?,
                None => (0, 0),
            };
            Ok(Arc::new(Partition { number, key, earliest: AtomicI64::new(bounds.0), end: AtomicI64::new(bounds.1) }))
        });
        let partitions = partitions.collect::<Result<_, LogError>>()?;
        topics.insert(Arc::clone(&name), Arc::new(Topic { name, entry, partitions }));
    }
    Ok(topics)
}

#[async_trait]
impl Log for LocalLog {
    fn describe(&self) -> String {
        format!("local log in {}", self.shared.dir.display())
    }

    async fn create_topic(&self, topic: &str, spec: TopicSpec) -> Result<(), LogError> {
        let topic = topic.to_owned();
        self.blocking(move |shared| shared.lock_writer().create_topic(shared, &topic, spec).map(drop)).await
    }

    async fn delete_topic(&self, topic: &str) -> Result<(), LogError> {
        let topic = topic.to_owned();
        self.blocking(move |shared| shared.lock_writer().delete_topic(shared, &topic)).await
    }

    async fn topics(&self) -> Result<Vec<String>, LogError> {
        Ok(self.shared.all_topics().iter().map(|topic| topic.name.to_string()).collect())
    }

    async fn offsets(&self, topic: &str) -> Result<Vec<PartitionOffsets>, LogError> {
        let Some(topic) = self.shared.topic(topic) else {
            return Ok(Vec::new());
        };
        let bounds = |partition: &Arc<Partition>| PartitionOffsets {
            partition: partition.number,
            earliest: partition.earliest.load(Ordering::Acquire),
            end: partition.end.load(Ordering::Acquire),
        };
        Ok(topic.partitions.iter().map(bounds).collect())
    }

    async fn append(&self, records: Vec<AppendRecord>) -> Result<Vec<i64>, LogError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let _turn = self.turn.lock().await;
        self.blocking(move |shared| shared.lock_writer().append(shared, records)).await
    }

    async fn trim(&self, topic: &str, partition: i32, before_offset: i64) -> Result<(), LogError> {
        let topic = topic.to_owned();
        self.blocking(move |shared| shared.lock_writer().trim(shared, &topic, partition, before_offset)).await
    }

    async fn read(&self, topics: Vec<TopicSelector>, from: &Offsets) -> Result<Box<dyn LogReader>, LogError> {
        Ok(Box::new(LocalReader::new(Arc::clone(&self.shared), Selection::new(topics)?, from.clone())))
    }
}
