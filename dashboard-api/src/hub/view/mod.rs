//! The content of a `view:<name>` channel: the rows of a kept view as JSON, by key, and the engine epoch they stand at.
//!
//! - [`key`]: the order of rows; [`epoch`]: from records to epochs;
//! - [`change`]: what readers are told of a step; [`snapshot`]: the whole view as a message.

mod change;
mod epoch;
mod key;
mod snapshot;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use model::ViewInfo;

use crate::hub::channel::{Content, Effect, fnv64};
use crate::hub::lens::{Lens, LensSpec};
use crate::protocol::ErrorCode;

pub(crate) use change::ViewChange;
pub(crate) use epoch::{EpochCollector, Place, RowChange, ViewEpoch};
pub(crate) use key::RowKey;

use change::RowStep;

/// Rows that have left which are remembered, so that a reader who was away can be told of them alone.
const DEPARTURES_MAX: usize = 10_000;
/// The log keeps the tombstone of a row for a day. What is younger than this when it is loaded is surely complete.
const COMPLETE_AGE_MS: i64 = 12 * 3600 * 1000;

/// A kept view as its readers see it.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// The catalog's entry; a view without one is not offered, though its rows may be there already.
    pub(crate) info: Option<Arc<ViewInfo>>,
    /// Names this form of the view, the same on every node; changes with the catalog's entry.
    fingerprint: String,
    /// Rows by key, with the position at which each changed last.
    rows: BTreeMap<RowKey, (Bytes, u64)>,
    rows_bytes: usize,
    /// Rows that have left, by the position at which they did. Every one after `departures_floor` is here.
    departures: VecDeque<(u64, RowKey)>,
    /// `None`: nothing young enough has been read to be sure of any.
    departures_floor: Option<u64>,
    /// The place in the topic that the rows stand at.
    position: u64,
    /// The engine's epoch that changed it last.
    pub(crate) epoch: u64,
    /// Business time of that epoch, milliseconds since 1970.
    pub(crate) as_of_ms: i64,
    /// When that epoch was written, milliseconds since 1970: the figures' age.
    pub(crate) written_at_ms: i64,
}

impl View {
    /// Takes over an epoch's changes. Those that change nothing (an epoch that was written again after a crash) are
    /// not passed on. While history is loaded (`publish` is false), `now_ms` tells what is old.
    pub(crate) fn apply(&mut self, epoch: ViewEpoch, publish: bool, now_ms: i64) -> Effect<ViewChange> {
        let is_complete = publish || epoch.written_at_ms > now_ms - COMPLETE_AGE_MS;
        if is_complete && self.departures_floor.is_none() {
            let first = epoch.position.saturating_sub(epoch.changes.len() as u64);
            self.departures_floor = Some(if publish { self.position } else { first });
        }
        let mut steps = Vec::with_capacity(if publish { epoch.changes.len() } else { 0 });
        for change in epoch.changes {
            let step = self.set(change, epoch.position);
            if publish && step.before != step.after {
                steps.push(step);
            }
        }
        self.position = self.position.max(epoch.position);
        self.epoch = epoch.epoch;
        self.as_of_ms = epoch.as_of_ms;
        self.written_at_ms = epoch.written_at_ms;
        if steps.is_empty() {
            return Effect::Silent { at: Some(epoch.position) };
        }
        let ViewEpoch { epoch, as_of_ms, written_at_ms, position, .. } = epoch;
        let change = ViewChange { epoch, as_of_ms, written_at_ms, steps, is_net: false };
        Effect::Publish { change, at: Some(position) }
    }

    fn set(&mut self, change: RowChange, position: u64) -> RowStep {
        let RowChange { key, row: after } = change;
        let before = match &after {
            Some(row) => {
                self.rows_bytes += row.len() + 1;
                self.rows.insert(key.clone(), (row.clone(), position))
            }
            None => {
                self.departures.push_back((position, key.clone()));
                if self.departures.len() > DEPARTURES_MAX
                    && let Some((forgotten, _)) = self.departures.pop_front()
                {
                    self.departures_floor = self.departures_floor.map(|floor| floor.max(forgotten));
                }
                self.rows.remove(&key)
            }
        };
        let before = before.map(|(row, _)| row);
        self.rows_bytes -= before.as_ref().map_or(0, |row| row.len() + 1);
        RowStep { key, before, after }
    }

    /// Takes over the catalog's entry. A view of another form starts anew for its readers.
    pub(crate) fn describe(&mut self, info: Option<ViewInfo>) -> Effect<ViewChange> {
        if self.info.as_deref() == info.as_ref() {
            return Effect::Nothing;
        }
        let json = serde_json::to_vec(&info).expect("plain structs always serialise");
        self.fingerprint = format!("{:016x}", fnv64(&json));
        self.info = info.map(Arc::new);
        Effect::Restart
    }

    /// Number of rows.
    pub(crate) fn n_rows(&self) -> usize {
        self.rows.len()
    }

    /// The rows after a key, in order of their keys.
    pub(crate) fn rows_after(&self, key: Option<&RowKey>) -> impl Iterator<Item = (&RowKey, &Bytes)> {
        let from = key.map_or(Bound::Unbounded, Bound::Excluded);
        self.rows.range((from, Bound::Unbounded)).map(|(key, (row, _))| (key, row))
    }
}

impl Content for View {
    type Change = ViewChange;

    fn exists(&self) -> bool {
        self.info.is_some()
    }

    fn epoch(&self) -> Option<String> {
        Some(self.fingerprint.clone())
    }

    fn snapshot_bytes(&self) -> usize {
        self.rows_bytes
    }

    fn write_snapshot(&self, lens: Option<&Lens>, out: &mut Vec<u8>) {
        let Some(lens) = lens else {
            self.write_json(out, self.rows.values().map(|(row, _)| row), "");
            return;
        };
        let rows: Vec<Bytes> = self.rows.values().map(|(row, _)| row.clone()).collect();
        let seen = lens.matches(&rows).into_iter().zip(&rows).filter(|(is_seen, _)| *is_seen);
        self.write_through(Some(lens), out, seen.map(|(_, row)| lens.project(row)), "");
    }

    fn render(&self, change: &ViewChange, lens: Option<&Lens>) -> Option<Vec<u8>> {
        change.render(lens)
    }

    fn change_since(&self, offset: u64) -> Option<ViewChange> {
        if self.departures_floor.is_none_or(|floor| offset < floor) {
            return None;
        }
        let gone = self.departures.iter().rev().take_while(|(position, _)| *position > offset);
        let gone: BTreeSet<&RowKey> = gone.map(|(_, key)| key).filter(|key| !self.rows.contains_key(key)).collect();
        let gone = gone.into_iter().map(|key| RowStep { key: key.clone(), before: None, after: None });
        let newer = self.rows.iter().filter(|(_, (_, position))| *position > offset);
        let newer = newer.map(|(key, (row, _))| RowStep { key: key.clone(), before: None, after: Some(row.clone()) });
        let steps = gone.chain(newer).collect();
        let Self { epoch, as_of_ms, written_at_ms, .. } = *self;
        Some(ViewChange { epoch, as_of_ms, written_at_ms, steps, is_net: true })
    }

    fn merge(&self, earlier: ViewChange, later: ViewChange) -> ViewChange {
        earlier.followed_by(later)
    }

    /// A view without a key has one row: a figure, of which only the newest value matters.
    fn is_tile(&self) -> bool {
        self.info.as_ref().is_some_and(|info| info.key.is_empty())
    }

    fn lens(&self, spec: &LensSpec) -> Result<Lens, ErrorCode> {
        Lens::compile(self.info.as_deref().ok_or(ErrorCode::UNKNOWN_CHANNEL)?, spec)
    }
}
