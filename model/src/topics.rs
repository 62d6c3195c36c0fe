//! Names of Andon's own topics. Source topics have the names their DDL gives them.

/// Every record that could not be decoded, with the place it came from and the reason.
pub const DEAD_LETTER: &str = "andon.dead-letter";
/// Alert events (CloudEvents JSON), key = alert id.
pub const ALERTS: &str = "andon.alerts";
/// Compacted: view or rule name → [`crate::ViewInfo`] as JSON; tombstone when dropped.
pub const CATALOG: &str = "andon.catalog";
/// One record a second at most: [`crate::view::EngineStatus`] as JSON, key `engine`. Compacted.
pub const STATUS: &str = "andon.status";
/// Every ten seconds: the dataflow graph with the numbers of each operator as JSON, key `engine`. Compacted.
pub const GRAPH: &str = "andon.graph";
/// Prefix of the topics of kept views.
pub const VIEW_PREFIX: &str = "andon.view.";
/// Prefix of the topics of rules' results, which have the form of view topics.
pub const RULE_PREFIX: &str = "andon.rule.";

/// The compacted topic of a kept view: key → row, tombstone on delete.
pub fn view(name: &str) -> String {
    format!("{VIEW_PREFIX}{name}")
}

/// The compacted topic of a rule's rows.
pub fn rule(name: &str) -> String {
    format!("{RULE_PREFIX}{name}")
}
