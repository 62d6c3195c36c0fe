//! One input of a join, indexed by key.

use arrow::array::{Array, Int64Array};
use arrow::datatypes::SchemaRef;
use arrow::row::Rows;
use hashbrown::hash_map::EntryRef;
use model::Delta;

use super::closes::Closes;
use super::keyed::{malformed, pair, unpair};
use super::tracked::stored_weight;
use super::{Expr, evaluate};
use crate::error::OpResult;
use crate::rows::{Map, RowBytes, RowCodec, Set, ZSet, add_weight};
use crate::state::StateWriter;
use crate::watermark::{at, instants};

/// The rows of one key: usually one.
#[derive(Debug)]
pub(super) enum Bucket {
    One(RowBytes, i64),
    Many(ZSet),
}

impl Bucket {
    pub(super) fn rows(&self) -> impl Iterator<Item = (&[u8], i64)> {
        let (one, many) = match self {
            Self::One(row, weight) => (Some((&**row, *weight)), None),
            Self::Many(set) => (None, Some(set.iter().map(|(row, weight)| (&**row, *weight)))),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    fn weight(&self, row: &[u8]) -> Option<i64> {
        match self {
            Self::One(known, weight) => (&**known == row).then_some(*weight),
            Self::Many(set) => set.get(row).copied(),
        }
    }

    /// Adds a weight and tells whether the bucket is empty now.
    fn add(&mut self, row: &[u8], weight: i64) -> bool {
        match self {
            Self::One(known, sum) if &**known == row => {
                *sum += weight;
                *sum == 0
            }
            Self::One(known, sum) => {
                let mut set = ZSet::default();
                set.insert(std::mem::take(known), *sum);
                add_weight(&mut set, row, weight);
                *self = Self::Many(set);
                false
            }
            Self::Many(set) => {
                add_weight(set, row, weight);
                set.is_empty()
            }
        }
    }
}

/// One input of a join, indexed by key.
#[derive(Debug)]
pub(crate) struct Side {
    keys: Vec<Expr>,
    key_codec: RowCodec,
    pub(super) row_codec: RowCodec,
    pub(super) null_row: RowBytes,
    nulls_match: bool,
    index: Map<RowBytes, Bucket>,
    /// Stored names (key, row) of the rows that changed since the last checkpoint, if they are stored.
    dirty: Option<Set<RowBytes>>,
    closes: Option<(usize, Closes<RowBytes>)>,
}

/// A change of a side, encoded.
pub(super) struct Encoded {
    keys: Option<Rows>,
    rows: Option<Rows>,
    matchable: Vec<bool>,
    /// The closing part of each key, where the side closes.
    closing: Option<Int64Array>,
    pub(super) weights: Int64Array,
}

impl Encoded {
    pub(super) fn len(&self) -> usize {
        self.weights.len()
    }

    /// The key of a row, `None` if it is NULL and so equals nothing.
    pub(super) fn key(&self, i: usize) -> Option<&[u8]> {
        self.matchable[i].then(|| self.keys.as_ref().map_or(&[][..], |keys| keys.row(i).data()))
    }

    pub(super) fn row(&self, i: usize) -> &[u8] {
        self.rows.as_ref().map_or(&[][..], |rows| rows.row(i).data())
    }
}

impl Side {
    /// `keys` are evaluated on the input, whose first columns are those of `schema`; `key_schema` has their types.
    pub(crate) fn new(schema: SchemaRef, keys: Vec<Expr>, key_schema: SchemaRef, nulls_match: bool) -> OpResult<Self> {
        let row_codec = RowCodec::new(schema)?;
        let null_row = row_codec.null_row()?;
        Ok(Self {
            keys,
            key_codec: RowCodec::new(key_schema)?,
            row_codec,
            null_row,
            nulls_match,
            index: Map::default(),
            dirty: None,
            closes: None,
        })
    }

    /// Another of the same kind; this one must be new.
    pub(crate) fn another(&self) -> OpResult<Self> {
        let (rows, keys) = (SchemaRef::clone(self.row_codec.schema()), SchemaRef::clone(self.key_codec.schema()));
        Self::new(rows, self.keys.clone(), keys, self.nulls_match)
    }

    /// From now on remembers when each key closes by this part of it, for [`Side::take_closed`].
    pub(super) fn close_by(&mut self, part: usize) {
        self.closes = Some((part, Closes::default()));
    }

    /// Whether there is a key that closes some day.
    pub(super) fn closes(&self) -> bool {
        self.closes.as_ref().is_some_and(|(_, closes)| !closes.is_empty())
    }

    /// Forgets the keys that were closed before a time, and tells which.
    pub(super) fn take_closed(&mut self, bound: i64) -> Vec<RowBytes> {
        let Some((_, closes)) = &mut self.closes else { return Vec::new() };
        let closed = closes.take_before(bound);
        for key in &closed {
            if let (Some(bucket), Some(dirty)) = (self.index.remove(key), &mut self.dirty) {
                dirty.extend(bucket.rows().map(|(row, _)| pair(key, row).into()));
            }
        }
        closed
    }

    pub(super) fn encode(&self, delta: &Delta) -> OpResult<Encoded> {
        let mut matchable = vec![true; delta.len()];
        let columns = self.keys.iter().map(|k| evaluate(k, &delta.rows)).collect::<OpResult<Vec<_>>>()?;
        if !self.nulls_match {
            for column in columns.iter().filter(|c| c.null_count() > 0) {
                for (i, ok) in matchable.iter_mut().enumerate() {
                    *ok &= column.is_valid(i);
                }
            }
        }
        let keys = if columns.is_empty() { None } else { Some(self.key_codec.encode(&columns)?) };
        let n_columns = self.row_codec.schema().fields().len();
        let rows = self.row_codec.encode_some(&delta.rows, 0..n_columns)?;
        let closing = self.closes.as_ref().map(|(part, _)| instants(&columns[*part])).transpose()?;
        Ok(Encoded { keys, rows, matchable, closing, weights: delta.weights.clone() })
    }

    pub(super) fn has(&self, key: &[u8]) -> bool {
        self.index.contains_key(key)
    }

    pub(super) fn bucket(&self, key: &[u8]) -> Option<&Bucket> {
        self.index.get(key)
    }

    pub(super) fn weight(&self, key: &[u8], row: &[u8]) -> i64 {
        self.index.get(key).and_then(|bucket| bucket.weight(row)).unwrap_or(0)
    }

    pub(super) fn buckets(&self) -> impl Iterator<Item = (&[u8], &Bucket)> {
        self.index.iter().map(|(key, bucket)| (&**key, bucket))
    }

    pub(super) fn update(&mut self, change: &Encoded) {
        for i in 0..change.len() {
            let (Some(key), weight) = (change.key(i), change.weights.value(i)) else { continue };
            if weight == 0 {
                continue;
            }
            if let Some(dirty) = &mut self.dirty {
                dirty.insert(pair(key, change.row(i)).into());
            }
            let closing = change.closing.as_ref().and_then(|values| at(values, i));
            let closes = self.closes.as_mut().map(|(_, closes)| closes).zip(closing);
            match self.index.entry_ref(key) {
                EntryRef::Occupied(mut entry) => {
                    if entry.get_mut().add(change.row(i), weight) {
                        entry.remove();
                        closes.into_iter().for_each(|(closes, value)| closes.remove(value, key));
                    }
                }
                EntryRef::Vacant(entry) => {
                    entry.insert_with_key(key.into(), Bucket::One(change.row(i).into(), weight));
                    closes.into_iter().for_each(|(closes, value)| closes.add(value, key.into()));
                }
            }
        }
    }

    pub(super) fn track(&mut self) {
        self.dirty = Some(Set::default());
    }

    /// Writes the rows that changed since the last call, one entry each, `tag` in front.
    pub(super) fn checkpoint(&mut self, tag: u8, out: &mut StateWriter<'_>) -> OpResult<()> {
        let mut name = vec![tag];
        for entry in self.dirty.iter_mut().flat_map(Set::drain) {
            let (key, row) = unpair(&entry)?;
            let weight = self.index.get(key).and_then(|bucket| bucket.weight(row));
            name.truncate(1);
            name.extend_from_slice(&entry);
            match weight {
                Some(weight) => out.put(&name, &weight.to_be_bytes()),
                None => out.delete(&name),
            }
        }
        Ok(())
    }

    /// Takes back one entry, its name without the tag.
    pub(super) fn restore(&mut self, name: &[u8], value: &[u8]) -> OpResult<()> {
        let (key, row) = unpair(name)?;
        let weight = stored_weight(value)?;
        match self.index.entry_ref(key) {
            EntryRef::Occupied(mut entry) => {
                entry.get_mut().add(row, weight);
            }
            EntryRef::Vacant(entry) => {
                entry.insert_with_key(key.into(), Bucket::One(row.into(), weight));
            }
        }
        Ok(())
    }

    /// After all entries were taken back: when each key closes.
    pub(super) fn restored(&mut self) -> OpResult<()> {
        let Some((part, closes)) = &mut self.closes else { return Ok(()) };
        *closes = Closes::default();
        let keys: Vec<&RowBytes> = self.index.keys().collect();
        let columns = self.key_codec.decode(keys.iter().map(|k| &***k))?;
        let values = instants(columns.get(*part).ok_or_else(malformed)?)?;
        for (i, key) in keys.into_iter().enumerate() {
            if let Some(value) = at(&values, i) {
                closes.add(value, key.clone());
            }
        }
        Ok(())
    }

    /// Number of rows.
    pub(super) fn rows(&self) -> usize {
        let of = |b: &Bucket| if let Bucket::Many(set) = b { set.len() } else { 1 };
        self.index.values().map(of).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::physical_expr::expressions::Column;

    use super::*;

    #[test]
    fn keys_that_come_and_go_leave_nothing_behind() {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("day", DataType::Date32, true)]));
        let keys: Vec<Expr> = vec![Arc::new(Column::new("day", 0))];
        let mut side = Side::new(Arc::clone(&schema), keys, Arc::clone(&schema), false).expect("a side");
        side.close_by(0);
        let days: ArrayRef = Arc::new(arrow::array::Date32Array::from(vec![Some(3), Some(4), None]));
        let rows = RecordBatch::try_new(schema, vec![days]).expect("one column");
        for _ in 0..3 {
            for weight in [1, -1] {
                let delta = Delta::new(rows.clone(), Int64Array::from(vec![weight; 3]));
                let change = side.encode(&delta).expect("encodes");
                side.update(&change);
                assert_eq!((side.closes(), side.rows()), (weight > 0, if weight > 0 { 2 } else { 0 }));
            }
        }
    }
}
