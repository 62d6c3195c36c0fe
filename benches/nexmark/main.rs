//! NEXMark and six shipped figures on Andon and on Apache Flink: the same SQL, from the same Kafka topics to Kafka topics.
//!
//! `cargo bench -p andon --bench nexmark [-- events=N] [queries=q0,q1] [runs=N] [only=andon|flink] [kpis=no] [nexmark=no]
//! [flink.KEY=VALUE]` or `make flink`. Prints a Markdown table; exits with 1 if an engine fails or a result differs.
//!
//! - Andon runs as a process of its own, `andon serve --stage pipelines`, from nothing until its status says that all
//!   events are read and written; all its CPU time counts, start-up included. Its state is stored every 10 s too.
//! - Flink runs what `andon flink --bounded` writes, on a cluster that stays up; the last run counts, when its code is
//!   compiled. Job manager and task manager count, the SQL gateway does not. State is in RocksDB, checkpoints every 10 s.
//! - Both results are read back and compared as tables.
//! - The floor: what reading the topic costs, and reading and decoding it.

mod andon_run;
mod events;
mod flink_run;
mod process;
mod report;
mod results;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ingest::log::{KafkaLog, KafkaOptions};
use model::Log;

use crate::andon_run::AndonRun;
use crate::flink_run::FlinkRun;
use crate::report::{Line, Report};

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// The figures of the shipped views that both engines can keep; those that move with the clock Andon alone can.
const KPIS: [&str; 6] = [
    "sales_documents_by_status",
    "open_demand_by_item",
    "order_intake_by_day",
    "stock_by_item_and_location",
    "open_order",
    "kpi_stock",
];

/// What the command line says.
struct Settings {
    events: u64,
    queries: Vec<String>,
    runs: usize,
    andon: bool,
    flink: bool,
    nexmark: bool,
    kpis: bool,
    /// Settings of the Flink cluster.
    flink_settings: Vec<String>,
}

impl Settings {
    fn parse(args: &[String]) -> Self {
        let value = |name: &str| args.iter().find_map(|a| a.strip_prefix(name)?.strip_prefix('=').map(str::to_owned));
        let only = value("only");
        let queries = value("queries").map_or_else(all_queries, |q| q.split(',').map(str::to_owned).collect());
        Self {
            events: value("events").and_then(|n| n.parse().ok()).unwrap_or(1_000_000),
            queries,
            runs: value("runs").and_then(|n| n.parse().ok()).unwrap_or(2),
            andon: only.as_deref() != Some("flink"),
            flink: only.as_deref() != Some("andon"),
            nexmark: value("nexmark").as_deref() != Some("no"),
            kpis: value("kpis").as_deref() != Some("no"),
            flink_settings: args.iter().filter_map(|a| a.strip_prefix("flink.").map(str::to_owned)).collect(),
        }
    }
}

fn home() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/nexmark")
}

/// Names of the query files, in NEXMark's order.
fn all_queries() -> Vec<String> {
    let files = std::fs::read_dir(home().join("queries")).into_iter().flatten().flatten();
    let stem = |path: PathBuf| path.file_stem().map(|s| s.to_string_lossy().into_owned());
    let mut names: Vec<String> = files.filter_map(|f| stem(f.path())).collect();
    names.sort_by_key(|name| (name.len(), name.clone()));
    names
}

fn main() -> Result<(), AnyError> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let settings = Settings::parse(&args);
    let kafka = dev_services::Kafka::start()?;
    let flink = settings.flink.then(|| FlinkRun::start(kafka.brokers(), &settings.flink_settings)).transpose()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let report = runtime.block_on(measure(&settings, kafka.brokers(), flink.as_ref()))?;
    print!("{report}");
    match report.all_good() {
        true => Ok(()),
        false => Err("an engine failed, or results differ: see the last column".into()),
    }
}

async fn measure(settings: &Settings, brokers: &str, flink: Option<&FlinkRun>) -> Result<Report, AnyError> {
    let log: Arc<dyn Log> = KafkaLog::connect(KafkaOptions::new(brokers)).await?;
    let mut report = Report::new(flink.map(FlinkRun::start_seconds));
    if settings.nexmark {
        let seconds = events::write(&log, settings.events).await?;
        eprintln!("{} events written in {seconds:.1} s", settings.events);
        report.floor = Some(events::floor(&log, settings.events, &home().join("source")).await?);
        for query in &settings.queries {
            let views = home().join("queries").join(format!("{query}.sql"));
            let case = Case { name: query, source: home().join("source").display().to_string(), views: Some(views) };
            report.lines.push(run(settings, &case, brokers, &log, flink, settings.events).await);
        }
    }
    if settings.kpis {
        let events = events::write_capture(&log).await?;
        for name in KPIS {
            let case = Case { name, source: "pyerp".to_owned(), views: None };
            report.lines.push(run(settings, &case, brokers, &log, flink, events).await);
        }
    }
    Ok(report)
}

/// One query over one source.
struct Case<'a> {
    name: &'a str,
    source: String,
    /// A file with the query, or the shipped views.
    views: Option<PathBuf>,
}

impl Case<'_> {
    /// A folder that holds this query alone.
    fn folder(&self, dir: &Path) -> Result<Option<PathBuf>, AnyError> {
        let Some(file) = &self.views else { return Ok(None) };
        let folder = dir.join("views");
        std::fs::create_dir_all(&folder)?;
        std::fs::copy(file, folder.join("query.sql"))?;
        Ok(Some(folder))
    }
}

async fn run(
    settings: &Settings,
    case: &Case<'_>,
    brokers: &str,
    log: &Arc<dyn Log>,
    flink: Option<&FlinkRun>,
    events: u64,
) -> Line {
    let mut line = Line::new(case.name, events);
    for round in 1..=settings.runs {
        if settings.andon {
            line.andon = AndonRun::new(case, brokers, log).run(events).await.map_err(|e| e.to_string());
        }
        if let Some(flink) = flink {
            line.flink = flink.run(case, brokers, log).await.map_err(|e| e.to_string());
        }
        eprintln!("{} run {round}: {line}", case.name);
        if line.andon.is_err() && line.flink.is_err() {
            return line;
        }
    }
    if settings.andon && flink.is_some() && line.andon.is_ok() && line.flink.is_ok() {
        line.compared = Some(results::compare(log, case.name).await.map_err(|e| e.to_string()));
        eprintln!("{}: {}", case.name, line.verdict());
    }
    line
}
