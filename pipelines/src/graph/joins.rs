//! Joins.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::{DFSchema, DFSchemaRef, JoinType, NullEquality, internal_datafusion_err};
use datafusion::logical_expr::{self as logical, Expr};
use datafusion::physical_expr::expressions::Column as PhysicalColumn;

use super::closing::horizon_of;
use super::intervals::{Closed, interval_of};
use super::windows::place;
use super::{Graph, NodeId, Reason};
use crate::error::OpResult;
use crate::ops::Operator;
use crate::ops::interval::{IntervalJoin, IntervalSpec};
use crate::ops::join::Join;
use crate::ops::outer_join::KeyedJoin;
use crate::ops::sharded::{key_behind_tag, tagged_key};
use crate::ops::side::Side;
use crate::rows::relaxed;

impl Graph {
    pub(super) fn join(&mut self, join: &logical::Join, schema: SchemaRef) -> OpResult<Result<NodeId, Reason>> {
        if let Some(node) = self.rewritten_join(join, &schema)? {
            return Ok(node);
        }
        let inputs = [self.compile(&join.left)?, self.compile(&join.right)?];
        let joined = join.left.schema().join(join.right.schema())?;
        let closed = self.close_join(join, inputs, &joined)?;
        let facts = closed.facts(&self.nodes, join);
        let (nodes, sides, keys) = match self.sides(join, closed.inputs)? {
            Ok(sides) => sides,
            Err(reason) => return Ok(Err(reason)),
        };
        let on: Vec<String> = join.on.iter().map(|(l, r)| format!("{l} = {r}")).collect();
        let further = join.filter.as_ref().map(|f| format!(" and {f}")).unwrap_or_default();
        let by_time = if closed.interval.is_some() { " (by time)" } else { "" };
        let label = format!("{} join on {}{further}{by_time}", join.join_type, on.join(" and "));
        let keyed = [0, 1].map(|side: usize| (SchemaRef::clone(&self.nodes[nodes[side]].schema), keys[side].clone()));
        let is_by_time = join.filter.is_some() && closed.interval.is_some();
        let stored_key = if is_by_time { key_behind_tag } else { tagged_key };
        let make = || {
            let sides = (sides.0.another()?, sides.1.another()?);
            self.join_operator(join, &joined, &closed, sides, &schema)
        };
        if make()?.is_none() {
            return Ok(Err(format!("a {} join has no incremental form yet", join.join_type)));
        }
        let made = || make().and_then(|made| made.ok_or_else(|| internal_datafusion_err!("a join of another kind")));
        let operator = self.sharded(&keyed, stored_key, made)?;
        let id = self.push(nodes.to_vec(), super::NodeKind::Operator(operator), schema, label, None);
        self.nodes[id].facts = facts;
        Ok(Ok(id))
    }

    /// Both sides of a join, keyed, the nodes that they read, and the keys' columns in these. Keys that are no columns are computed as such below the
    /// join, where a row on which one fails is left out.
    fn sides(
        &mut self,
        join: &logical::Join,
        inputs: [NodeId; 2],
    ) -> OpResult<Result<([NodeId; 2], (Side, Side), [Vec<usize>; 2]), Reason>> {
        let nulls_match = join.null_equality == NullEquality::NullEqualsNull;
        let (left_keys, right_keys): (Vec<&Expr>, Vec<&Expr>) = join.on.iter().map(|(l, r)| (l, r)).unzip();
        let (left, left_columns) = self.with_keys(inputs[0], join.left.schema(), &left_keys)?;
        let (right, right_columns) = self.with_keys(inputs[1], join.right.schema(), &right_keys)?;
        let mut key_fields = Vec::new();
        for (i, (l, r)) in left_columns.iter().zip(&right_columns).enumerate() {
            let l_type = self.nodes[left].schema.field(*l).data_type();
            if l_type != self.nodes[right].schema.field(*r).data_type() {
                return Ok(Err("join keys of different types; CAST one of them".to_owned()));
            }
            key_fields.push(Field::new(format!("k{i}"), l_type.clone(), true));
        }
        let key_schema: SchemaRef = Arc::new(Schema::new(key_fields));
        let side = |input: NodeId, node: NodeId, columns: &[usize]| {
            let name = |i: usize| self.nodes[node].schema.field(i).name();
            let keys = columns.iter().map(|i| Arc::new(PhysicalColumn::new(name(*i), *i)) as crate::ops::Expr);
            Side::new(Arc::clone(&self.nodes[input].schema), keys.collect(), Arc::clone(&key_schema), nulls_match)
        };
        let sides = (side(inputs[0], left, &left_columns)?, side(inputs[1], right, &right_columns)?);
        Ok(Ok(([left, right], sides, [left_columns, right_columns])))
    }

    /// A node that has the keys as columns, and which columns these are.
    fn with_keys(&mut self, node: NodeId, schema: &DFSchemaRef, keys: &[&Expr]) -> OpResult<(NodeId, Vec<usize>)> {
        let mut extras = Vec::new();
        let columns = keys.iter().map(|key| place(key, schema, &mut extras)).collect();
        Ok((self.with_columns(node, schema, &extras)?.node, columns))
    }

    fn join_operator(
        &self,
        join: &logical::Join,
        joined: &DFSchema,
        closed: &Closed,
        sides: (Side, Side),
        schema: &SchemaRef,
    ) -> OpResult<Option<Box<dyn Operator>>> {
        let (join_type, schema) = (join.join_type, Arc::clone(schema));
        let condition = join.filter.as_ref().map(|f| self.physical(f, joined)).transpose()?;
        let joined = relaxed(joined.as_arrow());
        let closed_key = closed.key.as_ref().map(|(part, closings)| (*part, horizon_of(&closings[0])));
        Ok(match (condition, &closed.interval) {
            (Some(condition), Some(interval)) => {
                let [l, r] = &interval.times;
                let times = [self.physical(l, join.left.schema())?, self.physical(r, join.right.schema())?];
                let horizons = closed.times.as_ref().map(|closings| closings.each_ref().map(horizon_of));
                let range_us = interval.range_us;
                let spec = IntervalSpec { join_type, condition, joined, times, range_us, horizons };
                IntervalJoin::new(spec, sides.0, sides.1, schema).map(|op| Box::new(op) as Box<dyn Operator>)
            }
            (Some(condition), None) if join_type != JoinType::Inner => {
                let operator = KeyedJoin::new(join_type, sides, closed_key, (condition, joined), schema);
                operator.map(|op| Box::new(op) as Box<dyn Operator>)
            }
            (residual, _) => {
                let operator = Join::new(join_type, sides, closed_key, residual, schema);
                operator.map(|op| Box::new(op) as Box<dyn Operator>)
            }
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
