//! kill -9 of the engine and of the broker, again and again, under a stream of changes on a real Kafka.
//!
//! A bank: accounts change by transfers, two at a time, and each change raises the account's version; the transfers are
//! an append-only table as well. Whoever reads the output topics, `read_committed` and by key, may see only this:
//!
//! - a row of a key is what plain SQL gives over the source topic up to *some* record: the version says which, and the
//!   other columns must be what they were there;
//! - the version of a key never goes back;
//! - a window that is emitted when it closes has one value for ever;
//! - two views over one table stand at the same record at the end of each epoch, except for the epoch that a kill of the
//!   engine broke off;
//! - in the end all tables equal those of an engine that nobody disturbed.
//!
//! `ANDON_KILLS=200 ANDON_KILLS_SEED=n cargo test -p andon --test it kills -- --nocapture`

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dev_services::Kafka;
use ingest::log::{KafkaLog, KafkaOptions, LocalLog, LocalLogOptions};
use ingest::{Ingest, IngestOptions};
use model::clock::SystemClock;
use model::log::{PollLimit, TopicSpec};
use model::view::EpochMark;
use model::{AppendRecord, Log, LogReader, Offsets, Record, SqlFile, TopicSelector, topics};
use pipelines::{Engine, Program, RunOptions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::support::{PATIENCE, andon};

const N_ACCOUNTS: u64 = 200;
const N_BRANCHES: u64 = 10;
/// Kills in an ordinary run.
const N_KILLS: u32 = 5;
/// One kill of so many is the broker's.
const BROKER_EVERY: u32 = 5;
/// The engine lives so long between two kills, milliseconds: every other time from its start, so that it may die before
/// it has taken its state up, else from the first change that it has written.
const LIFE_MS: std::ops::Range<u64> = 50..2_000;
const TRANSFERS_PER_APPEND: u64 = 50;
const APPEND_PAUSE: Duration = Duration::from_millis(25);
const POLL: PollLimit = PollLimit { max_records: 8_192, max_bytes: 16 << 20, wait: Duration::from_millis(50) };
const ACCOUNT: &str = "bank.account";
const TRANSFER: &str = "bank.transfer";
const VIEWS: [&str; 6] = ["accounts", "branches", "total", "flows", "seconds", "richest"];

const TABLES: &str = "
CREATE TABLE account (id BIGINT NOT NULL, branch BIGINT, version BIGINT, balance BIGINT, PRIMARY KEY (id) NOT ENFORCED)
  WITH ('connector' = 'kafka', 'topic' = 'bank.account', 'format' = 'debezium-json');
CREATE TABLE transfer (id BIGINT, target BIGINT, amount DECIMAL(18, 2), at TIMESTAMP(3),
  WATERMARK FOR at AS at - INTERVAL '1' SECOND)
  WITH ('connector' = 'kafka', 'topic' = 'bank.transfer', 'format' = 'json');
";

const QUERIES: &str = "
CREATE MATERIALIZED VIEW accounts WITH ('key' = 'id') AS SELECT id, branch, version, balance FROM account;
CREATE MATERIALIZED VIEW branches AS
SELECT branch, SUM(version) AS version, SUM(balance) AS balance FROM account GROUP BY branch;
CREATE MATERIALIZED VIEW total AS SELECT SUM(version) AS version, SUM(balance) AS balance FROM account;
CREATE MATERIALIZED VIEW flows AS
SELECT target, COUNT(*) AS version, SUM(amount) AS amount, MAX(amount) AS amount_max FROM transfer GROUP BY target;
CREATE MATERIALIZED VIEW seconds AS
SELECT window_start, window_end, COUNT(*) AS n, SUM(amount) AS amount
FROM TABLE(TUMBLE(TABLE transfer, DESCRIPTOR(at), INTERVAL '1' SECOND)) GROUP BY window_start, window_end
EMIT ON WINDOW CLOSE;
CREATE MATERIALIZED VIEW richest WITH ('key' = 'branch, place') AS
SELECT branch, id, balance, place FROM (
  SELECT branch, id, balance, ROW_NUMBER() OVER (PARTITION BY branch ORDER BY balance DESC, id ASC) AS place FROM account
) ranked WHERE place <= 3;
";

/// Set by the environment, with a default.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_of_engine_and_broker_show_no_reader_what_never_was() {
    let n_kills = u32::try_from(setting("ANDON_KILLS", N_KILLS.into())).expect("not so many");
    let seed = setting("ANDON_KILLS_SEED", rand::rng().random_range(0..1_000_000));
    println!("{n_kills} kills, ANDON_KILLS_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().expect("a temporary folder");
    let kafka = Arc::new(tokio::task::spawn_blocking(Kafka::start).await.expect("no panic").expect("Kafka starts"));
    let log: Arc<dyn Log> = KafkaLog::connect(KafkaOptions::new(kafka.brokers())).await.expect("it answers");
    for topic in [ACCOUNT, TRANSFER] {
        log.create_topic(topic, TopicSpec::default()).await.expect("a topic");
    }
    let config = write_config(dir.path(), kafka.brokers());
    let stop = Arc::new(AtomicBool::new(false));
    let bank = tokio::spawn(transfers(Arc::clone(&log), StdRng::seed_from_u64(seed), Arc::clone(&stop)));
    let mut engine = Process::start(&config, dir.path());
    let mut n_engine_kills = 0;
    for kill in 1..=n_kills {
        if kill % 2 == 1 {
            has_written(&log, &mut engine).await;
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(LIFE_MS))).await;
        engine.check();
        if kill % BROKER_EVERY == 0 {
            let kafka = Arc::clone(&kafka);
            tokio::task::spawn_blocking(move || kafka.kill().and_then(|()| kafka.restart()))
                .await
                .expect("no panic")
                .expect("the broker comes back");
        } else {
            drop(engine);
            n_engine_kills += 1;
            engine = Process::start(&config, dir.path());
        }
    }
    stop.store(true, Ordering::Release);
    bank.await.expect("no panic");

    let ledger = Ledger::read(&log).await;
    println!("{} changes of accounts, {} transfers", ledger.n_changes, ledger.n_transfers);
    let expected = undisturbed(&log).await;
    let mut seen = Seen::new(&log).await;
    let waiting = Instant::now();
    while seen.tables != expected {
        engine.check();
        if waiting.elapsed() > PATIENCE {
            panic!("{}\n{}", difference(&seen.tables, &expected), engine.log());
        }
        seen.poll(&ledger).await;
    }
    let broken_off = seen.epochs_apart();
    println!("{} records read, {broken_off} epochs broken off by {n_engine_kills} kills", seen.n_records);
    assert!(broken_off <= n_engine_kills, "{broken_off} epochs are torn");
    drop(engine);
}

/// Waits until the engine writes.
async fn has_written(log: &Arc<dyn Log>, engine: &mut Process) {
    let end = async || log.offsets(&topics::view("total")).await.ok().and_then(|all| Some(all.first()?.end));
    let (before, waiting) = (end().await, Instant::now());
    while end().await <= before {
        engine.check();
        assert!(waiting.elapsed() < PATIENCE, "nothing is written: {}", engine.log());
        tokio::time::sleep(APPEND_PAUSE).await;
    }
}

/// The node; killed when dropped.
struct Process {
    child: Child,
    log: std::path::PathBuf,
}

impl Process {
    fn start(config: &Path, dir: &Path) -> Self {
        let log = dir.join("node.log");
        let file = std::fs::File::create(&log).expect("a file");
        let child = andon()
            .args(["serve", "--stage", "pipelines", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("the binary starts");
        Self { child, log }
    }

    /// Fails the test if it has ended by itself.
    fn check(&mut self) {
        let ended = self.child.try_wait().expect("it can be asked");
        assert!(ended.is_none(), "it ended by itself: {}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("readable")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }
}

fn write_config(dir: &Path, brokers: &str) -> std::path::PathBuf {
    for (folder, text) in [("source", TABLES), ("views", QUERIES)] {
        std::fs::create_dir(dir.join(folder)).expect("a folder");
        std::fs::write(dir.join(folder).join("bank.sql"), text).expect("written");
    }
    let text = format!(
        "[kafka]\nbrokers = {brokers:?}\n[state]\nlocation = {:?}\ncheckpoint_ms = 300\n[source]\ndir = {:?}\n\
         [views]\ndir = {:?}\n[rules]\nenabled = false\n",
        dir.join("state"),
        dir.join("source"),
        dir.join("views"),
    );
    let path = dir.join("andon.toml");
    std::fs::write(&path, text).expect("written");
    path
}

/// Opens all accounts, then moves money until told to stop.
async fn transfers(log: Arc<dyn Log>, mut random: StdRng, stop: Arc<AtomicBool>) {
    let mut accounts = vec![(0_u64, 0_i64); usize::try_from(N_ACCOUNTS).expect("few")];
    let mut position = 0;
    let mut change = |account: u64, by: i64, accounts: &mut Vec<(u64, i64)>| {
        position += 1;
        let (version, balance) = &mut accounts[usize::try_from(account).expect("few")];
        *version += 1;
        *balance += by;
        let branch = account % N_BRANCHES;
        let value = format!(
            r#"{{"before":null,"after":{{"id":{account},"branch":{branch},"version":{version},"balance":{balance}}},"source":{{"lsn":{position}}},"op":"u"}}"#
        );
        record(ACCOUNT, Some(format!(r#"{{"id":{account}}}"#)), value)
    };
    append(&log, (0..N_ACCOUNTS).map(|account| change(account, 0, &mut accounts)).collect()).await;
    let mut n_transfers = 0_i64;
    while !stop.load(Ordering::Acquire) {
        let mut records = Vec::new();
        for _ in 0..TRANSFERS_PER_APPEND {
            let (from, to) = (random.random_range(0..N_ACCOUNTS), random.random_range(0..N_ACCOUNTS));
            let cents: i64 = random.random_range(1..100_000);
            records.push(change(from, -cents, &mut accounts));
            records.push(change(to, cents, &mut accounts));
            n_transfers += 1;
            let at = chrono::DateTime::from_timestamp_millis(1_767_225_600_000 + n_transfers).expect("in range");
            let value = format!(
                r#"{{"id":{n_transfers},"target":{to},"amount":"{}.{:02}","at":"{}"}}"#,
                cents / 100,
                cents % 100,
                at.format("%Y-%m-%d %H:%M:%S%.3f")
            );
            records.push(record(TRANSFER, None, value));
        }
        append(&log, records).await;
        tokio::time::sleep(APPEND_PAUSE).await;
    }
}

fn record(topic: &str, key: Option<String>, value: String) -> AppendRecord {
    AppendRecord {
        topic: Arc::from(topic),
        partition: Some(0),
        timestamp_ms: None,
        key: key.map(Bytes::from),
        value: Some(Bytes::from(value)),
        headers: Vec::new(),
    }
}

/// While the broker is away the same records are sent again: the changes have positions, and of the transfers it is the
/// topic that counts.
async fn append(log: &Arc<dyn Log>, records: Vec<AppendRecord>) {
    let started = Instant::now();
    while let Err(error) = log.append(records.clone()).await {
        assert!(started.elapsed() < PATIENCE, "the broker stays away: {error}");
        tokio::time::sleep(APPEND_PAUSE).await;
    }
}

/// What a reader of the source topics knows after each record.
#[derive(Default)]
struct Ledger {
    /// View, key and version → the columns that must go with them.
    rows: BTreeMap<(&'static str, u64, u64), String>,
    n_changes: u64,
    n_transfers: u64,
}

/// An account or a sum of accounts.
#[derive(Default, Clone, Copy)]
struct Sum {
    version: u64,
    balance: i64,
}

impl Ledger {
    async fn read(log: &Arc<dyn Log>) -> Self {
        let mut ledger = Self::default();
        let mut positions: BTreeMap<u64, i64> = BTreeMap::new();
        let mut accounts: BTreeMap<u64, Sum> = BTreeMap::new();
        let mut sums: BTreeMap<(&'static str, u64), Sum> = BTreeMap::new();
        for value in all_of(log, ACCOUNT).await {
            let (row, position) = (&value["after"], value["source"]["lsn"].as_i64().expect("a position"));
            let id = row["id"].as_u64().expect("an id");
            // Sent again.
            if positions.get(&id).is_some_and(|known| *known >= position) {
                continue;
            }
            positions.insert(id, position);
            let now = Sum {
                version: row["version"].as_u64().expect("a version"),
                balance: row["balance"].as_i64().expect("cents"),
            };
            let before = accounts.insert(id, now).unwrap_or_default();
            for place in [("accounts", id), ("branches", id % N_BRANCHES), ("total", 0)] {
                let sum = sums.entry(place).or_default();
                sum.version += now.version - before.version;
                sum.balance += now.balance - before.balance;
                ledger.rows.insert((place.0, place.1, sum.version), sum.balance.to_string());
            }
            ledger.n_changes += 1;
        }
        let mut flows: BTreeMap<u64, (u64, i64, i64)> = BTreeMap::new();
        for value in all_of(log, TRANSFER).await {
            let target = value["target"].as_u64().expect("a target");
            let cents: i64 = value["amount"].as_str().expect("a text").replace('.', "").parse().expect("a number");
            let (n, sum, max) = flows.entry(target).or_default();
            (*n, *sum, *max) = (*n + 1, *sum + cents, cents.max(*max));
            ledger.rows.insert(("flows", target, *n), format!("{sum} {max}"));
            ledger.n_transfers += 1;
        }
        ledger
    }

    /// Checks a row that a reader saw; its key and version.
    fn check(&self, view: &'static str, row: &Value) -> (u64, u64) {
        let number = |name: &str| cents(&row[name]);
        let count = |name: &str| u64::try_from(number(name)).expect("not negative");
        let key = match view {
            "accounts" => count("id"),
            "branches" => count("branch"),
            "flows" => count("target"),
            _ => 0,
        };
        let version = count("version");
        let found = match view {
            "flows" => format!("{} {}", number("amount"), number("amount_max")),
            _ => number("balance").to_string(),
        };
        assert_eq!(Some(&found), self.rows.get(&(view, key, version)), "no epoch had this row of {view}: {row}");
        (key, version)
    }
}

/// A whole number, or a decimal in hundredths.
fn cents(value: &Value) -> i64 {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.replace('.', "").parse().unwrap_or_else(|_| panic!("no number: {value}"))
}

/// The values of a topic's records, in order.
async fn all_of(log: &Arc<dyn Log>, topic: &str) -> Vec<Value> {
    let parse = |r: Record| serde_json::from_slice(&r.value.expect("a value")).expect("JSON");
    records_of(log, topic).await.into_iter().map(parse).collect()
}

async fn records_of(log: &Arc<dyn Log>, topic: &str) -> Vec<Record> {
    let mut records = Vec::new();
    let end = log.offsets(topic).await.expect("offsets").first().map_or(0, |p| p.end);
    let selector = vec![TopicSelector::Name(topic.to_owned())];
    let mut reader = log.read(selector, &Offsets::default()).await.expect("a reader");
    let (mut next, waiting) = (0, Instant::now());
    while next < end {
        assert!(waiting.elapsed() < PATIENCE, "{topic} is read to {next} of {end}");
        for batch in reader.poll(POLL).await.expect("records") {
            next = batch.next_offset();
            records.extend(batch.records);
        }
    }
    records
}

type Tables = BTreeMap<&'static str, BTreeMap<Bytes, Bytes>>;

/// What readers of the output topics have seen.
struct Seen {
    reader: Box<dyn LogReader>,
    tables: Tables,
    versions: BTreeMap<(&'static str, u64), u64>,
    /// Epoch and sum of the versions, of `accounts` and of `total`.
    sums: [BTreeMap<u64, u64>; 2],
    n_records: u64,
}

impl Seen {
    async fn new(log: &Arc<dyn Log>) -> Self {
        let names = VIEWS.iter().map(|view| TopicSelector::Name(topics::view(view))).collect();
        let reader = log.read(names, &Offsets::default()).await.expect("a reader");
        let tables = VIEWS.iter().map(|view| (*view, BTreeMap::new())).collect();
        Self { reader, tables, versions: BTreeMap::new(), sums: Default::default(), n_records: 0 }
    }

    /// Reads on; a record that may not be there fails the test.
    async fn poll(&mut self, ledger: &Ledger) {
        for batch in self.reader.poll(POLL).await.expect("records") {
            let view = *VIEWS.iter().find(|view| *topics::view(view) == *batch.topic).expect("one of them");
            for record in batch.records {
                self.n_records += 1;
                self.record(view, &record, ledger);
            }
        }
    }

    fn record(&mut self, view: &'static str, record: &Record, ledger: &Ledger) {
        let key = record.key.clone().expect("a key");
        let table = self.tables.get_mut(view).expect("there is one");
        let Some(text) = record.value.clone() else {
            assert_eq!(view, "richest", "no row of {view} is ever deleted");
            table.remove(&key);
            return;
        };
        let row: Value = serde_json::from_slice(&text).expect("JSON");
        let before = table.insert(key, text.clone());
        match view {
            "richest" => {}
            "seconds" => assert!(before.is_none_or(|b| b == text), "a closed window has changed: {row}"),
            _ => {
                let (key, version) = ledger.check(view, &row);
                let known = self.versions.insert((view, key), version).unwrap_or(0);
                assert!(known <= version, "{view} goes back from version {known}: {row}");
                let epoch = EpochMark::from_record(record).expect("a mark").epoch;
                match view {
                    "accounts" => {
                        let last = self.sums[0].last_key_value().map_or(0, |(_, sum)| *sum);
                        self.sums[0].insert(epoch, last + version - known);
                    }
                    "total" => drop(self.sums[1].insert(epoch, version)),
                    _ => {}
                }
            }
        }
    }

    /// Number of epochs at whose end `accounts` and `total` stood at different records.
    fn epochs_apart(&self) -> u32 {
        let [accounts, total] = &self.sums;
        let at = |sums: &BTreeMap<u64, u64>, epoch: u64| sums.range(..=epoch).next_back().map_or(0, |(_, sum)| *sum);
        let epochs: std::collections::BTreeSet<u64> = accounts.keys().chain(total.keys()).copied().collect();
        let apart = epochs.iter().filter(|epoch| at(accounts, **epoch) != at(total, **epoch)).count();
        u32::try_from(apart).expect("few")
    }
}

/// The tables of an engine that reads the same records without a disturbance.
async fn undisturbed(kafka: &Arc<dyn Log>) -> Tables {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let log: Arc<dyn Log> = LocalLog::open(dir.path(), LocalLogOptions::default()).expect("a log");
    let mut n_records = 0;
    for topic in [ACCOUNT, TRANSFER] {
        let keyed = topic == ACCOUNT;
        let copy = |value: Value| {
            let key = keyed.then(|| format!(r#"{{"id":{}}}"#, value["after"]["id"]));
            record(topic, key, value.to_string())
        };
        let records: Vec<_> = all_of(kafka, topic).await.into_iter().map(copy).collect();
        n_records += records.len() as u64;
        log.append(records).await.expect("appended");
    }
    let file = |path: &str, text: &str| SqlFile { path: path.to_owned(), text: text.to_owned() };
    let tables = ingest::ddl::parse_tables(&[file("tables.sql", TABLES)]).expect("tables");
    let program = Program::load(&tables, &[file("views.sql", QUERIES)], &[]).expect("views");
    let engine = Engine::new(program, Arc::new(SystemClock)).expect("an engine");
    let source = Ingest::open(Arc::clone(&log), tables, IngestOptions::default()).await.expect("a source");
    let stop = CancellationToken::new();
    let run = pipelines::run(engine, Box::new(source), Arc::clone(&log), RunOptions::default(), None, stop.clone());
    let running = tokio::spawn(run);
    let waiting = Instant::now();
    let is_last = |s: &Value| s["phase"] == "live" && s["lag_records"] == 0 && s["records_read"] == n_records;
    while !all_of(&log, topics::STATUS).await.last().is_some_and(is_last) {
        assert!(waiting.elapsed() < PATIENCE, "it reads all");
        tokio::time::sleep(APPEND_PAUSE).await;
    }
    stop.cancel();
    running.await.expect("no panic").expect("it ends well");
    let mut found = Tables::new();
    for view in VIEWS {
        let mut rows = BTreeMap::new();
        for record in records_of(&log, &topics::view(view)).await {
            let key = record.key.expect("a key");
            match record.value {
                Some(value) => drop(rows.insert(key, value)),
                None => drop(rows.remove(&key)),
            }
        }
        found.insert(view, rows);
    }
    found
}

/// The first rows that only one of the two has.
fn difference(found: &Tables, expected: &Tables) -> String {
    let mut text = String::new();
    for view in VIEWS {
        let (found, expected) = (&found[view], &expected[view]);
        let only = |a: &BTreeMap<Bytes, Bytes>, b: &BTreeMap<Bytes, Bytes>| -> Vec<String> {
            let rows = a.iter().filter(|(key, value)| b.get(*key) != Some(value));
            rows.take(3).map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
        };
        text += &format!("{view}: {:?} and not {:?}\n", only(found, expected), only(expected, found));
    }
    text
}
