//! Why the dashboard API stops.

use model::LogError;

/// Why the dashboard API could not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is wrong; every mistake is in the list.
    #[error("the dashboard api's configuration is wrong: {}", .0.join("; "))]
    Config(Vec<String>),
    /// The database of users failed at the start.
    #[error("the database of users cannot be used")]
    Users(#[from] crate::auth::store::StoreError),
    /// The threads of SQL queries cannot be started.
    #[error("cannot start the threads of queries")]
    Threads(#[source] std::io::Error),
    /// The certificate cannot be used.
    #[error("the certificate cannot be used: {0}")]
    Certificate(String),
    /// The log that feeds the channels cannot be read any more.
    #[error("cannot read the log")]
    Log(#[from] LogError),
    /// A background task ended by a panic.
    #[error("the task that {task} ended unexpectedly")]
    Task {
        /// What it did.
        task: &'static str,
    },
}
