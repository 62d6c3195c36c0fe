//! Rows that come and go by time alone, by a timer instead of another look at all rows.
//!
//! `created_at > CURRENT_TIMESTAMP - INTERVAL '7' DAY` holds until an instant that is a function of the row. So each row
//! has an instant from which and one until which it is there, and a tick costs what enters and leaves. Business time
//! may also go backwards, in tests and in what-if questions: then what left comes back.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included};
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use hashbrown::HashSet;
use model::Delta;

use super::keyed::{Changed, malformed, unpair};
use super::{Expr, Operator, Step, evaluate};
use crate::error::OpResult;
use crate::rows::{Map, RowCodec, Set};
use crate::state::StateWriter;
use crate::watermark::{at, instants};

/// An instant that a row has: the value of an expression and something on top.
#[derive(Debug, Clone)]
pub(crate) struct Instant {
    pub(crate) value: Expr,
    pub(crate) plus_us: i64,
}

/// Between which instants a row is there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Times {
    /// It is there from the latest of these on.
    pub(crate) from: Vec<Instant>,
    /// And until before the earliest of these. A row without one of the instants is never there.
    pub(crate) until: Vec<Instant>,
}

/// What to do with a row that has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    /// Remember it: it may come back if time goes backwards.
    Remembered,
    /// Forget it: time going backwards brings nothing back, and a change of it is no change.
    Forgotten,
}

/// A row that is in several collections.
type SharedRow = Arc<[u8]>;

/// From when on and until before when.
type Span = (i64, i64);

/// The operator.
#[derive(Debug)]
pub(crate) struct Timed {
    times: Times,
    gone: Gone,
    codec: RowCodec,
    rows: Map<SharedRow, (Span, i64)>,
    /// Rows by the instant at which they come or go.
    events: BTreeMap<i64, Set<SharedRow>>,
    /// With [`Gone::Forgotten`]: the latest time so far.
    latest_us: i64,
    changed: Changed,
}

impl Timed {
    pub(crate) fn new(times: Times, gone: Gone, schema: SchemaRef) -> OpResult<Self> {
        Ok(Self {
            times,
            gone,
            codec: RowCodec::new(schema)?,
            rows: Map::default(),
            events: BTreeMap::new(),
            latest_us: i64::MIN,
            changed: Changed::default(),
        })
    }

    fn now(&mut self, now_us: i64) -> i64 {
        if self.gone == Gone::Forgotten {
            self.latest_us = self.latest_us.max(now_us);
            return self.latest_us;
        }
        now_us
    }

    /// The span of each row; `None` if it is never there.
    fn spans(&self, rows: &RecordBatch) -> OpResult<Vec<Option<Span>>> {
        let mut spans = vec![Some((i64::MIN, i64::MAX)); rows.num_rows()];
        for (instant, is_from) in
            self.times.from.iter().map(|i| (i, true)).chain(self.times.until.iter().map(|i| (i, false)))
        {
            let values = instants(&evaluate(&instant.value, rows)?)?;
            for (i, span) in spans.iter_mut().enumerate() {
                match at(&values, i) {
                    Some(value) => {
                        let value = value.saturating_add(instant.plus_us);
                        if let Some(span) = span {
                            *span = if is_from { (span.0.max(value), span.1) } else { (span.0, span.1.min(value)) };
                        }
                    }
                    None => *span = None,
                }
            }
        }
        Ok(spans)
    }

    fn remember(&mut self, row: &[u8], span: Span, weight: i64) {
        if span == (i64::MIN, i64::MAX) || span.0 >= span.1 {
            // Nothing ever happens to it.
            return;
        }
        self.changed.note(row, &[]);
        match self.rows.get_mut(row) {
            Some((_, sum)) if *sum + weight == 0 => {
                self.rows.remove(row);
                for instant in [span.0, span.1] {
                    if let Some(rows) = self.events.get_mut(&instant) {
                        rows.remove(row);
                        if rows.is_empty() {
                            self.events.remove(&instant);
                        }
                    }
                }
            }
            Some((_, sum)) => *sum += weight,
            None => {
                let shared: SharedRow = row.into();
                for instant in [span.0, span.1].into_iter().filter(|i| *i != i64::MIN && *i != i64::MAX) {
                    self.events.entry(instant).or_default().insert(Arc::clone(&shared));
                }
                self.rows.insert(shared, (span, weight));
            }
        }
    }

    /// What a move of time changes.
    fn tick(&mut self, then: i64, now: i64, out: &mut Vec<(SharedRow, i64)>) {
        let range = (Excluded(then.min(now)), Included(then.max(now)));
        let mut seen: HashSet<&SharedRow> = HashSet::new();
        for row in self.events.range(range).flat_map(|(_, rows)| rows) {
            let Some((span, weight)) = self.rows.get(row) else { continue };
            let (was, is) = (is_there(*span, then), is_there(*span, now));
            if was != is && seen.insert(row) {
                out.push((Arc::clone(row), if is { *weight } else { -weight }));
            }
        }
        drop(seen);
        if self.gone == Gone::Forgotten && then < now {
            let later = self.events.split_off(&now.saturating_add(1));
            for row in std::mem::replace(&mut self.events, later).into_values().flatten() {
                if self.rows.get(&row).is_some_and(|(span, _)| is_settled(*span, now)) {
                    self.rows.remove(&row);
                    self.changed.note(&row, &[]);
                }
            }
        }
    }
}

/// Whether time going on changes nothing any more.
fn is_settled(span: Span, now: i64) -> bool {
    span.1 <= now || (span.0 <= now && span.1 == i64::MAX)
}

fn is_there(span: Span, now: i64) -> bool {
    span.0 <= now && now < span.1
}

impl Operator for Timed {
    fn wants(&self, step: &Step<'_>) -> bool {
        step.tick.is_some() && !self.events.is_empty()
    }

    fn step(&mut self, inputs: &[Option<&Delta>], step: &Step<'_>) -> OpResult<Option<Delta>> {
        let mut out: Vec<(SharedRow, i64)> = Vec::new();
        if let Some((then, now)) = step.tick {
            let (then, now) = (self.now(then), self.now(now));
            self.tick(then, now, &mut out);
        }
        let now = self.now(step.time.get_us());
        if let Some(delta) = inputs[0] {
            let spans = self.spans(&delta.rows)?;
            let rows = self.codec.encode_batch(&delta.rows)?;
            for (i, row) in rows.iter().enumerate() {
                let (Some(span), weight) = (spans[i], delta.weights.value(i)) else { continue };
                if is_there(span, now) {
                    out.push((row.data().into(), weight));
                }
                if self.gone == Gone::Remembered || !is_settled(span, now) {
                    self.remember(row.data(), span, weight);
                }
            }
        }
        if out.is_empty() {
            return Ok(None);
        }
        let (rows, weights): (Vec<SharedRow>, Vec<i64>) = out.into_iter().unzip();
        let batch = self.codec.decode_batch(&rows.iter().map(|r| &**r).collect::<Vec<_>>())?;
        Ok(Some(Delta::new(batch, Int64Array::from(weights))))
    }

    fn state_rows(&self) -> usize {
        self.rows.len()
    }

    fn forgets(&self) -> bool {
        self.gone == Gone::Forgotten
    }

    fn track(&mut self) {
        self.changed.track();
    }

    fn checkpoint(&mut self, out: &mut StateWriter<'_>) -> OpResult<()> {
        for noted in self.changed.take() {
            let (row, _) = unpair(&noted)?;
            match self.rows.get(row) {
                Some((_, weight)) => out.put(row, &weight.to_be_bytes()),
                None => out.delete(row),
            }
        }
        Ok(())
    }

    fn restore(&mut self, entries: &mut dyn Iterator<Item = (&[u8], &[u8])>) -> OpResult<()> {
        let mut rows: Vec<(&[u8], i64)> = Vec::new();
        for (row, weight) in entries {
            rows.push((row, i64::from_be_bytes(weight.try_into().map_err(|_| malformed())?)));
        }
        let batch = self.codec.decode_batch(&rows.iter().map(|(row, _)| *row).collect::<Vec<_>>())?;
        let spans = self.spans(&batch)?;
        for ((row, weight), span) in rows.into_iter().zip(spans) {
            if let Some(span) = span {
                self.remember(row, span, weight);
            }
        }
        // What was read is stored already.
        self.changed.take();
        Ok(())
    }
}
