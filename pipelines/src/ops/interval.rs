//! Joins whose partner lies within an interval of time: `a.ts BETWEEN b.ts - x AND b.ts + y`, beside equal keys.
//!
//! Each side keeps its rows by key, ordered by time, so that a change looks at its possible partners only. All of the
//! join's condition is still evaluated on them; the interval narrows the search and tells when a row can go: once the
//! other side has closed every time at which a partner could come.
//!
//! A row that is put out alone (outer, anti: without a partner; semi: with one) remembers how many partners it has.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::SchemaRef;
use datafusion::common::JoinType;
use hashbrown::HashSet;
use hashbrown::hash_map::EntryRef;
use model::Delta;

use super::join::{Alone, Shape};
use super::keyed::{Changed, malformed, unpair};
use super::side::{Encoded, Side};
use super::{Expr, Operator, Step, concat, evaluate, evaluate_condition};
use crate::error::OpResult;
use crate::rows::{Map, RowBytes, batch_of};
use crate::state::StateWriter;
use crate::watermark::{Horizon, at, instants};

/// What an interval join is made of.
#[derive(Debug, Clone)]
pub(crate) struct IntervalSpec {
    pub(crate) join_type: JoinType,
    /// The whole condition beside the equal keys, over the columns of both sides.
    pub(crate) condition: Expr,
    /// Columns of both sides.
    pub(crate) joined: SchemaRef,
    /// Times of the left and the right side.
    pub(crate) times: [Expr; 2],
    /// Least and largest time of the right row less that of the left row, microseconds.
    pub(crate) range_us: (i64, i64),
    /// When the times of the left and the right side are closed.
    pub(crate) horizons: Option<[Horizon; 2]>,
}

#[derive(Debug, Clone, Copy)]
struct Stored {
    weight: i64,
    /// Sum of the partners' weights.
    matches: i64,
    /// The matches before this step, while the step goes on.
    before: Option<i64>,
}

type Place = (i64, RowBytes);

/// A row of the other side by key and place, and what its partners' weights have gained.
type Gain = (RowBytes, Place, i64);

#[derive(Debug)]
struct Half {
    side: Side,
    time: Expr,
    alone: Alone,
    index: Map<RowBytes, BTreeMap<Place, Stored>>,
    /// Keys by stretch of time, for forgetting.
    stretches: BTreeMap<i64, HashSet<RowBytes, foldhash::fast::RandomState>>,
    n_rows: usize,
}

/// The operator.
#[derive(Debug)]
pub(crate) struct IntervalJoin {
    halves: [Half; 2],
    pairs: bool,
    condition: Expr,
    joined: SchemaRef,
    range_us: (i64, i64),
    horizons: Option<[Horizon; 2]>,
    /// Length of a stretch of time.
    stretch_us: i64,
    schema: SchemaRef,
    changed: Changed,
}

/// A side's change with its times.
struct Change {
    encoded: Encoded,
    times: Int64Array,
}

impl Change {
    /// Key and time of a row that can have partners.
    fn place(&self, i: usize) -> Option<(&[u8], i64)> {
        Some((self.encoded.key(i)?, at(&self.times, i)?))
    }
}

impl IntervalJoin {
    /// `None` for join types without this form. A new operator's sides must be empty.
    pub(crate) fn new(spec: IntervalSpec, left: Side, right: Side, schema: SchemaRef) -> Option<Self> {
        let shape = Shape::of(spec.join_type)?;
        let [left_time, right_time] = spec.times;
        let half = |side, time, alone| Half {
            side,
            time,
            alone,
            index: Map::default(),
            stretches: BTreeMap::new(),
            n_rows: 0,
        };
        let (low, high) = spec.range_us;
        Some(Self {
            halves: [half(left, left_time, shape.left), half(right, right_time, shape.right)],
            pairs: shape.pairs,
            condition: spec.condition,
            joined: spec.joined,
            range_us: spec.range_us,
            horizons: spec.horizons,
            stretch_us: (high.saturating_sub(low) / 4).max(1),
            schema,
            changed: Changed::default(),
        })
    }

    /// The times at which partners of a row may be.
    fn partners(&self, this: usize, time: i64) -> (i64, i64) {
        let (low, high) = self.range_us;
        match this {
            0 => (time.saturating_add(low), time.saturating_add(high)),
            _ => (time.saturating_sub(high), time.saturating_sub(low)),
        }
    }

    /// Rows of a side before this time can have no partner any more, given what is closed on the other side.
    fn limit(&self, this: usize, closed_before: impl Fn(&Horizon) -> Option<i64>) -> Option<i64> {
        let bound = closed_before(&self.horizons.as_ref()?[1 - this])?;
        Some(match this {
            0 => bound.saturating_sub(self.range_us.1),
            _ => bound.saturating_add(self.range_us.0),
        })
    }

    fn change(&self, this: usize, delta: &Delta) -> OpResult<Change> {
        let half = &self.halves[this];
        Ok(Change { encoded: half.side.encode(delta)?, times: instants(&evaluate(&half.time, &delta.rows)?)? })
    }

    /// Takes in the change of one side and puts out what follows.
    fn take(&mut self, this: usize, delta: &Delta, step: &Step<'_>, out: &mut Vec<Delta>) -> OpResult<()> {
        let change = self.change(this, delta)?;
        let (matches, touched) = self.probe(this, &change, out)?;
        self.put_alone(this, &change, &matches, out)?;
        let limit = self.limit(this, |h| h.before(step.watermarks));
        self.store(this, &change, &matches, limit);
        self.tell_partners(this, touched, out)
    }

    /// Puts out the pairs; gives the partners' weights of each row, and what each partner has gained.
    fn probe(&self, this: usize, change: &Change, out: &mut Vec<Delta>) -> OpResult<(Vec<i64>, Vec<Gain>)> {
        let other = &self.halves[1 - this];
        let mut found: Vec<(usize, &Place, i64)> = Vec::new();
        for i in 0..change.encoded.len() {
            let Some((key, time)) = change.place(i) else { continue };
            let Some(rows) = other.index.get(key) else { continue };
            let (from, to) = self.partners(this, time);
            for (place, stored) in rows.range((from, RowBytes::default())..) {
                if place.0 > to {
                    break;
                }
                found.push((i, place, stored.weight));
            }
        }
        let mut matches = vec![0_i64; change.encoded.len()];
        let mut touched = Vec::new();
        if found.is_empty() {
            return Ok((matches, touched));
        }
        let own: Vec<&[u8]> = found.iter().map(|(i, _, _)| change.encoded.row(*i)).collect();
        let theirs: Vec<&[u8]> = found.iter().map(|(_, place, _)| &*place.1).collect();
        let own = self.halves[this].side.row_codec.decode_batch(&own)?;
        let theirs = other.side.row_codec.decode_batch(&theirs)?;
        let (left, right) = if this == 0 { (own, theirs) } else { (theirs, own) };
        let columns: Vec<ArrayRef> = left.columns().iter().chain(right.columns()).cloned().collect();
        let candidates = batch_of(&self.joined, columns, found.len())?;
        let mask = evaluate_condition(&self.condition, &candidates)?;
        let mut weights = Vec::new();
        for at in mask.values().set_indices() {
            let (i, place, weight) = found[at];
            let own_weight = change.encoded.weights.value(i);
            matches[i] += weight;
            weights.push(own_weight * weight);
            if other.alone != Alone::Never {
                let key = change.place(i).map(|(key, _)| key).unwrap_or_default();
                touched.push((key.into(), place.clone(), own_weight));
            }
        }
        if self.pairs && !weights.is_empty() {
            let rows = arrow::compute::filter_record_batch(&candidates, &mask)?;
            let rows = batch_of(&self.schema, rows.columns().to_vec(), weights.len())?;
            out.push(Delta::new(rows, Int64Array::from(weights)));
        }
        Ok((matches, touched))
    }

    fn put_alone(&self, this: usize, change: &Change, matches: &[i64], out: &mut Vec<Delta>) -> OpResult<()> {
        let alone = self.halves[this].alone;
        let rows = (0..change.encoded.len()).filter(|i| match alone {
            Alone::Never => false,
            Alone::Unmatched => matches[*i] == 0,
            Alone::Matched => matches[*i] != 0,
        });
        let (rows, weights): (Vec<&[u8]>, Vec<i64>) =
            rows.map(|i| (change.encoded.row(i), change.encoded.weights.value(i))).unzip();
        self.alone_rows(this, &rows, weights, out)
    }

    /// Puts out rows of one side without a partner.
    fn alone_rows(&self, this: usize, rows: &[&[u8]], weights: Vec<i64>, out: &mut Vec<Delta>) -> OpResult<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let own = self.halves[this].side.row_codec.decode_batch(rows)?.columns().to_vec();
        let columns = if self.pairs {
            let other = self.halves[1 - this].side.row_codec.schema();
            let nulls = other.fields().iter().map(|f| arrow::array::new_null_array(f.data_type(), rows.len()));
            if this == 0 { own.into_iter().chain(nulls).collect() } else { nulls.chain(own).collect() }
        } else {
            own
        };
        out.push(Delta::new(batch_of(&self.schema, columns, rows.len())?, Int64Array::from(weights)));
        Ok(())
    }

    fn store(&mut self, this: usize, change: &Change, matches: &[i64], limit: Option<i64>) {
        let half = &mut self.halves[this];
        for (i, matches) in matches.iter().enumerate() {
            let Some((key, time)) = change.place(i) else { continue };
            let weight = change.encoded.weights.value(i);
            // No partner can come for it, and it may have been forgotten already.
            if weight == 0 || limit.is_some_and(|limit| time < limit) {
                continue;
            }
            let row = change.encoded.row(i);
            let rows = value_of(&mut half.index, key);
            let mut is_new = false;
            let stored = rows.entry((time, row.into())).or_insert_with(|| {
                half.n_rows += 1;
                is_new = true;
                Stored { weight: 0, matches: 0, before: None }
            });
            stored.weight += weight;
            stored.matches = *matches;
            let is_gone = stored.weight == 0;
            if is_gone {
                rows.remove(&(time, row.into()));
                half.n_rows -= 1;
            }
            if self.changed.is_tracking() {
                let (key, below) = (side_key(this, key), below(time, row));
                match (is_new, is_gone) {
                    (true, _) => self.changed.note_new(&key, &below),
                    (false, true) => self.changed.note_gone(&key, &below),
                    (false, false) => self.changed.note(&key, &below),
                }
            }
            if rows.is_empty() {
                half.index.remove(key);
            } else if self.horizons.is_some() {
                let stretch = half.stretches.entry(time.div_euclid(self.stretch_us)).or_default();
                if !stretch.contains(key) {
                    stretch.insert(key.into());
                }
            }
        }
    }

    /// Rows of the other side whose number of partners went from or to none are put out or taken back.
    fn tell_partners(&mut self, this: usize, touched: Vec<Gain>, out: &mut Vec<Delta>) -> OpResult<()> {
        let other = 1 - this;
        let mut first_touched: Vec<(RowBytes, Place)> = Vec::new();
        for (key, place, weight) in touched {
            let Some(stored) = self.halves[other].index.get_mut(&key).and_then(|rows| rows.get_mut(&place)) else {
                continue;
            };
            self.changed.note(&side_key(other, &key), &below(place.0, &place.1));
            let is_first = stored.before.is_none();
            stored.before.get_or_insert(stored.matches);
            stored.matches += weight;
            if is_first {
                first_touched.push((key, place));
            }
        }
        let alone = self.halves[other].alone;
        let mut rows: Vec<&[u8]> = Vec::new();
        let mut weights = Vec::new();
        for (key, place) in &first_touched {
            let Some(stored) = self.halves[other].index.get_mut(key).and_then(|rows| rows.get_mut(place)) else {
                continue;
            };
            let (had, has) = (stored.before.take().unwrap_or(0) != 0, stored.matches != 0);
            if had != has {
                rows.push(&place.1);
                weights.push(if has == (alone == Alone::Matched) { stored.weight } else { -stored.weight });
            }
        }
        self.alone_rows(other, &rows, weights, out)
    }

    /// Drops the rows for which no partner can come.
    fn forget(&mut self, this: usize, step: &Step<'_>) {
        let Some(limit) = self.limit(this, |h| h.now(step.watermarks)) else { return };
        let half = &mut self.halves[this];
        let n_before = half.n_rows;
        while let Some(first) = half.stretches.first_entry() {
            if first.key().saturating_add(1).saturating_mul(self.stretch_us) > limit {
                break;
            }
            let end = first.key().saturating_add(1).saturating_mul(self.stretch_us);
            for key in first.remove() {
                let Some(rows) = half.index.get_mut(&key) else { continue };
                let kept = rows.split_off(&(end, RowBytes::default()));
                let gone = std::mem::replace(rows, kept);
                half.n_rows -= gone.len();
                if self.changed.is_tracking() {
                    for (time, row) in gone.keys() {
                        self.changed.note_gone(&side_key(this, &key), &below(*time, row));
                    }
                }
                if rows.is_empty() {
                    half.index.remove(&key);
                }
            }
        }
        let n_gone = n_before - half.n_rows;
        if n_gone > 0 {
            metrics::counter!("pipelines_closed_keys_total").increment(n_gone as u64);
        }
    }
}

/// The value of a key, made if it is not there.
pub(super) fn value_of<'a, V: Default>(map: &'a mut Map<RowBytes, V>, key: &[u8]) -> &'a mut V {
    match map.entry_ref(key) {
        EntryRef::Occupied(entry) => entry.into_mut(),
        EntryRef::Vacant(entry) => entry.insert_with_key(key.into(), V::default()),
    }
}

fn side_key(side: usize, key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + key.len());
    bytes.push(u8::from(side == 1));
    bytes.extend_from_slice(key);
    bytes
}

fn below(time: i64, row: &[u8]) -> Vec<u8> {
    let mut bytes = time.to_be_bytes().to_vec();
    bytes.extend_from_slice(row);
    bytes
}

/// Side, key and place of a stored entry.
fn parse(entry: &[u8]) -> OpResult<(usize, &[u8], Place)> {
    let (key, below) = unpair(entry)?;
    let (side, key) = key.split_first().ok_or_else(malformed)?;
    let (time, row) = below.split_first_chunk::<8>().ok_or_else(malformed)?;
    Ok((usize::from(*side == 1), key, (i64::from_be_bytes(*time), row.into())))
}

impl Operator for IntervalJoin {
    fn wants(&self, step: &Step<'_>) -> bool {
        self.horizons.as_ref().is_some_and(|all| all.iter().any(|h| h.moves(step.watermarks)))
    }

    fn step(&mut self, inputs: &[Option<&Delta>], step: &Step<'_>) -> OpResult<Option<Delta>> {
        let mut out = Vec::new();
        for (this, delta) in inputs.iter().enumerate() {
            if let Some(delta) = delta {
                self.take(this, delta, step, &mut out)?;
            }
        }
        self.forget(0, step);
        self.forget(1, step);
        concat(&out)
    }

    fn state_rows(&self) -> usize {
        self.halves.iter().map(|h| h.n_rows).sum()
    }

    fn track(&mut self) {
        self.changed.track();
    }

    fn checkpoint(&mut self, out: &mut StateWriter<'_>) -> OpResult<()> {
        for entry in self.changed.take() {
            let (side, key, place) = parse(&entry)?;
            match self.halves[side].index.get(key).and_then(|rows| rows.get(&place)) {
                Some(stored) => {
                    let mut value = stored.weight.to_be_bytes().to_vec();
                    value.extend_from_slice(&stored.matches.to_be_bytes());
                    out.put(&entry, &value);
                }
                None => out.delete(&entry),
            }
        }
        Ok(())
    }

    fn restore(&mut self, entries: &mut dyn Iterator<Item = (&[u8], &[u8])>) -> OpResult<()> {
        for (entry, value) in entries {
            let (side, key, place) = parse(entry)?;
            let (weight, matches) = value.split_first_chunk::<8>().ok_or_else(malformed)?;
            let matches: [u8; 8] = matches.try_into().map_err(|_| malformed())?;
            let half = &mut self.halves[side];
            if self.horizons.is_some() {
                half.stretches.entry(place.0.div_euclid(self.stretch_us)).or_default().insert(key.into());
            }
            let (weight, matches) = (i64::from_be_bytes(*weight), i64::from_be_bytes(matches));
            value_of(&mut half.index, key).insert(place, Stored { weight, matches, before: None });
            half.n_rows += 1;
        }
        Ok(())
    }
}
