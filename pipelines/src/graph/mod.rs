//! From DataFusion's optimised plans to a graph of operators.
//!
//! Equal sub-plans become one node, whichever view they come from. A plan node without an incremental form becomes a
//! [`crate::ops::recompute::Recompute`] node over incrementally kept inputs; `EXPLAIN` says so and why.

mod aggregates;
mod closing;
mod explain;
mod intervals;
mod joins;
mod maps;
mod recomputed;
mod rewrites;
mod session;
mod timed;
mod windows;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNode;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{self as logical, Expr, LogicalPlan};
use datafusion::physical_expr::expressions::Column as PhysicalColumn;
use model::SourceTable;

use closing::RowWise;
pub(crate) use closing::{Facts, LateRelation, Policy};

use crate::error::OpResult;
use crate::ops::Operator;
use crate::ops::map::Select;
use crate::ops::sharded::{Sharded, StoredKey};
use crate::ops::union::Union;
use crate::ops::unnest::Unnest;
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
    /// How windows close in it and, in lines of its own, the plan that it stands for: the label alone does not tell
    /// nodes apart.
    pub(crate) meaning: String,
    /// Why this node is recomputed, if it is.
    pub(crate) recompute: Option<String>,
    /// What is known of the rows that it puts out.
    pub(crate) facts: Facts,
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
    known: HashMap<Policy, HashMap<LogicalPlan, NodeId>>,
    session: SessionState,
    view: String,
    policy: Policy,
    /// Of each operator that works by key.
    n_shards: usize,
}

/// Why a plan node has no incremental form.
type Reason = String;

impl Graph {
    /// Whether what a node has put out, and not taken back, can be asked of it or made from what those below it say.
    pub(crate) fn says_what_stands(&self, id: NodeId) -> bool {
        let node = &self.nodes[id];
        match &node.kind {
            NodeKind::Source(_) => false,
            NodeKind::Operator(op) if op.remembers() => true,
            NodeKind::Operator(op) => op.is_stateless() && node.inputs.iter().all(|i| self.says_what_stands(*i)),
        }
    }

    pub(crate) fn new(session: SessionState, n_shards: usize) -> Self {
        Self {
            nodes: Vec::new(),
            leaves: HashMap::new(),
            known: HashMap::new(),
            session,
            view: String::new(),
            policy: Policy::default(),
            n_shards,
        }
    }

    /// Adds a source table under its name.
    pub(crate) fn add_source(&mut self, table: &SourceTable) {
        let name = &table.name;
        let label = format!("source {name}");
        let id = self.push(Vec::new(), NodeKind::Source(Arc::clone(name)), relaxed(&table.schema), label, None);
        self.nodes[id].facts = Facts::of_source(table);
        self.leaves.insert(name.to_string(), id);
    }

    /// Makes a node readable for later views under a name.
    pub(crate) fn name_node(&mut self, name: &str, node: NodeId) {
        self.leaves.insert(name.to_owned(), node);
    }

    fn is_append_only(&self, id: NodeId) -> bool {
        self.nodes[id].facts.appends
    }

    /// Drops what only planning needs.
    pub(crate) fn forget_plans(&mut self) {
        self.known = HashMap::new();
    }

    /// Compiles a view's plan and makes it readable for later views under `name`.
    ///
    /// # Errors
    /// What is wrong with the plan; as the inner error, why its windows cannot close as `policy` wants.
    pub(crate) fn add_view(
        &mut self,
        name: &str,
        plan: &LogicalPlan,
        policy: Policy,
    ) -> OpResult<Result<NodeId, String>> {
        name.clone_into(&mut self.view);
        self.policy = policy;
        let mut id = self.compile(without_outer_sort(plan))?;
        if policy.emit_on_close {
            let columns: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
            let (gated, _) = self.close_any(id, &columns, plan.schema())?;
            match self.emit_on_close(gated)? {
                Ok(emitting) => id = emitting,
                Err(why) => return Ok(Err(why)),
            }
        }
        self.leaves.insert(name.to_owned(), id);
        Ok(Ok(id))
    }

    fn push(
        &mut self,
        inputs: Vec<NodeId>,
        kind: NodeKind,
        schema: SchemaRef,
        label: String,
        recompute: Option<String>,
    ) -> NodeId {
        let (meaning, facts, view) = (format!("{:?}", self.policy), Facts::default(), self.view.clone());
        self.nodes.push(Node { inputs, kind, schema, label, meaning, recompute, facts, view });
        self.nodes.len() - 1
    }

    /// An operator that treats every key by itself, as one or as several that share the keys. The keys' columns are named
    /// for each input; without any there is one key.
    fn sharded(
        &self,
        inputs: &[(SchemaRef, Vec<usize>)],
        stored_key: StoredKey,
        make: impl Fn() -> OpResult<Box<dyn Operator>>,
    ) -> OpResult<Box<dyn Operator>> {
        if self.n_shards < 2 || inputs.iter().any(|(_, columns)| columns.is_empty()) {
            return make();
        }
        let shards = (0..self.n_shards).map(|_| make()).collect::<OpResult<Vec<_>>>()?;
        Ok(Box::new(Sharded::new(shards, inputs, stored_key)?))
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
        if let Some(id) = self.known.get(&self.policy).and_then(|known| known.get(plan)) {
            return Ok(*id);
        }
        let n_nodes = self.nodes.len();
        let id = match self.incremental(plan)? {
            Ok(id) => id,
            Err(reason) => self.recomputed(plan, &reason)?,
        };
        if id >= n_nodes && !self.nodes[id].meaning.contains('\n') {
            write!(self.nodes[id].meaning, "\n{}", plan.display_indent()).expect("a String takes every text");
        }
        self.known.entry(self.policy).or_default().insert(plan.clone(), id);
        Ok(id)
    }

    fn incremental(&mut self, plan: &LogicalPlan) -> OpResult<Result<NodeId, Reason>> {
        if has_subquery(plan)? {
            return Ok(Err("a subquery that cannot be turned into a join".to_owned()));
        }
        let schema = relaxed(plan.schema().as_arrow());
        if let LogicalPlan::Window(window) = plan
            && let Some(id) = self.session(window, &schema)?
        {
            return Ok(Ok(id));
        }
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan, schema),
            LogicalPlan::SubqueryAlias(alias) => Ok(Ok(self.compile(&alias.input)?)),
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => Ok(Ok(self.compile(&sort.input)?)),
            LogicalPlan::Projection(p) => {
                let exprs: Vec<&Expr> = p.expr.iter().collect();
                let input = match self.top_n_unnumbered(p)? {
                    Some(input) => input,
                    None => self.compile(&p.input)?,
                };
                let label = format!("project {}", list(&p.expr));
                Ok(Ok(self.map(input, p.input.schema(), None, Some(&exprs), schema, label)?))
            }
            LogicalPlan::Filter(f) if depends_on_time(&f.predicate) => {
                let input = self.compile(&f.input)?;
                Ok(Ok(self.filter_by_time(input, f.input.schema(), &f.predicate, schema)?))
            }
            LogicalPlan::Filter(f) => {
                if let Some(node) = self.top_n(f, true, &schema)? {
                    return Ok(Ok(node));
                }
                let input = self.compile(&f.input)?;
                let label = format!("filter {}", f.predicate);
                Ok(Ok(self.map(input, f.input.schema(), Some(&f.predicate), None, schema, label)?))
            }
            LogicalPlan::Union(u) => {
                let inputs = u.inputs.iter().map(|i| self.compile(i)).collect::<OpResult<Vec<_>>>()?;
                let operator = Union { schema: Arc::clone(&schema) };
                let facts = Facts::of_union(&inputs.iter().map(|i| &self.nodes[*i].facts).collect::<Vec<_>>());
                let id = self.operator(inputs, operator, schema, "union all".to_owned());
                self.nodes[id].facts = facts;
                Ok(Ok(id))
            }
            LogicalPlan::Distinct(logical::Distinct::All(input)) => {
                let keys = input.schema().columns().into_iter().map(Expr::Column).collect::<Vec<_>>();
                self.aggregate(input, &keys, &[], schema)
            }
            LogicalPlan::Aggregate(a) => self.aggregate(&a.input, &a.group_expr, &a.aggr_expr, schema),
            LogicalPlan::Join(join) => self.join(join, schema),
            LogicalPlan::Window(window) => self.window(window, schema),
            LogicalPlan::Sort(_) | LogicalPlan::Limit(_) => self.limit(plan, schema),
            LogicalPlan::Unnest(unnest) => self.unnest(unnest, schema),
            LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => self.constant(plan, schema),
            other => Ok(Err(format!("{} has no incremental form yet", kind(other)))),
        }
    }

    fn scan(&mut self, scan: &logical::TableScan, schema: SchemaRef) -> OpResult<Result<NodeId, Reason>> {
        let name = scan.table_name.table();
        let Some(leaf) = self.leaves.get(name).copied() else {
            return Ok(Err(format!("{name} is not a source table or kept view")));
        };
        // A fetch is only a hint: the LIMIT that it comes from stands above.
        if !scan.filters.is_empty() {
            return Ok(Err(format!("a filter inside the scan of {name}")));
        }
        match &scan.projection {
            None => Ok(Ok(leaf)),
            Some(columns) if columns.iter().copied().eq(0..self.nodes[leaf].schema.fields().len()) => Ok(Ok(leaf)),
            Some(columns) => {
                let operator = Select { columns: columns.clone(), schema: Arc::clone(&schema) };
                let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
                let label = format!("columns {}", names.join(", "));
                let mut facts = self.nodes[leaf].facts.of_columns(columns);
                let source = &self.nodes[leaf].schema;
                let column = |i: &usize| Arc::new(PhysicalColumn::new(source.field(*i).name(), *i)) as crate::ops::Expr;
                facts.row_wise = Some(RowWise { predicate: None, columns: columns.iter().map(column).collect() });
                let id = self.operator(vec![leaf], operator, schema, label);
                self.nodes[id].facts = facts;
                Ok(Ok(id))
            }
        }
    }
}

impl Graph {
    fn unnest(&mut self, unnest: &logical::Unnest, schema: SchemaRef) -> OpResult<Result<NodeId, Reason>> {
        let operator = match Unnest::new(unnest, Arc::clone(&schema)) {
            Ok(operator) => operator,
            Err(reason) => return Ok(Err(reason)),
        };
        let input = self.compile(&unnest.input)?;
        let names: Vec<&str> = unnest.exec_columns.iter().map(|c| c.name.as_str()).collect();
        let label = format!("unnest {}", names.join(", "));
        // What closes as a list closes with its elements.
        let facts = self.nodes[input].facts.of_columns(&unnest.dependency_indices);
        let id = self.operator(vec![input], operator, schema, label);
        self.nodes[id].facts = facts;
        Ok(Ok(id))
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
