//! `/api/v1/views`: the catalog. `/api/v1/views/{name}`: a view's rows, as JSON page by page or as an Arrow stream.
//!
//! A page is exact for the epoch it names. Pages of one reading may be of different epochs, since rows change in
//! between; a cursor is the key of the last row read, so that no row that stays is skipped or repeated.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use model::ViewInfo;
use serde::{Deserialize, Serialize};

use crate::auth::{Access, Action, Resource};
use crate::hub::channel::Channel;
use crate::hub::view::{RowKey, View};
use crate::problem::Problem;
use crate::rest::{Caller, arrow_stream, query, require_loaded};
use crate::state::AppState;

/// Rows of a JSON page unless the caller says otherwise.
const PAGE_ROWS: usize = 1_000;
/// Rows of a JSON page at most; an Arrow stream has no such bound.
const PAGE_ROWS_MAX: usize = 10_000;
/// Media type of an Arrow IPC stream.
const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";

#[derive(Serialize)]
struct Entry {
    #[serde(flatten)]
    info: Arc<ViewInfo>,
    rows: usize,
    epoch: u64,
    as_of_ms: i64,
}

#[derive(Serialize)]
struct Listing {
    views: Vec<Entry>,
}

/// The catalog.
pub(crate) async fn list(caller: Caller, State(state): State<AppState>) -> Result<Response, Problem> {
    if let Access::Denied(denial) = state.auth().may_read_views(&caller.0) {
        return Err(Problem::forbidden(denial.as_str()));
    }
    require_loaded(&state)?;
    let entry = |view: &View| {
        let info = view.info.clone()?;
        caller.check(&state, Action::Read, Resource::View(&info.name)).ok()?;
        Some(Entry { info, rows: view.n_rows(), epoch: view.epoch, as_of_ms: view.as_of_ms })
    };
    let views = state.hub().views().iter().filter_map(|channel| channel.read(|view, _, _| entry(view))).collect();
    Ok(([(header::CACHE_CONTROL, "no-cache")], axum::Json(Listing { views })).into_response())
}

#[derive(Deserialize)]
pub(crate) struct Parameters {
    limit: Option<usize>,
    cursor: Option<String>,
}

/// What the definition of a view adds to its rows.
#[derive(Serialize)]
struct Definition<'a> {
    description: Option<&'a str>,
    sql: &'a str,
    maintenance: &'a str,
    total_rows: usize,
    next_cursor: Option<String>,
}

/// A view's rows.
pub(crate) async fn show(
    caller: Caller,
    State(state): State<AppState>,
    Path(name): Path<String>,
    parameters: Result<Query<Parameters>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if caller.check(&state, Action::Read, Resource::View(&name))?.is_some() {
        return Err(Problem::forbidden("rows of this view are not shown over REST yet"));
    }
    let parameters = query(parameters)?;
    require_loaded(&state)?;
    let channel = state.hub().view(&name).ok_or_else(|| {
        Problem::not_found(format!("there is no view `{name}`"), "see /api/v1/views for the views there are")
    })?;
    let after = parameters.cursor.as_deref().map(cursor_key).transpose()?;
    let wants_arrow = accepts(&headers, ARROW_STREAM);
    let tag = entity_tag(&channel, &parameters, wants_arrow);
    if headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok()).is_some_and(|known| known.contains(&tag)) {
        return Ok((StatusCode::NOT_MODIFIED, cache_headers(&tag)).into_response());
    }
    let (body, media_type) = match wants_arrow {
        true => (arrow_page(&channel, after, parameters.limit).await?, ARROW_STREAM),
        false => (json_page(&channel, after.as_ref(), parameters.limit), "application/json"),
    };
    Ok((cache_headers(&tag), [(header::CONTENT_TYPE, media_type)], body).into_response())
}

fn json_page(channel: &Channel<View>, after: Option<&RowKey>, limit: Option<usize>) -> Vec<u8> {
    let limit = limit.unwrap_or(PAGE_ROWS).clamp(1, PAGE_ROWS_MAX);
    channel.read(|view, _, _| {
        let page: Vec<_> = view.rows_after(after).take(limit + 1).collect();
        let next_cursor = (page.len() > limit).then(|| cursor(page[limit - 1].0));
        let definition = view.info.as_ref().map(|info| Definition {
            description: info.description.as_deref(),
            sql: &info.sql,
            maintenance: &info.maintenance,
            total_rows: view.n_rows(),
            next_cursor,
        });
        let extra = definition.and_then(|d| serde_json::to_string(&d).ok()).unwrap_or_default();
        let extra = extra.trim_matches(['{', '}']).to_owned();
        let mut body = Vec::new();
        view.write_json(&mut body, page.iter().take(limit).map(|(_, row)| *row), &format!(",{extra}"));
        body
    })
}

async fn arrow_page(channel: &Channel<View>, after: Option<RowKey>, limit: Option<usize>) -> Result<Vec<u8>, Problem> {
    let (info, rows) = channel.read(|view, _, _| {
        let rows: Vec<Bytes> =
            view.rows_after(after.as_ref()).take(limit.unwrap_or(usize::MAX)).map(|(_, row)| row.clone()).collect();
        (view.info.clone(), rows)
    });
    let info = info.ok_or_else(|| Problem::not_found("the view has just been dropped", "see /api/v1/views"))?;
    tokio::task::spawn_blocking(move || arrow_stream::encode(&info, &rows))
        .await
        .map_err(|error| Problem::internal(&error))?
        .map_err(|error| Problem::internal(&error))
}

fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).any(|v| v.contains(media_type))
}

/// Names the view's state and the page; weak, since compression changes the bytes.
fn entity_tag(channel: &Channel<View>, parameters: &Parameters, is_arrow: bool) -> String {
    let mut page = DefaultHasher::new();
    (parameters.limit, &parameters.cursor, is_arrow).hash(&mut page);
    let page = page.finish();
    channel.read(|view, stream_epoch, offset| format!("W/\"{stream_epoch}-{offset}-{}-{page:x}\"", view.epoch))
}

fn cache_headers(tag: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(header::ETAG, tag);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::VARY, HeaderValue::from_static("accept, accept-encoding"));
    headers
}

fn cursor(key: &RowKey) -> String {
    key.json().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn cursor_key(cursor: &str) -> Result<RowKey, Problem> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let json: Option<Vec<u8>> = cursor.as_bytes().chunks(2).map(byte).collect();
    json.and_then(|json| RowKey::parse(&json)).ok_or_else(|| {
        Problem::bad_request("the cursor is not one of ours", "leave it out to begin, then pass on `next_cursor`")
    })
}
