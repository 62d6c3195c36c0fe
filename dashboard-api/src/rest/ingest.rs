//! `POST /api/v1/ingest/{topic}`: appends one record to a source topic, in the form that Debezium Server's HTTP sink
//! sends: the record's value as the JSON body. The key goes into the header `x-debezium-key` (JSON) where a sender has
//! one; ingest reads the primary key from the value, so that it is needed only to keep a row's records in one partition,
//! and for a tombstone (an empty body).

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use model::{AppendRecord, LogError};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::problem::Problem;
use crate::state::AppState;

/// Header with the record's key as JSON.
const KEY_HEADER: &str = "x-debezium-key";
/// Topics of Andon's own start with this and are written by its stages alone.
const OWN_PREFIX: &str = "andon.";
/// Longest topic name, as in Kafka.
const TOPIC_BYTES_MAX: usize = 249;

/// Where the record is now.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Appended {
    topic: String,
    offset: i64,
}

/// Appends one record to a source topic.
#[utoipa::path(post, path = "/api/v1/ingest/{topic}", tag = "sources", request_body = Object,
    params(("topic" = String, Path, description = "the topic")), responses((status = 200, body = Appended)))]
pub(crate) async fn append(
    State(state): State<AppState>,
    Path(topic): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Appended>, Problem> {
    require_enabled(&state)?;
    check_topic(&state, &topic)?;
    let value = body.map_err(|rejection| {
        let limit = state.config().ingest.body_bytes;
        Problem::new(
            rejection.status(),
            "body",
            rejection.body_text(),
            format!("send one record with at most {limit} bytes, or have api.ingest.body_bytes raised"),
        )
    })?;
    let key = headers.get(KEY_HEADER).map(|key| Bytes::copy_from_slice(key.as_bytes()));
    for (what, json) in [("body", Some(&value).filter(|v| !v.is_empty())), (KEY_HEADER, key.as_ref())] {
        if json.is_some_and(|json| serde_json::from_slice::<&RawValue>(json).is_err()) {
            return Err(Problem::bad_request(format!("the {what} is not JSON"), "send one JSON value"));
        }
    }
    if value.is_empty() && key.is_none() {
        return Err(Problem::bad_request(
            "the body is empty",
            format!("send the record's value; a tombstone needs its key in the header {KEY_HEADER}"),
        ));
    }
    let record = AppendRecord {
        topic: topic.as_str().into(),
        partition: None,
        timestamp_ms: None,
        key,
        value: Some(value).filter(|value| !value.is_empty()),
        headers: Vec::new(),
    };
    let offsets = state.log().append(vec![record]).await.map_err(|error| refused(&error))?;
    metrics::counter!("api_ingested_records_total").increment(1);
    Ok(Json(Appended { topic, offset: offsets.first().copied().unwrap_or_default() }))
}

fn require_enabled(state: &AppState) -> Result<(), Problem> {
    if state.config().ingest.enabled {
        return Ok(());
    }
    Err(Problem::not_found(
        "appending records over HTTP is switched off",
        "ask the operator to set api.ingest.enabled = true",
    ))
}

fn check_topic(state: &AppState, topic: &str) -> Result<(), Problem> {
    let is_name = !topic.is_empty()
        && topic.len() <= TOPIC_BYTES_MAX
        && topic.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && ![".", ".."].contains(&topic);
    if !is_name {
        return Err(Problem::bad_request(
            "this is not a topic's name",
            "use at most 249 letters, digits, dots, underscores and hyphens",
        ));
    }
    let prefixes = &state.config().ingest.topic_prefixes;
    let is_listed = prefixes.is_empty() || prefixes.iter().any(|prefix| topic.starts_with(prefix.as_str()));
    if topic.starts_with(OWN_PREFIX) || !is_listed {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "topic",
            format!("records for the topic `{topic}` are not taken"),
            "choose a source topic; api.ingest.topic_prefixes lists what is allowed",
        ));
    }
    Ok(())
}

fn refused(error: &LogError) -> Problem {
    match error {
        LogError::Unavailable { .. } => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "log-unavailable",
            "the log cannot be reached now",
            "send the record again; it may have been taken, which does no harm",
        ),
        LogError::TooLarge { .. } => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body",
            "the record is larger than the log takes",
            "send smaller records, or have the log's limit raised",
        ),
        LogError::Refused { .. } | LogError::Corrupt { .. } => Problem::internal(error),
    }
}
