//! Flink as a cluster that stays up, and jobs over bounded sources on it.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use dev_services::Flink;
use model::Log;

use crate::process::{Cost, cpu_seconds, peak_mb, reset_peak};
use crate::results::FLINK_PREFIX;
use crate::{AnyError, Case};

/// State on disk, in RocksDB with incremental checkpoints, as NEXMark's own settings have it, and room for it.
const SETTINGS: [&str; 2] = ["state.backend.type=rocksdb", "execution.checkpointing.incremental=true"];

/// NEXMark's queries that take back what they have put out; Flink writes the others without keys, as its own scripts do.
const UPDATING: [&str; 7] = ["q4", "q9", "q15", "q16", "q17", "q18", "q19"];

/// A running cluster.
pub(crate) struct FlinkRun {
    cluster: Flink,
    start_seconds: f64,
}

impl FlinkRun {
    pub(crate) fn start(_brokers: &str, settings: &[String]) -> Result<Self, AnyError> {
        let started = Instant::now();
        let all: Vec<&str> = SETTINGS.into_iter().chain(settings.iter().map(String::as_str)).collect();
        let cluster = Flink::start_with(&all)?;
        Ok(Self { cluster, start_seconds: started.elapsed().as_secs_f64() })
    }

    /// How long the cluster took to start.
    pub(crate) fn start_seconds(&self) -> f64 {
        self.start_seconds
    }

    /// Runs a query to its end.
    pub(crate) async fn run(&self, case: &Case<'_>, brokers: &str, log: &Arc<dyn Log>) -> Result<Cost, AnyError> {
        log.delete_topic(&format!("{FLINK_PREFIX}{}", case.name)).await?;
        log.create_topic(&format!("{FLINK_PREFIX}{}", case.name), model::log::TopicSpec::default()).await?;
        let dir = tempfile::tempdir()?;
        let script = dir.path().join("query.sql");
        script_of(case, brokers, dir.path(), &script)?;
        let pids = self.cluster.pids();
        for pid in pids {
            reset_peak(*pid)?;
        }
        let before = total(pids, cpu_seconds)?;
        let started = Instant::now();
        tokio::task::block_in_place(|| {
            let jobs = self.cluster.run(&script)?;
            let start_seconds = started.elapsed().as_secs_f64();
            for job in &jobs {
                self.cluster.wait(job)?;
            }
            let cpu = total(pids, cpu_seconds)? - before;
            Ok(Cost {
                seconds: started.elapsed().as_secs_f64(),
                cpu_seconds: cpu,
                peak_mb: total(pids, peak_mb)?,
                start_seconds,
            })
        })
    }
}

fn total(pids: &[u32], measure: impl Fn(u32) -> Result<f64, AnyError>) -> Result<f64, AnyError> {
    pids.iter().map(|pid| measure(*pid)).sum()
}

/// What `andon flink` writes for the query.
fn script_of(case: &Case<'_>, brokers: &str, dir: &Path, script: &Path) -> Result<(), AnyError> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_andon"));
    command.args(["flink", "--bounded", "--brokers", brokers, "--topic-prefix", FLINK_PREFIX]);
    command.args(["--source", &case.source, "--view", case.name]);
    // Rows of one key come from one task here, so nothing has to put them in order again; that would only cost Flink.
    command.args(["--set", "table.exec.sink.upsert-materialize=NONE"]);
    if case.views.is_some() && !UPDATING.contains(&case.name) {
        command.arg("--append");
    }
    command.arg("--out").arg(script);
    if let Some(views) = case.folder(dir)? {
        command.arg("--views").arg(views);
    }
    let output = command.output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned().into()),
    }
}
