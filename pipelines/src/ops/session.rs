//! SESSION windows: rows of a partition whose times lie no further apart than the gap are in one window.
//!
//! Each partition keeps its rows ordered by time. A change touches the sessions around its time only: an insert may
//! join two, a delete may split one. Rows whose window stays as it was are not put out again.
//!
//! A session that ends before the horizon can neither grow nor be joined, so its rows go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, TimestampMicrosecondArray};
use arrow::datatypes::SchemaRef;
use model::Delta;

use super::interval::value_of;
use super::keyed::{Changed, malformed, unpair};
use super::{Operator, Step};
use crate::error::OpResult;
use crate::rows::{Map, RowBytes, RowCodec, ZSet, add_weight, batch_of};
use crate::state::StateWriter;
use crate::watermark::{Horizon, at, instants};

/// Start and end of a session, microseconds.
type Edges = (i64, i64);

/// The rows of one partition by time.
type Times = BTreeMap<i64, ZSet>;

/// What a session operator is made of.
#[derive(Debug)]
pub(crate) struct SessionSpec {
    /// Columns of the input by which it is partitioned.
    pub(crate) partition: Vec<usize>,
    /// The time column of the input.
    pub(crate) time: usize,
    /// Longest distance within a session, microseconds.
    pub(crate) gap_us: i64,
    /// Which edge of the session follows the columns of the input, in order.
    pub(crate) edges: Vec<Edge>,
    /// When the times of rows are closed.
    pub(crate) horizon: Option<Horizon>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edge {
    Start,
    End,
}

/// The operator.
#[derive(Debug)]
pub(crate) struct Session {
    spec: SessionSpec,
    keys: Option<RowCodec>,
    rows: RowCodec,
    partitions: Map<RowBytes, Times>,
    /// Partitions by a time at which one of their sessions may close.
    closes: BTreeMap<i64, BTreeSet<RowBytes>>,
    schema: SchemaRef,
    changed: Changed,
}

/// Rows put out: the row, its session, its weight.
#[derive(Default)]
struct Out {
    rows: Vec<RowBytes>,
    edges: Vec<Edges>,
    weights: Vec<i64>,
}

impl Out {
    fn push(&mut self, row: &[u8], edges: Edges, weight: i64) {
        self.rows.push(row.into());
        self.edges.push(edges);
        self.weights.push(weight);
    }
}

impl Session {
    /// `schema` is the output's: the columns of `input`, then the edges.
    pub(crate) fn new(spec: SessionSpec, input: &SchemaRef, schema: SchemaRef) -> OpResult<Self> {
        let keys = match spec.partition.is_empty() {
            true => None,
            false => Some(RowCodec::of_columns(input, &spec.partition)?),
        };
        Ok(Self {
            keys,
            rows: RowCodec::new(Arc::clone(input))?,
            partitions: Map::default(),
            closes: BTreeMap::new(),
            schema,
            changed: Changed::default(),
            spec,
        })
    }

    /// The changes of the step by partition and time.
    fn by_partition(&self, delta: &Delta) -> OpResult<BTreeMap<RowBytes, Times>> {
        let times = instants(delta.rows.column(self.spec.time))?;
        let rows = self.rows.encode_batch(&delta.rows)?;
        let keys = match &self.keys {
            None => None,
            Some(codec) => {
                let columns: Vec<ArrayRef> =
                    self.spec.partition.iter().map(|c| Arc::clone(delta.rows.column(*c))).collect();
                Some(codec.encode(&columns)?)
            }
        };
        let mut all: BTreeMap<RowBytes, Times> = BTreeMap::new();
        for (i, row) in rows.iter().enumerate() {
            // A row without time is in no session.
            let Some(time) = at(&times, i) else { continue };
            let key: &[u8] = keys.as_ref().map_or(&[], |k| k.row(i).data());
            let times = match all.get_mut(key) {
                Some(times) => times,
                None => all.entry(key.into()).or_default(),
            };
            add_weight(times.entry(time).or_default(), row.data(), delta.weights.value(i));
        }
        Ok(all)
    }

    fn change_partition(&mut self, key: RowBytes, changes: Times, out: &mut Out) {
        let gap = self.spec.gap_us;
        let times = self.partitions.entry(key.clone()).or_default();
        // With the places of the new times in it, the stretches without a gap are those that can change.
        for time in changes.keys() {
            times.entry(*time).or_default();
        }
        let mut done = i64::MIN;
        let mut stretches = Vec::new();
        for time in changes.keys() {
            if stretches.is_empty() || *time > done {
                let stretch = stretch(times, *time, gap);
                done = stretch.1;
                stretches.push(stretch);
            }
        }
        let mut old: BTreeMap<i64, (Edges, ZSet)> = BTreeMap::new();
        for (first, last) in &stretches {
            for (time, edges) in sessions(times, *first, *last, gap) {
                if changes.contains_key(&time) {
                    old.insert(time, (edges, times[&time].clone()));
                } else {
                    old.insert(time, (edges, ZSet::default()));
                }
            }
        }
        for (time, rows) in changes {
            let known = times.entry(time).or_default();
            for (row, weight) in rows {
                add_weight(known, &row, weight);
                self.changed.note(&key, &entry(time, &row));
            }
            if known.is_empty() {
                times.remove(&time);
            }
        }
        let mut new: BTreeMap<i64, Edges> = BTreeMap::new();
        for (first, last) in &stretches {
            new.extend(sessions(times, *first, *last, gap));
        }
        difference(times, &old, &new, out);
        let ends: BTreeSet<i64> = new.values().map(|(_, end)| *end).collect();
        if times.is_empty() {
            self.partitions.remove(&key);
        } else if self.spec.horizon.is_some() {
            for end in ends {
                self.closes.entry(end).or_default().insert(key.clone());
            }
        }
    }

    /// Drops the sessions that end before the horizon.
    fn forget_closed(&mut self, step: &Step<'_>) {
        let Some(bound) = self.spec.horizon.as_ref().and_then(|h| h.now(step.watermarks)) else { return };
        let mut n_closed = 0_u64;
        while let Some(first) = self.closes.first_entry() {
            if *first.key() >= bound {
                break;
            }
            let (end, keys) = first.remove_entry();
            for key in keys {
                let Some(times) = self.partitions.get_mut(&key) else { continue };
                let last = end.saturating_sub(self.spec.gap_us);
                // The session may have grown or vanished since; then another entry speaks for it.
                let (first, until) = match times.contains_key(&last) {
                    true => stretch(times, last, self.spec.gap_us),
                    false => continue,
                };
                if until != last {
                    continue;
                }
                let gone: Vec<i64> = times.range(first..=last).map(|(t, _)| *t).collect();
                for time in gone {
                    for row in times.remove(&time).unwrap_or_default().keys() {
                        self.changed.note(&key, &entry(time, row));
                    }
                }
                n_closed += 1;
                if times.is_empty() {
                    self.partitions.remove(&key);
                }
            }
        }
        if n_closed > 0 {
            metrics::counter!("pipelines_closed_keys_total").increment(n_closed);
        }
    }

    fn output(&self, out: &Out) -> OpResult<Option<Delta>> {
        if out.rows.is_empty() {
            return Ok(None);
        }
        let rows: Vec<&[u8]> = out.rows.iter().map(|r| &**r).collect();
        let mut columns = self.rows.decode_batch(&rows)?.columns().to_vec();
        let n_input = columns.len();
        for (i, edge) in self.spec.edges.iter().enumerate() {
            let values = out.edges.iter().map(|(start, end)| if *edge == Edge::Start { *start } else { *end });
            let array: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(values));
            columns.push(arrow::compute::cast(&array, self.schema.field(n_input + i).data_type())?);
        }
        let batch = batch_of(&self.schema, columns, rows.len())?;
        Ok(Some(Delta::new(batch, Int64Array::from(out.weights.clone()))))
    }
}

/// The first and last time of the stretch without a gap around a time that is there.
fn stretch(times: &Times, time: i64, gap: i64) -> (i64, i64) {
    let (mut first, mut last) = (time, time);
    for (earlier, _) in times.range(..time).rev() {
        if first.saturating_sub(*earlier) > gap {
            break;
        }
        first = *earlier;
    }
    for (later, _) in times.range(time..).skip(1) {
        if later.saturating_sub(last) > gap {
            break;
        }
        last = *later;
    }
    (first, last)
}

/// The session of each time that has rows.
fn sessions(times: &Times, first: i64, last: i64, gap: i64) -> Vec<(i64, Edges)> {
    let mut all: Vec<(i64, Edges)> = Vec::new();
    let mut from = 0;
    for (time, _) in times.range(first..=last).filter(|(_, rows)| !rows.is_empty()) {
        if let Some((previous, _)) = all.last()
            && time.saturating_sub(*previous) > gap
        {
            let end = previous.saturating_add(gap);
            all[from..].iter_mut().for_each(|(_, edges)| edges.1 = end);
            from = all.len();
        }
        let start = all.get(from).map_or(*time, |(_, edges)| edges.0);
        all.push((*time, (start, *time)));
    }
    if let Some((last, _)) = all.last() {
        let end = last.saturating_add(gap);
        all[from..].iter_mut().for_each(|(_, edges)| edges.1 = end);
    }
    all
}

/// Puts out what left and what came. The rows of an old time are given only if they may have changed.
fn difference(times: &Times, old: &BTreeMap<i64, (Edges, ZSet)>, new: &BTreeMap<i64, Edges>, out: &mut Out) {
    let none = ZSet::default();
    for time in old.keys().chain(new.keys().filter(|t| !old.contains_key(t))) {
        let now = times.get(time).unwrap_or(&none);
        match (old.get(time), new.get(time)) {
            (Some((before, rows)), Some(after)) if before == after => {
                if rows.is_empty() {
                    continue;
                }
                for (row, weight) in now {
                    let more = weight - rows.get(row).copied().unwrap_or(0);
                    if more != 0 {
                        out.push(row, *after, more);
                    }
                }
                for (row, weight) in rows.iter().filter(|(row, _)| !now.contains_key(&**row)) {
                    out.push(row, *before, -weight);
                }
            }
            (before, after) => {
                if let Some((edges, rows)) = before {
                    let rows = if rows.is_empty() { now } else { rows };
                    rows.iter().for_each(|(row, weight)| out.push(row, *edges, -weight));
                }
                if let Some(edges) = after {
                    now.iter().for_each(|(row, weight)| out.push(row, *edges, *weight));
                }
            }
        }
    }
}

fn entry(time: i64, row: &[u8]) -> Vec<u8> {
    let mut bytes = time.to_be_bytes().to_vec();
    bytes.extend_from_slice(row);
    bytes
}

impl Operator for Session {
    fn wants(&self, step: &Step<'_>) -> bool {
        self.spec.horizon.as_ref().is_some_and(|h| h.moves(step.watermarks)) && !self.closes.is_empty()
    }

    fn step(&mut self, inputs: &[Option<&Delta>], step: &Step<'_>) -> OpResult<Option<Delta>> {
        let mut out = Out::default();
        if let Some(delta) = inputs[0] {
            for (key, changes) in self.by_partition(delta)? {
                self.change_partition(key, changes, &mut out);
            }
        }
        self.forget_closed(step);
        self.output(&out)
    }

    fn state_rows(&self) -> usize {
        self.partitions.values().flat_map(BTreeMap::values).map(ZSet::len).sum()
    }

    fn track(&mut self) {
        self.changed.track();
    }

    fn checkpoint(&mut self, out: &mut StateWriter<'_>) -> OpResult<()> {
        for noted in self.changed.take() {
            let (key, below) = unpair(&noted)?;
            let (time, row) = below.split_first_chunk::<8>().ok_or_else(malformed)?;
            let times = self.partitions.get(key);
            match times.and_then(|t| t.get(&i64::from_be_bytes(*time))).and_then(|rows| rows.get(row)) {
                Some(weight) => out.put(&noted, &weight.to_be_bytes()),
                None => out.delete(&noted),
            }
        }
        Ok(())
    }

    fn restore(&mut self, entries: &mut dyn Iterator<Item = (&[u8], &[u8])>) -> OpResult<()> {
        for (stored, weight) in entries {
            let (key, below) = unpair(stored)?;
            let (time, row) = below.split_first_chunk::<8>().ok_or_else(malformed)?;
            let weight = i64::from_be_bytes(weight.try_into().map_err(|_| malformed())?);
            let times = value_of(&mut self.partitions, key);
            times.entry(i64::from_be_bytes(*time)).or_default().insert(row.into(), weight);
        }
        if self.spec.horizon.is_some() {
            for (key, times) in &self.partitions {
                let (Some((first, _)), Some((last, _))) = (times.first_key_value(), times.last_key_value()) else {
                    continue;
                };
                for (_, (_, end)) in sessions(times, *first, *last, self.spec.gap_us) {
                    self.closes.entry(end).or_default().insert(key.clone());
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, RecordBatch};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit, TimestampMicrosecondType};
    use model::TableWatermark;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::sql::now::BusinessTime;
    use crate::state::{Packed, unpack};
    use crate::watermark::Watermarks;

    const GAP: i64 = 10;

    /// Key, time, number.
    type Row = (i64, i64, i64);

    fn schema(n_edges: usize) -> SchemaRef {
        let time = DataType::Timestamp(TimeUnit::Microsecond, None);
        let mut fields = vec![
            Field::new("k", DataType::Int64, true),
            Field::new("ts", time.clone(), true),
            Field::new("n", DataType::Int64, true),
        ];
        fields.extend(["window_start", "window_end"][..n_edges].iter().map(|n| Field::new(*n, time.clone(), true)));
        Arc::new(Schema::new(fields))
    }

    fn operator(closes: bool) -> Session {
        let horizon = closes.then(|| Horizon { sources: Arc::from([Arc::from("t")]), offset_us: GAP });
        let edges = vec![Edge::Start, Edge::End];
        let spec = SessionSpec { partition: vec![0], time: 1, gap_us: GAP, edges, horizon };
        Session::new(spec, &schema(0), schema(2)).unwrap()
    }

    fn delta(changes: &[(Row, i64)]) -> Delta {
        let column = |f: fn(&Row) -> i64| changes.iter().map(move |(row, _)| f(row));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(column(|r| r.0))),
            Arc::new(TimestampMicrosecondArray::from_iter_values(column(|r| r.1))),
            Arc::new(Int64Array::from_iter_values(column(|r| r.2))),
        ];
        let weights = Int64Array::from_iter_values(changes.iter().map(|(_, w)| *w));
        Delta::new(RecordBatch::try_new(schema(0), columns).unwrap(), weights)
    }

    fn add(sums: &mut BTreeMap<(Row, Edges), i64>, out: Option<Delta>) {
        if let Some(delta) = out {
            let int = |c: usize, i: usize| delta.rows.column(c).as_primitive::<Int64Type>().value(i);
            let us = |c: usize, i: usize| delta.rows.column(c).as_primitive::<TimestampMicrosecondType>().value(i);
            for i in 0..delta.len() {
                let row = ((int(0, i), us(1, i), int(2, i)), (us(3, i), us(4, i)));
                *sums.entry(row).or_default() += delta.weights.value(i);
            }
        }
        sums.retain(|_, weight| *weight != 0);
    }

    fn expected(rows: &BTreeMap<Row, i64>) -> BTreeMap<(Row, Edges), i64> {
        let mut all = BTreeMap::new();
        for key in 0..3 {
            let mut open: Vec<(Row, i64)> = Vec::new();
            let mut close = |open: &mut Vec<(Row, i64)>| {
                let edges = (open.first().map_or(0, |r| r.0.1), open.last().map_or(0, |r| r.0.1) + GAP);
                all.extend(open.drain(..).map(|(row, weight)| ((row, edges), weight)));
            };
            for (row, weight) in rows.iter().filter(|(row, _)| row.0 == key) {
                if open.last().is_some_and(|last| row.1 - last.0.1 > GAP) {
                    close(&mut open);
                }
                open.push((*row, *weight));
            }
            close(&mut open);
        }
        all
    }

    fn step(op: &mut Session, changes: &[(Row, i64)], watermarks: &Watermarks) -> Option<Delta> {
        let time = BusinessTime::default();
        let step = Step { first: false, tick: None, flush: false, time: &time, watermarks };
        op.step(&[Some(&delta(changes))], &step).unwrap()
    }

    #[test]
    fn sessions_follow_random_changes_and_restarts() {
        for seed in 0..60 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut op = operator(false);
            op.track();
            let mut stored: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
            let (mut rows, mut sums) = (BTreeMap::new(), BTreeMap::new());
            for round in 0..12 {
                let mut changes = Vec::new();
                for _ in 0..rng.random_range(0..10) {
                    let row = (rng.random_range(0..3), rng.random_range(-60..60), rng.random_range(0..2));
                    let known = rows.entry(row).or_insert(0);
                    let weight = if *known > 0 && rng.random_bool(0.6) { -1 } else { 1 };
                    *known += weight;
                    changes.push((row, weight));
                }
                rows.retain(|_, weight| *weight != 0);
                add(&mut sums, step(&mut op, &changes, &Watermarks::default()));
                assert_eq!(sums, expected(&rows), "seed {seed}, round {round}");
                if rng.random_bool(0.3) {
                    let mut written = Packed::default();
                    op.checkpoint(&mut StateWriter(&mut written)).unwrap();
                    for (key, value) in written.into_segments().iter().flat_map(|s| unpack(s).unwrap()) {
                        match value {
                            Some(value) => stored.insert(key.to_vec(), value.to_vec()),
                            None => stored.remove(&key[..]),
                        };
                    }
                    assert_eq!(stored.len(), op.state_rows(), "seed {seed}");
                    op = operator(false);
                    op.restore(&mut stored.iter().map(|(k, v)| (&k[..], &v[..]))).unwrap();
                    op.track();
                }
            }
        }
    }

    #[test]
    fn closed_sessions_are_forgotten_and_the_rest_goes_on() {
        let mut op = operator(true);
        let mut watermarks = Watermarks::default();
        let (mut rows, mut sums) = (BTreeMap::new(), BTreeMap::new());
        let mut rng = StdRng::seed_from_u64(7);
        for now in 0..400 {
            // No row is later than the gap behind the watermark.
            let changes: Vec<(Row, i64)> = (0..rng.random_range(0..3))
                .map(|_| ((rng.random_range(0..3), now - rng.random_range(0..GAP), rng.random_range(0..2)), 1))
                .collect();
            changes.iter().for_each(|(row, weight)| *rows.entry(*row).or_insert(0) += weight);
            let watermark_us = Some(now);
            watermarks.advance(&[TableWatermark { table: Arc::from("t"), watermark_us, partitions: Vec::new() }]);
            add(&mut sums, step(&mut op, &changes, &watermarks));
        }
        assert_eq!(sums, expected(&rows));
        watermarks.advance(&[TableWatermark {
            table: Arc::from("t"),
            watermark_us: Some(1_000),
            partitions: Vec::new(),
        }]);
        step(&mut op, &[], &watermarks);
        assert_eq!(op.state_rows(), 0);
    }
}
