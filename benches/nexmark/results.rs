//! What the engines wrote, as tables, and whether it is the same.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::log::PollLimit;
use model::{Log, Offsets, TopicSelector, topics};
use serde_json::Value;

use crate::AnyError;

/// What Flink's topics start with.
pub(crate) const FLINK_PREFIX: &str = "flink.";
const POLL: PollLimit = PollLimit { max_records: 8_192, max_bytes: 16 << 20, wait: Duration::from_millis(250) };
const TIMEOUT: Duration = Duration::from_secs(120);
/// So many rows that only one has are shown.
const SHOWN_MAX: usize = 2;

/// Both results side by side.
#[derive(Debug, Clone)]
pub(crate) struct Compared {
    pub(crate) rows: usize,
    pub(crate) same: bool,
    /// What only one of the two has, if anything.
    pub(crate) difference: String,
}

/// Rows by their text, as often as they occur.
type Table = BTreeMap<String, i64>;

/// What a topic holds.
struct Content {
    rows: Table,
    /// Whether there were records without a key.
    keyless: bool,
}

fn once(mut rows: Table) -> Table {
    rows.values_mut().for_each(|n| *n = 1);
    rows
}

/// Reads both topics of a view to their ends.
pub(crate) async fn compare(log: &Arc<dyn Log>, view: &str) -> Result<Compared, AnyError> {
    let andon = table(log, &topics::view(view)).await?;
    let flink = table(log, &format!("{FLINK_PREFIX}{view}")).await?;
    // Andon's topic holds equal rows once, since the whole row is its key where there is no other.
    let (andon, flink) = match flink.keyless {
        true => (once(andon.rows), once(flink.rows)),
        false => (andon.rows, flink.rows),
    };
    let only = |a: &Table, b: &Table| -> Vec<String> {
        a.iter().filter(|(row, n)| b.get(*row) != Some(n)).map(|(row, n)| format!("{n} × {row}")).collect()
    };
    let (ours, theirs) = (only(&andon, &flink), only(&flink, &andon));
    let show = |rows: &[String]| rows.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
    let difference = match ours.is_empty() && theirs.is_empty() {
        true => String::new(),
        false => {
            format!("only Andon, {}: {}; only Flink, {}: {}", ours.len(), show(&ours), theirs.len(), show(&theirs))
        }
    };
    Ok(Compared { rows: andon.values().sum::<i64>().try_into()?, same: difference.is_empty(), difference })
}

/// The table that a topic's records make: rows by key, or, without keys, all of them.
async fn table(log: &Arc<dyn Log>, topic: &str) -> Result<Content, AnyError> {
    let mut target = Offsets::default();
    for p in log.offsets(topic).await?.iter().filter(|p| p.end > p.earliest) {
        target.set(topic, p.partition, p.end);
    }
    let mut keyed: HashMap<Bytes, Bytes> = HashMap::new();
    let mut rows = Table::new();
    let mut reader = log.read(vec![TopicSelector::Name(topic.to_owned())], &Offsets::default()).await?;
    let (mut at, started) = (Offsets::default(), Instant::now());
    // Marks of transactions and compaction leave gaps at the end, so silence ends reading as well.
    let mut quiet = 0;
    while !at.reached(&target) && quiet < 8 {
        let batches = reader.poll(POLL).await?;
        quiet = if batches.is_empty() { quiet + 1 } else { 0 };
        if started.elapsed() > TIMEOUT {
            return Err(format!("topic {topic} is not read in time").into());
        }
        for batch in batches {
            at.set(topic, batch.partition, batch.next_offset());
            for record in batch.records {
                match (record.key, record.value) {
                    (Some(key), Some(value)) => drop(keyed.insert(key, value)),
                    (Some(key), None) => drop(keyed.remove(&key)),
                    (None, Some(value)) => *rows.entry(canonical(&value)?).or_default() += 1,
                    (None, None) => {}
                }
            }
        }
    }
    let keyless = !rows.is_empty();
    for value in keyed.into_values() {
        *rows.entry(canonical(&value)?).or_default() += 1;
    }
    Ok(Content { rows, keyless })
}

/// The row with its columns in order of name.
fn canonical(value: &[u8]) -> Result<String, AnyError> {
    let row: BTreeMap<String, Value> = serde_json::from_slice(value)?;
    Ok(serde_json::to_string(&row)?)
}

/// A folder with the files of the shipped views of which `name` is one, and nothing kept but `name`.
///
/// Flink runs one view with what it reads; this makes Andon keep the same and no more.
pub(crate) fn only_view(name: &str, dir: &Path) -> Result<PathBuf, AnyError> {
    let folder = dir.join("only");
    std::fs::create_dir_all(&folder)?;
    for (i, file) in andon::shipped::views().into_iter().enumerate() {
        let mut text = String::new();
        for statement in model::sql::split_statements(&file).map_err(|d| d.to_string())? {
            let sql = match statement.sql.contains(&format!("MATERIALIZED VIEW {name} ")) {
                true => statement.sql,
                false => without_keeping(&statement.sql),
            };
            text.push_str(&sql);
            text.push_str(";\n");
        }
        std::fs::write(folder.join(format!("{i:03}.sql")), text)?;
    }
    Ok(folder)
}

/// `CREATE MATERIALIZED VIEW name WITH (…) AS` as `CREATE VIEW name AS`.
fn without_keeping(sql: &str) -> String {
    let Some(rest) = sql.strip_prefix("CREATE MATERIALIZED VIEW ") else { return sql.to_owned() };
    let Some((name, rest)) = rest.split_once(char::is_whitespace) else { return sql.to_owned() };
    let body = match rest.trim_start().strip_prefix("WITH (") {
        Some(options) => options.split_once(')').map_or(rest, |(_, body)| body),
        None => rest,
    };
    format!("CREATE VIEW {name} {body}")
}
