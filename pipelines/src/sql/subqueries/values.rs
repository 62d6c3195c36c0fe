//! Expressions that ask a subquery: the subquery is joined to the input, and the expression reads a column instead.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchemaRef, JoinType, ScalarValue, plan_err};
use datafusion::functions_aggregate::expr_fn::{count, first_value};
use datafusion::logical_expr::expr::{InSubquery, SetComparison, SetQuantifier};
use datafusion::logical_expr::utils::disjunction;
use datafusion::logical_expr::{
    self as logical, Expr, ExprSchemable, FetchType, LogicalPlan, SkipType, binary_expr, lit, when,
};

use super::Result;
use super::dependent::{dependent, groups, or_of_nothing};
use super::pulled::{Outer, outer_columns, pull_up, replaced, with_own_names};
use super::steps::{Names, On, columns_of, distinct, filter, join, named, project};
use crate::keys::is_one_row_at_most;
use crate::sql::functions::one_row;

/// An input to which subqueries are joined.
pub(super) struct Asked<'a> {
    pub(super) plan: LogicalPlan,
    names: &'a mut Names,
    known: Vec<(Expr, Expr)>,
}

impl<'a> Asked<'a> {
    pub(super) fn new(plan: LogicalPlan, names: &'a mut Names) -> Self {
        Self { plan, names, known: Vec::new() }
    }

    fn schema(&self) -> DFSchemaRef {
        Arc::clone(self.plan.schema())
    }

    /// An expression whose subqueries, which have none themselves, are columns of the plan.
    pub(super) fn answered(&mut self, expr: Expr) -> Result<Expr> {
        let new = expr.transform_up(|e| {
            let is_subquery =
                matches!(e, Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_));
            if !is_subquery {
                return Ok(Transformed::no(e));
            }
            if let Some((_, answer)) = self.known.iter().find(|(known, _)| *known == e) {
                return Ok(Transformed::yes(answer.clone()));
            }
            let answer = match &e {
                Expr::ScalarSubquery(subquery) => self.value(&subquery.subquery)?,
                Expr::Exists(exists) => {
                    let mark = self.mark(&exists.subquery.subquery)?;
                    if exists.negated { !mark } else { mark }
                }
                Expr::InSubquery(is_in) => self.is_in(is_in)?,
                Expr::SetComparison(comparison) => self.compared(comparison)?,
                other => other.clone(),
            };
            self.known.push((e, answer.clone()));
            Ok(Transformed::yes(answer))
        })?;
        Ok(new.data)
    }

    /// Keeps the rows for which a condition is true.
    pub(super) fn kept(&mut self, condition: Expr) -> Result<()> {
        let (rows, how) = match condition {
            Expr::Exists(exists) => {
                let how = if exists.negated { JoinType::LeftAnti } else { JoinType::LeftSemi };
                (exists.subquery.subquery.as_ref().clone(), how)
            }
            Expr::InSubquery(InSubquery { expr, subquery, negated: false }) => {
                let x = self.answered(*expr)?;
                (self.where_(&subquery.subquery, &x, Expr::eq)?, JoinType::LeftSemi)
            }
            Expr::InSubquery(InSubquery { expr, subquery, negated: true }) => {
                let x = self.answered(*expr)?;
                if !x.contains_outer()
                    && x.any_column_refs()
                    && outer_columns(&subquery.subquery, &|_| true)?.is_empty()
                {
                    // The optimiser has a join of its own for that.
                    let not_in = InSubquery { expr: Box::new(x), subquery, negated: true };
                    self.plan = filter(self.plan.clone(), [Expr::InSubquery(not_in)])?;
                    return Ok(());
                }
                let may_equal = |x: Expr, y| Expr::IsNotFalse(Box::new(x.eq(y)));
                (self.where_(&subquery.subquery, &x, may_equal)?, JoinType::LeftAnti)
            }
            Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }) => {
                let x = self.answered(*expr)?;
                match quantifier {
                    SetQuantifier::Any => {
                        let holds = |x, y| binary_expr(x, op, y);
                        (self.where_(&subquery.subquery, &x, holds)?, JoinType::LeftSemi)
                    }
                    SetQuantifier::All => {
                        let fails = |x, y| Expr::IsNotTrue(Box::new(binary_expr(x, op, y)));
                        (self.where_(&subquery.subquery, &x, fails)?, JoinType::LeftAnti)
                    }
                }
            }
            other => {
                let predicate = self.answered(other)?;
                self.plan = filter(self.plan.clone(), [predicate])?;
                return Ok(());
            }
        };
        self.with_rows(&rows, how).map(|_| ())
    }

    /// The rows of a subquery of one column, y, for which a condition over x and y is true.
    fn where_(
        &self,
        subquery: &LogicalPlan,
        x: &Expr,
        condition: impl FnOnce(Expr, Expr) -> Expr,
    ) -> Result<LogicalPlan> {
        let schema = self.schema();
        let outer = x.clone().transform_up(|e| match &e {
            Expr::Column(column) => {
                let field = Arc::clone(schema.qualified_field_from_column(column)?.1);
                Ok(Transformed::yes(Expr::OuterReferenceColumn(field, column.clone())))
            }
            _ => Ok(Transformed::no(e)),
        })?;
        filter(subquery.clone(), [condition(outer.data, first_column(subquery)?)])
    }

    /// Whether a subquery has a row, as a column.
    fn mark(&mut self, subquery: &LogicalPlan) -> Result<Expr> {
        let qualifier = self.with_rows(subquery, JoinType::LeftMark)?;
        Ok(Expr::Column(Column::new(Some(qualifier), "mark")))
    }

    /// A semi, anti or mark join with the subquery; gives the name of its right side.
    fn with_rows(&mut self, subquery: &LogicalPlan, how: JoinType) -> Result<String> {
        let schema = self.schema();
        let is_known = |column: &Column| schema.has_column(column);
        let qualifier = self.names.next("rows");
        let subquery = for_existence(subquery)?;
        let (right, on) = match pull_up(subquery, &is_known, self.names)? {
            Some(pulled) => {
                let (predicates, mut read) = with_own_names(pulled.predicates, &qualifier, self.names)?;
                if read.is_empty() {
                    read.push(lit(true).alias_qualified(Some(qualifier.as_str()), self.names.next("i")));
                }
                let predicates = predicates.into_iter().map(|p| self.here(p)).collect::<Result<Vec<_>>>()?;
                (project(pulled.plan, read)?, On { predicates, same: Vec::new() })
            }
            None => {
                let outer = self.outer(subquery)?;
                let all = dependent(subquery, &outer, self.names)?;
                let (right, same) = self.with_outer(all, &outer, &qualifier, Vec::new())?;
                (distinct(right), On { same, predicates: Vec::new() })
            }
        };
        self.plan = join(self.plan.clone(), right, how, on)?;
        Ok(qualifier)
    }

    /// An expression of a subquery that reads this input's columns.
    fn here(&self, expr: Expr) -> Result<Expr> {
        let schema = self.schema();
        replaced(expr, &|column| schema.has_column(column).then(|| Expr::Column(column.clone())))
    }

    fn outer(&mut self, subquery: &LogicalPlan) -> Result<Outer> {
        let schema = self.schema();
        let columns = outer_columns(subquery, &|column| schema.has_column(column))?;
        Outer::of(&self.plan, &columns, self.names)
    }

    /// Some expressions and the outer values under one qualifier, and which column goes with which outer one.
    fn with_outer(
        &mut self,
        plan: LogicalPlan,
        outer: &Outer,
        qualifier: &str,
        mut exprs: Vec<Expr>,
    ) -> Result<(LogicalPlan, Vec<(Column, Column)>)> {
        let mut same = Vec::new();
        for (column, value) in outer.pairs() {
            let to = Column::new(Some(qualifier), self.names.next("o"));
            exprs.push(named(Expr::Column(value), to.relation.as_ref(), &to.name));
            same.push((column, to));
        }
        Ok((project(plan, exprs)?, same))
    }

    fn is_in(&mut self, is_in: &InSubquery) -> Result<Expr> {
        let rows = self.where_(&is_in.subquery.subquery, &is_in.expr, Expr::eq)?;
        let found = self.mark(&rows)?;
        let unknown = self.unknown(&is_in.subquery.subquery, &is_in.expr)?;
        three_valued(found, !is_in.negated, unknown)
    }

    fn compared(&mut self, comparison: &SetComparison) -> Result<Expr> {
        let SetComparison { expr: x, subquery, op, quantifier } = comparison;
        let is_any = *quantifier == SetQuantifier::Any;
        let rows = self.where_(&subquery.subquery, x, |x, y| match is_any {
            true => binary_expr(x, *op, y),
            false => Expr::Not(Box::new(binary_expr(x, *op, y))),
        })?;
        let found = self.mark(&rows)?;
        let unknown = self.unknown(&subquery.subquery, x)?;
        three_valued(found, is_any, unknown)
    }

    /// Whether x is compared with a value of the subquery and one of both is NULL; `None` if that cannot be.
    fn unknown(&mut self, subquery: &LogicalPlan, x: &Expr) -> Result<Option<Expr>> {
        let x_can_be_null = x.nullable(&*self.schema()).unwrap_or(true);
        let mut reasons = Vec::new();
        if subquery.schema().field(0).is_nullable() {
            let nulls = filter(subquery.clone(), [first_column(subquery)?.is_null()])?;
            reasons.push(self.mark(&nulls)?);
        }
        if x_can_be_null {
            reasons.push(x.clone().is_null().and(self.mark(subquery)?));
        }
        Ok(disjunction(reasons))
    }

    /// The value of a subquery of one column and at most one row.
    fn value(&mut self, subquery: &LogicalPlan) -> Result<Expr> {
        let schema = self.schema();
        let is_known = |column: &Column| schema.has_column(column);
        if let Some((shown, aggregate)) = over_all(subquery) {
            return self.computed(shown, aggregate);
        }
        let (qualifier, v) = (self.names.next("value"), first_column(subquery)?);
        let [value, n] = ["v", "n"].map(|of| Column::new(Some(qualifier.as_str()), self.names.next(of)));
        let under = |expr: Expr, column: &Column| named(expr, column.relation.as_ref(), &column.name);
        let is_single = is_one_row_at_most(subquery);
        let is_here = !outer_columns(subquery, &is_known)?.is_empty();
        let outer = if is_here { Some(self.outer(subquery)?) } else { None };
        let all = match &outer {
            Some(outer) => dependent(subquery, outer, self.names)?,
            None => subquery.clone(),
        };
        // Where there may be more rows, their number is found out, and the outer row fails if it is more than one.
        let keys: Vec<Expr> = outer.iter().flat_map(Outer::values).map(Expr::Column).collect();
        let n_keys = keys.len();
        let (all, exprs) = if is_single && outer.is_some() {
            (all, vec![under(v, &value)])
        } else {
            let calls = vec![first_value(v, Vec::new()), count(lit(1_i64))];
            let grouped = LogicalPlan::Aggregate(logical::Aggregate::try_new(Arc::new(all), keys, calls)?);
            let made = columns_of(grouped.schema()).split_off(n_keys);
            let exprs = made.into_iter().zip([&value, &n]).map(|(from, to)| under(Expr::Column(from), to)).collect();
            (grouped, exprs)
        };
        let (right, on, how) = match &outer {
            Some(outer) => {
                let (right, same) = self.with_outer(all, outer, &qualifier, exprs)?;
                (right, On { same, predicates: Vec::new() }, JoinType::Left)
            }
            None => (project(all, exprs)?, On::default(), JoinType::Inner),
        };
        self.plan = join(self.plan.clone(), right, how, on)?;
        let (value, n) = (Expr::Column(value), Expr::Column(n));
        Ok(if is_single { value } else { one_row::function().call(vec![value, n]) })
    }

    /// An expression over the one row of an aggregate without GROUP BY.
    fn computed(&mut self, shown: Option<&Expr>, aggregate: &logical::Aggregate) -> Result<Expr> {
        let plan = LogicalPlan::Aggregate(aggregate.clone());
        let schema = self.schema();
        let is_here = !outer_columns(&plan, &|column| schema.has_column(column))?.is_empty();
        let qualifier = self.names.next("value");
        let mut values = Vec::new();
        let mut exprs = Vec::new();
        for ((from, field), call) in aggregate.schema.iter().zip(&aggregate.aggr_expr) {
            let (from, to) = (Column::from((from, field)), Column::new(Some(qualifier.as_str()), self.names.next("v")));
            exprs.push(named(Expr::Column(from.clone()), to.relation.as_ref(), &to.name));
            let value = match is_here {
                true => or_of_nothing(Expr::Column(to), call, field.data_type())?,
                false => Expr::Column(to),
            };
            values.push((from, value));
        }
        let (right, on, how) = if is_here {
            let outer = self.outer(&plan)?;
            let groups = groups(aggregate, &outer, self.names)?;
            let (right, same) = self.with_outer(groups, &outer, &qualifier, exprs)?;
            (right, On { same, predicates: Vec::new() }, JoinType::Left)
        } else {
            (project(plan, exprs)?, On::default(), JoinType::Inner)
        };
        self.plan = join(self.plan.clone(), right, how, on)?;
        let Some(shown) = shown else { return Ok(values.remove(0).1) };
        let shown = shown.clone().unalias().transform_up(|e| match &e {
            Expr::Column(column) => match values.iter().find(|(from, _)| from == column) {
                Some((_, value)) => Ok(Transformed::yes(value.clone())),
                None => plan_err!("{column} is no column of the aggregate below"),
            },
            _ => Ok(Transformed::no(e)),
        })?;
        self.here(shown.data)
    }
}

/// `yes` if something is found, NULL if that cannot be known, else the contrary.
fn three_valued(found: Expr, yes: bool, unknown: Option<Expr>) -> Result<Expr> {
    let mut answer = when(found, lit(yes));
    match unknown {
        Some(unknown) => answer.when(unknown, lit(ScalarValue::Boolean(None))).otherwise(lit(!yes)),
        None => answer.otherwise(lit(!yes)),
    }
}

fn first_column(plan: &LogicalPlan) -> Result<Expr> {
    match columns_of(plan.schema()).into_iter().next() {
        Some(column) => Ok(Expr::Column(column)),
        None => plan_err!("a subquery without a column"),
    }
}

/// An aggregate without GROUP BY at the top of a subquery, and what is shown of it.
pub(super) fn over_all(plan: &LogicalPlan) -> Option<(Option<&Expr>, &logical::Aggregate)> {
    let (shown, below) = match plan {
        LogicalPlan::Projection(p) => (p.expr.first(), p.input.as_ref()),
        other => (None, other),
    };
    match below {
        LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty() => Some((shown, aggregate)),
        _ => None,
    }
}

/// A plan that has a row exactly if the given one has.
fn for_existence(plan: &LogicalPlan) -> Result<&LogicalPlan> {
    Ok(match plan {
        LogicalPlan::Projection(p) => for_existence(&p.input)?,
        LogicalPlan::SubqueryAlias(alias) => for_existence(&alias.input)?,
        LogicalPlan::Sort(sort) => for_existence(&sort.input)?,
        LogicalPlan::Distinct(logical::Distinct::All(input)) => for_existence(input)?,
        LogicalPlan::Limit(limit) => match (limit.get_skip_type()?, limit.get_fetch_type()?) {
            (SkipType::Literal(0), FetchType::Literal(fetch)) if fetch != Some(0) => for_existence(&limit.input)?,
            _ => plan,
        },
        other => other,
    })
}
