//! MIN and MAX that survive deletes: every value of a group is remembered, in order, with how often it occurs.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};

use super::Accumulator;
use crate::error::OpResult;
use crate::rows::{RowBytes, RowCodec};

/// Which end of the order is wanted.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// MIN.
    First,
    /// MAX.
    Last,
}

/// MIN or MAX.
#[derive(Debug)]
pub(super) struct Extreme {
    arg: usize,
    end: End,
    codec: RowCodec,
    null: RowBytes,
    groups: Vec<BTreeMap<RowBytes, i64>>,
}

impl Extreme {
    pub(super) fn new(arg: usize, data_type: DataType, end: End) -> OpResult<Self> {
        let codec = RowCodec::new(Arc::new(Schema::new(vec![Field::new("value", data_type, true)])))?;
        let null = codec.null_row()?;
        Ok(Self { arg, end, codec, null, groups: Vec::new() })
    }
}

impl Accumulator for Extreme {
    fn resize(&mut self, n_groups: usize) {
        self.groups.resize_with(n_groups, BTreeMap::new);
    }

    fn clear(&mut self, group: usize) {
        self.groups[group] = BTreeMap::new();
    }

    fn update(&mut self, groups: &[u32], weights: &[i64], batch: &RecordBatch) -> OpResult<()> {
        let column = batch.column(self.arg);
        let rows = self.codec.encode(&[Arc::clone(column)])?;
        for (i, (group, weight)) in groups.iter().zip(weights).enumerate() {
            if *weight == 0 || column.is_null(i) {
                continue;
            }
            let values = &mut self.groups[*group as usize];
            let value = rows.row(i);
            match values.get_mut(value.data()) {
                Some(count) => {
                    *count += weight;
                    if *count == 0 {
                        values.remove(value.data());
                    }
                }
                None => {
                    values.insert(value.data().into(), *weight);
                }
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, groups: &[u32]) -> OpResult<ArrayRef> {
        let values = groups.iter().map(|g| {
            let values = &self.groups[*g as usize];
            let found = match self.end {
                End::First => values.first_key_value(),
                End::Last => values.last_key_value(),
            };
            found.map_or(&*self.null, |(value, _)| &**value)
        });
        Ok(self.codec.decode(values)?.remove(0))
    }
}
