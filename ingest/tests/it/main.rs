//! Tests of ingest against recorded changes and the real local log.

mod encodings;
mod epochs;
mod fixture;
