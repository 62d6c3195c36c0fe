//! The way for plan nodes without an incremental form: run by DataFusion as a whole, over kept inputs.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::default_table_source::provider_as_source;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, TableReference};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};

use super::{Graph, NodeId, NodeKind, has_subquery, kind};
use crate::error::OpResult;
use crate::ops::recompute::{Recompute, input_name};
use crate::rows::relaxed;
use crate::sql::now::depends_on_time;

impl Graph {
    /// Runs a plan node as a whole. Its inputs are kept incrementally; if it hides plans in expressions or in a
    /// recursion, the source tables and views below it are its inputs.
    pub(super) fn recomputed(&mut self, plan: &LogicalPlan, reason: &str) -> OpResult<NodeId> {
        let whole = has_subquery(plan)? || matches!(plan, LogicalPlan::RecursiveQuery(_) | LogicalPlan::TableScan(_));
        let mut inputs = Vec::new();
        let mut schemas = Vec::new();
        let rewritten = if whole {
            let leaves = self.leaves.clone();
            plan.clone()
                .transform_down_with_subqueries(|node| match node {
                    LogicalPlan::TableScan(mut scan) if leaves.contains_key(scan.table_name.table()) => {
                        let id = leaves[scan.table_name.table()];
                        let at = inputs.iter().position(|i| *i == id).unwrap_or_else(|| {
                            inputs.push(id);
                            schemas.push(Arc::clone(&self.nodes[id].schema));
                            inputs.len() - 1
                        });
                        // The scan keeps the qualifier that expressions above it use.
                        let fields = scan.projected_schema.clone();
                        let name = scan.table_name.clone();
                        scan.table_name = TableReference::bare(input_name(at));
                        scan.projected_schema =
                            Arc::new(fields.as_ref().clone().replace_qualifier(scan.table_name.clone()));
                        let renamed = LogicalPlanBuilder::from(LogicalPlan::TableScan(scan)).alias(name)?.build()?;
                        // Do not go below: the scan there is ours.
                        Ok(Transformed::new(renamed, true, TreeNodeRecursion::Jump))
                    }
                    other => Ok(Transformed::no(other)),
                })?
                .data
        } else {
            self.detach(plan, &mut inputs, &mut schemas)?
        };
        let mut by_time = false;
        rewritten.apply_with_subqueries(|node| {
            by_time |= node.expressions().iter().any(depends_on_time);
            Ok(TreeNodeRecursion::Continue)
        })?;
        let schema = relaxed(plan.schema().as_arrow());
        let operator = Recompute::new(self.session.clone(), rewritten, &schemas, Arc::clone(&schema), by_time)?;
        let label = format!("recompute {}", kind(plan));
        let kind = NodeKind::Operator(Box::new(operator));
        Ok(self.push(inputs, kind, schema, label, Some(reason.to_owned())))
    }

    /// The plan over stand-ins for its inputs. A LIMIT takes the ORDER BY below it along, since what lies between
    /// nodes is a set without order.
    fn detach(
        &mut self,
        plan: &LogicalPlan,
        inputs: &mut Vec<NodeId>,
        schemas: &mut Vec<SchemaRef>,
    ) -> OpResult<LogicalPlan> {
        let mut children = Vec::new();
        for child in plan.inputs() {
            if keeps_order(plan) && has_order(child) {
                children.push(self.detach(child, inputs, schemas)?);
                continue;
            }
            let id = self.compile(child)?;
            children.push(stand_in(&self.nodes[id].schema, child.schema(), inputs.len())?);
            inputs.push(id);
            schemas.push(numbered(&self.nodes[id].schema));
        }
        plan.with_new_exprs(plan.expressions(), children)
    }
}

/// Whether a node's result depends on, or passes on, the order of its input.
fn keeps_order(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Limit(_) | LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_))
}

fn has_order(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) => true,
        other if keeps_order(other) => other.inputs().into_iter().any(has_order),
        _ => false,
    }
}

fn numbered(schema: &Schema) -> SchemaRef {
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(i, f)| Field::new(format!("c{i}"), f.data_type().clone(), true))
        .collect();
    Arc::new(Schema::new(fields))
}

/// A scan of a remembered input under the qualified names of the plan it replaces.
fn stand_in(schema: &Schema, names: &DFSchema, at: usize) -> OpResult<LogicalPlan> {
    let schema = numbered(schema);
    let table = provider_as_source(Arc::new(MemTable::try_new(Arc::clone(&schema), vec![vec![]])?));
    let columns = names.iter().enumerate().map(|(i, (qualifier, field))| {
        let column = Expr::Column(Column::new(Some(input_name(at)), format!("c{i}")));
        column.alias_qualified(qualifier.cloned(), field.name())
    });
    LogicalPlanBuilder::scan(input_name(at), table, None)?.project(columns)?.build()
}
