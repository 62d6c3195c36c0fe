//! The Centrifuge client protocol, version 2: what clients send, what the server answers, and the codes of errors and
//! disconnects, in both of its forms, JSON and Protobuf. Pure: bytes in, values out, and back.
//!
//! - [`codes`]: errors, disconnects, unsubscribes;
//! - [`message`]: commands and replies, one type for both forms;
//! - [`payload`]: what applications send, embedded raw in JSON;
//! - [`frame`]: frames to commands, replies to lines;
//! - [`publication`]: a publication, encoded once for all its readers.

pub(crate) mod codes;
pub(crate) mod frame;
pub(crate) mod message;
pub(crate) mod payload;
pub(crate) mod publication;

pub(crate) use codes::{Disconnect, ErrorCode, Unsubscribe};
pub(crate) use frame::{Encoding, Line};
