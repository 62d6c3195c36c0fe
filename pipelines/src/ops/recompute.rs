//! The way for everything without an incremental form: remember the inputs, run the plan with DataFusion, and put out
//! the difference to the last result.
//!
//! Only the part of a view that has no incremental form runs this way; its inputs are kept incrementally. Runs are
//! rate-limited to a tenth of the time unless the step asks for a flush, so such a view may stand some steps behind.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::catalog::default_table_source::provider_as_source;
use datafusion::common::tree_node::Transformed;
use datafusion::datasource::MemTable;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use model::Delta;

use super::keyed::malformed;
use super::tracked::TrackedSet;
use super::{Operator, Step};
use crate::error::OpResult;
use crate::rows::{RowBytes, RowCodec, ZSet, add_weight, batch_of};
use crate::sql::recursion::bounded;
use crate::state::StateWriter;

/// A run of cost c is followed by a pause of this many times c.
const PAUSE_FACTOR: u32 = 9;

/// Name of the scan that stands for input `i` in the plan.
pub(crate) fn input_name(i: usize) -> String {
    format!("__input_{i}")
}

/// A part of a plan that DataFusion runs as a whole.
pub(crate) struct Recompute {
    session: SessionState,
    plan: LogicalPlan,
    inputs: Vec<(RowCodec, TrackedSet)>,
    output: RowCodec,
    last: TrackedSet,
    by_time: bool,
    dirty: bool,
    not_before: Option<Instant>,
}

impl std::fmt::Debug for Recompute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recompute").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl Recompute {
    /// `plan` scans its inputs as [`input_name`]; `by_time`: it reads the business time.
    pub(crate) fn new(
        session: SessionState,
        plan: LogicalPlan,
        inputs: &[SchemaRef],
        schema: SchemaRef,
        by_time: bool,
    ) -> OpResult<Self> {
        let inputs = inputs
            .iter()
            .map(|s| Ok((RowCodec::new(Arc::clone(s))?, TrackedSet::default())))
            .collect::<OpResult<_>>()?;
        let output = RowCodec::new(schema)?;
        let this =
            Self { session, plan, inputs, output, last: TrackedSet::default(), by_time, dirty: true, not_before: None };
        // What DataFusion cannot run at all is refused now, with the view's place, and not when the first row comes.
        block_on(async { this.session.create_physical_plan(&this.over_tables()?).await })?;
        Ok(this)
    }

    /// The plan over the inputs as they stand.
    fn over_tables(&self) -> OpResult<LogicalPlan> {
        let mut tables = Vec::with_capacity(self.inputs.len());
        for (i, (codec, set)) in self.inputs.iter().enumerate() {
            let rows: Vec<&[u8]> = set
                .rows()
                .iter()
                .flat_map(|(row, weight)| std::iter::repeat_n(&**row, usize::try_from(*weight).unwrap_or(0)))
                .collect();
            let batch = codec.decode_batch(&rows)?;
            let table = MemTable::try_new(Arc::clone(codec.schema()), vec![vec![batch]])?;
            tables.push((input_name(i), provider_as_source(Arc::new(table))));
        }
        let plan = self.plan.clone().transform_down_with_subqueries(|node| match node {
            LogicalPlan::TableScan(mut scan) => {
                match tables.iter().find(|(name, _)| name.as_str() == scan.table_name.table()) {
                    Some((_, source)) => {
                        scan.source = Arc::clone(source);
                        Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
                    }
                    None => Ok(Transformed::no(LogicalPlan::TableScan(scan))),
                }
            }
            other => Ok(Transformed::no(other)),
        })?;
        bounded(plan.data)
    }

    fn run(&self) -> OpResult<Vec<RecordBatch>> {
        let (plan, session) = (self.over_tables()?, &self.session);
        block_on(async {
            let physical = session.create_physical_plan(&plan).await?;
            datafusion::physical_plan::collect(physical, session.task_ctx()).await
        })
    }

    fn refresh(&mut self) -> OpResult<Option<Delta>> {
        let started = Instant::now();
        let batches = self.run()?;
        let mut new = ZSet::default();
        for batch in &batches {
            let n_rows = batch.num_rows();
            if self.output.schema().fields().is_empty() {
                add_weight(&mut new, &[], i64::try_from(n_rows).unwrap_or(i64::MAX));
                continue;
            }
            let columns = batch
                .columns()
                .iter()
                .zip(self.output.schema().fields())
                .map(|(c, f)| arrow::compute::cast(c, f.data_type()))
                .collect::<Result<Vec<_>, _>>()?;
            for row in &self.output.encode(&columns)? {
                add_weight(&mut new, row.data(), 1);
            }
        }
        let mut difference: Vec<(&[u8], i64)> = Vec::new();
        for (row, weight) in &new {
            difference.push((row, weight - self.last.rows().get(row).copied().unwrap_or(0)));
        }
        for (row, weight) in self.last.rows() {
            if !new.contains_key(row) {
                difference.push((row, -weight));
            }
        }
        difference.retain(|(_, weight)| *weight != 0);
        let rows: Vec<&[u8]> = difference.iter().map(|(row, _)| *row).collect();
        let weights: Vec<i64> = difference.iter().map(|(_, weight)| *weight).collect();
        let batch = self.output.decode_batch(&rows)?;
        let columns = batch.columns().to_vec();
        let delta = Delta::new(batch_of(self.output.schema(), columns, weights.len())?, Int64Array::from(weights));
        let difference: Vec<(RowBytes, i64)> = difference.into_iter().map(|(row, w)| (row.into(), w)).collect();
        difference.iter().for_each(|(row, weight)| self.last.add(row, *weight));
        self.dirty = false;
        let cost = started.elapsed();
        self.not_before = Some(Instant::now() + cost * PAUSE_FACTOR);
        metrics::histogram!("pipelines_recompute_seconds").record(cost.as_secs_f64());
        Ok((!delta.is_empty()).then_some(delta))
    }
}

impl Operator for Recompute {
    fn wants(&self, step: &Step<'_>) -> bool {
        step.first || (self.by_time && step.tick.is_some()) || self.dirty
    }

    fn step(&mut self, inputs: &[Option<&Delta>], step: &Step<'_>) -> OpResult<Option<Delta>> {
        for ((codec, set), delta) in self.inputs.iter_mut().zip(inputs) {
            let Some(delta) = delta else { continue };
            self.dirty = true;
            if codec.schema().fields().is_empty() {
                set.add(&[], delta.weights.values().iter().sum());
                continue;
            }
            for (row, weight) in codec.encode_batch(&delta.rows)?.iter().zip(delta.weights.values()) {
                set.add(row.data(), *weight);
            }
        }
        self.dirty |= self.by_time && step.tick.is_some();
        let may_run = step.flush || step.first || self.not_before.is_none_or(|at| Instant::now() >= at);
        if self.dirty && may_run { self.refresh() } else { Ok(None) }
    }

    fn state_rows(&self) -> usize {
        self.inputs.iter().map(|(_, set)| set.rows().len()).sum::<usize>() + self.last.rows().len()
    }

    fn postponed(&self) -> bool {
        self.dirty
    }

    /// It may lag behind its inputs when a checkpoint is taken, and who reads it must get the rest later.
    fn forgets(&self) -> bool {
        true
    }

    fn track(&mut self) {
        self.inputs.iter_mut().map(|(_, set)| set).chain([&mut self.last]).for_each(TrackedSet::track);
    }

    fn checkpoint(&mut self, out: &mut StateWriter<'_>) -> OpResult<()> {
        for (tag, set) in (0..).zip(self.inputs.iter_mut().map(|(_, set)| set).chain([&mut self.last])) {
            set.checkpoint(tag, out);
        }
        Ok(())
    }

    fn restore(&mut self, entries: &mut dyn Iterator<Item = (&[u8], &[u8])>) -> OpResult<()> {
        for (key, value) in entries {
            let (tag, row) = key.split_first().ok_or_else(malformed)?;
            match self.inputs.get_mut(usize::from(*tag)) {
                Some((_, set)) => set.restore(row, value)?,
                None => self.last.restore(row, value)?,
            }
        }
        Ok(())
    }
}

/// Runs a DataFusion future from the engine's own thread. Operators of DataFusion may spawn tasks, so a small runtime
/// of their own stands behind them; the caller may itself be inside another runtime.
///
/// DataFusion's streams give way when the task that polls them has used up tokio's budget. The engine takes many steps
/// within one poll of its caller, and nobody else could renew the budget meanwhile: without `unconstrained` they would give
/// way for ever.
pub(crate) fn block_on<T>(future: impl Future<Output = OpResult<T>>) -> OpResult<T> {
    static RUNTIME: OnceLock<Result<tokio::runtime::Runtime, std::io::Error>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("recompute")
            .thread_keep_alive(Duration::from_secs(10))
            .enable_time()
            .build()
    });
    match runtime {
        Ok(runtime) => {
            let _guard = runtime.enter();
            futures::executor::block_on(tokio::task::unconstrained(future))
        }
        Err(e) => Err(datafusion::error::DataFusionError::Execution(format!("no runtime for recomputation: {e}"))),
    }
}
