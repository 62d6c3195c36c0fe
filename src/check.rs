//! `andon check`: parses, plans and explains every SQL file, or says what is wrong with it and where.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use crate::cli::SqlFolders;
use crate::config::Config;
use crate::program::{Planned, RuleChoice, SqlSet};
use crate::{Error, shipped};

/// Arguments of `andon check`.
#[derive(Debug, Args)]
pub struct Options {
    /// Validates this configuration and the SQL files it names.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["source", "views", "rules"])]
    config: Option<PathBuf>,
    /// Shipped source pack or folder; may be given more than once. Without it: every shipped pack.
    #[arg(long, value_name = "NAME|DIR")]
    source: Vec<String>,
    #[command(flatten)]
    folders: SqlFolders,
    /// Prints the plan of every view as well.
    #[arg(long)]
    explain: bool,
    /// Fails if there is a warning: SQL that Flink would not run, or would understand otherwise.
    #[arg(long)]
    deny_warnings: bool,
}

/// Checks and prints one line per view; every problem goes to the error.
///
/// # Errors
/// [`Error::Sql`] with all messages of all packs.
pub fn run(options: &Options) -> Result<(), Error> {
    let mut problems = Vec::new();
    let mut warnings = Vec::new();
    for (name, set) in options.sets()? {
        match set.plan() {
            Ok(planned) => {
                for warning in planned.program.warnings() {
                    // The views are the same with every pack.
                    if !warnings.contains(warning) {
                        warnings.push(warning.clone());
                    }
                }
                let mut out = std::io::stdout().lock();
                report(&mut out, &name, &planned, options.explain)
                    .map_err(|e| Error::other("cannot write the result", e))?;
            }
            Err(Error::Sql(found)) => {
                for problem in found {
                    // A mistake in a view is the same mistake with every pack.
                    if !problems.contains(&problem) {
                        problems.push(problem);
                    }
                }
            }
            Err(other) => return Err(other),
        }
    }
    if options.deny_warnings {
        problems.append(&mut warnings);
    }
    let mut err = std::io::stderr().lock();
    for warning in &warnings {
        writeln!(err, "warning: {warning}").map_err(|e| Error::other("cannot write the warnings", e))?;
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::Sql(problems)) }
}

impl Options {
    fn sets(&self) -> Result<Vec<(String, SqlSet)>, Error> {
        if let Some(path) = &self.config {
            let config = Config::load(path)?;
            return Ok(vec![(path.display().to_string(), SqlSet::of_config(&config)?)]);
        }
        let views = self.folders.views.as_deref();
        // The shipped rules read the shipped views.
        let rules = match (&self.folders.rules, views) {
            (Some(dir), _) => RuleChoice::Folder(dir),
            (None, Some(_)) => RuleChoice::None,
            (None, None) => RuleChoice::Shipped,
        };
        let names = match self.source.as_slice() {
            [] => shipped::pack_names().into_iter().map(str::to_owned).collect(),
            some => some.to_vec(),
        };
        names.into_iter().map(|name| SqlSet::new(&name, views, rules).map(|set| (name, set))).collect()
    }
}

fn report(out: &mut dyn Write, name: &str, planned: &Planned, with_plans: bool) -> std::io::Result<()> {
    let views = planned.program.views();
    writeln!(out, "{name}: {} tables, {} views and rules, no problem", planned.tables.len(), views.len())?;
    let width = views.iter().map(|v| v.name.len()).max().unwrap_or(0);
    for view in views {
        write!(out, "  {:width$}  {}", view.name, view.maintenance)?;
        if !view.empty_inputs.is_empty() {
            write!(out, "; empty here: {}", view.empty_inputs.join(", "))?;
        }
        writeln!(out)?;
        if let Some(plan) = planned.program.explain(&view.name).filter(|_| with_plans) {
            for line in plan.lines() {
                writeln!(out, "      {line}")?;
            }
        }
    }
    Ok(())
}
