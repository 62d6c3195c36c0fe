//! The two implementations of [`model::Log`]: a durable log on this machine, and Kafka.
//!
//! One conformance suite (`tests/it`) holds both to the same behaviour; nothing outside this module knows which of the two
//! it runs on.

pub mod kafka;
pub mod local;
mod partitioner;
mod selection;

pub use kafka::{KafkaLog, KafkaOptions};
pub use local::{LocalLog, LocalLogOptions};
