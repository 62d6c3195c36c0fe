//! What the engine tells of itself.

use super::Engine;
use crate::graph::NodeKind;

impl Engine {
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
}
