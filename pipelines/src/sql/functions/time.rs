//! Functions of time with Flink's meaning. The session's time zone is UTC.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Builder, PrimitiveArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime};
use datafusion::common::{Result, exec_err};

use super::calendar::{US_PER_SECOND, Unit, of_time, to_time};
use super::pattern::Pattern;
use super::row::{Arg, Columns, RowFunction};

/// Names of the functions that rewritten text calls.
pub(crate) const FLOOR: &str = "andon_time_floor";
pub(crate) const CEIL: &str = "andon_time_ceil";
pub(crate) const ADD: &str = "andon_time_add";
pub(crate) const ADD_FINE: &str = "andon_time_add_fine";
pub(crate) const DIFF: &str = "andon_time_diff";

/// The pattern of `FROM_UNIXTIME` and `UNIX_TIMESTAMP` that say none.
const DEFAULT_PATTERN: &str = "yyyy-MM-dd HH:mm:ss";

fn timestamp(zone: Option<&str>) -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, zone.map(Arc::from))
}

pub(super) fn functions() -> Vec<RowFunction> {
    let function = |name, args, n_required, returns, compute| RowFunction { name, args, n_required, returns, compute };
    let utf8: fn(&[DataType]) -> DataType = |_| DataType::Utf8;
    let int: fn(&[DataType]) -> DataType = |_| DataType::Int64;
    vec![
        function("date_format", &[Arg::Time, Arg::Text], 2, utf8, date_format),
        function("to_timestamp", &[Arg::Any, Arg::Text], 1, |_| timestamp(None), |c| read_time(c, &timestamp(None))),
        function("to_timestamp_ltz", &[Arg::Any, Arg::Any], 1, |_| timestamp(Some("UTC")), to_timestamp_ltz),
        function("to_date", &[Arg::Any, Arg::Text], 1, |_| DataType::Date32, |c| read_time(c, &DataType::Date32)),
        function("unix_timestamp", &[Arg::Any, Arg::Text], 1, int, unix_timestamp),
        function("from_unixtime", &[Arg::Int, Arg::Text], 1, utf8, from_unixtime),
        function(FLOOR, &[Arg::Text, Arg::TimeOrDate], 2, |t| t[1].clone(), |c| moved(c, 1, Unit::floor)),
        function(CEIL, &[Arg::Text, Arg::TimeOrDate], 2, |t| t[1].clone(), |c| moved(c, 1, Unit::ceil)),
        function(ADD, &[Arg::Text, Arg::Int, Arg::TimeOrDate], 3, |t| t[2].clone(), added),
        function(ADD_FINE, &[Arg::Text, Arg::Int, Arg::Time], 3, |t| t[2].clone(), added),
        function(DIFF, &[Arg::Text, Arg::Time, Arg::Time], 3, int, difference),
    ]
}

/// A column of times or dates as microseconds.
fn micros(column: &ArrayRef) -> Result<PrimitiveArray<TimestampMicrosecondType>> {
    let plain = cast(column, &timestamp(None))?;
    Ok(plain.as_primitive::<TimestampMicrosecondType>().clone())
}

fn of_micros(values: impl Iterator<Item = Option<i64>>, data_type: &DataType) -> Result<ArrayRef> {
    let plain: PrimitiveArray<TimestampMicrosecondType> = values.collect();
    Ok(match data_type {
        DataType::Timestamp(TimeUnit::Microsecond, zone) => Arc::new(plain.with_timezone_opt(zone.clone())),
        other => cast(&plain, other)?,
    })
}

fn column(columns: &Columns, at: usize) -> Result<&ArrayRef> {
    match columns.column(at) {
        Some(column) => Ok(column),
        None => exec_err!("argument {} is missing", at + 1),
    }
}

/// The units of a batch, nearly always one.
fn unit(columns: &Columns, row: usize) -> Result<Unit> {
    let name = columns.text(0, row).unwrap_or_default();
    match Unit::parse(name) {
        Some(unit) => Ok(unit),
        None => exec_err!("{name} is no time unit"),
    }
}

fn moved(columns: &Columns, at: usize, to: fn(Unit, i64) -> Option<i64>) -> Result<ArrayRef> {
    let given = column(columns, at)?;
    let times = micros(given)?;
    let mut out = Vec::with_capacity(columns.n_rows());
    for (row, time) in times.iter().enumerate() {
        let unit = unit(columns, row)?;
        out.push(time.and_then(|us| to(unit, us)));
    }
    of_micros(out.into_iter(), given.data_type())
}

fn added(columns: &Columns) -> Result<ArrayRef> {
    let given = column(columns, 2)?;
    let times = micros(given)?;
    let mut out = Vec::with_capacity(columns.n_rows());
    for (row, time) in times.iter().enumerate() {
        let unit = unit(columns, row)?;
        out.push(time.zip(columns.int(1, row)).and_then(|(us, n)| unit.add(us, n)));
    }
    of_micros(out.into_iter(), given.data_type())
}

fn difference(columns: &Columns) -> Result<ArrayRef> {
    let (from, to) = (micros(column(columns, 1)?)?, micros(column(columns, 2)?)?);
    let mut out = Int64Builder::new();
    for (row, pair) in from.iter().zip(&to).enumerate() {
        let unit = unit(columns, row)?;
        out.append_option(pair.0.zip(pair.1).and_then(|(from, to)| unit.between(from, to)));
    }
    Ok(Arc::new(out.finish()))
}

/// The patterns of a batch, parsed once each.
#[derive(Default)]
struct Patterns(HashMap<String, Pattern>);

impl Patterns {
    fn of(&mut self, text: &str) -> Result<&Pattern> {
        if !self.0.contains_key(text) {
            match Pattern::parse(text) {
                Ok(pattern) => self.0.insert(text.to_owned(), pattern),
                Err(why) => return exec_err!("{why}"),
            };
        }
        Ok(&self.0[text])
    }
}

fn date_format(columns: &Columns) -> Result<ArrayRef> {
    let times = micros(column(columns, 0)?)?;
    let mut patterns = Patterns::default();
    let mut out = StringBuilder::new();
    for (row, time) in times.iter().enumerate() {
        match (time.and_then(to_time), columns.text(1, row)) {
            (Some(time), Some(pattern)) => out.append_value(patterns.of(pattern)?.write(time)),
            _ => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish()))
}

/// Text without a pattern: a date, or a date and time, with or without a zone.
fn read_plain(text: &str) -> Option<NaiveDateTime> {
    let text = text.trim();
    ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M"]
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
        .or_else(|| Some(NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_time(NaiveTime::MIN)))
        .or_else(|| Some(DateTime::parse_from_rfc3339(text).ok()?.naive_utc()))
}

/// Times of a column: text is read by its pattern, NULL if it has another form; numbers are seconds.
fn times(columns: &Columns) -> Result<Vec<Option<i64>>> {
    let given = column(columns, 0)?;
    match given.data_type() {
        DataType::Utf8 => {}
        DataType::Int64 => {
            return Ok((0..columns.n_rows()).map(|row| columns.int(0, row)?.checked_mul(US_PER_SECOND)).collect());
        }
        _ => return Ok(micros(given)?.iter().collect()),
    }
    let mut patterns = Patterns::default();
    let mut out = Vec::with_capacity(columns.n_rows());
    for row in 0..columns.n_rows() {
        let time = match (columns.text(0, row), columns.column(1), columns.text(1, row)) {
            (Some(text), None, _) => read_plain(text),
            (Some(text), _, Some(pattern)) => patterns.of(pattern)?.read(text),
            _ => None,
        };
        out.push(time.map(of_time));
    }
    Ok(out)
}

fn read_time(columns: &Columns, data_type: &DataType) -> Result<ArrayRef> {
    of_micros(times(columns)?.into_iter(), data_type)
}

/// A number with a precision of 0 is seconds, with 3 milliseconds; text may have a pattern.
fn to_timestamp_ltz(columns: &Columns) -> Result<ArrayRef> {
    let zone = timestamp(Some("UTC"));
    let given = column(columns, 0)?;
    if *given.data_type() != DataType::Int64 {
        return read_time(columns, &zone);
    }
    let precision = |row| match columns.column(1) {
        Some(p) if *p.data_type() == DataType::Int64 => columns.int(1, row),
        _ => Some(3),
    };
    let one = |row| {
        let factor = match precision(row)? {
            0 => US_PER_SECOND,
            3 => 1_000,
            6 => 1,
            _ => return None,
        };
        columns.int(0, row)?.checked_mul(factor)
    };
    of_micros((0..columns.n_rows()).map(one), &zone)
}

/// Seconds since 1970 of a text or time.
fn unix_timestamp(columns: &Columns) -> Result<ArrayRef> {
    let mut out = Int64Builder::new();
    for time in times(columns)? {
        out.append_option(time.map(|us| us.div_euclid(US_PER_SECOND)));
    }
    Ok(Arc::new(out.finish()))
}

fn from_unixtime(columns: &Columns) -> Result<ArrayRef> {
    let mut patterns = Patterns::default();
    let mut out = StringBuilder::new();
    for row in 0..columns.n_rows() {
        let pattern = if columns.column(1).is_some() { columns.text(1, row) } else { Some(DEFAULT_PATTERN) };
        let time = columns.int(0, row).and_then(|s| to_time(s.checked_mul(US_PER_SECOND)?));
        match (time, pattern) {
            (Some(time), Some(pattern)) => out.append_value(patterns.of(pattern)?.write(time)),
            _ => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish()))
}
