//! `andon flink`: the same views as a Flink SQL script.
//!
//! Where one node is not enough, Flink keeps the views: the script declares the source tables in the form in which Flink
//! reads an ERP's change events rightly, wraps the SELECTs unchanged into views, and writes the topics, keys and JSON
//! that Andon would write, so alerting and dashboards do not notice. What is known not to run on Flink, or to run with
//! another meaning, is left out with its place and the reason, and so is what reads it.

mod portable;
mod sink;
mod source;
mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use model::{Diagnostic, ViewInfo, ViewKind};

use crate::Error;
use crate::program::{Planned, RuleChoice, SqlSet};
use views::View;

/// Arguments of `andon flink`.
#[derive(Debug, Args)]
pub struct Options {
    /// Shipped source pack, or a folder of DDL and mapping SQL.
    #[arg(long, value_name = "NAME|DIR")]
    source: String,
    /// Folder of views in place of the shipped ones.
    #[arg(long, value_name = "DIR")]
    views: Option<PathBuf>,
    #[command(flatten)]
    flink: FlinkOptions,
    /// Kept views to write; without it all that Flink can run. Named ones that it cannot run are an error.
    #[arg(long = "view", value_name = "NAME")]
    only: Vec<String>,
    /// Where the script goes; without it to stdout.
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// How the script is written.
#[derive(Debug, Clone, Args)]
pub struct FlinkOptions {
    /// Kafka brokers as Flink reaches them.
    #[arg(long, value_name = "BROKERS", default_value = "localhost:9092")]
    pub brokers: String,
    /// What the views' topics start with. Two writers of one topic would undo each other: give Flink another prefix
    /// as long as Andon keeps the views as well.
    #[arg(long, value_name = "TEXT", default_value = "andon.view.")]
    pub topic_prefix: String,
    /// Reads the topics up to their present ends and finishes.
    #[arg(long)]
    pub bounded: bool,
    /// Writes views whose key is the whole row without keys, each row once: for views that only grow, and for readers
    /// other than Andon. Flink refuses it for a view that takes rows back.
    #[arg(long)]
    pub append: bool,
    /// A setting of Flink for this script, for example parallelism.default=4; may be given more than once.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_setting)]
    pub settings: Vec<(String, String)>,
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Writes the script.
///
/// # Errors
/// If the files cannot be read or planned, or a view that was asked for by name cannot run on Flink.
pub fn run(options: &Options) -> Result<(), Error> {
    let set = SqlSet::new(&options.source, options.views.as_deref(), RuleChoice::None)?;
    let planned = set.plan()?;
    let script = script(&set, &planned, &options.flink, &options.only)?;
    match &options.out {
        None => {
            print!("{script}");
            Ok(())
        }
        Some(path) => std::fs::write(path, script).map_err(Error::file("write", path)),
    }
}

/// The script for a program.
///
/// # Errors
/// [`Error::Sql`] if a view named in `only` cannot run on Flink; [`Error::Usage`] if there is none of that name.
pub fn script(set: &SqlSet, planned: &Planned, options: &FlinkOptions, only: &[String]) -> Result<String, Error> {
    let statements = views::read(set.source.iter().chain(&set.views));
    let infos: Vec<ViewInfo> = planned.program.views().into_iter().filter(|v| v.kind == ViewKind::View).collect();
    let refused = refused(&statements, &infos, planned.program.warnings());
    for name in only {
        if !infos.iter().any(|v| v.name == *name) {
            return Err(Error::Usage(format!("there is no kept view named {name:?}")));
        }
    }
    let problems: Vec<Diagnostic> = only.iter().filter_map(|name| refused.get(name.as_str())).cloned().collect();
    if !problems.is_empty() {
        return Err(Error::Sql(problems));
    }
    let wanted = |v: &&ViewInfo| match only {
        [] => !refused.contains_key(v.name.as_str()),
        some => some.contains(&v.name),
    };
    let kept: Vec<&ViewInfo> = infos.iter().filter(wanted).collect();
    let needed = below(&statements, kept.iter().map(|v| v.name.as_str()));

    let mut out = String::new();
    header(&mut out, options);
    section(&mut out, "Sources");
    for table in planned.tables.iter().filter(|t| needed.contains(&*t.name)) {
        for statement in source::statements(table, options) {
            push(&mut out, &statement, &table.declared_at);
        }
    }
    section(&mut out, "Views");
    for view in views::in_order(&statements).into_iter().filter(|v| needed.contains(&v.name)) {
        let text = format!("CREATE VIEW {} AS\n{}", quoted(&view.name), view.select);
        push(&mut out, &text, &view.at());
    }
    section(&mut out, "Sinks");
    for view in &kept {
        push(&mut out, &sink::table(view, options), "");
    }
    if !kept.is_empty() {
        out.push_str("EXECUTE STATEMENT SET\nBEGIN\n\n");
        for view in &kept {
            push(&mut out, &sink::insert(view, options), "");
        }
        out.push_str("END;\n");
    }
    if only.is_empty() && !refused.is_empty() {
        out.push('\n');
        section(&mut out, "Left out, since Flink would not run it or would mean something else");
        for diagnostic in refused.values() {
            for line in diagnostic.to_string().lines() {
                comment(&mut out, line);
            }
        }
    }
    Ok(out)
}

/// Views that cannot run on Flink, by name, with the reason; a view over such a view is one.
fn refused(
    statements: &BTreeMap<String, View>,
    infos: &[ViewInfo],
    warnings: &[Diagnostic],
) -> BTreeMap<String, Diagnostic> {
    // A kept view that nobody wrote holds the rows that came too late for another.
    let unwritten = infos.iter().filter(|info| !statements.contains_key(&info.name));
    let mut refused: BTreeMap<String, Diagnostic> =
        unwritten.filter_map(|info| Some((info.name.clone(), late(&info.name, statements)?))).collect();
    for view in views::in_order(statements) {
        let known = || view.known_problem(warnings);
        let inherited = || {
            let below = view.relations.iter().find(|r| refused.contains_key(r.as_str()))?;
            Some(view.source.diagnostic(format!("{} reads {below}, which is left out", view.name)))
        };
        if let Some(diagnostic) = portable::problem(&view.source).or_else(known).or_else(inherited) {
            refused.insert(view.name.clone(), diagnostic);
        }
    }
    refused
}

/// Why the rows that come too late for a view are not written.
fn late(name: &str, statements: &BTreeMap<String, View>) -> Option<Diagnostic> {
    let of = statements.get(name.strip_suffix("__late")?)?;
    Some(of.source.diagnostic(format!("{name} is Andon's alone: Flink drops rows that come too late")))
}

/// Everything that these views read, themselves included.
fn below<'a>(statements: &BTreeMap<String, View>, from: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let mut stack: Vec<String> = from.map(str::to_owned).collect();
    let mut seen = BTreeSet::new();
    while let Some(name) = stack.pop() {
        if let Some(view) = statements.get(&name) {
            stack.extend(view.relations.iter().filter(|r| !seen.contains(*r)).cloned());
        }
        seen.insert(name);
    }
    seen
}

fn header(out: &mut String, options: &FlinkOptions) {
    comment(
        out,
        "Flink SQL, written by `andon flink`; run it with Flink's SQL client or gateway and the Kafka SQL connector.",
    );
    comment(out, "All times are in UTC, as Andon's are.");
    let defaults = [("execution.runtime-mode", "streaming"), ("table.local-time-zone", "UTC")];
    let own = options.settings.iter().map(|(k, v)| (k.as_str(), v.as_str()));
    for (key, value) in defaults.into_iter().chain(own) {
        out.push_str(&format!("SET {} = {};\n", text(key), text(value)));
    }
    out.push('\n');
}

fn section(out: &mut String, title: &str) {
    comment(out, &format!("---- {title}"));
    out.push('\n');
}

fn comment(out: &mut String, line: &str) {
    out.push_str("-- ");
    out.push_str(line);
    out.push('\n');
}

fn push(out: &mut String, statement: &str, at: &str) {
    if !at.is_empty() {
        comment(out, at);
    }
    writeln!(out, "{statement};\n").expect("a String takes every text");
}

/// A name between back quotes.
fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A text between single quotes.
fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}
