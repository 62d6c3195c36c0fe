//! GROUP BY and DISTINCT.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{self as logical, Expr, LogicalPlan};
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::{Column as PhysicalColumn, Literal as PhysicalLiteral};

use super::closing::horizon_of;
use super::{Facts, Graph, NodeId, Reason, list, unalias};
use crate::error::OpResult;
use crate::ops::aggregate::{Aggregate, AggregateSpec};

impl Graph {
    /// Keys, arguments and filters are computed as columns first, so that the aggregate itself reads columns only and
    /// time-dependent expressions have their node.
    pub(super) fn aggregate(
        &mut self,
        input: &Arc<LogicalPlan>,
        keys: &[Expr],
        aggregates: &[Expr],
        schema: SchemaRef,
    ) -> OpResult<Result<NodeId, Reason>> {
        let mut columns: Vec<Expr> = keys.to_vec();
        if columns.iter().any(|e| matches!(e, Expr::GroupingSet(_))) {
            return Ok(Err("GROUPING SETS have no incremental form yet".to_owned()));
        }
        let mut calls = Vec::new();
        for expr in aggregates {
            let Expr::AggregateFunction(call) = unalias(expr) else {
                return Ok(Err(format!("{expr} is not an aggregate function")));
            };
            if !call.params.order_by.is_empty() {
                return Ok(Err(format!("ORDER BY inside {} has no incremental form yet", call.func.name())));
            }
            let place = |e: &Expr, columns: &mut Vec<Expr>| {
                columns.iter().position(|c| c == e).unwrap_or_else(|| {
                    columns.push(e.clone());
                    columns.len() - 1
                })
            };
            let args: Vec<usize> = call.params.args.iter().map(|a| place(a, &mut columns)).collect();
            let filter = call.params.filter.as_deref().map(|f| place(f, &mut columns));
            calls.push((call.clone(), args, filter));
        }
        let input_schema = input.schema();
        let mut fields = Vec::new();
        for (i, e) in columns.iter().enumerate() {
            use datafusion::logical_expr::ExprSchemable;
            fields.push(Field::new(format!("c{i}"), e.get_type(input_schema)?, true));
        }
        let projected: SchemaRef = Arc::new(Schema::new(fields));
        let specs = calls
            .into_iter()
            .enumerate()
            .map(|(i, (call, args, filter))| {
                let output = schema.field(keys.len() + i).data_type().clone();
                spec(&call, args, filter, output, &projected)
            })
            .collect::<OpResult<Vec<_>>>()?;
        let node = self.compile(input)?;
        let (node, closed) = self.close_any(node, keys, input_schema)?;
        let refs: Vec<&Expr> = columns.iter().collect();
        let label = format!("columns {}", list(&columns));
        let node = self.map(node, input_schema, None, Some(&refs), Arc::clone(&projected), label)?;
        let mut operator = Aggregate::new(&projected, keys.len(), specs, Arc::clone(&schema))?;
        if let Some((key, closing)) = closed {
            operator.close_by(key, horizon_of(&closing));
        }
        let facts = Facts {
            closings: self.nodes[node].facts.of_columns(&(0..keys.len()).collect::<Vec<_>>()).closings,
            ..Facts::default()
        };
        let label = format!("aggregate {} by {}", list(aggregates), list(keys));
        let id = self.operator(vec![node], operator, schema, label);
        self.nodes[id].facts = facts;
        Ok(Ok(id))
    }
}

fn spec(
    call: &AggregateFunction,
    args: Vec<usize>,
    filter: Option<usize>,
    output: arrow::datatypes::DataType,
    projected: &SchemaRef,
) -> OpResult<AggregateSpec> {
    let columns = args
        .iter()
        .zip(&call.params.args)
        .map(|(i, arg)| match unalias(arg) {
            // Some functions want to see that an argument is a literal, string_agg its delimiter.
            Expr::Literal(value, _) => Arc::new(PhysicalLiteral::new(value.clone())) as crate::ops::Expr,
            _ => Arc::new(PhysicalColumn::new(projected.field(*i).name(), *i)) as crate::ops::Expr,
        })
        .collect();
    let ignore_nulls = call.params.null_treatment == Some(logical::expr::NullTreatment::IgnoreNulls);
    let general = AggregateExprBuilder::new(Arc::clone(&call.func), columns)
        .schema(Arc::clone(projected))
        .alias(call.func.name())
        .with_distinct(call.params.distinct)
        .with_ignore_nulls(ignore_nulls)
        .build()?;
    Ok(AggregateSpec {
        function: call.func.name().to_owned(),
        args,
        filter,
        distinct: call.params.distinct,
        output,
        general,
    })
}
