//! The SQL functions that callers may use: those of DataFusion without the ones that make much out of little, which no
//! limit on memory sees, and without those that tell of the server.

use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SessionStateBuilder, config::SessionConfig};
use datafusion::prelude::SessionContext;
use std::sync::Arc;

/// Functions whose result can be as large as a number in the call says.
const LARGE: [&str; 9] = [
    "repeat",
    "lpad",
    "rpad",
    "array_repeat",
    "list_repeat",
    "array_resize",
    "list_resize",
    "range",
    "generate_series",
];
/// Functions that tell of the server.
const TELLING: [&str; 2] = ["version", "arrow_metadata"];
/// Functions in FROM whose result can be as large as a number in the call says.
const LARGE_TABLES: [&str; 2] = ["generate_series", "range"];

/// A context with nothing in it but safe functions: no table, no file format, no information schema.
pub(crate) fn restricted_context() -> SessionContext {
    restricted_context_with(SessionConfig::new(), Arc::new(RuntimeEnv::default()))
}

/// The same with settings and limits.
pub(crate) fn restricted_context_with(config: SessionConfig, runtime: Arc<RuntimeEnv>) -> SessionContext {
    let state = SessionStateBuilder::new()
        .with_config(config.with_information_schema(false))
        .with_runtime_env(runtime)
        .with_default_features()
        .build();
    let context = SessionContext::new_with_state(state);
    for name in LARGE.iter().chain(&TELLING) {
        context.deregister_udf(name);
    }
    for name in LARGE_TABLES {
        context.deregister_udtf(name);
    }
    context
}
