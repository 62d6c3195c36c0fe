//! Rule files: one `.sql` file per rule, a YAML header in its leading block comment, then one SELECT. Every row of the
//! SELECT is one alert; the header says what identifies it, how bad it is, whose it is and how it reads.

mod header;
mod title;

use std::collections::{BTreeMap, HashMap};

use model::{Diagnostic, SqlFile, SqlStatement, ViewInfo};
use serde::{Deserialize, Serialize};

pub use title::{Title, TitleError};

/// How bad it is. Ordered: `Critical` is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Look at it this week.
    Warning,
    /// Look at it today.
    High,
    /// Look at it now; always above the others.
    Critical,
}

impl Severity {
    /// All of them, worst first.
    pub const ALL: [Self; 4] = [Self::Critical, Self::High, Self::Warning, Self::Info];

    /// As headers, events and the store write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }

    /// The severity of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }
}

/// A rule as its file says it. Rules with `enabled: false` are checked and then left out.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Unique name: lower-case letters, digits and underscores.
    pub name: String,
    /// Who looks after the rule: a team or a person.
    pub owner: String,
    /// How bad one alert of this rule is.
    pub severity: Severity,
    /// Columns whose values identify one alert.
    pub key: Vec<String>,
    /// What one alert reads like.
    pub title: Title,
    /// Numeric column with what is at stake, if any.
    pub impact: Option<String>,
    /// What the rule is for.
    pub description: Option<String>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Where it says what to do.
    pub runbook: Option<String>,
    /// The SELECT, with its place in the file.
    pub statement: SqlStatement,
    pub(crate) places: header::Places,
}

/// Reads all rule files.
///
/// # Errors
/// Every mistake of every file, in the order of the files.
pub fn load(files: &[SqlFile]) -> Result<Vec<Rule>, Vec<Diagnostic>> {
    let mut rules: Vec<Rule> = Vec::new();
    let mut diagnostics = Vec::new();
    let mut first_of: HashMap<String, String> = HashMap::new();
    for file in files {
        match header::read(file) {
            Ok((rule, enabled)) => {
                if let Some(other) = first_of.insert(rule.name.clone(), file.path.clone()) {
                    let message = format!("rule `{}` is already defined in {other}", rule.name);
                    diagnostics.push(rule.places.at("name", message).with_help("give each rule a name of its own"));
                }
                if enabled {
                    rules.push(rule);
                }
            }
            Err(found) => diagnostics.extend(found),
        }
    }
    if diagnostics.is_empty() { Ok(rules) } else { Err(diagnostics) }
}

/// Checks that the columns a header names (`key`, `impact`, those in `title`) are columns of the planned SELECT.
/// Rules without an entry in `planned` are skipped.
pub fn check_columns(rules: &[Rule], planned: &[ViewInfo]) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    for rule in rules {
        let Some(view) = planned.iter().find(|v| v.name == rule.name) else { continue };
        let columns: Vec<&str> = view.columns.iter().map(|c| c.name.as_str()).collect();
        let title_columns = rule.title.columns();
        let named = rule.key.iter().map(|c| ("key", c)).chain(rule.impact.iter().map(|c| ("impact", c)));
        for (field, column) in named.chain(title_columns.iter().map(|c| ("title", c))) {
            if !columns.contains(&column.as_str()) {
                let message = format!("{field} names column `{column}`, which the SELECT does not return");
                let help = format!("it returns: {}", columns.join(", "));
                diagnostics.push(rule.places.at(field, message).with_help(help));
            }
        }
    }
    diagnostics
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(texts: &[&str], expected: Expect) {
        let files: Vec<SqlFile> = texts
            .iter()
            .enumerate()
            .map(|(i, text)| SqlFile { path: format!("rules/{i}.sql"), text: (*text).to_owned() })
            .collect();
        let out: String = match load(&files) {
            Ok(rules) => rules
                .iter()
                .map(|r| {
                    let Rule { name, owner, severity, key, title, impact, statement, .. } = r;
                    let severity = severity.as_str();
                    let SqlStatement { line, column, sql, .. } = statement;
                    format!("{name} {owner} {severity} {key:?} {title:?} {impact:?} {line}:{column} {sql:?}\n")
                })
                .collect(),
            Err(all) => all.iter().map(|d| format!("{d}\n")).collect(),
        };
        expected.assert_eq(&out);
    }

    const GOOD: &str = "/*---
name: stock_low
owner: purchasing
severity: high
key: [item_id]
title: \"{{ sku }} is low\"
impact: units
labels: {domain: stock}
---*/
-- all of them
SELECT item_id, sku, units
FROM item_stock;
";

    #[test]
    fn a_good_file_becomes_a_rule_whose_statement_has_the_files_lines() {
        check(
            &[GOOD],
            expect![[r#"
                stock_low purchasing high ["item_id"] Title("{{ sku }} is low") Some("units") 11:1 "SELECT item_id, sku, units\nFROM item_stock"
            "#]],
        );
    }

    #[test]
    fn a_disabled_rule_is_checked_and_left_out() {
        check(&[&GOOD.replace("impact: units", "enabled: false")], expect![""]);
        check(
            &[&GOOD.replace("impact: units", "enabled: 1")],
            expect![[r#"
                rules/0.sql:7:1: `enabled` must be true or false
            "#]],
        );
    }

    #[test]
    fn all_mistakes_of_all_files_come_at_once() {
        check(
            &[
                &GOOD.replace("severity: high", "severity: urgent").replace("key: [item_id]", "for: 15m\ntitel: x"),
                &GOOD.replace("{{ sku }}", "{{ sku"),
                "SELECT 1",
                GOOD,
                GOOD,
            ],
            expect![[r#"
                rules/0.sql:5:1: `for` is not yet supported
                  help: leave it out for now
                rules/0.sql:6:1: unknown field `titel`
                  help: did you mean `title`? known fields: name, owner, severity, key, title, impact, description, labels, runbook, enabled
                rules/0.sql:4:1: unknown severity `urgent`
                  help: use one of: critical, high, warning, info
                rules/0.sql:1:1: `key` is missing
                  help: add `key: [column, …]`, the columns that identify one alert
                rules/1.sql:6:1: title does not parse: unexpected end of input, expected end of variable block
                rules/2.sql:1:1: the file does not start with a rule header
                  help: start it with `/*---`, the fields one a line, and `---*/`
                rules/4.sql:2:1: rule `stock_low` is already defined in rules/3.sql
                  help: give each rule a name of its own
            "#]],
        );
    }

    #[test]
    fn yaml_and_sql_mistakes_have_their_line() {
        check(
            &[
                &GOOD.replace("key: [item_id]", "key: [item_id"),
                &GOOD.replace("SELECT item_id", "DELETE item_id"),
                &GOOD.replace("FROM item_stock;", "FROM item_stock; SELECT 2"),
                &GOOD.replace("---*/", "*/"),
                &GOOD.replace("FROM item_stock", "FROM 'item_stock"),
                &GOOD.replace("name: stock_low", "name: Stock-low"),
            ],
            expect![[r#"
                rules/0.sql:6:6: header is not valid YAML: did not find expected ',' or ']'
                rules/1.sql:11:1: expected SELECT or WITH
                  help: a rule is one SELECT; views it needs belong in pipelines/sql
                rules/2.sql:12:18: a rule has one statement only
                  help: put each rule into a file of its own
                rules/3.sql:1:1: the header never ends
                  help: end it with a line `---*/`
                rules/4.sql:12:6: this quote never ends
                rules/5.sql:2:1: `Stock-low` is no good name for a rule
                  help: use lower-case letters, digits and underscores, a letter first
            "#]],
        );
    }
}
