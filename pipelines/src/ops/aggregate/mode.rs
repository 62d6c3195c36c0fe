//! MODE: the most frequent value, and of equally frequent ones the first in its order.
//!
//! Beside the values with their counts stands a list of them by count, so a change costs its own two places.

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use std::sync::Arc;

use super::Accumulator;
use super::bags::{Bags, take_i64};
use crate::error::OpResult;
use crate::ops::keyed::malformed;
use crate::ops::sorted::{Counted, Sorted};
use crate::rows::{RowBytes, RowCodec};

/// Bytes of a count in front of its value.
const COUNT_BYTES: usize = 8;

/// The aggregate.
#[derive(Debug)]
pub(super) struct Mode {
    arg: usize,
    codec: RowCodec,
    null: RowBytes,
    bags: Bags,
    /// Of each group: count, the largest first, and value.
    by_count: Vec<Sorted<i64>>,
}

impl Mode {
    pub(super) fn new(arg: usize, descending: bool, input: &SchemaRef) -> OpResult<Self> {
        let codec = RowCodec::ordered(input, &[(arg, SortOptions { descending, nulls_first: true })])?;
        Ok(Self { arg, null: codec.null_row()?, codec, bags: Bags::default(), by_count: Vec::new() })
    }

    /// Moves a value from its place by the old count to that by the new one.
    fn moved(&mut self, group: usize, value: &[u8], before: u64, after: u64) {
        let places = &mut self.by_count[group];
        if before > 0 {
            places.add(&place(before, value), -1);
        }
        if after > 0 {
            places.add(&place(after, value), 1);
        }
    }

    fn count(&self, group: u32, value: &[u8]) -> u64 {
        self.bags.of(group).get(value).map_or(0, Counted::count)
    }
}

fn place(count: u64, value: &[u8]) -> Vec<u8> {
    [&(u64::MAX - count).to_be_bytes(), value].concat()
}

impl Accumulator for Mode {
    fn resize(&mut self, n_groups: usize) {
        self.bags.resize(n_groups);
        self.by_count.resize_with(n_groups, Sorted::default);
    }

    fn clear(&mut self, group: usize) {
        self.bags.clear(group);
        self.by_count[group] = Sorted::default();
    }

    fn update(&mut self, groups: &[u32], weights: &[i64], batch: &RecordBatch) -> OpResult<()> {
        let column = batch.column(self.arg);
        let rows = self.codec.encode(&[Arc::clone(column)])?;
        for (i, (group, weight)) in groups.iter().zip(weights).enumerate() {
            if *weight != 0 && column.is_valid(i) {
                let value = rows.row(i).data();
                let before = self.count(*group, value);
                self.bags.add(*group, value, *weight);
                self.moved(*group as usize, value, before, self.count(*group, value));
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, groups: &[u32]) -> OpResult<ArrayRef> {
        let first =
            |group: &u32| self.by_count[*group as usize].first().and_then(|(place, _)| place.get(COUNT_BYTES..));
        self.codec.decode(groups.iter().map(|g| first(g).unwrap_or(&self.null)))?.pop().ok_or_else(malformed)
    }

    fn bags(&mut self) -> Option<&mut Bags> {
        Some(&mut self.bags)
    }

    fn load_entry(&mut self, group: usize, key: &[u8], value: &[u8]) -> OpResult<()> {
        let count = take_i64(&mut &*value)?.count();
        self.moved(group, key, 0, count);
        self.bags.load_entry(group, key, value)
    }
}
