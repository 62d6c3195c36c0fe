//! Outer, semi and anti joins with a condition beyond equal keys: whether a row has a match depends on the partner
//! row and not on the key's presence alone, so each key that a step touches is joined anew, before and after.

use std::sync::Arc;

use arrow::array::Int64Array;
use arrow::datatypes::SchemaRef;
use datafusion::common::JoinType;
use model::Delta;

use super::join::{Alone, Encoded, LEFT, RIGHT, Shape, Side};
use super::keyed::malformed;
use super::{Expr, Operator, Step, concat, evaluate_mask};
use crate::error::OpResult;
use crate::rows::{Map, RowBytes, batch_of};
use crate::state::StateWriter;
use crate::watermark::Horizon;

/// A join that recomputes the keys it touches.
#[derive(Debug)]
pub(crate) struct KeyedJoin {
    shape: Shape,
    left: Side,
    right: Side,
    condition: Expr,
    /// Columns of both sides, on which the condition is evaluated.
    joined: SchemaRef,
    schema: SchemaRef,
    horizon: Option<Horizon>,
}

/// Rows of the touched keys on one side.
struct Rows<'a> {
    rows: Vec<&'a [u8]>,
    weights: Vec<i64>,
    matched: Vec<bool>,
}

impl KeyedJoin {
    /// `None` for join types without this form.
    pub(crate) fn new(
        join_type: JoinType,
        left: Side,
        right: Side,
        condition: Expr,
        joined: SchemaRef,
        schema: SchemaRef,
    ) -> Option<Self> {
        Some(Self { shape: Shape::of(join_type)?, left, right, condition, joined, schema, horizon: None })
    }

    /// From now on forgets keys whose part is closed; no row may come for them any more.
    pub(crate) fn close_by(&mut self, part: usize, horizon: Horizon) {
        self.left.close_by(part);
        self.right.close_by(part);
        self.horizon = Some(horizon);
    }

    /// The whole output of some keys, each row with `sign` times its weight.
    fn output(&self, keys: &Map<RowBytes, ()>, sign: i64) -> OpResult<Vec<Delta>> {
        let mut left = Rows { rows: Vec::new(), weights: Vec::new(), matched: Vec::new() };
        let mut right = Rows { rows: Vec::new(), weights: Vec::new(), matched: Vec::new() };
        let mut pairs: Vec<(usize, usize)> = Vec::new();
        for key in keys.keys() {
            let (from_left, from_right) = (left.rows.len(), right.rows.len());
            for (side, rows) in [(&self.left, &mut left), (&self.right, &mut right)] {
                if let Some(bucket) = side.index.get(key) {
                    bucket.for_each(|row, weight| {
                        rows.rows.push(row);
                        rows.weights.push(weight);
                        rows.matched.push(false);
                    });
                }
            }
            for l in from_left..left.rows.len() {
                pairs.extend((from_right..right.rows.len()).map(|r| (l, r)));
            }
        }
        let candidates = self.pair_batch(&left, &right, &pairs)?;
        let mask = evaluate_mask(&self.condition, &candidates)?;
        let mut out = Vec::new();
        for at in mask.values().set_indices() {
            left.matched[pairs[at].0] = true;
            right.matched[pairs[at].1] = true;
        }
        if self.shape.pairs && mask.true_count() > 0 {
            let rows = arrow::compute::filter_record_batch(&candidates, &mask)?;
            let weights: Vec<i64> = mask
                .values()
                .set_indices()
                .map(|at| sign * left.weights[pairs[at].0] * right.weights[pairs[at].1])
                .collect();
            let rows = batch_of(&self.schema, rows.columns().to_vec(), weights.len())?;
            out.push(Delta::new(rows, Int64Array::from(weights)));
        }
        out.extend(self.alone(&left, self.shape.left, sign, true)?);
        out.extend(self.alone(&right, self.shape.right, sign, false)?);
        Ok(out)
    }

    fn pair_batch(
        &self,
        left: &Rows<'_>,
        right: &Rows<'_>,
        pairs: &[(usize, usize)],
    ) -> OpResult<arrow::array::RecordBatch> {
        let lefts: Vec<&[u8]> = pairs.iter().map(|(l, _)| left.rows[*l]).collect();
        let rights: Vec<&[u8]> = pairs.iter().map(|(_, r)| right.rows[*r]).collect();
        let mut columns = self.left.row_codec.decode_batch(&lefts)?.columns().to_vec();
        columns.extend(self.right.row_codec.decode_batch(&rights)?.columns().iter().map(Arc::clone));
        batch_of(&self.joined, columns, pairs.len())
    }

    fn alone(&self, side: &Rows<'_>, alone: Alone, sign: i64, is_left: bool) -> OpResult<Option<Delta>> {
        let wanted = match alone {
            Alone::Never => return Ok(None),
            Alone::Unmatched => false,
            Alone::Matched => true,
        };
        let picks: Vec<usize> = (0..side.rows.len()).filter(|i| side.matched[*i] == wanted).collect();
        let rows: Vec<&[u8]> = picks.iter().map(|i| side.rows[*i]).collect();
        let weights: Vec<i64> = picks.iter().map(|i| sign * side.weights[*i]).collect();
        self.extended(&rows, weights, is_left)
    }

    /// Rows of one side, with NULLs for the other if the output has its columns.
    fn extended(&self, rows: &[&[u8]], weights: Vec<i64>, is_left: bool) -> OpResult<Option<Delta>> {
        if rows.is_empty() {
            return Ok(None);
        }
        let (this, other) = if is_left { (&self.left, &self.right) } else { (&self.right, &self.left) };
        let mut columns = this.row_codec.decode_batch(rows)?.columns().to_vec();
        if self.shape.pairs {
            let nulls = other.row_codec.decode_batch(&vec![&*other.null_row; rows.len()])?.columns().to_vec();
            columns = if is_left { [columns, nulls].concat() } else { [nulls, columns].concat() };
        }
        let n_rows = weights.len();
        Ok(Some(Delta::new(batch_of(&self.schema, columns, n_rows)?, Int64Array::from(weights))))
    }

    /// Rows whose key is NULL match nothing and are not in the index.
    fn unmatchable(&self, change: &Encoded, alone: Alone, is_left: bool) -> OpResult<Option<Delta>> {
        if alone != Alone::Unmatched {
            return Ok(None);
        }
        let picks: Vec<usize> = (0..change.len()).filter(|i| change.key(*i).is_none()).collect();
        let rows: Vec<&[u8]> = picks.iter().map(|i| change.row(*i)).collect();
        self.extended(&rows, picks.iter().map(|i| change.weights.value(*i)).collect(), is_left)
    }
}

impl Operator for KeyedJoin {
    fn wants(&self, step: &Step<'_>) -> bool {
        let moves = self.horizon.as_ref().is_some_and(|h| h.moves(step.watermarks));
        moves && (self.left.closes() || self.right.closes())
    }

    fn step(&mut self, inputs: &[Option<&Delta>], step: &Step<'_>) -> OpResult<Option<Delta>> {
        let left = inputs[0].map(|d| self.left.encode(d)).transpose()?;
        let right = inputs[1].map(|d| self.right.encode(d)).transpose()?;
        let mut keys: Map<RowBytes, ()> = Map::default();
        for change in [&left, &right].into_iter().flatten() {
            for key in (0..change.len()).filter_map(|i| change.key(i)) {
                if !keys.contains_key(key) {
                    keys.insert(key.into(), ());
                }
            }
        }
        let mut out = self.output(&keys, -1)?;
        if let Some(change) = &left {
            self.left.update(change);
            out.extend(self.unmatchable(change, self.shape.left, true)?);
        }
        if let Some(change) = &right {
            self.right.update(change);
            out.extend(self.unmatchable(change, self.shape.right, false)?);
        }
        out.extend(self.output(&keys, 1)?);
        if let Some(bound) = self.horizon.as_ref().and_then(|h| h.now(step.watermarks)) {
            self.left.forget_before(bound);
            self.right.forget_before(bound);
        }
        concat(&out)
    }

    fn state_rows(&self) -> usize {
        self.left.index.len() + self.right.index.len()
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
