//! Server-sent events and HTTP streaming: replies and pushes as the body of one long answer. Commands come beside it,
//! through [`crate::transport::emulation`].

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Query, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use crate::cluster::registry::Transport;
use crate::outbox::Next;
use crate::problem::Problem;
use crate::protocol::message::{DisconnectPush, Push, Reply};
use crate::protocol::{Disconnect, Encoding, Line, frame};
use crate::session::Session;
use crate::state::AppState;
use crate::transport::{Counted, METERS, count_disconnect};

/// Writes that may be on their way to one client.
const CHUNKS_MAX: usize = 1;
/// The parameter with the first commands of an event stream.
#[derive(Deserialize)]
struct ConnectParameter {
    cf_connect: String,
}

/// Opens an event stream.
pub(crate) async fn sse(State(state): State<AppState>, request: Request) -> Response {
    let connect = match request.method() {
        &Method::GET => connect_parameter(request.uri()),
        _ => None,
    };
    open(state, request, Transport::Sse, connect).await
}

/// Opens an HTTP stream.
pub(crate) async fn http_stream(State(state): State<AppState>, request: Request) -> Response {
    open(state, request, Transport::HttpStream, None).await
}

/// The first commands in an address.
fn connect_parameter(uri: &Uri) -> Option<Bytes> {
    let Query(ConnectParameter { cf_connect }) = Query::try_from_uri(uri).ok()?;
    (!cf_connect.is_empty()).then(|| Bytes::from(cf_connect))
}

async fn open(state: AppState, request: Request, transport: Transport, connect: Option<Bytes>) -> Response {
    let headers = request.headers().clone();
    let is_post = request.method() == Method::POST;
    let connect = match connect {
        Some(connect) => connect,
        None if is_post => match to_bytes(request.into_body(), state.config().limits.message_bytes).await {
            Ok(body) if !body.is_empty() => body,
            Ok(_) => return no_commands(),
            Err(_) => return StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        },
        None => return no_commands(),
    };
    let is_binary = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/octet-stream");
    let encoding = match (transport, is_binary) {
        (Transport::HttpStream, true) => Encoding::Protobuf,
        _ => Encoding::Json,
    };
    let framing = Framing { transport, encoding };
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    let tracker = state.connections().clone();
    tokio::spawn(tracker.track_future(drive(state, framing, connect, sender)));
    let body = futures::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|chunk: Bytes| (Ok::<_, std::convert::Infallible>(chunk), receiver))
    });
    let mut response = Body::from_stream(body.fuse()).into_response();
    set_headers(framing, &mut response);
    response
}

fn no_commands() -> Response {
    Problem::bad_request(
        "there is no connect command",
        "send it as the body, or in the parameter cf_connect of an event stream",
    )
    .into_response()
}

fn set_headers(framing: Framing, response: &mut Response) {
    let out = response.headers_mut();
    let kind = match (framing.transport, framing.encoding) {
        (Transport::Sse, _) => "text/event-stream; charset=utf-8",
        (_, Encoding::Protobuf) => "application/octet-stream",
        _ => "application/json",
    };
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    // Proxies pass every piece on at once.
    out.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    let never = "private, no-cache, no-store, must-revalidate, max-age=0";
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static(never));
    out.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
}

/// How messages stand in the body.
#[derive(Debug, Clone, Copy)]
struct Framing {
    transport: Transport,
    encoding: Encoding,
}

impl Framing {
    fn chunk(self, lines: &[Line]) -> Bytes {
        let (before, after): (&[u8], &[u8]) = match (self.transport, self.encoding) {
            (Transport::Sse, _) => (b"data: ", b"\n\n"),
            (_, Encoding::Json) => (b"", b"\n"),
            (_, Encoding::Protobuf) => (b"", b""),
        };
        let mut chunk = BytesMut::with_capacity(lines.iter().map(|line| line.len() + 8).sum());
        for line in lines {
            chunk.extend_from_slice(before);
            line.parts().for_each(|part| chunk.extend_from_slice(part));
            chunk.extend_from_slice(after);
        }
        chunk.freeze()
    }

    /// There is no close frame here: the reason is told before the stream ends.
    fn farewell(self, disconnect: &Disconnect) -> Bytes {
        let disconnect =
            DisconnectPush { code: disconnect.code.into(), reason: disconnect.reason.clone().into_owned() };
        let push = Push { disconnect: Some(disconnect), ..Push::default() };
        self.chunk(&[frame::line(self.encoding, &Reply { push: Some(push), ..Reply::default() })])
    }
}

/// Runs the session until somebody ends it.
async fn drive(state: AppState, framing: Framing, connect: Bytes, sender: mpsc::Sender<Bytes>) {
    let Some(permit) = state.connection_permit() else {
        let refusal = state.connection_refusal();
        count_disconnect(&refusal);
        drop(sender.send(framing.farewell(&refusal)).await);
        return;
    };
    let counted = Counted::new(framing.transport);
    let mut session = Session::new(Arc::clone(state.sessions()), framing.transport, framing.encoding);
    let client = session.client().to_owned();
    let write_timeout = Duration::from_secs(state.config().heartbeat.write_seconds.into());
    if framing.transport == Transport::Sse {
        // The client's `open` event.
        drop(sender.send(Bytes::from_static(b"\r\n")).await);
    }
    session.on_frame(&connect);
    let disconnect = run(&mut session, framing, write_timeout, &sender).await;
    count_disconnect(&disconnect);
    tracing::debug!(client, code = disconnect.code, reason = &*disconnect.reason, "connection closed");
    drop((permit, counted));
}

async fn run(
    session: &mut Session,
    framing: Framing,
    write_timeout: Duration,
    sender: &mpsc::Sender<Bytes>,
) -> Disconnect {
    let outbox = Arc::clone(session.outbox());
    loop {
        match outbox.try_next() {
            Some(Next::Write(lines)) => {
                METERS.messages_sent.increment(lines.len() as u64);
                let chunk = framing.chunk(&lines);
                METERS.sent_bytes.increment(chunk.len() as u64);
                match timeout(write_timeout, sender.send(chunk)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return Disconnect::CLOSED_BY_PEER,
                    Err(_) => {
                        outbox.close(Disconnect::WRITE_ERROR);
                        return Disconnect::WRITE_ERROR;
                    }
                }
            }
            Some(Next::Close(disconnect)) => {
                drop(timeout(write_timeout, sender.send(framing.farewell(&disconnect))).await);
                return disconnect;
            }
            None => {
                let deadline = session.next_deadline().unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
                tokio::select! {
                    () = outbox.filled() => {
                        session.on_wake();
                    }
                    () = sleep_until(deadline) => session.on_deadline(Instant::now()),
                    () = sender.closed() => return Disconnect::CLOSED_BY_PEER,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_commands_are_read_from_the_query() {
        let check = |query: &str| {
            let uri = format!("/connection/sse?{query}").parse().expect("an address");
            connect_parameter(&uri).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        };
        assert_eq!(check("a=b&cf_connect=%7B%22id%22%3A1%7D+x").as_deref(), Some("{\"id\":1} x"));
        // What is no escape stands for itself; it is no command either.
        assert_eq!(check("cf_connect=%zz").as_deref(), Some("%zz"));
        assert_eq!(check("cf_connect="), None);
        assert_eq!(check(""), None);
    }

    #[test]
    fn messages_are_framed_for_each_transport() {
        let lines = [frame::ping(Encoding::Json), frame::ping(Encoding::Json)];
        let check = |transport| Framing { transport, encoding: Encoding::Json }.chunk(&lines);
        assert_eq!(check(Transport::Sse), "data: {}\n\ndata: {}\n\n");
        assert_eq!(check(Transport::HttpStream), "{}\n{}\n");
        let farewell = Framing { transport: Transport::HttpStream, encoding: Encoding::Json };
        assert_eq!(
            farewell.farewell(&Disconnect::SHUTDOWN),
            "{\"push\":{\"disconnect\":{\"code\":3001,\"reason\":\"shutdown\"}}}\n"
        );
    }
}
