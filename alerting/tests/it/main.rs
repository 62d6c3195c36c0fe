//! Alerting on a real log and real databases: rows of rules go in at one end, events and tables come out at the other.

#![expect(clippy::unwrap_used, reason = "tests")]

mod life;
mod postgres;
mod restarts;
mod world;
