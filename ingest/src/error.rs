//! What can stop reading.

use std::sync::Arc;

use arrow::error::ArrowError;
use model::LogError;

/// Why ingest cannot go on. Bad records are no error: they go to the dead-letter topic.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log refuses to be read or written.
    #[error("source topics cannot be read")]
    Log(#[from] LogError),
    /// The rows of an epoch do not fit one batch.
    #[error("changes of table {table} cannot be made into a batch")]
    Batch {
        /// The table.
        table: Arc<str>,
        /// What Arrow says.
        source: ArrowError,
    },
    /// A table's topic pattern is no regular expression.
    #[error("topic pattern of table {table} is not valid")]
    Pattern {
        /// The table.
        table: Arc<str>,
        /// Where the pattern is wrong.
        source: Box<regex::Error>,
    },
    /// The reading task is gone.
    #[error("reading has stopped")]
    Stopped,
}
