//! Captured topics in files: one Kafka record per line of NDJSON, plain or compressed with gzip.
//!
//! A line is `{"topic","partition","offset","timestamp","key","value"}`. Key and value are JSON whose text is kept byte for
//! byte; a null value is a tombstone, a null key means that the record has none. Offsets may have gaps and start
//! anywhere, but grow within a partition. Where a line has no partition it is 0, without an offset they are counted.
//!
//! Files are read as streams: one reader per partition, each over its own part of the file, merged in the order of the
//! database (see [`Records`]). Memory depends on the number of partitions, not of records.

mod files;
mod line;
mod merge;
mod position;
mod replay;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use model::{AppendRecord, Offsets};

use self::files::Stream;
pub use self::merge::Records;
pub use self::replay::{Progress, ReplayError, ReplayOptions, ReplayReport, Speed, Timestamps, replay};

/// Why a capture cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The folder has no file of the expected names.
    #[error("no topics/*.ndjson.gz, *.ndjson.gz or *.ndjson in {}", .dir.display())]
    Empty {
        /// The folder.
        dir: PathBuf,
    },
    /// A file or folder cannot be read.
    #[error("cannot read {}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line is not a record.
    #[error("{}:{line}: {reason}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Line from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
}

/// A record of a capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptureRecord {
    /// Topic it was captured from.
    pub topic: Arc<str>,
    /// Partition it was captured from.
    pub partition: i32,
    /// Offset it had there.
    pub offset: i64,
    /// Kafka's timestamp, milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The key's JSON text.
    pub key: Option<Bytes>,
    /// The value's JSON text; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Where the database wrote it, if the record says so.
    pub position: Option<Position>,
}

/// A place in the database's log, as Debezium gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Whether the record is of the log; false for the rows of a snapshot, which come first.
    pub is_change: bool,
    /// Log position of the last commit before the row's transaction; 0 if unknown.
    pub commit_lsn: i64,
    /// Log position of the row itself.
    pub lsn: i64,
}

/// What one partition of a capture holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturedPartition {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition number.
    pub partition: i32,
    /// Offset of its first record.
    pub first_offset: i64,
    /// One more than the offset of its last record.
    pub end_offset: i64,
    /// Number of records.
    pub n_records: u64,
}

/// A folder of captured topics.
#[derive(Debug, Clone)]
pub struct Capture {
    dir: PathBuf,
    streams: Vec<Arc<Stream>>,
}

impl Capture {
    /// Finds the files of a folder and looks through them once for their partitions. Blocks.
    ///
    /// # Errors
    /// [`CaptureError`]; a line is looked at here as far as its offset, the rest of it when it is read.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, CaptureError> {
        let dir = dir.as_ref().to_owned();
        let streams = files::scan(&dir)?;
        if streams.is_empty() {
            return Err(CaptureError::Empty { dir });
        }
        Ok(Self { dir, streams })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// All partitions, by topic and number.
    pub fn partitions(&self) -> Vec<CapturedPartition> {
        self.streams.iter().map(|stream| stream.summary.clone()).collect()
    }

    /// Number of records in all.
    pub fn n_records(&self) -> u64 {
        self.streams.iter().map(|stream| stream.summary.n_records).sum()
    }

    /// The capture's own end offsets.
    pub fn end_offsets(&self) -> Offsets {
        let mut ends = Offsets::default();
        for partition in self.streams.iter().map(|stream| &stream.summary) {
            ends.set(&partition.topic, partition.partition, partition.end_offset);
        }
        ends
    }

    /// All records in the order of the database, or those before `upto`: offsets of the capture itself, of which a topic or
    /// partition that is not named has none.
    ///
    /// # Errors
    /// [`CaptureError`] for the first record of a file; later ones come with the records.
    pub fn records(&self, upto: Option<&Offsets>) -> Result<Records, CaptureError> {
        Records::open(&self.streams, upto)
    }

    /// For every partition a Debezium record that says its table was emptied at log position `lsn`, so that a capture
    /// can be replayed again from the start. Topics whose first records are not Debezium's get none.
    ///
    /// The rows below `lsn` go, so it must be above every position replayed before, and at or below those of the next
    /// replay; see [`ReplayOptions::position_shift`] and [`ReplayReport::lsn_max`].
    ///
    /// # Errors
    /// [`CaptureError`] if a file can no longer be read.
    pub fn truncates(&self, lsn: i64) -> Result<Vec<AppendRecord>, CaptureError> {
        let mut records = Vec::with_capacity(self.streams.len());
        for stream in &self.streams {
            let mut reader = files::StreamReader::open(Arc::clone(stream), None)?;
            let Some(first) = reader.next()? else { continue };
            let Some(value) = first.value.as_deref().and_then(|value| position::truncate(value, lsn)) else {
                continue;
            };
            records.push(AppendRecord {
                topic: Arc::clone(&stream.summary.topic),
                partition: Some(stream.summary.partition),
                timestamp_ms: None,
                key: None,
                value: Some(Bytes::from(value)),
                headers: Vec::new(),
            });
        }
        Ok(records)
    }
}
