//! Andon as a process: from nothing until everything is read and written.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::log::PollLimit;
use model::view::EngineStatus;
use model::{Log, LogReader, Offsets, TopicSelector, topics};

use crate::process::{Cost, cpu_seconds, peak_mb};
use crate::{AnyError, Case};

const TIMEOUT: Duration = Duration::from_secs(600);
/// State is stored as often as Flink's; by default it would be once a second.
const CHECKPOINT_MS: u64 = 10_000;
const POLL: PollLimit = PollLimit { max_records: 1_000, max_bytes: 1 << 20, wait: Duration::from_millis(100) };

/// One run.
pub(crate) struct AndonRun<'a> {
    case: &'a Case<'a>,
    brokers: &'a str,
    log: &'a Arc<dyn Log>,
}

/// Ended when dropped.
struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait().map(drop)) {
            eprintln!("andon does not end: {error}");
        }
    }
}

impl<'a> AndonRun<'a> {
    pub(crate) fn new(case: &'a Case<'a>, brokers: &'a str, log: &'a Arc<dyn Log>) -> Self {
        Self { case, brokers, log }
    }

    /// Runs until `n_events` are read and what they gave is written.
    pub(crate) async fn run(&self, n_events: u64) -> Result<Cost, AnyError> {
        for topic in self.log.topics().await?.iter().filter(|t| t.starts_with("andon.")) {
            self.log.delete_topic(topic).await?;
        }
        let dir = tempfile::tempdir()?;
        let config = self.config(dir.path())?;
        let started = Instant::now();
        let mut node = self.start(&config, dir.path())?;
        let pid = node.0.id();
        let mut reader: Option<Box<dyn LogReader>> = None;
        let mut start_seconds = None;
        loop {
            if let Some(status) = node.0.try_wait()? {
                let log = std::fs::read_to_string(dir.path().join("log"))?;
                let last: Vec<&str> = log.lines().rev().take(5).collect();
                return Err(format!("andon ended with {status}: {}", last.join(" | ")).into());
            }
            if started.elapsed() > TIMEOUT {
                return Err("andon is not done in time".into());
            }
            let reader = match &mut reader {
                Some(reader) => reader,
                None => {
                    let selector = vec![TopicSelector::Name(topics::STATUS.to_owned())];
                    reader.insert(self.log.read(selector, &Offsets::default()).await?)
                }
            };
            for record in reader.poll(POLL).await?.into_iter().flat_map(|b| b.records) {
                let Some(value) = record.value else { continue };
                let status: EngineStatus = serde_json::from_slice(&value)?;
                start_seconds.get_or_insert(started.elapsed().as_secs_f64());
                if status.phase != "catching_up" && status.lag_records == Some(0) && status.records_read > 0 {
                    return Ok(Cost {
                        seconds: started.elapsed().as_secs_f64(),
                        cpu_seconds: cpu_seconds(pid)?,
                        peak_mb: peak_mb(pid)?,
                        start_seconds: start_seconds.unwrap_or_default(),
                    })
                    .inspect(|_| warn_of_missing(status.records_read, n_events));
                }
            }
        }
    }

    fn config(&self, dir: &Path) -> Result<std::path::PathBuf, AnyError> {
        let mut text = format!(
            "[kafka]\nbrokers = {:?}\n[state]\ncheckpoint_ms = {CHECKPOINT_MS}\n[rules]\nenabled = false\n[api.auth]\nmode = \"anonymous\"\n[log]\ndir = {:?}\n",
            self.brokers,
            dir.join("log.d").display().to_string()
        );
        match self.case.folder(dir)? {
            Some(views) => {
                write!(text, "[source]\ndir = {:?}\n[views]\ndir = {:?}\n", self.case.source, views)?;
            }
            None => {
                // The named view and what it reads are all that matters to Flink; to be fair it is all that Andon keeps.
                let views = crate::results::only_view(self.case.name, dir)?;
                write!(text, "[source]\npack = {:?}\n[views]\ndir = {:?}\n", self.case.source, views)?;
            }
        }
        let path = dir.join("andon.toml");
        std::fs::write(&path, text)?;
        Ok(path)
    }

    fn start(&self, config: &Path, dir: &Path) -> Result<Node, AnyError> {
        let log = std::fs::File::create(dir.join("log"))?;
        let child = Command::new(env!("CARGO_BIN_EXE_andon"))
            .args(["serve", "--stage", "pipelines", "--config"])
            .arg(config)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        Ok(Node(child))
    }
}

fn warn_of_missing(read: u64, expected: u64) {
    if read < expected {
        eprintln!("andon read {read} of {expected} records: the others are in topics that no view reads");
    }
}
