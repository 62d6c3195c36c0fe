//! The WebSocket transport. One task a connection: it reads into a buffer that all connections of a thread share, and
//! writes the shared bytes of publications as they are, many in one call.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{Buf, Bytes};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::cluster::registry::Transport;
use crate::outbox::{Outbox, Taken};
use crate::problem::Problem;
use crate::protocol::{Disconnect, Encoding};
use crate::server::Placed;
use crate::session::Session;
use crate::state::AppState;
use crate::transport::frame::{self, Decoder, Event};
use crate::transport::{Counted, METERS, count_disconnect};

/// Subprotocol of the JSON form, for clients that name it.
const JSON_SUBPROTOCOL: &str = "centrifuge-json";
/// Subprotocol of the binary form.
const PROTOBUF_SUBPROTOCOL: &str = "centrifuge-protobuf";
/// What the standard adds to the client's key.
const ACCEPT_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// How long a close frame may take, the rest of a write before it included.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the peer gets to close its side; otherwise a reset may overtake the close frame.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes that one read takes in.
const READ_BYTES_MAX: usize = 64 << 10;
/// Buffers that one write takes along.
const SLICES_PER_WRITE_MAX: usize = 64;
/// Control frames that may wait behind a slow write; further pings go unanswered.
const WAITING_BUFFERS_MAX: usize = 256;
/// So often in a row the queue may come before the socket.
const FILLINGS_MAX: usize = 16;
/// A deadline for sessions that have none.
const FAR_AWAY: Duration = Duration::from_secs(3600);

thread_local! {
    /// What a read fills. Its content does not outlive the poll.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES_MAX]);
}

/// Opens a connection.
pub(crate) async fn connect(State(state): State<AppState>, mut request: Request) -> Response {
    let headers = request.headers();
    let Some(accept) = accept_key(headers) else { return not_a_handshake() };
    let offered = offered_protocols(headers);
    let query = request.uri().query().unwrap_or("");
    let wants_protobuf = query.split('&').any(|pair| matches!(pair, "cf_protocol=protobuf" | "format=protobuf"));
    // The first of those spoken here that is offered; a browser fails a handshake that answers none of its offers.
    let spoken =
        if wants_protobuf { [PROTOBUF_SUBPROTOCOL].as_slice() } else { &[JSON_SUBPROTOCOL, PROTOBUF_SUBPROTOCOL] };
    let chosen = spoken.iter().find(|protocol| offered.iter().any(|o| o == *protocol)).copied();
    let is_protobuf = wants_protobuf || chosen == Some(PROTOBUF_SUBPROTOCOL);
    let encoding = if is_protobuf { Encoding::Protobuf } else { Encoding::Json };
    let upgrade = hyper::upgrade::on(&mut request);
    let tracker = state.connections().clone();
    tokio::spawn(tracker.track_future(async move {
        match upgrade.await {
            // Without the boxes of the server around it, where it is a plain socket.
            Ok(upgraded) => match upgraded.downcast::<TokioIo<Placed>>() {
                Ok(parts) => serve(parts.io.into_inner(), parts.read_buf, state, encoding).await,
                Err(upgraded) => serve(TokioIo::<Upgraded>::new(upgraded), Bytes::new(), state, encoding).await,
            },
            Err(error) => tracing::debug!(%error, "a connection ended before it was upgraded"),
        }
    }));
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let out = response.headers_mut();
    out.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    out.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    out.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(chosen) = chosen {
        out.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(chosen));
    }
    response
}

/// The proof that the handshake was understood; `None` if it is none.
pub(crate) fn accept_key(headers: &HeaderMap) -> Option<HeaderValue> {
    let has = |name, wanted: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case(wanted))
    };
    let is_sound = has(header::CONNECTION, "upgrade")
        && has(header::UPGRADE, "websocket")
        && has(header::SEC_WEBSOCKET_VERSION, "13");
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| is_sound)?;
    let digest = Sha1::new().chain_update(key.as_bytes()).chain_update(ACCEPT_SUFFIX).finalize();
    HeaderValue::from_str(&BASE64_STANDARD.encode(digest)).ok()
}

fn not_a_handshake() -> Response {
    let problem = Problem::new(
        StatusCode::UPGRADE_REQUIRED,
        "websocket",
        "this is not a WebSocket handshake of version 13",
        "connect with a WebSocket client; proxies must pass the headers Connection and Upgrade on",
    );
    let mut response = problem.into_response();
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    response
}

fn offered_protocols(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|protocol| protocol.trim().to_owned()).collect()
}

async fn serve<I: AsyncRead + AsyncWrite + Unpin>(io: I, first: Bytes, state: AppState, encoding: Encoding) {
    let message_bytes_max = state.config().limits.message_bytes;
    let mut socket = Socket { io, decoder: Decoder::new(message_bytes_max), writing: VecDeque::new() };
    let Some(permit) = state.connection_permit() else {
        let refusal = state.connection_refusal();
        count_disconnect(&refusal);
        socket.close(&refusal).await;
        return;
    };
    let counted = Counted::new(Transport::WebSocket);
    let session = Session::new(Arc::clone(state.sessions()), Transport::WebSocket, encoding);
    let client = session.client().to_owned();
    let write_timeout = Duration::from_secs(state.config().heartbeat.write_seconds.into());
    drop(state);
    let disconnect = Connection { socket, session, encoding, write_timeout }.run(first).await;
    count_disconnect(&disconnect);
    tracing::debug!(client, code = disconnect.code, reason = &*disconnect.reason, "connection closed");
    drop((permit, counted));
}

/// A socket with what is on its way.
struct Socket<I> {
    io: I,
    decoder: Decoder,
    /// What is still to be written: bytes, and whether a frame begins with them.
    writing: VecDeque<(Bytes, bool)>,
}

/// What happened on a socket.
enum Progress {
    /// These came.
    Read(Vec<Event>),
    /// Something was written.
    Wrote,
    /// The peer has gone.
    Gone,
    /// The peer broke the rules.
    Broken(Disconnect),
}

impl<I: AsyncRead + AsyncWrite + Unpin> Socket<I> {
    /// Writes what waits, and reads what comes.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Progress> {
        if !self.writing.is_empty() {
            match self.poll_write(cx) {
                Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => return Poll::Ready(Progress::Gone),
                Poll::Ready(Ok(n_bytes)) => {
                    self.written(n_bytes);
                    return Poll::Ready(Progress::Wrote);
                }
                Poll::Pending => {}
            }
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => Poll::Ready(self.decode(buffer.filled())),
                Poll::Ready(_) => Poll::Ready(Progress::Gone),
            }
        })
    }

    /// Takes what the next write takes along.
    fn take(&mut self, outbox: &Outbox) -> Taken {
        let taken = outbox.take(|line| {
            let starts = std::iter::once(true).chain(std::iter::repeat(false));
            self.writing.extend(line.framed().cloned().zip(starts));
        });
        if taken.n_messages > 0 {
            METERS.messages_sent.increment(taken.n_messages);
        }
        taken
    }

    /// Writes as much as goes out without waiting. Returns whether the peer is still there.
    async fn write_now(&mut self) -> bool {
        poll_fn(|cx| {
            while !self.writing.is_empty() {
                match self.poll_write(cx) {
                    Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => return Poll::Ready(false),
                    Poll::Ready(Ok(n_bytes)) => self.written(n_bytes),
                    Poll::Pending => break,
                }
            }
            Poll::Ready(true)
        })
        .await
    }

    fn decode(&mut self, bytes: &[u8]) -> Progress {
        let mut events = Vec::new();
        match self.decoder.decode(bytes, &mut events) {
            Ok(()) => Progress::Read(events),
            Err(disconnect) => Progress::Broken(disconnect),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let [(only, _)] = self.writing.make_contiguous() {
            return Pin::new(&mut self.io).poll_write(cx, only);
        }
        let mut slices = [IoSlice::new(&[]); SLICES_PER_WRITE_MAX];
        let mut n_slices = 0;
        for (slice, (bytes, _)) in slices.iter_mut().zip(&self.writing) {
            *slice = IoSlice::new(bytes);
            n_slices += 1;
        }
        Pin::new(&mut self.io).poll_write_vectored(cx, &slices[..n_slices])
    }

    fn written(&mut self, mut n_bytes: usize) {
        METERS.sent_bytes.increment(n_bytes as u64);
        while n_bytes > 0 {
            let Some((front, is_start)) = self.writing.front_mut() else { return };
            if front.len() > n_bytes {
                front.advance(n_bytes);
                *is_start = false;
                return;
            }
            n_bytes -= front.len();
            self.writing.pop_front();
        }
        if self.writing.is_empty() && self.writing.capacity() > 8 {
            self.writing = VecDeque::new();
        }
    }

    /// Drops the frames of which nothing has been written.
    fn drop_unwritten(&mut self) {
        if let Some(next) = self.writing.iter().position(|(_, is_start)| *is_start) {
            self.writing.truncate(next);
        }
    }

    /// Finishes what is begun, says why, and waits a moment for the peer to close its side.
    async fn close(&mut self, disconnect: &Disconnect) {
        self.writing.push_back((frame::close(disconnect), true));
        let writing = timeout(CLOSE_TIMEOUT, async {
            while !self.writing.is_empty() {
                match poll_fn(|cx| self.poll_write(cx)).await {
                    Ok(n_bytes) if n_bytes > 0 => self.written(n_bytes),
                    _ => return false,
                }
            }
            self.io.shutdown().await.is_ok()
        });
        if writing.await == Ok(true) {
            let lingering = async { while !matches!(poll_fn(|cx| self.poll(cx)).await, Progress::Gone) {} };
            // Whoever does not close is left alone.
            drop(timeout(LINGER_TIMEOUT, lingering).await);
        }
    }
}

/// A socket and its session.
struct Connection<I> {
    socket: Socket<I>,
    session: Session,
    encoding: Encoding,
    write_timeout: Duration,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Connection<I> {
    /// Runs until the session ends, whoever ends it. Returns why it did.
    async fn run(mut self, first: Bytes) -> Disconnect {
        let outbox = Arc::clone(self.session.outbox());
        self.begin(first);
        let mut session_due = self.session.next_deadline();
        // When the write under way must have got on.
        let mut write_due: Option<Instant> = None;
        let mut sleep = pin!(sleep_until(earlier(session_due, write_due)));
        let mut n_fillings = 0;
        loop {
            let mut has_more = false;
            if self.socket.writing.is_empty() {
                let taken = self.socket.take(&outbox);
                if let Some(disconnect) = taken.close {
                    self.socket.close(&disconnect).await;
                    return disconnect;
                }
                // Nearly always everything goes out at once; only what stays behind needs a deadline.
                if !self.socket.writing.is_empty() && !self.socket.write_now().await {
                    return outbox.closing().unwrap_or(Disconnect::CLOSED_BY_PEER);
                }
                has_more = taken.has_more && self.socket.writing.is_empty();
            } else if outbox.closing() == Some(Disconnect::SLOW) {
                // Stop waiting for it. The frame begun is finished before the close frame.
                self.socket.drop_unwritten();
                self.socket.close(&Disconnect::SLOW).await;
                return Disconnect::SLOW;
            }
            match self.socket.writing.is_empty() {
                true => write_due = None,
                false => drop(write_due.get_or_insert_with(|| Instant::now() + self.write_timeout)),
            }
            reset(sleep.as_mut(), earlier(session_due, write_due));
            let takes_turns = n_fillings >= FILLINGS_MAX;
            // The queue first: it is what most often wakes a connection, and looking at a socket costs more.
            tokio::select! {
                biased;
                () = outbox.filled(), if !takes_turns => {
                    n_fillings += 1;
                    if self.session.on_wake() {
                        session_due = self.session.next_deadline();
                    }
                }
                progress = poll_fn(|cx| self.socket.poll(cx)) => {
                    n_fillings = 0;
                    if matches!(progress, Progress::Wrote) {
                        write_due = None;
                    }
                    if matches!(progress, Progress::Gone) {
                        return outbox.closing().unwrap_or(Disconnect::CLOSED_BY_PEER);
                    }
                    self.on_progress(progress);
                    session_due = self.session.next_deadline();
                }
                () = sleep.as_mut() => {
                    let now = Instant::now();
                    if write_due.is_some_and(|due| due <= now) {
                        outbox.close(Disconnect::WRITE_ERROR);
                        return Disconnect::WRITE_ERROR;
                    }
                    self.session.on_deadline(now);
                    session_due = self.session.next_deadline();
                }
                () = std::future::ready(()), if has_more || takes_turns => n_fillings = 0,
            }
        }
    }

    /// Takes what came behind the handshake. It is a piece of the request's buffer, which goes with it.
    fn begin(&mut self, first: Bytes) {
        if !first.is_empty() {
            let progress = self.socket.decode(&first);
            self.on_progress(progress);
        }
    }

    fn on_progress(&mut self, progress: Progress) {
        let outbox: &Outbox = self.session.outbox();
        match progress {
            Progress::Broken(disconnect) => outbox.close(disconnect),
            Progress::Read(events) => {
                for event in events {
                    if self.session.outbox().closing().is_some() {
                        return;
                    }
                    self.on_event(event);
                }
            }
            Progress::Wrote | Progress::Gone => {}
        }
    }

    fn on_event(&mut self, event: Event) {
        METERS.frames_received.increment(1);
        match (event, self.encoding) {
            (Event::Text(frame), Encoding::Json) | (Event::Binary(frame), Encoding::Protobuf) => {
                self.session.on_frame(&frame);
            }
            (Event::Text(_) | Event::Binary(_), _) => self.session.outbox().close(Disconnect::INAPPROPRIATE_PROTOCOL),
            (Event::Ping(payload), _) if self.socket.writing.len() < WAITING_BUFFERS_MAX => {
                self.socket.writing.push_back((frame::pong(&payload), true));
            }
            (Event::Ping(_) | Event::Pong, _) => {}
            (Event::Close, _) => self.session.outbox().close(Disconnect::CLOSED_BY_PEER),
        }
    }
}

/// The earlier of two deadlines.
fn earlier(session_due: Option<Instant>, write_due: Option<Instant>) -> Instant {
    [session_due, write_due].into_iter().flatten().min().unwrap_or_else(|| Instant::now() + FAR_AWAY)
}

/// Moves a timer, if that makes a difference.
fn reset(sleep: Pin<&mut Sleep>, deadline: Instant) {
    if sleep.deadline() != deadline {
        sleep.reset(deadline);
    }
}
