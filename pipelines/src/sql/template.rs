//! SQL text with holes, for rewriting: what is put into the holes keeps its places.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Query, TableFactor, VisitMut, VisitorMut};
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

use super::dialect::AndonDialect;

/// What fills the holes: `__name` by an expression, the table `__data` by a table.
#[derive(Debug, Default)]
pub(super) struct Holes<'a> {
    pub(super) exprs: Vec<(&'a str, Expr)>,
    pub(super) data: Option<TableFactor>,
}

/// Parses a query and fills its holes.
pub(super) fn query(sql: &str, holes: Holes<'_>) -> Result<Query, ParserError> {
    let mut query = Parser::new(&AndonDialect::default()).try_with_sql(sql)?.parse_query()?;
    match query.visit(&mut Filler(holes)) {
        ControlFlow::Continue(()) | ControlFlow::Break(()) => Ok(*query),
    }
}

/// Parses an expression and fills its holes.
pub(super) fn expr(sql: &str, exprs: Vec<(&str, Expr)>) -> Result<Expr, ParserError> {
    let mut parsed = Parser::new(&AndonDialect::default()).try_with_sql(sql)?.parse_expr()?;
    match parsed.visit(&mut Filler(Holes { exprs, data: None })) {
        ControlFlow::Continue(()) | ControlFlow::Break(()) => Ok(parsed),
    }
}

struct Filler<'a>(Holes<'a>);

impl VisitorMut for Filler<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Identifier(name) = expr
            && let Some((_, filling)) = self.0.exprs.iter().find(|(hole, _)| *hole == name.value)
        {
            *expr = filling.clone();
        }
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, .. } = factor
            && name.to_string() == "__data"
            && let Some(data) = self.0.data.take()
        {
            *factor = data;
        }
        ControlFlow::Continue(())
    }
}
