//! The YAML header of a rule file. Mistakes are collected, not only the first, and point at the field's line.

use std::collections::BTreeMap;

use model::{Diagnostic, SqlFile, SqlStatement, sql::split_statements};
use serde_yaml_ng::{Mapping, Value};

use super::{Rule, Severity, Title};

const OPEN: &str = "/*---";
const CLOSE: &str = "---*/";

const KNOWN: [&str; 10] =
    ["name", "owner", "severity", "key", "title", "impact", "description", "labels", "runbook", "enabled"];
/// Fields of the full format that this version does not act on. Ignoring them would change what a rule means.
const LATER: [&str; 14] = [
    "version",
    "for",
    "keep_firing",
    "keep_firing_for",
    "clear",
    "no_data",
    "error",
    "every",
    "due",
    "notify",
    "annotations",
    "group_by",
    "inhibits",
    "substitutes",
];

const NAME_LEN_MAX: usize = 100;
const TEXT_LEN_MAX: usize = 2_000;
const KEY_COLUMNS_MAX: usize = 8;
const LABELS_MAX: usize = 32;

/// Where the fields of a header stand in the file.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    path: String,
    header: (usize, usize),
    fields: BTreeMap<String, (usize, usize)>,
}

impl Places {
    /// A message about a field, at the field's line or, if it is not there, at the header.
    pub(crate) fn at(&self, field: &str, message: impl Into<String>) -> Diagnostic {
        let (line, column) = self.fields.get(field).copied().unwrap_or(self.header);
        Diagnostic { path: self.path.clone(), line, column, message: message.into(), help: None }
    }
}

/// Reads one file: the rule, and whether it is enabled.
pub(super) fn read(file: &SqlFile) -> Result<(Rule, bool), Vec<Diagnostic>> {
    let (yaml, places) = find_header(file).map_err(|d| vec![d])?;
    let mapping = parse_yaml(yaml, &places).map_err(|d| vec![d])?;
    let mut fields = Fields { mapping: &mapping, places: &places, diagnostics: Vec::new() };
    fields.reject_unknown();
    let name = fields.name();
    let owner = fields.required_text("owner", "`owner: team`, who looks after this rule");
    let severity = fields.severity();
    let key = fields.key();
    let title = fields.title();
    let impact = fields.text("impact");
    let description = fields.text("description");
    let labels = fields.labels();
    let runbook = fields.text("runbook");
    let enabled = fields.enabled();
    let mut diagnostics = fields.diagnostics;
    let statement = match only_select(file, &places) {
        Ok(statement) => Some(statement),
        Err(diagnostic) => {
            diagnostics.push(diagnostic);
            None
        }
    };
    match (name, owner, severity, key, title, statement) {
        (Some(name), Some(owner), Some(severity), Some(key), Some(title), Some(statement))
            if diagnostics.is_empty() =>
        {
            let rule =
                Rule { name, owner, severity, key, title, impact, description, labels, runbook, statement, places };
            Ok((rule, enabled))
        }
        _ => Err(diagnostics),
    }
}

/// The YAML between the marks and the places of its fields. It starts at the opening mark's line, so that YAML's line
/// numbers only need that line's number added.
fn find_header(file: &SqlFile) -> Result<(&str, Places), Diagnostic> {
    let text = file.text.strip_prefix('\u{feff}').unwrap_or(&file.text);
    let start = text.len() - text.trim_start().len();
    let line = 1 + text[..start].matches('\n').count();
    let mut places = Places { path: file.path.clone(), header: (line, 1), fields: BTreeMap::new() };
    let Some(body) = text[start..].strip_prefix(OPEN) else {
        let help = format!("start it with `{OPEN}`, the fields one a line, and `{CLOSE}`");
        return Err(places.at("", "the file does not start with a rule header").with_help(help));
    };
    let comment_end = body.find("*/").map(|end| end + 2);
    let Some(yaml) = comment_end.and_then(|end| body[..end].strip_suffix(CLOSE)) else {
        return Err(places.at("", "the header never ends").with_help(format!("end it with a line `{CLOSE}`")));
    };
    for (i, text) in yaml.lines().enumerate() {
        let field: String = text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_' || *c == '-').collect();
        if !field.is_empty() && text[field.len()..].trim_start().starts_with(':') {
            places.fields.entry(field).or_insert((line + i, 1));
        }
    }
    Ok((yaml, places))
}

fn parse_yaml(yaml: &str, places: &Places) -> Result<Mapping, Diagnostic> {
    serde_yaml_ng::from_str::<Mapping>(yaml).map_err(|error| {
        let (line, column) = error.location().map_or((1, 1), |l| (l.line(), l.column()));
        let text = error.to_string();
        let reason = text.split(" at line ").next().unwrap_or(&text);
        let mut diagnostic = places.at("", format!("header is not valid YAML: {reason}"));
        diagnostic.line = places.header.0 + line.max(1) - 1;
        diagnostic.column = column.max(1);
        diagnostic
    })
}

fn only_select(file: &SqlFile, places: &Places) -> Result<SqlStatement, Diagnostic> {
    let mut statements = split_statements(file)?.into_iter();
    let Some(statement) = statements.next() else {
        return Err(places.at("", "the file has a header but no SELECT"));
    };
    let first_word: String =
        statement.sql.chars().take_while(char::is_ascii_alphabetic).collect::<String>().to_ascii_uppercase();
    if first_word != "SELECT" && first_word != "WITH" {
        let help = "a rule is one SELECT; views it needs belong in pipelines/sql";
        return Err(statement.diagnostic("expected SELECT or WITH").with_help(help));
    }
    match statements.next() {
        Some(second) => {
            Err(second.diagnostic("a rule has one statement only").with_help("put each rule into a file of its own"))
        }
        None => Ok(statement),
    }
}

struct Fields<'a> {
    mapping: &'a Mapping,
    places: &'a Places,
    diagnostics: Vec<Diagnostic>,
}

impl Fields<'_> {
    fn complain(&mut self, field: &str, message: impl Into<String>, help: Option<String>) {
        let mut diagnostic = self.places.at(field, message);
        diagnostic.help = help;
        self.diagnostics.push(diagnostic);
    }

    fn reject_unknown(&mut self) {
        for name in self.mapping.keys() {
            let Some(name) = name.as_str() else {
                self.complain("", "field names must be text", None);
                continue;
            };
            if LATER.contains(&name) {
                let message = format!("`{name}` is not yet supported");
                self.complain(name, message, Some("leave it out for now".to_owned()));
            } else if !KNOWN.contains(&name) {
                let known = format!("known fields: {}", KNOWN.join(", "));
                let help = match KNOWN.into_iter().find(|known| is_typo_of(name, known)) {
                    Some(meant) => format!("did you mean `{meant}`? {known}"),
                    None => known,
                };
                self.complain(name, format!("unknown field `{name}`"), Some(help));
            }
        }
    }

    /// The text of a field; `None` if it is missing, null or, with a message, not a text.
    fn text(&mut self, field: &str) -> Option<String> {
        let text = match self.mapping.get(field)? {
            Value::Null => return None,
            Value::String(text) => text.trim().to_owned(),
            Value::Number(number) => number.to_string(),
            _ => {
                self.complain(field, format!("`{field}` must be a text"), None);
                return None;
            }
        };
        if text.is_empty() || text.len() > TEXT_LEN_MAX {
            self.complain(field, format!("`{field}` must have 1 to {TEXT_LEN_MAX} characters"), None);
            return None;
        }
        Some(text)
    }

    fn required_text(&mut self, field: &str, example: &str) -> Option<String> {
        if self.mapping.get(field).is_none_or(Value::is_null) {
            self.complain(field, format!("`{field}` is missing"), Some(format!("add {example}")));
            return None;
        }
        self.text(field)
    }

    fn name(&mut self) -> Option<String> {
        let name = self.required_text("name", "`name: rule_name`, unique among rules and views")?;
        let is_ok = name.len() <= NAME_LEN_MAX
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if !is_ok {
            let help = "use lower-case letters, digits and underscores, a letter first";
            self.complain("name", format!("`{name}` is no good name for a rule"), Some(help.to_owned()));
            return None;
        }
        Some(name)
    }

    fn severity(&mut self) -> Option<Severity> {
        let names = Severity::ALL.map(Severity::as_str).join(", ");
        let text = self.required_text("severity", "`severity: high`, how bad one alert is")?;
        let severity = Severity::parse(&text);
        if severity.is_none() {
            self.complain("severity", format!("unknown severity `{text}`"), Some(format!("use one of: {names}")));
        }
        severity
    }

    fn key(&mut self) -> Option<Vec<String>> {
        let columns = match self.mapping.get("key") {
            None | Some(Value::Null) => {
                let help = "add `key: [column, …]`, the columns that identify one alert";
                self.complain("key", "`key` is missing", Some(help.to_owned()));
                return None;
            }
            Some(Value::String(column)) => vec![column.trim().to_owned()],
            Some(Value::Sequence(items)) => {
                items.iter().filter_map(|v| v.as_str().map(|s| s.trim().to_owned())).collect()
            }
            Some(_) => Vec::new(),
        };
        let n_given = self.mapping.get("key").and_then(Value::as_sequence).map_or(1, Vec::len);
        let mut distinct = columns.clone();
        distinct.sort();
        distinct.dedup();
        let is_ok = columns.len() == n_given
            && distinct.len() == columns.len()
            && (1..=KEY_COLUMNS_MAX).contains(&columns.len())
            && columns.iter().all(|c| !c.is_empty());
        if !is_ok {
            let message = format!("`key` must be a list of 1 to {KEY_COLUMNS_MAX} different column names");
            self.complain("key", message, None);
            return None;
        }
        Some(columns)
    }

    fn title(&mut self) -> Option<Title> {
        let text = self.required_text("title", "`title: \"{{ sku }} is low\"`, a template over the row")?;
        match Title::parse(&text) {
            Ok(title) => Some(title),
            Err(error) => {
                self.complain("title", format!("title does not parse: {error}"), None);
                None
            }
        }
    }

    fn labels(&mut self) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        let mut is_ok = true;
        match self.mapping.get("labels") {
            None | Some(Value::Null) => {}
            Some(Value::Mapping(given)) if given.len() <= LABELS_MAX => {
                for (name, value) in given {
                    let value = match value {
                        Value::String(text) => Some(text.clone()),
                        Value::Number(number) => Some(number.to_string()),
                        Value::Bool(yes) => Some(yes.to_string()),
                        _ => None,
                    };
                    match (name.as_str(), value) {
                        (Some(name), Some(value)) => drop(labels.insert(name.to_owned(), value)),
                        _ => is_ok = false,
                    }
                }
            }
            Some(_) => is_ok = false,
        }
        if !is_ok {
            let message = format!("`labels` must be at most {LABELS_MAX} pairs of name and text");
            self.complain("labels", message, None);
        }
        labels
    }

    fn enabled(&mut self) -> bool {
        match self.mapping.get("enabled") {
            None => true,
            Some(Value::Bool(enabled)) => *enabled,
            Some(_) => {
                self.complain("enabled", "`enabled` must be true or false", None);
                true
            }
        }
    }
}

/// Whether one edit, or a swap of neighbours, makes one name of the other.
fn is_typo_of(given: &str, known: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (given.chars().collect(), known.chars().collect());
    let prefix = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let (a, b) = (&a[prefix..], &b[prefix..]);
    let suffix = a.iter().rev().zip(b.iter().rev()).take_while(|(x, y)| x == y).count();
    let (a, b) = (&a[..a.len() - suffix], &b[..b.len() - suffix]);
    (a.len() <= 1 && b.len() <= 1) || (a.len() == 2 && b.len() == 2 && a[0] == b[1] && a[1] == b[0])
}
