//! From the log to the channels: follows the topics that the other stages write, and applies every record once, in
//! order. What was in the log at the start is loaded without telling anybody; after that every engine epoch is one
//! publication.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use metrics::{counter, histogram};
use model::view::EpochMark;
use model::{Clock, Log, LogError, Offsets, PollLimit, Record, TopicSelector, ViewInfo, ViewKind, topics};
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::hub::Hub;
use crate::hub::channel::{Channel, Effect};
use crate::hub::view::{EpochCollector, Place, RowChange, RowKey, View, ViewEpoch};
use crate::protocol::payload::one_line;

/// Matches the topics of kept views.
const VIEW_PATTERN: &str = r"andon\.view\..+";
/// How much one poll takes in before it is applied.
const POLL: PollLimit = PollLimit { max_records: 8_192, max_bytes: 8 << 20, wait: Duration::from_millis(500) };
/// While loading, so many polls in a row without a record mean that the end is reached: some logs count entries
/// that are not records.
const IDLE_POLLS_AT_END: usize = 50;
/// How long one such poll waits.
const LOADING_WAIT: Duration = Duration::from_millis(100);
/// Largest report of the dataflow graph; a larger one is left out.
const GRAPH_BYTES_MAX: usize = 16 << 20;
/// Records that are applied before other tasks get their turn.
const RECORDS_PER_TURN: usize = 256;

/// Follows the log until `shutdown`.
///
/// # Errors
/// If the log can never be read on.
pub(crate) async fn run(
    hub: Arc<Hub>,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        result = follow(hub, log, clock) => result,
    }
}

async fn follow(hub: Arc<Hub>, log: Arc<dyn Log>, clock: Arc<dyn Clock>) -> Result<(), Error> {
    let (start, mut target) = span_to_load(&*log).await?;
    let selectors = vec![
        TopicSelector::Name(topics::CATALOG.to_owned()),
        TopicSelector::Name(topics::ALERTS.to_owned()),
        TopicSelector::Name(topics::STATUS.to_owned()),
        TopicSelector::Name(topics::GRAPH.to_owned()),
        TopicSelector::Pattern(VIEW_PATTERN.to_owned()),
    ];
    let mut reader = log.read(selectors, &start).await?;
    let mut tail = Tail::new(Arc::clone(&hub), clock);
    let mut at = start;
    let mut idle_polls = 0;
    loop {
        if !hub.is_loaded() && (at.reached(&target) || idle_polls >= IDLE_POLLS_AT_END) {
            target = Offsets::default();
            hub.set_loaded();
            tracing::info!(n_views = hub.views().len(), "read the catalog and the views");
        }
        let batches = match hub.is_loaded() {
            true => reader.poll(POLL).await?,
            false => reader.poll(PollLimit { wait: LOADING_WAIT, ..POLL }).await?,
        };
        idle_polls = if batches.is_empty() { idle_polls + 1 } else { 0 };
        for batch in batches {
            if !hub.is_loaded() {
                at.set(&batch.topic, batch.partition, batch.next_offset());
            }
            for records in batch.records.chunks(RECORDS_PER_TURN) {
                tail.apply(&batch.topic, records);
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Where to begin, and the end of what is there already.
async fn span_to_load(log: &dyn Log) -> Result<(Offsets, Offsets), LogError> {
    let mut start = Offsets::default();
    let mut target = Offsets::default();
    for topic in log.topics().await? {
        let is_ours = topic.starts_with(topics::VIEW_PREFIX)
            || [topics::CATALOG, topics::ALERTS, topics::STATUS, topics::GRAPH].contains(&topic.as_str());
        if !is_ours {
            continue;
        }
        for offsets in log.offsets(&topic).await? {
            if offsets.earliest < offsets.end {
                target.set(&topic, offsets.partition, offsets.end);
            }
            // Of the engine's reports only the last one matters.
            if [topics::STATUS, topics::GRAPH].contains(&topic.as_str()) {
                start.set(&topic, offsets.partition, offsets.earliest.max(offsets.end - 1));
            }
        }
    }
    Ok((start, target))
}

/// Applies records to the hub's channels.
pub(crate) struct Tail {
    hub: Arc<Hub>,
    clock: Arc<dyn Clock>,
    views: HashMap<Arc<str>, ViewTail>,
}

struct ViewTail {
    channel: Arc<Channel<View>>,
    collector: EpochCollector,
}

impl Tail {
    pub(crate) fn new(hub: Arc<Hub>, clock: Arc<dyn Clock>) -> Self {
        Self { hub, clock, views: HashMap::new() }
    }

    /// Applies consecutive records of a topic. A record of a wrong form is counted, logged and left out.
    pub(crate) fn apply(&mut self, topic: &str, records: &[Record]) {
        let publish = self.hub.is_loaded();
        for record in records {
            let applied = match topic {
                topics::CATALOG => self.apply_catalog(record),
                topics::ALERTS => self.apply_alert(record, publish),
                topics::STATUS => self.apply_status(record, publish),
                topics::GRAPH => self.apply_graph(record),
                _ => self.apply_row(topic, record, publish),
            };
            if let Err(reason) = applied {
                counter!("api_invalid_records_total", "topic" => topic.to_owned()).increment(1);
                tracing::warn!(topic, offset = record.offset, reason, "left out a record of a wrong form");
            }
        }
        if publish && let Some(last) = records.last() {
            let delay_ms = self.clock.now_us() / 1000 - last.timestamp_ms;
            if let Ok(delay_ms) = u32::try_from(delay_ms) {
                histogram!("api_publish_delay_seconds").record(f64::from(delay_ms) / 1000.0);
            }
        }
    }

    fn apply_catalog(&self, record: &Record) -> Result<(), String> {
        let name = text_key(record)?;
        let info = match &record.value {
            Some(value) => Some(serde_json::from_slice::<ViewInfo>(value).map_err(|e| e.to_string())?),
            None => None,
        };
        // Rules have an entry too; alerting reads them.
        let info = info.filter(|info| info.kind == ViewKind::View);
        if info.is_none() && self.hub.view(name).is_none() {
            return Ok(());
        }
        if let Some(view) = self.hub.view_or_new(name) {
            view.update(|view| view.describe(info));
        }
        Ok(())
    }

    fn apply_alert(&self, record: &Record, publish: bool) -> Result<(), String> {
        let id = text_key(record)?;
        let mut applied = Ok(());
        self.hub.alerts().update(|alerts| match alerts.apply(id, record.value.as_deref(), publish) {
            Ok(effect) => effect,
            Err(error) => {
                applied = Err(error.to_string());
                Effect::Nothing
            }
        });
        applied
    }

    fn apply_status(&mut self, record: &Record, publish: bool) -> Result<(), String> {
        let Some(value) = &record.value else { return Ok(()) };
        let mut applied = Ok(());
        self.hub.status().update(|status| match status.apply(value, publish) {
            Ok(effect) => effect,
            Err(error) => {
                applied = Err(error.to_string());
                Effect::Nothing
            }
        });
        self.end_epochs_before(
            self.hub.status().read(|status, _, _| status.last().map_or(0, |last| last.epoch)),
            publish,
        );
        applied
    }

    fn apply_graph(&self, record: &Record) -> Result<(), String> {
        let Some(value) = &record.value else { return Ok(()) };
        if value.len() > GRAPH_BYTES_MAX {
            return Err(format!("it has more than {GRAPH_BYTES_MAX} bytes"));
        }
        serde_json::from_slice::<&RawValue>(value).map_err(|error| error.to_string())?;
        self.hub.set_graph(Bytes::copy_from_slice(value));
        Ok(())
    }

    /// An engine that died within an epoch leaves it without an end; its successor goes on with a later one. Should the
    /// rest only be under way, then the epoch comes as two publications, which ends in the same rows.
    fn end_epochs_before(&mut self, epoch: u64, publish: bool) {
        let now_ms = self.clock.now_us() / 1000;
        for view in self.views.values_mut() {
            if let Some(left) = view.collector.end_before(epoch) {
                apply_epoch(&self.hub, &view.channel, left, publish, now_ms);
            }
        }
    }

    fn apply_row(&mut self, topic: &str, record: &Record, publish: bool) -> Result<(), String> {
        let change = row_change(record)?;
        let Some(view) = self.view_tail(topic) else { return Ok(()) };
        let place = Place { offset: record.offset, written_at_ms: record.timestamp_ms };
        let mut complete = Vec::new();
        view.collector.push(EpochMark::from_record(record), place, change, &mut complete);
        let channel = Arc::clone(&view.channel);
        let now_ms = self.clock.now_us() / 1000;
        for epoch in complete {
            apply_epoch(&self.hub, &channel, epoch, publish, now_ms);
        }
        Ok(())
    }

    fn view_tail(&mut self, topic: &str) -> Option<&mut ViewTail> {
        if !self.views.contains_key(topic) {
            let channel = self.hub.view_or_new(topic.strip_prefix(topics::VIEW_PREFIX)?)?;
            self.views.insert(Arc::from(topic), ViewTail { channel, collector: EpochCollector::default() });
        }
        self.views.get_mut(topic)
    }
}

fn apply_epoch(hub: &Hub, channel: &Arc<Channel<View>>, epoch: ViewEpoch, publish: bool, now_ms: i64) {
    if let Some(due) = channel.update(|content| content.apply(epoch, publish, now_ms)) {
        hub.pacer().hold(channel, due);
    }
}

fn text_key(record: &Record) -> Result<&str, String> {
    let key = record.key.as_deref().ok_or("it has no key")?;
    std::str::from_utf8(key).map_err(|_| "its key is not text".to_owned())
}

fn row_change(record: &Record) -> Result<RowChange, String> {
    let key = record.key.as_deref().and_then(RowKey::parse).ok_or("its key is not a JSON object")?;
    let row: Option<Bytes> = match &record.value {
        None => None,
        Some(value) => match serde_json::from_slice::<&RawValue>(value) {
            Ok(json) if json.get().starts_with('{') => Some(one_line(&Bytes::copy_from_slice(json.get().as_bytes()))),
            _ => return Err("its value is not a JSON object".to_owned()),
        },
    };
    Ok(RowChange { key, row })
}
