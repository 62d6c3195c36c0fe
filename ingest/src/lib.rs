//! From topics of row changes to typed, exact, weighted change batches.
//!
//! - [`ddl`]: source tables as their DDL declares them.

pub mod ddl;
