//! What `EXPLAIN` says of the graph.

use std::fmt::Write as _;

use super::{Graph, NodeId, NodeKind};

impl Graph {
    /// Why a view is recomputed in part or whole; nodes of other views do not count.
    pub(crate) fn recompute_reasons(&self, root: NodeId, view: &str) -> Vec<String> {
        let mut seen = vec![false; self.nodes.len()];
        let mut stack = vec![root];
        let mut reasons = Vec::new();
        while let Some(id) = stack.pop() {
            if std::mem::replace(&mut seen[id], true) || self.is_view_of_another(id, root, view) {
                continue;
            }
            reasons.extend(self.nodes[id].recompute.clone());
            stack.extend(&self.nodes[id].inputs);
        }
        reasons
    }

    pub(super) fn is_view_of_another(&self, id: NodeId, root: NodeId, view: &str) -> bool {
        id != root && self.leaves.iter().any(|(name, leaf)| *leaf == id && name != view)
    }

    /// The operator tree of a view as text; stops at other views.
    pub(crate) fn explain(&self, root: NodeId, view: &str) -> String {
        self.explain_with(root, view, &|_| String::new())
    }

    /// The same, with something to add about each operator.
    pub(crate) fn explain_with(&self, root: NodeId, view: &str, note: &dyn Fn(NodeId) -> String) -> String {
        let mut text = String::new();
        self.explain_node((root, root), view, note, 0, &mut text);
        text
    }

    fn explain_node(
        &self,
        (id, root): (NodeId, NodeId),
        view: &str,
        note: &dyn Fn(NodeId) -> String,
        depth: usize,
        text: &mut String,
    ) {
        let node = &self.nodes[id];
        let indent = "  ".repeat(depth);
        if self.is_view_of_another(id, root, view) {
            // Views with equal plans share a node, so a node can have several names.
            let text_of = match &node.kind {
                NodeKind::Source(name) => format!("source {name}"),
                NodeKind::Operator(_) => {
                    let names = self.leaves.iter().filter(|(name, leaf)| **leaf == id && *name != view);
                    format!("view {}", names.map(|(name, _)| name.as_str()).min().unwrap_or_default())
                }
            };
            writeln!(text, "{indent}{text_of}").expect("a String takes every text");
            return;
        }
        let reason = node.recompute.as_ref().map(|r| format!("  -- recompute: {r}")).unwrap_or_default();
        writeln!(text, "{indent}{}{}{reason}", node.label, note(id)).expect("a String takes every text");
        for input in &node.inputs {
            self.explain_node((*input, root), view, note, depth + 1, text);
        }
    }
}
