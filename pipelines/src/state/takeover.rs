//! What a program can use of stored state, and what it must read again.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::{Offsets, SourceTable, TopicSelector};
use regex::Regex;

use super::Checkpoint;
use super::store::table_is_stored;
use crate::fingerprint::Fingerprint;
use crate::graph::{NodeId, NodeKind};
use crate::program::Program;

/// What can be taken over.
#[derive(Debug)]
pub(crate) struct Takeover {
    /// Operators whose stored state is used.
    pub(crate) operators: BTreeSet<Fingerprint>,
    /// Views whose stored rows are used.
    pub(crate) rows: BTreeSet<Fingerprint>,
    /// Tables whose topics must be read again from their beginning.
    pub(crate) again: BTreeSet<Arc<str>>,
    /// Topics of those tables.
    pub(crate) topics: BTreeSet<String>,
}

impl Program {
    /// Which of the stored operators and views can be used.
    ///
    /// What has no stored state, but needs it, needs all its input from the beginning. So the operators below it start anew too, and
    /// the append-only tables below are read again; and whoever reads something that starts anew must itself, since it
    /// would count that twice. Changing tables are the exception: what is read again of them is old and changes nothing.
    pub(crate) fn takeover(&self, checkpoint: &Checkpoint) -> Takeover {
        let mut search = Search::new(self, checkpoint);
        while search.widen() {}
        let lineage = &self.lineage;
        let stored = search.own.iter().filter(|id| lineage.is_stored(**id) && !search.anew.contains(id));
        let operators = stored.map(|id| lineage.fingerprint(*id)).collect();
        let rows = self.views.iter().filter(|v| !lineage.is_known(v.root) && !search.starts_anew(v.root));
        let rows = rows.map(|v| v.fingerprint(lineage)).collect();
        let topics = search.topics();
        Takeover { operators, rows, again: search.again, topics }
    }
}

/// What is known so far of what starts anew.
struct Search<'a> {
    program: &'a Program,
    offsets: &'a Offsets,
    /// Operators with state of their own, inputs first.
    own: Vec<NodeId>,
    anew: BTreeSet<NodeId>,
    again: BTreeSet<Arc<str>>,
}

impl<'a> Search<'a> {
    fn new(program: &'a Program, checkpoint: &'a Checkpoint) -> Self {
        let lineage = &program.lineage;
        let is_operator = |id: &NodeId| matches!(program.graph.nodes[*id].kind, NodeKind::Operator(_));
        let own: Vec<NodeId> =
            (0..program.graph.nodes.len()).filter(|id| lineage.own_state(*id) && is_operator(id)).collect();
        let is_unknown =
            |id: &NodeId| lineage.is_stored(*id) && !checkpoint.operators.contains(&lineage.fingerprint(*id));
        let anew = own.iter().copied().filter(is_unknown).collect();
        let is_new = |t: &&SourceTable| !table_is_stored(checkpoint, t);
        let again = program.tables.iter().filter(is_new).map(|t| Arc::clone(&t.name)).collect();
        let mut search = Self { program, offsets: &checkpoint.offsets, own, anew, again };
        for view in program.views.iter().filter(|v| !lineage.is_known(v.root)) {
            if !checkpoint.rows.contains(&view.fingerprint(lineage)) {
                search.start_anew(view.root);
            }
        }
        search
    }

    fn start_anew(&mut self, id: NodeId) {
        match &self.program.graph.nodes[id].kind {
            NodeKind::Source(name) => self.again.insert(Arc::clone(name)),
            NodeKind::Operator(_) => self.anew.insert(id),
        };
    }

    fn starts_anew(&self, id: NodeId) -> bool {
        match &self.program.graph.nodes[id].kind {
            NodeKind::Source(name) => self.again.contains(name),
            NodeKind::Operator(_) => self.anew.contains(&id),
        }
    }

    fn is_append_only(&self, name: &Arc<str>) -> bool {
        self.program.tables.iter().any(|t| t.name == *name && t.is_append_only())
    }

    /// Adds what follows from what is known; whether that was anything.
    fn widen(&mut self) -> bool {
        let size = (self.anew.len(), self.again.len());
        let nodes = &self.program.graph.nodes;
        for id in self.own.iter().rev().filter(|id| self.anew.contains(id)).copied().collect::<Vec<_>>() {
            // What is known of an input at the start need not come again.
            for input in nodes[id].inputs.iter().copied().filter(|input| !self.program.lineage.is_known(*input)) {
                self.anew.extend(self.own.binary_search(&input).is_ok().then_some(input));
                let below =
                    self.program.lineage.sources(input).iter().filter(|name| self.is_append_only(name)).cloned();
                self.again.extend(below.collect::<Vec<_>>());
            }
        }
        let topics = self.topics();
        let appended = self.program.tables.iter().filter(|t| t.is_append_only());
        let shares = appended.filter(|t| !topics_of(t, self.offsets).is_disjoint(&topics)).map(|t| Arc::clone(&t.name));
        self.again.extend(shares.collect::<Vec<_>>());
        for id in &self.own {
            let read_again = |name: &Arc<str>| self.is_append_only(name) && self.again.contains(name);
            let input_anew = nodes[*id].inputs.iter().any(|i| self.anew.contains(i));
            if input_anew || self.program.lineage.sources(*id).iter().any(read_again) {
                self.anew.insert(*id);
            }
        }
        size != (self.anew.len(), self.again.len())
    }

    fn topics(&self) -> BTreeSet<String> {
        let tables = self.program.tables.iter().filter(|t| self.again.contains(&t.name));
        tables.flat_map(|t| topics_of(t, self.offsets)).collect()
    }
}

/// Topics of a table that have been read before.
fn topics_of(table: &SourceTable, offsets: &Offsets) -> BTreeSet<String> {
    let known = offsets.0.keys();
    match &table.topic {
        TopicSelector::Name(name) => known.filter(|topic| *topic == name).cloned().collect(),
        TopicSelector::Pattern(pattern) => match Regex::new(&format!("^(?:{pattern})$")) {
            Ok(regex) => known.filter(|topic| regex.is_match(topic)).cloned().collect(),
            // The reader refuses such a pattern with its place.
            Err(_) => BTreeSet::new(),
        },
    }
}
