//! The walk over a plan, from its leaves: every node that asks a subquery gets an input that has the answer as a column.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinType, not_impl_err};
use datafusion::logical_expr::expr::{Exists, InSubquery, Sort};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{self as logical, Expr, LogicalPlan, Subquery};

use super::Result;
use super::dependent::{Ordered, Places, dependent};
use super::pulled::{Outer, outer_columns, pull_up, replaced};
use super::steps::{Names, On, columns_of, filter, join, named, project, restored};
use super::values::Asked;

/// Turns all subqueries of a plan into joins.
#[derive(Debug, Default)]
pub(super) struct Flattener {
    names: Names,
}

impl Flattener {
    /// # Errors
    /// What has no form without a subquery.
    pub(super) fn plan(mut self, plan: LogicalPlan) -> Result<LogicalPlan> {
        // What is joined to an input can be NULL where the subquery could not, and the nodes above must know.
        Ok(self.flat(plan)?.transform_up(|node| node.recompute_schema().map(Transformed::yes))?.data)
    }

    fn flat(&mut self, plan: LogicalPlan) -> Result<LogicalPlan> {
        Ok(plan.transform_up(|node| self.node(node))?.data)
    }

    fn node(&mut self, node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        if let LogicalPlan::Join(join) = &node
            && let Some(subquery) = lateral(&join.right)
        {
            return self.lateral(join, subquery).map(Transformed::yes);
        }
        let mut asks = false;
        node.apply_expressions(|expr| {
            asks |= has_subquery(expr);
            Ok(TreeNodeRecursion::Continue)
        })?;
        if !asks {
            return Ok(Transformed::no(node));
        }
        // Subqueries within subqueries come first: what they read of this query is then read by the outer one.
        let node = node.map_expressions(|expr| expr.transform_up(|e| self.flat_inside(e)))?.data;
        let flat = match node {
            LogicalPlan::Filter(f) => self.filter(f),
            LogicalPlan::Projection(p) => self.projection(p),
            LogicalPlan::Aggregate(a) => self.aggregate(a),
            LogicalPlan::Window(w) => self.window(w),
            LogicalPlan::Sort(s) => self.sort(s),
            LogicalPlan::Limit(l) => self.limit(&l),
            LogicalPlan::Join(j) => self.join(j),
            other => not_impl_err!("a subquery inside {}", other.display()),
        };
        flat.map(Transformed::yes)
    }

    fn flat_inside(&mut self, expr: Expr) -> Result<Transformed<Expr>> {
        let mut inside = |subquery: Subquery| -> Result<Subquery> {
            let plan = self.flat(Arc::unwrap_or_clone(subquery.subquery))?;
            Ok(Subquery { subquery: Arc::new(plan), ..subquery })
        };
        Ok(match expr {
            Expr::ScalarSubquery(subquery) => Transformed::yes(Expr::ScalarSubquery(inside(subquery)?)),
            Expr::Exists(exists) => {
                Transformed::yes(Expr::Exists(Exists { subquery: inside(exists.subquery)?, ..exists }))
            }
            Expr::InSubquery(is_in) => {
                Transformed::yes(Expr::InSubquery(InSubquery { subquery: inside(is_in.subquery)?, ..is_in }))
            }
            Expr::SetComparison(mut comparison) => {
                comparison.subquery = inside(comparison.subquery)?;
                Transformed::yes(Expr::SetComparison(comparison))
            }
            other => Transformed::no(other),
        })
    }

    fn filter(&mut self, f: logical::Filter) -> Result<LogicalPlan> {
        let schema = Arc::clone(f.input.schema());
        let (asking, plain): (Vec<Expr>, Vec<Expr>) =
            split_conjunction_owned(f.predicate).into_iter().partition(has_subquery);
        let mut asked = Asked::new(filter(Arc::unwrap_or_clone(f.input), plain)?, &mut self.names);
        for condition in asking {
            asked.kept(positive(condition))?;
        }
        only(asked.plan, &schema)
    }

    fn projection(&mut self, p: logical::Projection) -> Result<LogicalPlan> {
        let mut asked = Asked::new(Arc::unwrap_or_clone(p.input), &mut self.names);
        let exprs = p
            .expr
            .into_iter()
            .zip(p.schema.iter())
            .map(|(e, (qualifier, field))| Ok(named(asked.answered(e)?, qualifier, field.name())))
            .collect::<Result<Vec<_>>>()?;
        project(asked.plan, exprs)
    }

    fn aggregate(&mut self, a: logical::Aggregate) -> Result<LogicalPlan> {
        let mut asked = Asked::new(Arc::unwrap_or_clone(a.input), &mut self.names);
        let keys = a.group_expr.into_iter().map(|e| asked.answered(e)).collect::<Result<Vec<_>>>()?;
        let calls = a.aggr_expr.into_iter().map(|e| asked.answered(e)).collect::<Result<Vec<_>>>()?;
        let plan = LogicalPlan::Aggregate(logical::Aggregate::try_new(Arc::new(asked.plan), keys, calls)?);
        let places: Vec<usize> = (0..a.schema.fields().len()).collect();
        restored(plan, &places, &a.schema, [])
    }

    fn window(&mut self, w: logical::Window) -> Result<LogicalPlan> {
        let n_input = w.input.schema().fields().len();
        let mut asked = Asked::new(Arc::unwrap_or_clone(w.input), &mut self.names);
        let functions = w.window_expr.into_iter().map(|e| asked.answered(e)).collect::<Result<Vec<_>>>()?;
        let n_new = asked.plan.schema().fields().len() - n_input;
        let plan = LogicalPlan::Window(logical::Window::try_new(functions, Arc::new(asked.plan))?);
        let n_all = w.schema.fields().len();
        let places: Vec<usize> = (0..n_all).map(|at| if at < n_input { at } else { at + n_new }).collect();
        restored(plan, &places, &w.schema, [])
    }

    fn sort(&mut self, s: logical::Sort) -> Result<LogicalPlan> {
        let schema = Arc::clone(s.input.schema());
        let mut asked = Asked::new(Arc::unwrap_or_clone(s.input), &mut self.names);
        let sorts = s.expr.into_iter().map(|sort| Ok(Sort { expr: asked.answered(sort.expr)?, ..sort }));
        let expr = sorts.collect::<Result<Vec<_>>>()?;
        let sorted = LogicalPlan::Sort(logical::Sort { expr, input: Arc::new(asked.plan), fetch: s.fetch });
        only(sorted, &schema)
    }

    /// `LIMIT (SELECT …)`.
    fn limit(&mut self, limit: &logical::Limit) -> Result<LogicalPlan> {
        let ordered = Ordered::below(limit);
        let schema = Arc::clone(ordered.input.schema());
        let order = match ordered.sorts.is_empty() {
            true => columns_of(&schema).into_iter().map(|c| Expr::Column(c).sort(true, false)).collect(),
            false => ordered.sorts.to_vec(),
        };
        let mut asked = Asked::new(ordered.input.clone(), &mut self.names);
        let mut number = |e: &Option<Box<Expr>>| e.as_deref().map(|e| asked.answered(e.clone())).transpose();
        let numbers = (number(&limit.skip)?, number(&limit.fetch)?);
        let plan = asked.plan;
        let plan = Places { partition: Vec::new(), order }.first(plan, limit, numbers, &mut self.names)?;
        let mut plan = only(plan, &schema)?;
        for above in ordered.projections {
            let exprs = above.exprs.into_iter().zip(above.schema.iter());
            let exprs = exprs.map(|(e, (qualifier, field))| named(e, qualifier, field.name())).collect();
            plan = project(plan, exprs)?;
        }
        Ok(plan)
    }

    /// A join whose condition asks subqueries: an inner one asks them afterwards, another one on the side that they read.
    fn join(&mut self, j: logical::Join) -> Result<LogicalPlan> {
        let schema = Arc::clone(&j.schema);
        let conditions = j.filter.clone().map(split_conjunction_owned).unwrap_or_default();
        let (asking, mut plain): (Vec<Expr>, Vec<Expr>) = conditions.into_iter().partition(has_subquery);
        if j.join_type == JoinType::Inner {
            let plan = LogicalPlan::Join(logical::Join { filter: conjunction(plain), ..j });
            let mut asked = Asked::new(plan, &mut self.names);
            for condition in asking {
                asked.kept(positive(condition))?;
            }
            return only(asked.plan, &schema);
        }
        let (mut left, mut right) = (j.left.as_ref().clone(), j.right.as_ref().clone());
        for condition in &asking {
            let read = read_by_subqueries(condition)?;
            let of = |side: &LogicalPlan| read.iter().all(|c| side.schema().has_column(c));
            let side = match (of(&right), of(&left)) {
                (true, _) => &mut right,
                (false, true) => &mut left,
                (false, false) => return self.both_sides(&j, asking.into_iter().chain(plain).collect()),
            };
            let mut asked = Asked::new(side.clone(), &mut self.names);
            plain.push(asked.answered(condition.clone())?);
            *side = asked.plan;
        }
        let plan = logical::Join::try_new(
            Arc::new(left),
            Arc::new(right),
            j.on,
            conjunction(plain),
            j.join_type,
            j.join_constraint,
            j.null_equality,
            j.null_aware,
        )?;
        only(LogicalPlan::Join(plan), &schema)
    }

    /// A left or right join whose condition asks subqueries of both sides: the side that can be missing becomes a lateral
    /// subquery with the condition inside.
    fn both_sides(&mut self, j: &logical::Join, mut conditions: Vec<Expr>) -> Result<LogicalPlan> {
        let (stays, other) = match j.join_type {
            JoinType::Left => (&j.left, &j.right),
            JoinType::Right => (&j.right, &j.left),
            _ => return not_impl_err!("a subquery in the ON of a full join that reads columns of both sides"),
        };
        conditions.extend(j.on.iter().map(|(l, r)| l.clone().eq(r.clone())));
        let schema = stays.schema();
        let outer = conditions.into_iter().map(|condition| {
            let outer = condition.transform_up(|e| match &e {
                Expr::Column(column) if schema.has_column(column) => {
                    let field = Arc::clone(schema.qualified_field_from_column(column)?.1);
                    Ok(Transformed::yes(Expr::OuterReferenceColumn(field, column.clone())))
                }
                _ => Ok(Transformed::no(e)),
            })?;
            Ok(outer.data)
        });
        let subquery = filter(other.as_ref().clone(), outer.collect::<Result<Vec<_>>>()?)?;
        let subquery = self.flat(subquery)?;
        let plan = self.beside(stays, &subquery, other.schema(), (JoinType::Left, Vec::new()))?;
        only(plan, &j.schema)
    }

    /// `JOIN LATERAL`: the right side reads columns of the left one.
    fn lateral(&mut self, j: &logical::Join, subquery: &LogicalPlan) -> Result<LogicalPlan> {
        let on = j.on.iter().map(|(l, r)| l.clone().eq(r.clone())).chain(j.filter.clone());
        let plan = self.beside(&j.left, subquery, j.right.schema(), (j.join_type, on.collect()))?;
        only(plan, &j.schema)
    }

    /// The rows of `left` joined with those that the subquery has for each, which are shown under the names of `own`.
    fn beside(
        &mut self,
        left: &LogicalPlan,
        subquery: &LogicalPlan,
        own: &DFSchema,
        (how, predicates): (JoinType, Vec<Expr>),
    ) -> Result<LogicalPlan> {
        let is_known = |column: &Column| left.schema().has_column(column);
        let names = &mut self.names;
        let mut on = On { predicates, same: Vec::new() };
        let right = match pull_up(subquery, &is_known, names)? {
            Some(pulled) => {
                let shown = columns_of(subquery.schema()).into_iter().map(Expr::Column).zip(own.iter());
                let shown = shown.map(|(column, (qualifier, field))| named(column, qualifier, field.name()));
                let pulled = pulled.projected(shown.collect(), names)?;
                for predicate in pulled.predicates {
                    on.predicates.push(replaced(predicate, &|c| is_known(c).then(|| Expr::Column(c.clone())))?);
                }
                pulled.plan
            }
            None => {
                let outer = Outer::of(left, &outer_columns(subquery, &is_known)?, names)?;
                let all = dependent(subquery, &outer, names)?;
                on.same = outer.pairs();
                let places: Vec<usize> = (0..own.fields().len()).collect();
                restored(all, &places, own, outer.values())?
            }
        };
        join(left.clone(), right, how, on)
    }
}

/// The subquery of a lateral join's right side.
fn lateral(right: &LogicalPlan) -> Option<&LogicalPlan> {
    match right {
        LogicalPlan::Subquery(subquery) => Some(&subquery.subquery),
        LogicalPlan::SubqueryAlias(alias) => match alias.input.as_ref() {
            LogicalPlan::Subquery(subquery) => Some(&subquery.subquery),
            _ => None,
        },
        _ => None,
    }
}

fn has_subquery(expr: &Expr) -> bool {
    let is_one = |e: &Expr| {
        Ok(matches!(e, Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_)))
    };
    expr.exists(is_one).unwrap_or(true)
}

/// `NOT EXISTS` and `NOT IN` in one piece.
fn positive(condition: Expr) -> Expr {
    match condition {
        Expr::Not(inner) => match *inner {
            Expr::Exists(Exists { subquery, negated }) => Expr::Exists(Exists { subquery, negated: !negated }),
            Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                Expr::InSubquery(InSubquery { expr, subquery, negated: !negated })
            }
            other => Expr::Not(Box::new(other)),
        },
        other => other,
    }
}

/// The columns that the subqueries of a condition read, and what is compared with them.
fn read_by_subqueries(condition: &Expr) -> Result<Vec<Column>> {
    let mut read = Vec::new();
    condition.apply(|e| {
        let (subquery, compared) = match e {
            Expr::ScalarSubquery(subquery) => (subquery, None),
            Expr::Exists(exists) => (&exists.subquery, None),
            Expr::InSubquery(is_in) => (&is_in.subquery, Some(&is_in.expr)),
            Expr::SetComparison(comparison) => (&comparison.subquery, Some(&comparison.expr)),
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        read.extend(outer_columns(&subquery.subquery, &|_| true)?);
        read.extend(compared.into_iter().flat_map(|x| x.column_refs().into_iter().cloned()));
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(read)
}

/// The columns of a schema, by name.
fn only(plan: LogicalPlan, schema: &DFSchema) -> Result<LogicalPlan> {
    let columns = columns_of(schema);
    if columns_of(plan.schema()) == columns {
        return Ok(plan);
    }
    project(plan, columns.into_iter().map(Expr::Column).collect())
}
