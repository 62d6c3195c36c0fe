//! The columns of `USING` in right and full joins: where a row has no left side, they have the values of the right one.
//!
//! The planner takes the left side's column. So `id` is written as `b.id` or `COALESCE(a.id, b.id)`, and `*` as that column and
//! all others.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    ExcludeSelectItem, Expr, Ident, Join, JoinConstraint, JoinOperator, ObjectName, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, TableFactor, VisitMut, VisitorMut, WildcardAdditionalOptions,
};

use super::refusal::Refusal;
use super::template;
use super::unnest::name_of;

/// Rewrites every SELECT over such a join.
pub(super) fn rewrite(query: &mut Query) -> Result<(), Refusal> {
    match query.visit(&mut Selects) {
        ControlFlow::Break(refusal) => Err(refusal),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Selects;

impl VisitorMut for Selects {
    type Break = Refusal;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Refusal> {
        match merged_columns(select).and_then(|merged| written_out(select, &merged)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(refusal) => ControlFlow::Break(refusal),
        }
    }
}

/// A column that both sides have, what it is, and the tables that have it.
struct Merged {
    column: Ident,
    value: Expr,
    tables: Vec<Ident>,
}

fn merged_columns(select: &Select) -> Result<Vec<Merged>, Refusal> {
    let mut merged: Vec<Merged> = Vec::new();
    let mut differs = false;
    for from in &select.from {
        let mut sides = name_of(&from.relation).into_iter().collect::<Vec<_>>();
        for join in &from.joins {
            let Some((kind, columns)) = using(join) else {
                sides.extend(name_of(&join.relation));
                continue;
            };
            let Some(right) = name_of(&join.relation) else { continue };
            for column in columns {
                let known = merged.iter().position(|m| m.column.value.eq_ignore_ascii_case(&column.value));
                let (left, mut tables) = match (known, sides.as_slice()) {
                    (Some(at), _) => {
                        let known = merged.remove(at);
                        (known.value, known.tables)
                    }
                    (None, [only]) => {
                        (Expr::CompoundIdentifier(vec![only.clone(), column.clone()]), vec![only.clone()])
                    }
                    // Which of the tables on the left has it is not known here.
                    (None, _) => continue,
                };
                tables.push(right.clone());
                let right = Expr::CompoundIdentifier(vec![right.clone(), column.clone()]);
                let value = match kind {
                    Kind::Left => left,
                    Kind::Right => right,
                    Kind::Full => template::expr("COALESCE(__a, __b)", vec![("__a", left), ("__b", right)])
                        .map_err(|e| Refusal::new(column.span, e.to_string(), ""))?,
                };
                differs |= kind != Kind::Left;
                merged.push(Merged { column, value, tables });
            }
            sides.push(right);
        }
    }
    Ok(if differs { merged } else { Vec::new() })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Left,
    Right,
    Full,
}

fn using(join: &Join) -> Option<(Kind, Vec<Ident>)> {
    let (kind, constraint) = match &join.join_operator {
        JoinOperator::Join(c) | JoinOperator::Inner(c) | JoinOperator::Left(c) | JoinOperator::LeftOuter(c) => {
            (Kind::Left, c)
        }
        JoinOperator::Right(c) | JoinOperator::RightOuter(c) => (Kind::Right, c),
        JoinOperator::FullOuter(c) => (Kind::Full, c),
        _ => return None,
    };
    let JoinConstraint::Using(names) = constraint else { return None };
    let column = |name: &ObjectName| name.0.first().and_then(|part| part.as_ident()).cloned();
    names.iter().map(column).collect::<Option<Vec<_>>>().map(|columns| (kind, columns))
}

/// All tables of a FROM, in order.
fn tables_of(select: &Select) -> Result<Vec<Ident>, Refusal> {
    let all = select
        .from
        .iter()
        .flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)));
    let named = |table: &TableFactor| {
        name_of(table).ok_or_else(|| Refusal::of(table, "`*` over a table without a name", "give it a name with AS"))
    };
    all.map(named).collect()
}

fn written_out(select: &mut Select, merged: &[Merged]) -> Result<(), Refusal> {
    if merged.is_empty() {
        return Ok(());
    }
    let mut items = Vec::new();
    for item in std::mem::take(&mut select.projection) {
        match item {
            SelectItem::Wildcard(options) if options.opt_exclude.is_none() && options.opt_except.is_none() => {
                for Merged { column, value, .. } in merged {
                    items.push(SelectItem::ExprWithAlias { expr: value.clone(), alias: column.clone() });
                }
                for table in tables_of(select)? {
                    let shown = merged.iter().filter(|m| m.tables.contains(&table)).map(|m| m.column.clone());
                    let shown: Vec<ObjectName> = shown.map(|column| ObjectName::from(vec![column])).collect();
                    let opt_exclude = (!shown.is_empty()).then_some(ExcludeSelectItem::Multiple(shown));
                    let kind = SelectItemQualifiedWildcardKind::ObjectName(ObjectName::from(vec![table]));
                    items.push(SelectItem::QualifiedWildcard(
                        kind,
                        WildcardAdditionalOptions { opt_exclude, ..options.clone() },
                    ));
                }
            }
            SelectItem::UnnamedExpr(Expr::Identifier(name)) => {
                let found = merged.iter().find(|m| m.column.value.eq_ignore_ascii_case(&name.value));
                items.push(match found {
                    Some(m) => SelectItem::ExprWithAlias { expr: m.value.clone(), alias: name },
                    None => SelectItem::UnnamedExpr(Expr::Identifier(name)),
                });
            }
            other => items.push(other),
        }
    }
    select.projection = items;
    let mut writer = Writer { merged, depth: 0 };
    match select.visit(&mut writer) {
        ControlFlow::Continue(()) | ControlFlow::Break(()) => Ok(()),
    }
}

/// Writes the columns out, not in subqueries: theirs may be others.
struct Writer<'a> {
    merged: &'a [Merged],
    depth: usize,
}

impl VisitorMut for Writer<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.depth == 0
            && let Expr::Identifier(name) = expr
            && let Some(m) = self.merged.iter().find(|m| m.column.value.eq_ignore_ascii_case(&name.value))
        {
            *expr = m.value.clone();
        }
        ControlFlow::Continue(())
    }
}
