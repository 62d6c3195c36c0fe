//! Joins of inputs that change on both sides: inner, left, right, full, semi and anti, by equal keys.
//!
//! Both sides are indexed by key. A step first joins the left change with the old right side, then the right change
//! with the new left side: ΔL⋈R + (L+ΔL)⋈ΔR. A row that is put out alone (outer, anti: without a match; semi: with
//! one) follows its key's presence on the other side, which is compared before and after the change.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, Int64Array};
use arrow::datatypes::SchemaRef;
use arrow::row::Rows;
use datafusion::common::JoinType;
use datafusion::common::cast::as_int64_array;
use hashbrown::hash_map::EntryRef;
use model::Delta;

use super::keyed::malformed;
use super::tracked::stored_weight;
use super::{Expr, Operator, Step, concat, evaluate, evaluate_mask};
use crate::error::OpResult;
use crate::rows::{Map, RowBytes, RowCodec, Set, ZSet, add_weight, batch_of};
use crate::state::StateWriter;
use crate::watermark::{Horizon, at, instants};

/// Tags of the sides' entries in stored state.
pub(super) const LEFT: u8 = 0;
pub(super) const RIGHT: u8 = 1;

/// The rows of one key: usually one.
#[derive(Debug)]
pub(super) enum Bucket {
    One(RowBytes, i64),
    Many(ZSet),
}

impl Bucket {
    pub(super) fn for_each<'a>(&'a self, mut f: impl FnMut(&'a [u8], i64)) {
        match self {
            Self::One(row, weight) => f(row, *weight),
            Self::Many(set) => set.iter().for_each(|(row, weight)| f(row, *weight)),
        }
    }

    fn weight(&self, row: &[u8]) -> Option<i64> {
        match self {
            Self::One(known, weight) => (&**known == row).then_some(*weight),
            Self::Many(set) => set.get(row).copied(),
        }
    }

    /// Adds a weight and tells whether the bucket is empty now.
    fn add(&mut self, row: &[u8], weight: i64) -> bool {
        match self {
            Self::One(known, sum) if &**known == row => {
                *sum += weight;
                *sum == 0
            }
            Self::One(known, sum) => {
                let mut set = ZSet::default();
                set.insert(std::mem::take(known), *sum);
                add_weight(&mut set, row, weight);
                *self = Self::Many(set);
                false
            }
            Self::Many(set) => {
                add_weight(set, row, weight);
                set.is_empty()
            }
        }
    }
}

/// Length of the key, key, row.
fn stored_name(key: &[u8], row: &[u8]) -> RowBytes {
    let len = u32::try_from(key.len()).unwrap_or(u32::MAX);
    [&len.to_be_bytes(), key, row].concat().into()
}

fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = name.split_at_checked(4)?;
    rest.split_at_checked(u32::from_be_bytes(len.try_into().ok()?) as usize)
}

/// Which rows of a side are put out without a partner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alone {
    /// None.
    Never,
    /// Those without a match: outer and anti joins.
    Unmatched,
    /// Those with a match, once: semi joins.
    Matched,
}

/// What a join type puts out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Pairs of matching rows; otherwise only one side's columns are in the output.
    pub(super) pairs: bool,
    pub(super) left: Alone,
    pub(super) right: Alone,
}

impl Shape {
    /// `None` for join types that are kept by recomputation.
    pub(super) fn of(join_type: JoinType) -> Option<Self> {
        use Alone::{Matched, Never, Unmatched};
        let (pairs, left, right) = match join_type {
            JoinType::Inner => (true, Never, Never),
            JoinType::Left => (true, Unmatched, Never),
            JoinType::Right => (true, Never, Unmatched),
            JoinType::Full => (true, Unmatched, Unmatched),
            JoinType::LeftSemi => (false, Matched, Never),
            JoinType::LeftAnti => (false, Unmatched, Never),
            JoinType::RightSemi => (false, Never, Matched),
            JoinType::RightAnti => (false, Never, Unmatched),
            _ => return None,
        };
        Some(Self { pairs, left, right })
    }
}

/// One input of a join, indexed by key.
#[derive(Debug)]
pub(crate) struct Side {
    keys: Vec<Expr>,
    key_codec: RowCodec,
    pub(super) row_codec: RowCodec,
    pub(super) null_row: RowBytes,
    nulls_match: bool,
    pub(super) index: Map<RowBytes, Bucket>,
    /// Stored names of the rows that changed since the last checkpoint, if they are stored.
    dirty: Option<Set<RowBytes>>,
    closes: Option<Closes>,
}

/// Keys in the order in which they close.
#[derive(Debug)]
struct Closes {
    /// Which of the key's parts closes.
    part: usize,
    keys: BTreeMap<i64, Vec<RowBytes>>,
}

/// A change of a side, encoded.
pub(super) struct Encoded {
    keys: Option<Rows>,
    rows: Option<Rows>,
    matchable: Vec<bool>,
    /// The closing part of each key, where the side closes.
    closing: Option<Int64Array>,
    pub(super) weights: Int64Array,
}

impl Encoded {
    pub(super) fn len(&self) -> usize {
        self.weights.len()
    }

    /// The key of a row, `None` if it is NULL and so equals nothing.
    pub(super) fn key(&self, i: usize) -> Option<&[u8]> {
        self.matchable[i].then(|| self.keys.as_ref().map_or(&[][..], |keys| keys.row(i).data()))
    }

    pub(super) fn row(&self, i: usize) -> &[u8] {
        self.rows.as_ref().map_or(&[][..], |rows| rows.row(i).data())
    }
}

impl Side {
    /// `keys` are evaluated on rows of `schema`; `key_schema` has their types.
    pub(crate) fn new(schema: SchemaRef, keys: Vec<Expr>, key_schema: SchemaRef, nulls_match: bool) -> OpResult<Self> {
        let row_codec = RowCodec::new(schema)?;
        let null_row = row_codec.null_row()?;
        Ok(Self {
            keys,
            key_codec: RowCodec::new(key_schema)?,
            row_codec,
            null_row,
            nulls_match,
            index: Map::default(),
            dirty: None,
            closes: None,
        })
    }

    /// From now on remembers when each key closes by this part of it, for [`Side::forget_before`].
    pub(super) fn close_by(&mut self, part: usize) {
        self.closes = Some(Closes { part, keys: BTreeMap::new() });
    }

    /// Whether there is a key that closes some day.
    pub(super) fn closes(&self) -> bool {
        self.closes.as_ref().is_some_and(|c| !c.keys.is_empty())
    }

    /// Forgets the keys that were closed before a time.
    pub(super) fn forget_before(&mut self, bound: i64) {
        let Some(closes) = &mut self.closes else { return };
        let mut n_closed = 0_u64;
        while let Some(first) = closes.keys.first_entry() {
            if *first.key() >= bound {
                break;
            }
            for key in first.remove() {
                let Some(bucket) = self.index.remove(&key) else { continue };
                n_closed += 1;
                if let Some(dirty) = &mut self.dirty {
                    bucket.for_each(|row, _| {
                        dirty.insert(stored_name(&key, row));
                    });
                }
            }
        }
        if n_closed > 0 {
            metrics::counter!("pipelines_closed_keys_total").increment(n_closed);
        }
    }

    pub(super) fn encode(&self, delta: &Delta) -> OpResult<Encoded> {
        let mut matchable = vec![true; delta.len()];
        let columns = self.keys.iter().map(|k| evaluate(k, &delta.rows)).collect::<OpResult<Vec<_>>>()?;
        if !self.nulls_match {
            for column in columns.iter().filter(|c| c.null_count() > 0) {
                for (i, ok) in matchable.iter_mut().enumerate() {
                    *ok &= column.is_valid(i);
                }
            }
        }
        let keys = if columns.is_empty() { None } else { Some(self.key_codec.encode(&columns)?) };
        let has_columns = delta.rows.num_columns() > 0;
        let rows = if has_columns { Some(self.row_codec.encode_batch(&delta.rows)?) } else { None };
        let closing = self.closes.as_ref().map(|c| instants(&columns[c.part])).transpose()?;
        Ok(Encoded { keys, rows, matchable, closing, weights: delta.weights.clone() })
    }

    pub(super) fn has(&self, key: &[u8]) -> bool {
        self.index.contains_key(key)
    }

    pub(super) fn update(&mut self, change: &Encoded) {
        for i in 0..change.len() {
            let (Some(key), weight) = (change.key(i), change.weights.value(i)) else { continue };
            if weight == 0 {
                continue;
            }
            if let Some(dirty) = &mut self.dirty {
                dirty.insert(stored_name(key, change.row(i)));
            }
            match self.index.entry_ref(key) {
                EntryRef::Occupied(mut entry) => {
                    if entry.get_mut().add(change.row(i), weight) {
                        entry.remove();
                    }
                }
                EntryRef::Vacant(entry) => {
                    if let (Some(closes), Some(closing)) = (&mut self.closes, &change.closing)
                        && let Some(value) = at(closing, i)
                    {
                        closes.keys.entry(value).or_default().push(key.into());
                    }
                    entry.insert_with_key(key.into(), Bucket::One(change.row(i).into(), weight));
                }
            }
        }
    }

    pub(super) fn track(&mut self) {
        self.dirty = Some(Set::default());
    }

    /// Writes the rows that changed since the last call, one entry each, `tag` in front.
    pub(super) fn checkpoint(&mut self, tag: u8, out: &mut StateWriter<'_>) {
        let mut name = vec![tag];
        for row in self.dirty.iter_mut().flat_map(Set::drain) {
            let weight = split_name(&row).and_then(|(key, row)| self.index.get(key)?.weight(row));
            name.truncate(1);
            name.extend_from_slice(&row);
            match weight {
                Some(weight) => out.put(&name, &weight.to_be_bytes()),
                None => out.delete(&name),
            }
        }
    }

    /// Takes back one entry, its name without the tag.
    pub(super) fn restore(&mut self, name: &[u8], value: &[u8]) -> OpResult<()> {
        let (key, row) = split_name(name).ok_or_else(malformed)?;
        let weight = stored_weight(value)?;
        match self.index.entry_ref(key) {
            EntryRef::Occupied(mut entry) => {
                entry.get_mut().add(row, weight);
            }
            EntryRef::Vacant(entry) => {
                entry.insert_with_key(key.into(), Bucket::One(row.into(), weight));
            }
        }
        Ok(())
    }

    /// After all entries were taken back: when each key closes.
    pub(super) fn restored(&mut self) -> OpResult<()> {
        let Some(closes) = &mut self.closes else { return Ok(()) };
        closes.keys.clear();
        let keys: Vec<&RowBytes> = self.index.keys().collect();
        let columns = self.key_codec.decode(keys.iter().map(|k| &***k))?;
        let values = instants(&columns[closes.part])?;
        for (i, key) in keys.into_iter().enumerate() {
            if let Some(value) = at(&values, i) {
                closes.keys.entry(value).or_default().push(key.clone());
            }
        }
        Ok(())
    }

    fn rows(&self) -> usize {
        let of = |b: &Bucket| if let Bucket::Many(set) = b { set.len() } else { 1 };
        self.index.values().map(of).sum()
    }
}

/// Output rows as references into state: (this side, other side, weight).
#[derive(Default)]
pub(super) struct Emission<'a> {
    pub(super) this: Vec<&'a [u8]>,
    pub(super) other: Vec<&'a [u8]>,
    pub(super) weights: Vec<i64>,
}

impl<'a> Emission<'a> {
    pub(super) fn push(&mut self, this: &'a [u8], other: &'a [u8], weight: i64) {
        self.this.push(this);
        self.other.push(other);
        self.weights.push(weight);
    }
}

/// A join by equal keys; inner joins may have a further condition.
#[derive(Debug)]
pub(crate) struct Join {
    shape: Shape,
    left: Side,
    right: Side,
    residual: Option<Expr>,
    schema: SchemaRef,
    horizon: Option<Horizon>,
}

impl Join {
    /// From now on forgets keys whose part is closed; no row may come for them any more.
    pub(crate) fn close_by(&mut self, part: usize, horizon: Horizon) {
        self.left.close_by(part);
        self.right.close_by(part);
        self.horizon = Some(horizon);
    }

    /// `None` if there is no such form: a further condition on an outer join, or a join type without one.
    pub(crate) fn new(
        join_type: JoinType,
        left: Side,
        right: Side,
        residual: Option<Expr>,
        schema: SchemaRef,
    ) -> Option<Self> {
        let shape = Shape::of(join_type)?;
        (residual.is_none() || join_type == JoinType::Inner).then_some(Self {
            shape,
            left,
            right,
            residual,
            schema,
            horizon: None,
        })
    }

    fn finish(&self, delta: Option<Delta>) -> OpResult<Option<Delta>> {
        let (Some(delta), Some(residual)) = (&delta, &self.residual) else { return Ok(delta) };
        let mask = evaluate_mask(residual, &delta.rows)?;
        let rows = arrow::compute::filter_record_batch(&delta.rows, &mask)?;
        let weights = arrow::compute::filter(&delta.weights, &mask)?;
        Ok((mask.true_count() > 0).then(|| Delta::new(rows, as_int64_array(&weights).expect("weights").clone())))
    }
}

impl Operator for Join {
    fn wants(&self, step: &Step<'_>) -> bool {
        let moves = self.horizon.as_ref().is_some_and(|h| h.moves(step.watermarks));
        moves && (self.left.closes() || self.right.closes())
    }

    fn step(&mut self, inputs: &[Option<&Delta>], step: &Step<'_>) -> OpResult<Option<Delta>> {
        let mut out = Vec::new();
        if let Some(delta) = inputs[0] {
            let Shape { pairs, left, right } = self.shape;
            let order = Order::ThisFirst;
            out.extend(half(delta, &mut self.left, &self.right, (pairs, left, right), order, &self.schema)?);
        }
        if let Some(delta) = inputs[1] {
            let Shape { pairs, left, right } = self.shape;
            let order = Order::OtherFirst;
            out.extend(half(delta, &mut self.right, &self.left, (pairs, right, left), order, &self.schema)?);
        }
        if let Some(bound) = self.horizon.as_ref().and_then(|h| h.now(step.watermarks)) {
            self.left.forget_before(bound);
            self.right.forget_before(bound);
        }
        self.finish(concat(&out)?)
    }

    fn state_rows(&self) -> usize {
        self.left.rows() + self.right.rows()
    }

    fn track(&mut self) {
        self.left.track();
        self.right.track();
    }

    fn checkpoint(&mut self, out: &mut StateWriter<'_>) -> OpResult<()> {
        self.left.checkpoint(LEFT, out);
        self.right.checkpoint(RIGHT, out);
        Ok(())
    }

    fn restore(&mut self, entries: &mut dyn Iterator<Item = (&[u8], &[u8])>) -> OpResult<()> {
        for (name, value) in entries {
            match name.split_first().ok_or_else(malformed)? {
                (&LEFT, name) => self.left.restore(name, value)?,
                (_, name) => self.right.restore(name, value)?,
            }
        }
        self.left.restored()?;
        self.right.restored()
    }
}

/// Where the changing side's columns stand in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    ThisFirst,
    OtherFirst,
}

/// Joins the change of one side with the other side as it stands, then takes the change into the index.
fn half(
    delta: &Delta,
    this: &mut Side,
    other: &Side,
    (pairs, this_alone, other_alone): (bool, Alone, Alone),
    order: Order,
    schema: &SchemaRef,
) -> OpResult<Vec<Delta>> {
    let change = this.encode(delta)?;
    let mut out = Vec::new();
    let mut emission = Emission::default();
    for i in 0..change.len() {
        let weight = change.weights.value(i);
        let bucket = change.key(i).and_then(|key| other.index.get(key));
        if let (true, Some(bucket)) = (pairs, bucket) {
            bucket.for_each(|row, w| emission.push(change.row(i), row, weight * w));
        }
        let alone = match this_alone {
            Alone::Never => false,
            Alone::Unmatched => bucket.is_none(),
            Alone::Matched => bucket.is_some(),
        };
        if alone {
            emission.push(change.row(i), &other.null_row, weight);
        }
    }
    out.extend(decode(&emission, this, other, pairs, this_alone != Alone::Never, order, schema)?);
    let before: Map<&[u8], bool> = match other_alone {
        Alone::Never => Map::default(),
        _ => (0..change.len()).filter_map(|i| change.key(i)).map(|key| (key, this.has(key))).collect(),
    };
    this.update(&change);
    let mut emission = Emission::default();
    for (key, had) in before {
        let has = this.has(key);
        let Some(bucket) = other.index.get(key).filter(|_| had != has) else { continue };
        let sign = if has == (other_alone == Alone::Matched) { 1 } else { -1 };
        bucket.for_each(|row, weight| emission.push(&this.null_row, row, sign * weight));
    }
    out.extend(decode(&emission, this, other, pairs, false, order, schema)?);
    Ok(out)
}

/// Turns an emission into columns. Without pairs only one side's columns are put out: `this_only` says which.
pub(super) fn decode(
    emission: &Emission<'_>,
    this: &Side,
    other: &Side,
    pairs: bool,
    this_only: bool,
    order: Order,
    schema: &SchemaRef,
) -> OpResult<Option<Delta>> {
    if emission.weights.is_empty() {
        return Ok(None);
    }
    let mut columns = Vec::with_capacity(schema.fields().len());
    let this_columns = |columns: &mut Vec<_>| -> OpResult<()> {
        columns.extend(this.row_codec.decode_batch(&emission.this)?.columns().iter().map(Arc::clone));
        Ok(())
    };
    let other_columns = |columns: &mut Vec<_>| -> OpResult<()> {
        columns.extend(other.row_codec.decode_batch(&emission.other)?.columns().iter().map(Arc::clone));
        Ok(())
    };
    match (pairs, this_only, order) {
        (true, _, Order::ThisFirst) => {
            this_columns(&mut columns)?;
            other_columns(&mut columns)?;
        }
        (true, _, Order::OtherFirst) => {
            other_columns(&mut columns)?;
            this_columns(&mut columns)?;
        }
        (false, true, _) => this_columns(&mut columns)?,
        (false, false, _) => other_columns(&mut columns)?,
    }
    let rows = batch_of(schema, columns, emission.weights.len())?;
    Ok(Some(Delta::new(rows, Int64Array::from(emission.weights.clone()))))
}
