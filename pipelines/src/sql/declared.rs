//! What the parser must know of the source tables: names with upper case letters, and event times.
//!
//! Flink's names are what is written; DataFusion takes unquoted names in lower case. So a name that a source table
//! declares with upper case letters, `dateTime` for example, is quoted wherever it is written in just this way.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::sql::sqlparser::keywords::{Keyword, RESERVED_FOR_COLUMN_ALIAS, RESERVED_FOR_TABLE_ALIAS};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use model::SourceTable;

/// What was declared with the source tables.
#[derive(Debug, Clone, Default)]
pub(crate) struct Declared {
    /// Names of tables and columns that have upper case letters.
    spelled: BTreeSet<String>,
    /// Event-time column by table.
    event_times: BTreeMap<String, String>,
}

impl Declared {
    pub(crate) fn of(tables: &[SourceTable]) -> Self {
        let mut names = BTreeSet::new();
        let mut event_times = BTreeMap::new();
        for table in tables {
            let declared = table.name.strip_suffix("__physical").unwrap_or(&table.name);
            let columns = table.schema.fields().iter().map(|f| f.name().as_str());
            let all = columns.chain([declared]);
            names.extend(all.filter(|n| n.chars().any(char::is_uppercase)).map(str::to_owned));
            if let Some(time) = &table.event_time {
                event_times.insert(declared.to_owned(), table.schema.field(time.column).name().clone());
            }
        }
        Self { spelled: names, event_times }
    }

    /// The event-time column of a source table.
    pub(super) fn event_time(&self, table: &str) -> Option<&str> {
        self.event_times.get(table).map(String::as_str)
    }

    /// Quotes them in a statement; names of functions and keywords stay as they are.
    pub(super) fn quote(&self, tokens: &mut [TokenWithSpan]) {
        if self.spelled.is_empty() {
            return;
        }
        for at in 0..tokens.len() {
            let is_call = matches!(
                tokens.get(at + 1).map(|t| &t.token),
                Some(Token::LParen | Token::SingleQuotedString(_) | Token::RArrow)
            );
            if let Token::Word(word) = &mut tokens[at].token
                && word.quote_style.is_none()
                && !is_call
                && self.spelled.contains(&word.value)
                && !RESERVED_FOR_COLUMN_ALIAS.contains(&word.keyword)
                && !RESERVED_FOR_TABLE_ALIAS.contains(&word.keyword)
            {
                word.quote_style = Some('`');
                word.keyword = Keyword::NoKeyword;
            }
        }
    }
}
