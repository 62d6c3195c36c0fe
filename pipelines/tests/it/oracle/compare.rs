//! Results as multisets of rows. Floats are equal within a billionth: their last digits follow the order of summing.

use std::cmp::Ordering;
use std::fmt::Write as _;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// Floats may differ by this share of their size, or by this much near zero.
const RELATIVE: f64 = 1e-9;
const ABSOLUTE: f64 = 1e-6;

/// A row: what is exact as text, and the floats.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Line {
    pub(crate) exact: String,
    pub(crate) floats: Vec<f64>,
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.exact)?;
        self.floats.iter().try_for_each(|x| write!(f, " ~{x}"))
    }
}

/// All rows, sorted.
pub(crate) fn lines(batches: &[RecordBatch]) -> Vec<Line> {
    let options = FormatOptions::default().with_null("NULL");
    let mut lines = Vec::new();
    for batch in batches {
        let is_float = |i: usize| batch.column(i).data_type() == &DataType::Float64;
        let texts: Vec<ArrayFormatter<'_>> = batch
            .columns()
            .iter()
            .map(|c| ArrayFormatter::try_new(c, &options).expect("every type of a result has a text form"))
            .collect();
        for row in 0..batch.num_rows() {
            let mut line = Line { exact: String::new(), floats: Vec::new() };
            for (i, text) in texts.iter().enumerate() {
                if is_float(i) && batch.column(i).is_valid(row) {
                    line.floats.push(batch.column(i).as_primitive::<Float64Type>().value(row));
                    line.exact.push_str("~ | ");
                } else {
                    write!(line.exact, "{} | ", text.value(row)).expect("a String takes every text");
                }
            }
            lines.push(line);
        }
    }
    lines.sort_by(order);
    lines
}

pub(crate) fn order(a: &Line, b: &Line) -> Ordering {
    a.exact.cmp(&b.exact).then_with(|| {
        let by_float = a.floats.iter().zip(&b.floats).map(|(x, y)| x.total_cmp(y));
        by_float.fold(Ordering::Equal, Ordering::then)
    })
}

fn same(a: &Line, b: &Line, absolute: f64) -> bool {
    let close = |x: f64, y: f64| {
        let equal = x.total_cmp(&y) == Ordering::Equal || (x.is_nan() && y.is_nan());
        equal || (x - y).abs() <= absolute + RELATIVE * x.abs().max(y.abs())
    };
    a.exact == b.exact && a.floats.len() == b.floats.len() && a.floats.iter().zip(&b.floats).all(|(x, y)| close(*x, *y))
}

/// What only one of two sorted results has; `None` if they are equal.
pub(crate) fn difference(kept: &[Line], plain: &[Line]) -> Option<String> {
    difference_within(kept, plain, ABSOLUTE)
}

/// The same with another bound for floats near zero.
pub(crate) fn difference_within(kept: &[Line], plain: &[Line], absolute: f64) -> Option<String> {
    if kept.len() == plain.len() && kept.iter().zip(plain).all(|(a, b)| same(a, b, absolute)) {
        return None;
    }
    let mut left: Vec<Option<&Line>> = plain.iter().map(Some).collect();
    let mut text = String::new();
    for line in kept {
        match left.iter_mut().find(|l| l.is_some_and(|l| same(l, line, absolute))) {
            Some(found) => *found = None,
            None => writeln!(text, "  only kept:  {line}").expect("a String takes every text"),
        }
    }
    for line in left.into_iter().flatten() {
        writeln!(text, "  only plain: {line}").expect("a String takes every text");
    }
    // Rows that are equal pair by pair in another order were sorted apart by the last digits of a float.
    (!text.is_empty()).then_some(text)
}
