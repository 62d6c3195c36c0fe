//! The command line: what may be written, and what each exit code means.
//!
//! Exit codes: 0 = done; 1 = it was started and failed, or files that were checked are wrong; 2 = the command line or
//! the configuration makes no sense, nothing was started. Results go to stdout, logs and errors to stderr.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{DEFAULT_LOG_FILTER, LogFormat};
use crate::{Error, check, demo, flink, plan, query, replay, serve, telemetry, user, watch};

/// Streaming analytics and alerting for an ERP.
#[derive(Debug, Parser)]
#[command(name = "andon", version, propagate_version = true, after_help = EXIT_CODES)]
struct Cli {
    /// How log lines on stderr are written.
    #[arg(long, global = true, value_enum)]
    log_format: Option<LogFormat>,
    /// Which log lines are written, for example `info,ingest=debug`. RUST_LOG wins.
    #[arg(long, global = true, value_name = "FILTER")]
    log_filter: Option<String>,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str =
    "Exit codes: 0 done; 1 failed, or checked files are wrong; 2 wrong command line or configuration.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything on one machine, fed by a recorded ERP: open the printed address.
    Demo(demo::Options),
    /// Runs a node, or one stage of it.
    Serve(serve::Options),
    /// Parses, plans and explains every SQL file, or validates a configuration.
    Check(check::Options),
    /// What a start with the configured SQL files would keep, rebuild, add and drop; changes nothing.
    Plan(plan::Options),
    /// Writes a capture's records into topics, keeping keys, order, partitions and timestamps.
    Replay(replay::Options),
    /// Answers SQL over the views as they stand at given offsets of a capture, and exits.
    Query(query::Options),
    /// Shows views, alerts and other channels live on a terminal, or as JSON lines.
    Watch(watch::Options),
    /// Writes the views as a Flink SQL script that fills the same topics.
    Flink(flink::Options),
    /// Adds, lists and changes people who sign in with a password.
    User(user::Options),
    /// Makes, lists and revokes API keys for programs.
    Key(user::KeyOptions),
}

/// Where SQL files come from; shared by several commands.
#[derive(Debug, Clone, Default, Args)]
pub struct SqlFolders {
    /// Folder of views in place of the shipped ones.
    #[arg(long, value_name = "DIR")]
    pub views: Option<PathBuf>,
    /// Folder of alert rules in place of the shipped ones.
    #[arg(long, value_name = "DIR")]
    pub rules: Option<PathBuf>,
}

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", error.chain());
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(cli: Cli) -> Result<(), Error> {
    let is_server = matches!(cli.command, Command::Demo(_) | Command::Serve(_));
    // A configuration file may say how to log, so it is read before the first line is written.
    let serve = match &cli.command {
        Command::Serve(options) => Some(options.load()?),
        _ => None,
    };
    let (mut format, mut filter) = match &serve {
        Some(config) => (config.telemetry.log_format, config.telemetry.log_filter.clone()),
        None => (LogFormat::Text, if is_server { DEFAULT_LOG_FILTER } else { "warn" }.to_owned()),
    };
    format = cli.log_format.unwrap_or(format);
    if let Some(wanted) = cli.log_filter {
        filter = wanted;
    }
    telemetry::init_logs(format, &filter)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::other("cannot start the runtime", e))?;
    runtime.block_on(async {
        match cli.command {
            Command::Demo(options) => demo::run(options).await,
            Command::Serve(options) => serve::run(options, serve.unwrap_or_default()).await,
            Command::Check(options) => check::run(&options),
            Command::Plan(options) => plan::run(&options).await,
            Command::Replay(options) => replay::run(options).await,
            Command::Query(options) => query::run(options).await,
            Command::Watch(options) => watch::run(options).await,
            Command::Flink(options) => flink::run(&options),
            Command::User(options) => user::run(options).await,
            Command::Key(options) => user::run_key(options).await,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
