//! `/api/v1/views`: the catalog. `/api/v1/views/{name}`: a view's rows, as JSON page by page or as an Arrow stream.
//!
//! A page is exact for the epoch it names. Pages of one reading may be of different epochs, since rows change in
//! between; a cursor is the key of the last row read, so that no row that stays is skipped or repeated.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use model::ViewInfo;
use model::view::ViewColumn;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::auth::hex;
use crate::auth::rows::{RowFilter, RowFilterError};
use crate::auth::{Access, Action, Resource, RowRule};
use crate::hub::channel::Channel;
use crate::hub::view::{RowKey, View};
use crate::problem::Problem;
use crate::rest::guard::Caller;
use crate::rest::{arrow_stream, query, require_loaded};
use crate::state::AppState;

/// Rows of a JSON page unless the caller says otherwise.
const PAGE_ROWS: usize = 1_000;
/// Rows of a JSON page at most; an Arrow stream has no such bound.
const PAGE_ROWS_MAX: usize = 10_000;
/// How long a caller waits for a change unless they say otherwise, and at most, in seconds.
const WAIT_SECONDS: u64 = 25;
const WAIT_SECONDS_MAX: u64 = 60;
/// How often a waiting request looks whether there is a change.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Media type of an Arrow IPC stream.
pub(crate) const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";

#[derive(Serialize)]
struct Entry {
    #[serde(flatten)]
    info: Arc<ViewInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<usize>,
    epoch: u64,
    as_of_ms: i64,
}

#[derive(Serialize)]
struct Listing {
    views: Vec<Entry>,
}

/// The views that the caller may read.
#[utoipa::path(get, path = "/api/v1/views", tag = "views", responses((status = 200, body = Object)))]
pub(crate) async fn list(caller: Caller, State(state): State<AppState>) -> Result<Response, Problem> {
    require_loaded(&state)?;
    let entry = |view: &View| {
        let info = view.info.clone()?;
        match state.auth().access(&caller.principal, Action::Read, Resource::View(&info.name)) {
            Access::Denied(_) => None,
            // How many rows there are is told to those who see them all.
            Access::Allowed { row_rule } => Some(Entry {
                info,
                rows: row_rule.is_none().then(|| view.n_rows()),
                epoch: view.epoch,
                as_of_ms: view.as_of_ms,
            }),
        }
    };
    let views = state.hub().views().iter().filter_map(|channel| channel.read(|view, _, _| entry(view))).collect();
    Ok(([(header::CACHE_CONTROL, "no-cache")], axum::Json(Listing { views })).into_response())
}

/// Which rows.
#[derive(Deserialize, utoipa::IntoParams)]
pub(crate) struct Parameters {
    /// Rows of the page: 1,000 unless said otherwise, at most 10,000. An Arrow stream has all rows without it.
    limit: Option<usize>,
    /// The last page's `next_cursor`.
    cursor: Option<String>,
}

/// A page of a view's rows, and what the view is.
#[derive(Serialize)]
struct Page<'a> {
    view: &'a str,
    key: &'a [String],
    columns: &'a [ViewColumn],
    rows: &'a RawValue,
    epoch: u64,
    as_of_ms: i64,
    empty_inputs: &'a [String],
    description: Option<&'a str>,
    sql: &'a str,
    maintenance: &'a str,
    total_rows: usize,
    next_cursor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<&'a str>,
}

/// A view's rows as a caller sees them, at one moment.
struct Snapshot {
    info: Arc<ViewInfo>,
    rows: Vec<(RowKey, Bytes)>,
    total_rows: usize,
    has_more: bool,
    epoch: u64,
    as_of_ms: i64,
    /// Held until the answer is written.
    _permit: OwnedSemaphorePermit,
}

/// A view that the caller may read.
struct Readable {
    state: AppState,
    channel: Arc<Channel<View>>,
    rule: Option<Arc<RowRule>>,
}

impl Readable {
    fn find(state: &AppState, caller: &Caller, name: &str) -> Result<Self, Problem> {
        let rule = caller.check(state, Action::Read, Resource::View(name))?;
        require_loaded(state)?;
        let channel = state.hub().view(name).ok_or_else(|| {
            Problem::not_found(format!("there is no view `{name}`"), "see /api/v1/views for the views there are")
        })?;
        Ok(Self { state: state.clone(), channel, rule })
    }

    /// Names the view's state as the caller sees it.
    fn state_tag(&self) -> String {
        let mut rule = DefaultHasher::new();
        if let Some(row_rule) = &self.rule {
            (&row_rule.any_of, serde_json::Value::Object((*row_rule.claims).clone()).to_string()).hash(&mut rule);
        }
        let rule = rule.finish();
        self.channel.read(|view, stream_epoch, offset| format!("{stream_epoch}-{offset}-{}-{rule:x}", view.epoch))
    }

    /// The rows after a key that the caller may see, at most `limit`.
    async fn snapshot(&self, after: Option<RowKey>, limit: usize) -> Result<Snapshot, Problem> {
        let permit = self.state.read_permit().await?;
        let dropped = || Problem::not_found("the view has just been dropped", "see /api/v1/views");
        let Some(rule) = self.rule.clone() else {
            return self.channel.read(|view, _, _| {
                let rows = view.rows_after(after.as_ref()).take(limit.saturating_add(1));
                let rows = rows.map(|(key, row)| (key.clone(), row.clone())).collect();
                let info = view.info.clone().ok_or_else(dropped)?;
                Ok(Snapshot::cut(info, rows, view.n_rows(), limit, (view.epoch, view.as_of_ms), permit))
            });
        };
        let (info, rows, place) = self.channel.read(|view, _, _| {
            let rows: Vec<_> = view.rows_after(None).map(|(key, row)| (key.clone(), row.clone())).collect();
            (view.info.clone(), rows, (view.epoch, view.as_of_ms))
        });
        let info = info.ok_or_else(dropped)?;
        let filter = RowFilter::of_rule(&info, &rule).map_err(|error| hidden_rows(&info.name, &error))?;
        let filtered = tokio::task::spawn_blocking(move || {
            let texts: Vec<&[u8]> = rows.iter().map(|(_, row)| &row[..]).collect();
            let seen = filter.matches(&texts);
            rows.into_iter().zip(seen).filter(|(_, seen)| *seen).map(|(row, _)| row).collect::<Vec<_>>()
        });
        let mut rows = filtered.await.map_err(|error| Problem::internal(&error))?;
        let total_rows = rows.len();
        if let Some(after) = &after {
            rows.retain(|(key, _)| key > after);
        }
        Ok(Snapshot::cut(info, rows, total_rows, limit, place, permit))
    }
}

impl Snapshot {
    fn cut(
        info: Arc<ViewInfo>,
        mut rows: Vec<(RowKey, Bytes)>,
        total_rows: usize,
        limit: usize,
        (epoch, as_of_ms): (u64, i64),
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        Self { info, rows, total_rows, has_more, epoch, as_of_ms, _permit: permit }
    }

    fn to_json(&self, position: Option<&str>) -> Result<Vec<u8>, Problem> {
        let mut rows = String::from("[");
        for (row_idx, (_, row)) in self.rows.iter().enumerate() {
            if row_idx > 0 {
                rows.push(',');
            }
            rows.push_str(std::str::from_utf8(row).map_err(|error| Problem::internal(&error))?);
        }
        rows.push(']');
        let rows = RawValue::from_string(rows).map_err(|error| Problem::internal(&error))?;
        let page = Page {
            view: &self.info.name,
            key: &self.info.key,
            columns: &self.info.columns,
            rows: &rows,
            epoch: self.epoch,
            as_of_ms: self.as_of_ms,
            empty_inputs: &self.info.empty_inputs,
            description: self.info.description.as_deref(),
            sql: &self.info.sql,
            maintenance: &self.info.maintenance,
            total_rows: self.total_rows,
            next_cursor: self.rows.last().filter(|_| self.has_more).map(|(key, _)| cursor(key)),
            position,
        };
        serde_json::to_vec(&page).map_err(|error| Problem::internal(&error))
    }

    /// Differs where the caller sees other rows.
    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.rows.iter().for_each(|(_, row)| row.hash(&mut hasher));
        (self.total_rows, &self.info.sql).hash(&mut hasher);
        hasher.finish()
    }
}

/// A role's condition does not fit the view: nobody whom it is for sees a row.
pub(crate) fn hidden_rows(view: &str, error: &RowFilterError) -> Problem {
    tracing::error!(view, error = error as &dyn std::error::Error, "a role's row condition does not fit the view");
    Problem::forbidden("the row condition of the caller's role does not fit this view")
}

/// A view's rows: JSON page by page, or an Arrow stream.
#[utoipa::path(get, path = "/api/v1/views/{name}", tag = "views",
    params(("name" = String, Path, description = "the view"), Parameters), responses(
    (status = 200, body = Object, description = "with `Accept: application/vnd.apache.arrow.stream` an Arrow stream"),
    (status = 304, description = "as `If-None-Match` says")))]
pub(crate) async fn show(
    caller: Caller,
    State(state): State<AppState>,
    Path(name): Path<String>,
    parameters: Result<Query<Parameters>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let view = Readable::find(&state, &caller, &name)?;
    let parameters = query(parameters)?;
    let after = parameters.cursor.as_deref().map(cursor_key).transpose()?;
    let wants_arrow = accepts(&headers, ARROW_STREAM);
    let mut page = DefaultHasher::new();
    (parameters.limit, &parameters.cursor, wants_arrow).hash(&mut page);
    // Weak, since compression changes the bytes.
    let tag = format!("W/\"{}-{:x}\"", view.state_tag(), page.finish());
    if headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok()).is_some_and(|known| known.contains(&tag)) {
        return Ok((StatusCode::NOT_MODIFIED, cache_headers(&tag)).into_response());
    }
    let (body, media_type) = if wants_arrow {
        let Snapshot { info, rows, _permit, .. } = view.snapshot(after, parameters.limit.unwrap_or(usize::MAX)).await?;
        let rows: Vec<Bytes> = rows.into_iter().map(|(_, row)| row).collect();
        let encoding = tokio::task::spawn_blocking(move || arrow_stream::encode(&info, &rows));
        let body = encoding.await.map_err(|error| Problem::internal(&error))?;
        (body.map_err(|error| Problem::internal(&error))?, ARROW_STREAM)
    } else {
        let limit = parameters.limit.unwrap_or(PAGE_ROWS).clamp(1, PAGE_ROWS_MAX);
        (view.snapshot(after, limit).await?.to_json(None)?, "application/json")
    };
    Ok((cache_headers(&tag), [(header::CONTENT_TYPE, media_type)], body).into_response())
}

/// Which columns and rows.
#[derive(Deserialize, utoipa::IntoParams)]
pub(crate) struct SeriesQuery {
    /// Names with commas between; all columns without it.
    columns: Option<String>,
    /// Rows, at most 10,000, which is also the default.
    limit: Option<usize>,
    /// The last answer's `next_cursor`.
    cursor: Option<String>,
}

/// A view's rows column by column, which is what charts take.
#[derive(Serialize)]
struct Series<'a> {
    view: &'a str,
    epoch: u64,
    as_of_ms: i64,
    n_rows: usize,
    columns: BTreeMap<&'a str, Vec<&'a RawValue>>,
    next_cursor: Option<String>,
}

/// A view's rows column by column: `{columns: {day: […], amount: […]}}`.
#[utoipa::path(get, path = "/api/v1/views/{name}/series", tag = "views",
    params(("name" = String, Path, description = "the view"), SeriesQuery),
    responses((status = 200, body = Object)))]
pub(crate) async fn series(
    caller: Caller,
    State(state): State<AppState>,
    Path(name): Path<String>,
    parameters: Result<Query<SeriesQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let view = Readable::find(&state, &caller, &name)?;
    let parameters = query(parameters)?;
    let after = parameters.cursor.as_deref().map(cursor_key).transpose()?;
    let limit = parameters.limit.unwrap_or(PAGE_ROWS_MAX).clamp(1, PAGE_ROWS_MAX);
    let snapshot = view.snapshot(after, limit).await?;
    let known: Vec<&str> = snapshot.info.columns.iter().map(|column| column.name.as_str()).collect();
    let wanted: Vec<&str> = match &parameters.columns {
        None => known.clone(),
        Some(names) => names.split(',').map(str::trim).collect(),
    };
    if let Some(unknown) = wanted.iter().find(|name| !known.contains(name)) {
        let title = format!("the view has no column `{unknown}`");
        return Err(Problem::bad_request(title, format!("its columns are {}", known.join(", "))));
    }
    let null: &RawValue = serde_json::from_str("null").map_err(|error| Problem::internal(&error))?;
    let mut columns: BTreeMap<&str, Vec<&RawValue>> =
        wanted.iter().map(|name| (*name, Vec::with_capacity(snapshot.rows.len()))).collect();
    for (_, row) in &snapshot.rows {
        let mut row: HashMap<Cow<'_, str>, &RawValue> =
            serde_json::from_slice(row).map_err(|error| Problem::internal(&error))?;
        for (name, values) in &mut columns {
            values.push(row.remove(*name).unwrap_or(null));
        }
    }
    let series = Series {
        view: &snapshot.info.name,
        epoch: snapshot.epoch,
        as_of_ms: snapshot.as_of_ms,
        n_rows: snapshot.rows.len(),
        columns,
        next_cursor: snapshot.rows.last().filter(|_| snapshot.has_more).map(|(key, _)| cursor(key)),
    };
    Ok(([(header::CACHE_CONTROL, "no-cache")], axum::Json(series)).into_response())
}

/// Since when.
#[derive(Deserialize, utoipa::IntoParams)]
pub(crate) struct ChangesQuery {
    /// The last answer's `position`; without it the answer comes at once.
    after: Option<String>,
    /// How long to wait for a change, in seconds: 25 unless said otherwise, at most 60.
    wait: Option<u64>,
}

/// Waits until the view's rows are no longer those of a position, and gives them: for networks that let nothing else
/// through. Nothing happened: 204.
#[utoipa::path(get, path = "/api/v1/views/{name}/changes", tag = "views",
    params(("name" = String, Path, description = "the view"), ChangesQuery), responses(
    (status = 200, body = Object, description = "the rows, and their `position`"),
    (status = 204, description = "nothing changed")))]
pub(crate) async fn changes(
    caller: Caller,
    State(state): State<AppState>,
    Path(name): Path<String>,
    parameters: Result<Query<ChangesQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let parameters = query(parameters)?;
    let deadline = Instant::now() + Duration::from_secs(parameters.wait.unwrap_or(WAIT_SECONDS).min(WAIT_SECONDS_MAX));
    let no_store = [(header::CACHE_CONTROL, "no-store")];
    let mut looked_at = None;
    loop {
        // Asked anew each time: the view may have gone, and so may the caller's right to it.
        state.auth().still_valid(&caller.principal).map_err(|error| Problem::unauthorized(&error.to_string()))?;
        let view = Readable::find(&state, &caller, &name)?;
        let tag = view.state_tag();
        if looked_at.as_ref() != Some(&tag) {
            let snapshot = view.snapshot(None, PAGE_ROWS_MAX).await?;
            let position = format!("{:016x}", snapshot.fingerprint());
            if parameters.after.as_ref() != Some(&position) {
                let body = snapshot.to_json(Some(&position))?;
                return Ok((no_store, [(header::CONTENT_TYPE, "application/json")], body).into_response());
            }
            looked_at = Some(tag);
        }
        if Instant::now() >= deadline || state.shutdown().is_cancelled() {
            return Ok((StatusCode::NO_CONTENT, no_store).into_response());
        }
        tokio::time::sleep(LOOK_INTERVAL.min(deadline - Instant::now())).await;
    }
}

pub(crate) fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).any(|v| v.contains(media_type))
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
    hex(key.json())
}

fn cursor_key(cursor: &str) -> Result<RowKey, Problem> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let json: Option<Vec<u8>> = cursor.as_bytes().chunks(2).map(byte).collect();
    json.and_then(|json| RowKey::parse(&json)).ok_or_else(|| {
        Problem::bad_request("the cursor is not one of ours", "leave it out to begin, then pass on `next_cursor`")
    })
}
