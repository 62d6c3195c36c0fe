//! `andon plan`: what a start with these SQL files would keep, rebuild, add and drop. Changes nothing.

use std::io::Write;
use std::path::PathBuf;

use chrono::DateTime;
use clap::Args;
use pipelines::{Fate, StartPlan, StateStore};

use crate::Error;
use crate::config::Config;
use crate::program::SqlSet;

/// Arguments of `andon plan`.
#[derive(Debug, Args)]
pub struct Options {
    /// The configuration whose SQL files are compared with its stored state.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Compares and prints; a running node is not disturbed.
///
/// # Errors
/// If the SQL files have mistakes, or the state cannot be read.
pub async fn run(options: &Options) -> Result<(), Error> {
    let config = Config::load(&options.config)?;
    let planned = SqlSet::of_config(&config)?.plan()?;
    let place = &config.state.location;
    let plan = StateStore::plan(place, &planned.program)
        .await
        .map_err(|e| Error::other("cannot compare with the stored state", e))?;
    let mut out = std::io::stdout().lock();
    let written = match plan {
        Some(plan) => report(&mut out, place, &plan),
        None => writeln!(
            out,
            "Nothing is stored at {place:?} yet: a start reads all topics and builds {} views and rules.",
            planned.program.views().len()
        ),
    };
    written.map_err(|e| Error::other("cannot write the result", e))
}

fn report(out: &mut impl Write, place: &str, plan: &StartPlan) -> std::io::Result<()> {
    let time = DateTime::from_timestamp_millis(plan.written_at_ms).unwrap_or_default();
    writeln!(out, "State at {place:?}: epoch {}, {}.", plan.epoch, time.format("%Y-%m-%d %H:%M:%S UTC"))?;
    let of = |fate: Fate| plan.views.iter().filter(move |(_, f)| *f == fate).map(|(name, _)| name);
    for (fate, what) in [(Fate::Added, "add     "), (Fate::Rebuilt, "rebuild "), (Fate::Dropped, "drop    ")] {
        for name in of(fate) {
            writeln!(out, "{what} {name}")?;
        }
    }
    for table in &plan.read_again {
        writeln!(out, "read     {table} from the beginning of its topics")?;
    }
    let n = |fate| of(fate).count();
    let (added, rebuilt, dropped) = (n(Fate::Added), n(Fate::Rebuilt), n(Fate::Dropped));
    writeln!(out, "{} kept, {rebuilt} rebuilt, {added} added, {dropped} dropped.", n(Fate::Kept))
}
