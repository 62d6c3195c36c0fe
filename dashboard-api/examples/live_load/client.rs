//! Clients that do as little as can be: a socket, and a search for marks in what comes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::Failure;
use crate::server::{Server, now_us};

/// Connections that are being opened at a time.
const OPENING_MAX: u64 = 100;
/// Connections that one address opens: it has not many more ports.
const CLIENTS_PER_ADDRESS: u64 = 5_000;
/// Stands before the time in a payload; the first digit of every time is the same for the next three hundred years.
const MARK: &[u8] = br#""t":1"#;
/// A frame with the question of a server whether the client is still there.
const PING: &[u8] = b"\x81\x02{}";
/// Digits of a time in microseconds.
const TIME_BYTES: usize = 16;

/// A connection that has sent its first commands. Clients come from several addresses of this machine.
pub(crate) async fn open(server: &Server, number: u64, commands: &str) -> Result<TcpStream, Failure> {
    let socket = TcpSocket::new_v4()?;
    let host = u8::try_from(2 + number / CLIENTS_PER_ADDRESS)?;
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0)))?;
    let mut stream = socket.connect(server.address).await?;
    stream.set_nodelay(true)?;
    let handshake = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        server.path, server.address
    );
    stream.write_all(handshake.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    if !commands.is_empty() {
        stream.write_all(&text_frame(commands)).await?;
    }
    Ok(stream)
}

fn text_frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match text.len() {
        n @ 0..126 => frame.push(0x80 | n as u8),
        n => {
            frame.push(0x80 | 126);
            frame.extend((n as u16).to_be_bytes());
        }
    }
    // A mask of zeros leaves the payload as it is.
    frame.extend([0; 4]);
    frame.extend(text.as_bytes());
    frame
}

/// Reads until a marker has come so many times; returns what came.
pub(crate) async fn await_count(stream: &mut TcpStream, marker: &[u8], wanted: usize) -> Result<Vec<u8>, Failure> {
    let mut seen = Vec::new();
    let mut buffer = vec![0; 16 << 10];
    loop {
        if seen.windows(marker.len()).filter(|window| *window == marker).count() >= wanted {
            return Ok(seen);
        }
        let n_bytes = stream.read(&mut buffer).await?;
        if n_bytes == 0 {
            return Err("the server closed a connection".into());
        }
        seen.extend_from_slice(&buffer[..n_bytes]);
    }
}

/// Opens clients, some at a time, each subscribed to the channels.
pub(crate) async fn open_all(server: &Server, clients: u64, channels: &[String]) -> Result<Vec<TcpStream>, Failure> {
    let mut commands = String::new();
    if server.takes_commands() {
        commands.push_str(r#"{"id":1,"connect":{}}"#);
        for (n, channel) in channels.iter().enumerate() {
            commands.push_str(&format!("\n{{\"id\":{},\"subscribe\":{{\"channel\":\"{channel}\"}}}}", n + 2));
        }
    }
    let commands: Arc<str> = commands.into();
    let mut opening = FuturesUnordered::new();
    let mut streams: Vec<TcpStream> = Vec::new();
    for number in 0..clients {
        if opening.len() as u64 >= OPENING_MAX {
            streams.push(opening.next().await.ok_or("nothing is being opened")???);
        }
        let (server, commands, n_channels) = (server.clone(), Arc::clone(&commands), channels.len());
        opening.push(tokio::spawn(async move {
            let mut stream = open(&server, number, &commands).await?;
            await_count(&mut stream, br#""subscribe":{"#, n_channels).await?;
            Ok::<_, Failure>(stream)
        }));
    }
    while let Some(opened) = opening.next().await {
        streams.push(opened??);
    }
    Ok(streams)
}

/// Deliveries to all clients.
#[derive(Default)]
pub(crate) struct Tally {
    delays_us: Mutex<Vec<u32>>,
}

impl Tally {
    pub(crate) fn n_delivered(&self) -> u64 {
        self.delays_us.lock().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    /// The delays so far, in ascending order.
    pub(crate) fn sorted_delays_us(&self) -> Vec<u32> {
        let mut delays = std::mem::take(&mut *self.delays_us.lock().unwrap_or_else(PoisonError::into_inner));
        delays.sort_unstable();
        delays
    }

    /// Counts what a client gets, until its connection ends.
    pub(crate) async fn follow(self: Arc<Self>, mut stream: TcpStream) {
        let mut buffer = vec![0; 16 << 10];
        let mut kept = 0;
        while let Ok(n_bytes @ 1..) = stream.read(&mut buffer[kept..]).await {
            let now = now_us();
            let is_asked = buffer[kept..kept + n_bytes].windows(PING.len()).any(|window| window == PING);
            if is_asked && stream.write_all(&text_frame("{}")).await.is_err() {
                return;
            }
            let bytes = &buffer[..kept + n_bytes];
            let mut at = 0;
            while let Some(next) = bytes[at..].windows(MARK.len()).position(|window| window == MARK) {
                let digits = at + next + MARK.len() - 1;
                let Some(digits) = bytes.get(digits..digits + TIME_BYTES) else { break };
                let sent = digits.iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0'));
                let mut delays = self.delays_us.lock().unwrap_or_else(PoisonError::into_inner);
                delays.push(now.saturating_sub(sent) as u32);
                at += next + MARK.len() - 1 + TIME_BYTES;
            }
            // A mark may be cut in two by the end of a read.
            let filled = bytes.len();
            let rest = at.max(filled.saturating_sub(MARK.len() + TIME_BYTES));
            buffer.copy_within(rest..filled, 0);
            kept = filled - rest;
        }
    }
}
