//! `POST /api/v1/sql`: one SELECT over the kept views, as JSON rows, columns or an Arrow stream.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json::WriterBuilder;
use arrow::json::writer::JsonArray;
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use metrics::{counter, histogram};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::auth::rows::RowFilter;
use crate::auth::{Action, Resource};
use crate::problem::Problem;
use crate::rest::guard::Caller;
use crate::rest::require_loaded;
use crate::rest::views::{ARROW_STREAM, accepts, hidden_rows};
use crate::sql::{self, QueryError, QueryResult, QueryTable};
use crate::state::AppState;

/// Says whether there would be more rows.
const TRUNCATED_HEADER: HeaderName = HeaderName::from_static("x-andon-truncated");

/// A query.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SqlRequest {
    /// One SELECT; tables are the views that the caller may read, by name.
    query: String,
}

/// Where a view stood when the query read it.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ReadView {
    view: String,
    epoch: u64,
    as_of_ms: i64,
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ResultColumn {
    name: String,
    /// Arrow type in its text form.
    #[serde(rename = "type")]
    data_type: String,
}

/// A result.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct SqlAnswer {
    columns: Vec<ResultColumn>,
    /// One object for each row; decimals are texts.
    #[schema(value_type = Vec<Object>)]
    rows: Box<RawValue>,
    /// Whether there would be more rows.
    truncated: bool,
    views: Vec<ReadView>,
}

/// One SELECT over the views that the caller may read, with the caller's rows only.
#[utoipa::path(post, path = "/api/v1/sql", tag = "views", request_body = SqlRequest, responses(
    (status = 200, body = SqlAnswer, description = "with `Accept: application/vnd.apache.arrow.stream` an Arrow stream"),
    (status = 400, description = "not one SELECT, or it does not fit the views"),
    (status = 408, description = "it ran too long"), (status = 413, description = "it takes too much"),
    (status = 429, description = "too many queries are running")))]
pub(crate) async fn run(
    State(state): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    body: Result<Json<SqlRequest>, JsonRejection>,
) -> Result<Response, Problem> {
    if !state.config().sql.enabled {
        return Err(Problem::not_found("SQL is switched off", "ask the operator to set api.sql.enabled = true"));
    }
    require_loaded(&state)?;
    let Json(request) = body.map_err(|rejection| Problem::body(&rejection))?;
    let length_max = state.config().sql.query_bytes;
    if request.query.len() > length_max {
        let title = format!("the query has more than {length_max} bytes");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "query", title, "ask a shorter one"));
    }
    let started = std::time::Instant::now();
    let outcome = answer(&state, &caller, &request.query, accepts(&headers, ARROW_STREAM)).await;
    let label = if outcome.is_ok() { "ok" } else { "refused" };
    counter!("api_sql_queries_total", "outcome" => label).increment(1);
    histogram!("api_sql_query_seconds").record(started.elapsed().as_secs_f64());
    outcome
}

async fn answer(state: &AppState, caller: &Caller, query: &str, as_arrow: bool) -> Result<Response, Problem> {
    // Before anything costs: a slot.
    let permit = state.sql().permit(&caller.principal.user).map_err(problem)?;
    let query = sql::parse(query).map_err(problem)?;
    let (mut tables, mut views) = (Vec::new(), Vec::new());
    for name in &query.views {
        let rule = caller.check(state, Action::Read, Resource::View(name))?;
        let channel = state.hub().view(name).ok_or_else(|| {
            Problem::bad_request(format!("there is no view `{name}`"), "see /api/v1/views for the views there are")
        })?;
        let read = channel.read(|view, _, _| {
            let rows: Vec<Bytes> = view.rows_after(None).map(|(_, row)| row.clone()).collect();
            Some((view.info.clone()?, rows, view.epoch, view.as_of_ms))
        });
        let Some((info, rows, epoch, as_of_ms)) = read else { continue };
        let filter = rule.map(|rule| RowFilter::of_rule(&info, &rule)).transpose();
        let filter = filter.map_err(|error| hidden_rows(name, &error))?;
        views.push(ReadView { view: name.clone(), epoch, as_of_ms });
        tables.push(QueryTable { info, rows, filter });
    }
    let result = state.sql().run(query, tables, permit).await.map_err(problem)?;
    let truncated = if result.is_cut { "true" } else { "false" };
    let headers = [(TRUNCATED_HEADER, truncated), (header::CACHE_CONTROL, "no-store")];
    if as_arrow {
        let body = arrow(&result).map_err(|error| Problem::internal(&error))?;
        return Ok((headers, [(header::CONTENT_TYPE, ARROW_STREAM)], body).into_response());
    }
    let body = json(&result, views).map_err(|error| Problem::internal(&error))?;
    Ok((headers, Json(body)).into_response())
}

fn arrow(result: &QueryResult) -> Result<Vec<u8>, ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::new(), &result.schema)?;
    for batch in &result.batches {
        writer.write(batch)?;
    }
    writer.into_inner()
}

fn json(result: &QueryResult, views: Vec<ReadView>) -> Result<SqlAnswer, Box<dyn std::error::Error + Send + Sync>> {
    let batches: Result<Vec<RecordBatch>, ArrowError> = result.batches.iter().map(with_decimals_as_texts).collect();
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(Vec::new());
    writer.write_batches(&batches?.iter().collect::<Vec<_>>())?;
    writer.finish()?;
    let rows = String::from_utf8(writer.into_inner())?;
    // Nothing is written where there is no row.
    let rows = if rows.is_empty() { "[]".to_owned() } else { rows };
    let column =
        |field: &Arc<Field>| ResultColumn { name: field.name().clone(), data_type: field.data_type().to_string() };
    Ok(SqlAnswer {
        columns: result.schema.fields().iter().map(column).collect(),
        rows: RawValue::from_string(rows)?,
        truncated: result.is_cut,
        views,
    })
}

/// JSON's numbers lose digits on the way through most readers.
fn with_decimals_as_texts(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = batch.schema();
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        if field.data_type().is_decimal() {
            columns.push(cast(column, &DataType::Utf8)?);
            fields.push(Field::new(field.name(), DataType::Utf8, field.is_nullable()));
        } else {
            columns.push(Arc::clone(column));
            fields.push(field.as_ref().clone());
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
}

fn problem(error: QueryError) -> Problem {
    let title = error.to_string();
    match error {
        QueryError::Query(_) | QueryError::NotSelect => {
            Problem::bad_request(title, "correct the query; tables are the views that /api/v1/views lists")
        }
        QueryError::TooLarge(_) => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "query-size",
            title,
            "filter or group more, or have api.sql raised",
        ),
        QueryError::TooSlow(_) => Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "query-time",
            title,
            "filter or join less, or have api.sql raised",
        ),
        QueryError::Busy => Problem::too_many(&title),
        QueryError::Internal(reason) => Problem::internal(&reason),
    }
}
