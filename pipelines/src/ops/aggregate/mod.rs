//! GROUP BY: one accumulator per group and aggregate, all correct after any delete.
//!
//! A step touches only the groups in its input: their old output row leaves, their new one enters if it differs. A
//! group lives as long as its rows' weights sum to more than zero; its slot is then used again.

mod bags;
mod bits;
mod distinct;
mod edge;
mod exact;
mod floats;
mod general;
mod linear;
mod mode;
mod nth;
mod pairs;
mod ranked;
mod sketch;
mod spec;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::kernels::cmp::distinct as differs;
use arrow::datatypes::SchemaRef;
use datafusion::common::cast::as_boolean_array;
use hashbrown::HashSet;
use hashbrown::hash_map::EntryRef;
use model::Delta;

use self::bags::Bags;
pub(crate) use self::spec::AggregateSpec;
use super::closes::ClosingSlots;
use super::keyed::{malformed, pair, unpair};
use super::{Operator, Step, concat};
use crate::error::OpResult;
use crate::rows::{Map, RowBytes, RowCodec, batch_of, differing};
use crate::state::StateWriter;
use crate::watermark::{Horizon, at, instants};

/// State of one aggregate for all groups.
trait Accumulator: Send + std::fmt::Debug {
    /// Makes room for groups 0..n.
    fn resize(&mut self, n_groups: usize);

    /// Forgets a group.
    fn clear(&mut self, group: usize);

    /// Adds the rows of `batch`: row i belongs to `groups[i]` and counts `weights[i]` times (zero: filtered out).
    fn update(&mut self, groups: &[u32], weights: &[i64], batch: &RecordBatch) -> OpResult<()>;

    /// Whether a change costs the size of its group.
    fn rescans(&self) -> bool {
        false
    }

    /// The results of some groups.
    fn evaluate(&mut self, groups: &[u32]) -> OpResult<ArrayRef>;

    /// The multisets in which it remembers values, if it has any: their entries are stored below the group's.
    fn bags(&mut self) -> Option<&mut Bags> {
        None
    }

    /// See [`Operator::track`]: only for aggregates with entries of their own below a group.
    fn track(&mut self) {
        if let Some(bags) = self.bags() {
            bags.track();
        }
    }

    /// Writes what is kept of a group as a whole, if anything.
    fn save(&self, _group: usize, _out: &mut Vec<u8>) {}

    /// Reads what [`Accumulator::save`] wrote, off the front of `bytes`.
    fn load(&mut self, _group: usize, _bytes: &mut &[u8]) -> OpResult<()> {
        Ok(())
    }

    /// Entries below groups that changed since the last call.
    fn take_changed(&mut self) -> Vec<(u32, RowBytes)> {
        self.bags().map(Bags::take_changed).unwrap_or_default()
    }

    /// The value of such an entry, `None` if it is gone.
    fn entry(&mut self, group: usize, key: &[u8]) -> Option<Vec<u8>> {
        self.bags()?.entry(group, key)
    }

    /// Takes an entry back.
    fn load_entry(&mut self, group: usize, key: &[u8], value: &[u8]) -> OpResult<()> {
        self.bags().ok_or_else(malformed)?.load_entry(group, key, value)
    }
}

/// First byte of the stored entry of a group; those of the entries below it follow, one per aggregate.
const GROUP: u8 = 0;

/// The operator.
#[derive(Debug)]
pub(crate) struct Aggregate {
    schema: SchemaRef,
    n_keys: usize,
    codec: RowCodec,
    groups: Map<RowBytes, u32>,
    /// Key of each slot, `None` for a free one.
    keys: Vec<Option<RowBytes>>,
    free: Vec<u32>,
    weights: Vec<i64>,
    accumulators: Vec<(Option<usize>, Box<dyn Accumulator>)>,
    /// Step in which a slot was touched last, to find the touched ones without a set.
    touched_at: Vec<u64>,
    step_no: u64,
    /// Groups that changed since the last checkpoint, if there are checkpoints. Empty groups are then released by the
    /// checkpoint, so that a slot belongs to one key until its end is stored.
    unsaved: Option<HashSet<u32, foldhash::fast::RandomState>>,
    /// Groups that exist even when they are empty: the only one without GROUP BY, those of `()` in GROUPING SETS. Theirs
    /// are the first slots.
    n_permanent: usize,
    /// The rows of permanent groups were put out before a restart.
    restored: bool,
    /// The key column that closes, where one does.
    closes: Option<ClosingSlots>,
}

impl Aggregate {
    /// `input`'s first `n_keys` columns are the group's; `schema` is the output's.
    pub(crate) fn new(
        input: &SchemaRef,
        n_keys: usize,
        specs: Vec<AggregateSpec>,
        schema: SchemaRef,
    ) -> OpResult<Self> {
        let columns: Vec<usize> = (0..n_keys).collect();
        let accumulators =
            specs.into_iter().map(|spec| Ok((spec.filter, spec.accumulator(input)?))).collect::<OpResult<Vec<_>>>()?;
        let mut this = Self {
            schema,
            n_keys,
            codec: RowCodec::of_columns(input, &columns)?,
            groups: Map::default(),
            keys: Vec::new(),
            free: Vec::new(),
            weights: Vec::new(),
            accumulators,
            touched_at: Vec::new(),
            step_no: 0,
            closes: None,
            unsaved: None,
            n_permanent: 0,
            restored: false,
        };
        if n_keys == 0 {
            this.slot(&[]);
            this.n_permanent = 1;
        }
        Ok(this)
    }

    /// Makes groups permanent, one per row of `keys`; called before the first step.
    pub(crate) fn with_permanent(mut self, keys: &RecordBatch) -> OpResult<Self> {
        let slots = self.slots(keys)?;
        self.n_permanent = slots.len();
        Ok(self)
    }

    /// Which aggregates read the whole group again at each change.
    pub(crate) fn rescanning(&self) -> Vec<usize> {
        let rescans = |i: &usize| self.accumulators[*i].1.rescans();
        (0..self.accumulators.len()).filter(rescans).collect()
    }

    fn is_permanent(&self, slot: u32) -> bool {
        (slot as usize) < self.n_permanent
    }

    /// From now on forgets groups whose key in this column is closed; no row may come for them any more.
    pub(crate) fn close_by(&mut self, key: usize, horizon: Horizon) {
        self.closes = Some(ClosingSlots::new(key, horizon));
    }

    /// Notes when the groups close that were restored.
    fn find_closing(&mut self) -> OpResult<()> {
        let Some(closes) = &mut self.closes else { return Ok(()) };
        let slots: Vec<u32> = self.groups.values().copied().collect();
        let keys = slots.iter().map(|s| self.keys[*s as usize].as_deref().unwrap_or_default());
        let columns = self.codec.decode(keys)?;
        let values = instants(&columns[closes.part()])?;
        slots.iter().enumerate().for_each(|(i, slot)| closes.add(*slot, at(&values, i)));
        Ok(())
    }

    /// Forgets the groups that are closed at the end of the step.
    fn forget_closed(&mut self, step: &Step<'_>) {
        let Some(closes) = &mut self.closes else { return };
        for slot in closes.take_closed(step) {
            match &mut self.unsaved {
                None => self.release(slot),
                // The next checkpoint stores that the group is gone, and releases it.
                Some(unsaved) => {
                    unsaved.insert(slot);
                    self.weights[slot as usize] = 0;
                    self.accumulators.iter_mut().for_each(|(_, a)| a.clear(slot as usize));
                }
            }
        }
    }

    /// Without GROUP BY there is one group and no key.
    fn is_global(&self) -> bool {
        self.n_keys == 0
    }

    fn slot(&mut self, key: &[u8]) -> u32 {
        match self.groups.entry_ref(key) {
            EntryRef::Occupied(entry) => *entry.get(),
            EntryRef::Vacant(entry) => {
                let slot = self.free.pop().unwrap_or_else(|| {
                    self.keys.push(None);
                    self.weights.push(0);
                    self.touched_at.push(0);
                    u32::try_from(self.keys.len() - 1).expect("fewer than 2^32 groups fit in memory")
                });
                self.keys[slot as usize] = Some(key.into());
                entry.insert_with_key(key.into(), slot);
                slot
            }
        }
    }

    fn slots(&mut self, batch: &RecordBatch) -> OpResult<Vec<u32>> {
        if self.is_global() {
            return Ok(vec![0; batch.num_rows()]);
        }
        let rows = self.codec.encode(&batch.columns()[..self.n_keys])?;
        let values = match &self.closes {
            None => return Ok(rows.iter().map(|row| self.slot(row.data())).collect()),
            Some(closes) => instants(batch.column(closes.part()))?,
        };
        let mut slots = Vec::with_capacity(batch.num_rows());
        for (i, row) in rows.iter().enumerate() {
            let n_known = self.groups.len();
            let slot = self.slot(row.data());
            if self.groups.len() > n_known
                && let Some(closes) = &mut self.closes
            {
                closes.add(slot, at(&values, i));
            }
            slots.push(slot);
        }
        Ok(slots)
    }

    fn update(&mut self, slots: &[u32], delta: &Delta) -> OpResult<()> {
        let weights = delta.weights.values();
        for (slot, weight) in slots.iter().zip(weights.iter()) {
            self.weights[*slot as usize] += weight;
        }
        for (filter, accumulator) in &mut self.accumulators {
            match filter {
                None => accumulator.update(slots, weights, &delta.rows)?,
                Some(column) => {
                    let mask = as_boolean_array(delta.rows.column(*column))?;
                    let kept: Vec<i64> = weights
                        .iter()
                        .enumerate()
                        .map(|(i, w)| if mask.is_valid(i) && mask.value(i) { *w } else { 0 })
                        .collect();
                    accumulator.update(slots, &kept, &delta.rows)?;
                }
            }
        }
        Ok(())
    }

    /// Output rows of some groups, and which of them exist.
    fn output(&mut self, slots: &[u32]) -> OpResult<(RecordBatch, BooleanArray)> {
        let global = self.is_global();
        let exists = slots.iter().map(|s| Some(self.is_permanent(*s) || self.weights[*s as usize] > 0)).collect();
        let mut columns = match global {
            true => Vec::new(),
            false => {
                let keys = slots.iter().map(|s| self.keys[*s as usize].as_deref().unwrap_or_default());
                self.codec.decode(keys)?
            }
        };
        for (_, accumulator) in &mut self.accumulators {
            columns.push(accumulator.evaluate(slots)?);
        }
        for (column, field) in columns.iter_mut().zip(self.schema.fields()) {
            if column.data_type() != field.data_type() {
                *column = arrow::compute::cast(column, field.data_type())?;
            }
        }
        Ok((batch_of(&self.schema, columns, slots.len())?, exists))
    }

    fn release_empty(&mut self, slots: &[u32]) {
        for slot in slots {
            if self.weights[*slot as usize] == 0 && !self.is_permanent(*slot) {
                self.release(*slot);
            }
        }
    }

    fn release(&mut self, slot: u32) {
        let at = slot as usize;
        if let Some(key) = self.keys[at].take() {
            self.groups.remove(&key);
            self.weights[at] = 0;
            for (_, accumulator) in &mut self.accumulators {
                accumulator.clear(at);
            }
            if let Some(closes) = &mut self.closes {
                closes.remove(slot);
            }
            self.free.push(slot);
        }
    }
}

impl Operator for Aggregate {
    fn wants(&self, step: &Step<'_>) -> bool {
        (step.first && self.n_permanent > 0) || self.closes.as_ref().is_some_and(|closes| closes.wants(step))
    }

    fn step(&mut self, inputs: &[Option<&Delta>], step: &Step<'_>) -> OpResult<Option<Delta>> {
        let all_slots = match inputs[0] {
            Some(delta) => self.slots(&delta.rows)?,
            None => Vec::new(),
        };
        for (_, accumulator) in &mut self.accumulators {
            accumulator.resize(self.keys.len());
        }
        self.step_no += 1;
        let mut touched: Vec<u32> = Vec::new();
        for slot in &all_slots {
            let at = &mut self.touched_at[*slot as usize];
            if *at != self.step_no {
                *at = self.step_no;
                touched.push(*slot);
            }
        }
        let puts_out_permanent = step.first && !self.restored;
        if puts_out_permanent {
            let permanent = (0..).take(self.n_permanent).filter(|slot| self.touched_at[*slot as usize] != self.step_no);
            touched.extend(permanent);
        }
        let (old, mut old_exists) = self.output(&touched)?;
        if puts_out_permanent {
            old_exists =
                touched.iter().map(|s| Some(!self.is_permanent(*s) && self.weights[*s as usize] > 0)).collect();
        }
        if let Some(delta) = inputs[0] {
            self.update(&all_slots, delta)?;
        }
        let (new, new_exists) = self.output(&touched)?;
        match &mut self.unsaved {
            Some(unsaved) => unsaved.extend(&touched),
            None => self.release_empty(&touched),
        }
        self.forget_closed(step);
        difference(&old, &old_exists, &new, &new_exists)
    }

    fn remembers(&self) -> bool {
        self.closes.is_none()
    }

    fn standing(&mut self) -> OpResult<Option<Delta>> {
        let permanent = (0..).take(self.n_permanent);
        let others = self.groups.values().copied().filter(|slot| self.weights[*slot as usize] > 0);
        let slots: Vec<u32> = permanent.chain(others.filter(|slot| !self.is_permanent(*slot))).collect();
        let (rows, _) = self.output(&slots)?;
        Ok((rows.num_rows() > 0).then(|| Delta::inserts(rows)))
    }

    fn state_rows(&self) -> usize {
        self.groups.len()
    }

    fn track(&mut self) {
        self.unsaved = Some(HashSet::default());
        self.accumulators.iter_mut().for_each(|(_, accumulator)| accumulator.track());
    }

    /// One entry per group (weight and what each aggregate keeps of it as a whole), and one per remembered value.
    fn checkpoint(&mut self, out: &mut StateWriter<'_>) -> OpResult<()> {
        let Some(unsaved) = self.unsaved.as_mut().map(std::mem::take) else { return Ok(()) };
        for slot in &unsaved {
            let at = *slot as usize;
            let key = [&[GROUP], self.keys[at].as_deref().unwrap_or_default()].concat();
            if self.weights[at] == 0 && !self.is_permanent(*slot) {
                out.delete(&key);
                continue;
            }
            let mut value = self.weights[at].to_be_bytes().to_vec();
            self.accumulators.iter().for_each(|(_, accumulator)| accumulator.save(at, &mut value));
            out.put(&key, &value);
        }
        for (i, (_, accumulator)) in self.accumulators.iter_mut().enumerate() {
            for (slot, below) in accumulator.take_changed() {
                let mut key = vec![u8::try_from(i + 1).map_err(|_| malformed())?];
                key.extend(pair(self.keys[slot as usize].as_deref().unwrap_or_default(), &below));
                match accumulator.entry(slot as usize, &below) {
                    Some(value) => out.put(&key, &value),
                    None => out.delete(&key),
                }
            }
        }
        let mut empty: Vec<u32> = unsaved.into_iter().collect();
        empty.sort_unstable();
        self.release_empty(&empty);
        Ok(())
    }

    fn restore(&mut self, entries: &mut dyn Iterator<Item = (&[u8], &[u8])>) -> OpResult<()> {
        for (key, mut value) in entries {
            let (kind, key) = key.split_first().ok_or_else(malformed)?;
            let (group, below) = if *kind == GROUP { (key, &[][..]) } else { unpair(key)? };
            let slot = if self.is_global() { 0 } else { self.slot(group) } as usize;
            for (_, accumulator) in &mut self.accumulators {
                accumulator.resize(self.keys.len());
            }
            if *kind == GROUP {
                self.restored = true;
                self.weights[slot] = bags::take_i64(&mut value)?;
                for (_, accumulator) in &mut self.accumulators {
                    accumulator.load(slot, &mut value)?;
                }
                continue;
            }
            let (_, accumulator) = self.accumulators.get_mut(usize::from(*kind) - 1).ok_or_else(malformed)?;
            accumulator.load_entry(slot, below, value)?;
        }
        self.find_closing()
    }
}

/// The group that an entry of stored state belongs to.
pub(crate) fn stored_group(entry: &[u8]) -> OpResult<&[u8]> {
    match entry.split_first().ok_or_else(malformed)? {
        (&GROUP, group) => Ok(group),
        (_, below) => Ok(unpair(below)?.0),
    }
}

/// −old +new for the rows that differ, in content or existence.
fn difference(
    old: &RecordBatch,
    old_exists: &BooleanArray,
    new: &RecordBatch,
    new_exists: &BooleanArray,
) -> OpResult<Option<Delta>> {
    let mut changed = differs(old_exists, new_exists)?;
    for (a, b) in old.columns().iter().zip(new.columns()) {
        changed = arrow::compute::or(&changed, &differing(a, b)?)?;
    }
    let mut out = Vec::with_capacity(2);
    for (batch, exists, sign) in [(old, old_exists, -1_i64), (new, new_exists, 1)] {
        let mask = arrow::compute::and(exists, &changed)?;
        let indices: UInt32Array = mask.values().set_indices().map(|i| u32::try_from(i).unwrap_or(u32::MAX)).collect();
        if indices.is_empty() {
            continue;
        }
        let columns =
            batch.columns().iter().map(|c| arrow::compute::take(c, &indices, None)).collect::<Result<Vec<_>, _>>()?;
        let rows = batch_of(&batch.schema(), columns, indices.len())?;
        out.push(Delta::new(rows, Int64Array::from(vec![sign; indices.len()])));
    }
    concat(&out)
}
