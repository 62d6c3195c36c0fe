//! Runs a program, epoch by epoch.

mod query;
mod replace;
mod report;
mod stored;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use model::{Clock, Delta, Offsets, SourceEpoch, TableDelta, TableWatermark, ViewInfo};

use crate::error::{Error, OpResult};
use crate::graph::NodeKind;
use crate::kept::{Kept, ViewChange};
use crate::ops::{Operator, Step};
use crate::program::Program;
use crate::state::Restored;
use crate::watermark::Watermarks;

/// How far business time must move before time-dependent views are looked at again, in microseconds.
const TICK_US: i64 = 1_000_000;
/// A view in parts of bounded size.
pub(crate) type ViewParts = Vec<ViewChange>;

/// Rows of a view in one part of [`Engine::everything`].
const PART_ROWS: usize = 32_768;
/// Shortest real time between two such looks. Business time can run much faster than the wall clock, in a replay.
const TICK_PAUSE_MIN: Duration = Duration::from_millis(200);
/// A look of cost c is followed by a pause of this many times c at least.
const TICK_PAUSE_FACTOR: u32 = 9;

/// Whether an epoch may leave rate-limited work undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepMode {
    /// Recomputed and time-dependent views may lag a little.
    Normal,
    /// Everything stands exactly at this epoch and this time afterwards.
    Flush,
}

/// What an epoch changed.
#[derive(Debug)]
pub struct EpochOutput {
    /// Number of the epoch.
    pub epoch: u64,
    /// Business time that CURRENT_TIMESTAMP had, microseconds since 1970.
    pub as_of_us: i64,
    /// Net changes, views in program order; views without a change are left out.
    pub changes: Vec<ViewChange>,
    /// Whether a recomputed view lags behind this epoch.
    pub postponed: bool,
}

/// Keeps all views of a program. Single-threaded; one call of [`Engine::step`] is one consistent epoch.
#[derive(Debug)]
pub struct Engine {
    program: Program,
    clock: Arc<dyn Clock>,
    kept: Vec<Kept>,
    /// View index by root node; several views may share a plan.
    roots: HashMap<usize, Vec<usize>>,
    outputs: Vec<Option<Delta>>,
    /// Why a node, and so all above it, no longer runs.
    failed: Vec<Option<Arc<str>>>,
    epoch: u64,
    first: bool,
    tick_not_before: Option<Instant>,
    watermarks: Watermarks,
    /// What each node has done since the start.
    load: Vec<Load>,
    /// What the next checkpoint must hold; `None` if no state is stored.
    unsaved: Option<Unsaved>,
    /// Streamed views whose topics hold rows of which it is not known yet whether they are still right.
    unconfirmed: BTreeSet<usize>,
    /// Nodes that another engine runs until this one takes its place; empty if all run here.
    resting: Vec<bool>,
}

/// What a node has done since the start.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    steps: u64,
    rows_in: u64,
    rows_out: u64,
    busy: Duration,
}

/// What has happened since the last checkpoint.
#[derive(Debug, Default)]
struct Unsaved {
    tables: Vec<TableDelta>,
    bytes: usize,
    offsets: Offsets,
    watermarks: Vec<TableWatermark>,
}

/// What is taken back at a start.
#[derive(Clone, Copy)]
struct Restoring<'a> {
    restored: &'a Restored,
    /// Operators whose state was stored say all that stands of what they have put out.
    says_all: bool,
}

/// DataFusion panics on some data instead of failing; that stops a view and nothing else.
fn caught<T>(run: impl FnOnce() -> OpResult<T>) -> OpResult<T> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(DataFusionError::Internal(format!("panic: {text}")))
    })
}

impl Engine {
    /// An engine with empty views.
    ///
    /// # Errors
    /// [`Error::Compute`] if a view has a column type that cannot be kept.
    pub fn new(program: Program, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let mut roots: HashMap<usize, Vec<usize>> = HashMap::new();
        let mut kept = Vec::new();
        for (i, view) in program.views.iter().enumerate() {
            roots.entry(view.root).or_default().push(i);
            let new = Kept::new(&view.schema, &view.key);
            let mut new = new.map_err(|source| Error::Compute { view: view.info.name.clone(), source })?;
            if view.is_key_proven && program.graph.says_what_stands(view.root) {
                new.leave_below();
            }
            kept.push(new);
        }
        let n_nodes = program.graph.nodes.len();
        Ok(Self {
            program,
            clock,
            kept,
            roots,
            outputs: vec![None; n_nodes],
            failed: vec![None; n_nodes],
            epoch: 0,
            first: true,
            tick_not_before: None,
            watermarks: Watermarks::default(),
            load: vec![Load::default(); n_nodes],
            unsaved: None,
            unconfirmed: BTreeSet::new(),
            resting: Vec::new(),
        })
    }

    /// From now on the rows of views that only grow, and whose key is the whole row, are handed on and not kept. To be
    /// called before the first step. Tells which views these are.
    pub(crate) fn stream_growing_views(&mut self) -> Vec<bool> {
        let nodes = &self.program.graph.nodes;
        for (view, kept) in self.program.views.iter().zip(&mut self.kept) {
            if nodes[view.root].facts.appends && view.key.len() == view.schema.fields().len() {
                kept.stream();
            }
        }
        self.kept.iter().map(Kept::is_streamed).collect()
    }

    /// Whether [`Engine::everything`] has the rows of a view.
    pub(crate) fn knows_rows(&self, view: usize) -> bool {
        let kept = &self.kept[view];
        !kept.is_streamed() && !(kept.is_below() && self.failed[self.program.views[view].root].is_some())
    }

    /// From now on [`EpochOutput::changes`] holds the changes of these views only.
    pub(crate) fn want_changes(&mut self, is_wanted: impl Fn(usize) -> bool) {
        self.kept.iter_mut().enumerate().for_each(|(view, kept)| kept.set_quiet(!is_wanted(view)));
    }

    /// The topics of these streamed views may hold rows that are gone. Until that is known no checkpoint takes the views
    /// for written, so a start after a crash looks at all of their rows again.
    pub(crate) fn set_unconfirmed(&mut self, views: BTreeSet<usize>) {
        self.unconfirmed = views;
    }

    pub(crate) fn program(&self) -> &Program {
        &self.program
    }

    /// The views and rules this engine keeps.
    pub fn views(&self) -> Vec<ViewInfo> {
        self.program.views()
    }

    /// Goes on counting epochs after `epoch`.
    pub fn continue_after(&mut self, epoch: u64) {
        self.epoch = self.epoch.max(epoch);
    }

    /// Takes one epoch through the whole graph.
    ///
    /// A view whose SQL fails on a row stops, and so do the views over it; the others go on, and
    /// [`Engine::failures`] says which.
    pub fn step(&mut self, epoch: &SourceEpoch, mode: StepMode) -> EpochOutput {
        self.epoch += 1;
        let time = self.program.time.clone();
        let (then, now) = (time.get_us(), self.clock.now_us());
        let flush = mode == StepMode::Flush;
        let due = self.tick_not_before.is_none_or(|at| Instant::now() >= at);
        let moved = ((now - then).abs() >= TICK_US && due) || (flush && now != then);
        let tick = (moved && !self.first).then_some((then, now));
        let started = Instant::now();
        if moved || self.first {
            time.set_us(now);
        }
        let mut watermarks = std::mem::take(&mut self.watermarks);
        watermarks.advance(&epoch.watermarks);
        let step = Step { first: self.first, tick, flush, time: &time, watermarks: &watermarks };
        let (changes, postponed) = self.run_graph(epoch, &step, None);
        self.watermarks = watermarks;
        if let Some(unsaved) = &mut self.unsaved {
            unsaved.bytes += epoch.tables.iter().map(|t| t.delta.rows.get_array_memory_size()).sum::<usize>();
            let tables = &self.program.tables;
            let is_kept = |t: &&TableDelta| tables.iter().any(|known| known.name == t.table && !known.is_append_only());
            unsaved.tables.extend(epoch.tables.iter().filter(is_kept).cloned());
            unsaved.offsets.merge(&epoch.offsets);
            if !epoch.watermarks.is_empty() {
                unsaved.watermarks.clone_from(&epoch.watermarks);
            }
        }
        if tick.is_some() {
            let pause = (started.elapsed() * TICK_PAUSE_FACTOR).max(TICK_PAUSE_MIN);
            self.tick_not_before = Some(Instant::now() + pause);
        }
        self.first = false;
        EpochOutput { epoch: self.epoch, as_of_us: time.get_us(), changes, postponed }
    }

    /// One pass over all nodes. Operators whose state is in `restored` stand already where the pass leads.
    fn run_graph(
        &mut self,
        epoch: &SourceEpoch,
        step: &Step<'_>,
        restoring: Option<Restoring<'_>>,
    ) -> (Vec<ViewChange>, bool) {
        let mut postponed = false;
        for id in 0..self.program.graph.nodes.len() {
            let fingerprint = self.program.lineage.fingerprint(id);
            let restoring = restoring.filter(|r| r.restored.operators.contains_key(&fingerprint));
            self.outputs[id] = match restoring {
                Some(restoring) if restoring.says_all => self.run_operator(id, |op| op.standing()),
                Some(_) => None,
                None if self.resting.get(id) == Some(&true) => None,
                None => self.run_node(id, epoch, step),
            };
            self.load[id].rows_out += self.outputs[id].as_ref().map_or(0, Delta::len) as u64;
            if let NodeKind::Operator(op) = &self.program.graph.nodes[id].kind {
                postponed |= op.postponed();
            }
        }
        let mut changes = Vec::new();
        for (id, views) in &self.roots {
            let Some(delta) = &self.outputs[*id] else { continue };
            for view in views {
                match self.kept[*view].apply(*view, delta) {
                    Ok(change) => changes.extend(change),
                    Err(error) => self.failed[*id] = Some(Arc::from(error.to_string())),
                }
            }
        }
        changes.sort_by_key(|c| c.view);
        self.outputs.fill(None);
        (changes, postponed)
    }

    fn run_node(&mut self, id: usize, epoch: &SourceEpoch, step: &Step<'_>) -> Option<Delta> {
        if self.failed[id].is_some() {
            return None;
        }
        let node = &mut self.program.graph.nodes[id];
        let op = match &mut node.kind {
            NodeKind::Source(name) => {
                return epoch.tables.iter().find(|t| t.table == *name).map(|t| t.delta.clone());
            }
            NodeKind::Operator(op) => op,
        };
        if let Some(reason) = node.inputs.iter().find_map(|i| self.failed[*i].clone()) {
            self.failed[id] = Some(reason);
            return None;
        }
        let inputs: Vec<Option<&Delta>> = node.inputs.iter().map(|i| self.outputs[*i].as_ref()).collect();
        if inputs.iter().all(Option::is_none) && !op.wants(step) {
            return None;
        }
        let load = &mut self.load[id];
        load.steps += 1;
        load.rows_in += inputs.iter().flatten().map(|d| d.len() as u64).sum::<u64>();
        let started = Instant::now();
        let result = caught(|| op.step(&inputs, step));
        self.load[id].busy += started.elapsed();
        self.taken(id, result)
    }

    fn run_operator(
        &mut self,
        id: usize,
        run: impl FnOnce(&mut dyn Operator) -> OpResult<Option<Delta>>,
    ) -> Option<Delta> {
        let NodeKind::Operator(op) = &mut self.program.graph.nodes[id].kind else { return None };
        let result = caught(|| run(&mut **op));
        self.taken(id, result)
    }

    /// What a node put out; one that failed stops.
    fn taken(&mut self, id: usize, result: OpResult<Option<Delta>>) -> Option<Delta> {
        let node = &self.program.graph.nodes[id];
        match result {
            Ok(delta) => delta.filter(|d| !d.is_empty()),
            Err(error) => {
                tracing::error!(view = %node.view, operator = %node.label, %error, "view stopped: its SQL failed on a row");
                metrics::counter!("pipelines_views_failed_total").increment(1);
                self.failed[id] = Some(Arc::from(error.to_string()));
                None
            }
        }
    }

    /// All rows of a view as kept, sorted.
    ///
    /// # Errors
    /// [`Error::Compute`] if the rows cannot be decoded: a bug.
    pub fn contents(&mut self, view: &str) -> Result<Option<RecordBatch>, Error> {
        let Some(at) = self.program.views.iter().position(|v| v.info.name == view) else { return Ok(None) };
        self.rows_of(at).map(Some).map_err(|source| Error::Compute { view: view.to_owned(), source })
    }

    fn rows_of(&mut self, view: usize) -> OpResult<RecordBatch> {
        if !self.kept[view].is_below() {
            return self.kept[view].contents();
        }
        let standing = self.standing(self.program.views[view].root)?;
        let parts = self.kept[view].sorted(standing.as_ref(), usize::MAX)?;
        Ok(parts.into_iter().next().unwrap_or_else(|| RecordBatch::new_empty(Arc::clone(self.kept[view].schema()))))
    }

    /// All that stands of what a node has put out; only where [`Graph::says_what_stands`].
    fn standing(&mut self, id: usize) -> OpResult<Option<Delta>> {
        if let Some(reason) = &self.failed[id] {
            return Err(DataFusionError::Execution(format!("the view has stopped: {reason}")));
        }
        let node = &mut self.program.graph.nodes[id];
        if let NodeKind::Operator(op) = &mut node.kind
            && op.remembers()
        {
            return caught(|| op.standing());
        }
        let inputs = node.inputs.clone();
        let inputs = inputs.into_iter().map(|input| self.standing(input)).collect::<OpResult<Vec<_>>>()?;
        let inputs: Vec<Option<&Delta>> = inputs.iter().map(Option::as_ref).collect();
        let time = self.program.time.clone();
        let step = Step { first: false, tick: None, flush: true, time: &time, watermarks: &self.watermarks };
        match &mut self.program.graph.nodes[id].kind {
            NodeKind::Operator(op) => caught(|| op.step(&inputs, &step)),
            NodeKind::Source(_) => Ok(None),
        }
    }

    /// Business time of the last step, microseconds since 1970.
    pub(crate) fn now_us(&self) -> i64 {
        self.program.time.get_us()
    }

    /// Views as readers by key see them, each as a change from nothing, in parts of bounded size. A view whose rows are not
    /// known any more, since what computes them has failed, is left out.
    pub(crate) fn everything(&mut self, wanted: impl Fn(usize) -> bool) -> Result<BTreeMap<usize, ViewParts>, Error> {
        let mut all = BTreeMap::new();
        for view in (0..self.kept.len()).filter(|view| wanted(*view)) {
            if self.kept[view].is_streamed() || self.knows_rows(view) {
                let parts = self.parts_of(view);
                let failed = |source| Error::Compute { view: self.program.views[view].info.name.clone(), source };
                all.insert(view, parts.map_err(failed)?);
            }
        }
        Ok(all)
    }

    fn parts_of(&mut self, view: usize) -> OpResult<ViewParts> {
        let parts = if self.kept[view].is_below() {
            let standing = self.standing(self.program.views[view].root)?;
            self.kept[view].sorted(standing.as_ref(), PART_ROWS)?
        } else {
            self.kept[view].visible(PART_ROWS)?
        };
        let keys = self.kept[view].schema().project(&self.program.views[view].key)?;
        let deletes = RecordBatch::new_empty(Arc::new(keys));
        Ok(parts.into_iter().map(|upserts| ViewChange { view, upserts, deletes: deletes.clone() }).collect())
    }
}
