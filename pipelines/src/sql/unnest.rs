//! `FROM t CROSS JOIN UNNEST(t.tags) AS u (tag)`: one row per element of an array.
//!
//! The planner unnests in the SELECT list only, so the table becomes a subquery that does: `(SELECT *, unnest(tags) AS
//! tag FROM t) AS t`; what is written as `u.tag` becomes `t.tag`. A row whose array is NULL or empty gives no row, or with
//! LEFT JOIN one whose element is NULL. WITH ORDINALITY unnests the places beside the elements.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Ident, JoinConstraint, JoinOperator, Query, Select, TableAlias, TableFactor, VisitMut,
    VisitorMut, visit_expressions,
};

use super::refusal::Refusal;
use super::template::{self, Holes};

const USAGE: &str = "write FROM t CROSS JOIN UNNEST(t.tags) AS u (tag), or LEFT JOIN … ON TRUE";

/// A list with one NULL in place of one without elements.
fn or_null(list: &str) -> String {
    format!("CASE WHEN cardinality(__array) > 0 THEN {list} ELSE array_append({list}, NULL) END")
}

/// An UNNEST that is taken out of a FROM.
struct Taken {
    unnest: TableFactor,
    /// Rows without an element stay.
    is_left: bool,
}

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
    let (mut taken, mut conditions) = (Vec::new(), Vec::new());
    for from in &mut select.from {
        let mut at = 0;
        while at < from.joins.len() {
            if !is_unnest(&from.joins[at].relation) {
                at += 1;
                continue;
            }
            let join = from.joins.remove(at);
            let (is_left, on) = match join.join_operator {
                JoinOperator::CrossJoin(JoinConstraint::None) => (false, None),
                JoinOperator::Join(JoinConstraint::On(on)) | JoinOperator::Inner(JoinConstraint::On(on)) => {
                    (false, Some(on))
                }
                JoinOperator::Left(JoinConstraint::On(on)) | JoinOperator::LeftOuter(JoinConstraint::On(on)) => {
                    (true, Some(on))
                }
                _ => {
                    let message = "UNNEST can only be joined by CROSS JOIN, JOIN … ON and LEFT JOIN … ON TRUE";
                    return Err(Refusal::of(&join.relation, message, USAGE));
                }
            };
            let on = on.filter(|on| !on.to_string().eq_ignore_ascii_case("true"));
            if let (true, Some(on)) = (is_left, &on) {
                return Err(Refusal::of(on, "LEFT JOIN UNNEST has no condition but TRUE", USAGE));
            }
            conditions.extend(on);
            taken.push(Taken { unnest: join.relation, is_left });
        }
    }
    // `FROM t, UNNEST(t.tags)`; an UNNEST that stands alone has no table to go into.
    if select.from.iter().any(|from| !is_unnest(&from.relation)) {
        let (unnests, rest): (Vec<_>, Vec<_>) =
            select.from.drain(..).partition(|from| is_unnest(&from.relation) && from.joins.is_empty());
        select.from = rest;
        taken.extend(unnests.into_iter().map(|from| Taken { unnest: from.relation, is_left: false }));
    }
    for condition in conditions {
        let all = select.selection.take().map(|known| Expr::Nested(Box::new(known)));
        let condition = Expr::Nested(Box::new(condition));
        select.selection = Some(match all {
            Some(all) => Expr::BinaryOp { left: Box::new(all), op: BinaryOperator::And, right: Box::new(condition) },
            None => condition,
        });
    }
    for unnest in taken {
        put_into(select, &unnest)?;
    }
    Ok(())
}

fn is_unnest(factor: &TableFactor) -> bool {
    matches!(factor, TableFactor::UNNEST { .. })
}

/// Puts one UNNEST into the table that its array is from.
fn put_into(select: &mut Select, taken: &Taken) -> Result<(), Refusal> {
    let unnest = &taken.unnest;
    let refuse = |at: &TableFactor, message: &str| Err(Refusal::of(at, message, USAGE));
    let TableFactor::UNNEST { alias, array_exprs, with_offset, with_ordinality, .. } = unnest else { return Ok(()) };
    let ([array], false) = (array_exprs.as_slice(), *with_offset) else {
        return refuse(unnest, "UNNEST takes one array; its places come by WITH ORDINALITY");
    };
    let Some(alias) = alias else { return refuse(unnest, "UNNEST wants a name for its table and column") };
    let column = alias.columns.first().map_or(&alias.name, |c| &c.name).clone();
    let qualifier = qualifier_of(array);
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
        return refuse(unnest, "the array of UNNEST is from no table of this FROM");
    };
    if !inner {
        return refuse(unnest, "UNNEST of an outer join's table is not supported");
    }
    let Some(name) = name_of(table) else { return Ok(()) };
    let shown = |list: &str| if taken.is_left { or_null(list) } else { list.to_owned() };
    let mut sql = format!("SELECT *, unnest({}) AS {column}", shown("__array"));
    if *with_ordinality {
        let place = alias.columns.get(1).map_or_else(|| Ident::new("ordinality"), |c| c.name.clone());
        let places = shown("range(1, CAST(COALESCE(cardinality(__array), 0) AS BIGINT) + 1)");
        sql.push_str(&format!(", unnest({places}) AS {place}"));
    }
    sql.push_str(" FROM __data");
    let query = template::query(&sql, Holes { exprs: vec![("__array", array.clone())], data: Some(table.clone()) })
        .map_err(|e| Refusal::of(unnest, e.to_string(), USAGE))?;
    let as_before = TableAlias { explicit: true, name: name.clone(), columns: Vec::new(), at: None };
    *table = TableFactor::Derived { lateral: false, subquery: Box::new(query), alias: Some(as_before), sample: None };
    rename(select, &alias.name, &name);
    Ok(())
}

/// The table that an array's columns are from, if that is written.
fn qualifier_of(array: &Expr) -> Option<Ident> {
    let found = visit_expressions(array, |e| match e {
        Expr::CompoundIdentifier(parts) if parts.len() == 2 => ControlFlow::Break(parts[0].clone()),
        _ => ControlFlow::Continue(()),
    });
    match found {
        ControlFlow::Break(qualifier) => Some(qualifier),
        ControlFlow::Continue(()) => None,
    }
}

fn is_inner(operator: &JoinOperator) -> bool {
    matches!(operator, JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_))
}

/// The name by which a query speaks of a table.
pub(super) fn name_of(table: &TableFactor) -> Option<Ident> {
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
