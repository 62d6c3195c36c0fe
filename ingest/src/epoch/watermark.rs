//! How far event time has come in each table.
//!
//! Each partition remembers its largest event time; a table's watermark is the smallest of these among the partitions
//! that count, less the declared delay. So the fastest partition does not make the others late, and rows out of order
//! are expected for the delay.
//!
//! - A watermark never goes backwards, whatever a partition sends and whenever one appears.
//! - An event time further ahead of the clock than is believed does not move it.
//! - A partition with records from before the start counts from the start: it holds the watermark until it was read.
//! - A partition that is read to its end and has been silent for the idle timeout does not count. If none counts, the
//!   watermark stays where it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::DataType;
use model::{PartitionEventTime, SourceTable, TableWatermark};

use super::lag::Ends;
use crate::decode::Changes;

const DAY_US: i64 = 86_400_000_000;

#[derive(Debug)]
struct Partition {
    event_time_us_max: Option<i64>,
    last_record: Instant,
    /// Next offset to read, if a record was read.
    next_offset: Option<i64>,
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
                (
                    (Arc::clone(&p.topic), p.partition),
                    Partition { event_time_us_max, last_record: now, next_offset: None },
                )
            };
            Some(TableTime {
                table: Arc::clone(&table.name),
                column: event_time.column,
                unit_us: if is_date { DAY_US } else { 1 },
                delay_us: event_time.delay_us,
                partitions: seed.into_iter().flat_map(|s| &s.partitions).map(partition).collect(),
                watermark_us: seed.and_then(|s| s.watermark_us),
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
            let unread = Partition { event_time_us_max: None, last_record: now, next_offset: None };
            time.partitions.entry((Arc::clone(topic), partition)).or_insert(unread);
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
        let unread = || Partition { event_time_us_max: None, last_record: now, next_offset: None };
        let known = time.partitions.entry(key).or_insert_with(unread);
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
    /// Returns the number of idle partitions.
    fn advance(&mut self, ends: Option<&Ends>, flow: Flow, now: Instant, idle_timeout: Duration) -> usize {
        let is_idle = |(topic, partition): &(Arc<str>, i32), p: &Partition| {
            let is_read = flow == Flow::Quiet || (p.next_offset >= end_of(ends, topic, *partition) && ends.is_some());
            !idle_timeout.is_zero() && is_read && now.saturating_duration_since(p.last_record) >= idle_timeout
        };
        let counts: Vec<&Partition> = self.partitions.iter().filter(|(k, p)| !is_idle(k, p)).map(|(_, p)| p).collect();
        let n_idle = self.partitions.len() - counts.len();
        let is_held = counts.iter().any(|p| p.event_time_us_max.is_none() && p.next_offset.is_none());
        let slowest = counts.iter().filter_map(|p| p.event_time_us_max).min();
        if let (Some(slowest), false) = (slowest, is_held) {
            self.watermark_us = self.watermark_us.max(Some(slowest.saturating_sub(self.delay_us)));
        }
        n_idle
    }
}

fn end_of(ends: Option<&Ends>, topic: &Arc<str>, partition: i32) -> Option<i64> {
    ends?.iter().find(|(t, p)| t == topic && p.partition == partition).map(|(_, p)| p.end)
}

#[cfg(test)]
mod tests {
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
