//! Filters and projections over CURRENT_TIMESTAMP: rows enter, change and leave by time alone.
//!
//! The operator remembers its input. When business time moves from t0 to t1, its output changes by f(state, t1) −
//! f(state, t0); only rows for which the two differ are put out. Cost of a tick: two vectorised evaluations over the
//! remembered rows.

use arrow::array::{BooleanArray, Int64Array};
use arrow::buffer::BooleanBuffer;
use model::Delta;

use super::keyed::malformed;
use super::map::Map;
use super::tracked::TrackedSet;
use super::{Operator, Step, concat, evaluate, evaluate_mask};
use crate::error::OpResult;
use crate::rows::{RowBytes, RowCodec, batch_of};
use crate::state::StateWriter;

/// A [`Map`] whose expressions read the business time.
#[derive(Debug)]
pub(crate) struct Temporal {
    map: Map,
    codec: RowCodec,
    state: TrackedSet,
    /// The state as columns, until it changes.
    cached: Option<Delta>,
}

impl Temporal {
    pub(crate) fn new(map: Map, input: arrow::datatypes::SchemaRef) -> OpResult<Self> {
        Ok(Self { map, codec: RowCodec::new(input)?, state: TrackedSet::default(), cached: None })
    }

    fn remember(&mut self, delta: &Delta) -> OpResult<()> {
        self.cached = None;
        if self.codec.schema().fields().is_empty() {
            let weight: i64 = delta.weights.values().iter().sum();
            self.state.add(&[], weight);
            return Ok(());
        }
        let rows = self.codec.encode_batch(&delta.rows)?;
        for (row, weight) in rows.iter().zip(delta.weights.values()) {
            self.state.add(row.data(), *weight);
        }
        Ok(())
    }

    fn state_as_delta(&mut self) -> OpResult<Delta> {
        if let Some(cached) = &self.cached {
            return Ok(cached.clone());
        }
        let entries: Vec<(&RowBytes, &i64)> = self.state.rows().iter().collect();
        let rows: Vec<&[u8]> = entries.iter().map(|(row, _)| &***row).collect();
        let weights: Vec<i64> = entries.iter().map(|(_, weight)| **weight).collect();
        let delta = Delta::new(self.codec.decode_batch(&rows)?, Int64Array::from(weights));
        self.cached = Some(delta.clone());
        Ok(delta)
    }

    fn passing(&self, state: &Delta) -> OpResult<BooleanArray> {
        match &self.map.predicate {
            Some(predicate) => evaluate_mask(predicate, &state.rows),
            None => Ok(BooleanArray::new(BooleanBuffer::new_set(state.len()), None)),
        }
    }

    /// Output of the rows that `old_us` and `new_us` do not agree on: −old, +new.
    fn moved(&mut self, old_us: i64, new_us: i64, step: &Step<'_>) -> OpResult<Vec<Delta>> {
        let state = self.state_as_delta()?;
        if state.is_empty() {
            return Ok(Vec::new());
        }
        step.time.set_us(old_us);
        let old_pass = self.passing(&state)?;
        let old_columns = self.columns(&state)?;
        step.time.set_us(new_us);
        let new_pass = self.passing(&state)?;
        let new_columns = self.columns(&state)?;
        let mut same = BooleanArray::new(BooleanBuffer::new_set(state.len()), None);
        for (old, new) in old_columns.iter().zip(&new_columns) {
            same = arrow::compute::and_not(&same, &crate::rows::differing(old, new)?)?;
        }
        let leaves = differing(&old_pass, &new_pass, &same);
        let enters = differing(&new_pass, &old_pass, &same);
        let mut out = Vec::new();
        for (mask, columns, sign) in [(leaves, old_columns, -1), (enters, new_columns, 1)] {
            if mask.true_count() == 0 {
                continue;
            }
            let batch = batch_of(&self.map.schema, columns, state.len())?;
            let rows = arrow::compute::filter_record_batch(&batch, &mask)?;
            let weights: Vec<i64> = mask.values().set_indices().map(|i| sign * state.weights.value(i)).collect();
            out.push(Delta::new(rows, Int64Array::from(weights)));
        }
        Ok(out)
    }

    fn columns(&self, state: &Delta) -> OpResult<Vec<arrow::array::ArrayRef>> {
        match &self.map.columns {
            None => Ok(state.rows.columns().to_vec()),
            // Rows that the predicate keeps out are evaluated too, so an expression must not fail on them:
            // projections with a predicate are split into two nodes when the graph is built.
            Some(exprs) => exprs.iter().map(|e| evaluate(e, &state.rows)).collect(),
        }
    }
}

/// Rows that `a` has and `b` has not, or has with other columns.
fn differing(a: &BooleanArray, b: &BooleanArray, same: &BooleanArray) -> BooleanArray {
    BooleanArray::new(a.values() & &!&(b.values() & same.values()), None)
}

impl Operator for Temporal {
    fn wants(&self, step: &Step<'_>) -> bool {
        step.tick.is_some() && !self.state.rows().is_empty()
    }

    fn step(&mut self, inputs: &[Option<&Delta>], step: &Step<'_>) -> OpResult<Option<Delta>> {
        let mut out = match step.tick {
            Some((old_us, new_us)) => self.moved(old_us, new_us, step)?,
            None => Vec::new(),
        };
        if let Some(delta) = inputs[0] {
            let mapped = self.map.apply(delta)?;
            out.extend(mapped.output);
            self.remember(mapped.accepted.as_ref().unwrap_or(delta))?;
        }
        concat(&out)
    }

    fn state_rows(&self) -> usize {
        self.state.rows().len()
    }

    fn track(&mut self) {
        self.state.track();
    }

    fn checkpoint(&mut self, out: &mut StateWriter<'_>) -> OpResult<()> {
        self.state.checkpoint(0, out);
        Ok(())
    }

    fn restore(&mut self, entries: &mut dyn Iterator<Item = (&[u8], &[u8])>) -> OpResult<()> {
        for (key, value) in entries {
            self.state.restore(key.get(1..).ok_or_else(malformed)?, value)?;
        }
        Ok(())
    }
}
