//! One engine in the place of another.

use std::collections::HashMap;

use super::Engine;
use crate::fingerprint::Fingerprint;
use crate::graph::{NodeId, NodeKind};
use crate::kept::Kept;

impl Engine {
    /// Leaves all nodes alone but these, until [`Engine::replace_program`].
    pub(crate) fn rest(&mut self, is_built: &[bool]) {
        self.resting = is_built.iter().map(|built| !built).collect();
    }

    /// Goes on with the program of `next`, which stands at the same epoch with what `is_built` says of its nodes and
    /// `fresh` of its views; everything else of it is the same here, and taken over.
    pub(crate) fn replace_program(&mut self, next: Self, is_built: &[bool], fresh: &[bool]) {
        let mut old = std::mem::replace(self, next);
        let mut operators: HashMap<Fingerprint, Vec<NodeId>> = HashMap::new();
        for (id, node) in old.program.graph.nodes.iter().enumerate().rev() {
            if matches!(node.kind, NodeKind::Operator(_)) {
                operators.entry(old.program.lineage.fingerprint(id)).or_default().push(id);
            }
        }
        for id in (0..is_built.len()).filter(|id| !is_built[*id]) {
            let meaning = self.program.lineage.fingerprint(id);
            let Some(from) = operators.get_mut(&meaning).and_then(Vec::pop) else { continue };
            std::mem::swap(&mut self.program.graph.nodes[id].kind, &mut old.program.graph.nodes[from].kind);
            self.load[id] = old.load[from];
            self.failed[id] = old.failed[from].take();
        }
        let names: HashMap<&str, usize> =
            old.program.views.iter().enumerate().map(|(i, v)| (v.info.name.as_str(), i)).collect();
        let mut rows: Vec<Option<Kept>> = std::mem::take(&mut old.kept).into_iter().map(Some).collect();
        for (i, view) in self.program.views.iter().enumerate().filter(|(i, _)| !fresh[*i]) {
            let from = names.get(view.info.name.as_str());
            if let Some(kept) = from.and_then(|from| rows[*from].take()) {
                self.kept[i] = kept;
            }
        }
        self.program.time.lead(&old.program.time);
        self.clock = old.clock.clone();
        self.epoch = old.epoch;
        self.first = old.first;
        self.tick_not_before = old.tick_not_before;
        self.watermarks = std::mem::take(&mut old.watermarks);
        self.unsaved = old.unsaved.take();
        self.resting = Vec::new();
    }
}
