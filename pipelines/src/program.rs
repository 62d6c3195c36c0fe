//! A program: all SQL files of an installation, parsed, planned and turned into one dataflow graph.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::catalog::view::ViewTable;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Constraint, Constraints};
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use datafusion::execution::{FunctionRegistry, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{Query, Statement};
use model::sql::split_statements;
use model::view::ViewColumn;
use model::{Diagnostic, SourceTable, SqlFile, SqlStatement, ViewInfo, ViewKind, topics};

use crate::graph::{Graph, LateRelation, NodeId, Policy};
use crate::keys::{is_key, natural_key};
use crate::lineage::Lineage;
use crate::names::{in_order, late_name, take_taken_names};
use crate::sql::lint;
use crate::sql::now::BusinessTime;
use crate::sql::places::planning_diagnostic;
use crate::sql::rules::rules;
use crate::sql::sets::count_copies;
use crate::sql::subqueries;
use crate::sql::{
    Declared, Operators, StatementKind, ViewOptions, ViewStatement, functions, parse_query, parse_view, relation_names,
};

/// The SELECT of a rule, to be kept like a view.
#[derive(Debug, Clone)]
pub struct RuleQuery {
    /// Name of the rule; it must differ from every view's.
    pub name: String,
    /// Columns that identify an instance.
    pub key: Vec<String>,
    /// The SELECT and its place.
    pub statement: SqlStatement,
    /// What the rule is for.
    pub description: Option<String>,
}

/// A kept view or rule.
#[derive(Debug)]
pub(crate) struct KeptView {
    pub(crate) info: ViewInfo,
    pub(crate) root: NodeId,
    pub(crate) schema: SchemaRef,
    pub(crate) key: Vec<usize>,
    /// Whether the plan shows that no two rows have the same key.
    pub(crate) is_key_proven: bool,
}

/// All views and rules of an installation, ready to run.
#[derive(Debug)]
pub struct Program {
    pub(crate) graph: Graph,
    pub(crate) views: Vec<KeptView>,
    /// Columns of source tables and kept views that some kept view reads.
    reads: BTreeMap<String, BTreeSet<usize>>,
    pub(crate) time: BusinessTime,
    pub(crate) tables: Vec<SourceTable>,
    pub(crate) statements: HashMap<String, ViewStatement>,
    pub(crate) lineage: Lineage,
    pub(crate) declared: Declared,
    warnings: Vec<Diagnostic>,
}

impl Program {
    /// Parses and plans everything.
    ///
    /// `files` hold `CREATE VIEW` and `CREATE MATERIALIZED VIEW` in any order; `CREATE TABLE` statements in them are
    /// skipped, since `tables` has them already.
    ///
    /// # Errors
    /// Every mistake of every file, with its place.
    pub fn load(tables: &[SourceTable], files: &[SqlFile], rules: &[RuleQuery]) -> Result<Self, Vec<Diagnostic>> {
        Self::load_sharded(tables, files, rules, 1)
    }

    /// The same with operators that share their keys among so many shards, which run side by side.
    ///
    /// # Errors
    /// As [`Program::load`].
    pub fn load_sharded(
        tables: &[SourceTable],
        files: &[SqlFile],
        rules: &[RuleQuery],
        n_shards: usize,
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut diagnostics = Vec::new();
        let mut statements: BTreeMap<String, ViewStatement> = BTreeMap::new();
        let declared = Declared::of(tables);
        for file in files {
            for parsed in parse_file(file, &declared) {
                match parsed {
                    Ok(view) => match statements.get(&view.name) {
                        Some(first) => diagnostics.push(
                            view.source
                                .diagnostic(format!("view {} is defined twice", view.name))
                                .with_help(format!("the first is in {}:{}", first.source.path, first.source.line)),
                        ),
                        None => {
                            statements.insert(view.name.clone(), view);
                        }
                    },
                    Err(diagnostic) => diagnostics.push(diagnostic),
                }
            }
        }
        diagnostics.extend(take_taken_names(tables, &mut statements));
        let (order, cyclic) = in_order(&statements);
        for name in cyclic {
            diagnostics.push(statements[&name].source.diagnostic(format!("view {name} depends on itself")));
        }
        let mut loader = Loader::new(tables, statements, declared, n_shards);
        for name in order {
            if let Err(diagnostic) = loader.add_view(&name) {
                diagnostics.push(diagnostic);
            }
        }
        for rule in rules {
            if let Err(diagnostic) = loader.add_rule(rule) {
                diagnostics.push(diagnostic);
            }
        }
        diagnostics.sort_by(|a, b| (&a.path, a.line, a.column).cmp(&(&b.path, b.line, b.column)));
        if diagnostics.is_empty() { Ok(loader.finish(tables)) } else { Err(diagnostics) }
    }

    /// Views and rules in the order in which they are kept.
    pub fn views(&self) -> Vec<ViewInfo> {
        self.views.iter().map(|v| v.info.clone()).collect()
    }

    /// Whether some kept view or rule reads this column of a relation.
    pub fn reads(&self, relation: &str, column: usize) -> bool {
        self.reads.get(relation).is_some_and(|columns| columns.contains(&column))
    }

    /// What would not run on Flink, or mean something else there, by place. A statement says that it is not meant for
    /// Flink by a line `NOT PORTABLE: why` in the comment above it.
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// How a view is kept, as an indented operator tree.
    pub fn explain(&self, view: &str) -> Option<String> {
        let kept = self.views.iter().find(|v| v.info.name == view)?;
        let key = if kept.info.key.is_empty() { "one row".to_owned() } else { kept.info.key.join(", ") };
        let tree = self.graph.explain(kept.root, view);
        Some(format!("{view} (key: {key}; {})\n{tree}", kept.info.maintenance))
    }
}

fn parse_file(file: &SqlFile, declared: &Declared) -> Vec<Result<ViewStatement, Diagnostic>> {
    match split_statements(file) {
        Ok(all) => all.iter().filter_map(|s| parse_view(s, declared).transpose()).collect(),
        Err(diagnostic) => vec![Err(diagnostic)],
    }
}

/// A session that plans Andon's SQL: schema `erp`, names folded to lower case, business time.
pub(crate) fn new_session(time: &BusinessTime) -> SessionContext {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema("andon", "erp")
        .with_target_partitions(1)
        .with_information_schema(false);
    let options = config.options_mut();
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.collect_spans = true;
    // `0.1` is a decimal, as SQL has it: what is computed with it stays exact.
    options.sql_parser.parse_float_as_decimal = true;
    options.execution.time_zone = Some("UTC".to_owned());
    // The planner's own notion of which columns can be NULL differs from rule to rule; the check would refuse queries
    // that are right.
    options.execution.skip_physical_aggregate_schema_check = true;
    let state = SessionStateBuilder::new().with_config(config).with_default_features().with_optimizer_rules(rules());
    let mut session = SessionContext::new_with_state(state.build());
    functions::register(&session);
    // A session takes every planner.
    if let Err(error) = session.register_expr_planner(Arc::new(Operators::default())) {
        tracing::error!(%error, "operators cannot be registered");
    }
    for function in time.functions() {
        session.register_udf(function);
    }
    session
}

/// Plans a query without optimising it.
pub(crate) async fn plan(session: &SessionContext, query: Query) -> Result<LogicalPlan, DataFusionError> {
    let statement = DfStatement::Statement(Box::new(Statement::Query(Box::new(query))));
    count_copies(session.state().statement_to_plan(statement).await?)
}

struct Loader {
    session: SessionContext,
    graph: Graph,
    time: BusinessTime,
    statements: BTreeMap<String, ViewStatement>,
    declared: Declared,
    declared_tables: BTreeSet<String>,
    views: Vec<KeptView>,
    reads: BTreeMap<String, BTreeSet<usize>>,
    warnings: Vec<Diagnostic>,
}

/// What a statement is to become.
struct Wanted<'a> {
    name: &'a str,
    kind: ViewKind,
    options: ViewOptions,
    query: &'a Query,
    source: &'a SqlStatement,
    description: Option<String>,
}

impl Loader {
    fn new(
        tables: &[SourceTable],
        statements: BTreeMap<String, ViewStatement>,
        declared: Declared,
        n_shards: usize,
    ) -> Self {
        let time = BusinessTime::default();
        let session = new_session(&time);
        let mut graph = Graph::new(session.state(), n_shards);
        for table in tables {
            graph.add_source(table);
            register(&session, &table.name, &table.schema, &table.primary_key);
        }
        let (views, warnings, reads) = (Vec::new(), Vec::new(), BTreeMap::new());
        let declared_tables = tables.iter().map(|t| t.name.to_string()).collect();
        Self { session, graph, time, statements, declared, declared_tables, views, warnings, reads }
    }

    fn add_view(&mut self, name: &str) -> Result<(), Diagnostic> {
        let view = self.statements[name].clone();
        self.warnings.extend(view.warnings.iter().filter(|_| is_meant_for_flink(&view.source)).cloned());
        match &view.kind {
            StatementKind::View => {
                let plan = self.plan(&view.query, &view.source)?;
                let definition = ViewTable::new(plan, Some(view.source.sql.clone()));
                self.session
                    .register_table(table_ref(name), Arc::new(definition))
                    .map_err(|e| planning_diagnostic(&view.source, &e))?;
                Ok(())
            }
            StatementKind::Materialized => {
                let description = first_paragraph(&view.source.comment);
                let (kind, options) = (ViewKind::View, view.options.clone());
                self.keep(&Wanted { name, kind, options, query: &view.query, source: &view.source, description })
            }
        }
    }

    fn add_rule(&mut self, rule: &RuleQuery) -> Result<(), Diagnostic> {
        let is_kept = |name: &str| self.views.iter().any(|v| v.info.name == name);
        if self.statements.contains_key(&rule.name) || is_kept(&rule.name) {
            return Err(rule.statement.diagnostic(format!("rule {} has the name of a view", rule.name)));
        }
        let late = late_name(&rule.name);
        if self.statements.contains_key(&late) || self.declared_tables.contains(&late) || is_kept(&late) {
            let message = format!("the late rows of rule {} have the name of another relation, {late}", rule.name);
            return Err(rule.statement.diagnostic(message).with_help("give that one another name"));
        }
        let (query, warnings) = parse_query(&rule.statement, &self.declared)?;
        self.warnings.extend(warnings);
        self.keep(&Wanted {
            name: &rule.name,
            kind: ViewKind::Rule,
            options: ViewOptions { key: Some(rule.key.clone()), ..ViewOptions::default() },
            query: &query,
            source: &rule.statement,
            description: rule.description.clone(),
        })
    }

    fn plan(&mut self, query: &Query, source: &SqlStatement) -> Result<LogicalPlan, Diagnostic> {
        let plan = futures::executor::block_on(plan(&self.session, query.clone()))
            .map_err(|e| planning_diagnostic(source, &e))?;
        if is_meant_for_flink(source) {
            self.warnings
                .extend(lint::of_plan(&plan, &source.sql).into_iter().map(|refusal| refusal.diagnostic(source)));
        }
        Ok(plan)
    }

    fn keep(&mut self, wanted: &Wanted<'_>) -> Result<(), Diagnostic> {
        let source = wanted.source;
        let failed = |e: DataFusionError| planning_diagnostic(source, &e);
        let plan = self.plan(wanted.query, source)?;
        let optimised = subqueries::optimised(&self.session.state(), &plan).map_err(failed)?;
        self.note_reads(&optimised).map_err(failed)?;
        let schema: SchemaRef = Arc::new(plain(optimised.schema().as_arrow()));
        unique_columns(&schema, source)?;
        let key = match &wanted.options.key {
            Some(names) => named_columns(&schema, names, source)?,
            None => natural_key(&optimised),
        };
        let is_key_proven = is_key(&optimised, &key);
        let policy = policy_of(&wanted.options);
        let root = self.graph.add_view(wanted.name, &optimised, policy).map_err(failed)?.map_err(|why| {
            let help = "group by window_end, or by another column that is made of the event time";
            source.diagnostic(format!("EMIT ON WINDOW CLOSE: {why}")).with_help(help)
        })?;
        if wanted.kind == ViewKind::View {
            register(&self.session, wanted.name, &schema, &key);
        }
        let reasons = self.graph.recompute_reasons(root, wanted.name);
        let maintenance = match reasons.is_empty() {
            true => "incremental".to_owned(),
            false => format!("recompute: {}", reasons.join("; ")),
        };
        let topic = match wanted.kind {
            ViewKind::View => topics::view(wanted.name),
            ViewKind::Rule => topics::rule(wanted.name),
        };
        let info = ViewInfo {
            name: wanted.name.to_owned(),
            kind: wanted.kind,
            topic,
            columns: schema.fields().iter().map(|f| view_column(f)).collect(),
            key: key.iter().map(|i| schema.field(*i).name().clone()).collect(),
            description: wanted.description.clone(),
            sql: source.sql.clone(),
            empty_inputs: self.empty_inputs(wanted.query),
            maintenance,
        };
        self.views.push(KeptView { info, root, schema, key, is_key_proven });
        self.keep_late_rows(wanted, root).map_err(failed)
    }

    /// Keeps the rows that come too late for a view or rule as `<view>__late`.
    fn keep_late_rows(&mut self, wanted: &Wanted<'_>, root: NodeId) -> Result<(), DataFusionError> {
        let Some(LateRelation { node, schema, sources }) = self.graph.late_rows(wanted.name, root)? else {
            return Ok(());
        };
        for (source, n_columns) in sources {
            // It shows the rows as they came, so they must be decoded whole.
            self.reads.entry(source.to_string()).or_default().extend(0..n_columns);
        }
        let name = late_name(wanted.name);
        let key = vec![schema.fields().len() - 1];
        self.graph.name_node(&name, node);
        register(&self.session, &name, &schema, &key);
        let info = ViewInfo {
            topic: topics::view(&name),
            kind: ViewKind::View,
            columns: schema.fields().iter().map(|f| view_column(f)).collect(),
            key: key.iter().map(|i| schema.field(*i).name().clone()).collect(),
            description: Some(format!("Rows that came too late for {}.", wanted.name)),
            sql: wanted.source.sql.clone(),
            empty_inputs: Vec::new(),
            maintenance: "incremental".to_owned(),
            name,
        };
        self.views.push(KeptView { info, root: node, schema, key, is_key_proven: false });
        Ok(())
    }

    /// Notes which columns of which relations a kept view's plan scans.
    fn note_reads(&mut self, plan: &LogicalPlan) -> Result<(), DataFusionError> {
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                let all = || (0..scan.source.schema().fields().len()).collect();
                let columns: Vec<usize> = scan.projection.clone().unwrap_or_else(all);
                self.reads.entry(scan.table_name.table().to_owned()).or_default().extend(columns);
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(())
    }

    /// Relations below a query that are marked `EMPTY:` by the source pack.
    fn empty_inputs(&self, query: &Query) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let mut stack: Vec<String> = relation_names(query).into_iter().collect();
        let mut empty = BTreeSet::new();
        while let Some(name) = stack.pop() {
            let Some(view) = self.statements.get(&name) else { continue };
            if !seen.insert(name.clone()) {
                continue;
            }
            if view.source.comment.lines().any(|l| l.trim_start().starts_with("EMPTY:")) {
                empty.insert(name);
            }
            stack.extend(view.relations.iter().cloned());
        }
        empty.into_iter().collect()
    }

    fn finish(mut self, tables: &[SourceTable]) -> Program {
        self.graph.forget_plans();
        let mut warnings = self.warnings;
        warnings.sort_by(|a, b| (&a.path, a.line, a.column, &a.message).cmp(&(&b.path, b.line, b.column, &b.message)));
        warnings.dedup();
        Program {
            lineage: Lineage::new(&self.graph, tables),
            graph: self.graph,
            views: self.views,
            reads: self.reads,
            time: self.time,
            tables: tables.to_vec(),
            statements: self.statements.into_iter().collect(),
            declared: self.declared,
            warnings,
        }
    }
}

/// A name taken as it is: names with upper case letters or hyphens were quoted where they were declared.
pub(crate) fn table_ref(name: &str) -> datafusion::common::TableReference {
    datafusion::common::TableReference::bare(name.to_owned())
}

/// A relation that can be planned over; its rows are elsewhere.
fn register(session: &SessionContext, name: &str, schema: &SchemaRef, key: &[usize]) {
    let table = MemTable::try_new(Arc::clone(schema), vec![vec![]]).map(|table| {
        let constraints = match key.is_empty() || key.len() == schema.fields().len() {
            true => Constraints::default(),
            false => Constraints::new_unverified(vec![Constraint::PrimaryKey(key.to_vec())]),
        };
        Arc::new(table.with_constraints(constraints)) as Arc<dyn TableProvider>
    });
    // Neither step can fail: the table is empty and the default catalog takes every name.
    if let Ok(table) = table
        && let Err(error) = session.register_table(table_ref(name), table)
    {
        tracing::error!(name, %error, "relation cannot be registered");
    }
}

fn plain(schema: &Schema) -> Schema {
    let fields: Vec<_> = schema
        .fields()
        .iter()
        .map(|f| arrow::datatypes::Field::new(f.name(), f.data_type().clone(), f.is_nullable()))
        .collect();
    Schema::new(fields)
}

fn view_column(field: &arrow::datatypes::Field) -> ViewColumn {
    ViewColumn {
        name: field.name().clone(),
        data_type: DataType::to_string(field.data_type()),
        nullable: field.is_nullable(),
    }
}

fn unique_columns(schema: &Schema, source: &SqlStatement) -> Result<(), Diagnostic> {
    let mut seen = BTreeSet::new();
    for field in schema.fields() {
        if !seen.insert(field.name()) {
            return Err(source
                .diagnostic(format!("two columns are named {}", field.name()))
                .with_help("give one of them another name with AS"));
        }
    }
    Ok(())
}

fn named_columns(schema: &Schema, names: &[String], source: &SqlStatement) -> Result<Vec<usize>, Diagnostic> {
    names
        .iter()
        .map(|name| {
            schema.index_of(name).map_err(|_| {
                let columns: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
                source
                    .diagnostic(format!("key column {name} is not in the result"))
                    .with_help(format!("the columns are {}", columns.join(", ")))
            })
        })
        .collect()
}

/// How a view's windows close, by what it says of itself.
fn policy_of(options: &ViewOptions) -> Policy {
    Policy {
        close_changing: options.emit_on_window_close || options.allowed_lateness_us.is_some(),
        lateness_us: options.allowed_lateness_us.unwrap_or(0),
        emit_on_close: options.emit_on_window_close,
    }
}

fn is_meant_for_flink(source: &SqlStatement) -> bool {
    !source.comment.lines().any(|l| l.trim_start().starts_with("NOT PORTABLE:"))
}

fn first_paragraph(comment: &str) -> Option<String> {
    let lines: Vec<&str> = comment.lines().take_while(|l| !l.trim().is_empty()).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}
