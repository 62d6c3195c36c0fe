//! What can go wrong at the outermost layer, and the exit code it means.

use std::path::PathBuf;

use model::{Diagnostic, LogError};

/// The error of a stage, whose type the wiring does not need to know.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line makes no sense; nothing was started.
    #[error("{0}")]
    Usage(String),
    /// The configuration is wrong; every problem found is listed.
    #[error("the configuration has {} problem(s):\n{}", .0.len(), bullets(.0))]
    Config(Vec<String>),
    /// SQL files do not parse or plan; every problem found is listed.
    #[error("{}", diagnostics(.0))]
    Sql(Vec<Diagnostic>),
    /// A file or folder cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried, for example `read`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// A file was read, but its content is not what it should be.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The log between the stages failed.
    #[error("the log failed")]
    Log(#[from] LogError),
    /// The listener could not be opened.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address asked for.
        address: String,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// A stage ended with an error, which ends the process.
    #[error("the {stage} stage failed")]
    Stage {
        /// Name of the stage.
        stage: &'static str,
        /// Its error.
        #[source]
        source: BoxError,
    },
    /// Something that has no variant of its own because no caller would act on it.
    #[error("{what}")]
    Other {
        /// What was being done.
        what: String,
        /// Why it failed.
        #[source]
        source: BoxError,
    },
}

impl Error {
    /// Wraps any error with what was being done.
    pub fn other(what: impl Into<String>, source: impl Into<BoxError>) -> Self {
        Self::Other { what: what.into(), source: source.into() }
    }

    /// For `map_err` after a failed file operation.
    pub fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    /// The exit code of the process: 2 for what the user must correct in the command line or configuration before
    /// anything can start, 1 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Config(_) => 2,
            _ => 1,
        }
    }

    /// The error and all its causes in one text.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let message = error.to_string();
            if !text.ends_with(&message) {
                text.push_str(": ");
                text.push_str(&message);
            }
            cause = error.source();
        }
        text
    }
}

fn bullets(problems: &[String]) -> String {
    problems.iter().map(|p| format!("  - {p}")).collect::<Vec<_>>().join("\n")
}

fn diagnostics(all: &[Diagnostic]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
