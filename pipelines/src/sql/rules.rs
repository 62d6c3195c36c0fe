//! The planner's optimiser rules, two of them held back where they would forget whether NULL equals NULL in a join.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{JoinType, NullEquality, Result};
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::{ApplyOrder, Optimizer, OptimizerConfig, OptimizerRule};

type Rule = Arc<dyn OptimizerRule + Send + Sync>;

/// All rules in their order.
pub(crate) fn rules() -> Vec<Rule> {
    let guarded = |rule: Rule| -> Rule {
        match rule.name() {
            // It takes inner joins apart and puts them together with the NULLs of the uppermost.
            "eliminate_cross_join" => Arc::new(Guarded { rule, confuses: has_null_safe_inner_join }),
            // It makes keys of equalities, though the join's other keys are equal when they are NULL.
            "extract_equijoin_predicate" => Arc::new(Guarded { rule, confuses: is_null_safe_with_condition }),
            _ => rule,
        }
    };
    Optimizer::new().rules.into_iter().map(guarded).collect()
}

/// A rule that leaves some plans alone.
#[derive(Debug)]
struct Guarded {
    rule: Rule,
    confuses: fn(&LogicalPlan) -> bool,
}

impl OptimizerRule for Guarded {
    fn name(&self) -> &str {
        self.rule.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.rule.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        match (self.confuses)(&plan) {
            true => Ok(Transformed::no(plan)),
            false => self.rule.rewrite(plan, config),
        }
    }
}

fn has_null_safe_inner_join(plan: &LogicalPlan) -> bool {
    let is_one = |node: &LogicalPlan| match node {
        LogicalPlan::Join(join) => {
            Ok(join.join_type == JoinType::Inner && join.null_equality == NullEquality::NullEqualsNull)
        }
        _ => Ok(false),
    };
    plan.exists(is_one).unwrap_or(true)
}

fn is_null_safe_with_condition(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Join(join) => join.null_equality == NullEquality::NullEqualsNull && join.filter.is_some(),
        _ => false,
    }
}
