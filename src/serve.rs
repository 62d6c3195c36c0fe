//! `andon serve`: a node as its configuration says, or one stage of it.

use std::path::PathBuf;

use clap::Args;
use tracing::info;

use crate::config::Config;
use crate::node::{Node, Role, Stage};
use crate::replay::Speed;
use crate::{Error, replay, telemetry};

/// Arguments of `andon serve`.
#[derive(Debug, Args)]
pub struct Options {
    /// Configuration file; deploy/andon.example.toml lists every setting.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Runs this stage alone (may be given more than once). Several processes need Kafka between them.
    #[arg(long = "stage", value_enum, value_name = "STAGE")]
    stages: Vec<Stage>,
    /// Serves pages at once, but keeps views and alerts only when the node that does is gone for some seconds. Both
    /// need one Kafka and one place for the state.
    #[arg(long)]
    standby: bool,
    /// Writes the records of this capture into the log while serving.
    #[arg(long, value_name = "DIR")]
    replay: Option<PathBuf>,
    /// Pace of --replay: max, or so many times the recorded one.
    #[arg(long, default_value = "max", value_name = "N|max", requires = "replay")]
    speed: Speed,
}

impl Options {
    /// Reads the configuration that the command line names.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load(&self) -> Result<Config, Error> {
        Config::load(&self.config)
    }
}

/// Serves until told to stop.
///
/// # Errors
/// If something cannot be started, or the first stage that failed.
pub async fn run(options: Options, config: Config) -> Result<(), Error> {
    let metrics = telemetry::init_metrics()?;
    let stages = if options.stages.is_empty() { Stage::ALL.to_vec() } else { options.stages };
    let role = if options.standby { Role::Standby } else { Role::Active };
    let mut node = Node::start(&config, &stages, role, metrics).await?;
    if let Some(address) = node.address() {
        info!(url = format!("http://{address}/"), "serving");
    }
    if let Some(dir) = options.replay {
        let (log, shutdown) = (node.log(), node.shutdown());
        node.spawn("replay", async move { Ok(replay::feed(&dir, log, options.speed, shutdown).await?) });
    }
    node.run().await
}
