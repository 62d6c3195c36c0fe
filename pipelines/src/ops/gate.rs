//! The gate in front of operators that close: rows that come too late do not pass, and go to the late relation.
//!
//! [`Gate`] and [`LateRows`] look at the same rows with the same horizon, that of the step's begin, so each row goes
//! exactly one of the two ways.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use model::Delta;

use super::keyed::malformed;
use super::{Expr, Operator, Step, concat, evaluate, evaluate_mask};
use crate::error::OpResult;
use crate::rows::{RowBytes, RowCodec, batch_of};
use crate::state::StateWriter;
use crate::watermark::{Horizon, Watermarks, at, instants};

/// Which rows are too late.
#[derive(Debug, Clone)]
pub(crate) struct Lateness {
    /// Conditions under which a row gets to the gate at all.
    pub(crate) predicates: Vec<Expr>,
    /// Gives the closing value of a row.
    pub(crate) value: Expr,
    pub(crate) horizon: Horizon,
    /// Whether the gate has found a late row when it last ran; it runs before the late relation.
    pub(crate) any: Arc<AtomicBool>,
}

impl Lateness {
    /// The rows that are late; `None` if none is.
    fn late(&self, delta: &Delta, watermarks: &Watermarks) -> OpResult<Option<BooleanArray>> {
        let before = self.horizon.before(watermarks);
        let missed = delta.missed.as_ref().filter(|_| self.horizon.sources.len() == 1);
        if before.is_none() && missed.is_none() {
            return Ok(None);
        }
        let values = instants(&evaluate(&self.value, &delta.rows)?)?;
        let mut late: BooleanArray = match missed {
            None if arrow::compute::min(&values) >= before => return Ok(None),
            None => values.iter().map(|v| Some(v.is_some() && v < before)).collect(),
            Some(missed) => {
                let bound = |row| before.max(at(missed, row).map(|us| us.saturating_sub(self.horizon.offset_us)));
                (0..delta.len()).map(|row| Some(at(&values, row).is_some_and(|v| Some(v) < bound(row)))).collect()
            }
        };
        for predicate in &self.predicates {
            late = arrow::compute::and(&late, &evaluate_mask(predicate, &delta.rows)?)?;
        }
        Ok((late.true_count() > 0).then_some(late))
    }

    /// The same row by row; one on which an expression fails never got to the gate.
    fn late_each(&self, delta: &Delta, watermarks: &Watermarks) -> BooleanArray {
        let one = |i| Some(matches!(self.late(&delta.slice(i, 1), watermarks), Ok(Some(_))));
        (0..delta.len()).map(one).collect()
    }
}

/// Lets pass what is not late.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) lateness: Lateness,
}

impl Operator for Gate {
    fn step(&mut self, inputs: &[Option<&Delta>], step: &Step<'_>) -> OpResult<Option<Delta>> {
        let Some(delta) = inputs[0] else { return Ok(None) };
        let late = self.lateness.late(delta, step.watermarks)?;
        self.lateness.any.store(late.is_some(), Ordering::Relaxed);
        match late {
            None => Ok(Some(delta.clone())),
            Some(late) => Ok(Some(delta.filter(&arrow::compute::not(&late)?)?)),
        }
    }

    fn forgets(&self) -> bool {
        true
    }
}

/// A late relation holds so many rows; the oldest leave when more come. They stay counted.
pub(crate) const LATE_ROWS_MAX: usize = 100_000;

/// Names of the columns that a late row has beside its own.
pub(crate) const REASON: &str = "reason";
pub(crate) const WATERMARK: &str = "watermark";
pub(crate) const NUMBER: &str = "late_no";

/// The rows that did not pass the gates of a view.
#[derive(Debug)]
pub(crate) struct LateRows {
    view: String,
    gates: Vec<(Lateness, Vec<usize>)>,
    schema: SchemaRef,
    codec: RowCodec,
    rows: VecDeque<RowBytes>,
    /// Number of the row after the newest.
    next_no: u64,
    /// Rows numbered below this are stored already; `None` while nothing is stored.
    stored: Option<Stored>,
}

#[derive(Debug, Clone, Copy)]
struct Stored {
    from: u64,
    to: u64,
}

impl LateRows {
    /// `gates`: the gates with the schema of the rows before them.
    pub(crate) fn new(view: &str, gates: Vec<(Lateness, SchemaRef)>) -> OpResult<Self> {
        let mut fields: Vec<Field> = Vec::new();
        let mut places = Vec::new();
        for (lateness, schema) in gates {
            let mut columns = Vec::new();
            for field in schema.fields() {
                let known = fields.iter().position(|f| f.name() == field.name() && f.data_type() == field.data_type());
                columns.push(known.unwrap_or_else(|| {
                    fields.push(Field::new(free_name(&fields, field.name()), field.data_type().clone(), true));
                    fields.len() - 1
                }));
            }
            places.push((lateness, columns));
        }
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        for (name, data_type) in [(REASON, DataType::Utf8), (WATERMARK, utc), (NUMBER, DataType::Int64)] {
            fields.push(Field::new(free_name(&fields, name), data_type, true));
        }
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let codec = RowCodec::new(Arc::clone(&schema))?;
        let rows = VecDeque::new();
        Ok(Self { view: view.to_owned(), gates: places, schema, codec, rows, next_no: 0, stored: None })
    }

    /// The columns of the late rows, then the reason, the watermark that they missed, and a running number.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The late rows of one gate, complete.
    fn complete(&mut self, gate: usize, late: &Delta, watermarks: &Watermarks) -> OpResult<RecordBatch> {
        let (lateness, columns) = &self.gates[gate];
        let n_rows = late.len();
        let n_own = self.schema.fields().len() - 3;
        let mut arrays: Vec<ArrayRef> = (0..n_own)
            .map(|i| match columns.iter().position(|c| *c == i) {
                Some(from) => Arc::clone(late.rows.column(from)),
                None => arrow::array::new_null_array(self.schema.field(i).data_type(), n_rows),
            })
            .collect();
        let reasons = late
            .weights
            .values()
            .iter()
            .map(|w| if *w > 0 { "behind the watermark" } else { "taken back behind the watermark" });
        arrays.push(Arc::new(StringArray::from_iter_values(reasons)));
        let before = lateness.horizon.watermark_before(watermarks);
        let missed = late.missed.as_ref().filter(|_| lateness.horizon.sources.len() == 1);
        let missed = (0..n_rows).map(|row| before.max(missed.and_then(|missed| at(missed, row))));
        arrays.push(Arc::new(missed.collect::<TimestampMicrosecondArray>().with_timezone("UTC")));
        let first = i64::try_from(self.next_no).unwrap_or(i64::MAX);
        arrays.push(Arc::new(Int64Array::from_iter_values((0..n_rows as i64).map(|i| first + i))));
        self.next_no += n_rows as u64;
        batch_of(&self.schema, arrays, n_rows)
    }
}

fn free_name(fields: &[Field], name: &str) -> String {
    let mut free = name.to_owned();
    while fields.iter().any(|f| *f.name() == free) {
        free.push('_');
    }
    free
}

impl Operator for LateRows {
    fn step(&mut self, inputs: &[Option<&Delta>], step: &Step<'_>) -> OpResult<Option<Delta>> {
        let mut out = Vec::new();
        for (gate, delta) in inputs.iter().enumerate() {
            let Some(delta) = delta else { continue };
            let lateness = &self.gates[gate].0;
            if !lateness.any.load(Ordering::Relaxed) {
                continue;
            }
            let late = match lateness.late(delta, step.watermarks) {
                Ok(None) => continue,
                Ok(Some(late)) => late,
                Err(_) => lateness.late_each(delta, step.watermarks),
            };
            let late = delta.filter(&late)?;
            metrics::counter!("pipelines_late_rows_total", "view" => self.view.clone()).increment(late.len() as u64);
            let rows = self.complete(gate, &late, step.watermarks)?;
            self.rows.extend(self.codec.encode_batch(&rows)?.iter().map(|row| RowBytes::from(row.data())));
            out.push(Delta::inserts(rows));
        }
        let n_over = self.rows.len().saturating_sub(LATE_ROWS_MAX);
        if n_over > 0 {
            let gone: Vec<RowBytes> = self.rows.drain(..n_over).collect();
            let rows = self.codec.decode_batch(&gone.iter().map(|r| &**r).collect::<Vec<_>>())?;
            out.push(Delta::new(rows, Int64Array::from(vec![-1; n_over])));
        }
        concat(&out)
    }

    fn state_rows(&self) -> usize {
        self.rows.len()
    }

    fn forgets(&self) -> bool {
        true
    }

    fn track(&mut self) {
        self.stored = Some(Stored { from: 0, to: 0 });
    }

    fn checkpoint(&mut self, out: &mut StateWriter<'_>) -> OpResult<()> {
        let Some(stored) = self.stored else { return Ok(()) };
        let first = self.next_no - self.rows.len() as u64;
        for no in stored.from..first.min(stored.to) {
            out.delete(&no.to_be_bytes());
        }
        for (no, row) in (first..self.next_no).zip(&self.rows) {
            if no >= stored.to {
                out.put(&no.to_be_bytes(), row);
            }
        }
        self.stored = Some(Stored { from: first, to: self.next_no });
        Ok(())
    }

    fn restore(&mut self, entries: &mut dyn Iterator<Item = (&[u8], &[u8])>) -> OpResult<()> {
        let mut all: Vec<(u64, RowBytes)> = Vec::new();
        for (key, row) in entries {
            let no: [u8; 8] = key.try_into().map_err(|_| malformed())?;
            all.push((u64::from_be_bytes(no), row.into()));
        }
        all.sort_unstable_by_key(|(no, _)| *no);
        let next_no = all.last().map_or(0, |(no, _)| no + 1);
        self.stored = self.stored.map(|_| Stored { from: all.first().map_or(0, |(no, _)| *no), to: next_no });
        self.next_no = next_no;
        self.rows = all.into_iter().map(|(_, row)| row).collect();
        Ok(())
    }
}
