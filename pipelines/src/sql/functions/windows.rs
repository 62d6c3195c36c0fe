//! The functions behind HOP, CUMULATE and SESSION; see [`crate::sql::windows`].

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Builder, ListArray, PrimitiveArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{
    ColumnarValue, PartitionEvaluator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, WindowUDF,
    WindowUDFImpl,
};

use crate::sql::windows::{CUMULATE_ENDS, HOP_STARTS, SESSION_END, SESSION_START, TUMBLE_START};

/// The functions of TUMBLE, HOP and CUMULATE.
pub(super) fn scalar() -> Vec<ScalarUDF> {
    let signature = || Signature::user_defined(Volatility::Immutable);
    let lists = [Lister::Hop, Lister::Cumulate].map(|lister| WindowList { lister, signature: signature() });
    let tumble = ScalarUDF::from(TumbleStart { signature: signature() });
    lists.into_iter().map(ScalarUDF::from).chain([tumble]).collect()
}

/// The window functions of SESSION.
pub(super) fn window() -> Vec<WindowUDF> {
    [Edge::Start, Edge::End]
        .into_iter()
        .map(|edge| WindowUDF::from(Session { edge, signature: Signature::user_defined(Volatility::Immutable) }))
        .collect()
}

/// The time column as microseconds, then whole numbers of microseconds.
fn coerced(types: &[DataType]) -> Result<Vec<DataType>> {
    let time = match &types[0] {
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Date32 | DataType::Date64 | DataType::Null => DataType::Timestamp(TimeUnit::Microsecond, None),
        other => return plan_err!("the time column of a window is of type {other}; it must be a timestamp"),
    };
    let mut all = vec![DataType::Int64; types.len()];
    all[0] = time;
    Ok(all)
}

/// A whole number that is the same for all rows; of no rows, 1.
fn constant(column: &ArrayRef) -> i64 {
    let column = column.as_primitive::<Int64Type>();
    if column.is_empty() { 1 } else { column.value(0) }
}

/// Start of a row's tumbling window: `(ts, size, offset)`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct TumbleStart {
    signature: Signature,
}

impl ScalarUDFImpl for TumbleStart {
    fn name(&self) -> &str {
        TUMBLE_START
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        coerced(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let (size, offset) = (constant(&columns[1]), constant(&columns[2]));
        if size <= 0 {
            return exec_err!("a window's size must be positive");
        }
        let times = columns[0].as_primitive::<TimestampMicrosecondType>();
        let starts: PrimitiveArray<TimestampMicrosecondType> = times.unary_opt(|time| floor(time, size, offset));
        Ok(ColumnarValue::Array(Arc::new(starts.with_data_type(columns[0].data_type().clone()))))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Lister {
    /// Starts of all windows of a row: `(ts, slide, size, offset)`.
    Hop,
    /// Ends of all windows of a row: `(ts, step, size, offset)`.
    Cumulate,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct WindowList {
    lister: Lister,
    signature: Signature,
}

impl ScalarUDFImpl for WindowList {
    fn name(&self) -> &str {
        match self.lister {
            Lister::Hop => HOP_STARTS,
            Lister::Cumulate => CUMULATE_ENDS,
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        coerced(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(Arc::new(Field::new("item", types[0].clone(), true))))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let data_type = columns[0].data_type().clone();
        let times = columns[0].as_primitive::<TimestampMicrosecondType>();
        let (step, size, offset) = (constant(&columns[1]), constant(&columns[2]), constant(&columns[3]));
        if step <= 0 || size <= 0 {
            return exec_err!("a window's step and size must be positive");
        }
        let mut values = Int64Builder::new();
        let mut offsets = vec![0_i32];
        for time in times {
            if let Some(time) = time {
                match self.lister {
                    Lister::Hop => hop_starts(time, step, size, offset, |start| values.append_value(start)),
                    Lister::Cumulate => cumulate_ends(time, step, size, offset, |end| values.append_value(end)),
                }
            }
            let Ok(end) = i32::try_from(values.values_slice().len()) else {
                return exec_err!("the windows of one batch are too many");
            };
            offsets.push(end);
        }
        let values = PrimitiveArray::<TimestampMicrosecondType>::new(values.finish().values().clone(), None);
        let values = arrow::compute::cast(&values, &data_type)?;
        let nulls: Option<NullBuffer> = times.nulls().cloned();
        let item = Arc::new(Field::new("item", data_type, true));
        let list = ListArray::try_new(item, OffsetBuffer::new(offsets.into()), values, nulls)?;
        Ok(ColumnarValue::Array(Arc::new(list)))
    }
}

/// Windows `[start, start + size)` that hold `time`, starts at `offset + n × slide`, oldest first.
fn hop_starts(time: i64, slide: i64, size: i64, offset: i64, mut put: impl FnMut(i64)) {
    let Some(last) = floor(time, slide, offset) else { return };
    // A slide longer than the size leaves gaps, in which a row has no window.
    let Some(reach) = time.checked_sub(size) else { return };
    let n_before = (last - reach - 1).div_euclid(slide);
    for i in (0..=n_before).rev() {
        put(last - i * slide);
    }
}

/// Ends of the windows `[start, start + n × step)` that hold `time`, `start` at `offset + n × size`.
fn cumulate_ends(time: i64, step: i64, size: i64, offset: i64, mut put: impl FnMut(i64)) {
    let Some(start) = floor(time, size, offset) else { return };
    let Some(last) = start.checked_add(size) else { return };
    let mut end = start + ((time - start) / step + 1) * step;
    while end <= last {
        put(end);
        end += step;
    }
}

fn floor(time: i64, unit: i64, offset: i64) -> Option<i64> {
    let past = time.checked_sub(offset)?.rem_euclid(unit);
    time.checked_sub(past)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Edge {
    Start,
    End,
}

/// Start or end of the session that a row is in: `(ts, gap) OVER (PARTITION BY … ORDER BY ts)`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Session {
    edge: Edge,
    signature: Signature,
}

impl WindowUDFImpl for Session {
    fn name(&self) -> &str {
        match self.edge {
            Edge::Start => SESSION_START,
            Edge::End => SESSION_END,
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        coerced(types)
    }

    fn field(&self, args: WindowUDFFieldArgs<'_>) -> Result<FieldRef> {
        let data_type = args.input_fields()[0].data_type().clone();
        Ok(Arc::new(Field::new(args.name(), data_type, true)))
    }

    fn partition_evaluator(&self, _: PartitionEvaluatorArgs<'_>) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(Sessions(self.edge)))
    }
}

#[derive(Debug)]
struct Sessions(Edge);

impl PartitionEvaluator for Sessions {
    fn evaluate_all(&mut self, values: &[ArrayRef], n_rows: usize) -> Result<ArrayRef> {
        let times = values[0].as_primitive::<TimestampMicrosecondType>();
        let gap = if n_rows == 0 { 0 } else { values[1].as_primitive::<Int64Type>().value(0) };
        let mut edges = vec![0_i64; n_rows];
        let mut close = |session: Range<usize>| {
            if session.is_empty() {
                return;
            }
            let edge = match self.0 {
                Edge::Start => times.value(session.start),
                Edge::End => times.value(session.end - 1).saturating_add(gap),
            };
            edges[session].fill(edge);
        };
        let mut start = 0;
        for i in 1..n_rows {
            // Sessions that touch are one, as in Flink.
            if times.value(i) > times.value(i - 1).saturating_add(gap) {
                close(start..i);
                start = i;
            }
        }
        close(start..n_rows);
        let edges = PrimitiveArray::<TimestampMicrosecondType>::new(edges.into(), times.nulls().cloned());
        Ok(arrow::compute::cast(&edges, values[0].data_type())?)
    }
}

#[cfg(test)]
mod tests {
    use super::{cumulate_ends, hop_starts};

    fn hops(time: i64, slide: i64, size: i64, offset: i64) -> Vec<i64> {
        let mut all = Vec::new();
        hop_starts(time, slide, size, offset, |s| all.push(s));
        all
    }

    fn ends(time: i64, step: i64, size: i64, offset: i64) -> Vec<i64> {
        let mut all = Vec::new();
        cumulate_ends(time, step, size, offset, |e| all.push(e));
        all
    }

    #[test]
    fn hop_gives_every_window_that_holds_the_time() {
        assert_eq!(hops(12, 5, 10, 0), [5, 10]);
        assert_eq!(hops(10, 5, 10, 0), [5, 10]);
        assert_eq!(hops(-1, 5, 10, 0), [-10, -5]);
        assert_eq!(hops(12, 5, 10, 2), [7, 12]);
        assert_eq!(hops(12, 5, 12, 0), [5, 10], "the size need not be a multiple of the slide");
        assert_eq!(hops(10, 5, 12, 0), [0, 5, 10]);
        assert_eq!(hops(13, 10, 5, 0), [10]);
        assert!(hops(17, 10, 5, 0).is_empty(), "in a gap between windows");
    }

    #[test]
    fn cumulate_gives_the_ends_after_the_time() {
        assert_eq!(ends(0, 2, 6, 0), [2, 4, 6]);
        assert_eq!(ends(2, 2, 6, 0), [4, 6]);
        assert_eq!(ends(5, 2, 6, 0), [6]);
        assert_eq!(ends(-1, 2, 6, 0), [0]);
        assert_eq!(ends(1, 2, 6, 1), [3, 5, 7]);
    }
}
