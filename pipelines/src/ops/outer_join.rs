//! Outer, semi and anti joins with a condition beyond equal keys: whether a row has a match depends on the partner
//! rows and not on the key's presence alone.
//!
//! A row that may be put out alone has the sum of its partners' weights beside it. A change of one side is joined with
//! the other side's rows of the same key, whose sums follow, so a step costs the change times the other side of its keys.
//! The sums are not stored: a start takes them from the pairs anew.

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::common::JoinType;
use model::Delta;

use super::interval::value_of;
use super::join::{Alone, Shape, Sides};
use super::side::{Encoded, Side};
use super::{Expr, Operator, Step, concat, evaluate_condition};
use crate::error::OpResult;
use crate::rows::{Map, RowBytes, ZSet, add_weight, batch_of};
use crate::state::StateWriter;
use crate::watermark::Horizon;

/// The condition is evaluated on so many pairs at once; more of them take another round.
const PAIRS_MAX: usize = 16_384;

/// The sums of the partners' weights of one side's rows, by key; zero is not kept.
type Matches = Map<RowBytes, ZSet>;

/// A join that knows how many partners each row has.
#[derive(Debug)]
pub(crate) struct KeyedJoin {
    shape: Shape,
    sides: Sides,
    /// Of the left and of the right side; empty for a side whose rows are never put out alone.
    matches: [Matches; 2],
    condition: Expr,
    /// Columns of both sides, on which the condition is evaluated.
    joined: SchemaRef,
    schema: SchemaRef,
}

/// A row and its weight.
type Weighted<'a> = (&'a [u8], i64);

/// A row of the change with a row of the other side that has its key.
#[derive(Debug, Clone, Copy)]
struct Pair<'a> {
    i: usize,
    row: &'a [u8],
    weight: i64,
}

/// What a change has met on the other side.
#[derive(Debug, Default)]
struct Met {
    /// Sum of the partners' weights of each row of the change.
    own: Vec<i64>,
    /// What the other side's rows have gained.
    gained: Matches,
}

impl KeyedJoin {
    /// `None` for join types without this form. `closed`: the part of the key that closes.
    pub(crate) fn new(
        join_type: JoinType,
        sides: (Side, Side),
        closed: Option<(usize, Horizon)>,
        (condition, joined): (Expr, SchemaRef),
        schema: SchemaRef,
    ) -> Option<Self> {
        let shape = Shape::of(join_type)?;
        let sides = Sides::new(sides.0, sides.1, closed);
        Some(Self { shape, sides, matches: Default::default(), condition, joined, schema })
    }

    fn alone(&self, side: usize) -> Alone {
        if side == 0 { self.shape.left } else { self.shape.right }
    }

    fn side(&self, side: usize) -> &Side {
        if side == 0 { &self.sides.left } else { &self.sides.right }
    }

    /// The columns of both sides for pairs of rows, and which of the pairs match.
    fn evaluate(&self, lefts: &[&[u8]], rights: &[&[u8]]) -> OpResult<(RecordBatch, BooleanArray)> {
        let left = self.sides.left.row_codec.decode_batch(lefts)?;
        let right = self.sides.right.row_codec.decode_batch(rights)?;
        let columns: Vec<ArrayRef> = left.columns().iter().chain(right.columns()).cloned().collect();
        let pairs = batch_of(&self.joined, columns, lefts.len())?;
        let mask = evaluate_condition(&self.condition, &pairs)?;
        Ok((pairs, mask))
    }

    /// Takes in the change of one side and puts out what follows.
    fn take(&mut self, this: usize, delta: &Delta, out: &mut Vec<Delta>) -> OpResult<()> {
        let change = self.side(this).encode(delta)?;
        let met = self.meet(this, &change, out)?;
        self.put_alone(this, &change, &met.own, out)?;
        if this == 0 {
            self.sides.left.update(&change)
        } else {
            self.sides.right.update(&change)
        };
        self.note_own(this, &change, &met.own);
        self.tell_partners(1 - this, met.gained, out)
    }

    /// Joins a change with the other side and puts out the pairs.
    fn meet(&self, this: usize, change: &Encoded, out: &mut Vec<Delta>) -> OpResult<Met> {
        let other = self.side(1 - this);
        let mut met = Met { own: vec![0; change.len()], gained: Matches::default() };
        let mut pairs: Vec<Pair<'_>> = Vec::new();
        for i in (0..change.len()).filter(|i| change.weights.value(*i) != 0) {
            let Some(bucket) = change.key(i).and_then(|key| other.bucket(key)) else { continue };
            for (row, weight) in bucket.rows() {
                pairs.push(Pair { i, row, weight });
                if pairs.len() == PAIRS_MAX {
                    self.meet_some(this, change, &pairs, &mut met, out)?;
                    pairs.clear();
                }
            }
        }
        self.meet_some(this, change, &pairs, &mut met, out)?;
        Ok(met)
    }

    fn meet_some(
        &self,
        this: usize,
        change: &Encoded,
        pairs: &[Pair<'_>],
        met: &mut Met,
        out: &mut Vec<Delta>,
    ) -> OpResult<()> {
        if pairs.is_empty() {
            return Ok(());
        }
        let own: Vec<&[u8]> = pairs.iter().map(|pair| change.row(pair.i)).collect();
        let others: Vec<&[u8]> = pairs.iter().map(|pair| pair.row).collect();
        let (batch, mask) = if this == 0 { self.evaluate(&own, &others)? } else { self.evaluate(&others, &own)? };
        let mut weights = Vec::new();
        for at in mask.values().set_indices() {
            let pair = pairs[at];
            let own_weight = change.weights.value(pair.i);
            met.own[pair.i] += pair.weight;
            weights.push(own_weight * pair.weight);
            if let (Some(key), true) = (change.key(pair.i), self.alone(1 - this) != Alone::Never) {
                add_weight(value_of(&mut met.gained, key), pair.row, own_weight);
            }
        }
        if self.shape.pairs && !weights.is_empty() {
            let rows = arrow::compute::filter_record_batch(&batch, &mask)?;
            let rows = batch_of(&self.schema, rows.columns().to_vec(), weights.len())?;
            out.push(Delta::new(rows, Int64Array::from(weights)));
        }
        Ok(())
    }

    /// Puts out the rows of a change that are put out alone: whether they have partners does not change with them.
    fn put_alone(&self, this: usize, change: &Encoded, own: &[i64], out: &mut Vec<Delta>) -> OpResult<()> {
        let alone = self.alone(this);
        let is_alone = |i: &usize| match alone {
            Alone::Never => false,
            Alone::Unmatched => own[*i] == 0,
            Alone::Matched => own[*i] != 0,
        };
        let rows = (0..change.len()).filter(is_alone).map(|i| (change.row(i), change.weights.value(i)));
        let (rows, weights): (Vec<&[u8]>, Vec<i64>) = rows.unzip();
        out.extend(self.extended(this, &rows, weights)?);
        Ok(())
    }

    /// Notes the sums of the rows of a change that are there after it.
    fn note_own(&mut self, this: usize, change: &Encoded, own: &[i64]) {
        if self.alone(this) == Alone::Never {
            return;
        }
        for (i, sum) in own.iter().enumerate().filter(|(i, _)| change.weights.value(*i) != 0) {
            let Some(key) = change.key(i) else { continue };
            let is_there = self.side(this).weight(key, change.row(i)) != 0;
            set_sum(&mut self.matches[this], key, change.row(i), if is_there { *sum } else { 0 });
        }
    }

    /// Rows that have got their first partner or lost their last one are put out or taken back.
    fn tell_partners(&mut self, side: usize, gained: Matches, out: &mut Vec<Delta>) -> OpResult<()> {
        let mut rows: Vec<RowBytes> = Vec::new();
        let mut weights = Vec::new();
        for (key, gains) in gained {
            for (row, gain) in gains {
                let before = self.matches[side].get(&key).and_then(|sums| sums.get(&row)).copied().unwrap_or(0);
                set_sum(&mut self.matches[side], &key, &row, before + gain);
                let has = before + gain != 0;
                if has != (before != 0) {
                    let weight = self.side(side).weight(&key, &row);
                    weights.push(if has == (self.alone(side) == Alone::Matched) { weight } else { -weight });
                    rows.push(row);
                }
            }
        }
        let rows: Vec<&[u8]> = rows.iter().map(|row| &**row).collect();
        out.extend(self.extended(side, &rows, weights)?);
        Ok(())
    }

    /// Rows of one side, with NULLs for the other if the output has its columns.
    fn extended(&self, side: usize, rows: &[&[u8]], weights: Vec<i64>) -> OpResult<Option<Delta>> {
        if rows.is_empty() {
            return Ok(None);
        }
        let mut columns = self.side(side).row_codec.decode_batch(rows)?.columns().to_vec();
        if self.shape.pairs {
            let other = self.side(1 - side);
            let nulls = other.row_codec.decode_batch(&vec![&*other.null_row; rows.len()])?.columns().to_vec();
            columns = if side == 0 { [columns, nulls].concat() } else { [nulls, columns].concat() };
        }
        let n_rows = weights.len();
        Ok(Some(Delta::new(batch_of(&self.schema, columns, n_rows)?, Int64Array::from(weights))))
    }

    /// Takes the sums from all pairs that there are.
    fn match_all(&mut self) -> OpResult<()> {
        let mut all = [Matches::default(), Matches::default()];
        let mut pairs: Vec<(&[u8], Weighted<'_>, Weighted<'_>)> = Vec::new();
        for (key, bucket) in self.sides.left.buckets() {
            let Some(others) = self.sides.right.bucket(key) else { continue };
            for left in bucket.rows() {
                for right in others.rows() {
                    pairs.push((key, left, right));
                    if pairs.len() == PAIRS_MAX {
                        self.match_some(&pairs, &mut all)?;
                        pairs.clear();
                    }
                }
            }
        }
        self.match_some(&pairs, &mut all)?;
        drop(pairs);
        self.matches = all;
        Ok(())
    }

    fn match_some(&self, pairs: &[(&[u8], Weighted<'_>, Weighted<'_>)], all: &mut [Matches; 2]) -> OpResult<()> {
        if pairs.is_empty() {
            return Ok(());
        }
        let lefts: Vec<&[u8]> = pairs.iter().map(|(_, (row, _), _)| *row).collect();
        let rights: Vec<&[u8]> = pairs.iter().map(|(_, _, (row, _))| *row).collect();
        let (_, mask) = self.evaluate(&lefts, &rights)?;
        for at in mask.values().set_indices() {
            let (key, left, right) = pairs[at];
            for (side, row, partner) in [(0, left.0, right.1), (1, right.0, left.1)] {
                if self.alone(side) != Alone::Never {
                    add_weight(value_of(&mut all[side], key), row, partner);
                }
            }
        }
        Ok(())
    }
}

fn set_sum(matches: &mut Matches, key: &[u8], row: &[u8], sum: i64) {
    if sum != 0 {
        let sums = value_of(matches, key);
        match sums.get_mut(row) {
            Some(known) => *known = sum,
            None => {
                sums.insert(row.into(), sum);
            }
        }
    } else if let Some(sums) = matches.get_mut(key) {
        sums.remove(row);
        if sums.is_empty() {
            matches.remove(key);
        }
    }
}

impl Operator for KeyedJoin {
    fn wants(&self, step: &Step<'_>) -> bool {
        self.sides.wants(step)
    }

    fn step(&mut self, inputs: &[Option<&Delta>], step: &Step<'_>) -> OpResult<Option<Delta>> {
        let mut out = Vec::new();
        for (this, delta) in inputs.iter().enumerate() {
            if let Some(delta) = delta {
                self.take(this, delta, &mut out)?;
            }
        }
        let closed = self.sides.take_closed(step);
        for (matches, keys) in self.matches.iter_mut().zip(closed) {
            keys.iter().for_each(|key| {
                matches.remove(key);
            });
        }
        concat(&out)
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
        self.sides.restore(entries)?;
        self.match_all()
    }
}
