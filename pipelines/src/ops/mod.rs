//! The operators that keep views: each takes the changes of its inputs and gives the change of its output.
//!
//! Invariant of every operator: after each step, the sum of all it has put out equals what plain SQL would give on
//! the sum of all it has taken in. Weights within one step may come in any order.

pub(crate) mod aggregate;
pub(crate) mod closes;
pub(crate) mod constant;
pub(crate) mod emit;
pub(crate) mod expand;
pub(crate) mod gate;
pub(crate) mod interval;
pub(crate) mod join;
pub(crate) mod keyed;
pub(crate) mod map;
pub(crate) mod outer_join;
pub(crate) mod partitions;
pub(crate) mod ranking;
pub(crate) mod recompute;
pub(crate) mod session;
pub(crate) mod sharded;
pub(crate) mod side;
pub(crate) mod sorted;
pub(crate) mod temporal;
pub(crate) mod timed;
pub(crate) mod tracked;
pub(crate) mod union;
pub(crate) mod unnest;
pub(crate) mod window;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch};
use datafusion::physical_plan::PhysicalExpr;
use model::Delta;

use crate::error::OpResult;
use crate::sql::now::BusinessTime;
use crate::state::StateWriter;
use crate::watermark::{Watermarks, at};

/// What an operator may know of the step beside its inputs.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    /// The first step of the engine's life: constants and global aggregates put out their first row.
    pub(crate) first: bool,
    /// Business time moved: from, to (microseconds).
    pub(crate) tick: Option<(i64, i64)>,
    /// Postponed recomputation must be done now.
    pub(crate) flush: bool,
    /// The business time that expressions read.
    pub(crate) time: &'a BusinessTime,
    /// The sources' watermarks.
    pub(crate) watermarks: &'a Watermarks,
}

/// A node's behaviour.
pub(crate) trait Operator: Send + std::fmt::Debug {
    /// Whether the operator must run even though none of its inputs changed.
    fn wants(&self, _step: &Step<'_>) -> bool {
        false
    }

    /// Takes the inputs' changes, `None` where there is none, and gives its own.
    fn step(&mut self, inputs: &[Option<&Delta>], step: &Step<'_>) -> OpResult<Option<Delta>>;

    /// Entries held in state.
    fn state_rows(&self) -> usize {
        0
    }

    /// Whether recomputation was postponed.
    fn postponed(&self) -> bool {
        false
    }

    /// Whether the output depends on more than the present rows of the inputs: late rows were left out, windows were
    /// closed. Such an operator's state is stored, as is that of all above it.
    fn forgets(&self) -> bool {
        false
    }

    /// Whether [`Operator::standing`] can be asked: what has been put out follows from what is kept now.
    fn remembers(&self) -> bool {
        false
    }

    /// All that the operator has put out and not taken back.
    fn standing(&mut self) -> OpResult<Option<Delta>> {
        Ok(None)
    }

    /// Whether a step's output follows from its input alone.
    fn is_stateless(&self) -> bool {
        false
    }

    /// From now on the operator remembers which entries of its state change, for [`Operator::checkpoint`]. Called at
    /// most once, before the first step, and only on operators whose state cannot be rebuilt from kept tables.
    fn track(&mut self) {}

    /// Writes the entries that changed since the last call. The cost follows what changed, not what is there.
    fn checkpoint(&mut self, _out: &mut StateWriter<'_>) -> OpResult<()> {
        Ok(())
    }

    /// Takes back all entries that are stored; called on a new operator, before its first step.
    fn restore(&mut self, _entries: &mut dyn Iterator<Item = (&[u8], &[u8])>) -> OpResult<()> {
        Ok(())
    }
}

pub(crate) type Expr = std::sync::Arc<dyn PhysicalExpr>;

pub(crate) fn evaluate(expr: &Expr, batch: &RecordBatch) -> OpResult<ArrayRef> {
    expr.evaluate(batch)?.into_array(batch.num_rows())
}

/// Evaluates a predicate; NULL counts as false.
pub(crate) fn evaluate_mask(expr: &Expr, batch: &RecordBatch) -> OpResult<BooleanArray> {
    let array = evaluate(expr, batch)?;
    let mask = datafusion::common::cast::as_boolean_array(&array)?;
    Ok(match mask.null_count() {
        0 => mask.clone(),
        _ => arrow::compute::prep_null_mask_filter(mask),
    })
}

/// Evaluates a join's further condition. A pair on which it fails does not match; such pairs are counted and logged. That
/// is consistent: when the pair is taken back later, the condition fails on it again.
pub(crate) fn evaluate_condition(expr: &Expr, batch: &RecordBatch) -> OpResult<BooleanArray> {
    let error = match evaluate_mask(expr, batch) {
        Ok(mask) => return Ok(mask),
        Err(error) => error,
    };
    let each: Vec<OpResult<BooleanArray>> =
        (0..batch.num_rows()).map(|i| evaluate_mask(expr, &batch.slice(i, 1))).collect();
    let n_failed = each.iter().filter(|mask| mask.is_err()).count() as u64;
    let error = error.strip_backtrace();
    tracing::warn!(n_failed, error, condition = %expr, "pairs left out: a join's condition failed");
    metrics::counter!("pipelines_rows_failed_total").increment(n_failed);
    Ok(each.into_iter().map(|mask| Some(mask.is_ok_and(|mask| mask.value(0)))).collect())
}

/// Concatenates deltas of one schema; `None` if there is nothing in them.
pub(crate) fn concat(deltas: &[Delta]) -> OpResult<Option<Delta>> {
    match deltas {
        [] => Ok(None),
        [one] => Ok((!one.is_empty()).then(|| one.clone())),
        many => {
            let rows = arrow::compute::concat_batches(&many[0].rows.schema(), many.iter().map(|d| &d.rows))?;
            let weights: Vec<i64> = many.iter().flat_map(|d| d.weights.values().iter().copied()).collect();
            let missed = |d: &Delta| (0..d.len()).map(|i| at(d.missed.as_ref()?, i)).collect::<Vec<_>>();
            let missed = many.iter().any(|d| d.missed.is_some()).then(|| many.iter().flat_map(missed).collect());
            Ok((!weights.is_empty()).then(|| Delta::new(rows, Int64Array::from(weights)).with_missed(missed)))
        }
    }
}
