//! The outer columns that a subquery reads, and the conditions over them that can be taken out of it.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinType, NullEquality};
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{self as logical, BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};

use super::Result;
use super::steps::{Names, columns_of, distinct, filter, named, project};

/// The different values of the outer columns that a subquery reads, as a plan.
#[derive(Debug, Clone)]
pub(super) struct Outer {
    pub(super) plan: LogicalPlan,
    /// Each outer column, and the column of `plan` that has its values.
    columns: Vec<(Column, Column)>,
}

impl Outer {
    pub(super) fn of(input: &LogicalPlan, columns: &[Column], names: &mut Names) -> Result<Self> {
        let qualifier = names.next("outer");
        let pair = |column: &Column| (column.clone(), Column::new(Some(qualifier.as_str()), names.next("o")));
        let columns: Vec<(Column, Column)> = columns.iter().map(pair).collect();
        let aliased = |(from, to): &(Column, Column)| named(Expr::Column(from.clone()), to.relation.as_ref(), &to.name);
        let plan = distinct(project(input.clone(), columns.iter().map(aliased).collect())?);
        Ok(Self { plan, columns })
    }

    /// The same values under other names.
    pub(super) fn again(&self, names: &mut Names) -> Result<Self> {
        let qualifier = names.next("outer");
        let mut columns = Vec::new();
        let mut exprs = Vec::new();
        for (outer, known) in &self.columns {
            let new = Column::new(Some(qualifier.as_str()), names.next("o"));
            exprs.push(named(Expr::Column(known.clone()), new.relation.as_ref(), &new.name));
            columns.push((outer.clone(), new));
        }
        Ok(Self { plan: project(self.plan.clone(), exprs)?, columns })
    }

    /// The columns of the plan.
    pub(super) fn values(&self) -> impl Iterator<Item = Column> {
        self.columns.iter().map(|(_, value)| value.clone())
    }

    /// The outer columns, each with its column here.
    pub(super) fn pairs(&self) -> Vec<(Column, Column)> {
        self.columns.clone()
    }

    /// This one's columns, each with that of another one of the same values.
    pub(super) fn pairs_with(&self, other: &Self) -> Vec<(Column, Column)> {
        self.values().zip(other.values()).collect()
    }

    /// An expression of the subquery that reads the columns here instead of the outer ones.
    pub(super) fn inside(&self, expr: &Expr) -> Result<Expr> {
        let known = |column: &Column| self.columns.iter().find(|(outer, _)| outer == column);
        replaced(expr.clone(), &|column| known(column).map(|(_, value)| Expr::Column(value.clone())))
    }

    pub(super) fn reads(&self, column: &Column) -> bool {
        self.columns.iter().any(|(outer, _)| outer == column)
    }
}

/// An expression with some of its outer columns replaced.
pub(super) fn replaced(expr: Expr, with: &dyn Fn(&Column) -> Option<Expr>) -> Result<Expr> {
    let new = expr.transform_up(|e| match &e {
        Expr::OuterReferenceColumn(_, column) => {
            Ok(with(column).map_or_else(|| Transformed::no(e.clone()), Transformed::yes))
        }
        _ => Ok(Transformed::no(e)),
    })?;
    Ok(new.data)
}

/// The outer columns that a plan reads and that `is_known`, each once.
pub(super) fn outer_columns(plan: &LogicalPlan, is_known: &dyn Fn(&Column) -> bool) -> Result<Vec<Column>> {
    let mut found = Vec::new();
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                if let Expr::OuterReferenceColumn(_, column) = e
                    && is_known(column)
                    && !found.contains(column)
                {
                    found.push(column.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(found)
}

fn reads_outer(expr: &Expr, is_known: &dyn Fn(&Column) -> bool) -> bool {
    let is_read = |e: &Expr| Ok(matches!(e, Expr::OuterReferenceColumn(_, column) if is_known(column)));
    expr.exists(is_read).unwrap_or(true)
}

/// A subquery without its conditions over outer columns. Its rows are those of `plan` for which the conditions are true;
/// the plan has the subquery's columns and those that the conditions read.
#[derive(Debug)]
pub(super) struct Pulled {
    pub(super) predicates: Vec<Expr>,
    pub(super) plan: LogicalPlan,
}

/// Takes the conditions out; `None` where outer columns are read in another place.
pub(super) fn pull_up(
    plan: &LogicalPlan,
    is_known: &dyn Fn(&Column) -> bool,
    names: &mut Names,
) -> Result<Option<Pulled>> {
    if outer_columns(plan, is_known)?.is_empty() {
        return Ok(Some(Pulled { predicates: Vec::new(), plan: plan.clone() }));
    }
    match plan {
        LogicalPlan::Filter(f) => {
            let Some(below) = pull_up(&f.input, is_known, names)? else { return Ok(None) };
            below.filtered(split_conjunction_owned(f.predicate.clone()), is_known).map(Some)
        }
        LogicalPlan::Projection(p) if !p.expr.iter().any(|e| reads_outer(e, is_known)) => {
            let Some(below) = pull_up(&p.input, is_known, names)? else { return Ok(None) };
            below.projected(p.expr.clone(), names).map(Some)
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let Some(below) = pull_up(&alias.input, is_known, names)? else { return Ok(None) };
            let own = columns_of(alias.input.schema()).into_iter().map(Expr::Column).zip(alias.schema.iter());
            let exprs = own.map(|(column, (qualifier, field))| named(column, qualifier, field.name())).collect();
            below.projected(exprs, names).map(Some)
        }
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => pull_up(&sort.input, is_known, names),
        LogicalPlan::Join(join) => match join.join_type {
            JoinType::Inner if join.null_equality == NullEquality::NullEqualsNothing => {
                inner_join(join, is_known, names)
            }
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}

fn inner_join(join: &logical::Join, is_known: &dyn Fn(&Column) -> bool, names: &mut Names) -> Result<Option<Pulled>> {
    let (Some(left), Some(right)) = (pull_up(&join.left, is_known, names)?, pull_up(&join.right, is_known, names)?)
    else {
        return Ok(None);
    };
    let (outer_on, on): (Vec<_>, Vec<_>) =
        join.on.iter().cloned().partition(|(l, r)| reads_outer(l, is_known) || reads_outer(r, is_known));
    let conditions = join.filter.clone().map(split_conjunction_owned).unwrap_or_default();
    let (outer, plain): (Vec<Expr>, Vec<Expr>) = conditions.into_iter().partition(|e| reads_outer(e, is_known));
    let plan = logical::Join::try_new(
        Arc::new(left.plan),
        Arc::new(right.plan),
        on,
        logical::utils::conjunction(plain),
        join.join_type,
        join.join_constraint,
        join.null_equality,
        join.null_aware,
    )?;
    let outer_on = outer_on.into_iter().map(|(l, r)| l.eq(r));
    let predicates = left.predicates.into_iter().chain(right.predicates).chain(outer).chain(outer_on).collect();
    Ok(Some(Pulled { predicates, plan: LogicalPlan::Join(plan) }))
}

impl Pulled {
    fn filtered(mut self, predicates: Vec<Expr>, is_known: &dyn Fn(&Column) -> bool) -> Result<Self> {
        let (outer, plain): (Vec<Expr>, Vec<Expr>) = predicates.into_iter().partition(|e| reads_outer(e, is_known));
        self.predicates.extend(outer);
        self.plan = filter(self.plan, plain)?;
        Ok(self)
    }

    /// A projection over it, which passes on what the conditions read.
    pub(super) fn projected(self, mut exprs: Vec<Expr>, names: &mut Names) -> Result<Self> {
        let (predicates, read) = with_own_names(self.predicates, &names.next("inner"), names)?;
        exprs.extend(read);
        Ok(Self { predicates, plan: project(self.plan, exprs)? })
    }

    /// The plan with the outer columns as further columns, where each of them is equal to something inside. It has rows
    /// for more than the outer values, and nobody asks for those.
    pub(super) fn keyed(&self, outer: &Outer, schema: &DFSchema) -> Result<Option<LogicalPlan>> {
        let mut rest = self.predicates.clone();
        let mut keys: HashMap<Column, Expr> = HashMap::new();
        let (pairs, inner) = (outer.pairs(), self.plan.schema());
        for (column, _) in &pairs {
            let equal = rest.iter().position(|p| equal_to(p, column, inner).is_some());
            let Some(at) = equal else { return Ok(None) };
            if let Some(key) = equal_to(&rest.remove(at), column, inner) {
                keys.insert(column.clone(), key);
            }
        }
        let conditions = rest
            .into_iter()
            .map(|p| replaced(p, &|column| keys.get(column).cloned()))
            .chain(pairs.iter().map(|(column, _)| Ok(keys[column].clone().is_not_null())))
            .collect::<Result<Vec<_>>>()?;
        let plan = filter(self.plan.clone(), conditions)?;
        let own = columns_of(schema).into_iter().map(Expr::Column);
        let values =
            pairs.iter().map(|(column, value)| named(keys[column].clone(), value.relation.as_ref(), &value.name));
        project(plan, own.chain(values).collect()).map(Some)
    }
}

/// The other side of `expression = outer column`, if it is of the same type and reads nothing outer.
fn equal_to(predicate: &Expr, column: &Column, inner: &DFSchema) -> Option<Expr> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = predicate else { return None };
    [(left, right), (right, left)].into_iter().find_map(|(a, b)| match &**a {
        Expr::OuterReferenceColumn(field, known) if known == column && !b.contains_outer() => {
            let data_type = b.get_type(inner).ok()?;
            (data_type == *field.data_type()).then(|| (**b).clone())
        }
        _ => None,
    })
}

/// Predicates with a new name for each inner column that they read, and these columns under their names.
pub(super) fn with_own_names(
    predicates: Vec<Expr>,
    qualifier: &str,
    names: &mut Names,
) -> Result<(Vec<Expr>, Vec<Expr>)> {
    let mut read: Vec<(Column, Column)> = Vec::new();
    let mut renamed = Vec::new();
    for predicate in predicates {
        let new = predicate.transform_up(|e| {
            let Expr::Column(column) = &e else { return Ok(Transformed::no(e)) };
            let known = read.iter().find(|(from, _)| from == column).map(|(_, to)| to.clone());
            let to = known.unwrap_or_else(|| {
                let to = Column::new(Some(qualifier), names.next("i"));
                read.push((column.clone(), to.clone()));
                to
            });
            Ok(Transformed::yes(Expr::Column(to)))
        })?;
        renamed.push(new.data);
    }
    let read = read.into_iter().map(|(from, to)| named(Expr::Column(from), to.relation.as_ref(), &to.name));
    Ok((renamed, read.collect()))
}
