//! Tests of the engine through its public interface.

mod change;
mod closing;
mod dialect;
mod explain;
mod failing_rows;
mod operators;
mod oracle;
mod publish;
mod recompute;
mod slt;
mod state;
mod stream_joins;
mod streamed;
mod world;
