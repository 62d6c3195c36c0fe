//! Logs on stderr, and the recorder behind `/metrics`.

use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;
use crate::{BoxError, Error};

/// How often measured durations are summed up; until then each of them takes memory.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

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

/// Sums up what is measured until `shutdown`, also where nobody ever reads `/metrics`.
///
/// # Errors
/// None; it is a node's task like any other.
pub async fn keep(metrics: PrometheusHandle, shutdown: CancellationToken) -> Result<(), BoxError> {
    keep_every(UPKEEP_INTERVAL, &metrics, &shutdown).await;
    Ok(())
}

async fn keep_every(interval: Duration, metrics: &PrometheusHandle, shutdown: &CancellationToken) {
    while tokio::time::timeout(interval, shutdown.cancelled()).await.is_err() {
        metrics.run_upkeep();
    }
}

#[cfg(test)]
mod tests {
    use metrics::with_local_recorder;

    use super::*;

    /// Resident memory of this process.
    fn resident_mib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is there");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
    }

    #[tokio::test]
    async fn measuring_takes_no_memory_where_nobody_reads() {
        const ROUNDS: usize = 20;
        const PER_ROUND: usize = 1_000_000;
        const INTERVAL: Duration = Duration::from_millis(1);
        let recorder = PrometheusBuilder::new().build_recorder();
        let (handle, shutdown) = (recorder.handle(), CancellationToken::new());
        let before = resident_mib();
        let measuring = async {
            for _ in 0..ROUNDS {
                with_local_recorder(&recorder, || {
                    let measured = metrics::histogram!("some_seconds");
                    (0..PER_ROUND).for_each(|_| measured.record(0.001));
                });
                // On one thread, timers that are due sooner come first.
                tokio::time::sleep(3 * INTERVAL).await;
            }
            shutdown.cancel();
        };
        tokio::join!(measuring, keep_every(INTERVAL, &handle, &shutdown));
        // Kept one by one, they would take 16 bytes each at least.
        let grown = resident_mib().saturating_sub(before);
        assert!(grown < 200, "{grown} MiB");
    }
}
