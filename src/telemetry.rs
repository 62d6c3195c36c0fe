//! Logs on stderr, and the recorder behind `/metrics`.

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::Error;
use crate::config::LogFormat;

/// Buckets of duration histograms, in seconds: from a quick epoch to a slow catch-up.
const SECONDS_BUCKETS: [f64; 12] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Sends log lines to stderr. `RUST_LOG` wins over `filter`.
///
/// # Errors
/// [`Error::Usage`] if `filter` is not in the form of `tracing`'s filters.
pub fn init_logs(format: LogFormat, filter: &str) -> Result<(), Error> {
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| filter.to_owned());
    let filter: EnvFilter = filter.parse().map_err(|e| Error::Usage(format!("log filter {filter:?}: {e}")))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    started.map_err(|e| Error::other("cannot start logging", e))
}

/// Installs the process's metrics recorder.
///
/// # Errors
/// If there is one already.
pub fn init_metrics() -> Result<PrometheusHandle, Error> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(metrics_exporter_prometheus::Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|e| Error::other("cannot start metrics", e))
}
