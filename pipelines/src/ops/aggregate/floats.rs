//! SUM, AVG, VAR and STDDEV of floats: exact sums of the values and of their squares, so that deletes leave no drift
//! and a change costs the same in a large group as in a small one.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch};
use arrow::datatypes::{DataType, Float64Type};

use super::Accumulator;
use super::bags::take_i64;
use super::exact::{ExactSum, Terms};
use crate::error::OpResult;

/// Which figure is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Figure {
    Sum,
    Average,
    /// Divided by n − `less`: 0 for the population, 1 for a sample.
    Variance {
        less: u8,
    },
    Deviation {
        less: u8,
    },
}

impl Figure {
    /// By DataFusion's name of the function.
    pub(super) fn of(function: &str) -> Option<Self> {
        Some(match function {
            "sum" => Self::Sum,
            "avg" => Self::Average,
            "var" | "var_samp" => Self::Variance { less: 1 },
            "var_pop" => Self::Variance { less: 0 },
            "stddev" | "stddev_samp" => Self::Deviation { less: 1 },
            "stddev_pop" => Self::Deviation { less: 0 },
            _ => return None,
        })
    }

    fn needs_squares(self) -> bool {
        !matches!(self, Self::Sum | Self::Average)
    }
}

#[derive(Debug, Clone)]
struct Group {
    count: i64,
    sum: ExactSum,
    squares: ExactSum,
}

impl Group {
    fn empty() -> Self {
        Self { count: 0, sum: ExactSum::new(Terms::Values), squares: ExactSum::new(Terms::Products) }
    }

    fn figure(&self, figure: Figure) -> Option<f64> {
        let variance = |less: u8| {
            let divisor = self.count - i64::from(less);
            (divisor > 0)
                .then(|| ExactSum::co_deviation(self.count, &self.sum, &self.sum, &self.squares) / as_f64(divisor))
        };
        match figure {
            _ if self.count <= 0 => None,
            Figure::Sum => Some(self.sum.value()),
            Figure::Average => Some(self.sum.value() / as_f64(self.count)),
            Figure::Variance { less } => variance(less),
            Figure::Deviation { less } => variance(less).map(f64::sqrt),
        }
    }
}

/// One of the figures, for all groups.
#[derive(Debug)]
pub(super) struct Floats {
    arg: usize,
    figure: Figure,
    groups: Vec<Group>,
}

impl Floats {
    pub(super) fn supports(arg: &DataType, output: &DataType) -> bool {
        (arg, output) == (&DataType::Float64, &DataType::Float64)
    }

    pub(super) fn new(arg: usize, figure: Figure) -> Self {
        Self { arg, figure, groups: Vec::new() }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a number of rows")]
pub(super) fn as_f64(n: i64) -> f64 {
    n as f64
}

impl Accumulator for Floats {
    fn resize(&mut self, n_groups: usize) {
        self.groups.resize_with(n_groups, Group::empty);
    }

    fn clear(&mut self, group: usize) {
        self.groups[group] = Group::empty();
    }

    fn update(&mut self, groups: &[u32], weights: &[i64], batch: &RecordBatch) -> OpResult<()> {
        let values = batch.column(self.arg).as_primitive::<Float64Type>();
        for (i, (group, weight)) in groups.iter().zip(weights).enumerate() {
            if *weight == 0 || values.is_null(i) {
                continue;
            }
            let group = &mut self.groups[*group as usize];
            group.count += weight;
            group.sum.add(values.value(i), *weight);
            if self.figure.needs_squares() {
                group.squares.add_product(values.value(i), values.value(i), *weight);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, groups: &[u32]) -> OpResult<ArrayRef> {
        let values = groups.iter().map(|g| self.groups[*g as usize].figure(self.figure));
        Ok(Arc::new(values.collect::<Float64Array>()))
    }

    fn save(&self, group: usize, out: &mut Vec<u8>) {
        let group = &self.groups[group];
        out.extend_from_slice(&group.count.to_be_bytes());
        group.sum.save(out);
        if self.figure.needs_squares() {
            group.squares.save(out);
        }
    }

    fn load(&mut self, group: usize, bytes: &mut &[u8]) -> OpResult<()> {
        let group = &mut self.groups[group];
        group.count = take_i64(bytes)?;
        group.sum.load(bytes)?;
        match self.figure.needs_squares() {
            true => group.squares.load(bytes),
            false => Ok(()),
        }
    }
}
