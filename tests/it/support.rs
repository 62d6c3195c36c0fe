//! What the tests share: running the binary, asking its API, reading its live channels.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

/// Longest wait for anything. Only a failing test waits that long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The binary under test.
pub(crate) fn andon() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_andon"));
    command.current_dir(repository()).env_remove("RUST_LOG");
    command
}

/// Root of the repository.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The pyERP capture of the repository.
pub(crate) fn capture() -> PathBuf {
    repository().join("tests/captures/pyerp")
}

/// Runs to the end; stdout and stderr as text.
pub(crate) fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("the binary starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("it was not killed"), text(stdout), text(stderr))
}

/// A serving node that is killed with its value.
pub(crate) struct Node {
    pub(crate) child: Child,
    pub(crate) address: String,
}

impl Node {
    /// Starts `command` and waits until a line of its stderr or stdout names the address it listens on.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the binary starts");
        let stderr = child.stderr.take().expect("stderr is piped");
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                eprintln!("node: {line}");
                if let Some((_, rest)) = line.split_once("dashboard listens address=") {
                    sender.send(rest.trim().to_owned()).ok();
                }
            }
        });
        match receiver.recv_timeout(PATIENCE) {
            Ok(address) => Self { child, address },
            Err(error) => {
                child.kill().ok();
                child.wait().ok();
                panic!("the node names no address: {error}");
            }
        }
    }

    /// SIGKILL, as a crash.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// SIGTERM; returns the exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
        self.child.wait().expect("it ends").code()
    }

    /// Resident memory in MB.
    pub(crate) fn memory_mb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("Linux says VmRSS");
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).expect("a number") / 1024
    }

    /// GET without a token; status and body.
    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        get(&self.address, path).ok()
    }

    /// All rows of a view as the REST API gives them, once it answers.
    pub(crate) fn view(&self, name: &str) -> Option<Vec<Value>> {
        let (status, body) = self.get(&format!("/api/v1/views/{name}?limit=10000"))?;
        let body: Value = serde_json::from_str(&body).ok().filter(|_| status == 200)?;
        body["rows"].as_array().cloned()
    }

    /// A metric without labels, as a whole number.
    pub(crate) fn metric(&self, name: &str) -> Option<u64> {
        let (_, text) = self.get("/metrics")?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        value.trim().parse().ok()
    }

    /// Waits until `probe` gives something.
    pub(crate) fn wait<T>(&self, what: &str, mut probe: impl FnMut(&Self) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(found) = probe(self) {
                return found;
            }
            assert!(started.elapsed() < PATIENCE, "gave up waiting for {what}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn get(address: &str, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split_whitespace().nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    Ok((status, body.to_owned()))
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

/// A client of the live channels.
pub(crate) struct Client {
    socket: Socket,
    /// Read from the socket, not looked at yet.
    inbox: VecDeque<Value>,
    /// Publications that came while a reply was waited for.
    publications: VecDeque<Value>,
    id: u64,
}

impl Client {
    /// Connects without a token (modes `anonymous`) or with one.
    pub(crate) async fn connect(address: &str, token: Option<&str>) -> Self {
        let url = format!("ws://{address}/connection/websocket");
        let (socket, _) = tokio_tungstenite::connect_async(url).await.expect("the node takes the connection");
        let mut client = Self { socket, inbox: VecDeque::new(), publications: VecDeque::new(), id: 0 };
        let reply = client.command("connect", json!({"token": token.unwrap_or("")})).await;
        assert!(reply.get("connect").is_some(), "{reply}");
        client
    }

    /// Subscribes and returns the snapshot.
    pub(crate) async fn subscribe(&mut self, channel: &str) -> Value {
        let reply = self.command("subscribe", json!({"channel": channel})).await;
        assert!(reply.get("subscribe").is_some(), "{reply}");
        reply["subscribe"]["data"].clone()
    }

    async fn command(&mut self, name: &str, body: Value) -> Value {
        self.id += 1;
        let frame = json!({"id": self.id, name: body}).to_string();
        self.socket.send(Message::text(frame)).await.expect("the connection is open");
        loop {
            let message = self.receive().await;
            if message["id"] == self.id {
                return message;
            }
            self.publications.push_back(message);
        }
    }

    /// The next publication of any channel: its channel and data.
    pub(crate) async fn publication(&mut self) -> (String, Value) {
        loop {
            let message = match self.publications.pop_front() {
                Some(message) => message,
                None => self.receive().await,
            };
            if let Some(data) = message["push"]["pub"].get("data") {
                return (message["push"]["channel"].as_str().unwrap_or_default().to_owned(), data.clone());
            }
        }
    }

    /// The next message; pings are answered on the way.
    async fn receive(&mut self) -> Value {
        loop {
            if let Some(message) = self.inbox.pop_front() {
                return message;
            }
            let next = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("a message in time");
            let Message::Text(frame) = next.expect("the connection is open").expect("a frame") else { continue };
            for line in frame.lines() {
                let message: Value = serde_json::from_str(line).expect("JSON");
                if message == json!({}) {
                    self.socket.send(Message::text("{}")).await.expect("the connection is open");
                } else {
                    self.inbox.push_back(message);
                }
            }
        }
    }
}
