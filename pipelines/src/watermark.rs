//! Time inside the graph: how far the sources' event time has come, and from when on a value is closed.
//!
//! A watermark W of a source says that no row with an event time before W is expected any more. A column derived from
//! event time has a *horizon*: values before it are closed, which means that no row with such a value is taken any
//! more, so whatever is kept for it may go.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array};
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::cast::as_int64_array;
use model::TableWatermark;

use crate::error::OpResult;

pub(crate) const DAY_US: i64 = 86_400_000_000;

/// The watermarks of all sources, before and after the current step.
#[derive(Debug, Default)]
pub(crate) struct Watermarks {
    before: BTreeMap<Arc<str>, i64>,
    now: BTreeMap<Arc<str>, i64>,
}

impl Watermarks {
    /// Begins a step that brings these watermarks. None ever goes backwards.
    pub(crate) fn advance(&mut self, news: &[TableWatermark]) {
        if self.before != self.now {
            self.before.clone_from(&self.now);
        }
        for new in news {
            let Some(us) = new.watermark_us else { continue };
            let known = self.now.entry(Arc::clone(&new.table)).or_insert(us);
            *known = us.max(*known);
        }
    }

    fn least(of: &BTreeMap<Arc<str>, i64>, sources: &[Arc<str>]) -> Option<i64> {
        sources.iter().map(|s| of.get(s).copied()).min().flatten()
    }
}

/// From when on the values of a column are closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Horizon {
    /// The slowest of these sources decides.
    pub(crate) sources: Arc<[Arc<str>]>,
    /// A value v is closed once v + `offset_us` is before the watermark.
    pub(crate) offset_us: i64,
}

impl Horizon {
    /// Values before this were closed when the step began.
    pub(crate) fn before(&self, watermarks: &Watermarks) -> Option<i64> {
        Some(Watermarks::least(&watermarks.before, &self.sources)?.saturating_sub(self.offset_us))
    }

    /// Values before this are closed when the step ends.
    pub(crate) fn now(&self, watermarks: &Watermarks) -> Option<i64> {
        Some(Watermarks::least(&watermarks.now, &self.sources)?.saturating_sub(self.offset_us))
    }

    /// Whether the step closes anything.
    pub(crate) fn moves(&self, watermarks: &Watermarks) -> bool {
        self.before(watermarks) != self.now(watermarks)
    }

    /// The watermark itself when the step began.
    pub(crate) fn watermark_before(&self, watermarks: &Watermarks) -> Option<i64> {
        Watermarks::least(&watermarks.before, &self.sources)
    }
}

/// A column whose values close as event time goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Closing {
    /// Index of the column.
    pub(crate) column: usize,
    /// v + `lag_us` is the instant until which rows with the value v are to be expected.
    pub(crate) lag_us: i64,
    /// What that instant is a function of: columns with the same text close together.
    pub(crate) instant: Arc<str>,
    /// Sources whose watermarks count.
    pub(crate) sources: Arc<[Arc<str>]>,
    /// `Some(lateness)` if no row comes later than that any more: a gate or a closed operator below sees to it.
    pub(crate) gated_us: Option<i64>,
}

impl Closing {
    /// The horizon with an allowed lateness.
    pub(crate) fn horizon(&self, lateness_us: i64) -> Horizon {
        Horizon { sources: Arc::clone(&self.sources), offset_us: self.lag_us.saturating_add(lateness_us) }
    }
}

/// Times or dates as microseconds since 1970.
///
/// # Errors
/// If the column is neither.
pub(crate) fn instants(column: &ArrayRef) -> OpResult<Int64Array> {
    let us = match column.data_type() {
        DataType::Date32 => {
            let days = arrow::compute::cast(&arrow::compute::cast(column, &DataType::Int32)?, &DataType::Int64)?;
            let days = as_int64_array(&days)?;
            return Ok(days.unary(|d: i64| d.saturating_mul(DAY_US)));
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => arrow::compute::cast(column, &DataType::Int64)?,
        _ => {
            let us = arrow::compute::cast(column, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
            arrow::compute::cast(&us, &DataType::Int64)?
        }
    };
    Ok(as_int64_array(&us)?.clone())
}

/// The instant of a row that `instants` found, `None` for NULL.
pub(crate) fn at(instants: &Int64Array, row: usize) -> Option<i64> {
    instants.is_valid(row).then(|| instants.value(row))
}
