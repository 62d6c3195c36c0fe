//! Names of views: which are taken, and in which order the views come.

use std::collections::{BTreeMap, BTreeSet};

use model::{Diagnostic, SourceTable};

use crate::sql::{StatementKind, ViewStatement};

const LATE_SUFFIX: &str = "__late";

/// Name of the relation that holds what came too late for a view.
pub(crate) fn late_name(view: &str) -> String {
    format!("{view}{LATE_SUFFIX}")
}

/// Takes out the views that have the name of another relation, and says so of each.
pub(crate) fn take_taken_names(
    tables: &[SourceTable],
    statements: &mut BTreeMap<String, ViewStatement>,
) -> Vec<Diagnostic> {
    let is_kept = |name: &str| statements.get(name).is_some_and(|v| v.kind == StatementKind::Materialized);
    let mut found: Vec<(String, String)> = Vec::new();
    for name in statements.keys() {
        let late_of = name.strip_suffix(LATE_SUFFIX).filter(|view| is_kept(view));
        if tables.iter().any(|t| *t.name == *name) {
            found.push((name.clone(), format!("{name} is also a source table")));
        } else if let Some(view) = late_of {
            found.push((name.clone(), format!("{name} is the name of the late rows of view {view}")));
        } else if is_kept(name) && tables.iter().any(|t| *t.name == late_name(name)) {
            found.push((name.clone(), format!("the late rows of {name} have the name of a source table")));
        }
    }
    let mut all = Vec::new();
    for (name, message) in found {
        if let Some(view) = statements.remove(&name) {
            all.push(view.source.diagnostic(message).with_help("give the view another name"));
        }
    }
    all
}

/// Names such that every view comes after those it reads, and the names that depend on themselves.
pub(crate) fn in_order(statements: &BTreeMap<String, ViewStatement>) -> (Vec<String>, Vec<String>) {
    let mut done: BTreeSet<&str> = BTreeSet::new();
    let mut order = Vec::new();
    loop {
        let ready: Vec<&str> = statements
            .iter()
            .filter(|(name, view)| {
                !done.contains(name.as_str())
                    && view.relations.iter().all(|r| {
                        let r = r.strip_suffix(LATE_SUFFIX).filter(|_| !statements.contains_key(r)).unwrap_or(r);
                        !statements.contains_key(r) || done.contains(r)
                    })
            })
            .map(|(name, _)| name.as_str())
            .collect();
        if ready.is_empty() {
            let cyclic = statements.keys().filter(|n| !done.contains(n.as_str())).cloned().collect();
            return (order, cyclic);
        }
        order.extend(ready.iter().map(|n| (*n).to_owned()));
        done.extend(ready);
    }
}
