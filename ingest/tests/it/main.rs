//! Tests of `ingest` from outside: both logs against one suite, crashes, captures, and change batches from recorded
//! changes on the real local log.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod capture;
mod encodings;
mod epochs;
mod fixture;
mod kafka;
mod local;
mod suite;
