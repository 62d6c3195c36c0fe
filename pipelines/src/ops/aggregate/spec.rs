//! Which accumulator keeps an aggregate.

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use super::Accumulator;
use super::bits::{Bits, BitsOf};
use super::distinct::Distinct;
use super::edge::{Best, Edge, EdgeSpec, End};
use super::floats::{Figure, Floats};
use super::general::General;
use super::linear::{Count, DecimalAverage, Sum};
use super::mode::Mode;
use super::nth::Nth;
use super::pairs::{PairFigure, Pairs};
use super::ranked::{Ranked, Wanted};
use super::sketch::Sketch;
use crate::error::OpResult;

/// One aggregate of the SELECT list. Columns are indexes into the operator's input.
#[derive(Debug, Clone)]
pub(crate) struct AggregateSpec {
    /// Function name as DataFusion knows it.
    pub(crate) function: String,
    /// Argument columns.
    pub(crate) args: Vec<usize>,
    /// Column of the FILTER clause.
    pub(crate) filter: Option<usize>,
    /// DISTINCT.
    pub(crate) distinct: bool,
    /// ORDER BY inside the call.
    pub(crate) order: Vec<(usize, SortOptions)>,
    /// IGNORE NULLS.
    pub(crate) ignore_nulls: bool,
    /// The share of a percentile, 0 to 1, counted from the first value in its order.
    pub(crate) share: Option<f64>,
    /// WITHIN GROUP (ORDER BY … DESC).
    pub(crate) descending: bool,
    /// The place that NTH_VALUE asks for, not 0.
    pub(crate) nth: Option<i64>,
    /// Nothing is ever deleted from the input.
    pub(crate) append_only: bool,
    /// Type of the result.
    pub(crate) output: DataType,
    /// DataFusion's own function over the same columns, for aggregates without a form of ours.
    pub(crate) general: AggregateFunctionExpr,
}

impl AggregateSpec {
    pub(super) fn accumulator(self, input: &SchemaRef) -> OpResult<Box<dyn Accumulator>> {
        // The first and last of a set do not depend on how often its values occur.
        let counts_copies = !matches!(self.function.as_str(), "min" | "max" | "bool_and" | "bool_or");
        let (distinct, args) = (self.distinct && counts_copies, self.args.clone());
        let below = self.without_distinct(input)?;
        Ok(if distinct { Box::new(Distinct::new(below, &args, input)?) } else { below })
    }

    fn without_distinct(self, input: &SchemaRef) -> OpResult<Box<dyn Accumulator>> {
        let arg = self.args.first().copied();
        let type_of = |i: usize| input.field(i).data_type();
        Ok(match (self.function.as_str(), arg) {
            ("count", _) => Box::new(Count::new(self.args)),
            ("sum", Some(i)) if Sum::supports(type_of(i), &self.output) => Box::new(Sum::new(i, self.output)),
            ("avg", Some(i)) if DecimalAverage::supports(type_of(i), &self.output) => {
                Box::new(DecimalAverage::new(i, type_of(i), self.output))
            }
            ("min" | "bool_and", Some(i)) => self.edge(End::First, i, input)?,
            ("max" | "bool_or", Some(i)) => self.edge(End::Last, i, input)?,
            ("first_value", Some(i)) => self.edge(End::First, i, input)?,
            ("last_value", Some(i)) => self.edge(End::Last, i, input)?,
            ("median", Some(i)) => {
                Box::new(Ranked::new(i, Wanted::Median(Box::new(self.general)), input, self.output)?)
            }
            ("percentile_cont", Some(i))
                if *type_of(i) == DataType::Float64 && self.share.is_some_and(|share| (0.0..=1.0).contains(&share)) =>
            {
                let share = self.share.unwrap_or_default();
                Box::new(Ranked::new(i, Wanted::Between { share, descending: self.descending }, input, self.output)?)
            }
            ("percentile_disc", Some(i)) if self.share.is_some_and(|share| (0.0..=1.0).contains(&share)) => {
                let share = self.share.unwrap_or_default();
                Box::new(Ranked::new(i, Wanted::Discrete { share, descending: self.descending }, input, self.output)?)
            }
            ("nth_value", Some(i)) if self.nth.is_some() => {
                let spec = EdgeSpec { end: End::First, arg: i, order: self.order, skip_nulls: self.ignore_nulls };
                Box::new(Nth::new(self.nth.unwrap_or(1), spec, input)?)
            }
            ("mode", Some(i)) => Box::new(Mode::new(i, self.descending, input)?),
            (name, Some(i)) if Figure::of(name).is_some() && Floats::supports(type_of(i), &self.output) => {
                Box::new(Floats::new(i, Figure::of(name).unwrap_or(Figure::Sum)))
            }
            ("approx_distinct", Some(i)) if Sketch::supports(type_of(i)) => Box::new(Sketch::new(i, self.general)),
            (name, Some(i)) if BitsOf::of(name).is_some() && Bits::supports(type_of(i), &self.output) => {
                Box::new(Bits::new(i, BitsOf::of(name).unwrap_or(BitsOf::Xor), self.output))
            }
            (name, _) => match (PairFigure::of(name), self.args.as_slice()) {
                (Some(figure), [a, b]) if [type_of(*a), type_of(*b)] == [&DataType::Float64; 2] => {
                    Box::new(Pairs::new([*a, *b], figure))
                }
                _ => Box::new(General::new(self.general, &self.args, &self.order, input)?),
            },
        })
    }

    fn edge(self, end: End, arg: usize, input: &SchemaRef) -> OpResult<Box<dyn Accumulator>> {
        let is_value = matches!(self.function.as_str(), "first_value" | "last_value");
        let (order, skip_nulls) = if is_value { (self.order, self.ignore_nulls) } else { (Vec::new(), true) };
        let spec = EdgeSpec { end, arg, order, skip_nulls };
        Ok(match self.append_only {
            true => Box::new(Best::new(spec, input)?),
            false => Box::new(Edge::new(spec, input)?),
        })
    }
}
