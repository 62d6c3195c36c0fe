//! NTH_VALUE: the value at a place of a group's values in an order.

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;

use super::Accumulator;
use super::bags::Bags;
use super::edge::EdgeSpec;
use crate::error::OpResult;
use crate::ops::keyed::malformed;
use crate::rows::{RowBytes, RowCodec};

/// The aggregate.
#[derive(Debug)]
pub(super) struct Nth {
    /// Counted from 1, or from the end if it is negative.
    n: i64,
    spec: EdgeSpec,
    codec: RowCodec,
    null: RowBytes,
    bags: Bags,
}

impl Nth {
    pub(super) fn new(n: i64, spec: EdgeSpec, input: &SchemaRef) -> OpResult<Self> {
        let codec = spec.codec(input)?;
        Ok(Self { n, null: codec.null_row()?, codec, spec, bags: Bags::default() })
    }

    fn found(&self, group: u32) -> Option<&[u8]> {
        let bag = self.bags.of(group);
        let place = match self.n > 0 {
            true => self.n.unsigned_abs() - 1,
            false => bag.total().checked_sub(self.n.unsigned_abs())?,
        };
        bag.nth(place)
    }
}

impl Accumulator for Nth {
    fn resize(&mut self, n_groups: usize) {
        self.bags.resize(n_groups);
    }

    fn clear(&mut self, group: usize) {
        self.bags.clear(group);
    }

    fn update(&mut self, groups: &[u32], weights: &[i64], batch: &RecordBatch) -> OpResult<()> {
        let column = batch.column(self.spec.arg);
        let rows = self.spec.encode(&self.codec, batch)?;
        for (i, (group, weight)) in groups.iter().zip(weights).enumerate() {
            if *weight != 0 && !(self.spec.skip_nulls && column.is_null(i)) {
                self.bags.add(*group, rows.row(i).data(), *weight);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, groups: &[u32]) -> OpResult<ArrayRef> {
        let values = groups.iter().map(|group| self.found(*group).unwrap_or(&self.null));
        self.codec.decode(values)?.pop().ok_or_else(malformed)
    }

    fn bags(&mut self) -> Option<&mut Bags> {
        Some(&mut self.bags)
    }
}
