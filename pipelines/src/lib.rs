//! Keeps SQL views up to date, change by change.
//!
//! In: source epochs (weighted row changes of the ERP's tables, [`model::SourceEpoch`]). Out: the net change of every
//! kept view and rule, on the topics `andon.view.<name>` and `andon.rule.<name>`.
//!
//! DataFusion parses, plans, optimises and evaluates expressions; the operators that live for months are ours, in
//! `ops`. Invariants:
//! - after every epoch all views stand at the same source offsets (parts that are recomputed may lag, and say so);
//! - a kept view equals the same SQL run by plain DataFusion over the final tables;
//! - no incremental operator trusts the order of changes within an epoch.

mod change;
mod engine;
mod error;
mod fingerprint;
mod graph;
mod json;
mod kept;
mod keys;
mod lineage;
mod names;
mod ops;
mod program;
mod publish;
mod rows;
mod sql;
mod state;
mod watermark;

pub use change::{Change, Changed};
pub use engine::{Engine, EpochOutput, StepMode};
pub use error::Error;
pub use kept::ViewChange;
pub use program::{Program, RuleQuery};
pub use publish::{RunOptions, StateOptions, run};
pub use state::{Fate, Restored, Saver, StartPlan, StateError, StateStore};
