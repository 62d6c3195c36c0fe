//! Tests of the engine through its public interface.

mod explain;
mod oracle;
mod publish;
mod world;
