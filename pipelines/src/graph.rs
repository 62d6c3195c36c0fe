//! From DataFusion's optimised plans to a graph of operators.
//!
//! Equal sub-plans become one node, whichever view they come from. A plan node without an incremental form becomes a
//! [`Recompute`] node over incrementally kept inputs; `EXPLAIN` says so and why.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::default_table_source::provider_as_source;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DFSchemaRef, NullEquality, TableReference};
use datafusion::datasource::MemTable;
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{self as logical, Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::{Column as PhysicalColumn, Literal as PhysicalLiteral};

use crate::error::OpResult;
use crate::ops::Operator;
use crate::ops::aggregate::{Aggregate, AggregateSpec};
use crate::ops::constant::Constant;
use crate::ops::join::{Join, Side};
use crate::ops::map::{Map, Select};
use crate::ops::outer_join::KeyedJoin;
use crate::ops::recompute::{Recompute, input_name};
use crate::ops::temporal::Temporal;
use crate::ops::union::Union;
use crate::rows::relaxed;
use crate::sql::now::depends_on_time;

/// Index of a node; inputs come before the nodes that read them.
pub(crate) type NodeId = usize;

/// A node: an operator, or the change of a source table.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) inputs: Vec<NodeId>,
    pub(crate) kind: NodeKind,
    /// Schema of the output, all nullable.
    pub(crate) schema: SchemaRef,
    /// For `EXPLAIN`.
    pub(crate) label: String,
    /// Why this node is recomputed, if it is.
    pub(crate) recompute: Option<String>,
    /// The view during whose planning the node was made.
    pub(crate) view: String,
}

#[derive(Debug)]
pub(crate) enum NodeKind {
    Source(Arc<str>),
    Operator(Box<dyn Operator>),
}

/// The dataflow of all views of a program.
#[derive(Debug)]
pub(crate) struct Graph {
    pub(crate) nodes: Vec<Node>,
    leaves: HashMap<String, NodeId>,
    known: HashMap<LogicalPlan, NodeId>,
    session: SessionState,
    view: String,
}

/// Why a plan node has no incremental form.
type Reason = String;

impl Graph {
    pub(crate) fn new(session: SessionState) -> Self {
        Self { nodes: Vec::new(), leaves: HashMap::new(), known: HashMap::new(), session, view: String::new() }
    }

    /// Adds a source table under its name.
    pub(crate) fn add_source(&mut self, name: &Arc<str>, schema: &Schema) {
        let label = format!("source {name}");
        let id = self.push(Vec::new(), NodeKind::Source(Arc::clone(name)), relaxed(schema), label, None);
        self.leaves.insert(name.to_string(), id);
    }

    /// Drops what only planning needs.
    pub(crate) fn forget_plans(&mut self) {
        self.known = HashMap::new();
    }

    /// Compiles a view's plan and makes it readable for later views under `name`.
    pub(crate) fn add_view(&mut self, name: &str, plan: &LogicalPlan) -> OpResult<NodeId> {
        name.clone_into(&mut self.view);
        let id = self.compile(without_outer_sort(plan))?;
        self.leaves.insert(name.to_owned(), id);
        Ok(id)
    }

    fn push(
        &mut self,
        inputs: Vec<NodeId>,
        kind: NodeKind,
        schema: SchemaRef,
        label: String,
        recompute: Option<String>,
    ) -> NodeId {
        self.nodes.push(Node { inputs, kind, schema, label, recompute, view: self.view.clone() });
        self.nodes.len() - 1
    }

    fn operator(
        &mut self,
        inputs: Vec<NodeId>,
        operator: impl Operator + 'static,
        schema: SchemaRef,
        label: String,
    ) -> NodeId {
        self.push(inputs, NodeKind::Operator(Box::new(operator)), schema, label, None)
    }

    fn compile(&mut self, plan: &LogicalPlan) -> OpResult<NodeId> {
        if let Some(id) = self.known.get(plan) {
            return Ok(*id);
        }
        let id = match self.incremental(plan)? {
            Ok(id) => id,
            Err(reason) => self.recomputed(plan, &reason)?,
        };
        self.known.insert(plan.clone(), id);
        Ok(id)
    }

    fn incremental(&mut self, plan: &LogicalPlan) -> OpResult<Result<NodeId, Reason>> {
        if has_subquery(plan)? {
            return Ok(Err("a subquery that cannot be turned into a join".to_owned()));
        }
        let schema = relaxed(plan.schema().as_arrow());
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan, schema),
            LogicalPlan::SubqueryAlias(alias) => Ok(Ok(self.compile(&alias.input)?)),
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => Ok(Ok(self.compile(&sort.input)?)),
            LogicalPlan::Projection(p) => {
                let exprs: Vec<&Expr> = p.expr.iter().collect();
                let input = self.compile(&p.input)?;
                let label = format!("project {}", list(&p.expr));
                Ok(Ok(self.map(input, p.input.schema(), None, Some(&exprs), schema, label)?))
            }
            LogicalPlan::Filter(f) => {
                let input = self.compile(&f.input)?;
                let label = format!("filter {}", f.predicate);
                Ok(Ok(self.map(input, f.input.schema(), Some(&f.predicate), None, schema, label)?))
            }
            LogicalPlan::Union(u) => {
                let inputs = u.inputs.iter().map(|i| self.compile(i)).collect::<OpResult<Vec<_>>>()?;
                let operator = Union { schema: Arc::clone(&schema) };
                Ok(Ok(self.operator(inputs, operator, schema, "union all".to_owned())))
            }
            LogicalPlan::Distinct(logical::Distinct::All(input)) => {
                let keys = input.schema().columns().into_iter().map(Expr::Column).collect::<Vec<_>>();
                self.aggregate(input, &keys, &[], schema)
            }
            LogicalPlan::Aggregate(a) => self.aggregate(&a.input, &a.group_expr, &a.aggr_expr, schema),
            LogicalPlan::Join(join) => self.join(join, schema),
            LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => self.constant(plan, schema),
            other => Ok(Err(format!("{} has no incremental form yet", kind(other)))),
        }
    }

    fn scan(&mut self, scan: &logical::TableScan, schema: SchemaRef) -> OpResult<Result<NodeId, Reason>> {
        let name = scan.table_name.table();
        let Some(leaf) = self.leaves.get(name).copied() else {
            return Ok(Err(format!("{name} is not a source table or kept view")));
        };
        if scan.fetch.is_some() || !scan.filters.is_empty() {
            return Ok(Err("LIMIT without an order".to_owned()));
        }
        match &scan.projection {
            None => Ok(Ok(leaf)),
            Some(columns) if columns.iter().copied().eq(0..self.nodes[leaf].schema.fields().len()) => Ok(Ok(leaf)),
            Some(columns) => {
                let operator = Select { columns: columns.clone(), schema: Arc::clone(&schema) };
                let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
                let label = format!("columns {}", names.join(", "));
                Ok(Ok(self.operator(vec![leaf], operator, schema, label)))
            }
        }
    }

    fn physical(&self, expr: &Expr, schema: &DFSchema) -> OpResult<crate::ops::Expr> {
        self.session.create_physical_expr(expr.clone(), schema)
    }

    fn map(
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
        Ok(self.operator(vec![input], map, schema, label))
    }

    fn constant(&mut self, plan: &LogicalPlan, schema: SchemaRef) -> OpResult<Result<NodeId, Reason>> {
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

    /// Keys, arguments and filters are computed as columns first, so that the aggregate itself reads columns only and
    /// time-dependent expressions have their node.
    fn aggregate(
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
        let refs: Vec<&Expr> = columns.iter().collect();
        let label = format!("columns {}", list(&columns));
        let node = self.map(node, input_schema, None, Some(&refs), Arc::clone(&projected), label)?;
        let operator = Aggregate::new(&projected, keys.len(), specs, Arc::clone(&schema))?;
        let label = format!("aggregate {} by {}", list(aggregates), list(keys));
        Ok(Ok(self.operator(vec![node], operator, schema, label)))
    }

    fn join(&mut self, join: &logical::Join, schema: SchemaRef) -> OpResult<Result<NodeId, Reason>> {
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

    /// Runs a plan node as a whole. Its inputs are kept incrementally; if it hides plans in expressions or in a
    /// recursion, the source tables and views below it are its inputs.
    fn recomputed(&mut self, plan: &LogicalPlan, reason: &str) -> OpResult<NodeId> {
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

    /// Why a view is recomputed in part or whole; nodes of other views do not count.
    pub(crate) fn recompute_reasons(&self, root: NodeId, view: &str) -> Vec<String> {
        let mut seen = vec![false; self.nodes.len()];
        let mut stack = vec![root];
        let mut reasons = Vec::new();
        while let Some(id) = stack.pop() {
            if std::mem::replace(&mut seen[id], true) || self.is_view_of_another(id, root, view) {
                continue;
            }
            reasons.extend(self.nodes[id].recompute.clone());
            stack.extend(&self.nodes[id].inputs);
        }
        reasons
    }

    fn is_view_of_another(&self, id: NodeId, root: NodeId, view: &str) -> bool {
        id != root && self.leaves.iter().any(|(name, leaf)| *leaf == id && name != view)
    }

    /// The operator tree of a view as text; stops at other views.
    pub(crate) fn explain(&self, root: NodeId, view: &str) -> String {
        let mut text = String::new();
        self.explain_node(root, root, view, 0, &mut text);
        text
    }

    fn explain_node(&self, id: NodeId, root: NodeId, view: &str, depth: usize, text: &mut String) {
        let node = &self.nodes[id];
        let indent = "  ".repeat(depth);
        if self.is_view_of_another(id, root, view) {
            // Views with equal plans share a node, so a node can have several names.
            let text_of = match &node.kind {
                NodeKind::Source(name) => format!("source {name}"),
                NodeKind::Operator(_) => {
                    let names = self.leaves.iter().filter(|(name, leaf)| **leaf == id && *name != view);
                    format!("view {}", names.map(|(name, _)| name.as_str()).min().unwrap_or_default())
                }
            };
            writeln!(text, "{indent}{text_of}").expect("a String takes every text");
            return;
        }
        let reason = node.recompute.as_ref().map(|r| format!("  -- recompute: {r}")).unwrap_or_default();
        writeln!(text, "{indent}{}{reason}", node.label).expect("a String takes every text");
        for input in &node.inputs {
            self.explain_node(*input, root, view, depth + 1, text);
        }
    }
}

/// A set has no order: ORDER BY at the top of a view means nothing for its rows.
fn without_outer_sort(plan: &LogicalPlan) -> &LogicalPlan {
    match plan {
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => &sort.input,
        other => other,
    }
}

fn unalias(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => unalias(&alias.expr),
        other => other,
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

/// Whether an expression of this very node holds a plan.
fn has_subquery(plan: &LogicalPlan) -> OpResult<bool> {
    for expr in plan.expressions() {
        let found = expr.exists(|e| {
            Ok(matches!(e, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_)))
        })?;
        if found {
            return Ok(true);
        }
    }
    Ok(false)
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

fn list(exprs: &[Expr]) -> String {
    match exprs.is_empty() {
        true => "()".to_owned(),
        false => exprs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

fn kind(plan: &LogicalPlan) -> String {
    match plan {
        LogicalPlan::Sort(_) => "ORDER BY … LIMIT".to_owned(),
        LogicalPlan::Limit(_) => "LIMIT".to_owned(),
        LogicalPlan::Window(_) => "a window function (OVER)".to_owned(),
        LogicalPlan::RecursiveQuery(_) => "WITH RECURSIVE".to_owned(),
        LogicalPlan::Unnest(_) => "UNNEST".to_owned(),
        other => other.display().to_string().split([':', '\n']).next().unwrap_or_default().to_owned(),
    }
}
