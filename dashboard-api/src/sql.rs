//! Read-only SQL over the kept views, for callers who are not trusted.
//!
//! A query sees the views that its caller may read, each with the caller's row rules applied before anything else. It
//! runs on threads of its own, so that it never delays live connections, under limits of time, memory, rows read
//! and rows given. There is no file, no catalog and no function that reaches outside; a query that is no longer wanted
//! is dropped at its next batch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, TableReference};
use datafusion::datasource::MemTable;
use datafusion::execution::config::SessionConfig;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::{Expr, LogicalPlan, Operator};
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::{SQLOptions, SessionContext};
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::ast;
use futures::StreamExt;
use model::ViewInfo;
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::AbortOnDropHandle;

use crate::auth::rows::RowFilter;
use crate::config::SqlConfig;
use crate::functions::restricted_context_with;
use crate::table::{self, Batches};

/// Rows in one batch of a query: small, so that expressions cannot make much of one.
const BATCH_ROWS: usize = 1_024;
/// By so many powers of two may the texts and lists of a query grow: each concatenation doubles at worst.
const GROWTH_BITS_MAX: u32 = 12;
/// What a function whose result can be much larger than its input counts as.
const GROWTH_BITS_LARGE: u32 = 5;
/// Views that one query may read.
const TABLES_MAX: usize = 32;

/// Why a query has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueryError {
    /// It is not one SELECT, names what is not there, or does not fit together.
    #[error("{0}")]
    Query(String),
    /// It is not allowed: something else than a SELECT.
    #[error("only one SELECT is taken")]
    NotSelect,
    /// It would take more than it may, and of what.
    #[error("the query takes too much {0}")]
    TooLarge(&'static str),
    /// It ran too long.
    #[error("the query ran longer than {0} s")]
    TooSlow(u32),
    /// There are as many queries as are allowed.
    #[error("too many queries are running")]
    Busy,
    /// Our mistake.
    #[error("the query failed")]
    Internal(String),
}

/// A parsed SELECT and the views that it names.
pub(crate) struct ParsedQuery {
    statement: Statement,
    /// Names of views, each once.
    pub(crate) views: Vec<String>,
}

/// A view as a query sees it.
pub(crate) struct QueryTable {
    pub(crate) info: Arc<ViewInfo>,
    pub(crate) rows: Vec<Bytes>,
    /// Which of the rows the caller may see; all without a filter.
    pub(crate) filter: Option<RowFilter>,
}

/// What a query gives.
#[derive(Debug)]
pub(crate) struct QueryResult {
    pub(crate) schema: SchemaRef,
    pub(crate) batches: Vec<RecordBatch>,
    /// Whether there would be more rows.
    pub(crate) is_cut: bool,
}

/// Runs queries.
pub(crate) struct SqlEngine {
    config: SqlConfig,
    /// `None` once it is shut down.
    runtime: Option<Runtime>,
    permits: Arc<Semaphore>,
    by_user: Arc<Mutex<HashMap<String, usize>>>,
}

impl Drop for SqlEngine {
    /// Queries in progress are not waited for: nobody is there any more to read their results.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The right to run one query.
pub(crate) struct QueryPermit {
    _permit: OwnedSemaphorePermit,
    by_user: Arc<Mutex<HashMap<String, usize>>>,
    user: String,
}

impl Drop for QueryPermit {
    fn drop(&mut self) {
        let mut by_user = self.by_user.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n_running) = by_user.get_mut(&self.user) {
            *n_running -= 1;
            if *n_running == 0 {
                by_user.remove(&self.user);
            }
        }
    }
}

impl SqlEngine {
    /// # Errors
    /// If the threads cannot be started.
    pub(crate) fn new(config: &SqlConfig) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.threads)
            .thread_name("sql")
            .enable_time()
            .build()?;
        Ok(Self {
            permits: Arc::new(Semaphore::new(config.queries)),
            config: config.clone(),
            runtime: Some(runtime),
            by_user: Arc::default(),
        })
    }

    /// The right to run a query now.
    ///
    /// # Errors
    /// [`QueryError::Busy`].
    pub(crate) fn permit(&self, user: &str) -> Result<QueryPermit, QueryError> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| QueryError::Busy)?;
        let mut by_user = self.by_user.lock().unwrap_or_else(PoisonError::into_inner);
        let n_running = by_user.entry(user.to_owned()).or_default();
        if *n_running >= self.config.queries_per_user {
            return Err(QueryError::Busy);
        }
        *n_running += 1;
        Ok(QueryPermit { _permit: permit, by_user: Arc::clone(&self.by_user), user: user.to_owned() })
    }

    /// Runs a query over these tables. Dropping the future ends the query.
    ///
    /// # Errors
    /// Why there is no result.
    pub(crate) async fn run(
        &self,
        query: ParsedQuery,
        tables: Vec<QueryTable>,
        permit: QueryPermit,
    ) -> Result<QueryResult, QueryError> {
        let n_bytes: usize = tables.iter().flat_map(|table| &table.rows).map(Bytes::len).sum();
        if n_bytes > self.config.scan_bytes {
            return Err(QueryError::TooLarge("data: name fewer views, or those with fewer rows"));
        }
        let Some(runtime) = &self.runtime else { return Err(QueryError::Busy) };
        let config = self.config.clone();
        let running = AbortOnDropHandle::new(runtime.spawn(async move {
            let result = execute(query, tables, &config).await;
            drop(permit);
            result
        }));
        match tokio::time::timeout(Duration::from_secs(self.config.seconds.into()), running).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => Err(QueryError::Internal(error.to_string())),
            Err(_) => Err(QueryError::TooSlow(self.config.seconds)),
        }
    }
}

/// Parses a query and finds the views that it names.
///
/// # Errors
/// If it is not one SELECT.
pub(crate) fn parse(sql: &str) -> Result<ParsedQuery, QueryError> {
    let mut statements = DFParser::parse_sql(sql).map_err(|error| QueryError::Query(message(&error)))?;
    let Some(statement) = statements.pop_front().filter(|_| statements.is_empty()) else {
        return Err(QueryError::NotSelect);
    };
    match &statement {
        Statement::Statement(inner) if matches!(**inner, ast::Statement::Query(_)) => {}
        _ => return Err(QueryError::NotSelect),
    }
    let (references, _) =
        resolve_table_references(&statement, true).map_err(|error| QueryError::Query(message(&error)))?;
    let mut views = Vec::new();
    for reference in references {
        // Views are in no schema; what is (information_schema, for example) is not there.
        if reference.schema().is_some() {
            return Err(QueryError::Query(format!("there is no view `{reference}`")));
        }
        views.push(reference.table().to_owned());
    }
    if views.len() > TABLES_MAX {
        return Err(QueryError::TooLarge("views"));
    }
    Ok(ParsedQuery { statement, views })
}

async fn execute(query: ParsedQuery, tables: Vec<QueryTable>, config: &SqlConfig) -> Result<QueryResult, QueryError> {
    let context = context(config)?;
    for table in tables {
        let name = table.info.name.clone();
        let table = mem_table(table).await?;
        context.register_table(TableReference::bare(name), table).map_err(|error| sorted(&error))?;
    }
    let state = context.state();
    let plan = state.statement_to_plan(query.statement).await.map_err(|error| sorted(&error))?;
    let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    options.verify_plan(&plan).map_err(|_| QueryError::NotSelect)?;
    check_growth(&plan)?;
    let plan = state.create_physical_plan(&plan).await.map_err(|error| sorted(&error))?;
    let plan = yielding(plan).map_err(|error| sorted(&error))?;
    let mut stream = execute_stream(plan, context.task_ctx()).map_err(|error| sorted(&error))?;
    let schema = stream.schema();
    let (mut batches, mut n_rows, mut n_bytes) = (Vec::new(), 0, 0);
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(|error| sorted(&error))?;
        let left = config.rows - n_rows;
        if batch.num_rows() > left {
            batches.push(batch.slice(0, left));
            return Ok(QueryResult { schema, batches, is_cut: true });
        }
        n_rows += batch.num_rows();
        n_bytes += batch.get_array_memory_size();
        if n_bytes > config.memory_bytes {
            return Err(QueryError::TooLarge("memory for its result"));
        }
        batches.push(batch);
    }
    Ok(QueryResult { schema, batches, is_cut: false })
}

/// Every operator gives way after some batches. By itself only a scan does, and a join can make of two batches of input
/// more than a life is long: a query that is dropped would go on.
fn yielding(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let wrap = |node| Ok(Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>));
    plan.transform_up(wrap).map(|wrapped| wrapped.data)
}

fn context(config: &SqlConfig) -> Result<SessionContext, QueryError> {
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(config.memory_bytes)))
        // What does not fit into memory is refused rather than written to disk.
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .build_arc()
        .map_err(|error| sorted(&error))?;
    let mut session = SessionConfig::new().with_target_partitions(1).with_batch_size(BATCH_ROWS);
    // One that never ends would never yield either.
    session.options_mut().execution.enable_recursive_ctes = false;
    Ok(restricted_context_with(session, runtime))
}

/// The rows that the caller may see, as Arrow. Gives way between batches, so that a dropped query ends here too.
async fn mem_table(table: QueryTable) -> Result<Arc<MemTable>, QueryError> {
    let unreadable = |error: arrow::error::ArrowError| QueryError::Internal(error.to_string());
    let QueryTable { info, rows, filter } = table;
    let schema = table::schema(&info).map_err(unreadable)?;
    let mut decoder = Batches::new(&schema).map_err(unreadable)?;
    let mut batches = Vec::new();
    for rows in rows.chunks(table::BATCH_ROWS) {
        let rows: Vec<&[u8]> = rows.iter().map(|row| &row[..]).collect();
        let seen = filter.as_ref().map(|filter| filter.matches(&rows));
        for (row_idx, row) in rows.into_iter().enumerate() {
            if seen.as_ref().is_none_or(|seen| seen[row_idx]) {
                batches.extend(decoder.push(row).map_err(unreadable)?);
            }
        }
        tokio::task::yield_now().await;
    }
    batches.extend(decoder.finish().map_err(unreadable)?);
    Ok(Arc::new(MemTable::try_new(schema, vec![batches]).map_err(|error| sorted(&error))?))
}

/// Texts that double with every call would fill the memory unseen by any limit.
fn check_growth(plan: &LogicalPlan) -> Result<(), QueryError> {
    let mut bits = 0_u32;
    let outcome = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                bits = bits.saturating_add(growth_bits(expr));
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    outcome.map_err(|error| sorted(&error))?;
    if bits > GROWTH_BITS_MAX {
        return Err(QueryError::TooLarge("memory: it joins too many texts or lists"));
    }
    Ok(())
}

fn growth_bits(expr: &Expr) -> u32 {
    match expr {
        Expr::BinaryExpr(binary) if binary.op == Operator::StringConcat => 1,
        Expr::ScalarFunction(call) => match call.name() {
            "concat" | "concat_ws" | "array_concat" | "array_cat" | "list_concat" | "make_array" | "struct"
            | "named_struct" | "array_append" | "array_prepend" | "array_union" => {
                u32::try_from(call.args.len()).unwrap_or(u32::MAX).next_power_of_two().trailing_zeros()
            }
            "replace" | "regexp_replace" | "overlay" | "array_to_string" | "list_to_string" | "array_replace_all"
            | "list_replace_all" | "encode" | "to_char" => GROWTH_BITS_LARGE,
            _ => 0,
        },
        _ => 0,
    }
}

fn sorted(error: &DataFusionError) -> QueryError {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => QueryError::TooLarge("memory"),
        DataFusionError::Internal(_) | DataFusionError::IoError(_) | DataFusionError::External(_) => {
            QueryError::Internal(error.to_string())
        }
        _ => QueryError::Query(message(error)),
    }
}

/// The first line of what DataFusion says, without its help about catalogs.
fn message(error: &DataFusionError) -> String {
    let text = error.strip_backtrace();
    text.lines().next().unwrap_or("the query does not parse").chars().take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::view_info;
    use serde_json::Map;

    fn engine(config: &SqlConfig) -> SqlEngine {
        SqlEngine::new(config).expect("threads")
    }

    fn table(n_rows: usize, condition: Option<&str>) -> QueryTable {
        let info = Arc::new(view_info("v"));
        let filter = condition.map(|c| RowFilter::compile(&info, c, &Map::new()).expect("it fits"));
        let rows = (0..n_rows).map(|n| Bytes::from(format!(r#"{{"id":{n},"n":{}}}"#, n % 10))).collect();
        QueryTable { info, rows, filter }
    }

    async fn run(config: &SqlConfig, sql: &str, table: QueryTable) -> Result<QueryResult, QueryError> {
        let engine = engine(config);
        let permit = engine.permit("ann")?;
        engine.run(parse(sql)?, vec![table], permit).await
    }

    fn text(result: Result<QueryResult, QueryError>) -> String {
        match result {
            Ok(result) => {
                let text = arrow::util::pretty::pretty_format_batches(&result.batches).expect("text").to_string();
                let rows = text.lines().filter(|line| line.starts_with('|')).skip(1);
                rows.map(|row| row.replace(['|', ' '], "")).collect::<Vec<_>>().join(",")
            }
            Err(error) => format!("{error:?}"),
        }
    }

    #[tokio::test]
    async fn a_query_sees_only_the_rows_of_its_caller() {
        let config = SqlConfig::default();
        let check = async |sql: &str, condition| text(run(&config, sql, table(100, condition)).await);
        assert_eq!(check("SELECT count(*) FROM v", None).await, "100");
        assert_eq!(check("SELECT count(*) FROM v", Some("n = 3")).await, "10");
        assert_eq!(check("SELECT count(*) FROM v a JOIN v b ON a.id = b.id OR true", Some("id < 2")).await, "4");
        assert_eq!(check("SELECT max(id) FROM (SELECT * FROM v WHERE n <> 3 OR n = 3) x", Some("n = 3")).await, "93");
        assert_eq!(check("WITH v AS (SELECT * FROM v) SELECT count(*) FROM v", Some("n = 3")).await, "10");
        assert_eq!(check("SELECT (SELECT count(*) FROM v)", Some("n = 3")).await, "10");
    }

    #[test]
    fn only_one_select_is_taken() {
        for sql in [
            "",
            "DELETE FROM v",
            "INSERT INTO v VALUES (1, 2)",
            "CREATE TABLE t AS SELECT 1",
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
            "COPY (SELECT * FROM v) TO '/tmp/out.csv'",
            "EXPLAIN SELECT * FROM v",
            "SHOW TABLES",
            "SET datafusion.execution.batch_size = 1",
            "DROP TABLE v",
            "SELECT 1; SELECT 2",
            "SELECT * FROM information_schema.tables",
            "SELECT * FROM public.v",
            "SELECT * FROM '/etc/passwd'.x",
        ] {
            assert!(parse(sql).is_err(), "{sql}");
        }
        assert_eq!(parse("SELECT * FROM '/etc/passwd'").expect("a name like another").views, ["/etc/passwd"]);
    }

    #[tokio::test]
    async fn a_query_that_takes_too_much_is_refused() {
        let config =
            SqlConfig { memory_bytes: 1 << 20, seconds: 1, rows: 5, scan_bytes: 100_000, ..SqlConfig::default() };
        let result = run(&config, "SELECT id FROM v ORDER BY id", table(100, None)).await.expect("it runs");
        assert!(result.is_cut);
        assert_eq!(text(Ok(result)), "0,1,2,3,4");
        let check = async |sql: &str| run(&config, sql, table(2_000, None)).await.expect_err(sql);
        let endless = "SELECT sum(a.id * b.id * c.id) FROM v a, v b, v c, v d WHERE a.n < 20";
        assert!(matches!(check(endless).await, QueryError::TooSlow(1)));
        let large = "SELECT array_agg(a.id) FROM v a, v b GROUP BY b.id";
        assert!(matches!(check(large).await, QueryError::TooLarge(_) | QueryError::TooSlow(_)));
        assert!(matches!(run(&config, "SELECT 1 FROM v", table(10_000, None)).await, Err(QueryError::TooLarge(_))));
        for sql in [
            "SELECT repeat('x', 1000000000)",
            "SELECT lpad('x', 1000000000)",
            "SELECT array_repeat(1, 1000000000)",
            "SELECT * FROM generate_series(1, 1000000000000)",
            "SELECT * FROM range(1000000000000)",
            "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t",
            "SELECT version()",
        ] {
            let outcome = match parse(sql) {
                Ok(query) if query.views.is_empty() || query.views == ["t"] => run(&config, sql, table(1, None)).await,
                Ok(_) => continue,
                Err(error) => Err(error),
            };
            assert!(outcome.is_err(), "{sql}");
        }
        let doubled = (0..40).fold("'xxxxxxxxxxxxxxxx'".to_owned(), |text, _| format!("replace({text}, 'x', 'xxxx')"));
        assert!(matches!(check(&format!("SELECT {doubled}")).await, QueryError::TooLarge(_)));
        let ctes: String = (1..40).map(|n| format!(", t{n} AS (SELECT s || s AS s FROM t{})", n - 1)).collect();
        let doubled = format!("WITH t0 AS (SELECT 'x' AS s){ctes} SELECT length(s) FROM t39");
        assert!(matches!(check(&doubled).await, QueryError::TooLarge(_)));
    }

    #[tokio::test]
    async fn queries_at_a_time_are_bounded_in_all_and_by_user() {
        let engine = engine(&SqlConfig { queries: 3, queries_per_user: 2, ..SqlConfig::default() });
        let first = engine.permit("ann");
        let second = engine.permit("ann");
        assert!(first.is_ok() && second.is_ok());
        assert!(matches!(engine.permit("ann"), Err(QueryError::Busy)));
        let other = engine.permit("bob");
        assert!(other.is_ok());
        assert!(matches!(engine.permit("cid"), Err(QueryError::Busy)));
        drop(first);
        assert!(engine.permit("ann").is_ok());
    }

    #[tokio::test]
    async fn a_dropped_query_ends() {
        let config = SqlConfig { seconds: 60, ..SqlConfig::default() };
        let engine = engine(&config);
        let permit = engine.permit("ann").expect("free");
        let endless = parse("SELECT sum(a.id * b.id * c.id) FROM v a, v b, v c, v d WHERE a.n < 20").expect("a query");
        let running = engine.run(endless, vec![table(2_000, None)], permit);
        assert!(tokio::time::timeout(Duration::from_millis(300), running).await.is_err(), "it runs");
        tokio::time::timeout(Duration::from_secs(20), async {
            while engine.permits.available_permits() < config.queries {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("its place is given back");
    }
}
