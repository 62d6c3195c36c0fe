//! From topics of row changes to typed, exact, weighted change batches.
//!
//! - [`capture`]: captured topics in files, and their replay;
//! - [`log`]: the log between the stages, on this machine or on Kafka;
//! - [`ddl`]: source tables as their DDL declares them;
//! - [`decode`]: records to typed columns;
//! - [`Ingest`]: the rows of all source tables by primary key, and what changes in them, epoch by epoch.

pub mod capture;
mod column;
pub mod ddl;
pub mod decode;
mod epoch;
mod error;
#[doc(hidden)]
pub mod fuzz;
pub mod log;
pub mod table;

pub use epoch::{Ingest, IngestOptions};
pub use error::Error;
