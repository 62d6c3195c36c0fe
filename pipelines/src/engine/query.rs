//! Queries over what the engine keeps.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::view::ViewTable;
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;
use model::SqlStatement;

use super::Engine;
use crate::error::{Error, OpResult};
use crate::program::{new_session, plan, table_ref};
use crate::sql::places::planning_diagnostic;
use crate::sql::recursion::bounded;
use crate::sql::subqueries;
use crate::sql::{StatementKind, parse_query, relation_names};

impl Engine {
    /// Runs a query over the kept views and all relations below them. `table_rows` gives the rows of a source table
    /// (see [`model::EpochSource::table_rows`]).
    ///
    /// # Errors
    /// [`Error::Query`] with DataFusion's message.
    pub async fn query(
        &mut self,
        sql: &str,
        table_rows: &(dyn Fn(&str) -> Option<RecordBatch> + Sync),
    ) -> Result<(SchemaRef, Vec<RecordBatch>), Error> {
        if let Some(text) = self.explained(sql) {
            let schema = Arc::new(Schema::new(vec![Field::new("plan", DataType::Utf8, false)]));
            let lines: ArrayRef = Arc::new(text.lines().map(Some).collect::<StringArray>());
            let batch = RecordBatch::try_new(Arc::clone(&schema), vec![lines]).map_err(|e| Error::Query(e.into()))?;
            return Ok((schema, vec![batch]));
        }
        let statement =
            SqlStatement { path: "query".to_owned(), line: 1, column: 1, sql: sql.to_owned(), comment: String::new() };
        let (query, _) = parse_query(&statement, &self.program.declared)
            .map_err(|d| Error::Query(DataFusionError::Plan(d.to_string())))?;
        let session = new_session(&self.program.time);
        let run = async {
            let mut registered = BTreeSet::new();
            for name in relation_names(&query) {
                self.register(&session, &name, table_rows, &mut registered).await?;
            }
            let plan = plan(&session, query.clone())
                .await
                .map_err(|e| DataFusionError::Plan(planning_diagnostic(&statement, &e).to_string()))?;
            let schema: SchemaRef = Arc::new(plan.schema().as_arrow().clone());
            let plan = bounded(subqueries::runnable(&session.state(), plan)?)?;
            let batches = session.execute_logical_plan(plan).await?.collect().await?;
            Ok((schema, batches))
        };
        run.await.map_err(Error::Query)
    }

    /// The answer to `EXPLAIN view` and `EXPLAIN ANALYZE view`, where the view is a kept one.
    fn explained(&self, sql: &str) -> Option<String> {
        let words: Vec<&str> = sql.trim().trim_end_matches(';').split_whitespace().collect();
        let is = |word: &str, expected: &str| word.eq_ignore_ascii_case(expected);
        match words.as_slice() {
            [explain, view] if is(explain, "explain") => self.program.explain(&view.to_lowercase()),
            [explain, analyze, view] if is(explain, "explain") && is(analyze, "analyze") => {
                self.explain_analyze(&view.to_lowercase())
            }
            _ => None,
        }
    }

    /// Makes a relation and those below it known to a session.
    async fn register(
        &mut self,
        session: &SessionContext,
        name: &str,
        table_rows: &(dyn Fn(&str) -> Option<RecordBatch> + Sync),
        registered: &mut BTreeSet<String>,
    ) -> OpResult<()> {
        if !registered.insert(name.to_owned()) {
            return Ok(());
        }
        if let Some(at) = self.program.views.iter().position(|v| v.info.name == name) {
            if let Some(reason) = &self.failed[self.program.views[at].root] {
                return Err(DataFusionError::Execution(format!("view {name} has stopped: {reason}")));
            }
            return add_table(session, name, self.rows_of(at)?);
        }
        if let Some(table) = self.program.tables.iter().find(|t| *t.name == *name) {
            if table.is_append_only() && table_rows(name).is_none() {
                return Err(DataFusionError::Plan(format!(
                    "nothing is kept of the append-only table {name}: ask a materialized view over it"
                )));
            }
            let rows = table_rows(name).unwrap_or_else(|| RecordBatch::new_empty(Arc::clone(&table.schema)));
            return add_table(session, name, rows);
        }
        if let Some(view) = self.program.statements.get(name).filter(|v| v.kind == StatementKind::View).cloned() {
            for below in &view.relations {
                Box::pin(self.register(session, below, table_rows, registered)).await?;
            }
            let plan = plan(session, view.query.clone()).await?;
            session.register_table(table_ref(name), Arc::new(ViewTable::new(plan, None)))?;
        }
        Ok(())
    }
}

fn add_table(session: &SessionContext, name: &str, rows: RecordBatch) -> OpResult<()> {
    let table = MemTable::try_new(rows.schema(), vec![vec![rows]])?;
    session.register_table(table_ref(name), Arc::new(table))?;
    Ok(())
}
