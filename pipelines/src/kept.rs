//! The rows of a kept view, by key.
//!
//! A view that only grows, and whose rows are their own keys, need not be kept once it is written to a topic: what it
//! puts out is the whole change by key, and writing a row twice changes nothing for a reader. Such a view can be
//! *streamed*.
//!
//! Rows that the operator below a view knows as well, of which no two have the same key, are left with it: a change then
//! tells all that readers must know, and the rows are asked for when somebody wants them.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use model::Delta;

use crate::error::OpResult;
use crate::rows::{Map, RowBytes, RowCodec, Set, ZSet, add_weight, batch_of, relaxed};
use crate::state::StateWriter;

/// The net change of a view in one epoch.
#[derive(Debug, Clone)]
pub struct ViewChange {
    /// Index of the view in [`crate::Program::views`].
    pub view: usize,
    /// New content of the keys that are there now.
    pub upserts: RecordBatch,
    /// Key columns of the keys that are gone.
    pub deletes: RecordBatch,
}

/// Rows by key. A key normally has one row; if the declared key is not unique, the smallest row is the visible one.
#[derive(Debug)]
pub(crate) struct Kept {
    codec: RowCodec,
    key_codec: RowCodec,
    key: Vec<usize>,
    rows: Map<RowBytes, Rows>,
    /// Keys whose rows changed since the last checkpoint, if this view's rows are stored.
    dirty: Option<Set<RowBytes>>,
    /// Where the rows are, if not here.
    elsewhere: Option<Elsewhere>,
    /// Number of rows, of a streamed view so far.
    n_elsewhere: i64,
    /// Nobody wants to know what changes: history is read, and the view is asked for as a whole afterwards.
    is_quiet: bool,
}

/// A delta, encoded.
struct Changes<'a> {
    /// `None` if all rows have the same key.
    keys: Option<&'a arrow::row::Rows>,
    rows: &'a arrow::row::Rows,
    weights: &'a [i64],
}

impl<'a> Changes<'a> {
    /// Key, row and weight of what is not nothing.
    fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8], i64)> {
        let (keys, rows) = (self.keys, self.rows);
        let key = move |i| keys.map_or(&[][..], |keys| keys.row(i).data());
        let some = self.weights.iter().enumerate().filter(|(_, weight)| **weight != 0);
        some.map(move |(i, weight)| (key(i), rows.row(i).data(), *weight))
    }
}

/// Rows that are not kept here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Elsewhere {
    /// They are handed on and kept nowhere.
    Streamed,
    /// The operators below can be asked.
    Below,
}

#[derive(Debug)]
enum Rows {
    One(RowBytes, i64),
    Many(ZSet),
}

impl Rows {
    fn visible(&self) -> Option<&[u8]> {
        match self {
            Self::One(row, weight) => (*weight > 0).then_some(row),
            Self::Many(set) => set.iter().filter(|(_, w)| **w > 0).map(|(row, _)| &**row).min(),
        }
    }

    fn add(&mut self, row: &[u8], weight: i64) {
        match self {
            Self::One(known, sum) if &**known == row || *sum == 0 => {
                if *sum == 0 {
                    *known = row.into();
                }
                *sum += weight;
            }
            Self::One(known, sum) => {
                let mut set = ZSet::default();
                set.insert(std::mem::take(known), *sum);
                add_weight(&mut set, row, weight);
                *self = Self::Many(set);
                self.shrink();
            }
            Self::Many(set) => {
                add_weight(set, row, weight);
                self.shrink();
            }
        }
    }

    /// −old +new of an update passes through two rows; afterwards there is one again.
    fn shrink(&mut self) {
        if let Self::Many(set) = self
            && set.len() <= 1
        {
            let (row, weight) = std::mem::take(set).into_iter().next().unwrap_or_default();
            *self = Self::One(row, weight);
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::One(_, weight) => *weight == 0,
            Self::Many(set) => set.is_empty(),
        }
    }
}

impl Kept {
    pub(crate) fn new(schema: &SchemaRef, key: &[usize]) -> OpResult<Self> {
        let schema = relaxed(schema);
        Ok(Self {
            key_codec: RowCodec::of_columns(&schema, key)?,
            codec: RowCodec::new(schema)?,
            key: key.to_vec(),
            rows: Map::default(),
            dirty: None,
            elsewhere: None,
            n_elsewhere: 0,
            is_quiet: false,
        })
    }

    /// Whether [`Kept::apply`] is to leave out what has changed; that is the larger part of its work.
    pub(crate) fn set_quiet(&mut self, is_quiet: bool) {
        self.is_quiet = is_quiet;
    }

    /// From now on hands rows on without keeping them. To be called before the first row, and only if no row is ever
    /// taken back and the key is the whole row.
    pub(crate) fn stream(&mut self) {
        self.elsewhere = Some(Elsewhere::Streamed);
    }

    pub(crate) fn is_streamed(&self) -> bool {
        self.elsewhere == Some(Elsewhere::Streamed)
    }

    /// From now on the rows are asked of the operators below. To be called before the first row, and only if no two rows
    /// ever have the same key.
    pub(crate) fn leave_below(&mut self) {
        self.elsewhere = Some(Elsewhere::Below);
    }

    pub(crate) fn is_below(&self) -> bool {
        self.elsewhere == Some(Elsewhere::Below)
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        self.codec.schema()
    }

    /// From now on remembers which keys change, for [`Kept::checkpoint`].
    pub(crate) fn track(&mut self) {
        self.dirty = Some(Set::default());
    }

    /// Writes the rows of the keys that changed since the last call: one entry per key, its rows with their weights.
    pub(crate) fn checkpoint(&mut self, out: &mut StateWriter<'_>) {
        let Some(dirty) = &mut self.dirty else { return };
        let mut value = Vec::new();
        for key in dirty.drain() {
            value.clear();
            let mut add = |row: &[u8], weight: i64| {
                value.extend_from_slice(&weight.to_be_bytes());
                value.extend_from_slice(&(row.len() as u64).to_be_bytes());
                value.extend_from_slice(row);
            };
            match self.rows.get(&key) {
                Some(Rows::One(row, weight)) => add(row, *weight),
                Some(Rows::Many(set)) => set.iter().for_each(|(row, weight)| add(row, *weight)),
                None => {}
            }
            if value.is_empty() { out.delete(&key) } else { out.put(&key, &value) }
        }
    }

    /// Takes back what [`Kept::checkpoint`] wrote.
    pub(crate) fn restore<'a>(&mut self, entries: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
        if self.elsewhere.is_some() {
            return;
        }
        for (key, mut value) in entries {
            while let Some((head, rest)) = value.split_at_checked(16) {
                let number = |bytes: &[u8]| bytes.try_into().map_or(0, i64::from_be_bytes);
                let (weight, len) = (number(&head[..8]), number(&head[8..]));
                let (row, rest) = rest.split_at(usize::try_from(len).unwrap_or(0).min(rest.len()));
                match self.rows.get_mut(key) {
                    Some(rows) => rows.add(row, weight),
                    None => {
                        self.rows.insert(key.into(), Rows::One(row.into(), weight));
                    }
                }
                value = rest;
            }
        }
    }

    /// Number of rows; of a streamed view those since the start.
    pub(crate) fn len(&self) -> usize {
        match self.elsewhere {
            None => self.rows.len(),
            Some(_) => usize::try_from(self.n_elsewhere).unwrap_or(0),
        }
    }

    fn hand_on(&self, view: usize, delta: &Delta) -> OpResult<Option<ViewChange>> {
        let weights = delta.weights.values();
        if weights.iter().any(|w| *w < 0) {
            let message = "a row is taken back from a view that only grows".to_owned();
            return Err(DataFusionError::Internal(message));
        }
        let rows = batch_of(self.codec.schema(), delta.rows.columns().to_vec(), delta.len())?;
        let upserts = match weights.iter().all(|w| *w > 0) {
            true => rows,
            false => {
                let there: BooleanArray = weights.iter().map(|w| Some(*w > 0)).collect();
                arrow::compute::filter_record_batch(&rows, &there)?
            }
        };
        let deletes = RecordBatch::new_empty(Arc::clone(self.key_codec.schema()));
        Ok((upserts.num_rows() > 0).then_some(ViewChange { view, upserts, deletes }))
    }

    /// Takes a delta in and gives the net change by key.
    pub(crate) fn apply(&mut self, view: usize, delta: &Delta) -> OpResult<Option<ViewChange>> {
        if self.is_streamed() {
            let change = self.hand_on(view, delta)?;
            self.n_elsewhere += change.as_ref().map_or(0, |c| c.upserts.num_rows() as i64);
            return Ok(change);
        }
        if self.is_below() {
            self.n_elsewhere += delta.weights.values().iter().sum::<i64>();
            if self.is_quiet {
                return Ok(None);
            }
        }
        let rows = self.codec.encode_batch(&delta.rows)?;
        let keys = match self.key.is_empty() {
            true => None,
            false => {
                let columns: Vec<ArrayRef> = self.key.iter().map(|i| ArrayRef::clone(delta.rows.column(*i))).collect();
                Some(self.key_codec.encode(&columns)?)
            }
        };
        let changes = Changes { keys: keys.as_ref(), rows: &rows, weights: delta.weights.values() };
        if self.is_quiet {
            self.absorb(&changes);
            return Ok(None);
        }
        let mut upserts: Vec<&[u8]> = Vec::new();
        let mut deletes: Vec<&[u8]> = Vec::new();
        let before;
        if self.is_below() {
            told_by(&changes, &mut upserts, &mut deletes);
        } else {
            before = self.take_in(&changes);
            for (key, old) in &before {
                match self.rows.get(*key).and_then(Rows::visible) {
                    Some(new) if old.as_deref() != Some(new) => upserts.push(new),
                    None if old.is_some() => deletes.push(key),
                    _ => {}
                }
            }
        }
        if upserts.is_empty() && deletes.is_empty() {
            return Ok(None);
        }
        // Hash order differs from run to run; topics should not.
        upserts.sort_unstable();
        deletes.sort_unstable();
        Ok(Some(ViewChange {
            view,
            upserts: self.codec.decode_batch(&upserts)?,
            deletes: self.key_codec.decode_batch(&deletes)?,
        }))
    }

    /// Takes changes in; returns what was visible before of each key in them.
    fn take_in<'a>(&mut self, changes: &Changes<'a>) -> Map<&'a [u8], Option<RowBytes>> {
        let mut before: Map<&[u8], Option<RowBytes>> = Map::default();
        for (key, row, weight) in changes.iter() {
            match self.rows.get_mut(key) {
                Some(known) => {
                    before.entry(key).or_insert_with(|| known.visible().map(Into::into));
                    known.add(row, weight);
                }
                None => {
                    before.entry(key).or_insert(None);
                    self.rows.insert(key.into(), Rows::One(row.into(), weight));
                }
            }
        }
        if let Some(dirty) = &mut self.dirty {
            dirty.extend(before.keys().map(|key| RowBytes::from(*key)));
        }
        self.drop_empty(before.keys().copied());
        before
    }

    /// Takes changes in and looks no further.
    fn absorb(&mut self, changes: &Changes<'_>) {
        let mut empty: Vec<&[u8]> = Vec::new();
        for (key, row, weight) in changes.iter() {
            if let Some(dirty) = &mut self.dirty
                && !dirty.contains(key)
            {
                dirty.insert(key.into());
            }
            match self.rows.get_mut(key) {
                Some(known) => {
                    known.add(row, weight);
                    if known.is_empty() {
                        empty.push(key);
                    }
                }
                None => {
                    self.rows.insert(key.into(), Rows::One(row.into(), weight));
                }
            }
        }
        self.drop_empty(empty.into_iter());
    }

    fn drop_empty<'a>(&mut self, keys: impl Iterator<Item = &'a [u8]>) {
        for key in keys {
            if self.rows.get(key).is_some_and(Rows::is_empty) {
                self.rows.remove(key);
            }
        }
    }

    /// All rows, duplicates as often as they occur, sorted.
    ///
    /// # Errors
    /// If the view is streamed.
    pub(crate) fn contents(&self) -> OpResult<RecordBatch> {
        if self.is_streamed() {
            return Err(DataFusionError::Execution("nothing is kept of a view that only grows: read its topic".into()));
        }
        let mut all: Vec<&[u8]> = Vec::with_capacity(self.rows.len());
        for rows in self.rows.values() {
            let mut push = |row, weight: i64| {
                all.extend(std::iter::repeat_n(row, usize::try_from(weight).unwrap_or(0)));
            };
            match rows {
                Rows::One(row, weight) => push(&**row, *weight),
                Rows::Many(set) => set.iter().for_each(|(row, weight)| push(row, *weight)),
            }
        }
        all.sort_unstable();
        self.codec.decode_batch(&all)
    }

    /// What readers by key see: one row per key, sorted, in parts of so many rows.
    pub(crate) fn visible(&self, part_rows: usize) -> OpResult<Vec<RecordBatch>> {
        let all: Vec<&[u8]> = self.rows.values().filter_map(Rows::visible).collect();
        self.parts(all, part_rows)
    }

    /// The rows that `standing` says, sorted, in parts of so many rows.
    pub(crate) fn sorted(&self, standing: Option<&Delta>, part_rows: usize) -> OpResult<Vec<RecordBatch>> {
        let Some(standing) = standing else { return Ok(Vec::new()) };
        if self.codec.schema().fields().is_empty() {
            return Ok(vec![standing.rows.clone()]);
        }
        let rows = self.codec.encode_batch(&standing.rows)?;
        let weights = standing.weights.values();
        let times = |i: usize| usize::try_from(weights[i]).unwrap_or(0);
        let all = (0..weights.len()).flat_map(|i| std::iter::repeat_n(rows.row(i).data(), times(i))).collect();
        self.parts(all, part_rows)
    }

    fn parts(&self, mut rows: Vec<&[u8]>, part_rows: usize) -> OpResult<Vec<RecordBatch>> {
        rows.sort_unstable();
        rows.chunks(part_rows.min(rows.len().max(1))).map(|part| self.codec.decode_batch(part)).collect()
    }
}

/// What readers by key must be told of changes of rows that are unique by key.
fn told_by<'a>(changes: &Changes<'a>, upserts: &mut Vec<&'a [u8]>, deletes: &mut Vec<&'a [u8]>) {
    let mut net: Map<&[u8], (&[u8], i64)> = Map::default();
    for (key, row, weight) in changes.iter() {
        net.entry(row).or_insert((key, 0)).1 += weight;
    }
    let mut there: Set<&[u8]> = Set::default();
    for (row, (key, _)) in net.iter().filter(|(_, (_, weight))| *weight > 0) {
        upserts.push(row);
        there.insert(key);
    }
    deletes.extend(net.values().filter(|(key, weight)| *weight < 0 && !there.contains(key)).map(|(key, _)| *key));
}
