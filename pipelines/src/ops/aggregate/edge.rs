//! MIN, MAX, BOOL_AND, BOOL_OR, FIRST_VALUE and LAST_VALUE: the first or last of a group's values in an order.
//!
//! They survive deletes because every value is remembered, in order, with how often it occurs. Above an append-only
//! input one value per group is enough.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;

use super::Accumulator;
use super::bags::{Bags, take_i64};
use crate::error::OpResult;
use crate::ops::keyed::malformed;
use crate::rows::{RowBytes, RowCodec};

/// Which end of the order is wanted.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    First,
    Last,
}

/// What is looked for at the end. Columns are indexes into the aggregate's input.
#[derive(Debug)]
pub(super) struct EdgeSpec {
    pub(super) end: End,
    pub(super) arg: usize,
    /// Stated order; the value itself comes last.
    pub(super) order: Vec<(usize, SortOptions)>,
    pub(super) skip_nulls: bool,
}

impl EdgeSpec {
    pub(super) fn codec(&self, input: &SchemaRef) -> OpResult<RowCodec> {
        let mut columns = self.order.clone();
        columns.push((self.arg, SortOptions { descending: false, nulls_first: true }));
        RowCodec::ordered(input, &columns)
    }

    pub(super) fn encode(&self, codec: &RowCodec, batch: &RecordBatch) -> OpResult<arrow::row::Rows> {
        let columns: Vec<ArrayRef> =
            self.order.iter().map(|(c, _)| *c).chain([self.arg]).map(|i| Arc::clone(batch.column(i))).collect();
        codec.encode(&columns)
    }
}

fn decode<'a>(codec: &'a RowCodec, keys: impl Iterator<Item = &'a [u8]>) -> OpResult<ArrayRef> {
    codec.decode(keys)?.pop().ok_or_else(malformed)
}

/// For inputs that change.
#[derive(Debug)]
pub(super) struct Edge {
    spec: EdgeSpec,
    codec: RowCodec,
    null: RowBytes,
    bags: Bags,
}

impl Edge {
    pub(super) fn new(spec: EdgeSpec, input: &SchemaRef) -> OpResult<Self> {
        let codec = spec.codec(input)?;
        Ok(Self { null: codec.null_row()?, codec, spec, bags: Bags::default() })
    }
}

impl Accumulator for Edge {
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
        let values = groups.iter().map(|group| {
            let bag = self.bags.of(*group);
            let found = match self.spec.end {
                End::First => bag.first(),
                End::Last => bag.last(),
            };
            found.map_or(&*self.null, |(value, _)| value)
        });
        decode(&self.codec, values)
    }

    fn bags(&mut self) -> Option<&mut Bags> {
        Some(&mut self.bags)
    }
}

/// For append-only inputs: the best value so far.
#[derive(Debug)]
pub(super) struct Best {
    spec: EdgeSpec,
    codec: RowCodec,
    null: RowBytes,
    groups: Vec<Option<RowBytes>>,
}

impl Best {
    pub(super) fn new(spec: EdgeSpec, input: &SchemaRef) -> OpResult<Self> {
        let codec = spec.codec(input)?;
        Ok(Self { null: codec.null_row()?, codec, spec, groups: Vec::new() })
    }
}

impl Accumulator for Best {
    fn resize(&mut self, n_groups: usize) {
        self.groups.resize(n_groups, None);
    }

    fn clear(&mut self, group: usize) {
        self.groups[group] = None;
    }

    fn update(&mut self, groups: &[u32], weights: &[i64], batch: &RecordBatch) -> OpResult<()> {
        let column = batch.column(self.spec.arg);
        let rows = self.spec.encode(&self.codec, batch)?;
        for (i, (group, weight)) in groups.iter().zip(weights).enumerate() {
            if *weight <= 0 || (self.spec.skip_nulls && column.is_null(i)) {
                continue;
            }
            let (new, known) = (rows.row(i).data(), &mut self.groups[*group as usize]);
            match known {
                None => *known = Some(new.into()),
                Some(best) => {
                    let is_better = match self.spec.end {
                        End::First => new < &**best,
                        End::Last => new > &**best,
                    };
                    match is_better {
                        true if best.len() == new.len() => best.copy_from_slice(new),
                        true => *best = new.into(),
                        false => {}
                    }
                }
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, groups: &[u32]) -> OpResult<ArrayRef> {
        decode(&self.codec, groups.iter().map(|g| self.groups[*g as usize].as_deref().unwrap_or(&self.null)))
    }

    fn save(&self, group: usize, out: &mut Vec<u8>) {
        let length = self.groups[group].as_ref().map_or(-1, |best| i64::try_from(best.len()).unwrap_or(i64::MAX));
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(self.groups[group].as_deref().unwrap_or_default());
    }

    fn load(&mut self, group: usize, bytes: &mut &[u8]) -> OpResult<()> {
        if let Ok(length) = usize::try_from(take_i64(bytes)?) {
            let (best, rest) = bytes.split_at_checked(length).ok_or_else(malformed)?;
            self.groups[group] = Some(best.into());
            *bytes = rest;
        }
        Ok(())
    }
}
