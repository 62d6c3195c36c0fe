//! `andon watch`: views, alerts and other channels live on a terminal, or as JSON lines for scripts.
//!
//! It speaks the Centrifuge protocol over WebSocket as any client does, comes back after an outage with its positions,
//! and keeps the rows of views by their key.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use futures::{SinkExt, StreamExt};
use serde_json::{Map, Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tracing::warn;

use crate::Error;

/// Pause before the connection is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Silence after which the connection is given up: the server pings every 25 s by default.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// The screen is drawn at most so often.
const DRAW_INTERVAL: Duration = Duration::from_millis(100);
/// Rows of one channel on the screen.
const ROWS_SHOWN_MAX: usize = 40;
/// Widest column on the screen.
const CELL_CHARS_MAX: usize = 32;
/// Codes below which a closed connection is worth another try; the protocol's ranges.
const LASTING_CODES: [std::ops::Range<u16>; 2] = [3500..4000, 4500..5000];

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Options of `andon watch`.
#[derive(Debug, Args)]
pub struct Options {
    /// Channels to follow: `view:NAME`, `alerts`, `status`, or a general channel. A bare name is a view.
    #[arg(required = true, value_name = "CHANNEL")]
    channels: Vec<String>,
    /// Address of the server.
    #[arg(long, default_value = "http://127.0.0.1:8080", env = "ANDON_URL")]
    url: String,
    /// Token to connect with; without it the server is asked for a demo token.
    #[arg(long, env = "ANDON_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A SQL condition over the columns of the views.
    #[arg(long, value_name = "CONDITION")]
    filter: Option<String>,
    /// Columns of the views to show, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "COLUMN")]
    columns: Option<Vec<String>>,
    /// One JSON object a line instead of tables.
    #[arg(long)]
    json: bool,
    /// End after so many messages.
    #[arg(long, value_name = "N")]
    count: Option<usize>,
}

/// A channel as it is followed.
#[derive(Debug, Default)]
struct Channel {
    position: Option<(String, u64)>,
    columns: Vec<String>,
    rows: BTreeMap<String, Value>,
    epoch: Value,
    as_of_ms: Value,
}

/// Runs the command until it is interrupted.
///
/// # Errors
/// If the server refuses the client or a channel, or the address makes no sense.
pub async fn run(options: Options) -> Result<(), Error> {
    let mut watch = Watch::new(&options)?;
    loop {
        let ended = tokio::select! {
            ended = watch.follow() => ended?,
            interrupted = tokio::signal::ctrl_c() => {
                return interrupted.map_err(|e| Error::other("cannot wait for an interrupt", e));
            }
        };
        match ended {
            End::Done => return Ok(()),
            End::Lost(reason) => warn!(reason, "the connection was lost; trying again"),
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Why a connection ended.
enum End {
    /// Everything asked for was shown.
    Done,
    /// It may be worth another try.
    Lost(String),
}

struct Watch<'a> {
    options: &'a Options,
    address: String,
    channels: BTreeMap<String, Channel>,
    n_messages: usize,
    last_drawn: Option<tokio::time::Instant>,
}

impl<'a> Watch<'a> {
    fn new(options: &'a Options) -> Result<Self, Error> {
        let address = match options.url.split_once("://") {
            Some(("http" | "ws", host)) => host.trim_end_matches('/').to_owned(),
            _ => return Err(Error::Usage(format!("`{}` is not of the form http://HOST:PORT", options.url))),
        };
        let known = |name: &str| name.contains(':') || ["alerts", "status"].contains(&name) || name.starts_with('$');
        let full = |name: &String| if known(name) { name.clone() } else { format!("view:{name}") };
        let channels = options.channels.iter().map(|name| (full(name), Channel::default())).collect();
        Ok(Self { options, address, channels, n_messages: 0, last_drawn: None })
    }

    /// One connection, from its beginning to its end.
    async fn follow(&mut self) -> Result<End, Error> {
        let token = match &self.options.token {
            Some(token) => Some(token.clone()),
            None => demo_token(&self.address).await,
        };
        let url = format!("ws://{}/connection/websocket", self.address);
        let mut socket = match connect_async(url).await {
            Ok((socket, _)) => socket,
            Err(error) => return Ok(End::Lost(error.to_string())),
        };
        let hello = json!({"id": 1, "connect": {"token": token.unwrap_or_default(), "name": "andon watch"}});
        let mut lines = vec![hello.to_string()];
        lines.extend(self.channels.iter().zip(2..).map(|((name, channel), id)| self.subscribe(id, name, channel)));
        if let Err(error) = socket.send(Message::text(lines.join("\n"))).await {
            return Ok(End::Lost(error.to_string()));
        }
        loop {
            let message = match tokio::time::timeout(SILENCE_MAX, socket.next()).await {
                Err(_) => return Ok(End::Lost("the server has fallen silent".to_owned())),
                Ok(None) => return Ok(End::Lost("the server closed the connection".to_owned())),
                Ok(Some(Err(error))) => return Ok(End::Lost(error.to_string())),
                Ok(Some(Ok(message))) => message,
            };
            match message {
                Message::Text(text) => {
                    for line in text.lines() {
                        self.on_line(line, &mut socket).await?;
                    }
                }
                Message::Close(frame) => return closed(frame.map(|f| (f.code.into(), f.reason.to_string()))),
                _ => {}
            }
            if self.options.count.is_some_and(|count| self.n_messages >= count) {
                self.draw(true);
                return Ok(End::Done);
            }
            self.draw(false);
        }
    }

    fn subscribe(&self, id: u64, name: &str, channel: &Channel) -> String {
        let mut request = Map::from_iter([("channel".to_owned(), Value::from(name))]);
        if name.starts_with("view:") && (self.options.filter.is_some() || self.options.columns.is_some()) {
            let mut lens = Map::new();
            lens.extend(self.options.filter.as_ref().map(|filter| ("filter".to_owned(), Value::from(filter.as_str()))));
            let columns = self.options.columns.as_ref();
            lens.extend(columns.map(|columns| ("columns".to_owned(), Value::from(columns.clone()))));
            request.insert("data".to_owned(), Value::Object(lens));
        }
        if let Some((epoch, offset)) = &channel.position {
            request.insert("recover".to_owned(), true.into());
            request.insert("epoch".to_owned(), epoch.as_str().into());
            request.insert("offset".to_owned(), (*offset).into());
        }
        json!({"id": id, "subscribe": request}).to_string()
    }

    async fn on_line(&mut self, line: &str, socket: &mut Socket) -> Result<(), Error> {
        let message: Value =
            serde_json::from_str(line).map_err(|e| Error::other("the server does not speak the protocol", e))?;
        if message.as_object().is_some_and(Map::is_empty) {
            // A lost pong shows as a closed connection.
            drop(socket.send(Message::text("{}")).await);
            return Ok(());
        }
        if let Some(error) = message.get("error") {
            return self.on_error(&message, error, socket).await;
        }
        if message["subscribe"].is_object() {
            let idx = message["id"].as_u64().unwrap_or(2).saturating_sub(2);
            let name = self.channels.keys().nth(usize::try_from(idx).unwrap_or(0)).cloned().unwrap_or_default();
            self.on_subscribed(&name, &message["subscribe"]);
        }
        let push = &message["push"];
        let name = push["channel"].as_str().unwrap_or_default().to_owned();
        if push["pub"].is_object() {
            self.on_publication(&name, &push["pub"]);
        } else if push["unsubscribe"].is_object() {
            let id = self.channels.keys().position(|other| *other == name).unwrap_or(0) as u64 + 2;
            let again = self.channels.get(&name).map(|channel| self.subscribe(id, &name, channel));
            drop(socket.send(Message::text(again.unwrap_or_default())).await);
        }
        Ok(())
    }

    async fn on_error(&mut self, message: &Value, error: &Value, socket: &mut Socket) -> Result<(), Error> {
        let id = message["id"].as_u64().unwrap_or(1);
        let idx = usize::try_from(id.saturating_sub(2)).unwrap_or(0);
        let name = self.channels.keys().nth(idx).cloned().unwrap_or_default();
        if error["temporary"] == true && id >= 2 {
            tokio::time::sleep(RETRY_PAUSE).await;
            let again = self.channels.get(&name).map(|channel| self.subscribe(id, &name, channel));
            drop(socket.send(Message::text(again.unwrap_or_default())).await);
            return Ok(());
        }
        let what = if id == 1 { "the connection".to_owned() } else { format!("channel {name}") };
        let (code, text) = (&error["code"], error["message"].as_str().unwrap_or_default());
        Err(Error::other(format!("the server refused {what}"), format!("{text} ({code})")))
    }

    fn on_subscribed(&mut self, name: &str, reply: &Value) {
        let Some(channel) = self.channels.get_mut(name) else { return };
        let offset = reply["offset"].as_u64().unwrap_or(0);
        channel.position = reply["epoch"].as_str().map(|epoch| (epoch.to_owned(), offset));
        if reply["recovered"] != true {
            channel.start(&reply["data"]);
            self.tell(name, "snapshot", &reply["data"]);
        }
        for publication in reply["publications"].as_array().into_iter().flatten() {
            self.on_publication(name, publication);
        }
    }

    fn on_publication(&mut self, name: &str, publication: &Value) {
        let Some(channel) = self.channels.get_mut(name) else { return };
        if let (Some(offset), Some((_, position))) = (publication["offset"].as_u64(), &mut channel.position) {
            *position = offset;
        }
        channel.apply(&publication["data"]);
        self.tell(name, "publication", &publication["data"]);
    }

    fn tell(&mut self, channel: &str, kind: &str, data: &Value) {
        self.n_messages += 1;
        if self.options.json {
            let line = json!({"channel": channel, "type": kind, "data": data}).to_string();
            print_out(&format!("{line}\n"));
        }
    }

    /// Draws the tables, unless it is too early.
    fn draw(&mut self, is_last: bool) {
        let is_early = self.last_drawn.is_some_and(|at| at.elapsed() < DRAW_INTERVAL);
        if self.options.json || (is_early && !is_last) {
            return;
        }
        self.last_drawn = Some(tokio::time::Instant::now());
        let mut out = String::new();
        if std::io::stdout().is_terminal() {
            // Home, and clear what was there.
            out.push_str("\x1b[H\x1b[2J");
        }
        for (name, channel) in &self.channels {
            channel.table(name, &mut out);
        }
        print_out(&out);
    }
}

/// What the server's close frame means.
fn closed(frame: Option<(u16, String)>) -> Result<End, Error> {
    match frame {
        Some((code, reason)) if LASTING_CODES.iter().any(|range| range.contains(&code)) => {
            Err(Error::other("the server ended the connection", format!("{reason} ({code})")))
        }
        Some((code, reason)) => Ok(End::Lost(format!("{reason} ({code})"))),
        None => Ok(End::Lost("the server closed the connection".to_owned())),
    }
}

fn print_out(text: &str) {
    let mut out = std::io::stdout().lock();
    // Whoever reads has gone: nothing is left to do for.
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// A token for anybody, where the server gives them out.
async fn demo_token(address: &str) -> Option<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET /api/v1/session HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut response = Vec::new();
    stream.take(64 << 10).read_to_end(&mut response).await.ok()?;
    let text = String::from_utf8(response).ok()?;
    let body: Value = serde_json::from_str(text.split_once("\r\n\r\n")?.1.trim()).ok()?;
    body["token"].as_str().map(str::to_owned)
}

impl Channel {
    /// Begins with a snapshot.
    fn start(&mut self, data: &Value) {
        let names = data["columns"].as_array().into_iter().flatten();
        self.columns = names.filter_map(|column| column["name"].as_str().map(str::to_owned)).collect();
        self.rows.clear();
        let key: Vec<&str> = data["key"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for row in data["rows"].as_array().into_iter().flatten() {
            let of_key: Map<String, Value> = key.iter().map(|name| ((*name).to_owned(), row[*name].clone())).collect();
            self.rows.insert(Value::Object(of_key).to_string(), row.clone());
        }
        if self.columns.is_empty() && !data.is_null() {
            self.rows.insert(String::new(), data.clone());
        }
        self.stand_at(data);
    }

    /// Applies a publication.
    fn apply(&mut self, data: &Value) {
        match data["changes"].as_array() {
            Some(changes) if !self.columns.is_empty() => {
                for change in changes {
                    let key = change["key"].to_string();
                    match &change["row"] {
                        Value::Null => drop(self.rows.remove(&key)),
                        row => drop(self.rows.insert(key, row.clone())),
                    }
                }
            }
            _ => {
                self.rows.clear();
                self.rows.insert(String::new(), data.clone());
            }
        }
        self.stand_at(data);
    }

    fn stand_at(&mut self, data: &Value) {
        self.epoch = data["epoch"].clone();
        self.as_of_ms = data["as_of_ms"].clone();
    }

    fn table(&self, name: &str, out: &mut String) {
        let as_of = self.as_of_ms.as_i64().and_then(chrono::DateTime::from_timestamp_millis);
        let as_of = as_of.map_or_else(String::new, |at| format!(", as of {}", at.format("%Y-%m-%d %H:%M:%S")));
        out.push_str(&format!("{name}: {} rows{as_of}\n", self.rows.len()));
        if self.columns.is_empty() {
            self.rows.values().for_each(|row| out.push_str(&format!("{row}\n")));
            return;
        }
        let shown: Vec<Vec<String>> = std::iter::once(self.columns.clone())
            .chain(
                self.rows.values().take(ROWS_SHOWN_MAX).map(|row| self.columns.iter().map(|c| cell(&row[c])).collect()),
            )
            .collect();
        let width = |idx: usize| shown.iter().map(|row| row[idx].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        for row in &shown {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(text, width)| format!("{text:width$}")).collect();
            out.push_str(cells.join("  ").trim_end());
            out.push('\n');
        }
        if self.rows.len() > ROWS_SHOWN_MAX {
            out.push_str(&format!("… and {} more\n", self.rows.len() - ROWS_SHOWN_MAX));
        }
    }
}

fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.replace(|c: char| c.is_control(), " "),
        other => other.to_string(),
    };
    match text.char_indices().nth(CELL_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_table_follows_the_changes() {
        let mut channel = Channel::default();
        let columns = json!([{"name": "id", "type": "Int64"}, {"name": "name", "type": "Utf8"}]);
        channel.start(&json!({"view": "v", "key": ["id"], "columns": columns, "epoch": 1, "as_of_ms": 0,
            "rows": [{"id": 1, "name": "bolt"}, {"id": 2, "name": null}]}));
        channel.apply(&json!({"epoch": 2, "as_of_ms": 1000, "changes": [
            {"key": {"id": 1}, "row": null}, {"key": {"id": 3}, "row": {"id": 3, "name": "x".repeat(40)}}]}));
        let mut out = String::new();
        channel.table("view:v", &mut out);
        expect![[r#"
            view:v: 2 rows, as of 1970-01-01 00:00:01
            id  name
            2   -
            3   xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…
        "#]]
        .assert_eq(&out);
    }

    #[test]
    fn final_codes_end_the_command() {
        assert!(closed(Some((3500, "invalid token".to_owned()))).is_err());
        assert!(matches!(closed(Some((3001, "shutdown".to_owned()))), Ok(End::Lost(_))));
        assert!(matches!(closed(None), Ok(End::Lost(_))));
    }
}
