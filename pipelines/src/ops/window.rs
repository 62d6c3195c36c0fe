//! OVER windows: every row of a partition gets the values of window functions over the rows around it.
//!
//! The rows of a partition are kept in order, each with the values that were put out for it. A step takes its change
//! in, evaluates the touched partitions anew with DataFusion's window expressions, and puts out the rows whose values
//! differ. Where all functions look only a stated number of rows back and forth (LAG, LEAD, ROWS frames with two ends),
//! only the neighbourhood of the change is evaluated, so the cost does not grow with the partition; otherwise it is
//! the size of the partition.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use datafusion::physical_expr::window::WindowExpr;
use model::Delta;

use super::keyed::{malformed, unpair};
use super::partitions::Partitions;
use super::sorted::Counted;
use super::{Operator, Step};
use crate::error::OpResult;
use crate::rows::{RowBytes, RowCodec, batch_of};
use crate::state::StateWriter;
use crate::watermark::Horizon;

/// Bytes of the number that tells copies of one row apart.
const COPY_LEN: usize = 4;

/// How many rows a result can depend on before and after its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Reach {
    pub(crate) back: u64,
    pub(crate) ahead: u64,
}

/// What to compute. Columns are indexes into the input.
#[derive(Debug, Clone)]
pub(crate) struct WindowSpec {
    pub(crate) partition: Vec<usize>,
    pub(crate) order: Vec<(usize, SortOptions)>,
    /// The input's first columns are passed on; those behind are read by the functions only.
    pub(crate) n_columns: usize,
    /// Functions, all over the partition and order above.
    pub(crate) functions: Vec<Arc<dyn WindowExpr>>,
    /// `None` if some function can depend on the whole partition.
    pub(crate) reach: Option<Reach>,
    /// Which column of the partition's key closes, and when.
    pub(crate) closed: Option<(usize, Horizon)>,
}

/// One copy of a row.
#[derive(Debug, Default)]
struct Entry {
    /// Length of the ORDER BY's part of the key.
    order_len: u32,
    /// Number of copies of the row; kept at the first of them.
    copies: u32,
    /// The function values that were put out, none yet for a new row.
    values: Option<RowBytes>,
}

impl Counted for Entry {
    fn count(&self) -> u64 {
        1
    }
}

/// Smallest and largest place that the step touched.
type Touched = Option<(RowBytes, RowBytes)>;

fn touch(touched: &mut Touched, key: &[u8]) {
    match touched {
        None => *touched = Some((key.into(), key.into())),
        Some((low, _)) if key < &**low => *low = key.into(),
        Some((_, high)) if key > &**high => *high = key.into(),
        Some(_) => {}
    }
}

/// Output rows as bytes: input row, function values, weight.
#[derive(Debug, Default)]
struct Emission {
    rows: Vec<RowBytes>,
    values: Vec<RowBytes>,
    weights: Vec<i64>,
}

impl Emission {
    fn push(&mut self, row: &[u8], values: RowBytes, weight: i64) {
        self.rows.push(row.into());
        self.values.push(values);
        self.weights.push(weight);
    }
}

/// The operator.
#[derive(Debug)]
pub(crate) struct Window {
    spec: WindowSpec,
    schema: SchemaRef,
    value_codec: RowCodec,
    partitions: Partitions<Entry, Touched>,
}

impl Window {
    /// `schema`: the input's first columns, then one column per function.
    pub(crate) fn new(mut spec: WindowSpec, input: &SchemaRef, schema: SchemaRef) -> OpResult<Self> {
        let values: Vec<usize> = (spec.n_columns..schema.fields().len()).collect();
        let (keys, closed) = (std::mem::take(&mut spec.partition), spec.closed.take());
        let partitions = Partitions::new(input, keys, &spec.order, input.fields().len(), closed)?;
        Ok(Self { value_codec: RowCodec::of_columns(&schema, &values)?, partitions, schema, spec })
    }

    /// Takes the change in: first what comes, then what goes, since a row may do both within a step.
    fn update(&mut self, delta: &Delta, out: &mut Emission) -> OpResult<()> {
        let placed = self.partitions.encode(delta)?;
        let mut key = Vec::new();
        let weights = delta.weights.values();
        let (coming, going): (Vec<usize>, Vec<usize>) =
            (0..delta.len()).filter(|i| weights[*i] != 0).partition(|i| weights[*i] > 0);
        for i in coming.into_iter().chain(going) {
            let slot = self.partitions.slot(&placed, i);
            let order_len = placed.place(i, &mut key)?;
            for _ in 0..weights[i].unsigned_abs() {
                match weights[i] > 0 {
                    true => self.insert(slot, &mut key, order_len),
                    false => self.remove(slot, &mut key, out),
                }
            }
        }
        Ok(())
    }

    fn insert(&mut self, slot: u32, key: &mut Vec<u8>, order_len: u32) {
        let (at, partition) = self.partitions.slots.at(slot);
        let copy = with_copy(key, 0, |first| {
            self.partitions.changed.note(at, first);
            partition.rows.alter(first, |entry| {
                let entry = entry.get_or_insert_with(|| Entry { order_len, ..Entry::default() });
                entry.copies += 1;
                entry.copies - 1
            })
        });
        with_copy(key, copy, |key| {
            self.partitions.changed.note(at, key);
            partition.rows.alter(key, |entry| {
                entry.get_or_insert_with(|| Entry { order_len, ..Entry::default() });
            });
            touch(&mut partition.note, key);
        });
    }

    fn remove(&mut self, slot: u32, key: &mut Vec<u8>, out: &mut Emission) {
        let (at, partition) = self.partitions.slots.at(slot);
        // A delete of a row that is not there is no change.
        let copies = with_copy(key, 0, |first| partition.rows.get(first).map_or(0, |e| e.copies));
        let Some(last) = copies.checked_sub(1) else { return };
        let removed = with_copy(key, last, |key| {
            self.partitions.changed.note(at, key);
            touch(&mut partition.note, key);
            partition.rows.alter(key, Option::take)
        });
        if last > 0 {
            with_copy(key, 0, |first| {
                self.partitions.changed.note(at, first);
                partition.rows.alter(first, |entry| entry.iter_mut().for_each(|e| e.copies = last));
            });
        }
        if let Some(Entry { order_len, values: Some(values), .. }) = removed {
            out.push(&key[order_len as usize..], values, -1);
        }
    }

    /// Evaluates what the step may have changed in the touched partitions.
    fn refresh(&mut self, out: &mut Emission) -> OpResult<()> {
        for slot in self.partitions.slots.take_touched() {
            let (_, partition) = self.partitions.slots.at(slot);
            if partition.rows.is_empty() {
                self.partitions.release(slot);
                continue;
            }
            let Some((low, high)) = partition.note.take() else { continue };
            let total = partition.rows.total();
            // Rows whose values may differ, then the rows that these read.
            let (from, to, read_from, read_to) = match self.spec.reach {
                None => (0, total, 0, total),
                Some(Reach { back, ahead }) => {
                    let from = partition.rows.total_before(&low).saturating_sub(ahead);
                    let to = (partition.rows.total_before(&high) + 1).saturating_add(back).min(total);
                    (from, to, from.saturating_sub(back), to.saturating_add(ahead).min(total))
                }
            };
            if from < to {
                self.evaluate(slot, (from, to), (read_from, read_to), out)?;
            }
        }
        Ok(())
    }

    /// Computes the values of rows `from..to` of a partition over rows `read_from..read_to`.
    fn evaluate(
        &mut self,
        slot: u32,
        (from, to): (u64, u64),
        (read_from, read_to): (u64, u64),
        out: &mut Emission,
    ) -> OpResult<()> {
        let (at, partition) = self.partitions.slots.at(slot);
        let n_rows = usize::try_from(read_to - read_from).unwrap_or(usize::MAX);
        let rows: Vec<&[u8]> =
            partition.rows.iter_from(read_from).take(n_rows).map(|(key, entry)| row_of(key, entry)).collect();
        let batch = self.partitions.arrangement.row_codec.decode_batch(&rows)?;
        let columns = self.spec.functions.iter().zip(self.value_codec.schema().fields()).map(|(function, field)| {
            let values = function.evaluate(&batch)?;
            match values.data_type() == field.data_type() {
                true => Ok(values),
                false => Ok(arrow::compute::cast(&values, field.data_type())?),
            }
        });
        let columns: Vec<ArrayRef> = columns.collect::<OpResult<_>>()?;
        let new = self.value_codec.encode(&columns)?;
        let skip = usize::try_from(from - read_from).unwrap_or(usize::MAX);
        let n_new = usize::try_from(to - from).unwrap_or(usize::MAX);
        let mut differing: Vec<(RowBytes, RowBytes)> = Vec::new();
        let entries = partition.rows.iter_from(from).take(n_new);
        for (i, (key, entry)) in entries.enumerate() {
            let values = new.row(skip + i);
            if entry.values.as_deref() != Some(values.data()) {
                differing.push((key.into(), values.data().into()));
            }
        }
        for (key, values) in differing {
            self.partitions.changed.note(at, &key);
            let (old, order_len) = partition.rows.alter(&key, |entry| match entry {
                Some(entry) => (entry.values.replace(values.clone()), entry.order_len),
                None => (None, 0),
            });
            let row = &key[order_len as usize..key.len() - COPY_LEN];
            if let Some(old) = old {
                out.push(row, old, -1);
            }
            out.push(row, values, 1);
        }
        Ok(())
    }

    fn decode(&self, out: &Emission) -> OpResult<Option<Delta>> {
        if out.weights.is_empty() {
            return Ok(None);
        }
        let rows: Vec<&[u8]> = out.rows.iter().map(|r| &**r).collect();
        let mut columns = self.partitions.arrangement.row_codec.decode_batch(&rows)?.columns().to_vec();
        columns.truncate(self.spec.n_columns);
        columns.extend(self.value_codec.decode(out.values.iter().map(|v| &**v))?);
        let batch = batch_of(&self.schema, columns, rows.len())?;
        Ok(Some(Delta::new(batch, Int64Array::from(out.weights.clone()))))
    }
}

/// Lets `f` see a key with the number of a copy behind it.
fn with_copy<R>(key: &mut Vec<u8>, copy: u32, f: impl FnOnce(&[u8]) -> R) -> R {
    let length = key.len();
    key.extend_from_slice(&copy.to_be_bytes());
    let result = f(key);
    key.truncate(length);
    result
}

fn row_of<'a>(key: &'a [u8], entry: &Entry) -> &'a [u8] {
    &key[entry.order_len as usize..key.len() - COPY_LEN]
}

impl Operator for Window {
    fn wants(&self, step: &Step<'_>) -> bool {
        self.partitions.wants(step)
    }

    fn step(&mut self, inputs: &[Option<&Delta>], step: &Step<'_>) -> OpResult<Option<Delta>> {
        let mut out = Emission::default();
        if let Some(delta) = inputs[0] {
            self.update(delta, &mut out)?;
            self.refresh(&mut out)?;
        }
        self.partitions.forget_closed(step);
        self.decode(&out)
    }

    fn state_rows(&self) -> usize {
        self.partitions.rows()
    }

    fn track(&mut self) {
        self.partitions.changed.track();
    }

    /// One entry per copy of a row: partition and place → where the ORDER BY ends, copies, the values put out.
    fn checkpoint(&mut self, out: &mut StateWriter<'_>) -> OpResult<()> {
        for at in self.partitions.changed.take() {
            let (partition, row) = unpair(&at)?;
            match self.partitions.slots.get(partition).and_then(|p| p.rows.get(row)) {
                Some(entry) => {
                    let mut value = entry.order_len.to_be_bytes().to_vec();
                    value.extend_from_slice(&entry.copies.to_be_bytes());
                    value.extend_from_slice(entry.values.as_deref().unwrap_or_default());
                    out.put(&at, &value);
                }
                None => out.delete(&at),
            }
        }
        Ok(())
    }

    fn restore(&mut self, entries: &mut dyn Iterator<Item = (&[u8], &[u8])>) -> OpResult<()> {
        for (at, value) in entries {
            let (partition, row) = unpair(at)?;
            let (order_len, value) = value.split_first_chunk::<4>().ok_or_else(malformed)?;
            let (copies, values) = value.split_first_chunk::<4>().ok_or_else(malformed)?;
            let entry = Entry {
                order_len: u32::from_be_bytes(*order_len),
                copies: u32::from_be_bytes(*copies),
                values: Some(values.into()),
            };
            self.partitions.restore(partition, row, entry);
        }
        self.partitions.restored()
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::sql::now::BusinessTime;
    use crate::watermark::Watermarks;

    #[test]
    fn a_partition_without_rows_is_forgotten() {
        let fields = ["k", "v"].map(|name| Field::new(name, DataType::Int64, true));
        let schema: SchemaRef = Arc::new(Schema::new(fields.to_vec()));
        let spec = WindowSpec {
            partition: vec![0],
            order: vec![(1, SortOptions::default())],
            n_columns: 2,
            functions: Vec::new(),
            reach: None,
            closed: None,
        };
        let mut window = Window::new(spec, &schema, Arc::clone(&schema)).expect("a window");
        let (time, watermarks) = (BusinessTime::default(), Watermarks::default());
        let step = Step { first: false, tick: None, flush: false, time: &time, watermarks: &watermarks };
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let rows = batch_of(&schema, vec![Arc::clone(&column), column], 2).expect("two columns");
        // Deletes of rows that are not there.
        let delta = Delta::new(rows, Int64Array::from(vec![-1, -1]));
        assert!(window.step(&[Some(&delta)], &step).expect("a step").is_none());
        assert_eq!(window.partitions.slots.len(), 0);
    }
}
