//! What each node of a graph means and depends on: the names under which state is stored, and which state must be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::SourceTable;

use crate::fingerprint::Fingerprint;
use crate::graph::{Graph, NodeId, NodeKind};
use crate::program::{KeptView, Program};
use crate::state::table_fingerprint;

/// Facts about the nodes of a graph, by node.
#[derive(Debug, Default)]
pub(crate) struct Lineage {
    fingerprints: Vec<Fingerprint>,
    own_state: Vec<bool>,
    is_stored: Vec<bool>,
    is_known: Vec<bool>,
    sources: Vec<BTreeSet<Arc<str>>>,
}

impl Lineage {
    pub(crate) fn new(graph: &Graph, tables: &[SourceTable]) -> Self {
        let mut lineage = Self::default();
        for node in &graph.nodes {
            let mut sources: BTreeSet<Arc<str>> =
                node.inputs.iter().flat_map(|i| lineage.sources[*i].iter().cloned()).collect();
            let mut own_state = node.inputs.iter().any(|i| lineage.own_state[*i]);
            let fingerprint = match &node.kind {
                NodeKind::Source(name) => {
                    sources.insert(Arc::clone(name));
                    let table = tables.iter().find(|t| t.name == *name);
                    own_state |= table.is_some_and(|t| t.is_append_only());
                    table.map_or_else(|| Fingerprint::of([name.as_bytes()]), table_fingerprint)
                }
                NodeKind::Operator(op) => {
                    own_state |= op.forgets();
                    let schema = format!("{:?}", node.schema.fields());
                    let inputs: Vec<u8> = node.inputs.iter().flat_map(|i| lineage.fingerprints[*i].bytes()).collect();
                    Fingerprint::of([node.label.as_bytes(), node.meaning.as_bytes(), schema.as_bytes(), &inputs])
                }
            };
            let (is_stored, is_known) = match &node.kind {
                NodeKind::Source(_) => (false, !own_state),
                NodeKind::Operator(op) => {
                    let is_stored = op.forgets() || node.inputs.iter().any(|i| !lineage.is_known[*i]);
                    (is_stored, !is_stored || op.remembers())
                }
            };
            lineage.fingerprints.push(fingerprint);
            lineage.own_state.push(own_state);
            lineage.is_stored.push(is_stored);
            lineage.is_known.push(is_known);
            lineage.sources.push(sources);
        }
        lineage
    }

    pub(crate) fn fingerprint(&self, node: NodeId) -> Fingerprint {
        self.fingerprints[node]
    }

    /// Source tables that a node reads, directly or not.
    pub(crate) fn sources(&self, node: NodeId) -> &BTreeSet<Arc<str>> {
        &self.sources[node]
    }

    /// Whether a node cannot be rebuilt from the rows of the source tables alone.
    pub(crate) fn own_state(&self, node: NodeId) -> bool {
        self.own_state[node]
    }

    /// Whether the state of an operator is stored: it cannot be rebuilt from what else is.
    pub(crate) fn is_stored(&self, node: NodeId) -> bool {
        self.is_stored[node]
    }

    /// Whether all that a node has put out is known at a start, before anything new is read.
    pub(crate) fn is_known(&self, node: NodeId) -> bool {
        self.is_known[node]
    }
}

impl KeptView {
    /// The meaning of a view: its query down to the source tables, and its key.
    pub(crate) fn fingerprint(&self, lineage: &Lineage) -> Fingerprint {
        let key: Vec<u8> = self.key.iter().flat_map(|i| (*i as u64).to_be_bytes()).collect();
        let columns = format!("{:?}", self.schema.fields());
        Fingerprint::of([&lineage.fingerprint(self.root).bytes()[..], &key, columns.as_bytes()])
    }
}

impl Program {
    /// Stores the state of every operator, instead of building it from the tables' rows at each start: starts get
    /// quicker, the store larger, and a changed query makes all that is connected with it start anew.
    pub fn store_all_operators(&mut self) {
        for (id, node) in self.graph.nodes.iter().enumerate() {
            if let NodeKind::Operator(op) = &node.kind {
                (self.lineage.own_state[id], self.lineage.is_stored[id]) = (true, true);
                self.lineage.is_known[id] = op.remembers();
            }
        }
    }

    /// What each view means, by name.
    pub(crate) fn view_fingerprints(&self) -> BTreeMap<String, Fingerprint> {
        self.views.iter().map(|v| (v.info.name.clone(), v.fingerprint(&self.lineage))).collect()
    }
}
