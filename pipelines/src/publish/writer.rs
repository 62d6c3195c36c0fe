//! Writes what the engine computed, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::view::{EngineStatus, EpochMark};
use model::{Log, ViewInfo, topics};
use tokio::sync::mpsc;

use super::topics::{
    Before, Rows, append, encode, mark, present, publish_catalog, read_view_topic, record, retried, to_json, unlike,
    view_record,
};
use super::{Done, Phase, Report};
use crate::change::{BuiltView, Switch};
use crate::engine::{EpochOutput, ViewParts};
use crate::error::Error;
use crate::state::{CheckpointData, Lease};

/// Time between two status records.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// Writes what the engine computed, in order, and the status once a second.
pub(super) struct Writer {
    pub(super) log: Arc<dyn Log>,
    pub(super) views: Vec<ViewInfo>,
    pub(super) before: Vec<Before>,
    /// End of each view topic that is in line with the engine.
    pub(super) topic_ends: BTreeMap<String, i64>,
    /// Views written to since their topic's end was looked up.
    pub(super) written: BTreeSet<usize>,
    pub(super) is_live: bool,
    pub(super) lease: Option<Lease>,
    pub(super) to_store: mpsc::Sender<(CheckpointData, BTreeMap<String, i64>)>,
    pub(super) status_due: Instant,
}

impl Writer {
    pub(super) async fn run(mut self, mut done: mpsc::Receiver<Done>) -> Result<(), Error> {
        while let Some(done) = done.recv().await {
            let Done { output, whole, switch, checkpoint, graph, phase, report, newest_record_ms } = done;
            let as_of_ms = output.as_of_us.div_euclid(1_000);
            if let Some(lease) = &mut self.lease
                && !lease.holds().await
            {
                return Ok(());
            }
            match switch {
                None => self.publish(&output, whole, phase).await?,
                Some(switch) => self.publish_switch(&output, switch).await?,
            }
            let now_ms = chrono::Utc::now().timestamp_millis();
            if let Some(newest_ms) = newest_record_ms {
                let seconds = (now_ms - newest_ms).max(0) as f64 / 1_000.0;
                metrics::histogram!("pipelines_record_to_view_seconds").record(seconds);
            }
            if self.status_due <= Instant::now() || phase == Phase::CaughtUp {
                self.status_due = Instant::now() + STATUS_INTERVAL;
                publish_status(&*self.log, output.epoch, as_of_ms, now_ms, self.is_live, report).await?;
            }
            if let Some(graph) = graph {
                append(&*self.log, vec![record(topics::GRAPH, Bytes::from_static(b"engine"), Some(graph))]).await?;
            }
            if phase == Phase::CaughtUp {
                tracing::info!(epoch = output.epoch, records_read = report.records_read, "views are up to date");
            }
            if let Some(checkpoint) = checkpoint {
                let topic_ends = self.checkpoint_ends().await?;
                if self.to_store.send((checkpoint, topic_ends)).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn publish(
        &mut self,
        output: &EpochOutput,
        mut whole: BTreeMap<usize, ViewParts>,
        phase: Phase,
    ) -> Result<(), Error> {
        let mut rows: BTreeMap<usize, Vec<(Bytes, Option<Bytes>)>> = BTreeMap::new();
        for change in &output.changes {
            rows.insert(change.view, encode(change, &self.views[change.view].key));
        }
        if phase == Phase::CaughtUp {
            self.is_live = true;
            for (view, before) in std::mem::take(&mut self.before).into_iter().enumerate() {
                let now = rows.remove(&view).unwrap_or_default();
                let parts = whole.remove(&view);
                match (before, parts) {
                    (Before::All(held), Some(parts)) => self.append_whole(output, view, parts, held).await?,
                    // What the view holds is not known any more: its topic keeps what it has.
                    (before, None) if before.wants_whole() => {}
                    (before, parts) => {
                        let key = &self.views[view].key;
                        let whole = parts.iter().flatten().flat_map(|part| encode(part, key)).collect();
                        rows.insert(view, before.difference(now, whole));
                    }
                }
            }
            self.written.extend(0..self.views.len());
        }
        if !self.is_live {
            rows.retain(|view, now| self.before[*view].take(now));
        }
        self.append(output, rows).await
    }

    /// Writes an epoch's changes, by view.
    async fn append(
        &mut self,
        output: &EpochOutput,
        rows: BTreeMap<usize, Vec<(Bytes, Option<Bytes>)>>,
    ) -> Result<(), Error> {
        let as_of_ms = output.as_of_us.div_euclid(1_000);
        let mut records = Vec::new();
        for (view, rows) in rows.into_iter().filter(|(_, rows)| !rows.is_empty()) {
            self.written.insert(view);
            mark(rows, &Arc::from(self.views[view].topic.as_str()), output.epoch, as_of_ms, &mut records);
        }
        metrics::counter!("pipelines_changes_published_total").increment(records.len() as u64);
        append(&*self.log, records).await
    }

    /// Brings the topic of a view, which holds `held`, in line with the whole view, part by part.
    async fn append_whole(
        &self,
        output: &EpochOutput,
        view: usize,
        parts: ViewParts,
        mut held: Rows,
    ) -> Result<(), Error> {
        let (as_of_ms, topic) = (output.as_of_us.div_euclid(1_000), Arc::from(self.views[view].topic.as_str()));
        // The last row ends the epoch, and is known to be the last only when there is no further part.
        let mut waiting = None;
        for part in parts {
            let mut rows: Vec<_> = waiting.take().into_iter().collect();
            let part = encode(&part, &self.views[view].key);
            rows.extend(part.into_iter().filter(|(key, row)| held.remove(key) != *row));
            waiting = rows.pop();
            self.append_marked(rows, &topic, EpochMark { epoch: output.epoch, as_of_ms, last: false }).await?;
        }
        let mut rows: Vec<_> = waiting.into_iter().chain(held.into_keys().map(|key| (key, None))).collect();
        let last = rows.pop();
        self.append_marked(rows, &topic, EpochMark { epoch: output.epoch, as_of_ms, last: false }).await?;
        let last = last.into_iter().collect();
        self.append_marked(last, &topic, EpochMark { epoch: output.epoch, as_of_ms, last: true }).await
    }

    async fn append_marked(
        &self,
        rows: Vec<(Bytes, Option<Bytes>)>,
        topic: &Arc<str>,
        mark: EpochMark,
    ) -> Result<(), Error> {
        let headers = mark.to_headers();
        let records = rows.into_iter().map(|(key, value)| view_record(topic, key, value, headers.clone()));
        let records: Vec<_> = records.collect();
        metrics::counter!("pipelines_changes_published_total").increment(records.len() as u64);
        append(&*self.log, records).await
    }

    /// Another program has taken over: its catalog, and in one epoch all that it changes.
    async fn publish_switch(&mut self, output: &EpochOutput, switch: Switch) -> Result<(), Error> {
        publish_catalog(&*self.log, &switch.views).await?;
        self.views.clone_from(&switch.views);
        self.topic_ends.retain(|topic, _| switch.views.iter().any(|v| v.topic == *topic));
        self.written = (0..self.views.len()).collect();
        let mut rows: BTreeMap<usize, Vec<(Bytes, Option<Bytes>)>> = BTreeMap::new();
        for change in &output.changes {
            rows.insert(change.view, encode(change, &self.views[change.view].key));
        }
        for BuiltView { view: at, whole, held } in &switch.built {
            let view = &self.views[*at];
            let mut before = match held {
                Some(held) => present(held.iter().cloned().collect()),
                None => present(read_view_topic(&*self.log, &view.topic, None).await?.0),
            };
            let whole = whole.iter().flat_map(|part| encode(part, &view.key)).collect();
            rows.insert(*at, unlike(&mut before, whole));
        }
        self.append(output, rows).await?;
        switch.done();
        Ok(())
    }

    /// Ends of the view topics that are in line with the epoch just written.
    async fn checkpoint_ends(&mut self) -> Result<BTreeMap<String, i64>, Error> {
        for view in std::mem::take(&mut self.written) {
            let topic = &self.views[view].topic;
            let ends = retried(|| self.log.offsets(topic)).await?;
            if let Some(end) = ends.iter().find(|p| p.partition == 0).map(|p| p.end) {
                self.topic_ends.insert(topic.clone(), end);
            }
        }
        let mut ends = self.topic_ends.clone();
        for (view, before) in self.before.iter().enumerate() {
            // Its topic lags behind the engine until the sources are read up to now.
            if matches!(before, Before::Since { changed, .. } if !changed.is_empty()) || before.is_unconfirmed() {
                ends.remove(&self.views[view].topic);
            }
        }
        Ok(ends)
    }
}

async fn publish_status(
    log: &dyn Log,
    epoch: u64,
    as_of_ms: i64,
    written_at_ms: i64,
    is_live: bool,
    report: Report,
) -> Result<(), Error> {
    let status = EngineStatus {
        epoch,
        as_of_ms,
        written_at_ms,
        event_time_ms: report.event_time_us.map(|us| us.div_euclid(1_000)),
        records_read: report.records_read,
        lag_records: report.lag_records,
        dead_letters: report.dead_letters,
        phase: if is_live { "live" } else { "catching_up" }.to_owned(),
    };
    append(log, vec![record(topics::STATUS, Bytes::from_static(b"engine"), Some(to_json(&status)))]).await
}
