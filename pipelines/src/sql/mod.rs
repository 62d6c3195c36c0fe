//! From SQL text to statements that DataFusion plans: the parser, Flink's own syntax, functions, and time.
//!
//! A statement passes through [`tokens`] (what the parser does not know), the parser, and the rewriting of the syntax
//! tree ([`windows`], [`as_of`], [`unnest`], [`using`], [`row_values`], [`standard`], [`spellings`]). Places in messages are those of the text as written.

mod as_of;
mod declared;
mod dialect;
pub(crate) mod functions;
mod json_clauses;
mod json_constructors;
pub(crate) mod lint;
pub(crate) mod now;
mod operators;
mod options;
mod other_spellings;
pub(crate) mod places;
pub(crate) mod recursion;
mod refusal;
mod relations;
mod row_values;
pub(crate) mod rules;
pub(crate) mod sets;
mod spellings;
mod standard;
pub(crate) mod subqueries;
mod template;
mod tokens;
mod unnest;
mod using;
pub(crate) mod windows;

use std::collections::BTreeSet;

use datafusion::sql::sqlparser::ast::{self, Query, Statement};
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Span;
use model::{Diagnostic, SqlStatement};

pub(crate) use declared::Declared;
pub(crate) use operators::Operators;
pub(crate) use options::ViewOptions;
pub(crate) use refusal::Refusal;
pub(crate) use relations::relation_names;

/// A statement of a view file.
#[derive(Debug, Clone)]
pub(crate) struct ViewStatement {
    pub(crate) name: String,
    pub(crate) kind: StatementKind,
    /// Empty for a view that is not kept.
    pub(crate) options: ViewOptions,
    pub(crate) query: Query,
    /// Names of the relations that the query reads.
    pub(crate) relations: BTreeSet<String>,
    /// What would not run on Flink, or mean something else there.
    pub(crate) warnings: Vec<Diagnostic>,
    pub(crate) source: SqlStatement,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StatementKind {
    /// A name for a query; nothing is kept.
    View,
    /// Kept.
    Materialized,
}

/// Parses a `CREATE [MATERIALIZED] VIEW`. `None` for `CREATE TABLE`, which declares a source and is read by `ingest`.
pub(crate) fn parse_view(statement: &SqlStatement, declared: &Declared) -> Result<Option<ViewStatement>, Diagnostic> {
    let mut words = statement.sql.split_whitespace().filter(|w| !w.eq_ignore_ascii_case("temporary"));
    if words.next().is_some_and(|w| w.eq_ignore_ascii_case("create"))
        && words.next().is_some_and(|w| w.get(..5).is_some_and(|t| t.eq_ignore_ascii_case("table")))
    {
        return Ok(None);
    }
    let parsed = parse_one(statement, declared)?;
    view_of(parsed, statement).map(Some).map_err(|refusal| refusal.diagnostic(statement))
}

fn view_of(parsed: Parsed, source: &SqlStatement) -> Result<ViewStatement, Refusal> {
    let view = match parsed.statement {
        Statement::CreateView(view) => view,
        other => {
            return Err(Refusal::new(
                Span::empty(),
                format!("`{}` is not a statement of a view file", first_words(&other.to_string())),
                "write CREATE VIEW name AS SELECT … or CREATE MATERIALIZED VIEW name AS SELECT …",
            ));
        }
    };
    let mut options = ViewOptions::parse(&view.options)?;
    options.emit_on_window_close = parsed.emit_on_window_close.is_some();
    let kind = if view.materialized { StatementKind::Materialized } else { StatementKind::View };
    if kind == StatementKind::View && !options.is_empty() {
        let help = "write CREATE MATERIALIZED VIEW, or remove WITH (…) and EMIT ON WINDOW CLOSE";
        return Err(Refusal::new(
            parsed.emit_on_window_close.unwrap_or(Span::empty()),
            "a view that is not kept has no options",
            help,
        ));
    }
    if let Some(column) = view.columns.first() {
        return Err(Refusal::new(
            column.name.span,
            "a column list after the view's name is not supported",
            "name the columns in the SELECT with AS",
        ));
    }
    let name = match view.name.0.as_slice() {
        [one] => one.as_ident().map(ident_name).unwrap_or_default(),
        _ => {
            let help = "write the view's name alone; there are no catalogs or databases here";
            return Err(Refusal::of(&view.name, "a dot in the view's name", help));
        }
    };
    let query = *view.query;
    let relations = relation_names(&query);
    Ok(ViewStatement { name, kind, options, query, relations, warnings: parsed.warnings, source: source.clone() })
}

/// Parses a single SELECT, a rule's body or a person's query, with the warnings about it.
pub(crate) fn parse_query(
    statement: &SqlStatement,
    declared: &Declared,
) -> Result<(Query, Vec<Diagnostic>), Diagnostic> {
    let parsed = parse_one(statement, declared)?;
    let refusal = match (parsed.statement, parsed.emit_on_window_close) {
        (Statement::Query(query), None) => return Ok((*query, parsed.warnings)),
        (Statement::Query(_), Some(at)) => {
            Refusal::new(at, "EMIT ON WINDOW CLOSE is for kept views", "write CREATE MATERIALIZED VIEW … and read that")
        }
        (other, _) => {
            let message = format!("`{}` is not a SELECT", first_words(&other.to_string()));
            Refusal::new(Span::empty(), message, "write one SELECT statement")
        }
    };
    Err(refusal.diagnostic(statement))
}

struct Parsed {
    statement: Statement,
    emit_on_window_close: Option<Span>,
    warnings: Vec<Diagnostic>,
}

fn parse_one(statement: &SqlStatement, declared: &Declared) -> Result<Parsed, Diagnostic> {
    let prepared = tokens::prepare(&statement.sql, declared).map_err(|refusal| refusal.diagnostic(statement))?;
    let end = prepared.tokens.last().map(|t| t.span.end);
    let dialect = dialect::AndonDialect::default();
    let mut parser = Parser::new(&dialect).with_tokens_with_locations(prepared.tokens);
    let mut parsed = parser.parse_statements().map_err(|e| match (e.to_string(), end) {
        // The end of the text has no place of its own.
        (text, Some(end)) if !text.contains(" at Line: ") => {
            let text = text.trim_start_matches("sql parser error: ");
            Refusal::new(Span::new(end, end), text, "").diagnostic(statement)
        }
        (text, _) => parser_diagnostic(statement, &text),
    })?;
    if parsed.len() != 1 {
        return Err(statement.diagnostic(format!("expected one statement, found {}", parsed.len())));
    }
    let mut one = parsed.remove(0);
    let query = match &mut one {
        Statement::CreateView(view) => Some(&mut view.query),
        Statement::Query(query) => Some(query),
        _ => None,
    };
    let mut warnings = Vec::new();
    if let Some(query) = query {
        warnings.extend(lint::of_query(query).into_iter().map(|refusal| refusal.diagnostic(statement)));
        windows::rewrite(query)
            .and_then(|()| as_of::rewrite(query, declared))
            .and_then(|()| unnest::rewrite(query))
            .and_then(|()| using::rewrite(query))
            .and_then(|()| row_values::rewrite(query))
            .and_then(|()| standard::rewrite(query))
            .and_then(|()| spellings::rewrite(query))
            .map_err(|refusal| refusal.diagnostic(statement))?;
    }
    Ok(Parsed { statement: one, emit_on_window_close: prepared.emit_on_window_close, warnings })
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
