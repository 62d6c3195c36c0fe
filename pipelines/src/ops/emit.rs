//! `EMIT ON WINDOW CLOSE`: a window's rows appear once, final, when the watermark has passed its end.
//!
//! What its input puts out for an open window waits here, net. A row whose window is NULL is in no window and passes at
//! once.

use std::collections::BTreeMap;

use arrow::array::Int64Array;
use hashbrown::HashSet;
use model::Delta;

use super::keyed::malformed;
use super::{Operator, Step};
use crate::error::OpResult;
use crate::rows::{RowBytes, RowCodec, ZSet, add_weight};
use crate::state::StateWriter;
use crate::watermark::{Horizon, at, instants};

/// Holds rows back until their window closes.
#[derive(Debug)]
pub(crate) struct EmitOnClose {
    column: usize,
    horizon: Horizon,
    codec: RowCodec,
    waiting: BTreeMap<i64, ZSet>,
    /// Keys of entries that changed since the last checkpoint.
    changed: Option<HashSet<RowBytes, foldhash::fast::RandomState>>,
}

impl EmitOnClose {
    /// `column` is the one that closes.
    pub(crate) fn new(schema: arrow::datatypes::SchemaRef, column: usize, horizon: Horizon) -> OpResult<Self> {
        Ok(Self { column, horizon, codec: RowCodec::new(schema)?, waiting: BTreeMap::new(), changed: None })
    }

    fn note(&mut self, value: i64, row: &[u8]) {
        if let Some(changed) = &mut self.changed {
            changed.insert(entry(value, row).into());
        }
    }
}

fn entry(value: i64, row: &[u8]) -> Vec<u8> {
    let mut key = value.to_be_bytes().to_vec();
    key.extend_from_slice(row);
    key
}

impl Operator for EmitOnClose {
    fn wants(&self, step: &Step<'_>) -> bool {
        self.horizon.moves(step.watermarks) && !self.waiting.is_empty()
    }

    fn step(&mut self, inputs: &[Option<&Delta>], step: &Step<'_>) -> OpResult<Option<Delta>> {
        let mut rows: Vec<RowBytes> = Vec::new();
        let mut weights: Vec<i64> = Vec::new();
        if let Some(delta) = inputs[0] {
            let values = instants(delta.rows.column(self.column))?;
            let encoded = self.codec.encode_batch(&delta.rows)?;
            for (i, row) in encoded.iter().enumerate() {
                let weight = delta.weights.value(i);
                match at(&values, i) {
                    Some(value) => {
                        add_weight(self.waiting.entry(value).or_default(), row.data(), weight);
                        self.note(value, row.data());
                    }
                    None => {
                        rows.push(row.data().into());
                        weights.push(weight);
                    }
                }
            }
        }
        let bound = self.horizon.now(step.watermarks);
        while let Some(first) = self.waiting.first_entry() {
            if bound.is_none_or(|bound| *first.key() >= bound) {
                break;
            }
            let (value, set) = first.remove_entry();
            for (row, weight) in set {
                self.note(value, &row);
                rows.push(row);
                weights.push(weight);
            }
        }
        if rows.is_empty() {
            return Ok(None);
        }
        let batch = self.codec.decode_batch(&rows.iter().map(|r| &**r).collect::<Vec<_>>())?;
        Ok(Some(Delta::new(batch, Int64Array::from(weights))))
    }

    fn state_rows(&self) -> usize {
        self.waiting.values().map(ZSet::len).sum()
    }

    fn forgets(&self) -> bool {
        true
    }

    fn track(&mut self) {
        self.changed = Some(HashSet::default());
    }

    fn checkpoint(&mut self, out: &mut StateWriter<'_>) -> OpResult<()> {
        let Some(changed) = &mut self.changed else { return Ok(()) };
        for key in changed.drain() {
            let (value, row) = key.split_first_chunk::<8>().ok_or_else(malformed)?;
            match self.waiting.get(&i64::from_be_bytes(*value)).and_then(|set| set.get(row)) {
                Some(weight) => out.put(&key, &weight.to_be_bytes()),
                None => out.delete(&key),
            }
        }
        Ok(())
    }

    fn restore(&mut self, entries: &mut dyn Iterator<Item = (&[u8], &[u8])>) -> OpResult<()> {
        for (key, weight) in entries {
            let (value, row) = key.split_first_chunk::<8>().ok_or_else(malformed)?;
            let weight = i64::from_be_bytes(weight.try_into().map_err(|_| malformed())?);
            self.waiting.entry(i64::from_be_bytes(*value)).or_default().insert(row.into(), weight);
        }
        Ok(())
    }
}
