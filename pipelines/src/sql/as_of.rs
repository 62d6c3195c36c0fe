//! `JOIN d FOR SYSTEM_TIME AS OF x.ts AS d ON d.key = x.key`: the version of a row that was valid at a time.
//!
//! The versions are the rows of `d`: each is valid from its event time until that of the next row with the same key. So
//! the join becomes an ordinary one with a condition on the time, over `d` with a column for the end of each version.
//! Where `d` is append-only, every change of its topic is a version; where it has a primary key, only the newest is there.
//!
//! As of PROCTIME() or CURRENT_TIMESTAMP means the row as it is now. Flink looks it up once, when the left row arrives;
//! here it is an ordinary join, which also follows later changes, so that all views agree with the tables.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, ExcludeSelectItem, Expr, FunctionArg, FunctionArgExpr, Ident, JoinConstraint, JoinOperator,
    ObjectName, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, Spanned, TableAlias, TableFactor, VisitMut,
    VisitorMut,
};

use super::declared::Declared;
use super::ident_name;
use super::refusal::Refusal;
use super::template::{self, Holes};
use super::tokens::SYSTEM_TIME;
use super::windows::plain_table;

const USAGE: &str = "write JOIN d FOR SYSTEM_TIME AS OF x.event_time AS d ON d.key = x.key";

/// Rewrites every temporal join of a query.
pub(super) fn rewrite(query: &mut Query, declared: &Declared) -> Result<(), Refusal> {
    match query.visit(&mut Rewriter { declared }) {
        ControlFlow::Break(refusal) => Err(refusal),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Rewriter<'a> {
    declared: &'a Declared,
}

impl VisitorMut for Rewriter<'_> {
    type Break = Refusal;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Refusal> {
        match self.joins(select) {
            Ok(()) => ControlFlow::Continue(()),
            Err(refusal) => ControlFlow::Break(refusal),
        }
    }
}

impl Rewriter<'_> {
    fn joins(&self, select: &mut Select) -> Result<(), Refusal> {
        let mut ends = Vec::new();
        for join in select.from.iter_mut().flat_map(|from| &mut from.joins) {
            let Some(time) = take_system_time(&mut join.relation) else { continue };
            if is_now(&time) {
                continue;
            }
            let refuse = |message: &str, help: &str| Err(Refusal::of(&time, message, help));
            let TableFactor::Table { name, alias, .. } = &join.relation else { continue };
            let table = name.0.last().and_then(|p| p.as_ident()).map(ident_name).unwrap_or_default();
            let Some(event_time) = self.declared.event_time(&table) else {
                return refuse(
                    &format!("{table} has no event time, so its versions have no order"),
                    "declare WATERMARK FOR a column of the source table, or join as of PROCTIME()",
                );
            };
            let alias_name = alias.as_ref().map_or_else(|| table.clone(), |a| ident_name(&a.name));
            let Some(condition) = condition(&mut join.join_operator) else {
                return refuse("this join cannot be as of a time", USAGE);
            };
            let keys = keys_of(condition, &alias_name);
            if keys.is_empty() {
                return refuse(&format!("no column of {alias_name} is equal to one of the other side"), USAGE);
            }
            let end = format!("andon_valid_until_{}", alias_name.to_lowercase());
            let versions = versions(name.clone(), &keys, event_time, &end)?;
            let valid = format!(
                "__on AND __time >= `{alias_name}`.`{event_time}` \
                 AND (`{alias_name}`.`{end}` IS NULL OR __time < `{alias_name}`.`{end}`)"
            );
            let on = Expr::Nested(Box::new(condition.clone()));
            *condition = template::expr(&valid, vec![("__on", on), ("__time", time.clone())])
                .map_err(|e| Refusal::of(&time, e.to_string(), USAGE))?;
            let alias = alias.clone().unwrap_or_else(|| TableAlias {
                explicit: true,
                name: Ident::with_quote('`', &alias_name),
                columns: Vec::new(),
                at: None,
            });
            join.relation =
                TableFactor::Derived { lateral: false, subquery: Box::new(versions), alias: Some(alias), sample: None };
            ends.push((alias_name, Ident::with_quote('`', end)));
        }
        hide(select, &ends);
        Ok(())
    }
}

/// The rows of `d` with the column `end`: when the next version begins.
fn versions(table: ObjectName, keys: &[Ident], event_time: &str, end: &str) -> Result<Query, Refusal> {
    let place = table.span();
    let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
    let sql = format!(
        "SELECT *, LEAD(`{event_time}`) OVER (PARTITION BY {} ORDER BY `{event_time}` NULLS LAST) AS `{end}` \
         FROM __data WHERE `{event_time}` IS NOT NULL",
        keys.join(", ")
    );
    template::query(&sql, Holes { exprs: Vec::new(), data: Some(plain_table(table)) })
        .map_err(|e| Refusal::new(place, e.to_string(), USAGE))
}

/// The ON condition of an inner or left join.
fn condition(operator: &mut JoinOperator) -> Option<&mut Expr> {
    match operator {
        JoinOperator::Join(JoinConstraint::On(on))
        | JoinOperator::Inner(JoinConstraint::On(on))
        | JoinOperator::Left(JoinConstraint::On(on))
        | JoinOperator::LeftOuter(JoinConstraint::On(on)) => Some(on),
        _ => None,
    }
}

/// The columns of a table that a condition wants to be equal to something.
fn keys_of(condition: &Expr, alias: &str) -> Vec<Ident> {
    match condition {
        Expr::Nested(inner) => keys_of(inner, alias),
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            let mut keys = keys_of(left, alias);
            keys.extend(keys_of(right, alias));
            keys
        }
        Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => [left, right]
            .into_iter()
            .filter_map(|side| match &**side {
                Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                    [table, column] if table.value.eq_ignore_ascii_case(alias) => Some(column.clone()),
                    _ => None,
                },
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// Keeps the ends of versions out of `SELECT *`.
fn hide(select: &mut Select, ends: &[(String, Ident)]) {
    for item in &mut select.projection {
        let (options, hidden): (_, Vec<ObjectName>) = match item {
            SelectItem::Wildcard(options) => {
                (options, ends.iter().map(|(_, end)| ObjectName::from(vec![end.clone()])).collect())
            }
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                let of = |alias: &str| name.to_string().trim_matches(['`', '"']).eq_ignore_ascii_case(alias);
                let ends = ends.iter().filter(|(alias, _)| of(alias));
                (options, ends.map(|(_, end)| ObjectName::from(vec![end.clone()])).collect())
            }
            _ => continue,
        };
        if !hidden.is_empty() && options.opt_exclude.is_none() {
            options.opt_exclude = Some(ExcludeSelectItem::Multiple(hidden));
        }
    }
}

/// The time of a table factor that [`super::tokens`] marked, and the mark off.
fn take_system_time(factor: &mut TableFactor) -> Option<Expr> {
    let TableFactor::Table { args, .. } = factor else { return None };
    let time = args.as_ref()?.args.iter().find_map(|arg| match arg {
        FunctionArg::Named { name, arg: FunctionArgExpr::Expr(time), .. } if name.value == SYSTEM_TIME => {
            Some(time.clone())
        }
        FunctionArg::ExprNamed { name, arg: FunctionArgExpr::Expr(time), .. } if name.to_string() == SYSTEM_TIME => {
            Some(time.clone())
        }
        _ => None,
    })?;
    *args = None;
    Some(time)
}

fn is_now(time: &Expr) -> bool {
    let name = match time {
        Expr::Function(f) => f.name.to_string(),
        Expr::Identifier(name) => name.value.clone(),
        _ => return false,
    };
    ["PROCTIME", "NOW", "CURRENT_TIMESTAMP", "LOCALTIMESTAMP"].iter().any(|n| name.eq_ignore_ascii_case(n))
}
