//! Runs a program, epoch by epoch.

use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::view::ViewTable;
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;
use model::{Clock, Delta, Offsets, SourceEpoch, SqlStatement, TableDelta, TableWatermark, ViewInfo};

use crate::error::{Error, OpResult};
use crate::graph::NodeKind;
use crate::kept::{Kept, ViewChange};
use crate::ops::Step;
use crate::program::{Program, new_session, plan, table_ref};
use crate::sql::places::planning_diagnostic;
use crate::sql::{StatementKind, parse_query, relation_names};
use crate::state::{CheckpointData, Restored, StateWriter, operator_prefix, view_prefix};
use crate::watermark::Watermarks;

/// How far business time must move before time-dependent views are looked at again, in microseconds.
const TICK_US: i64 = 1_000_000;
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
            kept.push(new.map_err(|source| Error::Compute { view: view.info.name.clone(), source })?);
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

    /// From now on [`EpochOutput::changes`] holds the changes of these views only.
    pub(crate) fn want_changes(&mut self, is_wanted: impl Fn(usize) -> bool) {
        self.kept.iter_mut().enumerate().for_each(|(view, kept)| kept.set_quiet(!is_wanted(view)));
    }

    /// The topics of these streamed views may hold rows that are gone. Until that is known no checkpoint takes the views
    /// for written, so a start after a crash looks at all of their rows again.
    pub(crate) fn set_unconfirmed(&mut self, views: BTreeSet<usize>) {
        self.unconfirmed = views;
    }

    /// From now on remembers what changes, for [`Engine::take_checkpoint`]. To be called before the first step.
    pub(crate) fn track(&mut self) {
        self.unsaved = Some(Unsaved::default());
        for (id, node) in self.program.graph.nodes.iter_mut().enumerate() {
            if let (NodeKind::Operator(op), true) = (&mut node.kind, self.program.lineage.own_state(id)) {
                op.track();
            }
        }
        for (view, kept) in self.program.views.iter().zip(&mut self.kept) {
            if self.program.lineage.own_state(view.root) {
                kept.track();
            }
        }
    }

    /// Stands where a checkpoint stood: takes back the operators' own state and builds the rest from the tables' rows.
    /// To be called before the first step, and after [`crate::Saver::new`] if state is stored.
    ///
    /// # Errors
    /// [`Error::Compute`] if an operator cannot read what is stored.
    pub fn restore(&mut self, restored: &Restored) -> Result<(), Error> {
        // What the stored rows make of the views is no change.
        self.want_changes(|_| false);
        let checkpoint = &restored.checkpoint;
        self.continue_after(checkpoint.epoch);
        self.program.time.set_us(checkpoint.as_of_us);
        if let Some(unsaved) = &mut self.unsaved {
            unsaved.offsets = checkpoint.offsets.clone();
            unsaved.watermarks.clone_from(&checkpoint.watermarks);
        }
        let program = &mut self.program;
        for (id, node) in program.graph.nodes.iter_mut().enumerate() {
            if let NodeKind::Operator(op) = &mut node.kind
                && let Some(entries) = restored.operators.get(&program.lineage.fingerprint(id))
            {
                let failed = |source| Error::Compute { view: node.view.clone(), source };
                op.restore(&mut entries.iter().map(|(k, v)| (&k[..], &v[..]))).map_err(failed)?;
            }
        }
        for (view, kept) in program.views.iter().zip(&mut self.kept) {
            if let Some(entries) = restored.views.get(&view.fingerprint(&program.lineage)) {
                kept.restore(entries.iter().map(|(k, v)| (&k[..], &v[..])));
            }
        }
        let time = program.time.clone();
        // Twice, so that nothing closes in the first step that was closed before.
        let mut watermarks = Watermarks::default();
        watermarks.advance(&checkpoint.watermarks);
        watermarks.advance(&[]);
        for part in &restored.source.tables {
            let delta = Delta::inserts(part.rows.clone());
            let table = TableDelta { table: Arc::clone(&part.table), delta, positions: Vec::new() };
            let epoch = SourceEpoch { tables: vec![table], ..SourceEpoch::default() };
            let step = Step { first: self.first, tick: None, flush: false, time: &time, watermarks: &watermarks };
            self.run_graph(&epoch, &step, Some(restored));
            self.first = false;
        }
        let step = Step { first: self.first, tick: None, flush: true, time: &time, watermarks: &watermarks };
        self.run_graph(&SourceEpoch::default(), &step, Some(restored));
        self.first = false;
        self.watermarks = watermarks;
        self.want_changes(|_| true);
        Ok(())
    }

    /// Size of what the next checkpoint must hold, about; bytes.
    pub(crate) fn unsaved_bytes(&self) -> usize {
        self.unsaved.as_ref().map_or(0, |u| u.bytes)
    }

    /// All that changed since the last call. `None` if no state is stored.
    ///
    /// # Errors
    /// [`Error::Compute`] if an operator cannot encode its state: a bug.
    pub(crate) fn take_checkpoint(&mut self) -> Result<Option<CheckpointData>, Error> {
        let Some(unsaved) = &mut self.unsaved else { return Ok(None) };
        let tables = std::mem::take(&mut unsaved.tables);
        unsaved.bytes = 0;
        let (offsets, watermarks) = (unsaved.offsets.clone(), unsaved.watermarks.clone());
        let program = &mut self.program;
        let mut changes = Vec::new();
        // What has failed no longer follows its inputs; it starts anew when the engine does.
        let (mut operators, mut rows) = (BTreeSet::new(), BTreeSet::new());
        for (id, node) in program.graph.nodes.iter_mut().enumerate() {
            if let (NodeKind::Operator(op), true) = (&mut node.kind, program.lineage.own_state(id))
                && self.failed[id].is_none()
            {
                let fingerprint = program.lineage.fingerprint(id);
                let failed = |source| Error::Compute { view: node.view.clone(), source };
                op.checkpoint(&mut StateWriter::new(&operator_prefix(fingerprint), &mut changes)).map_err(failed)?;
                operators.insert(fingerprint);
            }
        }
        for (i, (view, kept)) in program.views.iter().zip(&mut self.kept).enumerate() {
            let is_there = self.failed[view.root].is_none() && !self.unconfirmed.contains(&i);
            if program.lineage.own_state(view.root) && is_there {
                let fingerprint = view.fingerprint(&program.lineage);
                kept.checkpoint(&mut StateWriter::new(&view_prefix(fingerprint), &mut changes));
                rows.insert(fingerprint);
            }
        }
        let (epoch, as_of_us, views) = (self.epoch, program.time.get_us(), program.view_fingerprints());
        Ok(Some(CheckpointData { epoch, as_of_us, offsets, watermarks, views, operators, rows, tables, changes }))
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

    /// Number of rows of each view, by name.
    pub fn row_counts(&self) -> Vec<(&str, usize)> {
        self.program.views.iter().zip(&self.kept).map(|(v, k)| (v.info.name.as_str(), k.len())).collect()
    }

    /// Entries in the operators' state, summed by the view that needed the operator first.
    pub fn state_rows(&self) -> Vec<(&str, usize)> {
        let mut by_view: Vec<(&str, usize)> = Vec::new();
        for node in &self.program.graph.nodes {
            let NodeKind::Operator(op) = &node.kind else { continue };
            match by_view.last_mut() {
                Some((view, rows)) if *view == node.view => *rows += op.state_rows(),
                _ => by_view.push((&node.view, op.state_rows())),
            }
        }
        by_view
    }

    /// Views that stopped because their SQL failed on a row, with the reason.
    pub fn failures(&self) -> Vec<(&str, &str)> {
        let failed = |v: &'_ crate::program::KeptView| self.failed[v.root].as_deref();
        self.program.views.iter().filter_map(|v| Some((v.info.name.as_str(), failed(v)?))).collect()
    }

    /// The dataflow graph with the numbers of each operator since the start, as `/api/v1/graph` shows it.
    pub(crate) fn graph_report(&self) -> serde_json::Value {
        let nodes = self.program.graph.nodes.iter().enumerate().map(|(id, node)| {
            let load = &self.load[id];
            let (kind, state) = match &node.kind {
                NodeKind::Source(_) => ("source", 0),
                NodeKind::Operator(op) => ("operator", op.state_rows()),
            };
            serde_json::json!({
                "id": id,
                "kind": kind,
                "label": node.label,
                "view": node.view,
                "inputs": node.inputs,
                "columns": node.schema.fields().iter().map(|f| f.name()).collect::<Vec<_>>(),
                "recompute": node.recompute,
                "steps": load.steps,
                "rows_in": load.rows_in,
                "rows_out": load.rows_out,
                "state_rows": state,
                "busy_seconds": load.busy.as_secs_f64(),
                "stopped": self.failed[id].as_deref(),
            })
        });
        let views = self.program.views.iter().zip(&self.kept).map(|(view, kept)| {
            serde_json::json!({
                "name": view.info.name,
                "node": view.root,
                "rows": kept.len(),
                "maintenance": view.info.maintenance,
            })
        });
        serde_json::json!({
            "epoch": self.epoch,
            "as_of_ms": self.program.time.get_us().div_euclid(1_000),
            "nodes": nodes.collect::<Vec<_>>(),
            "views": views.collect::<Vec<_>>(),
        })
    }

    /// How a view is kept, with what each operator has done since the start: `EXPLAIN ANALYZE`.
    pub fn explain_analyze(&self, view: &str) -> Option<String> {
        let (at, kept) = self.program.views.iter().enumerate().find(|(_, v)| v.info.name == view)?;
        let note = |id: usize| {
            let load = &self.load[id];
            let state = match &self.program.graph.nodes[id].kind {
                NodeKind::Operator(op) if op.state_rows() > 0 => format!(", {} in state", op.state_rows()),
                _ => String::new(),
            };
            format!("  [{} in, {} out{state}, {:.1} ms]", load.rows_in, load.rows_out, load.busy.as_secs_f64() * 1e3)
        };
        let tree = self.program.graph.explain_with(kept.root, view, &note);
        Some(format!("{view} ({} rows; {})\n{tree}", self.kept[at].len(), kept.info.maintenance))
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
        restored: Option<&Restored>,
    ) -> (Vec<ViewChange>, bool) {
        let mut postponed = false;
        for id in 0..self.program.graph.nodes.len() {
            let stands = restored.is_some_and(|r| r.operators.contains_key(&self.program.lineage.fingerprint(id)));
            self.outputs[id] = if stands { None } else { self.run_node(id, epoch, step) };
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
        // DataFusion panics on some data instead of failing; that stops a view and nothing else.
        let result = catch_unwind(AssertUnwindSafe(|| op.step(&inputs, step))).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(DataFusionError::Internal(format!("panic: {text}")))
        });
        self.load[id].busy += started.elapsed();
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

    /// All rows of a view as kept.
    ///
    /// # Errors
    /// [`Error::Compute`] if the rows cannot be decoded: a bug.
    pub fn contents(&self, view: &str) -> Result<Option<RecordBatch>, Error> {
        let Some(at) = self.program.views.iter().position(|v| v.info.name == view) else { return Ok(None) };
        let source = |source| Error::Compute { view: view.to_owned(), source };
        self.kept[at].contents().map(Some).map_err(source)
    }

    /// Views as readers by key see them, each as a change from nothing.
    pub(crate) fn everything(&self, wanted: impl Fn(usize) -> bool) -> Result<Vec<ViewChange>, Error> {
        let one = |(view, kept): (usize, &Kept)| -> OpResult<ViewChange> {
            let upserts = kept.visible()?;
            let deletes = RecordBatch::new_empty(Arc::new(upserts.schema().project(&self.program.views[view].key)?));
            Ok(ViewChange { view, upserts, deletes })
        };
        self.kept
            .iter()
            .enumerate()
            .filter(|(i, _)| wanted(*i))
            .map(|(i, kept)| {
                let view = &self.program.views[i].info.name;
                one((i, kept)).map_err(|source| Error::Compute { view: view.clone(), source })
            })
            .collect()
    }

    /// Runs a query over the kept views and all relations below them. `table_rows` gives the rows of a source table
    /// (see [`model::EpochSource::table_rows`]).
    ///
    /// # Errors
    /// [`Error::Query`] with DataFusion's message.
    pub async fn query(
        &self,
        sql: &str,
        table_rows: &(dyn Fn(&str) -> Option<RecordBatch> + Sync),
    ) -> Result<(SchemaRef, Vec<RecordBatch>), Error> {
        if let Some(text) = self.explained(sql) {
            let schema = Arc::new(Schema::new(vec![Field::new("plan", DataType::Utf8, false)]));
            let lines: ArrayRef = Arc::new(text.lines().map(Some).collect::<StringArray>());
            let batch = RecordBatch::try_new(Arc::clone(&schema), vec![lines]).map_err(|e| Error::Query(e.into()))?;
            return Ok((schema, vec![batch]));
        }
        let statement =
            SqlStatement { path: "query".to_owned(), line: 1, column: 1, sql: sql.to_owned(), comment: String::new() };
        let (query, _) = parse_query(&statement, &self.program.declared)
            .map_err(|d| Error::Query(DataFusionError::Plan(d.to_string())))?;
        let session = new_session(&self.program.time);
        let run = async {
            let mut registered = BTreeSet::new();
            for name in relation_names(&query) {
                self.register(&session, &name, table_rows, &mut registered).await?;
            }
            let plan = plan(&session, query.clone())
                .await
                .map_err(|e| DataFusionError::Plan(planning_diagnostic(&statement, &e).to_string()))?;
            let schema: SchemaRef = Arc::new(plan.schema().as_arrow().clone());
            let batches = session.execute_logical_plan(plan).await?.collect().await?;
            Ok((schema, batches))
        };
        run.await.map_err(Error::Query)
    }

    /// The answer to `EXPLAIN view` and `EXPLAIN ANALYZE view`, where the view is a kept one.
    fn explained(&self, sql: &str) -> Option<String> {
        let words: Vec<&str> = sql.trim().trim_end_matches(';').split_whitespace().collect();
        let is = |word: &str, expected: &str| word.eq_ignore_ascii_case(expected);
        match words.as_slice() {
            [explain, view] if is(explain, "explain") => self.program.explain(&view.to_lowercase()),
            [explain, analyze, view] if is(explain, "explain") && is(analyze, "analyze") => {
                self.explain_analyze(&view.to_lowercase())
            }
            _ => None,
        }
    }

    /// Makes a relation and those below it known to a session.
    async fn register(
        &self,
        session: &SessionContext,
        name: &str,
        table_rows: &(dyn Fn(&str) -> Option<RecordBatch> + Sync),
        registered: &mut BTreeSet<String>,
    ) -> OpResult<()> {
        if !registered.insert(name.to_owned()) {
            return Ok(());
        }
        if let Some(at) = self.program.views.iter().position(|v| v.info.name == name) {
            if let Some(reason) = &self.failed[self.program.views[at].root] {
                return Err(DataFusionError::Execution(format!("view {name} has stopped: {reason}")));
            }
            return add_table(session, name, self.kept[at].contents()?);
        }
        if let Some(table) = self.program.tables.iter().find(|t| *t.name == *name) {
            if table.is_append_only() && table_rows(name).is_none() {
                return Err(DataFusionError::Plan(format!(
                    "nothing is kept of the append-only table {name}: ask a materialized view over it"
                )));
            }
            let rows = table_rows(name).unwrap_or_else(|| RecordBatch::new_empty(Arc::clone(&table.schema)));
            return add_table(session, name, rows);
        }
        if let Some(view) = self.program.statements.get(name).filter(|v| v.kind == StatementKind::View) {
            for below in &view.relations {
                Box::pin(self.register(session, below, table_rows, registered)).await?;
            }
            let plan = plan(session, view.query.clone()).await?;
            session.register_table(table_ref(name), Arc::new(ViewTable::new(plan, None)))?;
        }
        Ok(())
    }
}

fn add_table(session: &SessionContext, name: &str, rows: RecordBatch) -> OpResult<()> {
    let table = MemTable::try_new(rows.schema(), vec![vec![rows]])?;
    session.register_table(table_ref(name), Arc::new(table))?;
    Ok(())
}
