//! Tests of `ingest` from outside: both logs against one suite, crashes, captures, and change batches from recorded
//! changes on the real local log.

mod capture;
mod encodings;
mod epochs;
mod fixture;
mod kafka;
mod local;
mod suite;
