//! Columns that are not in a record's value: metadata of the record, and expressions over the other columns.
//!
//! Metadata is read while decoding. Expressions are the engine's business: the table of the columns that are in the
//! records gets another name, and a view with the declared name computes the rest.

use arrow::datatypes::{DataType, Field};
use model::sql::split_statements;
use model::{SqlFile, SqlStatement};

use super::parse::{Parsed, ParsedComputed};

/// Key under which a schema's field remembers its metadata.
const FIELD_KEY: &str = "andon.metadata";

/// What of a record can be a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Metadata {
    /// The log's timestamp.
    Timestamp,
    Offset,
    Partition,
    Topic,
}

impl Metadata {
    pub(super) fn of_key(key: &str) -> Option<Self> {
        Some(match key {
            "timestamp" => Self::Timestamp,
            "offset" => Self::Offset,
            "partition" => Self::Partition,
            "topic" => Self::Topic,
            _ => return None,
        })
    }

    fn key(self) -> &'static str {
        match self {
            Self::Timestamp => "timestamp",
            Self::Offset => "offset",
            Self::Partition => "partition",
            Self::Topic => "topic",
        }
    }

    pub(super) fn fits(self, data_type: &DataType) -> bool {
        match self {
            Self::Timestamp => matches!(data_type, DataType::Timestamp(..)),
            Self::Offset => *data_type == DataType::Int64,
            Self::Partition => matches!(data_type, DataType::Int32 | DataType::Int64),
            Self::Topic => *data_type == DataType::Utf8,
        }
    }

    pub(super) fn declaration(self) -> &'static str {
        match self {
            Self::Timestamp => "declare it as TIMESTAMP_LTZ(3) METADATA FROM 'timestamp'",
            Self::Offset => "declare it as BIGINT METADATA FROM 'offset'",
            Self::Partition => "declare it as INT METADATA FROM 'partition'",
            Self::Topic => "declare it as STRING METADATA FROM 'topic'",
        }
    }

    /// The field with a note of what it is read from.
    pub(super) fn mark(self, field: Field) -> Field {
        field.with_metadata([(FIELD_KEY.to_owned(), self.key().to_owned())].into())
    }

    /// What a field is read from, if not from the record's value.
    pub(crate) fn of_field(field: &Field) -> Option<Self> {
        Self::of_key(field.metadata().get(FIELD_KEY)?)
    }
}

/// Name of the table of the columns that are in the records, if others are computed from them.
pub(super) fn physical_name(parsed: &Parsed) -> String {
    match parsed.computed.is_empty() {
        true => parsed.name.clone(),
        false => format!("{}__physical", parsed.name),
    }
}

/// A view for each table with computed columns: it has the table's declared name and all its columns in order.
///
/// Each file has one statement, whose expressions stand where they were declared, so that messages about them point
/// there. Tables that cannot be parsed are left out; [`super::parse_tables`] says why.
pub fn computed_views(files: &[SqlFile]) -> Vec<SqlFile> {
    let mut views = Vec::new();
    for file in files {
        let statements = split_statements(file).unwrap_or_default();
        for statement in statements.iter().filter(|s| super::is_create_table(&s.sql)) {
            let mut ignored = Vec::new();
            if let Some(parsed) = super::parse::parse(statement, &mut ignored).filter(|p| !p.computed.is_empty()) {
                views.push(SqlFile { path: file.path.clone(), text: view(statement, &parsed) });
            }
        }
    }
    views
}

fn view(statement: &SqlStatement, parsed: &Parsed) -> String {
    let mut text = Padded::default();
    text.go_to(statement.line, statement.column);
    text.put(&format!("CREATE VIEW `{}` AS SELECT", parsed.name));
    let mut comma = "";
    for at in 0..=parsed.columns.len() {
        for ParsedComputed { name, sql, sql_at, .. } in parsed.computed.iter().filter(|c| c.after == at) {
            text.put(comma);
            let column = if sql_at.line <= 1 { statement.column + sql_at.column - 1 } else { sql_at.column };
            text.go_to(statement.line + sql_at.line.saturating_sub(1), column);
            text.put(&format!("{sql} AS `{name}`"));
            comma = ",";
        }
        if let Some(column) = parsed.columns.get(at) {
            text.put(&format!("{comma} `{}`", column.name));
            comma = ",";
        }
    }
    text.put(&format!(" FROM `{}`", physical_name(parsed)));
    text.text
}

/// Text that is filled up with white space to reach a place.
#[derive(Default)]
struct Padded {
    text: String,
}

impl Padded {
    fn put(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Goes to a line and column, from 1, as far as they lie ahead.
    fn go_to(&mut self, line: usize, column: usize) {
        let now = 1 + self.text.matches('\n').count();
        self.text.extend(std::iter::repeat_n('\n', line.saturating_sub(now)));
        let here = self.text.rsplit('\n').next().map_or(0, |l| l.chars().count());
        let missing = column.saturating_sub(here + 1);
        // Words must not run together where the place is already behind.
        self.text.extend(std::iter::repeat_n(' ', missing.max(1)));
    }
}
