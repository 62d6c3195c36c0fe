//! `andon replay`: writes a capture's records into topics; and what other commands need of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use ingest::capture::{self, Capture, ReplayOptions};
use model::{Log, Offsets};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::config::Config;
use crate::{BoxError, Error, node};

/// How fast a capture is replayed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// As fast as the log takes it.
    Max,
    /// So many times the pace of the recording.
    Times(f64),
}

impl std::str::FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            _ if text == "max" => Ok(Self::Max),
            Ok(times) if times.is_finite() && times > 0.0 => Ok(Self::Times(times)),
            _ => Err("write max, or how many times the recorded pace, for example 4".to_owned()),
        }
    }
}

/// Arguments of `andon replay`.
#[derive(Debug, Args)]
pub struct Options {
    /// The capture: a folder of NDJSON files, also compressed.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// max, or so many times the recorded pace.
    #[arg(long, default_value = "max", value_name = "N|max")]
    speed: Speed,
    /// Kafka brokers as host:port, several with commas between. Without it the records go to the local log.
    #[arg(long, value_name = "BROKERS")]
    brokers: Option<String>,
    /// Client property of librdkafka, for example security.protocol=SSL; may be given more than once.
    #[arg(long = "client", value_name = "KEY=VALUE", requires = "brokers", value_parser = parse_property)]
    client: Vec<(String, String)>,
    /// Folder of the local log; no node may have it open.
    #[arg(long, value_name = "DIR", conflicts_with = "brokers")]
    log_dir: Option<PathBuf>,
    /// Takes the log from this configuration.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["brokers", "log_dir"])]
    config: Option<PathBuf>,
}

fn parse_property(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Options {
    fn config(&self) -> Result<Config, Error> {
        if let Some(path) = &self.config {
            return Config::load(path);
        }
        let mut config = Config::default();
        config.kafka.brokers.clone_from(&self.brokers);
        config.kafka.client = self.client.iter().cloned().collect();
        if let Some(dir) = &self.log_dir {
            config.log.dir.clone_from(dir);
        }
        Ok(config)
    }
}

/// Replays and prints how much that was.
///
/// # Errors
/// If the capture cannot be read or the log not be written.
pub async fn run(options: Options) -> Result<(), Error> {
    let config = options.config()?;
    let log = node::open_log(&config).await?;
    let started = Instant::now();
    eprintln!("replaying {} into the {}", options.dir.display(), log.describe());
    let stop = CancellationToken::new();
    let on_signal = stop.clone();
    tokio::spawn(async move {
        let signal = node::stop_signal().await;
        info!(signal, "stopping");
        on_signal.cancel();
    });
    let end = copy(&options.dir, log, options.speed, None, stop.clone()).await?;
    let topics = end.0.len();
    let seconds = started.elapsed().as_secs_f64();
    if stop.is_cancelled() {
        return Err(Error::other("the replay was stopped before its end", format!("after {seconds:.1} s")));
    }
    println!("{topics} topics in {seconds:.1} s");
    Ok(())
}

/// Writes a whole capture, for a node that serves meanwhile.
///
/// # Errors
/// As [`copy`].
pub async fn feed(dir: &Path, log: Arc<dyn Log>, speed: Speed, stop: CancellationToken) -> Result<(), Error> {
    let started = Instant::now();
    copy(dir, log, speed, None, stop).await?;
    info!(seconds = started.elapsed().as_secs_f64(), dir = %dir.display(), "capture replayed");
    Ok(())
}

/// Writes a capture, up to offsets of its own if given, and returns the end offsets of its topics in the log.
///
/// # Errors
/// If the capture cannot be read or the log not be written.
pub async fn copy(
    dir: &Path,
    log: Arc<dyn Log>,
    speed: Speed,
    upto: Option<Offsets>,
    stop: CancellationToken,
) -> Result<Offsets, Error> {
    let fail = |e: BoxError| Error::other(format!("cannot replay {}", dir.display()), e);
    let capture = open(dir).await?;
    let options = ReplayOptions { speed: speed.into(), upto, ..ReplayOptions::default() };
    let report = capture::replay(&capture, &log, options, |_| {}, stop).await.map_err(|e| fail(e.into()))?;
    info!(records = report.n_records, bytes = report.n_bytes, "replayed");
    Ok(report.end_offsets)
}

/// Opens a capture where blocking is allowed.
///
/// # Errors
/// If it cannot be read.
pub async fn open(dir: &Path) -> Result<Capture, Error> {
    let fail = |e: BoxError| Error::other(format!("cannot read the capture {}", dir.display()), e);
    let folder = dir.to_owned();
    tokio::task::spawn_blocking(move || Capture::open(folder))
        .await
        .map_err(|e| fail(e.into()))?
        .map_err(|e| fail(e.into()))
}

impl From<Speed> for capture::Speed {
    fn from(speed: Speed) -> Self {
        match speed {
            Speed::Max => Self::Max,
            Speed::Times(times) => Self::Times(times),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_is_max_or_a_positive_number() {
        assert_eq!("max".parse(), Ok(Speed::Max));
        assert_eq!("2.5".parse(), Ok(Speed::Times(2.5)));
        for wrong in ["0", "-1", "NaN", "inf", "fast", ""] {
            assert!(wrong.parse::<Speed>().is_err(), "{wrong}");
        }
    }
}
