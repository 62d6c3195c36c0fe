//! The engine as a database: statements on source tables become epochs, queries read the kept views.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, Int64Array, RecordBatch};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::TableReference;
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::sqlparser::ast::{AssignmentTarget, Delete, FromTable, Insert, Statement, TableObject, Update};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use model::clock::ManualClock;
use model::{Delta, SourceEpoch, SourceTable, SqlFile, TableDelta};
use pipelines::{Engine, Program, StepMode};
use sqllogictest::{DB, DBOutput, DefaultColumnType};

use crate::world::NOW_US;

/// How the changes of a statement reach the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Changes {
    /// In one epoch.
    Together,
    /// Every row in an epoch of its own.
    RowByRow,
    /// Made, taken back, and made again.
    Again,
}

/// What a statement was refused with.
#[derive(Debug)]
pub(crate) struct Refused(String);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // On one line, as the files have it.
        f.write_str(&self.0.split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

impl std::error::Error for Refused {}

fn refused(error: impl std::fmt::Display) -> Refused {
    Refused(error.to_string())
}

type Output = DBOutput<DefaultColumnType>;

pub(crate) struct Database {
    changes: Changes,
    clock: ManualClock,
    tables: Vec<SourceTable>,
    rows: BTreeMap<String, RecordBatch>,
    views: Vec<SqlFile>,
    engine: Option<Engine>,
    runtime: tokio::runtime::Runtime,
}

impl Database {
    pub(crate) fn new(changes: Changes) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let clock = ManualClock::at(NOW_US);
        Self { changes, clock, tables: vec![], rows: BTreeMap::new(), views: vec![], engine: None, runtime }
    }

    fn load(&self, views: &[SqlFile]) -> Result<Program, Refused> {
        Program::load(&self.tables, views, &[])
            .map_err(|all| Refused(all.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))
    }

    /// The engine over all views; a new one is fed with the tables as they stand.
    fn engine(&mut self) -> Result<&mut Engine, Refused> {
        if self.engine.is_none() {
            let program = self.load(&self.views)?;
            let mut engine = Engine::new(program, Arc::new(self.clock.clone())).map_err(refused)?;
            let mut epoch = SourceEpoch::default();
            for (name, rows) in &self.rows {
                let delta = Delta::inserts(rows.clone());
                epoch.tables.push(TableDelta { table: Arc::from(name.as_str()), delta, positions: Vec::new() });
            }
            engine.step(&epoch, StepMode::Flush);
            self.engine = Some(engine);
        }
        Ok(self.engine.as_mut().expect("made above"))
    }

    fn create_table(&mut self, sql: &str) -> Result<(), Refused> {
        let mut text = sql.to_owned();
        if !sql.to_uppercase().contains("'CONNECTOR'") {
            text.push_str(" WITH ('connector' = 'kafka', 'topic' = 't', 'format' = 'json')");
        }
        let file = SqlFile { path: "t.sql".to_owned(), text };
        self.views.extend(ingest::ddl::computed_views(std::slice::from_ref(&file)));
        let tables = ingest::ddl::parse_tables(&[file])
            .map_err(|all| Refused(all.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))?;
        for table in tables {
            self.rows.insert(table.name.to_string(), RecordBatch::new_empty(Arc::clone(&table.schema)));
            self.tables.push(table);
        }
        self.engine = None;
        Ok(())
    }

    fn create_view(&mut self, sql: &str) -> Result<(), Refused> {
        let mut views = self.views.clone();
        views.push(SqlFile { path: "v.sql".to_owned(), text: sql.to_owned() });
        self.load(&views)?;
        self.views = views;
        self.engine = None;
        Ok(())
    }

    /// Runs plain SQL over the source tables, the result in the columns of `table`.
    fn rows_of(&self, sql: &str, table: &SourceTable) -> Result<RecordBatch, Refused> {
        let mut config = SessionConfig::new().with_target_partitions(1);
        config.options_mut().sql_parser.map_string_types_to_utf8view = false;
        let session = SessionContext::new_with_config(config);
        for (name, rows) in &self.rows {
            let provider = MemTable::try_new(rows.schema(), vec![vec![rows.clone()]]).map_err(refused)?;
            session.register_table(TableReference::bare(name.as_str()), Arc::new(provider)).map_err(refused)?;
        }
        let run = async { session.sql(sql).await?.collect().await };
        let batches = self.runtime.block_on(run).map_err(refused)?;
        let mut columns = Vec::new();
        for (i, field) in table.schema.fields().iter().enumerate() {
            let parts = batches
                .iter()
                .map(|b| arrow::compute::cast(b.column(i), field.data_type()))
                .collect::<Result<Vec<_>, _>>()
                .map_err(refused)?;
            let refs: Vec<&dyn Array> = parts.iter().map(|p| &**p).collect();
            columns.push(match refs.is_empty() {
                true => arrow::array::new_empty_array(field.data_type()),
                false => arrow::compute::concat(&refs).map_err(refused)?,
            });
        }
        RecordBatch::try_new(Arc::clone(&table.schema), columns).map_err(refused)
    }

    fn table(&self, name: &str) -> Result<SourceTable, Refused> {
        let is_it = |t: &&SourceTable| {
            let declared = t.name.strip_suffix("__physical").unwrap_or(&t.name);
            declared.eq_ignore_ascii_case(name)
        };
        let found = self.tables.iter().find(is_it);
        found.cloned().ok_or_else(|| Refused(format!("no source table {name}")))
    }

    fn change(&mut self, table: &SourceTable, old: &RecordBatch, new: &RecordBatch) -> Result<u64, Refused> {
        let rows = arrow::compute::concat_batches(&table.schema, [old, new]).map_err(refused)?;
        let weights: Vec<i64> =
            std::iter::repeat_n(-1, old.num_rows()).chain(std::iter::repeat_n(1, new.num_rows())).collect();
        let kept = self.without(table, old)?;
        let kept = arrow::compute::concat_batches(&table.schema, [&kept, new]).map_err(refused)?;
        self.engine()?;
        self.rows.insert(table.name.to_string(), kept);
        let epoch = |rows: RecordBatch, weights: Vec<i64>| {
            let delta = Delta::new(rows, Int64Array::from(weights));
            let tables = vec![TableDelta { table: Arc::clone(&table.name), delta, positions: Vec::new() }];
            SourceEpoch { tables, ..SourceEpoch::default() }
        };
        let changes = self.changes;
        let engine = self.engine()?;
        match changes {
            Changes::Together => {
                engine.step(&epoch(rows, weights), StepMode::Normal);
            }
            Changes::RowByRow => {
                for (i, weight) in weights.into_iter().enumerate() {
                    engine.step(&epoch(rows.slice(i, 1), vec![weight]), StepMode::Normal);
                }
            }
            Changes::Again => {
                let back = weights.iter().map(|w| -w).collect();
                engine.step(&epoch(rows.clone(), weights.clone()), StepMode::Flush);
                engine.step(&epoch(rows.clone(), back), StepMode::Normal);
                engine.step(&epoch(rows, weights), StepMode::Normal);
            }
        }
        Ok((old.num_rows().max(new.num_rows())) as u64)
    }

    /// The table's rows without `gone`, one for one.
    fn without(&self, table: &SourceTable, gone: &RecordBatch) -> Result<RecordBatch, Refused> {
        let mut gone = lines(gone);
        let rows = &self.rows[&*table.name];
        let keep: Vec<bool> = lines(rows)
            .into_iter()
            .map(|line| match gone.iter().position(|g| *g == line) {
                Some(at) => {
                    gone.swap_remove(at);
                    false
                }
                None => true,
            })
            .collect();
        arrow::compute::filter_record_batch(rows, &keep.into()).map_err(refused)
    }

    fn insert(&mut self, insert: &Insert) -> Result<u64, Refused> {
        let TableObject::TableName(name) = &insert.table else { return Err(Refused("INSERT INTO name".into())) };
        let table = self.table(&name.to_string())?;
        let source = insert.source.as_ref().ok_or_else(|| Refused("INSERT wants VALUES".into()))?;
        let given: Vec<String> = insert.columns.iter().map(|c| c.to_string().to_lowercase()).collect();
        let columns: Vec<String> = table
            .schema
            .fields()
            .iter()
            .enumerate()
            .map(|(i, field)| match given.iter().position(|g| g == field.name()) {
                Some(at) => format!("column{}", at + 1),
                None if given.is_empty() => format!("column{}", i + 1),
                None => "NULL".to_owned(),
            })
            .collect();
        let new = self.rows_of(&format!("SELECT {} FROM ({source})", columns.join(", ")), &table)?;
        let nothing = RecordBatch::new_empty(Arc::clone(&table.schema));
        self.change(&table, &nothing, &new)
    }

    fn update(&mut self, update: &Update) -> Result<u64, Refused> {
        let table = self.table(&update.table.to_string())?;
        let filter = update.selection.as_ref().map(|s| format!(" WHERE {s}")).unwrap_or_default();
        let columns: Vec<String> = table
            .schema
            .fields()
            .iter()
            .map(|field| {
                let set = update.assignments.iter().find(|a| {
                    matches!(&a.target, AssignmentTarget::ColumnName(n) if n.to_string().eq_ignore_ascii_case(field.name()))
                });
                set.map_or_else(|| format!("\"{}\"", field.name()), |a| a.value.to_string())
            })
            .collect();
        let old = self.rows_of(&format!("SELECT * FROM \"{}\"{filter}", table.name), &table)?;
        let new = self.rows_of(&format!("SELECT {} FROM \"{}\"{filter}", columns.join(", "), table.name), &table)?;
        self.change(&table, &old, &new)
    }

    fn delete(&mut self, delete: &Delete) -> Result<u64, Refused> {
        let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
        let name = from.first().map(ToString::to_string).unwrap_or_default();
        let table = self.table(&name)?;
        let filter = delete.selection.as_ref().map(|s| format!(" WHERE {s}")).unwrap_or_default();
        let old = self.rows_of(&format!("SELECT * FROM \"{}\"{filter}", table.name), &table)?;
        let nothing = RecordBatch::new_empty(Arc::clone(&table.schema));
        self.change(&table, &old, &nothing)
    }

    fn set_now(&mut self, sql: &str) -> Result<(), Refused> {
        let text = sql.split('\'').nth(1).ok_or_else(|| Refused("SET now = '2025-01-01 00:00:00'".into()))?;
        let time = chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").map_err(refused)?;
        self.clock.set(time.and_utc().timestamp_micros());
        Ok(())
    }

    fn query(&mut self, sql: &str) -> Result<Output, Refused> {
        self.engine()?.step(&SourceEpoch::default(), StepMode::Flush);
        let rows = self.rows.clone();
        let engine = self.engine.as_mut().expect("made above");
        if let Some((view, reason)) = engine.failures().first() {
            return Err(Refused(format!("view {view} has stopped: {reason}")));
        }
        let table_rows = |name: &str| rows.get(name).cloned();
        let (schema, batches) = self
            .runtime
            .block_on(engine.query(sql, &table_rows))
            .map_err(|e| Refused(std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string)))?;
        let rows = batches.iter().flat_map(cells).collect();
        Ok(DBOutput::Rows { types: vec![DefaultColumnType::Any; schema.fields().len()], rows })
    }

    fn explain(&mut self, view: &str) -> Result<Output, Refused> {
        let text = self.load(&self.views)?.explain(view).ok_or_else(|| Refused(format!("no kept view {view}")))?;
        let rows = text.lines().map(|line| vec![line.to_owned()]).collect();
        Ok(DBOutput::Rows { types: vec![DefaultColumnType::Text], rows })
    }
}

/// The rows of a batch as texts.
fn cells(batch: &RecordBatch) -> Vec<Vec<String>> {
    let options = FormatOptions::default().with_null("NULL");
    let columns: Vec<ArrayFormatter<'_>> =
        batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).expect("printable")).collect();
    let cell = |c: &ArrayFormatter<'_>, row| match c.value(row).to_string() {
        text if text.is_empty() => "(empty)".to_owned(),
        text => text,
    };
    (0..batch.num_rows()).map(|row| columns.iter().map(|c| cell(c, row)).collect()).collect()
}

fn lines(batch: &RecordBatch) -> Vec<String> {
    cells(batch).into_iter().map(|row| row.join("\u{1}")).collect()
}

impl DB for Database {
    type Error = Refused;
    type ColumnType = DefaultColumnType;

    /// On a thread of its own: the engine waits for futures, and the caller is one.
    fn run(&mut self, sql: &str) -> Result<Output, Refused> {
        std::thread::scope(|scope| scope.spawn(|| self.execute(sql)).join())
            .unwrap_or_else(|_| Err(Refused(format!("a panic in {sql}"))))
    }
}

impl Database {
    fn execute(&mut self, sql: &str) -> Result<Output, Refused> {
        let words: Vec<String> = sql.split_whitespace().take(3).map(str::to_uppercase).collect();
        let done = |()| DBOutput::StatementComplete(0);
        match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["CREATE", "TABLE", ..] => return self.create_table(sql).map(done),
            ["CREATE", ..] => return self.create_view(sql).map(done),
            ["SET", "NOW", ..] => return self.set_now(sql).map(done),
            ["EXPLAIN", ..] => return self.explain(sql.split_whitespace().nth(1).unwrap_or_default()),
            ["INSERT" | "UPDATE" | "DELETE", ..] => {}
            _ => return self.query(sql),
        }
        let mut parsed = Parser::parse_sql(&GenericDialect {}, sql).map_err(refused)?;
        let n_rows = match parsed.remove(0) {
            Statement::Insert(insert) => self.insert(&insert)?,
            Statement::Update(update) => self.update(&update)?,
            Statement::Delete(delete) => self.delete(&delete)?,
            other => return Err(Refused(format!("{other} is no statement of these files"))),
        };
        Ok(DBOutput::StatementComplete(n_rows))
    }
}
