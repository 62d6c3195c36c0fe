//! Why alerting cannot go on.

use model::LogError;

/// Errors of this crate. A failing rule is none of them: it is logged, counted and stops nothing else.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL is neither `sqlite:` nor `postgres:`.
    #[error("database url {url} is not supported: it must start with sqlite: or postgres:")]
    DatabaseUrl {
        /// The URL without user and password.
        url: String,
    },
    /// The database refused or cannot be reached.
    #[error("alert store failed to {action}")]
    Store {
        /// What was tried.
        action: &'static str,
        /// What the database said.
        #[source]
        source: sqlx::Error,
    },
    /// The tables could not be brought to this version.
    #[error("alert store could not be migrated")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// A stored row does not read as what it was written as.
    #[error("stored alert {alert_id} is unreadable: {reason}")]
    Corrupt {
        /// The alert.
        alert_id: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The log failed for good.
    #[error("log failed")]
    Log(#[from] LogError),
}

impl Error {
    /// Whether the same call may succeed later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Store { source: sqlx::Error::Database(source), .. } => {
                source.code().is_some_and(|code| is_passing(&code))
            }
            Self::Store { source, .. } => matches!(
                source,
                sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed
            ),
            Self::Log(source) => matches!(source, LogError::Unavailable { .. }),
            Self::DatabaseUrl { .. } | Self::Migrate(_) | Self::Corrupt { .. } => false,
        }
    }
}

/// PostgreSQL: lost connections (08), serialization failures (40), a full disk (53), a server that stops or starts (57).
/// SQLite: busy, locked, I/O error, full; extended codes carry these in their low byte.
fn is_passing(code: &str) -> bool {
    if code.len() == 5 {
        return ["08", "40", "53", "57"].contains(&&code[..2]);
    }
    code.parse::<u32>().is_ok_and(|code| [5, 6, 10, 13].contains(&(code & 0xff)))
}
