//! SESSION windows: the pair of window functions that stand for them becomes one operator.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{self as logical, Expr};

use super::closing::closing_of;
use super::{Facts, Graph, NodeId, unalias};
use crate::error::OpResult;
use crate::ops::session::{Edge, Session, SessionSpec};
use crate::watermark::Closing;

/// Functions that give a row the start and the end of its session: `(time, gap) OVER (PARTITION BY … ORDER BY time)`.
const SESSION_START: &str = "andon_session_start";
const SESSION_END: &str = "andon_session_end";

/// What all functions of a session window have in common.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    partition: Vec<usize>,
    time: usize,
    gap_us: i64,
}

impl Graph {
    /// The operator for a plan node that is a session window and nothing else.
    pub(super) fn session(&mut self, plan: &logical::Window, schema: &SchemaRef) -> OpResult<Option<NodeId>> {
        let mut edges = Vec::new();
        let mut call: Option<Call> = None;
        for expr in &plan.window_expr {
            let Expr::WindowFunction(function) = unalias(expr) else { return Ok(None) };
            let Some((edge, this)) = call_of(function, plan.input.schema()) else { return Ok(None) };
            if call.as_ref().is_some_and(|known| *known != this) {
                return Ok(None);
            }
            edges.push(edge);
            call = Some(this);
        }
        let Some(Call { partition, time, gap_us }) = call else { return Ok(None) };
        let input_schema = plan.input.schema();
        let mut input = self.compile(&plan.input)?;
        let time_expr = Expr::Column(input_schema.qualified_field(time).into());
        // A row may still be joined to a session until the gap after its time has passed.
        let closing = closing_of(&time_expr, input_schema, &self.nodes[input].facts).map(|c| Closing {
            lag_us: c.lag_us.saturating_add(gap_us),
            instant: Arc::from(format!("{} + gap", c.instant)),
            ..c
        });
        let mut closed = None;
        if let Some(closing) = closing {
            closed = self.close_with(input, &time_expr, input_schema, closing)?;
        }
        let horizon = closed.map(|(gated, closing)| {
            input = gated;
            closing
        });
        let input_arrow = SchemaRef::clone(&self.nodes[input].schema);
        let n_input = input_arrow.fields().len();
        let facts = Facts {
            closings: horizon
                .iter()
                .flat_map(|closing| {
                    let ends = edges.iter().enumerate().filter(|(_, edge)| **edge == Edge::End);
                    ends.map(|(i, _)| Closing {
                        column: n_input + i,
                        instant: Arc::from(format!("session end ({})", closing.instant)),
                        ..closing.clone()
                    })
                })
                .collect(),
            ..Facts::default()
        };
        let horizon = horizon.as_ref().map(super::closing::horizon_of);
        let label = format!("sessions by {} with a gap of {gap_us} µs", input_arrow.field(time).name());
        let keys: Vec<&str> = partition.iter().map(|c| input_arrow.field(*c).name().as_str()).collect();
        let label = if keys.is_empty() { label } else { format!("{label} of {}", keys.join(", ")) };
        let spec = SessionSpec { partition, time, gap_us, edges, horizon };
        let operator = Session::new(spec, &input_arrow, SchemaRef::clone(schema))?;
        let id = self.operator(vec![input], operator, SchemaRef::clone(schema), label);
        self.nodes[id].facts = facts;
        Ok(Some(id))
    }
}

fn call_of(function: &WindowFunction, schema: &DFSchema) -> Option<(Edge, Call)> {
    let edge = match function.fun.name() {
        SESSION_START => Edge::Start,
        SESSION_END => Edge::End,
        _ => return None,
    };
    let column = |e: &Expr| match unalias(e) {
        Expr::Column(column) => schema.maybe_index_of_column(column),
        _ => None,
    };
    let [time, gap] = &function.params.args[..] else { return None };
    let Expr::Literal(ScalarValue::Int64(Some(gap_us)), _) = gap else { return None };
    let partition = function.params.partition_by.iter().map(column).collect::<Option<Vec<_>>>()?;
    Some((edge, Call { partition, time: column(time)?, gap_us: *gap_us }))
}
