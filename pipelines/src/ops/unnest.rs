//! UNNEST: one row per element of a list. The lists of a row are a function of the row alone, so nothing is remembered.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::cast::as_int64_array;
use datafusion::logical_expr as logical;
use model::Delta;

use super::{Operator, Step};
use crate::error::OpResult;
use crate::rows::batch_of;

/// Where an output column comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    /// Repeated for every element.
    Column(usize),
    /// The elements of a list.
    Elements(usize),
    /// A field of a struct, repeated for every element.
    Member(usize, usize),
}

/// What to do with a row whose lists have no element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lengths {
    of_null: i64,
    of_empty: i64,
}

/// Unnests lists in parallel; shorter ones are filled up with NULL.
#[derive(Debug)]
pub(crate) struct Unnest {
    columns: Vec<From>,
    lists: Vec<usize>,
    lengths: Lengths,
    schema: SchemaRef,
}

impl Unnest {
    /// The operator of a plan node; the error is why there is none.
    pub(crate) fn new(plan: &logical::Unnest, schema: SchemaRef) -> Result<Self, String> {
        if plan.list_type_columns.iter().any(|(_, list)| list.depth != 1) {
            return Err("UNNEST of lists within lists has no incremental form yet; unnest in two steps".to_owned());
        }
        let lists: Vec<usize> = plan.list_type_columns.iter().map(|(at, _)| *at).collect();
        let mut columns: Vec<From> = Vec::new();
        for (i, input) in plan.dependency_indices.iter().enumerate() {
            columns.push(if lists.contains(input) {
                From::Elements(*input)
            } else if plan.struct_type_columns.contains(input) {
                // The members of a struct are consecutive columns.
                let member = plan.dependency_indices[..i].iter().filter(|d| *d == input).count();
                From::Member(*input, member)
            } else {
                From::Column(*input)
            });
        }
        let keep = i64::from(plan.options.preserve_nulls());
        let lengths = Lengths { of_null: keep, of_empty: i64::from(plan.options.expand_empty_as_null()) };
        Ok(Self { columns, lists, lengths, schema })
    }

    /// How many rows each row becomes.
    fn counts(&self, delta: &Delta) -> OpResult<Vec<i64>> {
        if self.lists.is_empty() {
            return Ok(vec![1; delta.len()]);
        }
        let mut longest = vec![0_i64; delta.len()];
        for list in &self.lists {
            let lengths = cast(&arrow::compute::kernels::length::length(delta.rows.column(*list))?, &DataType::Int64)?;
            for (sum, length) in longest.iter_mut().zip(as_int64_array(&lengths)?) {
                let length = match length {
                    None => self.lengths.of_null,
                    Some(0) => self.lengths.of_empty,
                    Some(n) => n,
                };
                *sum = (*sum).max(length);
            }
        }
        Ok(longest)
    }
}

impl Operator for Unnest {
    fn is_stateless(&self) -> bool {
        true
    }

    fn step(&mut self, inputs: &[Option<&Delta>], _: &Step<'_>) -> OpResult<Option<Delta>> {
        let Some(delta) = inputs[0] else { return Ok(None) };
        let counts = self.counts(delta)?;
        let repeated = |n: &i64| usize::try_from(*n).unwrap_or(0);
        let rows: UInt32Array =
            (0_u32..).zip(&counts).flat_map(|(row, n)| std::iter::repeat_n(row, repeated(n))).collect();
        if rows.is_empty() {
            return Ok(None);
        }
        let columns = self
            .columns
            .iter()
            .map(|from| match from {
                From::Column(i) => Ok(take(delta.rows.column(*i), &rows, None)?),
                From::Elements(i) => elements(delta.rows.column(*i), &counts),
                From::Member(i, member) => {
                    let members = delta.rows.column(*i).as_struct();
                    let column = members.column(*member);
                    let nulls = arrow::buffer::NullBuffer::union(members.nulls(), column.nulls());
                    let column = arrow::array::make_array(column.to_data().into_builder().nulls(nulls).build()?);
                    Ok(take(&column, &rows, None)?)
                }
            })
            .collect::<OpResult<Vec<ArrayRef>>>()?;
        let weights = take(&delta.weights, &rows, None)?;
        let weights: Int64Array = as_int64_array(&weights)?.clone();
        let missed = delta.missed.as_ref().map(|missed| take(missed, &rows, None)).transpose()?;
        let missed = missed.map(|missed| as_int64_array(&missed).cloned()).transpose()?;
        Ok(Some(Delta::new(batch_of(&self.schema, columns, weights.len())?, weights).with_missed(missed)))
    }
}

/// The elements of each list, filled up with NULL to the row's count.
fn elements(column: &ArrayRef, counts: &[i64]) -> OpResult<ArrayRef> {
    let item = match column.data_type() {
        DataType::List(item) | DataType::FixedSizeList(item, _) | DataType::LargeList(item) => Arc::clone(item),
        other => {
            return Err(datafusion::error::DataFusionError::Internal(format!("{other} cannot be unnested")));
        }
    };
    let column = cast(column, &DataType::LargeList(item))?;
    let lists = column.as_list::<i64>();
    let mut indices = Vec::new();
    for (row, count) in counts.iter().enumerate() {
        let length = if lists.is_null(row) { 0 } else { lists.value_length(row) };
        let start = lists.value_offsets()[row];
        indices.extend((0..*count).map(|i| (i < length).then_some((start + i) as u64)));
    }
    Ok(take(lists.values(), &arrow::array::UInt64Array::from(indices), None)?)
}
