//! APPROX_DISTINCT: DataFusion estimates it by HyperLogLog, from the longest run of zeros that a register has met.
//!
//! Here a register keeps how often it has met each run, so that deletes are exact. A change costs its own place, a result
//! the registers in use and not the rows of the group. The estimate itself is made by DataFusion's function, which takes
//! registers as the state of another one, so both give the same.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryArray, RecordBatch, UInt64Array};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::common::hash_utils::{HLL_RANDOM_STATE, create_hashes};
use datafusion::error::DataFusionError;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use super::Accumulator;
use super::bags::Bags;
use crate::error::OpResult;
use crate::ops::keyed::malformed;

/// So many low bits of a hash choose the register.
const INDEX_BITS: u32 = 14;
const REGISTERS: usize = 1 << INDEX_BITS;

/// Register and run of zeros as the key of a count.
type Place = [u8; 3];

/// The aggregate.
#[derive(Debug)]
pub(super) struct Sketch {
    arg: usize,
    function: AggregateFunctionExpr,
    /// The counts of each group.
    bags: Bags,
    hashes: Vec<u64>,
}

impl Sketch {
    /// Types that DataFusion estimates; those of few values it counts.
    pub(super) fn supports(arg: &DataType) -> bool {
        use DataType::{Date32, Decimal128, Int32, Int64, LargeUtf8, Timestamp, UInt32, UInt64, Utf8};
        matches!(arg, Int32 | Int64 | UInt32 | UInt64 | Date32 | Timestamp(_, _) | Decimal128(_, _) | Utf8 | LargeUtf8)
    }

    pub(super) fn new(arg: usize, function: AggregateFunctionExpr) -> Self {
        Self { arg, function, bags: Bags::default(), hashes: Vec::new() }
    }

    fn evaluate_one(&self, group: u32) -> OpResult<Option<u64>> {
        let mut registers = vec![0_u8; REGISTERS];
        for (key, weight) in self.bags.of(group).iter() {
            let [high, low, run] = Place::try_from(key).map_err(|_| malformed())?;
            let register = usize::from(u16::from_be_bytes([high, low]));
            if *weight > 0 {
                registers[register] = registers[register].max(run);
            }
        }
        let mut accumulator = self.function.create_accumulator()?;
        accumulator.merge_batch(&[Arc::new(BinaryArray::from_vec(vec![registers.as_slice()]))])?;
        match accumulator.evaluate()? {
            ScalarValue::UInt64(n) => Ok(n),
            other => Err(DataFusionError::Internal(format!("an estimate that is no number of values: {other}"))),
        }
    }
}

/// The register of a hash, and the run of zeros behind the bits that choose it, from 1.
fn place(hash: u64) -> Place {
    let register = u16::try_from(hash % (1 << INDEX_BITS)).unwrap_or(0).to_be_bytes();
    let run = (hash >> INDEX_BITS).trailing_zeros().min(u64::BITS - INDEX_BITS) + 1;
    [register[0], register[1], u8::try_from(run).unwrap_or(u8::MAX)]
}

impl Accumulator for Sketch {
    fn resize(&mut self, n_groups: usize) {
        self.bags.resize(n_groups);
    }

    fn clear(&mut self, group: usize) {
        self.bags.clear(group);
    }

    fn update(&mut self, groups: &[u32], weights: &[i64], batch: &RecordBatch) -> OpResult<()> {
        let column = batch.column(self.arg);
        self.hashes.clear();
        self.hashes.resize(column.len(), 0);
        create_hashes([column], &HLL_RANDOM_STATE, &mut self.hashes)?;
        for (i, (group, weight)) in groups.iter().zip(weights).enumerate() {
            if *weight != 0 && column.is_valid(i) {
                self.bags.add(*group, &place(self.hashes[i]), *weight);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, groups: &[u32]) -> OpResult<ArrayRef> {
        let estimates = groups.iter().map(|group| self.evaluate_one(*group)).collect::<OpResult<Vec<_>>>()?;
        Ok(Arc::new(UInt64Array::from(estimates)))
    }

    fn bags(&mut self) -> Option<&mut Bags> {
        Some(&mut self.bags)
    }

    fn load_entry(&mut self, group: usize, key: &[u8], value: &[u8]) -> OpResult<()> {
        Place::try_from(key).map_err(|_| malformed())?;
        self.bags.load_entry(group, key, value)
    }
}
