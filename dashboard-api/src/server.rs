//! The HTTP server: accepts connections, with TLS where a certificate is configured, and bounds what a connection may
//! take before a route sees it: how many from one address, how long a handshake and a request's head, how large a head.
//!
//! Connections are upgraded to WebSockets as routes want. At shutdown requests in progress are finished.

mod tls;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use metrics::{counter, gauge};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::config::{ApiConfig, ServerConfig};
use crate::error::Error;
use crate::limits::network_of;

pub(crate) use tls::Certificate;

/// Protocol that a client chose in the TLS handshake.
const HTTP2: &[u8] = b"h2";
/// Streams of one HTTP/2 connection at a time.
const HTTP2_STREAMS_MAX: u32 = 128;
/// After an error of the listener (too many open files, for example) it waits so long before it accepts again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that may wait to be accepted: a whole company comes back at once when its network does. One more is heard
/// only when it asks again, a second or more later. The kernel has a bound of its own, `net.core.somaxconn`.
const WAITING_MAX: u32 = 16_384;

/// Listens at `HOST:PORT`, with room for many who come at once.
///
/// # Errors
/// If there is no such address, or somebody listens there already.
pub async fn listen(address: &str) -> io::Result<TcpListener> {
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    for address in tokio::net::lookup_host(address).await? {
        match listen_at(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn listen_at(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A node that starts again does not wait for the connections of its last life.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(WAITING_MAX)
}

/// Address of the other end of the connection; every request carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Serves until `shutdown`, then waits for the requests in progress.
///
/// # Errors
/// If the certificate cannot be used.
pub(crate) async fn serve(
    listener: TcpListener,
    config: &ApiConfig,
    app: Router,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let certificate = match &config.tls.certificate_file {
        None => None,
        Some(_) => Some(Arc::new(Certificate::load(&config.tls)?)),
    };
    let shared = Arc::new(Shared {
        server: config.server.clone(),
        counts: Counts::new(config.server.connections_per_address, &config.trusted_proxies),
        certificate: certificate.clone(),
        app,
        shutdown: shutdown.clone(),
    });
    let connections = TaskTracker::new();
    let reloading = async {
        match &certificate {
            Some(certificate) => certificate.follow().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = accept(&listener, &shared, &connections) => {}
        () = reloading => {}
        () = shutdown.cancelled() => {}
    }
    drop(listener);
    connections.close();
    connections.wait().await;
    Ok(())
}

struct Shared {
    server: ServerConfig,
    counts: Counts,
    certificate: Option<Arc<Certificate>>,
    app: Router,
    shutdown: CancellationToken,
}

async fn accept(listener: &TcpListener, shared: &Arc<Shared>, connections: &TaskTracker) {
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if is_of_the_peer(&error) => continue,
            Err(error) => {
                tracing::error!(%error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(place) = shared.counts.take(address.ip()) else {
            counter!("api_connections_refused_total", "reason" => "address").increment(1);
            // Closed without a word: an answer would cost what the limit is to save.
            continue;
        };
        // Small messages are sent at once. Otherwise the kernel holds one back until the peer has acknowledged the one
        // before, which peers put off for 40 ms.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY cannot be set");
        }
        let shared = Arc::clone(shared);
        let stream = Placed { stream, _place: place };
        connections.spawn(async move { connection(stream, address, &shared).await });
    }
}

/// A connection that was lost before it was accepted is no error of ours.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

async fn connection(stream: Placed, address: SocketAddr, shared: &Shared) {
    let Some(certificate) = &shared.certificate else {
        return serve_http1(stream, address, shared).await;
    };
    let patience = Duration::from_secs(shared.server.handshake_seconds.into());
    let handshake = certificate.acceptor().accept(stream);
    match tokio::time::timeout(patience, handshake).await {
        Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(HTTP2) => {
            serve_http2(stream, address, shared).await;
        }
        Ok(Ok(stream)) => serve_http1(stream, address, shared).await,
        Ok(Err(error)) => {
            counter!("api_connections_refused_total", "reason" => "handshake").increment(1);
            tracing::debug!(%error, %address, "the TLS handshake failed");
        }
        Err(_) => {
            counter!("api_connections_refused_total", "reason" => "handshake").increment(1);
            tracing::debug!(%address, "the TLS handshake took too long");
        }
    }
}

async fn serve_http1<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    address: SocketAddr,
    shared: &Shared,
) {
    let app = shared.app.clone();
    let service = service_fn(move |request| answer(app.clone(), address, request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(shared.server.header_seconds.into()))
        .max_headers(shared.server.headers)
        .max_buf_size(shared.server.header_bytes)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = shared.shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    ended(outcome, address);
}

async fn serve_http2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    address: SocketAddr,
    shared: &Shared,
) {
    let app = shared.app.clone();
    let service = service_fn(move |request| answer(app.clone(), address, request));
    let idle = Duration::from_secs(shared.server.idle_seconds.into());
    let header_bytes = u32::try_from(shared.server.header_bytes).unwrap_or(u32::MAX);
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(idle)
        .keep_alive_timeout(idle)
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .max_header_list_size(header_bytes)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = shared.shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    ended(outcome, address);
}

async fn answer(
    app: Router,
    address: SocketAddr,
    mut request: Request<Incoming>,
) -> Result<axum::response::Response, std::convert::Infallible> {
    request.extensions_mut().insert(Peer(address));
    app.oneshot(request.map(Body::new)).await
}

fn ended(outcome: Result<(), hyper::Error>, address: SocketAddr) {
    let Err(error) = outcome else { return };
    let reason = match () {
        () if error.is_timeout() => "header_timeout",
        () if error.is_parse_too_large() => "header_size",
        () if error.is_parse() => "malformed",
        () => return tracing::debug!(%error, %address, "a connection ended"),
    };
    counter!("api_connections_refused_total", "reason" => reason).increment(1);
    tracing::debug!(%error, %address, reason, "a connection was refused");
}

/// A connection with its place among those of its address: it keeps it when it becomes a WebSocket.
pub(crate) struct Placed {
    stream: TcpStream,
    _place: Place,
}

impl AsyncRead for Placed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Placed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// How many connections each address has; those of one IPv6 network count together.
struct Counts {
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    limit: usize,
    exempt: Vec<IpAddr>,
}

/// One of the connections that an address may have; dropping it gives it back.
struct Place {
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    network: IpAddr,
}

impl Counts {
    /// A proxy that is trusted has the connections of all its clients.
    fn new(limit: usize, exempt: &[IpAddr]) -> Self {
        Self { by_address: Arc::default(), limit, exempt: exempt.to_vec() }
    }

    fn take(&self, address: IpAddr) -> Option<Place> {
        let (address, network) = (address.to_canonical(), network_of(address));
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let n_open = by_address.entry(network).or_default();
        if *n_open >= self.limit && !self.exempt.contains(&address) {
            return None;
        }
        *n_open += 1;
        gauge!("api_http_connections_open").increment(1.0);
        Some(Place { by_address: Arc::clone(&self.by_address), network })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        gauge!("api_http_connections_open").decrement(1.0);
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n_open) = by_address.get_mut(&self.network) {
            *n_open -= 1;
            if *n_open == 0 {
                by_address.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn many_may_come_at_once() {
        // What the kernel allows, if that is less.
        let text = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap_or_default();
        let n_clients = text.trim().parse().unwrap_or(128).min(1_500);
        let listener = listen("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let coming: Vec<_> = (0..n_clients).map(|_| TcpStream::connect(address)).collect();
        // Nobody is accepted yet. Whoever finds no room asks again after a second, in vain.
        let come = tokio::time::timeout(Duration::from_secs(20), futures::future::try_join_all(coming)).await;
        assert_eq!(come.expect("there is room for all").expect("nobody is refused").len(), n_clients);
    }

    #[test]
    fn an_address_has_so_many_places() {
        let proxy: IpAddr = "10.0.0.1".parse().expect("an address");
        let counts = Counts::new(2, &[proxy]);
        let address: IpAddr = "192.0.2.7".parse().expect("an address");
        let mapped: IpAddr = "::ffff:192.0.2.7".parse().expect("an address");
        let first = counts.take(address);
        let second = counts.take(mapped);
        assert!(first.is_some() && second.is_some());
        assert!(counts.take(address).is_none(), "the same address, written in two ways");
        assert!(counts.take("192.0.2.8".parse().expect("an address")).is_some());
        drop(first);
        assert!(counts.take(address).is_some());
        let many: Vec<_> = (0..10).map(|_| counts.take(proxy)).collect();
        assert!(many.iter().all(Option::is_some));
        drop((many, second));
        assert!(counts.by_address.lock().expect("not poisoned").is_empty());
    }
}
