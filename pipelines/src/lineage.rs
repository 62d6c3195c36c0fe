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

/// What a program can take over from stored state.
#[derive(Debug)]
pub(crate) struct Takeover {
    /// Operators whose stored state is used.
    pub(crate) operators: BTreeSet<Fingerprint>,
    /// Tables whose topics must be read again from their beginning.
    pub(crate) again: BTreeSet<Arc<str>>,
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

    /// Operators that keep state of their own.
    pub(crate) fn own_state(&self) -> impl Iterator<Item = Fingerprint> {
        let ids = 0..self.graph.nodes.len();
        ids.filter(|id| self.lineage.own_state(*id)).map(|id| self.lineage.fingerprint(id))
    }

    /// Which of the stored operators can be used, given tables that must be read again.
    ///
    /// An operator without stored state needs all its input from the beginning. So the operators below it start anew
    /// too, and the append-only tables below are read again; and whoever reads something that starts anew must itself,
    /// since it would count that twice.
    pub(crate) fn takeover(&self, stored: &BTreeSet<Fingerprint>, mut again: BTreeSet<Arc<str>>) -> Takeover {
        let (nodes, lineage) = (&self.graph.nodes, &self.lineage);
        let appended = |name: &Arc<str>| self.tables.iter().any(|t| t.name == *name && t.is_append_only());
        let is_own = |id: &NodeId| lineage.own_state(*id) && matches!(nodes[*id].kind, NodeKind::Operator(_));
        let own: Vec<NodeId> = (0..nodes.len()).filter(is_own).collect();
        let mut anew: BTreeSet<NodeId> =
            own.iter().copied().filter(|id| !stored.contains(&lineage.fingerprint(*id))).collect();
        loop {
            let size = (anew.len(), again.len());
            for id in own.iter().rev().filter(|id| anew.contains(id)).copied().collect::<Vec<_>>() {
                anew.extend(nodes[id].inputs.iter().filter(|i| is_own(i)));
                again.extend(lineage.sources[id].iter().filter(|name| appended(name)).cloned());
            }
            let topics = |names: &BTreeSet<Arc<str>>| -> Vec<_> {
                self.tables.iter().filter(|t| names.contains(&t.name)).map(|t| t.topic.clone()).collect()
            };
            let read_again = topics(&again);
            let shares = self.tables.iter().filter(|t| t.is_append_only() && read_again.contains(&t.topic));
            again.extend(shares.map(|t| Arc::clone(&t.name)));
            for id in &own {
                let input_anew = nodes[*id].inputs.iter().any(|i| anew.contains(i));
                if input_anew || lineage.sources[*id].iter().any(|name| appended(name) && again.contains(name)) {
                    anew.insert(*id);
                }
            }
            if size == (anew.len(), again.len()) {
                break;
            }
        }
        let used = own.iter().filter(|id| !anew.contains(id)).map(|id| lineage.fingerprint(*id));
        Takeover { operators: used.collect(), again }
    }
}
