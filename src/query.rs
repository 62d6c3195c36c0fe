//! `andon query`: what Andon would have said at given offsets of a capture.
//!
//! Replays the capture through a log of its own and the whole engine, waits until every view stands at exactly those
//! offsets, and answers. Nothing is left behind.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use chrono::{DateTime, NaiveDateTime};
use clap::{ArgGroup, Args};
use ingest::log::{LocalLog, LocalLogOptions};
use ingest::{Ingest, IngestOptions};
use model::clock::ManualClock;
use model::{Clock, EpochSource, Log, Offsets};
use pipelines::{Engine, Program, Restored, Saver, StateError, StateStore, StepMode};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::cli::SqlFolders;
use crate::clock::StreamClock;
use crate::output::Format;
use crate::program::{Planned, RuleChoice, SqlSet};
use crate::replay::Speed;
use crate::{Error, output, replay, shipped};

/// Records per epoch. Nobody watches on the way, so epochs are as large as memory comfortably takes.
const EPOCH_RECORDS: usize = 131_072;
/// Time between two checkpoints of --state.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);
/// How long one read of the log may wait before progress is looked at again.
const READ_WAIT: Duration = Duration::from_millis(50);
/// No epoch for so long although records are missing: the log or the decoder is stuck.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Arguments of `andon query`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["statement", "queries"]))]
pub struct Options {
    /// Shipped source pack, or a folder of DDL and mapping SQL.
    #[arg(long, value_name = "NAME|DIR")]
    source: String,
    #[command(flatten)]
    folders: SqlFolders,
    /// The capture: a folder of NDJSON files, also compressed.
    #[arg(long, value_name = "DIR")]
    replay: PathBuf,
    /// Stop at these offsets: a JSON object topic → partition → next offset, or one that has it under
    /// `kafka_end_offsets`. Without it, the end of the capture.
    #[arg(long, value_name = "OFFSETS.json")]
    upto: Option<PathBuf>,
    /// Keeps the engine's state in this folder and goes on from it: what was read before is not read again. The capture
    /// must be the same or a longer one.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// What CURRENT_TIMESTAMP says, for example 2025-10-14T18:00:00Z (without a zone: UTC). Without it, the newest
    /// event time of the data.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    now: Option<i64>,
    /// Form of the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Runs every *.sql file of this folder.
    #[arg(long, value_name = "DIR", requires = "out", conflicts_with = "format")]
    queries: Option<PathBuf>,
    /// Where the results of --queries go, as NAME.csv.
    #[arg(long, value_name = "DIR", requires = "queries")]
    out: Option<PathBuf>,
    /// The statement, over views, rules and all other relations.
    #[arg(value_name = "SELECT …")]
    statement: Option<String>,
}

/// Microseconds since 1970, UTC.
fn parse_time(text: &str) -> Result<i64, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.timestamp_micros());
    }
    ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"]
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
        .map(|time| time.and_utc().timestamp_micros())
        .ok_or_else(|| "write it like 2025-10-14T18:00:00Z or 2025-10-14T20:00:00+02:00".to_owned())
}

/// Replays, waits and answers.
///
/// # Errors
/// If the SQL files, the capture, the engine or a statement fail.
pub async fn run(options: Options) -> Result<(), Error> {
    let started = Instant::now();
    let upto = options.upto.as_deref().map(read_offsets).transpose()?;
    let queries = options.queries()?;
    let planned = options.sql_set()?.plan()?;
    info!(seconds = started.elapsed().as_secs_f64(), "planned");
    let dir = tempfile::Builder::new()
        .prefix("andon-query-")
        .tempdir()
        .map_err(Error::file("create", std::env::temp_dir()))?;
    let mut standing = replay_into_engine(&options, planned, upto, dir.path()).await?;
    info!(seconds = started.elapsed().as_secs_f64(), "replayed");
    let mut failed = Vec::new();
    for (name, sql) in queries {
        match standing.engine.query(&sql, &|table| standing.tables.get(table).cloned()).await {
            Ok((schema, batches)) => options.write(&name, &schema, &batches)?,
            Err(error) => failed.push(Error::other(name, error).chain()),
        }
    }
    info!(seconds = started.elapsed().as_secs_f64(), "answered");
    match failed.as_slice() {
        [] => Ok(()),
        some => Err(Error::other("a query failed", some.join("\n"))),
    }
}

/// The engine at exactly the wanted offsets, with the source tables as they stand there.
struct Standing {
    engine: Engine,
    tables: HashMap<Arc<str>, RecordBatch>,
}

async fn replay_into_engine(
    options: &Options,
    planned: Planned,
    upto: Option<Offsets>,
    dir: &Path,
) -> Result<Standing, Error> {
    let log: Arc<dyn Log> = LocalLog::open(dir, LocalLogOptions::default())?;
    let end = replay::copy(&options.replay, log.clone(), Speed::Max, upto, CancellationToken::new()).await?;
    let target = planned.source_topics()?.only(&end);
    let names: Vec<_> = planned.tables.iter().map(|t| t.name.clone()).collect();
    let stream = StreamClock::default();
    let clock = options.now.map_or_else(|| stream.manual(), ManualClock::at);
    let business_clock: Arc<dyn Clock> = Arc::new(clock.clone());
    let ingest_options = IngestOptions { epoch_records_max: EPOCH_RECORDS, business_clock, ..IngestOptions::default() };
    let kept = KeptState::open(options.state.as_deref(), &planned.program, &target).await?;
    let from = kept.restored.as_ref().map(|r| r.source.clone()).unwrap_or_default();
    let mut source = Ingest::resume(log, planned.tables, ingest_options, &from)
        .await
        .map_err(|e| Error::other("cannot read the sources", e))?;
    let failed = |e: pipelines::Error| Error::other("cannot start the engine", e);
    let mut engine = Engine::new(planned.program, Arc::new(clock)).map_err(failed)?;
    let saver = kept.saver(&mut engine).map_err(failed)?;
    let mut at = from.offsets;
    if let Some(restored) = &kept.restored {
        stream.observe(restored.as_of_us());
        engine.restore(restored).map_err(failed)?;
    }
    drop(kept);
    let mut last_progress = Instant::now();
    let mut save_due = Instant::now() + SAVE_INTERVAL;
    while !at.reached(&target) {
        let epoch = source.next_epoch(READ_WAIT).await.map_err(|e| Error::other("cannot read the sources", e))?;
        if let Some(epoch) = epoch {
            at.merge(&epoch.offsets);
            epoch.max_event_time_us.into_iter().for_each(|time_us| stream.observe(time_us));
            engine.step(&epoch, StepMode::Normal);
            last_progress = Instant::now();
        } else if last_progress.elapsed() > STALL_TIMEOUT {
            return Err(stalled(&at, &target));
        }
        if let (Some(saver), true) = (&saver, Instant::now() >= save_due) {
            saver.save(&mut engine).await.map_err(|e| Error::other("cannot store the state", e))?;
            save_due = Instant::now() + SAVE_INTERVAL;
        }
    }
    let expired = source.expire().map_err(|e| Error::other("cannot read the sources", e))?;
    engine.step(&expired, StepMode::Flush);
    if let Some(saver) = saver {
        saver.save(&mut engine).await.map_err(|e| Error::other("cannot store the state", e))?;
        saver.close().await.map_err(|e| Error::other("cannot store the state", e))?;
    }
    if source.dead_letters() > 0 {
        warn!(records = source.dead_letters(), "some records could not be decoded and are left out");
    }
    let tables = names.into_iter().filter_map(|name| Some((name.clone(), source.table_rows(&name)?))).collect();
    Ok(Standing { engine, tables })
}

/// State between two runs, if it is wanted.
struct KeptState {
    store: Option<StateStore>,
    restored: Option<Restored>,
}

impl KeptState {
    async fn open(dir: Option<&Path>, program: &Program, target: &Offsets) -> Result<Self, Error> {
        let Some(dir) = dir else { return Ok(Self { store: None, restored: None }) };
        let failed = |e: StateError| Error::other("cannot use the stored state", e);
        let store = StateStore::open(&dir.display().to_string()).await.map_err(failed)?;
        let restored = store.restore(program).await.map_err(failed)?;
        let offsets = restored.iter().flat_map(|r| r.source.offsets.iter());
        for (topic, partition, next) in offsets.filter(|(.., next)| *next > 0) {
            if target.get(topic, partition).is_none_or(|end| end < next) {
                let reason = format!("the state in {} is past offset {next} of {topic}", dir.display());
                return Err(Error::other(reason, "it cannot go back; take another folder for --state"));
            }
        }
        Ok(Self { store: Some(store), restored })
    }

    fn saver(&self, engine: &mut Engine) -> Result<Option<Saver>, pipelines::Error> {
        let Some(store) = &self.store else { return Ok(None) };
        Saver::new(store.clone(), engine, self.restored.as_ref()).map(Some)
    }
}

fn stalled(at: &Offsets, target: &Offsets) -> Error {
    let is_missing = |(topic, partition, next): &(&str, i32, i64)| at.get(topic, *partition).unwrap_or(0) < *next;
    let missing: Vec<_> = target.iter().filter(is_missing).map(|(topic, ..)| topic).collect();
    Error::other("the sources cannot be read", format!("nothing more came of {}", missing.join(", ")))
}

/// Offsets alone, or a checkpoint that has them under `kafka_end_offsets`.
fn read_offsets(path: &Path) -> Result<Offsets, Error> {
    let text = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
    let wrong = |e: serde_json::Error| Error::Content {
        path: path.to_owned(),
        reason: format!("not a JSON object topic → partition → next offset: {e}"),
    };
    let mut json: serde_json::Value = serde_json::from_str(&text).map_err(wrong)?;
    if let Some(inner) = json.get_mut("kafka_end_offsets") {
        json = inner.take();
    }
    serde_json::from_value(json).map_err(wrong)
}

impl Options {
    /// The shipped rules are there to be asked as well, unless the views that they read were replaced.
    fn sql_set(&self) -> Result<SqlSet, Error> {
        let rules = match (&self.folders.rules, &self.folders.views) {
            (Some(dir), _) => RuleChoice::Folder(dir),
            (None, Some(_)) => RuleChoice::None,
            (None, None) => RuleChoice::Shipped,
        };
        SqlSet::new(&self.source, self.folders.views.as_deref(), rules)
    }

    /// Name and text of what is to be asked.
    fn queries(&self) -> Result<Vec<(String, String)>, Error> {
        let Some(dir) = &self.queries else {
            return Ok(self.statement.iter().map(|sql| ("the statement".to_owned(), sql.clone())).collect());
        };
        let files = shipped::folder(dir)?;
        let stem = |path: &str| Path::new(path).file_stem().map(|s| s.to_string_lossy().into_owned());
        Ok(files.into_iter().map(|f| (stem(&f.path).unwrap_or_default(), f.text)).collect())
    }

    fn write(&self, name: &str, schema: &SchemaRef, batches: &[RecordBatch]) -> Result<(), Error> {
        let fail = |e: output::WriteError| Error::other("cannot write the result", e);
        let Some(dir) = &self.out else {
            let mut out = std::io::BufWriter::new(std::io::stdout().lock());
            return output::write(&mut out, self.format, schema, batches).map_err(fail);
        };
        std::fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
        let mut text = Vec::new();
        output::write(&mut text, Format::Csv, schema, batches).map_err(fail)?;
        let path = dir.join(format!("{name}.csv"));
        let mut file = std::fs::File::create(&path).map_err(Error::file("create", &path))?;
        file.write_all(&text).map_err(Error::file("write", &path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_may_have_a_zone_or_is_utc() {
        let expected = Ok(1_760_464_800_000_000);
        for text in
            ["2025-10-14T18:00:00Z", "2025-10-14T20:00:00+02:00", "2025-10-14 18:00:00", "2025-10-14T18:00:00.0"]
        {
            assert_eq!(parse_time(text), expected, "{text}");
        }
        assert!(parse_time("yesterday").is_err());
    }

    #[test]
    fn offsets_stand_alone_or_in_a_checkpoint() {
        let dir = tempfile::tempdir().expect("temp folder");
        let path = dir.path().join("o.json");
        for text in [r#"{"t": {"0": 5, "1": 7}}"#, r#"{"now": "x", "kafka_end_offsets": {"t": {"0": 5, "1": 7}}}"#] {
            std::fs::write(&path, text).expect("written");
            let offsets = read_offsets(&path).expect("readable");
            assert_eq!((offsets.get("t", 0), offsets.get("t", 1)), (Some(5), Some(7)));
        }
        std::fs::write(&path, "[1]").expect("written");
        assert!(read_offsets(&path).expect_err("no object").to_string().contains("next offset"));
    }
}
