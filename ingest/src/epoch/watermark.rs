//! How far event time has come in each table.
//!
//! Each partition remembers its largest event time; a table's watermark is the smallest of these among the partitions
//! that count, less the declared delay. So the fastest partition does not make the others late, and rows out of order
//! are expected for the delay.
//!
//! - A watermark never goes backwards, whatever a partition sends and whenever one appears.
//! - An event time further ahead of the clock than is believed does not move it.
//! - A partition with records from before the start counts from the start: it holds the watermark until it was read.
//! - A row of an append-only table is late by the records before it in its partition, not by how many of them arrived
//!   with it: rows that came behind the watermark of their moment are noted, so reading the same records in other
//!   portions, or going on after a stop, gives the same late rows.
//! - A partition that is read to its end and has been silent for the idle timeout does not count. If none counts, the
//!   watermark stays where it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::Int64Array;
use arrow::datatypes::DataType;
use model::{PartitionEventTime, SourceTable, TableWatermark};

use super::lag::Ends;
use crate::column::Column;
use crate::decode::Changes;

const DAY_US: i64 = 86_400_000_000;

#[derive(Debug)]
struct Partition {
    event_time_us_max: Option<i64>,
    last_record: Instant,
    /// Next offset to read, if a record was read.
    next_offset: Option<i64>,
    /// Whether it was idle when the watermark was last brought up to date.
    is_idle: bool,
}

impl Partition {
    fn unread(now: Instant) -> Self {
        Self { event_time_us_max: None, last_record: now, next_offset: None, is_idle: false }
    }

    /// Whether nothing of it was read that would say how far it has come.
    fn holds(&self) -> bool {
        self.event_time_us_max.is_none() && self.next_offset.is_none()
    }
}

#[derive(Debug)]
struct TableTime {
    table: Arc<str>,
    column: usize,
    /// Microseconds of one unit of the column.
    unit_us: i64,
    delay_us: i64,
    partitions: BTreeMap<(Arc<str>, i32), Partition>,
    watermark_us: Option<i64>,
    is_append_only: bool,
    /// The watermark as it stands within the epoch.
    running_us: Option<i64>,
    /// Rows of the coming epoch that came behind it, with what it was.
    missed: Vec<(usize, i64)>,
}

/// The watermarks of all tables.
#[derive(Debug)]
pub(super) struct Watermarks {
    /// By the table's index; `None` without event time.
    tables: Vec<Option<TableTime>>,
    idle_timeout: Duration,
    changed: bool,
}

/// Whether the log had anything to give when it was last asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Running,
    Quiet,
}

impl Watermarks {
    /// Watermarks that go on from where `seeds` stood. A partition is idle after `idle_timeout`; zero is never.
    pub(super) fn new(tables: &[SourceTable], seeds: &[TableWatermark], idle_timeout: Duration, now: Instant) -> Self {
        let tables = tables.iter().map(|table| {
            let event_time = table.event_time?;
            let is_date = *table.schema.field(event_time.column).data_type() == DataType::Date32;
            let seed = seeds.iter().find(|s| s.table == table.name);
            let partition = |p: &PartitionEventTime| {
                let event_time_us_max = Some(p.event_time_us_max);
                ((Arc::clone(&p.topic), p.partition), Partition { event_time_us_max, ..Partition::unread(now) })
            };
            Some(TableTime {
                table: Arc::clone(&table.name),
                column: event_time.column,
                unit_us: if is_date { DAY_US } else { 1 },
                delay_us: event_time.delay_us,
                partitions: seed.into_iter().flat_map(|s| &s.partitions).map(partition).collect(),
                watermark_us: seed.and_then(|s| s.watermark_us),
                is_append_only: table.is_append_only(),
                running_us: seed.and_then(|s| s.watermark_us),
                missed: Vec::new(),
            })
        });
        Self { tables: tables.collect(), idle_timeout, changed: !seeds.is_empty() }
    }

    /// Whether any table has an event time.
    pub(super) fn are_wanted(&self) -> bool {
        self.tables.iter().any(Option::is_some)
    }

    /// A partition of a table has records that have not been read yet.
    pub(super) fn expect(&mut self, table: usize, topic: &Arc<str>, partition: i32, now: Instant) {
        if let Some(time) = &mut self.tables[table] {
            time.partitions.entry((Arc::clone(topic), partition)).or_insert_with(|| Partition::unread(now));
        }
    }

    /// Takes in the changes of a table from row `first` on, which came from one partition. Event times beyond
    /// `limit_us` are counted and otherwise ignored.
    pub(super) fn observe(
        &mut self,
        table: usize,
        (topic, partition, next_offset): (&Arc<str>, i32, i64),
        (changes, first): (&Changes, usize),
        limit_us: i64,
        now: Instant,
    ) {
        let Some(time) = &mut self.tables[table] else { return };
        let column = &changes.columns[time.column];
        let limit = limit_us.div_euclid(time.unit_us);
        let newest = column.int_max_from(first, limit).map(|t| t.saturating_mul(time.unit_us));
        let n_ahead = column.count_above(first, limit);
        if n_ahead > 0 {
            let table = time.table.to_string();
            metrics::counter!("ingest_future_event_times_total", "table" => table).increment(n_ahead);
        }
        let key = (Arc::clone(topic), partition);
        time.note_missed(&key, (column, first), limit, newest);
        let known = time.partitions.entry(key).or_insert_with(|| Partition::unread(now));
        self.changed |= newest > known.event_time_us_max;
        known.event_time_us_max = known.event_time_us_max.max(newest);
        known.last_record = now;
        known.next_offset = Some(next_offset);
    }

    /// Brings the watermarks up to date; whether one has moved.
    pub(super) fn advance(&mut self, ends: Option<&Ends>, flow: Flow, now: Instant) -> bool {
        let mut moved = false;
        for time in self.tables.iter_mut().flatten() {
            let before = time.watermark_us;
            let n_idle = time.advance(ends, flow, now, self.idle_timeout);
            if time.watermark_us != before {
                moved = true;
                let table = time.table.to_string();
                let seconds = time.watermark_us.unwrap_or_default() as f64 / 1e6;
                metrics::gauge!("ingest_watermark_seconds", "table" => table.clone()).set(seconds);
                metrics::gauge!("ingest_idle_partitions", "table" => table).set(n_idle as f64);
            }
        }
        self.changed |= moved;
        moved
    }

    /// For each of the rows of an append-only table that have gathered since the last call the watermark that it came
    /// behind; `None` if there is no such row.
    pub(super) fn take_missed(&mut self, table: usize, n_rows: usize) -> Option<Int64Array> {
        let missed = std::mem::take(&mut self.tables[table].as_mut()?.missed);
        let mut by_row = vec![None; n_rows];
        for (row, watermark_us) in &missed {
            by_row[*row] = Some(*watermark_us);
        }
        (!missed.is_empty()).then(|| Int64Array::from(by_row))
    }

    /// All watermarks, if anything has changed since the last call.
    pub(super) fn take_changed(&mut self) -> Vec<TableWatermark> {
        if !std::mem::take(&mut self.changed) {
            return Vec::new();
        }
        let one = |time: &TableTime| TableWatermark {
            table: Arc::clone(&time.table),
            watermark_us: time.watermark_us,
            partitions: time
                .partitions
                .iter()
                .filter_map(|((topic, partition), p)| {
                    let event_time_us_max = p.event_time_us_max?;
                    Some(PartitionEventTime { topic: Arc::clone(topic), partition: *partition, event_time_us_max })
                })
                .collect(),
        };
        self.tables.iter().flatten().map(one).collect()
    }
}

impl TableTime {
    /// Notes which rows from `first` on, all of one partition, come behind the watermark of their moment. `newest` is the
    /// largest event time among them up to `limit`.
    fn note_missed(
        &mut self,
        key: &(Arc<str>, i32),
        (column, first): (&Column, usize),
        limit: i64,
        newest: Option<i64>,
    ) {
        if !self.is_append_only {
            return;
        }
        let others = || self.partitions.iter().filter(|(k, p)| *k != key && !p.is_idle).map(|(_, p)| p);
        let is_held = others().any(Partition::holds);
        let others = others().filter_map(|p| p.event_time_us_max).min();
        let mut own = self.partitions.get(key).and_then(|p| p.event_time_us_max);
        let delay_us = self.delay_us;
        let of = |own: Option<i64>| {
            let slowest = own.map(|own| others.map_or(own, |others| own.min(others)));
            slowest.filter(|_| !is_held).map(|us| us.saturating_sub(delay_us))
        };
        let last = self.running_us.max(of(own.max(newest)));
        let unit_us = self.unit_us;
        let least = column.int_min_from(first).map(|t| t.saturating_mul(unit_us));
        if least.is_none() || least >= last {
            self.running_us = last;
            return;
        }
        for (row, time) in column.ints_from(first) {
            let Some(time) = time else { continue };
            let time_us = time.saturating_mul(unit_us);
            if let Some(running_us) = self.running_us.filter(|running_us| time_us < *running_us) {
                self.missed.push((row, running_us));
            }
            if time <= limit {
                own = own.max(Some(time_us));
            }
            self.running_us = self.running_us.max(of(own));
        }
    }

    /// Returns the number of idle partitions.
    fn advance(&mut self, ends: Option<&Ends>, flow: Flow, now: Instant, idle_timeout: Duration) -> usize {
        let is_idle = |(topic, partition): &(Arc<str>, i32), p: &Partition| {
            let is_read = flow == Flow::Quiet || (p.next_offset >= end_of(ends, topic, *partition) && ends.is_some());
            !idle_timeout.is_zero() && is_read && now.saturating_duration_since(p.last_record) >= idle_timeout
        };
        for (key, partition) in &mut self.partitions {
            partition.is_idle = is_idle(key, partition);
        }
        let counts = || self.partitions.values().filter(|p| !p.is_idle);
        let n_idle = self.partitions.len() - counts().count();
        let is_held = counts().any(Partition::holds);
        let slowest = counts().filter_map(|p| p.event_time_us_max).min();
        if let (Some(slowest), false) = (slowest, is_held) {
            self.watermark_us = self.watermark_us.max(Some(slowest.saturating_sub(self.delay_us)));
        }
        self.running_us = self.watermark_us;
        n_idle
    }
}

fn end_of(ends: Option<&Ends>, topic: &Arc<str>, partition: i32) -> Option<i64> {
    ends?.iter().find(|(t, p)| t == topic && p.partition == partition).map(|(_, p)| p.end)
}

#[cfg(test)]
mod tests {
    use arrow::array::Array;
    use arrow::datatypes::TimeUnit;
    use model::PartitionOffsets;

    use super::*;
    use crate::decode::{NO_POSITION, Operation};

    const S: i64 = 1_000_000;
    const LIMIT: i64 = 1_000 * S;

    fn table() -> SourceTable {
        let text = "CREATE TABLE t (id INT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '5' SECOND)
                    WITH ('connector' = 'kafka', 'topic' = 'a', 'format' = 'json')";
        let file = model::SqlFile { path: "t.sql".to_owned(), text: text.to_owned() };
        crate::ddl::parse_tables(&[file]).unwrap().remove(0)
    }

    /// A table with a delay of 5 s and an idle timeout of 60 s, in seconds.
    struct Clockwork {
        watermarks: Watermarks,
        topic: Arc<str>,
        start: Instant,
    }

    impl Clockwork {
        fn new(seeds: &[TableWatermark]) -> Self {
            let start = Instant::now();
            let watermarks = Watermarks::new(&[table()], seeds, Duration::from_secs(60), start);
            Self { watermarks, topic: Arc::from("a"), start }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        /// Records with these event times in seconds from a partition.
        fn send(&mut self, at: u64, partition: i32, next_offset: i64, times: &[Option<i64>]) {
            let mut changes = Changes::new(&table().schema);
            assert_eq!(*table().schema.field(1).data_type(), DataType::Timestamp(TimeUnit::Microsecond, None));
            for time in times {
                changes.columns[0].push_int(1);
                match time {
                    Some(time) => changes.columns[1].push_int(time * S),
                    None => changes.columns[1].push_null(),
                }
                changes.commit(Operation::Upsert, NO_POSITION);
            }
            let now = self.at(at);
            self.watermarks.observe(0, (&self.topic.clone(), partition, next_offset), (&changes, 0), LIMIT, now);
        }

        fn watermark(&mut self, at: u64, ends: Option<&Ends>, flow: Flow) -> Option<i64> {
            let now = self.at(at);
            self.watermarks.advance(ends, flow, now);
            self.watermarks.tables[0].as_ref().unwrap().watermark_us.map(|us| us / S)
        }
    }

    fn ends(all: &[(i32, i64)]) -> Ends {
        let one = |(partition, end): &(i32, i64)| {
            (Arc::from("a"), PartitionOffsets { partition: *partition, earliest: 0, end: *end })
        };
        all.iter().map(one).collect()
    }

    #[test]
    fn the_slowest_partition_decides() {
        let mut c = Clockwork::new(&[]);
        assert_eq!(c.watermark(0, None, Flow::Running), None);
        c.send(0, 0, 1, &[Some(100)]);
        c.send(0, 1, 1, &[Some(20), Some(40), Some(30)]);
        assert_eq!(c.watermark(0, None, Flow::Running), Some(35));
        c.send(1, 1, 2, &[Some(200)]);
        assert_eq!(c.watermark(1, None, Flow::Running), Some(95));
    }

    #[test]
    fn it_never_goes_backwards() {
        let mut c = Clockwork::new(&[]);
        c.send(0, 0, 1, &[Some(100)]);
        assert_eq!(c.watermark(0, None, Flow::Running), Some(95));
        // Neither by the minimum of a later batch nor by a partition that appears late.
        c.send(1, 0, 2, &[Some(3)]);
        c.send(1, 7, 1, &[Some(10)]);
        assert_eq!(c.watermark(1, None, Flow::Running), Some(95));
        // The late partition counts from now on.
        c.send(2, 0, 3, &[Some(300)]);
        assert_eq!(c.watermark(2, None, Flow::Running), Some(95));
        c.send(3, 7, 2, &[Some(250)]);
        assert_eq!(c.watermark(3, None, Flow::Running), Some(245));
    }

    #[test]
    fn a_date_in_the_far_future_moves_nothing_not_even_after_a_restart() {
        let mut c = Clockwork::new(&[]);
        c.send(0, 0, 1, &[Some(100), Some(5_000_000)]);
        assert_eq!(c.watermark(0, None, Flow::Running), Some(95));
        let kept = c.watermarks.take_changed();
        assert_eq!(kept[0].partitions[0].event_time_us_max, 100 * S);
        let mut again = Clockwork::new(&kept);
        assert_eq!(again.watermark(0, None, Flow::Running), Some(95));
        again.send(0, 0, 2, &[Some(120)]);
        assert_eq!(again.watermark(0, None, Flow::Running), Some(115));
    }

    #[test]
    fn times_that_are_null_or_before_1970_are_times_like_others() {
        let mut c = Clockwork::new(&[]);
        c.send(0, 0, 1, &[None]);
        assert_eq!(c.watermark(0, None, Flow::Running), None);
        c.send(0, 0, 2, &[Some(-500), None, Some(-400)]);
        assert_eq!(c.watermark(0, None, Flow::Running), Some(-405));
    }

    #[test]
    fn a_partition_that_is_not_read_yet_holds_it() {
        let mut c = Clockwork::new(&[]);
        let (topic, now) = (c.topic.clone(), c.at(0));
        c.watermarks.expect(0, &topic, 1, now);
        c.send(0, 0, 9, &[Some(100)]);
        // Reading one partition may take longer than the idle timeout.
        assert_eq!(c.watermark(500, Some(&ends(&[(0, 9), (1, 4)])), Flow::Running), None);
        c.send(500, 1, 1, &[Some(50)]);
        c.send(500, 0, 10, &[Some(110)]);
        assert_eq!(c.watermark(500, Some(&ends(&[(0, 10), (1, 4)])), Flow::Running), Some(45));
    }

    #[test]
    fn an_idle_partition_does_not_count_until_it_speaks_again() {
        let mut c = Clockwork::new(&[]);
        c.send(0, 0, 1, &[Some(100)]);
        c.send(0, 1, 1, &[Some(40)]);
        let ends = ends(&[(0, 2), (1, 1)]);
        c.send(59, 0, 2, &[Some(130)]);
        assert_eq!(c.watermark(59, Some(&ends), Flow::Running), Some(35));
        assert_eq!(c.watermark(61, Some(&ends), Flow::Running), Some(125));
        // What it sends then is late, and it counts again.
        c.send(62, 1, 2, &[Some(41)]);
        c.send(62, 0, 3, &[Some(900)]);
        assert_eq!(c.watermark(62, Some(&ends), Flow::Running), Some(125));
        // All idle: the watermark stays, though nothing holds it.
        assert_eq!(c.watermark(500, Some(&ends), Flow::Quiet), Some(125));
        c.send(501, 1, 3, &[Some(200)]);
        assert_eq!(c.watermark(501, Some(&ends), Flow::Quiet), Some(195));
    }

    /// Which rows came behind which watermark, in seconds, if these records of one partition come in portions of `size`.
    fn missed(times: &[Option<i64>], size: usize) -> Vec<Option<i64>> {
        let mut c = Clockwork::new(&[]);
        let (mut missed, mut kept) = (Vec::new(), Vec::new());
        for (no, part) in times.chunks(size).enumerate() {
            c.send(0, 0, no as i64, part);
            let portion = c.watermarks.take_missed(0, part.len());
            missed.extend((0..part.len()).map(|i| portion.as_ref().filter(|p| p.is_valid(i)).map(|p| p.value(i) / S)));
            if no % 2 == 0 {
                c.watermark(0, None, Flow::Running);
            }
            if no % 3 == 0 {
                c.watermark(0, None, Flow::Running);
                let changed = c.watermarks.take_changed();
                c = Clockwork::new(if changed.is_empty() { &kept } else { &changed });
                kept = if changed.is_empty() { kept } else { changed };
            }
        }
        missed
    }

    #[test]
    fn rows_are_late_by_the_records_before_them_however_they_arrive() {
        let times = [Some(100), Some(96), Some(94), None, Some(200), Some(150), Some(9_000_000), Some(194), Some(196)];
        let expected = vec![None, None, Some(95), None, None, Some(195), None, Some(195), None];
        for size in 1..=times.len() {
            assert_eq!(missed(&times, size), expected, "portions of {size}");
        }
    }

    #[test]
    fn a_partition_that_is_still_to_be_read_makes_nothing_late() {
        let mut c = Clockwork::new(&[]);
        let (topic, now) = (c.topic.clone(), c.at(0));
        c.watermarks.expect(0, &topic, 1, now);
        c.send(0, 0, 1, &[Some(500)]);
        c.send(0, 1, 1, &[Some(40), Some(20)]);
        let missed = c.watermarks.take_missed(0, 3).expect("one row");
        assert_eq!((missed.null_count(), missed.value(1)), (2, 35 * S));
    }

    #[test]
    fn what_is_unchanged_is_not_told_again() {
        let mut c = Clockwork::new(&[]);
        assert!(c.watermarks.take_changed().is_empty());
        c.send(0, 0, 1, &[Some(100)]);
        c.watermark(0, None, Flow::Running);
        assert_eq!(c.watermarks.take_changed().len(), 1);
        c.send(0, 0, 2, &[Some(90)]);
        c.watermark(0, None, Flow::Running);
        assert!(c.watermarks.take_changed().is_empty());
    }
}
