//! Commands of clients whose transport goes one way only: a request beside it, for the session at whichever node.

use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use prost::Message;
use serde::Deserialize;

use crate::cluster::EmulationError;
use crate::cluster::message::Emulation;
use crate::protocol::message::EmulationRequest;
use crate::state::AppState;

/// What surrounds the commands in a request.
const ENVELOPE_BYTES_MAX: usize = 1 << 10;

/// The JSON form: the commands are a string.
#[derive(Deserialize)]
struct JsonRequest {
    session: String,
    node: String,
    data: String,
}

/// Passes commands on.
pub(crate) async fn pass(State(state): State<AppState>, request: Request) -> Response {
    let headers = request.headers().clone();
    if request.method() != Method::POST {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    // Escapes may double the size of the commands.
    let limit = state.config().limits.message_bytes * 2 + ENVELOPE_BYTES_MAX;
    let Ok(body) = to_bytes(request.into_body(), limit).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let is_binary = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/octet-stream");
    let Some(emulation) = parse(&body, is_binary) else { return StatusCode::BAD_REQUEST.into_response() };
    if emulation.data.len() > state.config().limits.message_bytes {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    }
    match state.sessions().cluster.emulate(emulation) {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(EmulationError::UnknownNode) => StatusCode::NOT_FOUND,
        // As other servers answer; clients connect again.
        Err(EmulationError::UnknownSession) => StatusCode::INTERNAL_SERVER_ERROR,
    }
    .into_response()
}

pub(crate) fn parse(body: &Bytes, is_binary: bool) -> Option<Emulation> {
    if is_binary {
        let EmulationRequest { node, session, data } = EmulationRequest::decode(body.clone()).ok()?;
        return Some(Emulation { node, session, data });
    }
    let JsonRequest { session, node, data } = serde_json::from_slice(body).ok()?;
    Some(Emulation { node, session, data: Bytes::from(data) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_forms_are_read() {
        let expected = Emulation { node: "n".to_owned(), session: "s".to_owned(), data: Bytes::from_static(b"{}\n{}") };
        let json = Bytes::from_static(br#"{"session":"s","node":"n","data":"{}\n{}"}"#);
        assert_eq!(parse(&json, false), Some(expected.clone()));
        let request = EmulationRequest { node: "n".to_owned(), session: "s".to_owned(), data: expected.data.clone() };
        assert_eq!(parse(&Bytes::from(request.encode_to_vec()), true), Some(expected));
        assert_eq!(parse(&json, true), None);
        assert_eq!(parse(&Bytes::from_static(b"{}"), false), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..200), is_binary: bool) {
            let body = Bytes::from(body);
            let parsed = parse(&body, is_binary);
            prop_assert!(parsed.is_none_or(|emulation| emulation.data.len() <= body.len()));
        }
    }
}
