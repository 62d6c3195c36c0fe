//! Joins.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::{DFSchema, JoinType, NullEquality};
use datafusion::logical_expr as logical;

use super::closing::horizon_of;
use super::intervals::{Closed, interval_of};
use super::{Graph, NodeId, Reason};
use crate::error::OpResult;
use crate::ops::Operator;
use crate::ops::interval::{IntervalJoin, IntervalSpec};
use crate::ops::join::{Join, Side};
use crate::ops::outer_join::KeyedJoin;
use crate::rows::relaxed;

impl Graph {
    pub(super) fn join(&mut self, join: &logical::Join, schema: SchemaRef) -> OpResult<Result<NodeId, Reason>> {
        if let Some(node) = self.rewritten_join(join, &schema)? {
            return Ok(node);
        }
        let inputs = [self.compile(&join.left)?, self.compile(&join.right)?];
        let joined = join.left.schema().join(join.right.schema())?;
        let closed = self.close_join(join, inputs, &joined)?;
        let (left, right) = match self.sides(join, closed.inputs)? {
            Ok(sides) => sides,
            Err(reason) => return Ok(Err(reason)),
        };
        let facts = closed.facts(&self.nodes, join);
        let on: Vec<String> = join.on.iter().map(|(l, r)| format!("{l} = {r}")).collect();
        let further = join.filter.as_ref().map(|f| format!(" and {f}")).unwrap_or_default();
        let by_time = if closed.interval.is_some() { " (by time)" } else { "" };
        let label = format!("{} join on {}{further}{by_time}", join.join_type, on.join(" and "));
        let operator = self.join_operator(join, &joined, &closed, left, right, &schema)?;
        let Some(operator) = operator else {
            return Ok(Err(format!("a {} join has no incremental form yet", join.join_type)));
        };
        let id = self.push(closed.inputs.to_vec(), super::NodeKind::Operator(operator), schema, label, None);
        self.nodes[id].facts = facts;
        Ok(Ok(id))
    }

    /// Both sides of a join, keyed.
    fn sides(&self, join: &logical::Join, inputs: [NodeId; 2]) -> OpResult<Result<(Side, Side), Reason>> {
        let nulls_match = join.null_equality == NullEquality::NullEqualsNull;
        let mut left_keys = Vec::new();
        let mut right_keys = Vec::new();
        let mut key_fields = Vec::new();
        for (i, (l, r)) in join.on.iter().enumerate() {
            let (l, r) = (self.physical(l, join.left.schema())?, self.physical(r, join.right.schema())?);
            let l_type = l.data_type(&self.nodes[inputs[0]].schema)?;
            if l_type != r.data_type(&self.nodes[inputs[1]].schema)? {
                return Ok(Err("join keys of different types; CAST one of them".to_owned()));
            }
            key_fields.push(Field::new(format!("k{i}"), l_type, true));
            left_keys.push(l);
            right_keys.push(r);
        }
        let key_schema: SchemaRef = Arc::new(Schema::new(key_fields));
        let side = |id: NodeId, keys| {
            Side::new(Arc::clone(&self.nodes[id].schema), keys, Arc::clone(&key_schema), nulls_match)
        };
        Ok(Ok((side(inputs[0], left_keys)?, side(inputs[1], right_keys)?)))
    }

    fn join_operator(
        &self,
        join: &logical::Join,
        joined: &DFSchema,
        closed: &Closed,
        left: Side,
        right: Side,
        schema: &SchemaRef,
    ) -> OpResult<Option<Box<dyn Operator>>> {
        let (join_type, schema) = (join.join_type, Arc::clone(schema));
        let condition = join.filter.as_ref().map(|f| self.physical(f, joined)).transpose()?;
        let joined = relaxed(joined.as_arrow());
        let horizon = closed.key.as_ref().map(|(part, closings)| (*part, horizon_of(&closings[0])));
        Ok(match (condition, &closed.interval) {
            (Some(condition), Some(interval)) => {
                let [l, r] = &interval.times;
                let times = [self.physical(l, join.left.schema())?, self.physical(r, join.right.schema())?];
                let horizons = closed.times.as_ref().map(|closings| closings.each_ref().map(horizon_of));
                let range_us = interval.range_us;
                let spec = IntervalSpec { join_type, condition, joined, times, range_us, horizons };
                IntervalJoin::new(spec, left, right, schema).map(|op| Box::new(op) as Box<dyn Operator>)
            }
            (Some(condition), None) if join_type != JoinType::Inner => {
                KeyedJoin::new(join_type, left, right, condition, joined, schema).map(|mut op| {
                    horizon.into_iter().for_each(|(part, horizon)| op.close_by(part, horizon));
                    Box::new(op) as Box<dyn Operator>
                })
            }
            (residual, _) => Join::new(join_type, left, right, residual, schema).map(|mut op| {
                horizon.into_iter().for_each(|(part, horizon)| op.close_by(part, horizon));
                Box::new(op) as Box<dyn Operator>
            }),
        })
    }

    /// Closes a join's times or one of its keys, if both sides may close.
    fn close_join(&mut self, join: &logical::Join, inputs: [NodeId; 2], joined: &DFSchema) -> OpResult<Closed> {
        let schemas: [&DFSchema; 2] = [join.left.schema(), join.right.schema()];
        let mut closed = Closed { inputs, interval: None, times: None, key: None };
        let n_left = schemas[0].fields().len();
        closed.interval = join.filter.as_ref().and_then(|f| interval_of(f, joined, n_left));
        if let Some(interval) = &closed.interval {
            let times = interval.times.each_ref();
            if let Some((inputs, closings)) = self.close_both(inputs, times, schemas)? {
                (closed.inputs, closed.times) = (inputs, Some(closings));
            }
            return Ok(closed);
        }
        for (part, (l, r)) in join.on.iter().enumerate() {
            if let Some((inputs, closings)) = self.close_equal(inputs, [l, r], schemas)? {
                (closed.inputs, closed.key) = (inputs, Some((part, closings)));
                break;
            }
        }
        Ok(closed)
    }
}
