//! The alerting stage: reads the rules' topics, keeps the book, stores, publishes.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use model::clock::SystemClock;
use model::{Clock, Log, LogBatch, Offsets, PollLimit, TopicSelector, topics};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::Error;
use crate::book::{Book, Changes};
use crate::outbox::Outbox;
use crate::rules::Rule;
use crate::store::Store;
use crate::tail::Tail;

/// What one poll takes. The wait is also how often held-back updates are looked at.
pub(crate) const POLL: PollLimit =
    PollLimit { max_records: 10_000, max_bytes: 16 * 1024 * 1024, wait: Duration::from_millis(500) };
/// At a start a topic whose last record was compacted away never reaches its end: after so long without any record,
/// with the log answering, what is there has been read.
const START_PATIENCE: Duration = Duration::from_secs(5);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// How alerting runs.
#[derive(Debug, Clone)]
pub struct AlertingOptions {
    /// `sqlite:PATH` or `postgres://…`.
    pub database_url: String,
    /// Wall clock; limits how often a changing alert is told again.
    pub clock: Arc<dyn Clock>,
}

impl AlertingOptions {
    /// With the operating system's clock.
    pub fn new(database_url: impl Into<String>) -> Self {
        Self { database_url: database_url.into(), clock: Arc::new(SystemClock) }
    }
}

/// Runs until `shutdown`. Outages of the log and of the database are waited out; what was read is stored before it is
/// published, so that a kill at any moment loses and doubles nothing.
///
/// # Errors
/// A database that cannot be opened at the start, or a log or database that refuses for good.
pub async fn run(
    log: Arc<dyn Log>,
    rules: Vec<Rule>,
    options: AlertingOptions,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let store = Store::open(&options.database_url).await?;
    let result = match shutdown.run_until_cancelled(keep(&log, &rules, &options, &store)).await {
        Some(result) => result,
        None => Ok(()),
    };
    store.close().await;
    info!("alerting stopped");
    result
}

async fn keep(log: &Arc<dyn Log>, rules: &[Rule], options: &AlertingOptions, store: &Store) -> Result<(), Error> {
    let outbox = retry("open the outbox", || Outbox::open(Arc::clone(log), store.clone())).await?;
    retry("publish alerts", || outbox.publish()).await?;
    let loaded = retry("load", || store.load()).await?;
    info!(rules = rules.len(), open_alerts = loaded.open.len(), "alerting started");
    let mut book = Book::new(rules, loaded.open, loaded.progress, loaded.last_seq, Arc::clone(&options.clock));
    let changes = book.retire_removed_rules();
    settle(&changes, store, &outbox).await?;

    let names: Vec<String> = rules.iter().map(|r| topics::rule(&r.name)).collect();
    let mut tails = retry("look at the rules' topics", || open_tails(log, rules, &book)).await?;
    let selectors: Vec<TopicSelector> = names.into_iter().map(TopicSelector::Name).collect();
    let oldest = Offsets::default();
    let mut reader = retry("open the rules' topics", || log.read(selectors.clone(), &oldest)).await?;
    let mut last_record_at = Instant::now();
    loop {
        let batches = reader.poll(POLL).await?;
        if !batches.is_empty() {
            last_record_at = Instant::now();
        }
        let changes = take_in(&mut book, &mut tails, &batches);
        settle(&changes, store, &outbox).await?;

        let is_starting = tails.values().any(Tail::is_starting);
        let is_quiet = is_starting && last_record_at.elapsed() >= START_PATIENCE && log.topics().await.is_ok();
        for (rule, tail) in started(&mut tails, is_quiet) {
            if let Some(rows) = tail.finish_start() {
                let changes = book.reconcile(&rule, rows);
                settle(&changes, store, &outbox).await?;
            }
        }
        let changes = book.tell_updates();
        settle(&changes, store, &outbox).await?;
    }
}

/// One tail per rule's topic, by topic.
async fn open_tails(log: &Arc<dyn Log>, rules: &[Rule], book: &Book) -> Result<HashMap<String, Tail>, model::LogError> {
    let mut tails = HashMap::with_capacity(rules.len());
    for rule in rules {
        let topic = topics::rule(&rule.name);
        let end_offset = log.offsets(&topic).await?.iter().map(|p| p.end).max().unwrap_or_default();
        let tail = Tail::new(&rule.name, book.position(&rule.name), end_offset);
        tails.insert(topic, tail);
    }
    Ok(tails)
}

fn take_in(book: &mut Book, tails: &mut HashMap<String, Tail>, batches: &[LogBatch]) -> Changes {
    let mut epochs = Vec::new();
    for batch in batches {
        if let Some(tail) = tails.get_mut(&*batch.topic) {
            epochs.extend(tail.push(batch));
        }
    }
    if batches.is_empty() {
        epochs.extend(tails.values_mut().filter_map(Tail::flush));
    }
    book.apply(epochs)
}

/// Tails whose start is over, with the name of their rule.
fn started(tails: &mut HashMap<String, Tail>, is_quiet: bool) -> Vec<(String, &mut Tail)> {
    let prefix = topics::RULE_PREFIX.len();
    tails
        .iter_mut()
        .filter(|(_, tail)| tail.is_starting() && (is_quiet || tail.has_reached_end()))
        .map(|(topic, tail)| (topic[prefix..].to_owned(), tail))
        .collect()
}

/// Stores what changed, then publishes it.
async fn settle(changes: &Changes, store: &Store, outbox: &Outbox) -> Result<(), Error> {
    if changes.is_empty() {
        return Ok(());
    }
    retry("store alerts", || store.commit(changes)).await?;
    retry("publish alerts", || outbox.publish()).await
}

/// Tries again with growing pauses while an error may pass.
async fn retry<T, E, F>(action: &'static str, mut attempt: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, E>>,
    Error: From<E>,
{
    let mut pause = RETRY_FIRST;
    loop {
        match attempt().await.map_err(Error::from) {
            Err(error) if error.is_transient() => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                warn!(action, %error, source, retry_in_ms = pause.as_millis(), "alerting is waiting");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
            done => return done,
        }
    }
}
