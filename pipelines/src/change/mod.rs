//! Another program for a running engine: what must be built for it, what goes on as it is.
//!
//! New views, and those that mean something else now, are built by a second engine beside the first one, from the rows
//! of the source tables, while the first goes on. When both stand at the same epoch, the second takes over the first
//! one's operators for everything that has not changed, and goes on in its place.

mod builder;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::fingerprint::Fingerprint;
use crate::graph::{NodeId, NodeKind};
use crate::program::{KeptView, Program};
use crate::state::table_fingerprint;

pub(crate) use builder::{Builder, BuiltView, Switch};

/// Another program for [`crate::run`]. One at a time: the next may be sent when this one has been answered.
#[derive(Debug)]
pub struct Change {
    /// What is to be kept from now on. It has been planned for the same tables.
    pub program: Program,
    /// Where the outcome is told.
    pub answer: oneshot::Sender<Changed>,
}

impl Change {
    pub(crate) fn tell(self, outcome: Changed) {
        tell(self.answer, outcome);
    }
}

fn tell(answer: oneshot::Sender<Changed>, outcome: Changed) {
    if let Err(outcome) = answer.send(outcome) {
        tracing::debug!(?outcome, "nobody waits for the outcome of a change");
    }
}

/// What became of a [`Change`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// The new program runs; the names of the views and rules that were built.
    Done(Vec<String>),
    /// It needs a start from the stored state or the topics. The old program runs on.
    NeedsStart(String),
    /// A view that was built failed on a row: which one, and why. The old program runs on.
    Failed(String),
}

/// What is needed of a program to compare another one with it.
#[derive(Debug)]
pub(crate) struct Outline {
    tables: BTreeMap<Arc<str>, Fingerprint>,
    /// Meaning, and whether its state can be built from nothing but the topics.
    views: BTreeMap<String, (Fingerprint, bool)>,
    /// How many operators have this meaning.
    operators: HashMap<Fingerprint, usize>,
}

/// How a program differs from the one that runs.
#[derive(Debug)]
pub(crate) struct Evolution {
    /// By node: whether it is built.
    pub(crate) is_built: Vec<bool>,
    /// By view: whether it is built.
    pub(crate) fresh: Vec<bool>,
    /// Source tables that are needed for it.
    pub(crate) tables: BTreeSet<Arc<str>>,
}

impl Outline {
    pub(crate) fn of(program: &Program) -> Self {
        let lineage = &program.lineage;
        let mut operators = HashMap::new();
        for (id, node) in program.graph.nodes.iter().enumerate() {
            if matches!(node.kind, NodeKind::Operator(_)) {
                *operators.entry(lineage.fingerprint(id)).or_insert(0) += 1;
            }
        }
        let meaning = |v: &KeptView| (v.fingerprint(lineage), lineage.own_state(v.root));
        Self {
            tables: program.tables.iter().map(|t| (Arc::clone(&t.name), table_fingerprint(t))).collect(),
            views: program.views.iter().map(|v| (v.info.name.clone(), meaning(v))).collect(),
            operators,
        }
    }
}

impl Evolution {
    /// Compares a program with the one that runs.
    ///
    /// # Errors
    /// Why the change needs a start.
    pub(crate) fn new(running: &Outline, next: &Program) -> Result<Self, String> {
        let tables: BTreeMap<_, _> = next.tables.iter().map(|t| (Arc::clone(&t.name), table_fingerprint(t))).collect();
        if tables != running.tables {
            return Err("the declarations of the source tables have changed".to_owned());
        }
        let lineage = &next.lineage;
        let now: BTreeMap<&str, Fingerprint> =
            next.views.iter().map(|v| (v.info.name.as_str(), v.fingerprint(lineage))).collect();
        let is_same = |name: &str| running.views.get(name).map(|(f, _)| f) == now.get(name);
        if let Some((name, _)) = running.views.iter().find(|(name, (_, own))| *own && !is_same(name)) {
            return Err(format!("state of {name} is stored, and has to be removed"));
        }
        let fresh: Vec<bool> = next.views.iter().map(|v| !is_same(&v.info.name)).collect();
        let built = || next.views.iter().zip(&fresh).filter(|(_, fresh)| **fresh).map(|(view, _)| view);
        if let Some(view) = built().find(|v| lineage.own_state(v.root)) {
            return Err(format!("{} cannot be built from the rows that are kept of the source tables", view.info.name));
        }
        let is_built = below(next, built().map(|v| v.root));
        let mut operators = running.operators.clone();
        for (id, node) in next.graph.nodes.iter().enumerate() {
            if matches!(node.kind, NodeKind::Operator(_)) && !is_built[id] {
                match operators.get_mut(&lineage.fingerprint(id)).filter(|n| **n > 0) {
                    Some(left) => *left -= 1,
                    None => return Err(format!("an operator of {} is new", node.view)),
                }
            }
        }
        let tables = built().flat_map(|v| lineage.sources(v.root).iter().cloned()).collect();
        Ok(Self { is_built, fresh, tables })
    }

    /// Names of what is built.
    pub(crate) fn names(&self, program: &Program) -> Vec<String> {
        let views = program.views.iter().zip(&self.fresh).filter(|(_, fresh)| **fresh);
        views.map(|(view, _)| view.info.name.clone()).collect()
    }
}

/// The nodes below these, themselves included.
fn below(program: &Program, roots: impl Iterator<Item = NodeId>) -> Vec<bool> {
    let mut found = vec![false; program.graph.nodes.len()];
    roots.for_each(|root| found[root] = true);
    // Inputs come before the nodes that read them.
    for id in (0..found.len()).rev() {
        if found[id] {
            program.graph.nodes[id].inputs.iter().for_each(|input| found[*input] = true);
        }
    }
    found
}
