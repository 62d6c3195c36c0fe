//! From the rows of rules to alerts that people see.
//!
//! In: `andon.rule.<name>`, the result of every rule's SELECT as the engine keeps it. Out: `andon.alerts`, one
//! CloudEvent for every alert that starts, changes or ends, and the tables `alert` and `alert_event`.
//!
//! - [`rules`]: rule files, their headers and titles;
//! - [`priority`]: the formula that orders alerts;
//! - [`alert`]: what an alert is, in the store and on the wire;
//! - `book`: the life of every alert, pure: epochs in, changes out;
//! - `tail`: records of rule topics to epochs;
//! - [`store`]: SQLite or PostgreSQL;
//! - `outbox`: events from the store to the log;
//! - [`run`]: all of it together.
//!
//! Invariants:
//! - an instance, which is a rule and the values of its key columns, has at most one open alert (a unique index says so);
//! - the events of an alert are `firing` once or more, then `resolved` at most once, which is the last;
//! - what an epoch changes, its events and the position in the topic are one transaction; an event is published after
//!   it is stored and keeps its id when it is sent again.

pub mod alert;
mod book;
mod error;
mod outbox;
pub mod priority;
pub mod rules;
mod run;
pub mod store;
mod tail;

pub use error::Error;
pub use rules::{Rule, Severity};
pub use run::{AlertingOptions, run};
