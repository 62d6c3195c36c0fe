//! GROUP BY: one accumulator per group and aggregate, all correct after any delete.
//!
//! A step touches only the groups in its input: their old output row leaves, their new one enters if it differs. A
//! group lives as long as its rows' weights sum to more than zero; its slot is then used again.

mod distinct;
mod extreme;
mod general;
mod linear;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::kernels::cmp::distinct as differs;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::cast::as_boolean_array;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use hashbrown::hash_map::EntryRef;
use model::Delta;

use super::{Operator, Step, concat};
use crate::error::OpResult;
use crate::rows::{Map, RowBytes, RowCodec, batch_of};
use crate::watermark::{Horizon, at, instants};

/// One aggregate of the SELECT list. Columns are indexes into the operator's input.
#[derive(Debug)]
pub(crate) struct AggregateSpec {
    /// Function name as DataFusion knows it.
    pub(crate) function: String,
    /// Argument columns.
    pub(crate) args: Vec<usize>,
    /// Column of the FILTER clause.
    pub(crate) filter: Option<usize>,
    /// DISTINCT.
    pub(crate) distinct: bool,
    /// Type of the result.
    pub(crate) output: DataType,
    /// DataFusion's own function over the same columns, for aggregates without a form of ours.
    pub(crate) general: AggregateFunctionExpr,
}

impl AggregateSpec {
    fn accumulator(self, input: &SchemaRef) -> OpResult<Box<dyn Accumulator>> {
        let arg = |i: usize| input.field(self.args[i]).data_type().clone();
        match (self.function.as_str(), self.distinct, self.args.len()) {
            ("count", false, _) => Ok(Box::new(linear::Count::new(self.args))),
            ("count", true, 1) => Ok(Box::new(distinct::CountDistinct::new(self.args[0], arg(0))?)),
            ("sum", false, 1) if linear::Sum::supports(&arg(0), &self.output) => {
                Ok(Box::new(linear::Sum::new(self.args[0], self.output)))
            }
            ("avg", false, 1) if linear::DecimalAverage::supports(&arg(0), &self.output) => {
                Ok(Box::new(linear::DecimalAverage::new(self.args[0], &arg(0), self.output)))
            }
            ("min", _, 1) => Ok(Box::new(extreme::Extreme::new(self.args[0], arg(0), extreme::End::First)?)),
            ("max", _, 1) => Ok(Box::new(extreme::Extreme::new(self.args[0], arg(0), extreme::End::Last)?)),
            _ => Ok(Box::new(general::General::new(self.general, &self.args, input)?)),
        }
    }
}

/// State of one aggregate for all groups.
pub(super) trait Accumulator: Send + std::fmt::Debug {
    /// Makes room for groups 0..n.
    fn resize(&mut self, n_groups: usize);

    /// Forgets a group.
    fn clear(&mut self, group: usize);

    /// Adds the rows of `batch`: row i belongs to `groups[i]` and counts `weights[i]` times (zero: filtered out).
    fn update(&mut self, groups: &[u32], weights: &[i64], batch: &RecordBatch) -> OpResult<()>;

    /// The results of some groups.
    fn evaluate(&mut self, groups: &[u32]) -> OpResult<ArrayRef>;
}

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
    closes: Option<Closes>,
}

/// Groups in the order in which they close.
#[derive(Debug)]
struct Closes {
    /// The key column that closes.
    key: usize,
    horizon: Horizon,
    slots: BTreeMap<i64, Vec<u32>>,
    /// The value of each slot, to tell a group from one that had its slot before.
    values: Vec<Option<i64>>,
}

impl Closes {
    fn add(&mut self, slot: u32, value: Option<i64>) {
        let at = slot as usize;
        if self.values.len() <= at {
            self.values.resize(at + 1, None);
        }
        self.values[at] = value;
        if let Some(value) = value {
            self.slots.entry(value).or_default().push(slot);
        }
    }

    /// Takes out the slots whose value is before `bound`.
    fn take_before(&mut self, bound: i64) -> Vec<u32> {
        let mut closed = Vec::new();
        while let Some(first) = self.slots.first_entry() {
            if *first.key() >= bound {
                break;
            }
            let (value, slots) = first.remove_entry();
            closed.extend(slots.into_iter().filter(|s| self.values[*s as usize] == Some(value)));
        }
        closed.iter().for_each(|s| self.values[*s as usize] = None);
        closed
    }
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
        };
        if n_keys == 0 {
            this.slot(&[]);
        }
        Ok(this)
    }

    /// From now on forgets groups whose key in this column is closed; no row may come for them any more.
    pub(crate) fn close_by(&mut self, key: usize, horizon: Horizon) {
        self.closes = Some(Closes { key, horizon, slots: BTreeMap::new(), values: Vec::new() });
    }

    /// Forgets the groups that are closed at the end of the step.
    fn forget_closed(&mut self, step: &Step<'_>) {
        let Some(closes) = &mut self.closes else { return };
        let Some(bound) = closes.horizon.now(step.watermarks) else { return };
        let closed = closes.take_before(bound);
        if closed.is_empty() {
            return;
        }
        metrics::counter!("pipelines_closed_keys_total").increment(closed.len() as u64);
        for slot in closed {
            self.release(slot);
        }
    }

    /// Without GROUP BY there is one group, which exists even when it is empty.
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
            Some(closes) => instants(batch.column(closes.key))?,
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
        let exists = slots.iter().map(|s| Some(global || self.weights[*s as usize] > 0)).collect();
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
        if self.is_global() {
            return;
        }
        for slot in slots {
            if self.weights[*slot as usize] == 0 {
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
            self.free.push(slot);
        }
    }
}

impl Operator for Aggregate {
    fn wants(&self, step: &Step<'_>) -> bool {
        let closes = |c: &Closes| !c.slots.is_empty() && c.horizon.moves(step.watermarks);
        (step.first && self.is_global()) || self.closes.as_ref().is_some_and(closes)
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
        if self.is_global() && touched.is_empty() {
            touched.push(0);
        }
        let (old, mut old_exists) = self.output(&touched)?;
        if step.first && self.is_global() {
            old_exists = BooleanArray::from(vec![false]);
        }
        if let Some(delta) = inputs[0] {
            self.update(&all_slots, delta)?;
        }
        let (new, new_exists) = self.output(&touched)?;
        self.release_empty(&touched);
        self.forget_closed(step);
        difference(&old, &old_exists, &new, &new_exists)
    }

    fn state_rows(&self) -> usize {
        self.groups.len()
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
        changed = arrow::compute::or(&changed, &column_differs(a, b)?)?;
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

fn column_differs(a: &ArrayRef, b: &ArrayRef) -> OpResult<BooleanArray> {
    match a.data_type().is_nested() {
        // The comparison kernels know no lists; such rows are compared through their row encoding.
        true => {
            let schema = Arc::new(arrow::datatypes::Schema::new(vec![arrow::datatypes::Field::new(
                "c",
                a.data_type().clone(),
                true,
            )]));
            let codec = RowCodec::new(schema)?;
            let (a, b) = (codec.encode(&[Arc::clone(a)])?, codec.encode(&[Arc::clone(b)])?);
            Ok(a.iter().zip(b.iter()).map(|(x, y)| Some(x.data() != y.data())).collect())
        }
        false => Ok(differs(a, b)?),
    }
}
