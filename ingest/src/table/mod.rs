//! The rows of a source table by primary key, and what an epoch changes in them.
//!
//! In: changes in arrival order. Out: −stored +after, exact and net per key; a row that ends as it began gives nothing.
//!
//! Invariants:
//! - a change at or below its key's position is old (sent again after a crash) and is dropped; deleted keys keep their
//!   position, so that what is sent again cannot bring a row back;
//! - a tombstone has no position of its own: it counts only where no delete of its key came just before it, since
//!   otherwise that delete has decided already;
//! - the before image is never used: half of real tables send none, or an invented one.

mod append;
mod keys;
mod retention;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use model::{Delta, SourceTable};

use crate::column::Column;
use crate::decode::{Changes, NO_POSITION, Operation, Origin, Unchanged, Undecodable};
pub use append::AppendTable;
use keys::KeyIndex;
use retention::{Dead, Expiry};

/// No entry of this epoch for a slot yet.
const UNTOUCHED: u32 = u32::MAX;
/// The position of a slot that belongs to no key.
const FREE: i64 = i64::MAX;
const DAY_US: i64 = 86_400_000_000;

/// A table's rows. A slot is a key's place in all columns; it outlives the row.
#[derive(Debug)]
pub struct TableState {
    schema: SchemaRef,
    event_time: Option<usize>,
    keys: KeyIndex,
    columns: Vec<Column>,
    live: Vec<bool>,
    positions: Vec<i64>,
    /// Whether the last thing heard of the key was a delete event, whose tombstone is still to come.
    deleted_by_event: Vec<bool>,
    /// Everything before this position is gone.
    truncated_at: i64,
    n_live: usize,
    /// Entry of `touched` for each slot.
    touched_at: Vec<u32>,
    touched: Vec<Touched>,
    expiry: Option<Expiry>,
    dead: Dead,
}

#[derive(Debug, Clone, Copy)]
struct Touched {
    slot: u32,
    outcome: Outcome,
}

/// What this epoch makes of a row.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    /// Row of the changes.
    Row(u32),
    Gone,
}

/// A source table of either kind.
#[derive(Debug)]
pub enum Table {
    /// With a primary key: its rows are kept.
    Keyed(Box<TableState>),
    /// Append-only: nothing is kept.
    Appended(AppendTable),
}

impl Table {
    /// A table without rows.
    pub fn new(table: &SourceTable) -> Self {
        if table.is_append_only() {
            Self::Appended(AppendTable::new(table))
        } else {
            Self::Keyed(Box::new(TableState::new(table)))
        }
    }

    /// Number of rows that are kept.
    pub fn len(&self) -> usize {
        match self {
            Self::Keyed(state) => state.len(),
            Self::Appended(_) => 0,
        }
    }

    /// Whether no row is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All rows of a table that keeps them; see [`TableState::rows`].
    ///
    /// # Errors
    /// If a column's texts are too long together for one array.
    pub fn rows(&self) -> Option<Result<RecordBatch, ArrowError>> {
        match self {
            Self::Keyed(state) => Some(state.rows()),
            Self::Appended(_) => None,
        }
    }

    /// See [`TableState::set_now`].
    pub fn set_now(&mut self, now_us: i64) -> bool {
        match self {
            Self::Keyed(state) => state.set_now(now_us),
            Self::Appended(_) => false,
        }
    }

    /// Applies an epoch's changes; see [`TableState::apply`].
    ///
    /// # Errors
    /// If a column's texts are too long together for one array.
    pub fn apply(&mut self, changes: &mut Changes, event_time_us_max: i64) -> Result<Applied, ArrowError> {
        match self {
            Self::Keyed(state) => state.apply(changes, event_time_us_max),
            Self::Appended(table) => table.apply(changes, event_time_us_max),
        }
    }
}

impl Table {
    /// Takes rows as they stood at a checkpoint into an empty table; see [`TableState::seed`].
    ///
    /// # Errors
    /// If the table has other columns, or keeps no rows.
    pub fn seed(&mut self, rows: &RecordBatch, positions: &[i64]) -> Result<(), ArrowError> {
        match self {
            Self::Keyed(state) => state.seed(rows, positions),
            Self::Appended(_) => Err(ArrowError::SchemaError("an append-only table keeps no rows".to_owned())),
        }
    }
}

/// What an epoch did to a table.
#[derive(Debug)]
pub struct Applied {
    /// −stored +after.
    pub delta: Delta,
    /// Source position of the change behind each row of the delta.
    pub positions: Vec<i64>,
    /// Changes dropped since a newer one of their key is known.
    pub n_old: usize,
    /// Records that could not be completed with a stored row.
    pub refused: Vec<(Origin, Undecodable)>,
    /// Largest event time up to `event_time_us_max`.
    pub event_time_us: Option<i64>,
}

impl TableState {
    /// No rows.
    pub fn new(table: &SourceTable) -> Self {
        let field_type = |i: usize| table.schema.field(i).data_type();
        let is_int = table.primary_key.len() == 1
            && !matches!(
                field_type(table.primary_key[0]),
                DataType::Boolean
                    | DataType::Float32
                    | DataType::Float64
                    | DataType::Decimal128(_, _)
                    | DataType::Utf8
                    | DataType::Binary
            );
        Self {
            schema: Arc::clone(&table.schema),
            event_time: table.event_time.map(|e| e.column),
            keys: KeyIndex::new(table.primary_key.clone(), is_int),
            columns: table.schema.fields().iter().map(|f| Column::new(f.data_type())).collect(),
            live: Vec::new(),
            positions: Vec::new(),
            deleted_by_event: Vec::new(),
            truncated_at: NO_POSITION,
            n_live: 0,
            touched_at: Vec::new(),
            touched: Vec::new(),
            expiry: table.event_time.and(table.ttl_us).map(Expiry::new),
            dead: Dead::default(),
        }
    }

    /// Tells the table what time it is: rows whose event time is more than the table's `ttl` before it leave with the
    /// next [`TableState::apply`]. Returns whether there are any. Time never goes backwards here.
    pub fn set_now(&mut self, now_us: i64) -> bool {
        let Some(expiry) = &mut self.expiry else { return false };
        expiry.before_us = expiry.before_us.max(now_us.saturating_sub(expiry.ttl_us));
        expiry.is_due()
    }

    /// Microseconds since 1970 of an event time.
    fn event_time_us(&self, columns: &[Column], row: usize) -> Option<i64> {
        let column = self.event_time?;
        let time = columns[column].int(row)?;
        match self.schema.field(column).data_type() {
            DataType::Date32 => time.checked_mul(DAY_US),
            _ => Some(time),
        }
    }

    /// Takes out what has expired: rows that are there, and rows that come too late.
    fn expire(&mut self, changes: &Changes) {
        let Some(before_us) = self.expiry.as_ref().map(|e| e.before_us) else { return };
        for i in 0..self.touched.len() {
            if let Outcome::Row(row) = self.touched[i].outcome
                && self.event_time_us(&changes.columns, row as usize).is_some_and(|time| time < before_us)
            {
                self.touched[i].outcome = Outcome::Gone;
            }
        }
        let due: Vec<u32> = match &self.expiry {
            Some(expiry) => expiry.times.range(..(before_us, 0)).map(|(_, slot)| *slot).collect(),
            None => Vec::new(),
        };
        for slot in due {
            if self.touched_at[slot as usize] == UNTOUCHED {
                self.touch(slot as usize, Outcome::Gone);
            }
        }
    }

    /// Forgets deleted keys beyond those that are remembered.
    fn forget_deleted(&mut self) {
        while self.dead.deleted.len() > self.dead.keys_max {
            let Some(slot) = self.dead.deleted.pop_front() else { return };
            let at = slot as usize;
            if !self.live[at] && self.positions[at] != FREE {
                self.keys.remove(&self.columns, at);
                self.columns.iter_mut().for_each(|c| c.unset(at));
                self.positions[at] = FREE;
                self.dead.free.push(slot);
            }
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.n_live
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.n_live == 0
    }

    /// All rows, in no particular order.
    ///
    /// # Errors
    /// If a column's texts are too long together for one array.
    pub fn rows(&self) -> Result<RecordBatch, ArrowError> {
        let slots: Vec<u32> = (0..self.live.len() as u32).filter(|s| self.live[*s as usize]).collect();
        let arrays = self.columns.iter().map(|c| Column::gather([(c, &slots), (c, &[])])).collect::<Result<_, _>>()?;
        RecordBatch::try_new(Arc::clone(&self.schema), arrays)
    }

    /// Applies an epoch's changes; event times beyond `event_time_us_max` are not believed. The changes are to be
    /// cleared afterwards.
    ///
    /// # Errors
    /// If a column's texts are too long together for one array.
    pub fn apply(&mut self, changes: &mut Changes, event_time_us_max: i64) -> Result<Applied, ArrowError> {
        let mut applied = Applied {
            delta: Delta::empty(Arc::clone(&self.schema)),
            positions: Vec::new(),
            n_old: 0,
            refused: Vec::new(),
            event_time_us: None,
        };
        let unchanged = std::mem::take(&mut changes.unchanged);
        let mut unchanged = unchanged.into_iter().peekable();
        for row in 0..changes.len() {
            let left_out = unchanged.next_if(|u| u.row as usize == row);
            match changes.operations[row] {
                Operation::Upsert => {
                    if let Some(time) = self.upsert(changes, row, left_out, &mut applied)
                        && time <= event_time_us_max
                    {
                        applied.event_time_us = applied.event_time_us.max(Some(time));
                    }
                }
                Operation::Delete => self.delete(changes, row, &mut applied),
                Operation::Tombstone => self.tombstone(changes, row),
                Operation::Truncate => self.truncate(changes.positions[row]),
            }
        }
        self.expire(changes);
        (applied.delta, applied.positions) = self.commit(changes)?;
        self.forget_deleted();
        Ok(applied)
    }

    /// Takes rows as they stood at a checkpoint into an empty table.
    ///
    /// # Errors
    /// If the rows have other columns than the table.
    pub fn seed(&mut self, rows: &RecordBatch, positions: &[i64]) -> Result<(), ArrowError> {
        if rows.schema().fields() != self.schema.fields() || rows.num_rows() != positions.len() {
            return Err(ArrowError::SchemaError("the stored rows are not of this table".to_owned()));
        }
        let columns = rows.columns().iter().map(Column::from_array).collect::<Result<Vec<_>, _>>()?;
        for (row, position) in positions.iter().enumerate() {
            let next = self.live.len() as u32;
            let slot = self.keys.get_or_insert(&columns, row, next) as usize;
            if slot == next as usize {
                self.live.push(true);
                self.positions.push(*position);
                self.deleted_by_event.push(false);
                self.touched_at.push(UNTOUCHED);
                self.n_live += 1;
                self.columns.iter_mut().zip(&columns).for_each(|(to, from)| to.push_from(from, row));
            }
        }
        let times = self.times_of(&(0..self.live.len() as u32).collect::<Vec<_>>());
        if let Some(expiry) = &mut self.expiry {
            expiry.times.extend(times);
        }
        Ok(())
    }

    /// Returns the row's event time if it was applied.
    fn upsert(
        &mut self,
        changes: &mut Changes,
        row: usize,
        left_out: Option<Unchanged>,
        applied: &mut Applied,
    ) -> Option<i64> {
        let slot = self.slot(changes, row);
        if self.is_old(slot, changes.positions[row]) {
            applied.n_old += 1;
            return None;
        }
        let mut outcome = row as u32;
        if let Some(left_out) = left_out {
            match self.complete(changes, row, slot, &left_out.columns) {
                Ok(completed) => outcome = completed,
                Err(reason) => {
                    applied.refused.push((left_out.origin, reason));
                    return None;
                }
            }
        }
        self.remember(slot, changes.positions[row]);
        self.deleted_by_event[slot] = false;
        self.touch(slot, Outcome::Row(outcome));
        self.event_time_us(&changes.columns, outcome as usize)
    }

    fn delete(&mut self, changes: &Changes, row: usize, applied: &mut Applied) {
        let position = changes.positions[row];
        let slot = self.slot(changes, row);
        self.deleted_by_event[slot] = true;
        if self.is_old(slot, position) {
            applied.n_old += 1;
            return;
        }
        self.remember(slot, position);
        self.remove(slot);
    }

    fn tombstone(&mut self, changes: &Changes, row: usize) {
        if let Some(slot) = self.keys.get(&changes.columns, row)
            && !self.deleted_by_event[slot as usize]
        {
            self.remove(slot as usize);
        }
    }

    fn truncate(&mut self, position: i64) {
        for slot in 0..self.live.len() {
            if position == NO_POSITION || self.positions[slot] < position {
                self.remove(slot);
            }
        }
        self.truncated_at = self.truncated_at.max(position);
    }

    /// Adds to the changes a copy of `row` with the columns that were left out taken from the row as it stands.
    fn complete(&self, changes: &mut Changes, row: usize, slot: usize, columns: &[u16]) -> Result<u32, Undecodable> {
        let current = self.touched.get(self.touched_at[slot] as usize).map(|t| t.outcome);
        let is_known = matches!(current, Some(Outcome::Row(_))) || (current.is_none() && self.live[slot]);
        let gap = columns.iter().map(|c| self.schema.field(usize::from(*c))).find(|f| !f.is_nullable());
        if let (Some(field), false) = (gap, is_known) {
            return Err(Undecodable::UnknownUnchanged { column: field.name().clone() });
        }
        for (i, column) in changes.columns.iter_mut().enumerate() {
            match (columns.contains(&(i as u16)), current) {
                (false, _) => column.push_own(row),
                (true, Some(Outcome::Row(earlier))) => column.push_own(earlier as usize),
                (true, None) if self.live[slot] => column.push_from(&self.columns[i], slot),
                (true, _) => column.push_null(),
            }
        }
        Ok(changes.columns[0].len() as u32 - 1)
    }

    /// The slot of a row's key; a new one is empty.
    #[inline]
    fn slot(&mut self, changes: &Changes, row: usize) -> usize {
        let next = self.dead.free.last().copied().unwrap_or(self.live.len() as u32);
        let slot = self.keys.get_or_insert(&changes.columns, row, next);
        if slot == next {
            self.dead.fresh.push((slot, row as u32));
            match self.dead.free.pop() {
                Some(_) => {
                    self.positions[slot as usize] = NO_POSITION;
                    self.deleted_by_event[slot as usize] = false;
                }
                None => {
                    self.live.push(false);
                    self.positions.push(NO_POSITION);
                    self.deleted_by_event.push(false);
                    self.touched_at.push(UNTOUCHED);
                }
            }
        }
        slot as usize
    }

    fn is_old(&self, slot: usize, position: i64) -> bool {
        position != NO_POSITION && (position <= self.positions[slot] || position < self.truncated_at)
    }

    fn remember(&mut self, slot: usize, position: i64) {
        self.positions[slot] = self.positions[slot].max(position);
    }

    fn remove(&mut self, slot: usize) {
        if self.live[slot] || self.touched_at[slot] != UNTOUCHED {
            self.touch(slot, Outcome::Gone);
        }
    }

    #[inline]
    fn touch(&mut self, slot: usize, outcome: Outcome) {
        match self.touched.get_mut(self.touched_at[slot] as usize) {
            Some(touched) => touched.outcome = outcome,
            None => {
                self.touched_at[slot] = self.touched.len() as u32;
                self.touched.push(Touched { slot: slot as u32, outcome });
            }
        }
    }

    /// Takes the outcomes over into the stored rows and returns the difference.
    fn commit(&mut self, changes: &Changes) -> Result<(Delta, Vec<i64>), ArrowError> {
        self.columns.iter_mut().for_each(|c| c.grow(self.live.len()));
        let same = self.unchanged_rows(changes);
        let (mut old_slots, mut gone_slots) = (Vec::new(), Vec::new());
        let (mut new_rows, mut new_slots) = (Vec::new(), Vec::new());
        for (touched, same) in self.touched.iter().zip(&same) {
            if *same {
                continue;
            }
            if self.live[touched.slot as usize] {
                old_slots.push(touched.slot);
            }
            match touched.outcome {
                Outcome::Row(row) => {
                    new_rows.push(row);
                    new_slots.push(touched.slot);
                }
                Outcome::Gone => gone_slots.push(touched.slot),
            }
        }
        let mut arrays = Vec::with_capacity(self.columns.len());
        for (stored, changed) in self.columns.iter_mut().zip(&changes.columns) {
            arrays.push(Column::gather([(stored, &old_slots), (changed, &new_rows)])?);
        }
        let old_times: Vec<(i64, u32)> = self.times_of(&old_slots);
        for (i, (stored, changed)) in self.columns.iter_mut().zip(&changes.columns).enumerate() {
            if self.keys.has(i) {
                // The key stays known by itself, even if it never had a row.
                self.dead.fresh.iter().for_each(|(s, r)| stored.set_from(*s as usize, changed, *r as usize));
            } else {
                gone_slots.iter().for_each(|s| stored.unset(*s as usize));
            }
            new_slots.iter().zip(&new_rows).for_each(|(s, r)| stored.set_from(*s as usize, changed, *r as usize));
        }
        gone_slots.iter().for_each(|s| self.live[*s as usize] = false);
        new_slots.iter().for_each(|s| self.live[*s as usize] = true);
        self.n_live = self.n_live + new_slots.len() - old_slots.len();
        let new_times = self.times_of(&new_slots);
        if let Some(expiry) = &mut self.expiry {
            old_times.iter().for_each(|entry| {
                expiry.times.remove(entry);
            });
            expiry.times.extend(new_times);
        }
        let (live, deleted) = (&self.live, &mut self.dead.deleted);
        let fresh = self.dead.fresh.drain(..).map(|(slot, _)| slot);
        deleted.extend(gone_slots.iter().copied().chain(fresh).filter(|s| !live[*s as usize]));
        for touched in self.touched.drain(..) {
            self.touched_at[touched.slot as usize] = UNTOUCHED;
        }
        let weights = std::iter::repeat_n(-1, old_slots.len()).chain(std::iter::repeat_n(1, new_rows.len()));
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), arrays)?;
        let positions = old_slots.iter().chain(&new_slots).map(|s| self.positions[*s as usize]).collect();
        Ok((Delta::new(rows, Int64Array::from_iter_values(weights)), positions))
    }

    /// Event times of rows that can expire.
    fn times_of(&self, slots: &[u32]) -> Vec<(i64, u32)> {
        if self.expiry.is_none() {
            return Vec::new();
        }
        slots.iter().filter_map(|s| Some((self.event_time_us(&self.columns, *s as usize)?, *s))).collect()
    }

    /// For each touched slot whether it ends as it began.
    fn unchanged_rows(&self, changes: &Changes) -> Vec<bool> {
        let mut same: Vec<bool> = self
            .touched
            .iter()
            .map(|t| match t.outcome {
                Outcome::Row(_) => self.live[t.slot as usize],
                Outcome::Gone => !self.live[t.slot as usize],
            })
            .collect();
        for (stored, changed) in self.columns.iter().zip(&changes.columns) {
            for (same, touched) in same.iter_mut().zip(&self.touched) {
                if let (true, Outcome::Row(row)) = (*same, touched.outcome) {
                    *same = stored.same(touched.slot as usize, changed, row as usize);
                }
            }
        }
        same
    }
}
