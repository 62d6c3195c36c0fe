//! Top-N, deduplication and LIMIT: the first rows of each partition in a stated order.
//!
//! `ROW_NUMBER() OVER (PARTITION BY … ORDER BY …) … WHERE rn <= n`, the same with RANK and DENSE_RANK, and
//! `ORDER BY … LIMIT … OFFSET` (one partition, no number put out). A step puts out only what changes among the first rows. Cost of a change: its place in the order, plus
//! n if it falls among the first n. Above an append-only input rows beyond n are forgotten, since they cannot come back.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, UInt64Array};
use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use model::Delta;

use super::keyed::{malformed, unpair};
use super::partitions::{self, Partitions};
use super::sorted::Counted;
use super::{Operator, Step};
use crate::error::OpResult;
use crate::rows::batch_of;
use crate::state::StateWriter;
use crate::watermark::Horizon;

/// What is counted up to the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counting {
    /// ROW_NUMBER, LIMIT.
    Rows,
    /// RANK.
    Ranks,
    /// DENSE_RANK.
    DenseRanks,
}

/// What becomes of the number itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Number {
    /// The last output column.
    Column,
    /// Nothing above reads it: the last output column is NULL, and a row that only changes its place is no change.
    Unread,
    /// There is no such column.
    Absent,
}

/// What to keep. Columns are indexes into the input.
#[derive(Debug, Clone)]
pub(crate) struct RankingSpec {
    pub(crate) counting: Counting,
    pub(crate) number: Number,
    pub(crate) partition: Vec<usize>,
    pub(crate) order: Vec<(usize, SortOptions)>,
    /// The input's first columns are passed on; those behind only order and partition.
    pub(crate) n_columns: usize,
    /// Rows to leave out at the start of the order.
    pub(crate) skip: u64,
    /// Last number that is put out.
    pub(crate) bound: u64,
    /// Nothing is ever deleted from the input.
    pub(crate) append_only: bool,
    /// Which column of the partition's key closes, and when.
    pub(crate) closed: Option<(usize, Horizon)>,
}

/// A row in its place.
#[derive(Debug, Default)]
struct Entry {
    weight: i64,
    /// Length of the ORDER BY's part of the key.
    order_len: u32,
    /// What was put out for it: number of the first copy, and number of copies.
    start: u64,
    copies: u64,
}

impl Counted for Entry {
    fn count(&self) -> u64 {
        self.weight.count()
    }
}

/// The rows of a partition, and the number of entries that something was put out for. They are the first ones, but for
/// `skip` and new arrivals.
type Partition = partitions::Partition<Entry, usize>;

/// The operator.
#[derive(Debug)]
pub(crate) struct Ranking {
    spec: RankingSpec,
    schema: SchemaRef,
    partitions: Partitions<Entry, usize>,
}

/// Output rows, as bytes in one buffer.
#[derive(Debug, Default)]
struct Emission {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    numbers: Vec<u64>,
    weights: Vec<i64>,
}

impl Emission {
    fn push(&mut self, row: &[u8], number: u64, weight: i64) {
        self.bytes.extend_from_slice(row);
        self.ends.push(self.bytes.len());
        self.numbers.push(number);
        self.weights.push(weight);
    }
}

impl Ranking {
    pub(crate) fn new(mut spec: RankingSpec, input: &SchemaRef, schema: SchemaRef) -> OpResult<Self> {
        let (keys, closed) = (std::mem::take(&mut spec.partition), spec.closed.take());
        let partitions = Partitions::new(input, keys, &spec.order, spec.n_columns, closed)?;
        Ok(Self { spec, schema, partitions })
    }

    /// Takes the change into the partitions, and notes which of them may put out something else now.
    fn update(&mut self, delta: &Delta) -> OpResult<()> {
        let placed = self.partitions.encode(delta)?;
        let mut place = Vec::new();
        for (i, weight) in delta.weights.values().iter().enumerate() {
            if *weight == 0 {
                continue;
            }
            let slot = self.partitions.slot(&placed, i);
            let order_len = placed.place(i, &mut place)?;
            let (key, partition) = self.partitions.slots.at(slot);
            if self.spec.append_only && is_beyond(&self.spec, partition, &place, placed.order(i)) {
                continue;
            }
            let (is_new, is_gone) = partition.rows.alter(&place, |entry| {
                let is_new = entry.is_none();
                let known = entry.get_or_insert_with(|| Entry { order_len, ..Entry::default() });
                known.weight += weight;
                if known.weight == 0 && known.copies == 0 {
                    *entry = None;
                }
                (is_new, entry.is_none())
            });
            match (is_new, is_gone) {
                (true, true) => {}
                (true, false) => self.partitions.changed.note_new(key, &place),
                (false, true) => self.partitions.changed.note_gone(key, &place),
                (false, false) => self.partitions.changed.note(key, &place),
            }
        }
        Ok(())
    }

    /// Compares what the touched partitions should put out with what they have put out.
    fn refresh(&mut self) -> Emission {
        let mut out = Emission::default();
        for slot in self.partitions.slots.take_touched() {
            let (key, partition) = self.partitions.slots.at(slot);
            let gone = refresh_partition(&self.spec, partition, &mut out);
            if self.partitions.changed.is_tracking() {
                gone.iter().for_each(|row| self.partitions.changed.note_gone(key, row));
            }
            if partition.rows.is_empty() {
                self.partitions.release(slot);
            }
        }
        out
    }

    fn decode(&self, out: &Emission) -> OpResult<Option<Delta>> {
        if out.weights.is_empty() {
            return Ok(None);
        }
        let starts = std::iter::once(0).chain(out.ends.iter().copied());
        let rows: Vec<&[u8]> = starts.zip(&out.ends).map(|(from, to)| &out.bytes[from..*to]).collect();
        let mut columns = self.partitions.arrangement.row_codec.decode_batch(&rows)?.columns().to_vec();
        if let (Number::Column | Number::Unread, Some(field)) = (self.spec.number, self.schema.fields().last()) {
            let numbers: ArrayRef = match self.spec.number {
                Number::Column => Arc::new(UInt64Array::from(out.numbers.clone())),
                _ => arrow::array::new_null_array(field.data_type(), rows.len()),
            };
            columns.push(arrow::compute::cast(&numbers, field.data_type())?);
        }
        let batch = batch_of(&self.schema, columns, rows.len())?;
        Ok(Some(Delta::new(batch, Int64Array::from(out.weights.clone()))))
    }
}

/// Whether a new row of an append-only input comes behind all that can be put out.
fn is_beyond(spec: &RankingSpec, partition: &Partition, key: &[u8], order: &[u8]) -> bool {
    if partition.rows.total() < spec.bound {
        return false;
    }
    let Some((last, entry)) = partition.rows.last() else { return spec.bound == 0 };
    match spec.counting {
        Counting::Rows => key > last,
        Counting::Ranks => order > &last[..entry.order_len as usize],
        // The distinct values of the order are not counted; the row is dropped when the partition is refreshed.
        Counting::DenseRanks => false,
    }
}

/// Puts out the difference and gives the rows that are no longer kept.
fn refresh_partition(spec: &RankingSpec, partition: &mut Partition, out: &mut Emission) -> Vec<Box<[u8]>> {
    let mut unseen = partition.note;
    let mut emitted = 0;
    let mut dead: Vec<Box<[u8]>> = Vec::new();
    let (mut seen, mut rank, mut dense) = (0_u64, 0_u64, 0_u64);
    let mut previous: Option<Vec<u8>> = None;
    partition.rows.visit(|key, entry| {
        let (order, row) = key.split_at(entry.order_len as usize);
        let n = entry.count();
        if spec.counting != Counting::Rows && n > 0 && previous.as_deref() != Some(order) {
            (rank, dense) = (seen + 1, dense + 1);
            previous = Some(order.to_vec());
        }
        let (start, copies) = match spec.counting {
            Counting::Rows => {
                let (from, to) = (seen.max(spec.skip) + 1, (seen + n).min(spec.bound));
                (from, (to + 1).saturating_sub(from))
            }
            Counting::Ranks => (rank, if rank <= spec.bound { n } else { 0 }),
            Counting::DenseRanks => (dense, if dense <= spec.bound { n } else { 0 }),
        };
        let beyond = copies == 0 && n > 0 && (spec.counting != Counting::Rows || seen >= spec.bound);
        if beyond && unseen == 0 {
            return ControlFlow::Break(());
        }
        emit(spec, entry, (start, copies), row, out);
        unseen -= usize::from(entry.copies > 0);
        emitted += usize::from(copies > 0);
        (entry.start, entry.copies) = (start, copies);
        if entry.weight == 0 {
            dead.push(key.into());
        }
        seen += n;
        ControlFlow::Continue(())
    });
    partition.note = emitted;
    for key in &dead {
        partition.rows.alter(key, |entry| *entry = None);
    }
    if spec.append_only {
        let mut seen = 0;
        partition.rows.retain(|key, entry| {
            let keep = entry.copies > 0 || (spec.counting == Counting::Rows && seen < spec.skip.min(spec.bound));
            seen += entry.count();
            if !keep {
                dead.push(key.into());
            }
            keep
        });
    }
    dead
}

fn emit(spec: &RankingSpec, entry: &Entry, (start, copies): (u64, u64), row: &[u8], out: &mut Emission) {
    if spec.number != Number::Column {
        let difference = signed(copies) - signed(entry.copies);
        if difference != 0 {
            out.push(row, 0, difference);
        }
        return;
    }
    if (copies == 0 && entry.copies == 0) || (start, copies) == (entry.start, entry.copies) {
        return;
    }
    for (start, copies, sign) in [(entry.start, entry.copies, -1), (start, copies, 1)] {
        match spec.counting {
            Counting::Rows => (start..start + copies).for_each(|number| out.push(row, number, sign)),
            _ if copies > 0 => out.push(row, start, sign * signed(copies)),
            _ => {}
        }
    }
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

impl Operator for Ranking {
    fn wants(&self, step: &Step<'_>) -> bool {
        self.partitions.wants(step)
    }

    fn step(&mut self, inputs: &[Option<&Delta>], step: &Step<'_>) -> OpResult<Option<Delta>> {
        let mut out = Emission::default();
        if let Some(delta) = inputs[0] {
            self.update(delta)?;
            out = self.refresh();
        }
        self.partitions.forget_closed(step);
        self.decode(&out)
    }

    fn remembers(&self) -> bool {
        !self.partitions.closes()
    }

    fn standing(&mut self) -> OpResult<Option<Delta>> {
        let mut out = Emission::default();
        for partition in self.partitions.slots.values() {
            for (key, entry) in partition.rows.iter() {
                let row = &key[entry.order_len as usize..];
                emit(&self.spec, &Entry::default(), (entry.start, entry.copies), row, &mut out);
            }
        }
        self.decode(&out)
    }

    fn state_rows(&self) -> usize {
        self.partitions.rows()
    }

    fn track(&mut self) {
        self.partitions.changed.track();
    }

    /// One entry per row: partition and place → weight, and where the ORDER BY ends.
    fn checkpoint(&mut self, out: &mut StateWriter<'_>) -> OpResult<()> {
        for at in self.partitions.changed.take() {
            let (partition, row) = unpair(&at)?;
            match self.partitions.slots.get(partition).and_then(|p| p.rows.get(row)) {
                Some(entry) => {
                    let mut value = entry.weight.to_be_bytes().to_vec();
                    value.extend_from_slice(&entry.order_len.to_be_bytes());
                    out.put(&at, &value);
                }
                None => out.delete(&at),
            }
        }
        Ok(())
    }

    /// What was put out follows from the rows, so it is not stored but found again.
    fn restore(&mut self, entries: &mut dyn Iterator<Item = (&[u8], &[u8])>) -> OpResult<()> {
        for (at, value) in entries {
            let (partition, row) = unpair(at)?;
            let (weight, order_len) = value.split_first_chunk::<8>().ok_or_else(malformed)?;
            let order_len = order_len.first_chunk::<4>().ok_or_else(malformed)?;
            let entry = Entry {
                weight: i64::from_be_bytes(*weight),
                order_len: u32::from_be_bytes(*order_len),
                ..Entry::default()
            };
            let slot = self.partitions.restore(partition, row, entry);
            self.partitions.slots.touch(slot);
        }
        self.refresh();
        self.partitions.restored()
    }
}
