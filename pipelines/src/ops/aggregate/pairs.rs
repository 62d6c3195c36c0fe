//! CORR, COVAR and REGR_*: exact sums of both arguments and of their products, so that deletes leave no drift and a
//! change costs the same in a large group as in a small one.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, UInt64Array};
use arrow::datatypes::Float64Type;

use super::Accumulator;
use super::bags::take_i64;
use super::exact::{ExactSum, Terms};
use super::floats::as_f64;
use crate::error::OpResult;

/// Which figure of pairs is wanted. In the functions of regression the first argument depends on the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PairFigure {
    /// Divided by n − `less`: 0 for the population, 1 for a sample.
    Covariance {
        less: u8,
    },
    Correlation,
    Slope,
    Intercept,
    Count,
    /// The share of the variance that the regression explains.
    Explained,
    /// Mean of one argument.
    Mean(Arg),
    /// Sum of the squared deviations of one argument.
    Squares(Arg),
    /// Sum of the products of both deviations.
    Products,
}

/// One of two arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arg {
    First,
    Second,
}

impl PairFigure {
    /// By DataFusion's name of the function.
    pub(super) fn of(function: &str) -> Option<Self> {
        Some(match function {
            "covar" | "covar_samp" => Self::Covariance { less: 1 },
            "covar_pop" => Self::Covariance { less: 0 },
            "corr" => Self::Correlation,
            "regr_slope" => Self::Slope,
            "regr_intercept" => Self::Intercept,
            "regr_count" => Self::Count,
            "regr_r2" => Self::Explained,
            "regr_avgx" => Self::Mean(Arg::Second),
            "regr_avgy" => Self::Mean(Arg::First),
            "regr_sxx" => Self::Squares(Arg::Second),
            "regr_syy" => Self::Squares(Arg::First),
            "regr_sxy" => Self::Products,
            _ => return None,
        })
    }
}

/// The sums of one group over the pairs of which neither value is NULL.
#[derive(Debug, Clone)]
struct Group {
    count: i64,
    sums: [ExactSum; 2],
    squares: [ExactSum; 2],
    products: ExactSum,
}

impl Group {
    fn empty() -> Self {
        let values = || ExactSum::new(Terms::Values);
        let products = || ExactSum::new(Terms::Products);
        Self { count: 0, sums: [values(), values()], squares: [products(), products()], products: products() }
    }

    fn all(&self) -> [&ExactSum; 5] {
        let ([a, b], [aa, bb]) = (&self.sums, &self.squares);
        [a, b, aa, bb, &self.products]
    }

    fn mean(&self, arg: Arg) -> f64 {
        self.sums[arg as usize].value() / as_f64(self.count)
    }

    /// Sum of squared deviations.
    fn squares(&self, arg: Arg) -> f64 {
        let sum = &self.sums[arg as usize];
        ExactSum::co_deviation(self.count, sum, sum, &self.squares[arg as usize])
    }

    /// Sum of products of deviations.
    fn products(&self) -> f64 {
        ExactSum::co_deviation(self.count, &self.sums[0], &self.sums[1], &self.products)
    }

    fn slope(&self) -> Option<f64> {
        let xx = self.squares(Arg::Second);
        (self.count > 1 && !is_zero(xx)).then(|| self.products() / xx)
    }

    fn figure(&self, figure: PairFigure) -> Option<f64> {
        if self.count <= 0 {
            return None;
        }
        match figure {
            // It is a whole number and put out as one.
            PairFigure::Count => None,
            PairFigure::Covariance { less } => {
                let divisor = self.count - i64::from(less);
                (divisor > 0).then(|| self.products() / as_f64(divisor))
            }
            PairFigure::Correlation => self.correlation(),
            PairFigure::Slope => self.slope(),
            PairFigure::Intercept => self.slope().map(|slope| self.mean(Arg::First) - slope * self.mean(Arg::Second)),
            PairFigure::Explained => {
                let (yy, xx, xy) = (self.squares(Arg::First), self.squares(Arg::Second), self.products());
                (self.count > 1 && !is_zero(xx) && !is_zero(yy)).then(|| (xy / xx) * (xy / yy))
            }
            PairFigure::Mean(arg) => Some(self.mean(arg)),
            PairFigure::Squares(arg) => Some(self.squares(arg)),
            PairFigure::Products => Some(self.products()),
        }
    }

    fn correlation(&self) -> Option<f64> {
        let is_nan = [Arg::First, Arg::Second].map(|arg| self.mean(arg).is_nan());
        if is_nan == [true, true] {
            return Some(f64::NAN);
        }
        let (a, b) = (self.squares(Arg::First), self.squares(Arg::Second));
        let is_there = is_nan == [false, false] && self.count > 1 && !is_zero(a) && !is_zero(b);
        is_there.then(|| self.products() / a.sqrt() / b.sqrt())
    }
}

/// The sums are exact, so that nothing varies is told by zero itself.
fn is_zero(value: f64) -> bool {
    value == 0.0
}

/// One of the figures, for all groups.
#[derive(Debug)]
pub(super) struct Pairs {
    args: [usize; 2],
    figure: PairFigure,
    groups: Vec<Group>,
}

impl Pairs {
    /// `args` are two DOUBLE columns.
    pub(super) fn new(args: [usize; 2], figure: PairFigure) -> Self {
        Self { args, figure, groups: Vec::new() }
    }
}

impl Accumulator for Pairs {
    fn resize(&mut self, n_groups: usize) {
        self.groups.resize_with(n_groups, Group::empty);
    }

    fn clear(&mut self, group: usize) {
        self.groups[group] = Group::empty();
    }

    fn update(&mut self, groups: &[u32], weights: &[i64], batch: &RecordBatch) -> OpResult<()> {
        let columns = self.args.map(|arg| batch.column(arg).as_primitive::<Float64Type>());
        for (i, (group, weight)) in groups.iter().zip(weights).enumerate() {
            if *weight == 0 || columns.iter().any(|column| column.is_null(i)) {
                continue;
            }
            let group = &mut self.groups[*group as usize];
            let [a, b] = columns.map(|column| column.value(i));
            group.count += weight;
            for (at, value) in [a, b].into_iter().enumerate() {
                group.sums[at].add(value, *weight);
                group.squares[at].add_product(value, value, *weight);
            }
            group.products.add_product(a, b, *weight);
        }
        Ok(())
    }

    fn evaluate(&mut self, groups: &[u32]) -> OpResult<ArrayRef> {
        let groups = groups.iter().map(|g| &self.groups[*g as usize]);
        Ok(match self.figure {
            PairFigure::Count => Arc::new(groups.map(|g| u64::try_from(g.count).unwrap_or(0)).collect::<UInt64Array>()),
            figure => Arc::new(groups.map(|g| g.figure(figure)).collect::<Float64Array>()),
        })
    }

    fn save(&self, group: usize, out: &mut Vec<u8>) {
        let group = &self.groups[group];
        out.extend_from_slice(&group.count.to_be_bytes());
        group.all().into_iter().for_each(|sum| sum.save(out));
    }

    fn load(&mut self, group: usize, bytes: &mut &[u8]) -> OpResult<()> {
        let group = &mut self.groups[group];
        group.count = take_i64(bytes)?;
        let ([a, b], [aa, bb]) = (&mut group.sums, &mut group.squares);
        [a, b, aa, bb, &mut group.products].into_iter().try_for_each(|sum| sum.load(bytes))
    }
}
