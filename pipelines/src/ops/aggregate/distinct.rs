//! DISTINCT inside any aggregate: the aggregate below sees a value when it comes up first, and sees it go with its last
//! occurrence.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;

use super::Accumulator;
use super::bags::{ChangedEntries, slot_of, take_i64};
use crate::error::OpResult;
use crate::ops::keyed::malformed;
use crate::rows::{RowBytes, RowCodec, ZSet, add_weight};

/// First byte of the entries of the values themselves, and of those of the aggregate below.
const OWN: u8 = 0;
const BELOW: u8 = 1;

/// An aggregate over different values.
#[derive(Debug)]
pub(super) struct Distinct {
    args: Vec<usize>,
    codec: RowCodec,
    groups: Vec<ZSet>,
    below: Box<dyn Accumulator>,
    changed: ChangedEntries,
}

impl Distinct {
    /// `args`: the columns that make a value. NULL is one too: whether it counts is the business of the aggregate below.
    pub(super) fn new(below: Box<dyn Accumulator>, args: &[usize], input: &SchemaRef) -> OpResult<Self> {
        Ok(Self {
            args: args.to_vec(),
            codec: RowCodec::of_columns(input, args)?,
            groups: Vec::new(),
            below,
            changed: ChangedEntries::default(),
        })
    }
}

impl Accumulator for Distinct {
    fn rescans(&self) -> bool {
        self.below.rescans()
    }

    fn resize(&mut self, n_groups: usize) {
        self.groups.resize_with(n_groups, ZSet::default);
        self.below.resize(n_groups);
    }

    fn clear(&mut self, group: usize) {
        let values = std::mem::take(&mut self.groups[group]);
        if self.changed.is_tracking() {
            values.keys().for_each(|value| self.changed.note(slot_of(group), value));
        }
        self.below.clear(group);
    }

    fn update(&mut self, groups: &[u32], weights: &[i64], batch: &RecordBatch) -> OpResult<()> {
        let Some(rows) = self.codec.encode_some(batch, self.args.iter().copied())? else {
            return self.below.update(groups, weights, batch);
        };
        let mut passed = vec![0; weights.len()];
        for (i, (group, weight)) in groups.iter().zip(weights).enumerate() {
            if *weight == 0 {
                continue;
            }
            let (set, value) = (&mut self.groups[*group as usize], rows.row(i));
            self.changed.note(*group, value.data());
            let was = set.get(value.data()).is_some_and(|w| *w > 0);
            add_weight(set, value.data(), *weight);
            let is = set.get(value.data()).is_some_and(|w| *w > 0);
            passed[i] = i64::from(is) - i64::from(was);
        }
        self.below.update(groups, &passed, batch)
    }

    fn evaluate(&mut self, groups: &[u32]) -> OpResult<ArrayRef> {
        self.below.evaluate(groups)
    }

    fn track(&mut self) {
        self.changed.track();
        self.below.track();
    }

    fn save(&self, group: usize, out: &mut Vec<u8>) {
        self.below.save(group, out);
    }

    fn load(&mut self, group: usize, bytes: &mut &[u8]) -> OpResult<()> {
        self.below.load(group, bytes)
    }

    fn take_changed(&mut self) -> Vec<(u32, RowBytes)> {
        let prefixed = |first: u8, key: &[u8]| [&[first], key].concat().into_boxed_slice();
        let own = self.changed.take().into_iter().map(|(group, key)| (group, prefixed(OWN, &key)));
        let below = self.below.take_changed().into_iter().map(|(group, key)| (group, prefixed(BELOW, &key)));
        own.chain(below).collect()
    }

    fn entry(&mut self, group: usize, key: &[u8]) -> Option<Vec<u8>> {
        match key.split_first()? {
            (&OWN, value) => self.groups[group].get(value).map(|weight| weight.to_be_bytes().to_vec()),
            (_, key) => self.below.entry(group, key),
        }
    }

    fn load_entry(&mut self, group: usize, key: &[u8], mut value: &[u8]) -> OpResult<()> {
        match key.split_first().ok_or_else(malformed)? {
            (&OWN, key) => {
                self.groups[group].insert(key.into(), take_i64(&mut value)?);
                Ok(())
            }
            (_, key) => self.below.load_entry(group, key, value),
        }
    }
}
