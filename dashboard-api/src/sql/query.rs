//! The text of a query: one SELECT, which views it names, and that planning it stays small. Planning cannot be
//! interrupted, so that what would make it endless is refused before it begins.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;

use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::ast::{self, Visit, Visitor};

use super::{QueryError, message};
use crate::dialect::BoundedDialect;
use crate::functions::has_more_parts_than;

/// Views that one query may read.
const TABLES_MAX: usize = 32;
/// Words and operators of a query.
const PARTS_MAX: usize = 1_000;
/// How often a common table expression may stand in the plan: it is planned anew wherever it is named.
const COPIES_MAX: usize = 256;

/// A parsed SELECT and the views that it names.
pub(crate) struct ParsedQuery {
    pub(super) statement: Statement,
    /// Names of views, each once.
    pub(crate) views: Vec<String>,
}

/// Parses a query and finds the views that it names.
///
/// # Errors
/// If it is not one SELECT, or would be too much to plan.
pub(crate) fn parse(sql: &str) -> Result<ParsedQuery, QueryError> {
    if has_more_parts_than(sql, PARTS_MAX) {
        return Err(QueryError::TooLarge("planning: it has too many words"));
    }
    let dialect = BoundedDialect::of(sql);
    let parsed =
        DFParserBuilder::new(sql).with_dialect(&dialect).build().and_then(|mut parser| parser.parse_statements());
    let mut statements = parsed.map_err(|error| QueryError::Query(message(&error)))?;
    let Some(statement) = statements.pop_front().filter(|_| statements.is_empty()) else {
        return Err(QueryError::NotSelect);
    };
    match &statement {
        Statement::Statement(inner) if matches!(**inner, ast::Statement::Query(_)) => Survey::check(inner)?,
        _ => return Err(QueryError::NotSelect),
    }
    let (references, _) =
        resolve_table_references(&statement, true).map_err(|error| QueryError::Query(message(&error)))?;
    let mut views = Vec::new();
    for reference in references {
        // Views are in no schema; what is (information_schema, for example) is not there.
        if reference.schema().is_some() {
            return Err(QueryError::Query(format!("there is no view `{reference}`")));
        }
        views.push(reference.table().to_owned());
    }
    if views.len() > TABLES_MAX {
        return Err(QueryError::TooLarge("views"));
    }
    Ok(ParsedQuery { statement, views })
}

/// What is looked for in a query's text.
#[derive(Default)]
struct Survey {
    /// Names of common table expressions, in whichever part of the query.
    named: BTreeSet<String>,
    /// How often each table is named.
    references: HashMap<String, usize>,
}

impl Survey {
    fn check(statement: &ast::Statement) -> Result<(), QueryError> {
        let mut survey = Self::default();
        if let ControlFlow::Break(refused) = statement.visit(&mut survey) {
            return Err(QueryError::Query(format!("{refused} are not offered here")));
        }
        // One that stands in two places, in another that does, stands in four.
        let copies = survey.named.iter().filter_map(|name| survey.references.get(name));
        if copies.fold(1_usize, |all, n| all.saturating_mul(*n)) > COPIES_MAX {
            return Err(QueryError::TooLarge("planning: its common table expressions are named too often"));
        }
        Ok(())
    }
}

impl Visitor for Survey {
    type Break = &'static str;

    fn pre_visit_query(&mut self, query: &ast::Query) -> ControlFlow<Self::Break> {
        let tables = query.with.iter().flat_map(|with| &with.cte_tables);
        self.named.extend(tables.map(|table| table.alias.name.value.to_lowercase()));
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ast::ObjectName) -> ControlFlow<Self::Break> {
        let name = relation.0.last().and_then(|part| part.as_ident());
        if let Some(name) = name {
            *self.references.entry(name.value.to_lowercase()).or_default() += 1;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<Self::Break> {
        // The name of a type of structs in structs doubles with every step.
        match expr {
            ast::Expr::Struct { .. } | ast::Expr::Dictionary(_) | ast::Expr::Map(_) => {
                ControlFlow::Break("structs and maps")
            }
            ast::Expr::Tuple(_) => ControlFlow::Break("tuples"),
            ast::Expr::Lambda(_) => ControlFlow::Break("lambdas"),
            _ => ControlFlow::Continue(()),
        }
    }
}
