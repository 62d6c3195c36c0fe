//! What can go wrong while views are kept.

use model::LogError;

/// An error of the engine. Mistakes in SQL are [`model::Diagnostic`]s and never get here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// DataFusion or Arrow failed on data that planning had accepted, a division by zero for example.
    #[error("view {view} cannot be computed")]
    Compute {
        /// View or rule.
        view: String,
        /// What failed.
        #[source]
        source: datafusion::error::DataFusionError,
    },
    /// A query could not be planned or run.
    #[error("query failed")]
    Query(#[source] datafusion::error::DataFusionError),
    /// The log refused what the engine wrote.
    #[error("results cannot be published")]
    Publish(#[source] LogError),
    /// The source of epochs ended with an error.
    #[error("sources cannot be read")]
    Source(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The stored state cannot be used.
    #[error(transparent)]
    State(#[from] crate::state::StateError),
    /// The engine's thread ended without a result: a bug, its panic is in the log.
    #[error("the engine stopped unexpectedly")]
    Died,
}

/// Errors inside operators, where the view is not known yet.
pub(crate) type OpResult<T> = Result<T, datafusion::error::DataFusionError>;
