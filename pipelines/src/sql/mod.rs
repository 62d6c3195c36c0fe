//! From SQL text to statements that DataFusion plans: the parser, Flink's window functions, and time functions.

mod dialect;
pub(crate) mod now;
mod tumble;

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, CreateTableOptions, Query, SqlOption, Statement, visit_relations};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use model::{Diagnostic, SqlStatement};

/// A statement of a view file.
#[derive(Debug, Clone)]
pub(crate) struct ViewStatement {
    pub(crate) name: String,
    pub(crate) kind: StatementKind,
    pub(crate) query: Query,
    /// Names of the relations that the query mentions, common table expressions included.
    pub(crate) relations: BTreeSet<String>,
    pub(crate) source: SqlStatement,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StatementKind {
    /// A name for a query; nothing is kept.
    View,
    /// Kept, with the key columns if declared.
    Materialized { key: Option<Vec<String>> },
}

/// Parses a `CREATE [MATERIALIZED] VIEW`. `None` for `CREATE TABLE`, which declares a source and is read by `ingest`.
pub(crate) fn parse_view(statement: &SqlStatement) -> Result<Option<ViewStatement>, Diagnostic> {
    let mut words = statement.sql.split_whitespace();
    if words.next().is_some_and(|w| w.eq_ignore_ascii_case("create"))
        && words.next().is_some_and(|w| w.eq_ignore_ascii_case("table"))
    {
        return Ok(None);
    }
    match parse_one(statement)? {
        Statement::CreateView(view) => {
            let key = declared_key(&view.options, statement)?;
            let kind = match (view.materialized, key) {
                (true, key) => StatementKind::Materialized { key },
                (false, None) => StatementKind::View,
                (false, Some(_)) => {
                    return Err(statement
                        .diagnostic("a view that is not kept has no key")
                        .with_help("remove WITH (…)"));
                }
            };
            if !view.columns.is_empty() {
                return Err(statement
                    .diagnostic("a column list after the view's name is not supported")
                    .with_help("name the columns in the SELECT with AS"));
            }
            let name = view.name.0.last().and_then(|p| p.as_ident()).map(ident_name).unwrap_or_default();
            let query = *view.query;
            let relations = relation_names(&query);
            Ok(Some(ViewStatement { name, kind, query, relations, source: statement.clone() }))
        }
        other => Err(statement
            .diagnostic(format!("`{}` is not a statement of a view file", first_words(&other.to_string())))
            .with_help("write CREATE VIEW name AS SELECT … or CREATE MATERIALIZED VIEW name AS SELECT …")),
    }
}

/// Parses a single SELECT, a rule's body or a person's query.
pub(crate) fn parse_query(statement: &SqlStatement) -> Result<Query, Diagnostic> {
    match parse_one(statement)? {
        Statement::Query(query) => Ok(*query),
        other => Err(statement
            .diagnostic(format!("`{}` is not a SELECT", first_words(&other.to_string())))
            .with_help("write one SELECT statement")),
    }
}

/// Names of all relations a query mentions.
pub(crate) fn relation_names(query: &Query) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    // Nothing in the visitor breaks off, so the flow always goes on.
    match visit_relations(query, |name| {
        names.extend(name.0.last().and_then(|p| p.as_ident()).map(ident_name));
        ControlFlow::<()>::Continue(())
    }) {
        ControlFlow::Continue(()) | ControlFlow::Break(()) => names,
    }
}

fn parse_one(statement: &SqlStatement) -> Result<Statement, Diagnostic> {
    let dialect = dialect::AndonDialect::default();
    let sql = without_table_argument_keyword(&statement.sql);
    let mut parsed = Parser::parse_sql(&dialect, &sql).map_err(|e| parser_diagnostic(statement, &e.to_string()))?;
    match parsed.len() {
        1 => {
            let mut one = parsed.remove(0);
            tumble::rewrite(&mut one).map_err(|(message, help)| statement.diagnostic(message).with_help(help))?;
            Ok(one)
        }
        n => Err(statement.diagnostic(format!("expected one statement, found {n}"))),
    }
}

/// Flink writes `TUMBLE(TABLE bids, …)`; the parser knows no such argument. The keyword is blanked out, so that every
/// place in the text stays where it was.
fn without_table_argument_keyword(sql: &str) -> String {
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location() else {
        return sql.to_owned();
    };
    let solid: Vec<_> = tokens.iter().filter(|t| !matches!(t.token, Token::Whitespace(_))).collect();
    let mut lines: Vec<Vec<char>> = sql.split('\n').map(|l| l.chars().collect()).collect();
    for window in solid.windows(3) {
        let opens = matches!(window[0].token, Token::LParen | Token::Comma | Token::RArrow);
        let is_table = matches!(&window[1].token, Token::Word(w) if w.value.eq_ignore_ascii_case("table"));
        if opens && is_table && matches!(window[2].token, Token::Word(_)) {
            let start = window[1].span.start;
            let (line, column) = (index(start.line) - 1, index(start.column) - 1);
            lines[line][column..column + "table".len()].fill(' ');
        }
    }
    lines.into_iter().map(String::from_iter).collect::<Vec<_>>().join("\n")
}

fn index(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

fn declared_key(options: &CreateTableOptions, statement: &SqlStatement) -> Result<Option<Vec<String>>, Diagnostic> {
    let (CreateTableOptions::With(options) | CreateTableOptions::Options(options)) = options else {
        return Ok(None);
    };
    let mut key = None;
    for option in options {
        let SqlOption::KeyValue { key: name, value } = option else {
            return Err(statement.diagnostic(format!("option `{option}` is not understood")));
        };
        let text = match value {
            ast::Expr::Value(v) => v.value.clone().into_string().unwrap_or_default(),
            other => other.to_string(),
        };
        match name.value.as_str() {
            "key" => key = Some(text.split(',').map(|c| c.trim().to_owned()).filter(|c| !c.is_empty()).collect()),
            other => {
                return Err(statement
                    .diagnostic(format!("unknown option '{other}'"))
                    .with_help("known options: 'key' = 'column, column'"));
            }
        }
    }
    Ok(key)
}

/// sqlparser ends its messages with the place: `… at Line: 2, Column: 8`.
fn parser_diagnostic(statement: &SqlStatement, text: &str) -> Diagnostic {
    let text = text.trim_start_matches("sql parser error: ");
    let (message, place) = text.split_once(" at Line: ").unwrap_or((text, "1, Column: 1"));
    let (line, column) = place.split_once(", Column: ").unwrap_or(("1", "1"));
    statement.diagnostic_at(line.trim().parse().unwrap_or(1), column.trim().parse().unwrap_or(1), message)
}

/// Unquoted names are lower case, as the planner has them.
fn ident_name(ident: &ast::Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

fn first_words(sql: &str) -> String {
    sql.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}
