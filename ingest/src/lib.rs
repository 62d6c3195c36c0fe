//! From topics of row changes to typed, exact, weighted change batches.
//!
//! - [`ddl`]: source tables as their DDL declares them;
//! - [`log`]: the log between the stages, on this machine or on Kafka.

pub mod ddl;
pub mod log;
