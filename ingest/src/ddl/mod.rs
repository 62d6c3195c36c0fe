//! Source tables from Flink-style DDL.
//!
//! In: SQL files. Out: one [`SourceTable`] per `CREATE TABLE`, or every mistake at once with its place and what to
//! write instead. Other statements are left to whoever reads them. The parser is our own over sqlparser's tokenizer,
//! since `WATERMARK FOR`, `NOT ENFORCED` and Flink's type names are not in its grammar.

mod computed;
mod parse;
mod types;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use model::sql::split_statements;
use model::{Diagnostic, SourceFormat, SourceTable, SqlFile, SqlStatement, TopicSelector};

pub(crate) use computed::Metadata;
pub use computed::computed_views;
use parse::{Parsed, ParsedOption};

/// The options that a table's WITH clause may have.
const KNOWN_OPTIONS: [&str; 5] = ["connector", "topic", "topic-pattern", "format", "ttl"];

/// Reads every `CREATE TABLE` of the files, in order.
///
/// A table with computed columns is called `<name>__physical` and lacks them; [`computed_views`] adds them.
///
/// # Errors
/// All mistakes in all files: syntax, unknown types and options, names declared twice.
pub fn parse_tables(files: &[SqlFile]) -> Result<Vec<SourceTable>, Vec<Diagnostic>> {
    let mut tables: Vec<SourceTable> = Vec::new();
    let mut errors = Vec::new();
    for file in files {
        let statements = match split_statements(file) {
            Ok(statements) => statements,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        for statement in statements.iter().filter(|s| is_create_table(&s.sql)) {
            let n_errors = errors.len();
            let table = parse::parse(statement, &mut errors).and_then(|p| build(statement, p, &mut errors));
            let Some(table) = table.filter(|_| errors.len() == n_errors) else { continue };
            match tables.iter().find(|t| t.name == table.name) {
                Some(first) => errors.push(
                    statement
                        .diagnostic(format!("table {} is declared twice", table.name))
                        .with_help(format!("the first declaration is at {}", first.declared_at)),
                ),
                None => tables.push(table),
            }
        }
    }
    if errors.is_empty() { Ok(tables) } else { Err(errors) }
}

fn is_create_table(sql: &str) -> bool {
    let mut words = sql.split_whitespace().map(str::to_ascii_uppercase);
    let first = words.next();
    let second = words.find(|w| w != "TEMPORARY");
    first.as_deref() == Some("CREATE") && second.is_some_and(|w| w == "TABLE" || w.starts_with("TABLE("))
}

fn build(statement: &SqlStatement, parsed: Parsed, errors: &mut Vec<Diagnostic>) -> Option<SourceTable> {
    let mut by_name = HashMap::new();
    for (index, column) in parsed.columns.iter().enumerate() {
        if by_name.insert(column.name.as_str(), index).is_some() {
            errors.push(column.at.diagnostic(statement, format!("column {} is declared twice", column.name)));
        }
    }
    for column in &parsed.computed {
        if by_name.contains_key(column.name.as_str()) {
            errors.push(column.at.diagnostic(statement, format!("column {} is declared twice", column.name)));
        }
    }
    let computed = |name: &str| parsed.computed.iter().any(|c| c.name == name);
    let known = || {
        let names: Vec<&str> = parsed.columns.iter().map(|c| c.name.as_str()).collect();
        format!("the columns are {}", names.join(", "))
    };
    let mut primary_key = Vec::new();
    for (name, at) in &parsed.primary_key {
        match by_name.get(name.as_str()) {
            Some(index) if primary_key.contains(index) => {
                errors.push(at.diagnostic(statement, format!("primary key names column {name} twice")));
            }
            Some(index) if parsed.columns[*index].metadata.is_some() => {
                errors.push(at.diagnostic(statement, format!("metadata column {name} cannot be a key")));
            }
            Some(index) => primary_key.push(*index),
            None if computed(name) => errors.push(
                at.diagnostic(statement, format!("computed column {name} cannot be a key"))
                    .with_help("use the columns that it is computed from"),
            ),
            None => errors.push(
                at.diagnostic(statement, format!("primary key column {name} is not declared")).with_help(known()),
            ),
        }
    }
    for index in &primary_key {
        let column = &parsed.columns[*index];
        if matches!(column.data_type, arrow::datatypes::DataType::List(_)) {
            errors.push(
                column.at.diagnostic(statement, format!("column {} is an array and cannot be a key", column.name)),
            );
        }
    }
    let event_time = parsed.watermark.as_ref().and_then(|w| {
        if computed(&w.column) {
            let help = "declare the column itself as TIMESTAMP(3): ISO texts and epoch numbers are read as they are";
            let message = format!("the watermark is of {}, which is computed", w.column);
            errors.push(w.at.diagnostic(statement, message).with_help(help));
            return None;
        }
        let Some(index) = by_name.get(w.column.as_str()) else {
            let message = format!("watermark column {} is not declared", w.column);
            errors.push(w.at.diagnostic(statement, message).with_help(known()));
            return None;
        };
        if !types::is_event_time(&parsed.columns[*index].data_type) {
            let message = format!("column {} is no timestamp, so it cannot be the event time", w.column);
            errors.push(w.at.diagnostic(statement, message).with_help("use a TIMESTAMP, TIMESTAMP_LTZ or DATE column"));
        }
        Some(model::EventTime { column: *index, delay_us: w.delay_us })
    });
    let ttl_us = ttl(statement, &parsed, event_time.is_some(), errors);
    let fields: Vec<Field> = parsed
        .columns
        .iter()
        .enumerate()
        .map(|(i, c)| {
            let field = Field::new(&c.name, c.data_type.clone(), c.nullable && !primary_key.contains(&i));
            match c.metadata {
                Some(metadata) => metadata.mark(field),
                None => field,
            }
        })
        .collect();
    let (topic, format) = source(statement, &parsed, errors)?;
    Some(SourceTable {
        name: Arc::from(computed::physical_name(&parsed)),
        schema: Arc::new(Schema::new(fields)),
        time_digits: parsed.columns.iter().map(|c| c.time_digits).collect(),
        primary_key,
        event_time,
        ttl_us,
        unread: Vec::new(),
        topic,
        format,
        declared_at: format!("{}:{}", statement.path, statement.line),
    })
}

/// How long rows stay: `'ttl' = '90 days'`.
fn ttl(statement: &SqlStatement, parsed: &Parsed, has_event_time: bool, errors: &mut Vec<Diagnostic>) -> Option<i64> {
    let option = parsed.options.iter().find(|o| o.name == "ttl")?;
    let refuse = |message: String, help: &str| option.at.diagnostic(statement, message).with_help(help);
    let refusal = if parsed.primary_key.is_empty() {
        refuse(
            "an append-only table keeps no rows, so it has no 'ttl'".to_owned(),
            "filter in the views over it: WHERE ts > CURRENT_TIMESTAMP - INTERVAL '90' DAY",
        )
    } else if !has_event_time {
        let help = "add WATERMARK FOR column AS column: the age of a row is counted from its event time";
        refuse("'ttl' wants an event time".to_owned(), help)
    } else {
        match types::duration_us(&option.value) {
            Some(us) => return Some(us),
            None => refuse(format!("'{}' is no duration", option.value), "write '90 days' or '12 hours'"),
        }
    };
    errors.push(refusal);
    None
}

fn source(
    statement: &SqlStatement,
    parsed: &Parsed,
    errors: &mut Vec<Diagnostic>,
) -> Option<(TopicSelector, SourceFormat)> {
    let option = |name: &str| parsed.options.iter().find(|o| o.name == name);
    for (i, o) in parsed.options.iter().enumerate() {
        if !KNOWN_OPTIONS.contains(&o.name.as_str()) {
            let elsewhere = ["properties.", "scan.", "sink."].iter().any(|prefix| o.name.starts_with(prefix));
            let help = match elsewhere {
                true => "leave it out: where Kafka is and where reading starts is said in the configuration".to_owned(),
                false => format!("the options are {}", KNOWN_OPTIONS.map(|k| format!("'{k}'")).join(", ")),
            };
            errors.push(o.at.diagnostic(statement, format!("unknown option '{}'", o.name)).with_help(help));
        } else if parsed.options[..i].iter().any(|earlier| earlier.name == o.name) {
            errors.push(o.at.diagnostic(statement, format!("option '{}' is given twice", o.name)));
        }
    }
    match option("connector") {
        Some(o) if o.value == "kafka" => {}
        Some(o) => errors.push(
            o.at.diagnostic(statement, format!("unknown connector '{}'", o.value))
                .with_help("write 'connector' = 'kafka'"),
        ),
        None => missing(statement, errors, "'connector'", "add 'connector' = 'kafka'"),
    }
    let format = format_of(statement, option("format"), errors);
    let topic = match (option("topic"), option("topic-pattern")) {
        (Some(_), Some(o)) => {
            errors.push(o.at.diagnostic(statement, "both 'topic' and 'topic-pattern' are given").with_help("keep one"));
            None
        }
        (Some(o), None) if o.value.is_empty() => {
            errors.push(o.at.diagnostic(statement, "the topic's name is empty"));
            None
        }
        (Some(o), None) => Some(TopicSelector::Name(o.value.clone())),
        (None, Some(o)) => match regex::Regex::new(&whole_name(&o.value)) {
            Ok(_) => Some(TopicSelector::Pattern(o.value.clone())),
            Err(e) => {
                errors.push(o.at.diagnostic(statement, format!("'topic-pattern' is no regular expression: {e}")));
                None
            }
        },
        (None, None) => {
            missing(
                statement,
                errors,
                "'topic' and no 'topic-pattern'",
                "add 'topic' = 'name', or a regular expression",
            );
            None
        }
    };
    Some((topic?, format?))
}

fn format_of(
    statement: &SqlStatement,
    option: Option<&ParsedOption>,
    errors: &mut Vec<Diagnostic>,
) -> Option<SourceFormat> {
    match option {
        Some(o) => match o.value.as_str() {
            "debezium-json" => Some(SourceFormat::DebeziumJson),
            "json" => Some(SourceFormat::Json),
            other => {
                let message = format!("unknown format '{other}'");
                errors
                    .push(o.at.diagnostic(statement, message).with_help("the formats are 'debezium-json' and 'json'"));
                None
            }
        },
        None => {
            missing(statement, errors, "'format'", "add 'format' = 'debezium-json' or 'json'");
            None
        }
    }
}

fn missing(statement: &SqlStatement, errors: &mut Vec<Diagnostic>, what: &str, help: &str) {
    errors.push(statement.diagnostic(format!("the WITH clause has no {what}")).with_help(help));
}

/// The regular expression that matches a whole topic name, as Flink's `topic-pattern` does.
pub(crate) fn whole_name(pattern: &str) -> String {
    format!("^(?:{pattern})$")
}

#[cfg(test)]
mod tests;
