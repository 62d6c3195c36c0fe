//! Loads a server, and measures what it costs: `live_load MODE URL PID …`, URL being that of its WebSockets.
//!
//! - `fanout URL PID CLIENTS MESSAGES RATE BYTES`: all clients in one channel, messages published through the server
//!   API; processor time of the server per delivery, and the delay from the call to the client;
//! - `view URL PID CLIENTS CHANGES RATE BYTES`: all clients on the view `pings`, whose table's topic `bench.ping` gets
//!   changes over HTTP: the delay is that from a change on its way into the log, through the engine, to the client;
//! - `tiles URL PID CLIENTS CHANNELS SECONDS`: every client in all channels, one message a second in each;
//! - `idle URL PID CLIENTS`: memory of the server per connected and subscribed client, of a server that is new;
//! - `storm URL PID CLIENTS`: all clients come back at once and recover ten messages each.
//!
//! The variable `LIVE_LOAD_KEY` holds the API key. The same program measures every server, with nothing but sockets on
//! one thread, so that its own cost is small and the same for all. Servers that do not speak the Centrifuge protocol
//! (their URL ends in another path) are only measured in `fanout` and `idle`: there a connection is the subscription,
//! confirmed by a message with `"subscribe":{`.

mod client;
mod server;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use client::{Tally, await_count, open, open_all};
use server::{Publisher, Server};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A run that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(180);
/// After clients have come, a server gets so long to come to rest.
const REST: Duration = Duration::from_secs(2);
/// Clients that are there before memory is measured.
const FIRST_CLIENTS: u64 = 500;
/// Bytes of a message where none are given.
const MESSAGE_BYTES: usize = 200;
/// Messages that a client of a storm has missed.
const N_MISSED: usize = 10;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mode, url, pid, numbers @ ..] = arguments.as_slice() else { return Err("MODE URL PID …".into()) };
    let numbers: Vec<u64> = numbers.iter().map(|number| number.parse()).collect::<Result<_, _>>()?;
    let server = Server::new(url, pid.parse()?)?;
    match (mode.as_str(), numbers.as_slice()) {
        ("fanout", [clients, messages, rate, bytes]) => {
            let load = Load { messages: *messages, rate: *rate, bytes: *bytes as usize };
            fanout(server, *clients, load, "bench0").await
        }
        ("view", [clients, changes, rate, bytes]) => {
            let load = Load { messages: *changes, rate: *rate, bytes: *bytes as usize };
            fanout(server, *clients, load, "view:pings").await
        }
        ("tiles", [clients, channels, seconds]) => tiles(server, *clients, *channels, *seconds).await,
        ("idle", [clients]) => idle(server, *clients).await,
        ("storm", [clients]) => storm(server, *clients).await,
        _ => Err("see the head of this file".into()),
    }
}

/// What is published: how many, how many a second, how large.
struct Load {
    messages: u64,
    rate: u64,
    bytes: usize,
}

/// Publishes while clients count, until they have got what is expected.
async fn measure(
    server: Server,
    streams: Vec<tokio::net::TcpStream>,
    expected: u64,
    publishing: impl AsyncFnOnce(&mut Publisher) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let tally = Arc::new(Tally::default());
    for stream in streams {
        tokio::spawn(Arc::clone(&tally).follow(stream));
    }
    let mut publisher = Publisher::connect(&server).await?;
    tokio::time::sleep(REST).await;
    let (cpu_before, started) = (server.cpu_us()?, Instant::now());
    publishing(&mut publisher).await?;
    while tally.n_delivered() < expected && started.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (elapsed, cpu_us) = (started.elapsed(), server.cpu_us()? - cpu_before);
    let delays_us = tally.sorted_delays_us();
    let n_delivered = delays_us.len();
    let at =
        |share: f64| delays_us.get((n_delivered as f64 * share) as usize).map_or(0.0, |us| f64::from(*us) / 1000.0);
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

async fn fanout(server: Server, clients: u64, load: Load, channel: &str) -> Result<(), Failure> {
    let streams = open_all(&server, clients, &[channel.to_owned()]).await?;
    let is_view = channel.starts_with("view:");
    let expected = clients * load.messages;
    let publishing = async move |publisher: &mut Publisher| {
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / load.rate as u32);
        for n in 0..load.messages {
            ticks.tick().await;
            match is_view {
                true => publisher.change(n, load.bytes).await?,
                false => publisher.publish(0, load.bytes).await?,
            }
        }
        Ok(())
    };
    measure(server, streams, expected, publishing).await
}

async fn tiles(server: Server, clients: u64, channels: u64, seconds: u64) -> Result<(), Failure> {
    let names: Vec<String> = (0..channels).map(|n| format!("bench{n}")).collect();
    let streams = open_all(&server, clients, &names).await?;
    let publishing = async move |publisher: &mut Publisher| {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        for _ in 0..seconds {
            ticks.tick().await;
            for channel in 0..channels {
                publisher.publish(channel, MESSAGE_BYTES).await?;
            }
        }
        Ok(())
    };
    measure(server, streams, clients * channels * seconds, publishing).await
}

async fn idle(server: Server, clients: u64) -> Result<(), Failure> {
    let channels = ["bench0".to_owned()];
    // What the server takes once for any number of clients.
    let first = open_all(&server, FIRST_CLIENTS, &channels).await?;
    tokio::time::sleep(REST).await;
    let before = server.memory_bytes()?;
    let streams = open_all(&server, clients - FIRST_CLIENTS.min(clients), &channels).await?;
    tokio::time::sleep(REST).await;
    let after = server.memory_bytes()?;
    println!(
        "clients={} kib_per_client={:.1} resident_mib={:.0}",
        first.len() + streams.len(),
        after.saturating_sub(before) as f64 / 1024.0 / streams.len().max(1) as f64,
        after as f64 / 1048576.0
    );
    Ok(())
}

/// Stream epoch and offset of a channel, as a subscription's reply tells them.
fn position(reply: &str) -> (String, String) {
    let subscribe = reply.rsplit("\"subscribe\":").next().unwrap_or("");
    let field = |name: &str| -> String {
        let rest = subscribe.split(name).nth(1).unwrap_or("");
        rest.chars().take_while(|c| c.is_alphanumeric() || *c == '-').collect()
    };
    let offset = field("\"offset\":");
    (field("\"epoch\":\""), if offset.is_empty() { "0".to_owned() } else { offset })
}

async fn storm(server: Server, clients: u64) -> Result<(), Failure> {
    let subscribe = "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"bench0\"}}";
    let mut first = open(&server, 0, subscribe).await?;
    let reply = await_count(&mut first, br#""subscribe":{"#, 1).await?;
    let (epoch, offset) = position(&String::from_utf8_lossy(&reply));
    let mut publisher = Publisher::connect(&server).await?;
    for _ in 0..N_MISSED {
        publisher.publish(0, MESSAGE_BYTES).await?;
    }
    let commands: Arc<str> = format!(
        "{{\"id\":1,\"connect\":{{}}}}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"bench0\",\"recover\":true,\"epoch\":\"{epoch}\",\"offset\":{offset}}}}}"
    )
    .into();
    tokio::time::sleep(REST).await;
    let (cpu_before, started) = (server.cpu_us()?, Instant::now());
    let coming = (0..clients).map(|number| {
        let (server, commands) = (server.clone(), Arc::clone(&commands));
        tokio::spawn(async move {
            let mut stream = open(&server, number, &commands).await?;
            let reply = await_count(&mut stream, br#""t":1"#, N_MISSED).await?;
            let is_recovered = String::from_utf8_lossy(&reply).contains(r#""recovered":true"#);
            Ok::<_, Failure>((stream, is_recovered))
        })
    });
    let mut coming: FuturesUnordered<_> = coming.collect();
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
