//! The server under load, seen from outside: its address, what it takes of the machine, and how it is told to publish.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Failure;

/// Path of servers that speak the Centrifuge protocol.
const CENTRIFUGE_PATH: &str = "/connection/websocket";
/// Path of a node that takes changes for the topic `bench.ping`.
const INGEST_PATH: &str = "/api/v1/ingest/bench.ping";
/// Rows that the changes go round.
const N_ROWS: u64 = 1_000;
/// What a payload needs beside its padding.
const PAYLOAD_BYTES: usize = 34;

/// Whom to load.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) path: String,
    pub(crate) pid: u32,
    /// Opens the routes through which is published.
    key: String,
}

impl Server {
    /// From `ws://ADDRESS:PORT/PATH`.
    pub(crate) fn new(url: &str, pid: u32) -> Result<Self, Failure> {
        let rest = url.strip_prefix("ws://").ok_or("URL begins with ws://")?;
        let (address, path) = rest.split_once('/').ok_or("URL has no path")?;
        let key = std::env::var("LIVE_LOAD_KEY").unwrap_or_default();
        Ok(Self { address: address.parse()?, path: format!("/{path}"), pid, key })
    }

    /// Whether clients subscribe by commands; elsewhere a connection is a subscription.
    pub(crate) fn takes_commands(&self) -> bool {
        self.path == CENTRIFUGE_PATH
    }

    /// Processor time that the server has taken, in microseconds.
    pub(crate) fn cpu_us(&self) -> Result<u64, Failure> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        // User and system time, in hundredths of a second.
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        Ok(ticks * 10_000)
    }

    /// Resident memory, in bytes.
    pub(crate) fn memory_bytes(&self) -> Result<u64, Failure> {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.pid))?;
        let pages: u64 = statm.split(' ').nth(1).ok_or("statm")?.parse()?;
        Ok(pages * 4096)
    }
}

/// Publishes over one connection.
pub(crate) struct Publisher {
    stream: TcpStream,
    server: Server,
}

impl Publisher {
    pub(crate) async fn connect(server: &Server) -> Result<Self, Failure> {
        let stream = TcpStream::connect(server.address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, server: server.clone() })
    }

    /// Publishes in a channel, through the server API.
    pub(crate) async fn publish(&mut self, channel: u64, n_bytes: usize) -> Result<(), Failure> {
        let padding = "x".repeat(n_bytes.saturating_sub(PAYLOAD_BYTES));
        let body = format!(r#"{{"channel":"bench{channel}","data":{{"t":{},"pad":"{padding}"}}}}"#, now_us());
        self.post("/api/publish", &body).await
    }

    /// Changes a row of the table `ping`, as its source would.
    pub(crate) async fn change(&mut self, n: u64, n_bytes: usize) -> Result<(), Failure> {
        let padding = "x".repeat(n_bytes.saturating_sub(PAYLOAD_BYTES));
        let (id, now_us) = (n % N_ROWS, now_us());
        let body = format!(
            r#"{{"before":null,"after":{{"id":{id},"t":{now_us},"pad":"{padding}"}},"source":{{"lsn":{now_us}}},"op":"c"}}"#
        );
        self.post(INGEST_PATH, &body).await
    }

    async fn post(&mut self, path: &str, body: &str) -> Result<(), Failure> {
        let Server { address, key, .. } = &self.server;
        let n_bytes = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nX-API-Key: {key}\r\nContent-Type: application/json\r\nContent-Length: {n_bytes}\r\n\r\n{body}"
        );
        self.stream.write_all(request.as_bytes()).await?;
        let mut buffer = vec![0; 4096];
        let mut seen = Vec::new();
        while !is_complete(&seen) {
            let n_bytes = self.stream.read(&mut buffer).await?;
            if n_bytes == 0 {
                return Err("the server closed the connection of the publisher".into());
            }
            seen.extend_from_slice(&buffer[..n_bytes]);
        }
        match seen.starts_with(b"HTTP/1.1 200") {
            true => Ok(()),
            false => Err(format!("refused: {}", String::from_utf8_lossy(&seen)).into()),
        }
    }
}

/// Whether this is a whole answer.
fn is_complete(answer: &[u8]) -> bool {
    let Some(head_bytes) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..head_bytes]).to_ascii_lowercase();
    let body = &answer[head_bytes + 4..];
    let length = head.split("content-length:").nth(1).and_then(|rest| rest.lines().next()?.trim().parse().ok());
    length.map_or_else(|| body.ends_with(b"0\r\n\r\n"), |length: usize| body.len() >= length)
}

/// Microseconds since 1970.
pub(crate) fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}
