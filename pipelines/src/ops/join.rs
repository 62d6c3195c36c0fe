//! Joins of inputs that change on both sides: inner, left, right, full, semi and anti, by equal keys.
//!
//! Both sides are indexed by key. A step first joins the left change with the old right side, then the right change
//! with the new left side: ΔL⋈R + (L+ΔL)⋈ΔR. A row that is put out alone (outer, anti: without a match; semi: with
//! one) follows its key's presence on the other side, which is compared before and after the change.

use std::sync::Arc;

use arrow::array::Int64Array;
use arrow::datatypes::SchemaRef;
use datafusion::common::JoinType;
use datafusion::common::cast::as_int64_array;
use model::Delta;

use super::keyed::malformed;
use super::side::Side;
use super::{Expr, Operator, Step, concat, evaluate_condition};
use crate::error::OpResult;
use crate::rows::{Map, RowBytes, batch_of};
use crate::state::StateWriter;
use crate::watermark::Horizon;

/// Tags of the sides' entries in stored state.
const LEFT: u8 = 0;
const RIGHT: u8 = 1;

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

/// Both inputs of a join, and when their keys close.
#[derive(Debug)]
pub(super) struct Sides {
    pub(super) left: Side,
    pub(super) right: Side,
    horizon: Option<Horizon>,
}

impl Sides {
    /// `closed`: the part of the key that closes. No row may come for closed keys any more, so they are forgotten.
    pub(super) fn new(mut left: Side, mut right: Side, closed: Option<(usize, Horizon)>) -> Self {
        if let Some((part, _)) = &closed {
            left.close_by(*part);
            right.close_by(*part);
        }
        Self { left, right, horizon: closed.map(|(_, horizon)| horizon) }
    }

    pub(super) fn wants(&self, step: &Step<'_>) -> bool {
        let moves = self.horizon.as_ref().is_some_and(|h| h.moves(step.watermarks));
        moves && (self.left.closes() || self.right.closes())
    }

    /// Forgets the keys that are closed when the step ends, and tells which of the left and of the right side.
    pub(super) fn take_closed(&mut self, step: &Step<'_>) -> [Vec<RowBytes>; 2] {
        match self.horizon.as_ref().and_then(|h| h.now(step.watermarks)) {
            Some(bound) => [self.left.take_closed(bound), self.right.take_closed(bound)],
            None => [Vec::new(), Vec::new()],
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.left.rows() + self.right.rows()
    }

    pub(super) fn track(&mut self) {
        self.left.track();
        self.right.track();
    }

    pub(super) fn checkpoint(&mut self, out: &mut StateWriter<'_>) -> OpResult<()> {
        self.left.checkpoint(LEFT, out)?;
        self.right.checkpoint(RIGHT, out)
    }

    pub(super) fn restore(&mut self, entries: &mut dyn Iterator<Item = (&[u8], &[u8])>) -> OpResult<()> {
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

/// A join by equal keys; inner joins may have a further condition.
#[derive(Debug)]
pub(crate) struct Join {
    shape: Shape,
    sides: Sides,
    residual: Option<Expr>,
    schema: SchemaRef,
}

impl Join {
    /// `None` if there is no such form: a further condition on an outer join, or a join type without one. `closed`: the
    /// part of the key that closes.
    pub(crate) fn new(
        join_type: JoinType,
        sides: (Side, Side),
        closed: Option<(usize, Horizon)>,
        residual: Option<Expr>,
        schema: SchemaRef,
    ) -> Option<Self> {
        let shape = Shape::of(join_type)?;
        let sides = Sides::new(sides.0, sides.1, closed);
        (residual.is_none() || join_type == JoinType::Inner).then_some(Self { shape, sides, residual, schema })
    }

    fn finish(&self, delta: Option<Delta>) -> OpResult<Option<Delta>> {
        let (Some(delta), Some(residual)) = (&delta, &self.residual) else { return Ok(delta) };
        let mask = evaluate_condition(residual, &delta.rows)?;
        let rows = arrow::compute::filter_record_batch(&delta.rows, &mask)?;
        let weights = arrow::compute::filter(&delta.weights, &mask)?;
        Ok((mask.true_count() > 0).then(|| Delta::new(rows, as_int64_array(&weights).expect("weights").clone())))
    }
}

impl Operator for Join {
    fn wants(&self, step: &Step<'_>) -> bool {
        self.sides.wants(step)
    }

    fn step(&mut self, inputs: &[Option<&Delta>], step: &Step<'_>) -> OpResult<Option<Delta>> {
        let mut out = Vec::new();
        let Shape { pairs, left: left_alone, right: right_alone } = self.shape;
        let Sides { left, right, .. } = &mut self.sides;
        if let Some(delta) = inputs[0] {
            let shape = (pairs, left_alone, right_alone);
            out.extend(half(delta, left, right, shape, Order::ThisFirst, &self.schema)?);
        }
        if let Some(delta) = inputs[1] {
            let shape = (pairs, right_alone, left_alone);
            out.extend(half(delta, right, left, shape, Order::OtherFirst, &self.schema)?);
        }
        self.sides.take_closed(step);
        self.finish(concat(&out)?)
    }

    fn state_rows(&self) -> usize {
        self.sides.rows()
    }

    fn track(&mut self) {
        self.sides.track();
    }

    fn checkpoint(&mut self, out: &mut StateWriter<'_>) -> OpResult<()> {
        self.sides.checkpoint(out)
    }

    fn restore(&mut self, entries: &mut dyn Iterator<Item = (&[u8], &[u8])>) -> OpResult<()> {
        self.sides.restore(entries)
    }
}

/// Output rows as references into state: (this side, other side, weight).
#[derive(Default)]
struct Emission<'a> {
    this: Vec<&'a [u8]>,
    other: Vec<&'a [u8]>,
    weights: Vec<i64>,
}

impl<'a> Emission<'a> {
    fn push(&mut self, this: &'a [u8], other: &'a [u8], weight: i64) {
        self.this.push(this);
        self.other.push(other);
        self.weights.push(weight);
    }
}

/// Where the changing side's columns stand in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
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
        let bucket = change.key(i).and_then(|key| other.bucket(key));
        if let (true, Some(bucket)) = (pairs, bucket) {
            bucket.rows().for_each(|(row, w)| emission.push(change.row(i), row, weight * w));
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
        let Some(bucket) = other.bucket(key).filter(|_| had != has) else { continue };
        let sign = if has == (other_alone == Alone::Matched) { 1 } else { -1 };
        bucket.rows().for_each(|(row, weight)| emission.push(&this.null_row, row, sign * weight));
    }
    out.extend(decode(&emission, this, other, pairs, false, order, schema)?);
    Ok(out)
}

/// Turns an emission into columns. Without pairs only one side's columns are put out: `this_only` says which.
fn decode(
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
