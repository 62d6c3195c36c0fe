//! Rows as values, written without them: `(a, b) IN (SELECT x, y …)` is an EXISTS, `(a, b) = (c, d)` and its like are compared
//! column by column.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Ident, Query, Select, SelectItem, SetExpr, TableAlias, TableAliasColumnDef, TableFactor,
    VisitMut, VisitorMut,
};

use super::refusal::Refusal;
use super::spellings::Rewritten;
use super::template::{self, Holes};

/// Rewrites all of them in a query.
pub(super) fn rewrite(query: &mut Query) -> Result<(), Refusal> {
    match query.visit(&mut Rewriter { n_derived: 0 }) {
        ControlFlow::Break(refusal) => Err(refusal),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Rewriter {
    n_derived: usize,
}

impl VisitorMut for Rewriter {
    type Break = Refusal;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Refusal> {
        for condition in select.selection.iter_mut().chain(&mut select.having) {
            if let Err(refusal) = self.kept(condition) {
                return ControlFlow::Break(refusal);
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Refusal> {
        match self.rewritten(expr) {
            Ok(None) => ControlFlow::Continue(()),
            Ok(Some(new)) => {
                *expr = new;
                ControlFlow::Continue(())
            }
            Err(refusal) => ControlFlow::Break(refusal),
        }
    }
}

impl Rewriter {
    /// Where only truth counts, one EXISTS says it.
    fn kept(&mut self, condition: &mut Expr) -> Result<(), Refusal> {
        match condition {
            Expr::Nested(inner) => self.kept(inner),
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
                self.kept(left)?;
                self.kept(right)
            }
            Expr::InSubquery { expr, subquery, negated } => {
                if let Expr::Tuple(row) = &**expr {
                    let (outside, inside) = if *negated { ("NOT ", " IS NOT FALSE") } else { ("", "") };
                    let exists = self.exists(row, subquery, inside)?;
                    *condition = filled(&format!("{outside}__y0"), vec![("__y0", exists)], condition)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn rewritten(&mut self, expr: &mut Expr) -> Rewritten {
        match expr {
            Expr::InSubquery { expr: left, subquery, negated } => {
                let Expr::Tuple(row) = &**left else { return Ok(None) };
                let (found, unknown) = (self.exists(row, subquery, "")?, self.exists(row, subquery, " IS NULL")?);
                let (yes, no) = if *negated { ("FALSE", "TRUE") } else { ("TRUE", "FALSE") };
                let sql = format!("CASE WHEN __y0 THEN {yes} WHEN __y1 THEN NULL ELSE {no} END");
                filled(&sql, vec![("__y0", found), ("__y1", unknown)], expr).map(Some)
            }
            Expr::InList { expr: left, list, negated } => {
                let Expr::Tuple(row) = &**left else { return Ok(None) };
                let mut any: Option<Expr> = None;
                for item in list.iter() {
                    let Expr::Tuple(other) = item else { return Err(unequal(item)) };
                    let equal = compared(row, &BinaryOperator::Eq, other, item)?;
                    any = Some(match any {
                        None => equal,
                        Some(any) => filled("__y0 OR __y1", vec![("__y0", any), ("__y1", equal)], item)?,
                    });
                }
                let Some(any) = any else { return Ok(None) };
                let outside = if *negated { "NOT (__y0)" } else { "(__y0)" };
                filled(outside, vec![("__y0", any)], expr).map(Some)
            }
            Expr::BinaryOp { left, op, right } => {
                let (Expr::Tuple(row), other) = (&**left, &**right) else { return Ok(None) };
                match other {
                    Expr::Tuple(other) => compared(row, op, other, right).map(Some),
                    Expr::Subquery(_) => {
                        let help = "write (a, b) IN (SELECT x, y …)";
                        Err(Refusal::of(other, "a row is compared with a subquery", help))
                    }
                    _ => Ok(None),
                }
            }
            _ => Ok(None),
        }
    }

    /// `EXISTS (SELECT 1 FROM (subquery) WHERE (columns equal the row) …)`.
    fn exists(&mut self, row: &[Expr], subquery: &Query, and_then: &str) -> Result<Expr, Refusal> {
        self.n_derived += 1;
        let name = format!("__in_{}", self.n_derived);
        let column = |i: usize| format!("__in_{}_{i}", self.n_derived);
        let mut subquery = subquery.clone();
        let is_named = name_columns(&mut subquery, row.len(), &column);
        let columns = (0..row.len()).map(|i| TableAliasColumnDef { name: Ident::new(column(i)), data_type: None });
        let columns = if is_named { Vec::new() } else { columns.collect() };
        let alias = TableAlias { explicit: true, name: Ident::new(&name), columns, at: None };
        let data = TableFactor::Derived {
            lateral: false,
            subquery: Box::new(subquery.clone()),
            alias: Some(alias),
            sample: None,
        };
        let equal: Vec<String> = (0..row.len()).map(|i| format!("{name}.{} = __x{i}", column(i))).collect();
        let sql = format!("SELECT 1 FROM __data WHERE ({}){and_then}", equal.join(" AND "));
        let holes: Vec<String> = (0..row.len()).map(|i| format!("__x{i}")).collect();
        let exprs = holes.iter().map(String::as_str).zip(row.iter().cloned()).collect();
        let query = template::query(&sql, Holes { exprs, data: Some(data) })
            .map_err(|e| Refusal::of(&subquery, e.to_string(), ""))?;
        Ok(Expr::Exists { subquery: Box::new(query), negated: false })
    }
}

/// Names the columns of a SELECT where they have no names yet: two of them may be the same.
fn name_columns(query: &mut Query, n: usize, name: &dyn Fn(usize) -> String) -> bool {
    let SetExpr::Select(select) = &mut *query.body else { return false };
    let is_unnamed = |item: &SelectItem| matches!(item, SelectItem::UnnamedExpr(_));
    if select.projection.len() != n || !select.projection.iter().all(is_unnamed) {
        return false;
    }
    for (i, item) in select.projection.iter_mut().enumerate() {
        if let SelectItem::UnnamedExpr(expr) = item {
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::new(name(i)) };
        }
    }
    true
}

fn filled(sql: &str, exprs: Vec<(&str, Expr)>, place: &Expr) -> Result<Expr, Refusal> {
    template::expr(sql, exprs).map_err(|e| Refusal::of(place, e.to_string(), ""))
}

fn unequal(place: &Expr) -> Refusal {
    Refusal::of(place, "rows of different lengths are compared", "compare (a, b) with (c, d)")
}

/// Two rows, compared from the first column on.
fn compared(row: &[Expr], op: &BinaryOperator, other: &[Expr], place: &Expr) -> Result<Expr, Refusal> {
    if row.len() != other.len() || row.is_empty() {
        return Err(unequal(place));
    }
    let pair = |i: usize, op: &str| format!("__x{i} {op} __z{i}");
    let all = 0..row.len();
    let sql = match op {
        BinaryOperator::Eq => all.map(|i| pair(i, "=")).collect::<Vec<_>>().join(" AND "),
        BinaryOperator::NotEq => all.map(|i| pair(i, "<>")).collect::<Vec<_>>().join(" OR "),
        BinaryOperator::Lt | BinaryOperator::LtEq | BinaryOperator::Gt | BinaryOperator::GtEq => {
            let strict = if matches!(op, BinaryOperator::Lt | BinaryOperator::LtEq) { "<" } else { ">" };
            let last = row.len() - 1;
            (0..last).rev().fold(pair(last, &op.to_string()), |rest, i| {
                format!("{} OR ({} AND ({rest}))", pair(i, strict), pair(i, "="))
            })
        }
        _ => return Err(Refusal::of(place, format!("rows cannot be compared by {op}"), "compare column by column")),
    };
    let names: Vec<(String, String)> = (0..row.len()).map(|i| (format!("__x{i}"), format!("__z{i}"))).collect();
    let mut exprs = Vec::new();
    for ((x, z), (a, b)) in names.iter().zip(row.iter().zip(other)) {
        exprs.push((x.as_str(), a.clone()));
        exprs.push((z.as_str(), b.clone()));
    }
    filled(&format!("({sql})"), exprs, place)
}
