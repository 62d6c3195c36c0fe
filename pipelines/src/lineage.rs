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
            lineage.fingerprints.push(fingerprint);
            lineage.own_state.push(own_state);
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

    /// Whether the state of a node cannot be rebuilt from the rows of the source tables.
    pub(crate) fn own_state(&self, node: NodeId) -> bool {
        self.own_state[node]
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
        let nodes = self.graph.nodes.iter().zip(&mut self.lineage.own_state);
        nodes.for_each(|(node, own)| *own |= matches!(node.kind, NodeKind::Operator(_)));
    }

    /// What each view means, by name.
    pub(crate) fn view_fingerprints(&self) -> BTreeMap<String, Fingerprint> {
        self.views.iter().map(|v| (v.info.name.clone(), v.fingerprint(&self.lineage))).collect()
    }
}
