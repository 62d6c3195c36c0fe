//! Read-only SQL over the kept views, for callers who are not trusted.
//!
//! A query sees the views that its caller may read, each with the caller's row rules applied before anything else. It
//! runs on threads of its own, so that it never delays live connections, under limits of time, memory, rows read
//! and rows given. There is no file, no catalog and no function that reaches outside; a query that is no longer wanted
//! is dropped at its next batch.
//!
//! [`query`] refuses by the text what planning alone could not survive; [`size`] refuses by the plan what no limit on memory
//! would see; [`counted`] has that limit see what windows hold.

mod counted;
mod query;
mod size;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DataFusionError, TableReference};
use datafusion::datasource::MemTable;
use datafusion::execution::config::SessionConfig;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::{SQLOptions, SessionContext};
use datafusion::sql::parser::Statement;
use futures::StreamExt;
use model::ViewInfo;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::AbortOnDropHandle;

use crate::auth::rows::RowFilter;
use crate::config::SqlConfig;
use crate::functions::restricted_context_with;
use crate::table::{self, Batches};

pub(crate) use query::{ParsedQuery, parse};

/// Rows in one batch of a query: small, so that expressions cannot make much of one.
const BATCH_ROWS: usize = 1_024;
/// Stack of a thread that plans or runs queries: deep expressions take it.
const STACK_BYTES: usize = 16 << 20;

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
            .thread_stack_size(STACK_BYTES)
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
            let permit = Arc::new(permit);
            execute(query, tables, &config, Arc::clone(&permit)).await
        }));
        match tokio::time::timeout(Duration::from_secs(self.config.seconds.into()), running).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => Err(QueryError::Internal(error.to_string())),
            Err(_) => Err(QueryError::TooSlow(self.config.seconds)),
        }
    }
}

async fn execute(
    query: ParsedQuery,
    tables: Vec<QueryTable>,
    config: &SqlConfig,
    permit: Arc<QueryPermit>,
) -> Result<QueryResult, QueryError> {
    let context = context(config)?;
    let mut row_bytes = 0_usize;
    for table in tables {
        let name = table.info.name.clone();
        row_bytes = row_bytes.saturating_add(table.rows.iter().map(Bytes::len).max().unwrap_or(0));
        let table = mem_table(table).await?;
        context.register_table(TableReference::bare(name), table).map_err(|error| sorted(&error))?;
    }
    // Planning is work without a pause; it gets a thread of its own, and keeps its place until it is through.
    let (session, memory_bytes, runtime) = (context.clone(), config.memory_bytes, Handle::current());
    let planning = move || {
        let _permit = permit;
        runtime.block_on(plan(&session, query.statement, row_bytes, memory_bytes))
    };
    let plan =
        tokio::task::spawn_blocking(planning).await.map_err(|error| QueryError::Internal(error.to_string()))??;
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

/// Checks a statement before anything of it is computed, and plans it.
async fn plan(
    context: &SessionContext,
    statement: Statement,
    row_bytes: usize,
    memory_bytes: usize,
) -> Result<Arc<dyn ExecutionPlan>, QueryError> {
    let state = context.state();
    let plan = state.statement_to_plan(statement).await.map_err(|error| sorted(&error))?;
    let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    size::check(&plan, row_bytes, memory_bytes / BATCH_ROWS)?;
    options.verify_plan(&plan).map_err(|_| QueryError::NotSelect)?;
    let plan = state.create_physical_plan(&plan).await.map_err(|error| sorted(&error))?;
    yielding(plan).map_err(|error| sorted(&error))
}

/// Every operator gives way after some batches. By itself only a scan does, and a join can make of two batches of input
/// more than a life is long: a query that is dropped would go on.
fn yielding(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let wrap = |node| {
        let node = counted::counted(node)?;
        Ok(Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>))
    };
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
mod tests;
