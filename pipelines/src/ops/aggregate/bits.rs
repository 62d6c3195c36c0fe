//! BIT_AND, BIT_OR and BIT_XOR: how often each bit is set, so that a change costs the same in a large group as in a
//! small one.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, PrimitiveArray, RecordBatch};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use datafusion::error::DataFusionError;

use super::Accumulator;
use super::bags::take_i64;
use crate::error::OpResult;

/// Bits of the widest number.
const BITS: usize = 64;

/// How the bits are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BitsOf {
    And,
    Or,
    Xor,
}

impl BitsOf {
    /// By DataFusion's name of the function.
    pub(super) fn of(function: &str) -> Option<Self> {
        Some(match function {
            "bit_and" => Self::And,
            "bit_or" => Self::Or,
            "bit_xor" => Self::Xor,
            _ => return None,
        })
    }
}

/// Number of values that are not NULL, and how many of them have each bit.
#[derive(Debug, Clone)]
struct Group {
    count: i64,
    set: Box<[i64; BITS]>,
}

impl Group {
    fn empty() -> Self {
        Self { count: 0, set: Box::new([0; BITS]) }
    }

    fn value(&self, of: BitsOf) -> Option<u64> {
        let is_set = |n: i64| match of {
            BitsOf::And => n == self.count,
            BitsOf::Or => n != 0,
            BitsOf::Xor => n % 2 != 0,
        };
        let bits = self.set.iter().enumerate().filter(|(_, n)| is_set(**n));
        (self.count > 0).then(|| bits.fold(0, |all, (bit, _)| all | (1 << bit)))
    }
}

/// One of them, for all groups.
#[derive(Debug)]
pub(super) struct Bits {
    arg: usize,
    of: BitsOf,
    output: DataType,
    groups: Vec<Group>,
}

impl Bits {
    pub(super) fn supports(arg: &DataType, output: &DataType) -> bool {
        arg.is_integer() && arg == output
    }

    pub(super) fn new(arg: usize, of: BitsOf, output: DataType) -> Self {
        Self { arg, of, output, groups: Vec::new() }
    }

    /// The values as 64 bits each, negative ones with all higher bits set.
    fn wide(column: &ArrayRef) -> OpResult<Int64Array> {
        macro_rules! wide {
            ($t:ty) => {
                column.as_primitive::<$t>().unary(i64::from)
            };
        }
        Ok(match column.data_type() {
            DataType::Int8 => wide!(Int8Type),
            DataType::Int16 => wide!(Int16Type),
            DataType::Int32 => wide!(Int32Type),
            DataType::Int64 => column.as_primitive::<Int64Type>().clone(),
            DataType::UInt8 => wide!(UInt8Type),
            DataType::UInt16 => wide!(UInt16Type),
            DataType::UInt32 => wide!(UInt32Type),
            DataType::UInt64 => column.as_primitive::<UInt64Type>().unary(u64::cast_signed),
            other => return Err(DataFusionError::Internal(format!("{other} has no bits to count"))),
        })
    }
}

/// Numbers of a narrower type, whose higher bits say nothing new.
fn narrow<T: ArrowPrimitiveType>(values: &[Option<i64>]) -> ArrayRef
where
    T::Native: TryFrom<i64>,
{
    let one = |value: &Option<i64>| value.and_then(|v| T::Native::try_from(v).ok());
    Arc::new(values.iter().map(one).collect::<PrimitiveArray<T>>())
}

impl Accumulator for Bits {
    fn resize(&mut self, n_groups: usize) {
        self.groups.resize_with(n_groups, Group::empty);
    }

    fn clear(&mut self, group: usize) {
        self.groups[group] = Group::empty();
    }

    fn update(&mut self, groups: &[u32], weights: &[i64], batch: &RecordBatch) -> OpResult<()> {
        let values = Self::wide(batch.column(self.arg))?;
        for (i, (group, weight)) in groups.iter().zip(weights).enumerate() {
            if *weight == 0 || values.is_null(i) {
                continue;
            }
            let group = &mut self.groups[*group as usize];
            let bits = values.value(i).cast_unsigned();
            group.count += weight;
            for (bit, n) in group.set.iter_mut().enumerate() {
                *n += weight * i64::from(bits >> bit & 1 == 1);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, groups: &[u32]) -> OpResult<ArrayRef> {
        let values = groups.iter().map(|g| self.groups[*g as usize].value(self.of).map(u64::cast_signed));
        let values: Vec<Option<i64>> = values.collect();
        Ok(match self.output {
            DataType::Int8 => narrow::<Int8Type>(&values),
            DataType::Int16 => narrow::<Int16Type>(&values),
            DataType::Int32 => narrow::<Int32Type>(&values),
            DataType::UInt8 => narrow::<UInt8Type>(&values),
            DataType::UInt16 => narrow::<UInt16Type>(&values),
            DataType::UInt32 => narrow::<UInt32Type>(&values),
            DataType::UInt64 => Arc::new(Int64Array::from(values).unary::<_, UInt64Type>(i64::cast_unsigned)),
            _ => Arc::new(Int64Array::from(values)),
        })
    }

    fn save(&self, group: usize, out: &mut Vec<u8>) {
        let group = &self.groups[group];
        std::iter::once(&group.count).chain(group.set.iter()).for_each(|n| out.extend_from_slice(&n.to_be_bytes()));
    }

    fn load(&mut self, group: usize, bytes: &mut &[u8]) -> OpResult<()> {
        let group = &mut self.groups[group];
        group.count = take_i64(bytes)?;
        group.set.iter_mut().try_for_each(|n| {
            *n = take_i64(bytes)?;
            Ok(())
        })
    }
}
