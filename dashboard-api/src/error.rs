//! Why the dashboard API stops.

use model::LogError;

/// Why the dashboard API could not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is wrong; every mistake is in the list.
    #[error("the dashboard api's configuration is wrong: {}", .0.join("; "))]
    Config(Vec<String>),
    /// The HTTP server failed.
    #[error("http server failed")]
    Serve(#[source] std::io::Error),
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
