//! The CPU side of reading: decodes batches as they come, and turns what has gathered into an epoch.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use model::{Clock, LogBatch, Offsets, SourceEpoch, SourceTable, TableDelta};

use super::dead_letter::DeadLetter;
use super::lag::Ends;
use super::route::Routes;
use super::transactions::Transactions;
use super::watermark::{Flow, Watermarks};
use super::{IngestOptions, Shared};
use crate::Error;
use crate::decode::{Changes, Decoder};

/// One table's decoder and the changes that wait for the end of the epoch.
#[derive(Debug)]
struct Decoding {
    table: Arc<str>,
    decoder: Decoder,
    changes: Changes,
}

/// What has gathered since the last epoch.
#[derive(Debug, Default)]
struct Gathered {
    since: Option<Instant>,
    epoch: SourceEpoch,
    dead_letters: Vec<DeadLetter>,
}

/// Owned by the reading task; lent to the blocking pool for each piece of work.
#[derive(Debug)]
pub(super) struct Worker {
    decodings: Vec<Decoding>,
    routes: Routes,
    gathered: Gathered,
    transactions: Transactions,
    watermarks: Watermarks,
    clock: Arc<dyn Clock>,
    business_clock: Arc<dyn Clock>,
    event_time_ahead_us: i64,
    shared: Arc<Shared>,
}

impl Worker {
    pub(super) fn new(tables: &[SourceTable], routes: Routes, options: &IngestOptions, shared: Arc<Shared>) -> Self {
        let decodings = tables.iter().map(|table| Decoding {
            table: Arc::clone(&table.name),
            decoder: Decoder::new(table, options.record_bytes_max),
            changes: Changes::new(&table.schema),
        });
        Self {
            decodings: decodings.collect(),
            routes,
            gathered: Gathered::default(),
            transactions: Transactions::default(),
            watermarks: Watermarks::new(tables, &options.watermarks, options.idle_timeout, Instant::now()),
            clock: Arc::clone(&options.clock),
            business_clock: Arc::clone(&options.business_clock),
            event_time_ahead_us: i64::try_from(options.event_time_ahead_max.as_micros()).unwrap_or(i64::MAX),
            shared,
        }
    }

    /// Whether any table has an event time.
    pub(super) fn wants_watermarks(&self) -> bool {
        self.watermarks.are_wanted()
    }

    /// Partitions that have records from `from` on hold the watermarks until these are read.
    pub(super) fn expect(&mut self, ends: &Ends, from: &Offsets) {
        for (topic, p) in ends {
            if from.get(topic, p.partition).unwrap_or(p.earliest).max(p.earliest) < p.end {
                for table in self.routes.tables(topic).iter() {
                    self.watermarks.expect(*table, topic, p.partition, Instant::now());
                }
            }
        }
    }

    /// Whether time has moved although nothing arrived: a partition became idle, or a row too old.
    pub(super) fn has_time_moved(&mut self) -> bool {
        let now_us = self.business_clock.now_us();
        let has_expired = self.shared.tables().states.iter_mut().any(|table| table.set_now(now_us));
        self.advance(Flow::Quiet) || has_expired
    }

    fn advance(&mut self, flow: Flow) -> bool {
        let ends = self.shared.ends.lock().unwrap_or_else(PoisonError::into_inner);
        self.watermarks.advance(ends.as_ref(), flow, Instant::now())
    }

    /// When the first record of the coming epoch arrived.
    pub(super) fn since(&self) -> Option<Instant> {
        self.gathered.since
    }

    /// Records of the coming epoch so far.
    pub(super) fn n_records(&self) -> usize {
        self.gathered.epoch.n_records
    }

    /// Whether more is to come of a source transaction.
    pub(super) fn is_in_part(&self) -> bool {
        self.transactions.is_in_part()
    }

    /// Decodes batches into the coming epoch.
    pub(super) fn decode(&mut self, batches: &[LogBatch]) {
        let now = Instant::now();
        let limit_us = self.clock.now_us().saturating_add(self.event_time_ahead_us);
        self.gathered.since.get_or_insert(now);
        // What comes of one partition must not be late by what comes with it of another.
        for batch in batches {
            for table in self.routes.tables(&batch.topic).iter() {
                self.watermarks.expect(*table, &batch.topic, batch.partition, now);
            }
        }
        for batch in batches {
            let tables = self.routes.tables(&batch.topic);
            for (i, index) in tables.iter().enumerate() {
                // An event that feeds two tables is one event of its transaction.
                let transactions = (i == 0).then_some(&mut self.transactions);
                let decoding = &mut self.decodings[*index];
                let first = decoding.changes.len();
                decode_batch(decoding, batch, &mut self.gathered.dead_letters, transactions);
                let place = (&batch.topic, batch.partition, batch.next_offset());
                self.watermarks.observe(*index, place, (&decoding.changes, first), limit_us, now);
            }
            if tables.is_empty() {
                let (routes, transactions) = (&mut self.routes, &mut self.transactions);
                for record in &batch.records {
                    transactions.mark(&batch.topic, record, |topic| !routes.tables(&Arc::from(topic)).is_empty());
                }
            }
            let epoch = &mut self.gathered.epoch;
            epoch.n_records += batch.records.len();
            epoch.offsets.set(&batch.topic, batch.partition, batch.next_offset());
            let newest = batch.records.iter().map(|r| r.timestamp_ms).max();
            epoch.max_log_timestamp_ms = epoch.max_log_timestamp_ms.max(newest);
            count(batch);
        }
    }

    /// Applies what has gathered to the tables.
    pub(super) fn finish(&mut self) -> Result<(SourceEpoch, Vec<DeadLetter>), Error> {
        if self.transactions.is_in_part() {
            let n_split = self.transactions.give_up();
            metrics::counter!("ingest_split_transactions_total").increment(n_split as u64);
        }
        let Gathered { mut epoch, mut dead_letters, .. } = std::mem::take(&mut self.gathered);
        self.advance(Flow::Running);
        epoch.watermarks = self.watermarks.take_changed();
        let event_time_us_max = self.clock.now_us().saturating_add(self.event_time_ahead_us);
        let now_us = self.business_clock.now_us();
        let mut tables = self.shared.tables();
        for (index, (decoding, state)) in self.decodings.iter_mut().zip(&mut tables.states).enumerate() {
            let missed = self.watermarks.take_missed(index, decoding.changes.len());
            let has_expired = state.set_now(now_us);
            if decoding.changes.is_empty() && !has_expired {
                continue;
            }
            let applied = state
                .apply(&mut decoding.changes, event_time_us_max)
                .map_err(|source| Error::Batch { table: Arc::clone(&decoding.table), source })?;
            decoding.changes.clear();
            epoch.max_event_time_us = epoch.max_event_time_us.max(applied.event_time_us);
            let table = &decoding.table;
            if applied.n_old > 0 {
                metrics::counter!("ingest_old_records_total", "table" => table.to_string())
                    .increment(applied.n_old as u64);
            }
            metrics::gauge!("ingest_table_rows", "table" => table.to_string()).set(state.len() as f64);
            dead_letters.extend(applied.refused.into_iter().map(|(origin, reason)| DeadLetter {
                table: Arc::clone(table),
                topic: origin.topic,
                partition: origin.partition,
                record: origin.record,
                reason,
            }));
            if !applied.delta.is_empty() {
                let (delta, positions) = (applied.delta.with_missed(missed), applied.positions);
                epoch.tables.push(TableDelta { table: Arc::clone(table), delta, positions });
            }
        }
        tables.undelivered.push_back(epoch.tables.clone());
        drop(tables);
        for letter in &dead_letters {
            let (topic, reason) = (letter.topic.to_string(), letter.reason.class());
            metrics::counter!("ingest_dead_letters_total", "topic" => topic, "reason" => reason).increment(1);
        }
        self.shared.dead_letters.fetch_add(dead_letters.len() as u64, Ordering::Relaxed);
        Ok((epoch, dead_letters))
    }
}

fn decode_batch(
    decoding: &mut Decoding,
    batch: &LogBatch,
    dead_letters: &mut Vec<DeadLetter>,
    mut transactions: Option<&mut Transactions>,
) {
    for record in &batch.records {
        let decoded = decoding.decoder.decode(&batch.topic, batch.partition, record, &mut decoding.changes);
        if let (Some(transactions), Some(transaction)) = (&mut transactions, decoding.decoder.transaction()) {
            transactions.event(transaction);
        }
        if let Err(reason) = decoded {
            dead_letters.push(DeadLetter {
                table: Arc::clone(&decoding.table),
                topic: Arc::clone(&batch.topic),
                partition: batch.partition,
                record: record.clone(),
                reason,
            });
        }
    }
}

fn count(batch: &LogBatch) {
    let bytes: usize = batch
        .records
        .iter()
        .map(|r| r.key.as_ref().map_or(0, bytes::Bytes::len) + r.value.as_ref().map_or(0, bytes::Bytes::len))
        .sum();
    let topic = batch.topic.to_string();
    metrics::counter!("ingest_records_total", "topic" => topic.clone()).increment(batch.records.len() as u64);
    metrics::counter!("ingest_bytes_total", "topic" => topic).increment(bytes as u64);
}
