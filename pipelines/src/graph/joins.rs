//! Joins.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::NullEquality;
use datafusion::logical_expr as logical;

use super::{Graph, NodeId, Reason};
use crate::error::OpResult;
use crate::ops::join::{Join, Side};
use crate::ops::outer_join::KeyedJoin;
use crate::rows::relaxed;
use crate::sql::now::depends_on_time;

impl Graph {
    pub(super) fn join(&mut self, join: &logical::Join, schema: SchemaRef) -> OpResult<Result<NodeId, Reason>> {
        if join.null_aware {
            return Ok(Err("NOT IN over a column that can be NULL; write NOT EXISTS".to_owned()));
        }
        let exprs = join.on.iter().flat_map(|(l, r)| [l, r]).chain(join.filter.as_ref());
        if exprs.into_iter().any(depends_on_time) {
            return Ok(Err("a join condition that reads the time; filter before the join".to_owned()));
        }
        let (left_id, right_id) = (self.compile(&join.left)?, self.compile(&join.right)?);
        let nulls_match = join.null_equality == NullEquality::NullEqualsNull;
        let mut left_keys = Vec::new();
        let mut right_keys = Vec::new();
        let mut key_fields = Vec::new();
        for (i, (l, r)) in join.on.iter().enumerate() {
            let (l, r) = (self.physical(l, join.left.schema())?, self.physical(r, join.right.schema())?);
            let l_type = l.data_type(&self.nodes[left_id].schema)?;
            if l_type != r.data_type(&self.nodes[right_id].schema)? {
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
        let (left, right) = (side(left_id, left_keys)?, side(right_id, right_keys)?);
        let joined = join.left.schema().join(join.right.schema())?;
        let condition = join.filter.as_ref().map(|f| self.physical(f, &joined)).transpose()?;
        let on: Vec<String> = join.on.iter().map(|(l, r)| format!("{l} = {r}")).collect();
        let further = join.filter.as_ref().map(|f| format!(" and {f}")).unwrap_or_default();
        let label = format!("{} join on {}{further}", join.join_type, on.join(" and "));
        let inputs = vec![left_id, right_id];
        let is_inner = join.join_type == logical::JoinType::Inner;
        let node = match condition {
            Some(condition) if !is_inner => {
                let joined = relaxed(joined.as_arrow());
                KeyedJoin::new(join.join_type, left, right, condition, joined, Arc::clone(&schema))
                    .map(|op| self.operator(inputs, op, schema, label))
            }
            residual => Join::new(join.join_type, left, right, residual, Arc::clone(&schema))
                .map(|op| self.operator(inputs, op, schema, label)),
        };
        Ok(node.ok_or_else(|| format!("a {} join has no incremental form yet", join.join_type)))
    }
}
