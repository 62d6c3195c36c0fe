//! Clients that come, go, read slowly and come back, at nodes that stop and start, while a view changes all the time: from
//! time to time the view stands still, and then every client has exactly its rows.
//!
//! `ANDON_LIVE_SOAK_SECONDS=3600 cargo test -p dashboard-api --test it soak -- --nocapture` does that for an hour, and also
//! fails if the memory of the process grows. `ANDON_LIVE_SEED` makes the same choices again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dashboard_api::{ApiConfig, AuthMode};
use futures::{SinkExt, StreamExt};
use model::Log;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::feeder::{Feeder, open_log, stock_view};
use crate::server::{Server, config};

const N_CLIENTS: usize = 60;
const N_NODES: usize = 2;
/// Rows of the view, beside the one with the number of the round.
const N_ITEMS: u64 = 300;
/// The item whose quantity is the number of the last round that has ended.
const ROUND_ITEM: u64 = 0;
const EPOCHS_PER_ROUND: u64 = 150;
/// Clients get so long to have what the view shows once it stands still.
const ROUND_PATIENCE: Duration = Duration::from_secs(60);
/// A slow reader does not read for so long.
const SLOW_PAUSE: Duration = Duration::from_secs(3);
/// Memory is judged in runs of at least so many rounds.
const ROUNDS_JUDGED_MIN: usize = 40;

type Rows = BTreeMap<u64, String>;
type Socket = WebSocketStream<TcpStream>;

/// What all tasks see.
struct World {
    /// Where the nodes listen; `None` while one is away.
    nodes: Mutex<[Option<SocketAddr>; N_NODES]>,
    /// Number and rows of the round that has ended last.
    ended: watch::Sender<(u64, Arc<Rows>)>,
    /// Clients that have seen those rows.
    n_agreed: AtomicUsize,
    tally: Tally,
}

/// What has happened.
#[derive(Debug, Default)]
struct Tally {
    connections: AtomicU64,
    recoveries: AtomicU64,
    snapshots: AtomicU64,
    slow: AtomicU64,
    restarts: AtomicU64,
}

fn one_more(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn soak_config() -> ApiConfig {
    let mut config = config();
    config.auth.mode = AuthMode::Anonymous;
    config.limits.client_queue_bytes = 32 << 10;
    config.limits.history_bytes = 32 << 10;
    config.limits.history_size = 40;
    (config.heartbeat.ping_seconds, config.heartbeat.pong_seconds) = (2, 1);
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_come_and_go_end_with_the_rows_of_the_view() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = number("ANDON_LIVE_SOAK_SECONDS").unwrap_or(4);
    let seed = number("ANDON_LIVE_SEED").unwrap_or_else(|| rand::rng().random());
    println!("ANDON_LIVE_SEED={seed}, for {seconds} s");
    let dir = tempfile::tempdir().unwrap();
    let log = open_log(dir.path());
    let feeder = Feeder::new(Arc::clone(&log));
    feeder.declare(&stock_view()).await;
    feeder.status("live").await;
    let (ended, _) = watch::channel((0, Arc::default()));
    let world =
        Arc::new(World { nodes: Mutex::default(), ended, n_agreed: AtomicUsize::new(0), tally: Tally::default() });
    let mut tasks = tokio::task::JoinSet::new();
    for node_idx in 0..N_NODES {
        tasks.spawn(keep_restarting(Arc::clone(&world), node_idx, Arc::clone(&log), seed));
    }
    for number in 0..N_CLIENTS {
        tasks.spawn(Client::new(Arc::clone(&world), seed, number as u64).live());
    }
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut memory_mib = Vec::new();
    tokio::select! {
        () = feed(&world, &feeder, until, seed, &mut memory_mib) => {}
        // None of them ends by itself.
        Some(broken) = tasks.join_next() => broken.unwrap(),
    }
    println!("{:?}; {} rounds", world.tally, memory_mib.len());
    judge(&memory_mib);
}

/// Changes the view, lets it stand still until all clients agree, and so on.
async fn feed(world: &World, feeder: &Feeder, until: Instant, seed: u64, memory_mib: &mut Vec<u64>) {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut rows, mut epoch) = (Rows::new(), 1);
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    for round in 1.. {
        for _ in 0..EPOCHS_PER_ROUND {
            ticks.tick().await;
            epoch += 1;
            let changes: BTreeMap<u64, Option<String>> = (0..random.random_range(1..30))
                .map(|_| {
                    let quantity = random.random_bool(0.7).then(|| format!("{}.00", random.random_range(0..1_000_000)));
                    (random.random_range(1..=N_ITEMS), quantity)
                })
                .collect();
            let written: Vec<_> = changes.iter().map(|(item, quantity)| (*item, quantity.as_deref())).collect();
            feeder.epoch(epoch, &written).await;
            for (item, quantity) in changes {
                match quantity {
                    Some(quantity) => drop(rows.insert(item, quantity)),
                    None => drop(rows.remove(&item)),
                }
            }
        }
        epoch += 1;
        feeder.epoch(epoch, &[(ROUND_ITEM, Some(&round.to_string()))]).await;
        rows.insert(ROUND_ITEM, round.to_string());
        world.n_agreed.store(0, Ordering::SeqCst);
        world.ended.send_replace((round, Arc::new(rows.clone())));
        let agreeing = async {
            while world.n_agreed.load(Ordering::SeqCst) < N_CLIENTS {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let outcome = timeout(ROUND_PATIENCE, agreeing).await;
        assert!(outcome.is_ok(), "round {round}: only {:?} of {N_CLIENTS} clients have come so far", world.n_agreed);
        memory_mib.push(resident_mib());
        if Instant::now() >= until {
            return;
        }
    }
}

/// Stops and starts a node, for ever.
async fn keep_restarting(world: Arc<World>, node_idx: usize, log: Arc<dyn Log>, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed.wrapping_add(1_000 + node_idx as u64));
    loop {
        let server = Server::start(soak_config(), Arc::clone(&log)).await;
        world.nodes.lock().unwrap()[node_idx] = Some(server.address);
        tokio::time::sleep(Duration::from_millis(random.random_range(500..4_000))).await;
        world.nodes.lock().unwrap()[node_idx] = None;
        server.stop().await;
        one_more(&world.tally.restarts);
    }
}

/// A client and what it shows.
struct Client {
    world: Arc<World>,
    random: StdRng,
    number: u64,
    rows: Rows,
    /// Epoch and offset of what it has.
    position: Option<(String, u64)>,
    ended: watch::Receiver<(u64, Arc<Rows>)>,
    /// The last round whose end it has seen.
    agreed: u64,
}

impl Client {
    fn new(world: Arc<World>, seed: u64, number: u64) -> Self {
        let random = StdRng::seed_from_u64(seed.wrapping_add(number + 1));
        let ended = world.ended.subscribe();
        Self { world, random, number, rows: Rows::new(), position: None, ended, agreed: 0 }
    }

    async fn live(mut self) {
        loop {
            let node = self.random.random_range(0..N_NODES);
            let address = self.world.nodes.lock().unwrap()[node];
            if let Some(address) = address
                && let Some(socket) = self.connect(address).await
            {
                one_more(&self.world.tally.connections);
                self.stay(socket).await;
            }
            // Clients do not ask again at once either.
            tokio::time::sleep(Duration::from_millis(self.random.random_range(1..100))).await;
        }
    }

    /// Connects, with a small window, so that a slow reader is soon noticed.
    async fn connect(&mut self, address: SocketAddr) -> Option<Socket> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4 << 10).unwrap();
        let stream = socket.connect(address).await.ok()?;
        let (mut socket, _) = client_async(format!("ws://{address}/connection/websocket"), stream).await.ok()?;
        let mut subscribe = json!({"channel": "view:stock"});
        // Now and then one has forgotten all it knew.
        if let Some((epoch, offset)) = self.position.as_ref().filter(|_| self.random.random_bool(0.95)) {
            subscribe = json!({"channel": "view:stock", "recover": true, "epoch": epoch, "offset": offset});
        }
        let commands = format!("{}\n{}", json!({"id": 1, "connect": {}}), json!({"id": 2, "subscribe": subscribe}));
        socket.send(Message::text(commands)).await.ok()?;
        Some(socket)
    }

    /// Reads for a while, perhaps with a pause.
    async fn stay(&mut self, mut socket: Socket) {
        let leaves = Instant::now() + Duration::from_millis(self.random.random_range(100..6_000));
        let mut pauses_at = self.random.random_bool(0.1).then(|| Instant::now() + (leaves - Instant::now()) / 2);
        loop {
            tokio::select! {
                message = socket.next() => match message {
                    Some(Ok(Message::Text(text))) => {
                        let mut pinged = false;
                        for line in text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
                            pinged |= line == json!({});
                            if !self.take(&line) {
                                return;
                            }
                        }
                        if pinged && socket.send(Message::text("{}")).await.is_err() {
                            return;
                        }
                        self.compare();
                    }
                    Some(Ok(Message::Close(frame))) => {
                        if frame.is_some_and(|frame| u16::from(frame.code) == 3008) {
                            one_more(&self.world.tally.slow);
                        }
                        return;
                    }
                    Some(Ok(_)) => {}
                    _ => return,
                },
                changed = self.ended.changed() => {
                    changed.unwrap();
                    self.compare();
                }
                () = sleep_until(leaves) => return,
                () = sleep_until(pauses_at.unwrap_or(leaves)), if pauses_at.is_some() => {
                    tokio::time::sleep(SLOW_PAUSE).await;
                    pauses_at = None;
                }
            }
        }
    }

    /// Takes a message in. Returns whether the connection is of use.
    fn take(&mut self, line: &Value) -> bool {
        if line["error"].is_object() {
            assert_eq!(line["error"]["temporary"], true, "{line}");
            return false;
        }
        let publication = &line["push"]["pub"];
        if publication.is_object() {
            self.apply(publication);
            return true;
        }
        // Whoever is to start anew comes back with its position.
        if line["push"]["unsubscribe"].is_object() {
            return false;
        }
        let subscribe = &line["subscribe"];
        if subscribe["recovered"] == true {
            one_more(&self.world.tally.recoveries);
            subscribe["publications"].as_array().into_iter().flatten().for_each(|missed| self.apply(missed));
        } else if subscribe.is_object() {
            one_more(&self.world.tally.snapshots);
            let rows = subscribe["data"]["rows"].as_array().unwrap();
            self.rows = rows.iter().map(|row| (row["item"].as_u64().unwrap(), quantity(row))).collect();
            let offset = subscribe["offset"].as_u64().unwrap_or(0);
            self.position = Some((subscribe["epoch"].as_str().unwrap().to_owned(), offset));
        }
        true
    }

    fn apply(&mut self, publication: &Value) {
        for change in publication["data"]["changes"].as_array().unwrap() {
            let item = change["key"]["item"].as_u64().unwrap();
            match &change["row"] {
                Value::Null => drop(self.rows.remove(&item)),
                row => drop(self.rows.insert(item, quantity(row))),
            }
        }
        let (_, offset) = self.position.as_mut().unwrap();
        let next = publication["offset"].as_u64().unwrap();
        assert!(next > *offset, "client {}: {next} after {offset}", self.number);
        *offset = next;
    }

    /// When it has seen the end of a round, it has what the view shows.
    fn compare(&mut self) {
        let (round, rows) = self.ended.borrow_and_update().clone();
        if self.agreed < round && self.rows.get(&ROUND_ITEM) == rows.get(&ROUND_ITEM) {
            assert_eq!(self.rows, *rows, "client {} in round {round}", self.number);
            self.agreed = round;
            self.world.n_agreed.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn quantity(row: &Value) -> String {
    row["quantity"].as_str().unwrap().to_owned()
}

/// Resident memory of this process.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// Memory in the last quarter of the time may be a quarter more than in the second quarter, and 20 MiB.
fn judge(memory_mib: &[u64]) {
    let median = |quarter: usize| {
        let n = memory_mib.len();
        let mut some = memory_mib[n * quarter / 4..n * (quarter + 1) / 4].to_vec();
        some.sort_unstable();
        some.get(some.len() / 2).copied()
    };
    if let (Some(early), Some(late)) = (median(1), median(3)) {
        println!("memory: {early} MiB in the second quarter, {late} MiB in the last");
        assert!(memory_mib.len() < ROUNDS_JUDGED_MIN || late <= early * 5 / 4 + 20, "memory grew");
    }
}
