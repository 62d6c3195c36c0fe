//! Cost of a change, memory and restart against the size of the state.
//!
//! `cargo bench -p andon --bench growth [-- keys=10000,100000,1000000,5000000] [queries=aggregate,join,top] [changes=N]`.
//! Prints a Markdown table; nothing is judged here. docs/benchmarks.md holds figures with their machine.
//!
//! Each case is two processes of this program. The first loads so many rows, each under a key of its own, from the log
//! through the engine into a state on disk; what it then holds in memory more than at its start counts. The second
//! starts from the state; measured is the time until the views stand again. Then come updates of random keys, in epochs
//! of [`EPOCH_RECORDS`], with a checkpoint after each [`EPOCHS_PER_SAVE`]; the CPU time of the whole process counts:
//! decoding, the source table, the operators, the view's rows and the state on disk with its merging.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ingest::log::{LocalLog, LocalLogOptions};
use ingest::{Ingest, IngestOptions};
use model::clock::SystemClock;
use model::{AppendRecord, EpochSource, Log, Offsets, SourceTable, SqlFile};
use pipelines::{Engine, Program, Saver, StateStore, StepMode};

/// Records of an epoch while changes are measured: small, so that few of them meet in one key of the smallest state.
const EPOCH_RECORDS: usize = 1_000;
/// Epochs between two checkpoints.
const EPOCHS_PER_SAVE: usize = 10;
const RECORDS_PER_APPEND: u64 = 20_000;
/// Partitions of the Top-N; its state grows within them.
const N_GROUPS: u64 = 100;
/// Rows of `item` for each of `account`.
const ITEMS_PER_ACCOUNT: u64 = 10;
const ITEM: &str = "growth.item";
const ACCOUNT: &str = "growth.account";

const SOURCE: &str = "
CREATE TABLE item (id BIGINT NOT NULL, account BIGINT, grp BIGINT, amount DECIMAL(18, 2), note STRING,
  PRIMARY KEY (id) NOT ENFORCED)
  WITH ('connector' = 'kafka', 'topic' = 'growth.item', 'format' = 'debezium-json');
CREATE TABLE account (id BIGINT NOT NULL, name STRING, PRIMARY KEY (id) NOT ENFORCED)
  WITH ('connector' = 'kafka', 'topic' = 'growth.account', 'format' = 'debezium-json');
";

/// Name and text of each query.
const QUERIES: [(&str, &str); 3] = [
    (
        "aggregate",
        "CREATE MATERIALIZED VIEW result AS
         SELECT id, COUNT(*) AS n, SUM(amount) AS amount, MAX(amount) AS amount_max FROM item GROUP BY id;",
    ),
    (
        "join",
        "CREATE MATERIALIZED VIEW result WITH ('key' = 'id') AS
         SELECT i.id, a.name, i.amount, i.note FROM item i JOIN account a ON i.account = a.id;",
    ),
    (
        "top",
        "CREATE MATERIALIZED VIEW result WITH ('key' = 'grp, place') AS
         SELECT grp, id, amount, place FROM (
           SELECT grp, id, amount, ROW_NUMBER() OVER (PARTITION BY grp ORDER BY amount DESC, id) AS place FROM item
         ) ranked WHERE place <= 10;",
    ),
];

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// One size of one query.
#[derive(Debug, Clone)]
struct Case {
    query: String,
    n_keys: u64,
    n_changes: u64,
    dir: PathBuf,
}

fn main() -> Result<(), AnyError> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| args.iter().find_map(|a| a.strip_prefix(name)?.strip_prefix('=').map(str::to_owned));
    let n_changes = value("changes").map_or(Ok(200_000), |n| n.parse())?;
    let queries: Vec<String> = match value("queries") {
        Some(names) => names.split(',').map(str::to_owned).collect(),
        None => QUERIES.iter().map(|(name, _)| (*name).to_owned()).collect(),
    };
    if let (Some(part), Some(dir)) = (value("part"), value("dir")) {
        let n_keys = value("keys").ok_or("no keys")?.parse()?;
        let query = queries.into_iter().next().ok_or("no query")?;
        let case = Case { query, n_keys, n_changes, dir: PathBuf::from(dir) };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        return runtime.block_on(case.part(&part));
    }
    let keys = value("keys").unwrap_or_else(|| "10000,100000,1000000,5000000".to_owned());
    println!(
        "| query | keys | CPU µs per change | of it the engine's step | memory, MB | bytes per key | restart, s |"
    );
    println!("|---|---|---|---|---|---|---|");
    for query in queries {
        for n_keys in keys.split(',') {
            let dir = tempfile::tempdir()?;
            let case = Case { query: query.clone(), n_keys: n_keys.parse()?, n_changes, dir: dir.path().to_owned() };
            let loaded = case.child("load")?;
            let changed = case.child("change")?;
            let [bytes] = loaded[..] else { return Err("the first process says something else".into()) };
            let (mb, per_key) = (bytes / 1e6, bytes / case.n_keys as f64);
            let [restart, cpu, engine] = changed[..] else {
                return Err("the second process says something else".into());
            };
            println!("| {query} | {n_keys} | {cpu:.2} | {engine:.2} | {mb:.0} | {per_key:.0} | {restart:.2} |");
        }
    }
    Ok(())
}

impl Case {
    /// Runs a part in a process of its own; returns the figures that it prints.
    fn child(&self, part: &str) -> Result<Vec<f64>, AnyError> {
        let output = Command::new(std::env::current_exe()?)
            .arg(format!("part={part}"))
            .arg(format!("queries={}", self.query))
            .arg(format!("keys={}", self.n_keys))
            .arg(format!("changes={}", self.n_changes))
            .arg(format!("dir={}", self.dir.display()))
            .output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        let text = String::from_utf8(output.stdout)?;
        text.split_whitespace().map(|figure| Ok(figure.parse()?)).collect()
    }

    async fn part(&self, part: &str) -> Result<(), AnyError> {
        let log: Arc<dyn Log> = LocalLog::open(&self.dir.join("log"), LocalLogOptions::default())?;
        match part {
            "load" => self.load(&log).await,
            _ => self.change(&log).await,
        }
    }

    fn program(&self) -> Result<(Vec<SourceTable>, Program), AnyError> {
        let file = |path: &str, text: &str| SqlFile { path: path.to_owned(), text: text.to_owned() };
        let tables = ingest::ddl::parse_tables(&[file("source.sql", SOURCE)]).map_err(|all| format!("{all:?}"))?;
        let (_, sql) = QUERIES.iter().find(|(name, _)| *name == self.query).ok_or("no such query")?;
        let program = Program::load(&tables, &[file("query.sql", sql)], &[]).map_err(|all| format!("{all:?}"))?;
        Ok((tables, program))
    }

    async fn store(&self) -> Result<StateStore, AnyError> {
        Ok(StateStore::open(&self.dir.join("state").display().to_string()).await?)
    }

    /// Loads the rows and stores the state; prints the bytes of memory that it takes.
    async fn load(&self, log: &Arc<dyn Log>) -> Result<(), AnyError> {
        let accounts = (0..self.n_keys.div_ceil(ITEMS_PER_ACCOUNT)).map(account);
        write(log, accounts).await?;
        write(log, (0..self.n_keys).map(|id| item(id, id, self.n_keys, 0))).await?;
        let before = resident_bytes()?;
        let (tables, program) = self.program()?;
        let mut engine = Engine::new(program, Arc::new(SystemClock))?;
        let saver = Saver::new(self.store().await?, &mut engine, None)?;
        let source = Ingest::open(Arc::clone(log), tables, IngestOptions::default()).await?;
        let end = ends(&**log).await?;
        let mut run = Run { engine, source, saver, at: Offsets::default(), engine_seconds: 0.0 };
        run.until(&end).await?;
        let bytes = resident_bytes()?.saturating_sub(before);
        run.saver.close().await?;
        println!("{bytes}");
        Ok(())
    }

    /// Starts from the state and takes updates in; prints seconds until the views stand, µs of CPU time per change, and
    /// µs that the engine's steps take of it.
    async fn change(&self, log: &Arc<dyn Log>) -> Result<(), AnyError> {
        let mut random = Random(self.n_keys);
        let updates = (0..self.n_changes).map(|i| item(random.next() % self.n_keys, random.next(), self.n_keys, i + 1));
        write(log, updates).await?;
        let started = Instant::now();
        let (tables, program) = self.program()?;
        let store = self.store().await?;
        let restored = store.restore(&program).await?.ok_or("nothing is stored")?;
        let options = IngestOptions { epoch_records_max: EPOCH_RECORDS, ..IngestOptions::default() };
        let source = Ingest::resume(Arc::clone(log), tables, options, &restored.source).await?;
        let mut engine = Engine::new(program, Arc::new(SystemClock))?;
        let saver = Saver::new(store, &mut engine, Some(&restored))?;
        engine.restore(&restored)?;
        let restart = started.elapsed().as_secs_f64();
        let at = restored.source.offsets.clone();
        drop(restored);
        let end = ends(&**log).await?;
        let cpu = cpu_seconds()?;
        let mut run = Run { engine, source, saver, at, engine_seconds: 0.0 };
        run.until(&end).await?;
        let micros = |seconds: f64| seconds * 1e6 / self.n_changes as f64;
        let cpu = cpu_seconds()? - cpu;
        run.saver.close().await?;
        println!("{restart} {} {}", micros(cpu), micros(run.engine_seconds));
        Ok(())
    }
}

/// The engine between log and state.
struct Run {
    engine: Engine,
    source: Ingest,
    saver: Saver,
    at: Offsets,
    /// CPU time of the engine's steps.
    engine_seconds: f64,
}

impl Run {
    async fn until(&mut self, end: &Offsets) -> Result<(), AnyError> {
        let mut n_epochs = 0_usize;
        while !self.at.reached(end) {
            let Some(epoch) = self.source.next_epoch(Duration::from_millis(100)).await? else { continue };
            self.at.merge(&epoch.offsets);
            let started = thread_seconds()?;
            self.engine.step(&epoch, StepMode::Normal);
            self.engine_seconds += thread_seconds()? - started;
            n_epochs += 1;
            if n_epochs.is_multiple_of(EPOCHS_PER_SAVE) {
                self.saver.save(&mut self.engine).await?;
            }
        }
        self.saver.save(&mut self.engine).await?;
        Ok(())
    }
}

async fn ends(log: &dyn Log) -> Result<Offsets, AnyError> {
    let mut ends = Offsets::default();
    for topic in [ITEM, ACCOUNT] {
        for p in log.offsets(topic).await? {
            ends.set(topic, p.partition, p.end);
        }
    }
    Ok(ends)
}

async fn write(log: &Arc<dyn Log>, mut records: impl Iterator<Item = AppendRecord>) -> Result<(), AnyError> {
    loop {
        let some: Vec<AppendRecord> = records.by_ref().take(RECORDS_PER_APPEND as usize).collect();
        if some.is_empty() {
            return Ok(());
        }
        log.append(some).await?;
    }
}

/// A row of `item`; `version` is its place in the source, `value` decides on its amount.
fn item(id: u64, value: u64, n_keys: u64, version: u64) -> AppendRecord {
    let account = id % n_keys.div_ceil(ITEMS_PER_ACCOUNT);
    let mixed = Random(value).next();
    let row = format!(
        r#"{{"id":{id},"account":{account},"grp":{},"amount":"{}.{:02}","note":"note {:016x}"}}"#,
        id % N_GROUPS,
        mixed % 1_000_000,
        mixed % 100,
        mixed
    );
    record(ITEM, id, &row, n_keys + version)
}

fn account(id: u64) -> AppendRecord {
    record(ACCOUNT, id, &format!(r#"{{"id":{id},"name":"account {id}"}}"#), id + 1)
}

fn record(topic: &str, id: u64, row: &str, position: u64) -> AppendRecord {
    AppendRecord {
        topic: Arc::from(topic),
        partition: Some(0),
        timestamp_ms: None,
        key: Some(Bytes::from(format!(r#"{{"id":{id}}}"#))),
        value: Some(Bytes::from(format!(
            r#"{{"before":null,"after":{row},"source":{{"lsn":{position}}},"op":"u","ts_ms":1}}"#
        ))),
        headers: Vec::new(),
    }
}

/// SplitMix64: the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Resident memory of this process.
fn resident_bytes() -> Result<u64, AnyError> {
    let status = std::fs::read_to_string(Path::new("/proc/self/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024)
}

/// CPU time of this thread so far.
fn thread_seconds() -> Result<f64, AnyError> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split_whitespace().next().ok_or("empty schedstat")?.parse::<f64>()? / 1e9)
}

/// CPU time of this process so far, all threads.
fn cpu_seconds() -> Result<f64, AnyError> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |at: usize| -> Result<f64, AnyError> { Ok(fields.get(at).ok_or("short stat")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}
