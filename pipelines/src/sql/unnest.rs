//! `FROM t CROSS JOIN UNNEST(t.tags) AS u (tag)`: one row per element of an array.
//!
//! The planner unnests in the SELECT list only, so the table becomes a subquery that does: `(SELECT *, unnest(tags) AS
//! tag FROM t) AS t`; what is written as `u.tag` becomes `t.tag`. A row whose array is NULL or empty gives no row.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, JoinConstraint, JoinOperator, Query, Select, TableAlias, TableFactor, VisitMut, VisitorMut,
};

use super::refusal::Refusal;
use super::template::{self, Holes};

const USAGE: &str = "write FROM t CROSS JOIN UNNEST(t.tags) AS u (tag)";

/// Rewrites every UNNEST in the FROM clauses of a query.
pub(super) fn rewrite(query: &mut Query) -> Result<(), Refusal> {
    match query.visit(&mut Rewriter) {
        ControlFlow::Break(refusal) => Err(refusal),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Rewriter;

impl VisitorMut for Rewriter {
    type Break = Refusal;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Refusal> {
        match rewrite_select(select) {
            Ok(()) => ControlFlow::Continue(()),
            Err(refusal) => ControlFlow::Break(refusal),
        }
    }
}

fn rewrite_select(select: &mut Select) -> Result<(), Refusal> {
    let mut taken = Vec::new();
    for from in &mut select.from {
        let mut at = 0;
        while at < from.joins.len() {
            if !is_unnest(&from.joins[at].relation) {
                at += 1;
                continue;
            }
            let join = from.joins.remove(at);
            if !is_cross(&join.join_operator) {
                let message = "UNNEST can only be cross joined";
                return Err(Refusal::of(&join.relation, message, USAGE));
            }
            taken.push(join.relation);
        }
    }
    // `FROM t, UNNEST(t.tags)`; an UNNEST that stands alone has no table to go into.
    if select.from.iter().any(|from| !is_unnest(&from.relation)) {
        let (unnests, rest): (Vec<_>, Vec<_>) =
            select.from.drain(..).partition(|from| is_unnest(&from.relation) && from.joins.is_empty());
        select.from = rest;
        taken.extend(unnests.into_iter().map(|from| from.relation));
    }
    for unnest in taken {
        put_into(select, unnest)?;
    }
    Ok(())
}

fn is_unnest(factor: &TableFactor) -> bool {
    matches!(factor, TableFactor::UNNEST { .. })
}

fn is_cross(operator: &JoinOperator) -> bool {
    match operator {
        JoinOperator::CrossJoin(JoinConstraint::None) => true,
        JoinOperator::Join(JoinConstraint::On(on)) | JoinOperator::Inner(JoinConstraint::On(on)) => {
            on.to_string().eq_ignore_ascii_case("true")
        }
        _ => false,
    }
}

/// Puts one UNNEST into the table that its array is from.
fn put_into(select: &mut Select, unnest: TableFactor) -> Result<(), Refusal> {
    let refuse = |at: &TableFactor, message: &str| Err(Refusal::of(at, message, USAGE));
    let TableFactor::UNNEST { alias, array_exprs, with_offset, with_ordinality, .. } = &unnest else { return Ok(()) };
    let ([array], false, false) = (array_exprs.as_slice(), *with_offset, *with_ordinality) else {
        return refuse(&unnest, "UNNEST takes one array, without WITH ORDINALITY");
    };
    let Some(alias) = alias else { return refuse(&unnest, "UNNEST wants a name for its table and column") };
    let column = alias.columns.first().map_or(&alias.name, |c| &c.name).clone();
    let qualifier = match array {
        Expr::CompoundIdentifier(parts) if parts.len() == 2 => Some(parts[0].clone()),
        _ => None,
    };
    let mut tables = select.from.iter_mut().flat_map(|from| {
        let first = std::iter::once((true, &mut from.relation));
        first.chain(from.joins.iter_mut().map(|join| (is_inner(&join.join_operator), &mut join.relation)))
    });
    let target = tables.find(|(_, table)| match (&qualifier, name_of(table)) {
        (Some(wanted), Some(name)) => name.value.eq_ignore_ascii_case(&wanted.value),
        (None, Some(_)) => true,
        (_, None) => false,
    });
    let Some((inner, table)) = target else {
        return refuse(&unnest, "the array of UNNEST is from no table of this FROM");
    };
    if !inner {
        return refuse(&unnest, "UNNEST of an outer join's table is not supported");
    }
    let Some(name) = name_of(table) else { return Ok(()) };
    let sql = format!("SELECT *, unnest(__array) AS {column} FROM __data");
    let query = template::query(&sql, Holes { exprs: vec![("__array", array.clone())], data: Some(table.clone()) })
        .map_err(|e| Refusal::of(&unnest, e.to_string(), USAGE))?;
    let as_before = TableAlias { explicit: true, name: name.clone(), columns: Vec::new(), at: None };
    *table = TableFactor::Derived { lateral: false, subquery: Box::new(query), alias: Some(as_before), sample: None };
    rename(select, &alias.name, &name);
    Ok(())
}

fn is_inner(operator: &JoinOperator) -> bool {
    matches!(operator, JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_))
}

/// The name by which a query speaks of a table.
fn name_of(table: &TableFactor) -> Option<Ident> {
    match table {
        TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } => {
            Some(alias.name.clone())
        }
        TableFactor::Table { name, alias: None, .. } => name.0.last()?.as_ident().cloned(),
        _ => None,
    }
}

/// Writes `to.x` for every `from.x` of a SELECT.
fn rename(select: &mut Select, from: &Ident, to: &Ident) {
    struct Renamer<'a>(&'a Ident, &'a Ident);
    impl VisitorMut for Renamer<'_> {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Expr::CompoundIdentifier(parts) = expr
                && parts.len() == 2
                && parts[0].value.eq_ignore_ascii_case(&self.0.value)
            {
                let span = parts[0].span;
                parts[0] = Ident { span, ..self.1.clone() };
            }
            ControlFlow::Continue(())
        }
    }
    match select.visit(&mut Renamer(from, to)) {
        ControlFlow::Continue(()) | ControlFlow::Break(()) => {}
    }
}
