//! The one binary of Andon, as a library, so that benchmarks and tests drive the same wiring as the command line.
//!
//! - [`cli`]: the commands and their exit codes;
//! - [`config`]: what a configuration file may say, and its validation;
//! - [`shipped`]: the source packs, views, rules and the demo capture that travel inside the binary;
//! - [`program`]: SQL files → a planned [`pipelines::Program`];
//! - [`clock`]: business time that follows the data;
//! - [`node`]: the stages wired over one log, and their shutdown;
//! - [`serve`], [`demo`], [`replay`], [`query`], [`check`], [`plan`], [`flink`], [`watch`]: one module per command;
//! - `engine_stage`: the engine of this process, `reload`: other SQL files for it while it runs;
//! - [`standby`]: a second node that waits until the first one is gone;
//! - [`output`]: query results as CSV, JSON or a table;
//! - [`telemetry`]: logs and metrics.

pub mod check;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
mod engine_stage;
mod error;
pub mod flink;
pub mod node;
pub mod output;
pub mod plan;
pub mod program;
pub mod query;
mod reload;
pub mod replay;
pub mod serve;
pub mod shipped;
pub mod standby;
pub mod telemetry;
pub mod user;
pub mod watch;

pub use error::{BoxError, Error};
