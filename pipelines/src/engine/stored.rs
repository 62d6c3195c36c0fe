//! The engine's state, between checkpoints and after a start.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::{Delta, SourceEpoch, TableDelta};

use super::{Engine, Restoring, Unsaved};
use crate::error::Error;
use crate::graph::NodeKind;
use crate::ops::Step;
use crate::state::{CheckpointData, Packed, Restored, StateWriter, operator_prefix, view_prefix};
use crate::watermark::Watermarks;

impl Engine {
    /// From now on remembers what changes, for [`Engine::take_checkpoint`]. To be called before the first step.
    pub(crate) fn track(&mut self) {
        self.unsaved = Some(Unsaved::default());
        for (id, node) in self.program.graph.nodes.iter_mut().enumerate() {
            if let (NodeKind::Operator(op), true) = (&mut node.kind, self.program.lineage.is_stored(id)) {
                op.track();
            }
        }
        for (view, kept) in self.program.views.iter().zip(&mut self.kept) {
            if !self.program.lineage.is_known(view.root) {
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
        // What starts anew takes in all rows before any of its windows closes; what is restored does not run here.
        let mut watermarks = Watermarks::default();
        for part in &restored.source.tables {
            let delta = Delta::inserts(part.rows.clone());
            let table = TableDelta { table: Arc::clone(&part.table), delta, positions: Vec::new() };
            let epoch = SourceEpoch { tables: vec![table], ..SourceEpoch::default() };
            let step = Step { first: self.first, tick: None, flush: false, time: &time, watermarks: &watermarks };
            self.run_graph(&epoch, &step, Some(Restoring { restored, says_all: false }));
            self.first = false;
        }
        watermarks.advance(&checkpoint.watermarks);
        let step = Step { first: self.first, tick: None, flush: true, time: &time, watermarks: &watermarks };
        self.run_graph(&SourceEpoch::default(), &step, Some(Restoring { restored, says_all: true }));
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
            if let (NodeKind::Operator(op), true) = (&mut node.kind, program.lineage.is_stored(id))
                && self.failed[id].is_none()
            {
                let fingerprint = program.lineage.fingerprint(id);
                let failed = |source| Error::Compute { view: node.view.clone(), source };
                let mut packed = Packed::new(operator_prefix(fingerprint));
                op.checkpoint(&mut StateWriter(&mut packed)).map_err(failed)?;
                changes.push(packed);
                operators.insert(fingerprint);
            }
        }
        for (i, (view, kept)) in program.views.iter().zip(&mut self.kept).enumerate() {
            let is_there = self.failed[view.root].is_none() && !self.unconfirmed.contains(&i);
            if !program.lineage.is_known(view.root) && is_there {
                let fingerprint = view.fingerprint(&program.lineage);
                let mut packed = Packed::new(view_prefix(fingerprint));
                kept.checkpoint(&mut StateWriter(&mut packed));
                changes.push(packed);
                rows.insert(fingerprint);
            }
        }
        let (epoch, as_of_us, views) = (self.epoch, program.time.get_us(), program.view_fingerprints());
        Ok(Some(CheckpointData { epoch, as_of_us, offsets, watermarks, views, operators, rows, tables, changes }))
    }
}
