//! Filters, projections and constant rows.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_expr::expressions::Column as PhysicalColumn;

use super::{Graph, NodeId, Reason, RowWise};
use crate::error::OpResult;
use crate::ops::constant::Constant;
use crate::ops::map::Map;
use crate::ops::temporal::Temporal;
use crate::sql::now::depends_on_time;

impl Graph {
    pub(super) fn physical(&self, expr: &Expr, schema: &DFSchema) -> OpResult<crate::ops::Expr> {
        self.session.create_physical_expr(expr.clone(), schema)
    }

    pub(super) fn map(
        &mut self,
        input: NodeId,
        input_schema: &DFSchemaRef,
        predicate: Option<&Expr>,
        columns: Option<&[&Expr]>,
        schema: SchemaRef,
        label: String,
    ) -> OpResult<NodeId> {
        let by_time = predicate.into_iter().chain(columns.into_iter().flatten().copied()).any(depends_on_time);
        let map = Map {
            predicate: predicate.map(|p| self.physical(p, input_schema)).transpose()?,
            columns: columns
                .map(|all| all.iter().map(|e| self.physical(e, input_schema)).collect::<OpResult<_>>())
                .transpose()?,
            schema: Arc::clone(&schema),
        };
        if by_time {
            let input_schema = Arc::clone(&self.nodes[input].schema);
            let label = format!("{label} (as time passes)");
            return Ok(self.operator(vec![input], Temporal::new(map, input_schema)?, schema, label));
        }
        let mut facts = self.nodes[input].facts.mapped(columns, input_schema);
        let all = || {
            let fields = self.nodes[input].schema.fields().iter().enumerate();
            fields.map(|(i, f)| Arc::new(PhysicalColumn::new(f.name(), i)) as crate::ops::Expr).collect()
        };
        let columns = map.columns.clone().unwrap_or_else(all);
        facts.row_wise = Some(RowWise { predicate: map.predicate.clone(), columns });
        let id = self.operator(vec![input], map, schema, label);
        self.nodes[id].facts = facts;
        Ok(id)
    }

    pub(super) fn constant(&mut self, plan: &LogicalPlan, schema: SchemaRef) -> OpResult<Result<NodeId, Reason>> {
        if plan.expressions().iter().any(depends_on_time) {
            return Ok(Err("VALUES that read the time".to_owned()));
        }
        let session = self.session.clone();
        let batches = crate::ops::recompute::block_on(async {
            let physical = session.create_physical_plan(plan).await?;
            datafusion::physical_plan::collect(physical, session.task_ctx()).await
        })?;
        let rows = match batches.is_empty() {
            true => arrow::array::RecordBatch::new_empty(Arc::clone(&schema)),
            false => {
                let all = arrow::compute::concat_batches(&batches[0].schema(), &batches)?;
                crate::rows::batch_of(&schema, all.columns().to_vec(), all.num_rows())?
            }
        };
        let label = format!("{} constant rows", rows.num_rows());
        Ok(Ok(self.operator(Vec::new(), Constant { rows }, schema, label)))
    }
}
