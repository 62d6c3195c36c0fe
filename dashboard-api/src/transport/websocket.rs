//! The WebSocket transport: text frames in and out, with the JSON protocol. Several messages that wait go out as one
//! frame; a close frame carries the protocol's code and reason.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use metrics::{counter, gauge};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::outbox::{Next, Outbox};
use crate::problem::Problem;
use crate::protocol::{Disconnect, Line};
use crate::session::Session;
use crate::state::AppState;

/// Subprotocol of the JSON form, for clients that name it.
const JSON_SUBPROTOCOL: &str = "centrifuge-json";
/// Subprotocol of the binary form, which is not offered yet.
const PROTOBUF_SUBPROTOCOL: &str = "centrifuge-protobuf";
/// How long a close frame may take, the rest of a write before it included.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens a connection.
pub(crate) async fn connect(
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    if !is_allowed_origin(&headers, &state.config().allowed_origins) {
        return Problem::new(
            StatusCode::FORBIDDEN,
            "origin",
            "this page's origin may not open a live connection",
            "ask the operator to add the origin to api.allowed_origins",
        )
        .into_response();
    }
    let wants_protobuf = query
        .as_deref()
        .unwrap_or("")
        .split('&')
        .any(|pair| matches!(pair, "cf_protocol=protobuf" | "format=protobuf"))
        || offers_only_protobuf(&headers);
    // A browser fails a handshake that answers none of its subprotocols: echo what is spoken, or refuse in it.
    let protocols = if wants_protobuf { [PROTOBUF_SUBPROTOCOL] } else { [JSON_SUBPROTOCOL] };
    let limit = state.config().limits.message_bytes;
    let tracker = state.connections().clone();
    upgrade.protocols(protocols).max_message_size(limit).max_frame_size(limit).on_upgrade(move |socket| {
        tracker.track_future(async move {
            match state.connection_permit() {
                _ if wants_protobuf => refuse(socket, Disconnect::INAPPROPRIATE_PROTOCOL).await,
                None => refuse(socket, Disconnect::CONNECTION_LIMIT).await,
                Some(permit) => serve(socket, state, permit).await,
            }
        })
    })
}

fn offers_only_protobuf(headers: &HeaderMap) -> bool {
    let offered: Vec<&str> = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(str::trim))
        .collect();
    offered.contains(&PROTOBUF_SUBPROTOCOL) && !offered.contains(&JSON_SUBPROTOCOL)
}

/// Whether a page of this origin may connect. Programs that are not browsers send no origin.
fn is_allowed_origin(headers: &HeaderMap, allowed: &[String]) -> bool {
    let text = |name| headers.get(name).and_then(|value: &axum::http::HeaderValue| value.to_str().ok());
    let Some(origin) = text(header::ORIGIN) else { return true };
    let host_of_origin = origin.split_once("://").map(|(_, host)| host);
    let is_own = host_of_origin.is_some() && host_of_origin == text(header::HOST);
    is_own || allowed.iter().any(|a| a == "*" || a == origin)
}

async fn refuse(mut socket: WebSocket, disconnect: Disconnect) {
    count_disconnect(disconnect);
    // The peer may be gone already; there is nobody else to tell.
    drop(timeout(CLOSE_TIMEOUT, socket.send(close_message(disconnect))).await);
}

async fn serve(socket: WebSocket, state: AppState, permit: OwnedSemaphorePermit) {
    counter!("api_connections_opened_total").increment(1);
    gauge!("api_connections_open_total").increment(1.0);
    let session = Session::new(Arc::clone(state.sessions()));
    let outbox = Arc::clone(session.outbox());
    let write_timeout = Duration::from_secs(state.config().heartbeat.write_seconds.into());
    let (sink, stream) = socket.split();
    let writer_is_done = CancellationToken::new();
    let writing = async {
        let disconnect = write(sink, &outbox, write_timeout).await;
        writer_is_done.cancel();
        disconnect
    };
    let reading = read(stream, session, state.shutdown(), &writer_is_done);
    let (disconnect, ()) = tokio::join!(writing, reading);
    count_disconnect(disconnect);
    tracing::debug!(code = disconnect.code, reason = disconnect.reason, "connection closed");
    gauge!("api_connections_open_total").decrement(1.0);
    drop(permit);
}

fn count_disconnect(disconnect: Disconnect) {
    counter!("api_disconnects_total", "code" => disconnect.code.to_string()).increment(1);
}

/// Feeds the session until it ends, whoever ends it.
async fn read(
    mut stream: SplitStream<WebSocket>,
    mut session: Session,
    shutdown: &CancellationToken,
    writer_is_done: &CancellationToken,
) {
    while session.outbox().closing().is_none() {
        let deadline = session.next_deadline().unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            message = stream.next() => match message {
                Some(Ok(Message::Text(text))) => session.on_frame(&text),
                Some(Ok(Message::Binary(_))) => session.outbox().close(Disconnect::INAPPROPRIATE_PROTOCOL),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_))) | None => session.outbox().close(Disconnect::CLOSED_BY_PEER),
                Some(Err(error)) => session.outbox().close(reason_of(&error)),
            },
            () = sleep_until(deadline) => session.on_deadline(Instant::now()),
            () = shutdown.cancelled() => session.outbox().close(Disconnect::SHUTDOWN),
            () = writer_is_done.cancelled() => return,
        }
    }
}

fn reason_of(error: &axum::Error) -> Disconnect {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.to_string().starts_with("Space limit exceeded") {
            return Disconnect::MESSAGE_TOO_BIG;
        }
        cause = error.source();
    }
    Disconnect::CLOSED_BY_PEER
}

/// Writes what the outbox holds until it says to close, or a write fails. Returns why it ended.
async fn write(mut sink: SplitSink<WebSocket, Message>, outbox: &Outbox, write_timeout: Duration) -> Disconnect {
    loop {
        match outbox.next().await {
            Next::Close(disconnect) => {
                drop(timeout(CLOSE_TIMEOUT, sink.send(close_message(disconnect))).await);
                return disconnect;
            }
            Next::Write(lines) => {
                counter!("api_messages_sent_total").increment(lines.len() as u64);
                let Some(message) = text_message(&lines) else {
                    tracing::error!("a message is not UTF-8");
                    continue;
                };
                counter!("api_sent_bytes_total").increment(message.len() as u64);
                let is_written = tokio::select! {
                    written = timeout(write_timeout, sink.send(Message::Text(message))) => matches!(written, Ok(Ok(()))),
                    // The reader is too slow: stop waiting for it. The frame begun is finished before the close frame.
                    () = outbox.overflowed() => true,
                };
                if !is_written {
                    outbox.close(Disconnect::WRITE_ERROR);
                    return Disconnect::WRITE_ERROR;
                }
            }
        }
    }
}

/// One frame with these messages, a newline between them.
fn text_message(lines: &[Line]) -> Option<Utf8Bytes> {
    if let [Line::Whole(line)] = lines {
        return Utf8Bytes::try_from(Bytes::clone(line)).ok();
    }
    let n_bytes = lines.iter().map(|line| line.len() + 1).sum();
    let mut frame = BytesMut::with_capacity(n_bytes);
    for (line_idx, line) in lines.iter().enumerate() {
        if line_idx > 0 {
            frame.extend_from_slice(b"\n");
        }
        line.parts().iter().for_each(|part| frame.extend_from_slice(part));
    }
    Utf8Bytes::try_from(frame.freeze()).ok()
}

fn close_message(disconnect: Disconnect) -> Message {
    Message::Close(Some(CloseFrame { code: disconnect.code, reason: Utf8Bytes::from_static(disconnect.reason) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_the_same_host_and_listed_ones_may_connect() {
        let check = |origin: Option<&str>, allowed: &[&str]| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, "andon.example.com:8080".parse().expect("a host"));
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().expect("an origin"));
            }
            is_allowed_origin(&headers, &allowed.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>())
        };
        assert!(check(None, &[]));
        assert!(check(Some("http://andon.example.com:8080"), &[]));
        assert!(!check(Some("http://andon.example.com"), &[]));
        assert!(!check(Some("null"), &[]));
        assert!(check(Some("https://erp.example.com"), &["https://erp.example.com"]));
        assert!(!check(Some("https://evil.example.com"), &["https://erp.example.com"]));
        assert!(check(Some("https://evil.example.com"), &["*"]));
    }

    #[test]
    fn messages_share_a_frame() {
        let line = |text: &'static str| Line::Whole(Bytes::from_static(text.as_bytes()));
        let parts = Line::Parts([Bytes::from_static(b"{"), Bytes::from_static(b"\"a\":1"), Bytes::from_static(b"}")]);
        let frame = text_message(&[line("{}"), parts, line("{}")]).expect("UTF-8");
        assert_eq!(frame.as_str(), "{}\n{\"a\":1}\n{}");
    }
}
