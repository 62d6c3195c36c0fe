//! Events from the store to `andon.alerts`, in order, each at least once under one id.
//!
//! Between the append and its note in the store a crash can come: then the same events would be sent again. A start
//! looks which unpublished events the topic already has, so that readers do not see them twice.

use std::sync::Arc;

use bytes::Bytes;
use model::{AppendRecord, Log, LogError, Offsets, PollLimit, TopicSelector, TopicSpec, topics};
use serde::Deserialize;
use tracing::{error, info};
use uuid::Uuid;

use crate::Error;
use crate::run::POLL;
use crate::store::{Store, StoredEvent};

/// Events sent with one append.
const BATCH_EVENTS_MAX: u32 = 500;

#[derive(Debug)]
pub(crate) struct Outbox {
    log: Arc<dyn Log>,
    store: Store,
}

#[derive(Deserialize)]
struct EventId {
    id: Uuid,
}

impl Outbox {
    /// Creates the topic if it is missing and notes what it already has.
    pub(crate) async fn open(log: Arc<dyn Log>, store: Store) -> Result<Self, Error> {
        log.create_topic(topics::ALERTS, TopicSpec::compacted()).await?;
        let outbox = Self { log, store };
        outbox.settle().await?;
        Ok(outbox)
    }

    /// Sends all that is unpublished.
    pub(crate) async fn publish(&self) -> Result<(), Error> {
        loop {
            let events = self.store.unpublished(BATCH_EVENTS_MAX).await?;
            let Some(last) = events.last() else { return Ok(()) };
            let last_seq = last.seq;
            match self.log.append(events.iter().map(to_record).collect()).await {
                Ok(_) => self.store.mark_published(last_seq).await?,
                Err(LogError::TooLarge { .. }) => self.publish_one_by_one(&events).await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// An event that the log can never take stays in the store, and the others go on.
    async fn publish_one_by_one(&self, events: &[StoredEvent]) -> Result<(), Error> {
        for event in events {
            match self.log.append(vec![to_record(event)]).await {
                Ok(_) => {}
                Err(LogError::TooLarge { bytes, .. }) => {
                    metrics::counter!("alert_events_unpublishable_total").increment(1);
                    error!(%event.alert_id, seq = event.seq, bytes, "alert event is too large for the log, left it out");
                }
                Err(error) => return Err(error.into()),
            }
            self.store.mark_published(event.seq).await?;
        }
        Ok(())
    }

    /// Events are sent in order, so all events up to the newest one that the topic has are there too, or were replaced
    /// by later events of the same alert.
    async fn settle(&self) -> Result<(), Error> {
        let Some(first) = self.store.unpublished(1).await?.pop() else { return Ok(()) };
        let end = self.log.offsets(topics::ALERTS).await?.iter().map(|p| p.end).max().unwrap_or_default();
        let mut reader =
            self.log.read(vec![TopicSelector::Name(topics::ALERTS.to_owned())], &Offsets::default()).await?;
        let mut newest_seq = 0;
        let mut next_offset = 0;
        while next_offset < end {
            let batches = reader.poll(PollLimit { wait: SETTLE_WAIT, ..POLL }).await?;
            if batches.is_empty() {
                break;
            }
            for batch in &batches {
                next_offset = batch.next_offset();
                for record in &batch.records {
                    let Some(value) = &record.value else { continue };
                    let Ok(EventId { id }) = serde_json::from_slice(value) else { continue };
                    // Ids grow with time, so most of the topic need not be looked up.
                    if id >= first.event_id {
                        newest_seq = newest_seq.max(self.store.seq_of(id).await?.unwrap_or_default());
                    }
                }
            }
        }
        if newest_seq >= first.seq {
            info!(up_to_seq = newest_seq, "alert events were already published before the last stop");
            self.store.mark_published(newest_seq).await?;
        }
        Ok(())
    }
}

/// How long the log may take to show the next records of a topic that has some.
const SETTLE_WAIT: std::time::Duration = std::time::Duration::from_secs(5);

fn to_record(event: &StoredEvent) -> AppendRecord {
    AppendRecord {
        topic: Arc::from(topics::ALERTS),
        partition: Some(0),
        timestamp_ms: None,
        key: Some(Bytes::from(event.alert_id.to_string())),
        value: Some(Bytes::from(event.body.clone())),
        headers: Vec::new(),
    }
}
