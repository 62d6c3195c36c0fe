//! Loads a server that speaks the Centrifuge protocol, and measures what it costs: `live_load MODE ADDRESS PID …`.
//!
//! - `fanout ADDRESS PID CLIENTS MESSAGES RATE BYTES`: all clients in one channel, messages published through the server
//!   API; processor time of the server per delivery, and the delay from the call to the client;
//! - `tiles ADDRESS PID CLIENTS CHANNELS SECONDS`: every client in all channels, one message a second in each;
//! - `idle ADDRESS PID CLIENTS`: memory of the server per connected and subscribed client;
//! - `storm ADDRESS PID CLIENTS`: all clients come back at once and recover ten messages each.
//!
//! The same program measures every server, with nothing but sockets, so that its own cost is small and the same for all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Connections that are being opened at a time.
const OPENING_MAX: usize = 100;
/// A run that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(120);
const KEY: &str = "bench";

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mode, address, pid, numbers @ ..] = arguments.as_slice() else { return Err("MODE ADDRESS PID …".into()) };
    let numbers: Vec<u64> = numbers.iter().map(|number| number.parse()).collect::<Result<_, _>>()?;
    let server = Server { address: address.clone(), pid: pid.parse()? };
    match (mode.as_str(), numbers.as_slice()) {
        ("fanout", [clients, messages, rate, bytes]) => {
            fanout(server, *clients, *messages, *rate, *bytes as usize).await
        }
        ("tiles", [clients, channels, seconds]) => tiles(server, *clients, *channels, *seconds).await,
        ("idle", [clients]) => idle(server, *clients).await,
        ("storm", [clients]) => storm(server, *clients).await,
        _ => Err("see the head of this file".into()),
    }
}

#[derive(Clone)]
struct Server {
    address: String,
    pid: u32,
}

impl Server {
    /// Processor time that the server has taken, in microseconds.
    fn cpu_us(&self) -> Result<u64, Failure> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        // User and system time, in hundredths of a second.
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        Ok(ticks * 10_000)
    }

    /// Resident memory, in bytes.
    fn memory_bytes(&self) -> Result<u64, Failure> {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.pid))?;
        let pages: u64 = statm.split(' ').nth(1).ok_or("statm")?.parse()?;
        Ok(pages * 4096)
    }
}

/// A connection that has sent its first commands.
async fn open(server: &Server, commands: &str) -> Result<TcpStream, Failure> {
    let mut stream = TcpStream::connect(&server.address).await?;
    stream.set_nodelay(true)?;
    let handshake = format!(
        "GET /connection/websocket HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        server.address
    );
    stream.write_all(handshake.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let length = commands.len();
    let mut frame = vec![0x81];
    match length {
        0..126 => frame.push(0x80 | length as u8),
        _ => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
    }
    // A mask of zeros leaves the payload as it is.
    frame.extend([0; 4]);
    frame.extend(commands.as_bytes());
    stream.write_all(&frame).await?;
    Ok(stream)
}

/// Reads until so many replies and publications have come in.
async fn await_count(stream: &mut TcpStream, marker: &[u8], wanted: usize) -> Result<Vec<u8>, Failure> {
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
async fn open_all(server: &Server, clients: u64, channels: u64) -> Result<Vec<TcpStream>, Failure> {
    let mut commands = String::from(r#"{"id":1,"connect":{}}"#);
    for channel in 0..channels {
        commands.push_str(&format!("\n{{\"id\":{},\"subscribe\":{{\"channel\":\"bench{channel}\"}}}}", channel + 2));
    }
    let mut opening = FuturesUnordered::new();
    let mut streams: Vec<TcpStream> = Vec::new();
    for _ in 0..clients {
        if opening.len() >= OPENING_MAX {
            streams.push(opening.next().await.ok_or("nothing is being opened")???);
        }
        let (server, commands) = (server.clone(), commands.clone());
        opening.push(tokio::spawn(async move {
            let mut stream = open(&server, &commands).await?;
            await_count(&mut stream, br#""subscribe":{"#, channels as usize).await?;
            Ok::<_, Failure>(stream)
        }));
    }
    while let Some(opened) = opening.next().await {
        streams.push(opened??);
    }
    Ok(streams)
}

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// Counts deliveries, and notes the delay of each.
fn count(mut stream: TcpStream, delivered: Arc<AtomicU64>, delays: Arc<Mutex<Vec<u32>>>) {
    tokio::spawn(async move {
        let mut buffer = vec![0; 16 << 10];
        let mut noted = Vec::new();
        while let Ok(n_bytes @ 1..) = stream.read(&mut buffer).await {
            let now = now_us();
            let mut rest = &buffer[..n_bytes];
            // A time cut in two by the end of a read is left out of the delays, and counted by its marker.
            while let Some(at) = rest.windows(5).position(|window| window == br#""t":1"#) {
                let digits = &rest[at + 4..];
                let sent: u64 =
                    digits.iter().take_while(|b| b.is_ascii_digit()).fold(0, |n, b| n * 10 + u64::from(b - b'0'));
                if sent > 1_000_000_000_000_000 {
                    noted.push(now.saturating_sub(sent) as u32);
                }
                delivered.fetch_add(1, Ordering::Relaxed);
                rest = &digits[1..];
            }
            delays.lock().unwrap_or_else(PoisonError::into_inner).append(&mut noted);
        }
    });
}

/// Publishes through the server API, over one connection.
struct Publisher {
    stream: TcpStream,
    address: String,
}

impl Publisher {
    async fn publish(&mut self, channel: u64, bytes: usize) -> Result<(), Failure> {
        let padding = "x".repeat(bytes.saturating_sub(34));
        let body = format!(r#"{{"channel":"bench{channel}","data":{{"t":{},"pad":"{padding}"}}}}"#, now_us());
        let request = format!(
            "POST /api/publish HTTP/1.1\r\nHost: {}\r\nX-API-Key: {KEY}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await?;
        let mut buffer = vec![0; 4096];
        let mut seen = Vec::new();
        while !(seen.ends_with(b"}") || seen.ends_with(b"}\n") || seen.ends_with(b"\r\n0\r\n\r\n")) {
            let n_bytes = self.stream.read(&mut buffer).await?;
            if n_bytes == 0 {
                return Err("the server API closed the connection".into());
            }
            seen.extend_from_slice(&buffer[..n_bytes]);
        }
        Ok(())
    }
}

async fn measure(
    server: Server,
    streams: Vec<TcpStream>,
    expected: u64,
    publishing: impl AsyncFnOnce(&mut Publisher) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let delivered = Arc::new(AtomicU64::new(0));
    let delays = Arc::new(Mutex::new(Vec::new()));
    for stream in streams {
        count(stream, Arc::clone(&delivered), Arc::clone(&delays));
    }
    let mut publisher =
        Publisher { stream: TcpStream::connect(&server.address).await?, address: server.address.clone() };
    publisher.stream.set_nodelay(true)?;
    let (cpu_before, started) = (server.cpu_us()?, Instant::now());
    publishing(&mut publisher).await?;
    while delivered.load(Ordering::Relaxed) < expected && started.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (elapsed, cpu_us) = (started.elapsed(), server.cpu_us()? - cpu_before);
    let n_delivered = delivered.load(Ordering::Relaxed);
    let mut delays = std::mem::take(&mut *delays.lock().unwrap_or_else(PoisonError::into_inner));
    delays.sort_unstable();
    let at = |share: f64| delays.get((delays.len() as f64 * share) as usize).map_or(0.0, |us| f64::from(*us) / 1000.0);
    println!(
        "deliveries={n_delivered} of={expected} seconds={:.2} cpu_us_per_delivery={:.2} p50_ms={:.1} p99_ms={:.1} p999_ms={:.1}",
        elapsed.as_secs_f64(),
        cpu_us as f64 / n_delivered.max(1) as f64,
        at(0.5),
        at(0.99),
        at(0.999)
    );
    Ok(())
}

async fn fanout(server: Server, clients: u64, messages: u64, rate: u64, bytes: usize) -> Result<(), Failure> {
    let streams = open_all(&server, clients, 1).await?;
    let publishing = async move |publisher: &mut Publisher| {
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate as u32);
        for _ in 0..messages {
            ticks.tick().await;
            publisher.publish(0, bytes).await?;
        }
        Ok(())
    };
    measure(server, streams, clients * messages, publishing).await
}

async fn tiles(server: Server, clients: u64, channels: u64, seconds: u64) -> Result<(), Failure> {
    let streams = open_all(&server, clients, channels).await?;
    let publishing = async move |publisher: &mut Publisher| {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        for _ in 0..seconds {
            ticks.tick().await;
            for channel in 0..channels {
                publisher.publish(channel, 200).await?;
            }
        }
        Ok(())
    };
    measure(server, streams, clients * channels * seconds, publishing).await
}

async fn idle(server: Server, clients: u64) -> Result<(), Failure> {
    // What the server takes once for any number of clients.
    drop(open_all(&server, 500, 1).await?);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = server.memory_bytes()?;
    let streams = open_all(&server, clients, 1).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let after = server.memory_bytes()?;
    println!(
        "clients={} kib_per_client={:.1} resident_mib={:.0}",
        streams.len(),
        after.saturating_sub(before) as f64 / 1024.0 / clients as f64,
        after as f64 / 1048576.0
    );
    Ok(())
}

async fn storm(server: Server, clients: u64) -> Result<(), Failure> {
    let mut first =
        open(&server, "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"bench0\"}}").await?;
    let reply = await_count(&mut first, br#""subscribe":{"#, 1).await?;
    let reply = String::from_utf8_lossy(&reply);
    let field = |name: &str| {
        reply
            .split(name)
            .nth(1)
            .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '-').collect::<String>())
    };
    let epoch = field("\"epoch\":\"").unwrap_or_default();
    let offset = reply.rsplit("\"subscribe\":").next().and_then(|rest| rest.split("\"offset\":").nth(1));
    let offset: String = offset.map_or("0".to_owned(), |rest| rest.chars().take_while(char::is_ascii_digit).collect());
    let mut publisher =
        Publisher { stream: TcpStream::connect(&server.address).await?, address: server.address.clone() };
    for _ in 0..10 {
        publisher.publish(0, 200).await?;
    }
    let commands = format!(
        "{{\"id\":1,\"connect\":{{}}}}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"bench0\",\"recover\":true,\"epoch\":\"{epoch}\",\"offset\":{offset}}}}}"
    );
    let (cpu_before, started) = (server.cpu_us()?, Instant::now());
    let mut coming: FuturesUnordered<_> = (0..clients)
        .map(|_| {
            let (server, commands) = (server.clone(), commands.clone());
            tokio::spawn(async move {
                let mut stream = open(&server, &commands).await?;
                let reply = await_count(&mut stream, br#""t":1"#, 10).await?;
                let is_recovered = String::from_utf8_lossy(&reply).contains(r#""recovered":true"#);
                Ok::<_, Failure>((stream, is_recovered))
            })
        })
        .collect();
    let mut n_recovered = 0;
    let mut streams = Vec::new();
    while let Some(outcome) = coming.next().await {
        let (stream, is_recovered) = outcome??;
        n_recovered += u64::from(is_recovered);
        streams.push(stream);
    }
    println!(
        "clients={clients} recovered={n_recovered} seconds={:.2} cpu_us_per_client={:.0}",
        started.elapsed().as_secs_f64(),
        (server.cpu_us()? - cpu_before) as f64 / clients as f64
    );
    Ok(())
}
