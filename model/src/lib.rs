//! The words that all stages of Andon share. No I/O happens here.
//!
//! - [`log`]: the narrow trait between the stages, and the records it carries;
//! - [`offsets`]: positions in topics;
//! - [`sql`]: SQL files, their statements, and messages that point at a place in them;
//! - [`table`]: a source table as its DDL declares it;
//! - [`delta`]: weighted row changes (a Z-set), the only thing that flows inside the engine;
//! - [`view`]: what a kept view or rule looks like to its readers, and how its rows travel in a topic;
//! - [`topics`]: the names of Andon's own topics;
//! - [`clock`]: time as an argument;
//! - [`event`]: the CloudEvents envelope of alerts.

pub mod clock;
pub mod delta;
pub mod event;
pub mod log;
pub mod offsets;
pub mod sql;
pub mod table;
pub mod topics;
pub mod view;

pub use clock::Clock;
pub use delta::{
    Delta, EpochSource, PartitionEventTime, SourceEpoch, SourceState, TableDelta, TableRows, TableWatermark,
};
pub use log::{
    AppendRecord, Log, LogBatch, LogError, LogReader, PartitionOffsets, PollLimit, Record, TopicSelector, TopicSpec,
};
pub use offsets::Offsets;
pub use sql::{Diagnostic, SqlFile, SqlStatement};
pub use table::{EventTime, SourceFormat, SourceTable};
pub use view::{ViewInfo, ViewKind};
