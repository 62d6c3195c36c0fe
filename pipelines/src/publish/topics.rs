//! What is in the output topics, and what is written to them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::log::{PollLimit, TopicSelector, TopicSpec};
use model::view::EpochMark;
use model::{AppendRecord, Log, LogError, Offsets, ViewInfo, topics};

use super::IDLE_WAIT;
use crate::error::Error;
use crate::json;
use crate::kept::ViewChange;

/// Records in one append.
const APPEND_RECORDS_MAX: usize = 4_096;
/// A topic whose announced end does not come for so long has been read to its end.
const QUIET_MAX: Duration = Duration::from_secs(5);
/// First and longest pause between attempts to write while the log is unavailable.
const RETRY_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Content of a view topic: key → value.
pub(super) type Rows = HashMap<Bytes, Bytes>;

/// What a view's topic held before the start.
pub(super) enum Before {
    /// All of it.
    All(Rows),
    /// What was written after the stored state, and what has changed since that state while the sources are read up to
    /// now.
    Since { tail: Changes, changed: Changes },
    /// Of a view that is streamed: what has not come again yet. If it is all that the topic held, and not only what was
    /// written after the stored state, then what never comes again goes.
    Streamed { held: Rows, is_all: bool },
}

/// New values by key; `None` for a key that is gone.
pub(super) type Changes = HashMap<Bytes, Option<Bytes>>;

impl Before {
    /// Whether nothing of the topic's content is known to be right.
    pub(super) fn wants_all(&self) -> bool {
        matches!(self, Self::All(_))
    }

    /// Whether the topic may hold rows that are gone.
    pub(super) fn is_unconfirmed(&self) -> bool {
        matches!(self, Self::Streamed { held, is_all: true } if !held.is_empty())
    }

    /// While history is read: takes in what has changed. Tells whether it is to be written now; of that it leaves what the
    /// topic does not hold.
    pub(super) fn take(&mut self, now: &mut Vec<(Bytes, Option<Bytes>)>) -> bool {
        match self {
            Self::All(_) => false,
            Self::Since { changed, .. } => {
                changed.extend(now.drain(..));
                false
            }
            Self::Streamed { held, .. } => {
                if !held.is_empty() {
                    now.retain(|(key, row)| held.remove(key) != *row);
                }
                true
            }
        }
    }

    /// What must be written so that the topic holds what the view holds now. `now` is what changed in this epoch,
    /// `whole` the whole view if [`Before::wants_whole`].
    pub(super) fn difference(
        self,
        now: Vec<(Bytes, Option<Bytes>)>,
        whole: Vec<(Bytes, Option<Bytes>)>,
    ) -> Vec<(Bytes, Option<Bytes>)> {
        match self {
            Self::All(mut rows) => unlike(&mut rows, whole),
            Self::Streamed { mut held, is_all } => {
                let mut new: Vec<_> = now.into_iter().filter(|(key, row)| held.remove(key) != *row).collect();
                if is_all {
                    new.extend(held.into_keys().map(|key| (key, None)));
                }
                new
            }
            Self::Since { tail, mut changed } => {
                changed.extend(now);
                if tail.is_empty() {
                    return changed.into_iter().collect();
                }
                let whole: Changes = whole.into_iter().collect();
                let keys: BTreeSet<Bytes> = tail.keys().chain(changed.keys()).cloned().collect();
                let current = keys.into_iter().map(|key| (whole.get(&key).cloned().flatten(), key));
                current.filter(|(row, key)| tail.get(key) != Some(row)).map(|(row, key)| (key, row)).collect()
            }
        }
    }

    pub(super) fn wants_whole(&self) -> bool {
        match self {
            Self::All(_) => true,
            Self::Since { tail, .. } => !tail.is_empty(),
            Self::Streamed { .. } => false,
        }
    }
}

/// Keys and rows of a change; `None` for a key that is gone.
pub(crate) fn encode(change: &ViewChange, key: &[String]) -> Vec<(Bytes, Option<Bytes>)> {
    let columns: Vec<usize> = key.iter().filter_map(|name| change.upserts.schema().index_of(name).ok()).collect();
    let rows = json::rows(&change.upserts);
    let keys = match columns.iter().copied().eq(0..change.upserts.num_columns()) {
        true => rows.clone(),
        false => change.upserts.project(&columns).map(|k| json::rows(&k)).unwrap_or_default(),
    };
    let deleted = json::rows(&change.deletes).into_iter().map(|key| (key, None));
    keys.into_iter().zip(rows.into_iter().map(Some)).chain(deleted).collect()
}

/// The difference between what a topic holds and what it should hold.
pub(super) fn unlike(before: &mut Rows, now: Vec<(Bytes, Option<Bytes>)>) -> Vec<(Bytes, Option<Bytes>)> {
    let mut out: Vec<(Bytes, Option<Bytes>)> =
        now.into_iter().filter(|(key, row)| before.remove(key) != *row).collect();
    out.extend(before.drain().map(|(key, _)| (key, None)));
    out
}

pub(super) fn mark(
    rows: Vec<(Bytes, Option<Bytes>)>,
    topic: &Arc<str>,
    epoch: u64,
    as_of_ms: i64,
    out: &mut Vec<AppendRecord>,
) {
    let n_rows = rows.len();
    let inner = EpochMark { epoch, as_of_ms, last: false }.to_headers();
    let last = EpochMark { epoch, as_of_ms, last: true }.to_headers();
    for (i, (key, value)) in rows.into_iter().enumerate() {
        let headers = if i + 1 == n_rows { last.clone() } else { inner.clone() };
        out.push(view_record(topic, key, value, headers));
    }
}

/// A row of a view by its key; `None` if the key is gone.
pub(super) fn view_record(
    topic: &Arc<str>,
    key: Bytes,
    value: Option<Bytes>,
    headers: Vec<(Arc<str>, Bytes)>,
) -> AppendRecord {
    AppendRecord { topic: Arc::clone(topic), partition: Some(0), timestamp_ms: None, key: Some(key), value, headers }
}

pub(super) fn record(topic: &str, key: Bytes, value: Option<Bytes>) -> AppendRecord {
    AppendRecord {
        topic: Arc::from(topic),
        partition: Some(0),
        timestamp_ms: None,
        key: Some(key),
        value,
        headers: Vec::new(),
    }
}

pub(super) fn to_json(value: &impl serde::Serialize) -> Bytes {
    Bytes::from(serde_json::to_vec(value).unwrap_or_default())
}

/// Appends in order; while the log is unavailable, tries again with growing pauses. A part that had been written
/// before an outage is written again, which a reader by key does not notice.
pub(super) async fn append(log: &dyn Log, mut records: Vec<AppendRecord>) -> Result<(), Error> {
    while !records.is_empty() {
        let rest = records.split_off(records.len().min(APPEND_RECORDS_MAX));
        retried(|| log.append(records.clone())).await?;
        records = rest;
    }
    Ok(())
}

/// Tries again while the log is unavailable, and says once that it is.
pub(super) async fn retried<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, LogError>>,
{
    let mut pause = RETRY_PAUSE.0;
    loop {
        match attempt().await {
            Err(LogError::Unavailable { reason }) => {
                if pause == RETRY_PAUSE.0 {
                    tracing::warn!(reason, "log is unavailable, results wait");
                }
                metrics::counter!("pipelines_publish_retries_total").increment(1);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_PAUSE.1);
            }
            other => return other.map_err(Error::Publish),
        }
    }
}

/// Creates the topics and brings the catalog topic in line with the program.
pub(super) async fn publish_catalog(log: &dyn Log, views: &[ViewInfo]) -> Result<(), Error> {
    for topic in
        [topics::CATALOG, topics::STATUS, topics::GRAPH].into_iter().chain(views.iter().map(|v| v.topic.as_str()))
    {
        retried(|| log.create_topic(topic, TopicSpec::compacted())).await?;
    }
    let (before, _) = read_view_topic(log, topics::CATALOG, None).await?;
    let mut before = present(before);
    let now = views.iter().map(|v| (Bytes::from(v.name.clone()), Some(to_json(v)))).collect();
    let changes = unlike(&mut before, now);
    let records = changes.into_iter().map(|(key, value)| record(topics::CATALOG, key, value)).collect();
    append(log, records).await
}

pub(super) fn present(changes: Changes) -> Rows {
    changes.into_iter().filter_map(|(key, row)| Some((key, row?))).collect()
}

/// What a compacted topic holds from an offset on, and the newest epoch in it.
pub(super) async fn read_view_topic(log: &dyn Log, topic: &str, from: Option<i64>) -> Result<(Changes, u64), Error> {
    let ends = retried(|| log.offsets(topic)).await?;
    let mut at = Offsets::default();
    let mut target = Offsets::default();
    for p in ends.iter().filter(|p| p.end > from.unwrap_or(p.earliest).max(p.earliest)) {
        target.set(topic, p.partition, p.end);
        if let Some(from) = from {
            at.set(topic, p.partition, from);
        }
    }
    let mut rows = Changes::new();
    let mut epoch = 0;
    if target.is_empty() {
        return Ok((rows, epoch));
    }
    let selector = vec![TopicSelector::Name(topic.to_owned())];
    let from = at.clone();
    let mut reader = retried(|| log.read(selector.clone(), &from)).await?;
    let limit = PollLimit { max_records: APPEND_RECORDS_MAX, max_bytes: 16 << 20, wait: IDLE_WAIT };
    let mut quiet_since = None;
    while !at.reached(&target) {
        let batches = reader.poll(limit).await.map_err(Error::Publish)?;
        if batches.is_empty() {
            // Compaction may have removed the records before the end: a tombstone whose grace is over.
            if quiet_since.get_or_insert_with(Instant::now).elapsed() > QUIET_MAX {
                tracing::debug!(topic, "the records before the end are gone");
                break;
            }
        } else {
            quiet_since = None;
        }
        for batch in batches {
            at.set(topic, batch.partition, batch.next_offset());
            for record in batch.records {
                epoch = epoch.max(EpochMark::from_record(&record).map_or(0, |m| m.epoch));
                if let Some(key) = record.key {
                    rows.insert(key, record.value);
                }
            }
        }
    }
    Ok((rows, epoch))
}
