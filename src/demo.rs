//! `andon demo`: all stages on one machine, fed by the recorded ERP in the binary, again and again.
//!
//! A round replays the capture from its snapshot to its last day. Before every round but the first, each table is
//! emptied by Debezium's truncate record, and the round's records carry later source positions than those of the
//! round before, as a database that was restored and went on would send them. Records of earlier rounds are trimmed
//! from the log. The number of the round is kept beside the log, so a restart goes on with the next one.
//!
//! Records that others send over HTTP are taken at any time.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use dashboard_api::AuthMode;
use ingest::capture::{self, Capture, ReplayOptions, Timestamps};
use model::{Log, Offsets};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::clock::StreamClock;
use crate::config::{ClockMode, Config};
use crate::node::{Consumed, Node, Role, Stage};
use crate::replay::Speed;
use crate::{Error, replay, shipped, telemetry};

/// Source positions of one round lie in a range of this size; the capture's largest is below it.
const ROUND_POSITIONS: i64 = 1 << 32;
/// Bytes of the secret that signs the demo's tokens.
const SECRET_BYTES: usize = 32;

/// Arguments of `andon demo`.
#[derive(Debug, Args)]
pub struct Options {
    /// Address and port of the page; port 0 takes any free one.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDR")]
    listen: String,
    /// Where the demo keeps its log and its alerts. Remove it to start afresh.
    #[arg(long, default_value = "andon-demo", value_name = "DIR")]
    data_dir: PathBuf,
    /// Pace: so many times the recorded one, or max. At 4 a recorded day takes some 2.5 seconds.
    #[arg(long, default_value = "4", value_name = "N|max")]
    speed: Speed,
    /// Stop replaying after so many rounds, and go on serving. Without it: for ever.
    #[arg(long, value_name = "N")]
    rounds: Option<u64>,
}

/// Runs the demo until told to stop.
///
/// # Errors
/// If something cannot be started, or the first stage that failed.
pub async fn run(options: Options) -> Result<(), Error> {
    let metrics = telemetry::init_metrics()?;
    let dir = options.data_dir.clone();
    std::fs::create_dir_all(&dir).map_err(Error::file("create", &dir))?;
    let secret = secret(&dir.join("secret"))?;
    let mut node = Node::start(&config(&options, secret.clone()), &Stage::ALL, Role::Active, metrics).await?;
    if let Some(address) = node.address() {
        let token = dir.join("ingest-token");
        write_private(&token, &ingest_token(&secret)?)?;
        println!("Andon demo: http://{address}/");
        println!(
            "It replays a recorded ERP, and takes changes at POST http://{address}/api/v1/ingest/TOPIC with the token in {}.",
            token.display()
        );
    }
    let capture = shipped::unpack_capture(&dir.join("capture"))?;
    let (Some(clock), Some(consumed)) = (node.stream_clock(), node.consumed()) else {
        return Err(Error::Usage("the demo needs all stages".to_owned()));
    };
    let rounds = Rounds {
        capture: replay::open(&capture).await?,
        log: node.log(),
        clock,
        consumed,
        state: dir.join("round.json"),
        speed: options.speed,
        stop: node.shutdown(),
    };
    node.spawn("replay", async move { Ok(rounds.run(options.rounds.unwrap_or(u64::MAX)).await?) });
    node.run().await
}

fn config(options: &Options, secret: String) -> Config {
    let mut config = Config::default();
    config.log.dir = options.data_dir.join("log");
    config.state.location = options.data_dir.join("state").display().to_string();
    config.database.url = format!("sqlite:{}", options.data_dir.join("alerts.db").display());
    config.engine.clock = ClockMode::Stream;
    config.api.listen.clone_from(&options.listen);
    config.api.auth.mode = AuthMode::Demo;
    config.api.auth.jwt_secret = Some(secret);
    config.api.ingest.enabled = true;
    config
}

/// The round that was begun last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Round {
    number: i64,
}

struct Rounds {
    capture: Capture,
    log: Arc<dyn Log>,
    clock: StreamClock,
    consumed: Consumed,
    state: PathBuf,
    speed: Speed,
    stop: CancellationToken,
}

impl Rounds {
    async fn run(mut self, n_rounds: u64) -> Result<(), Error> {
        for _ in 0..n_rounds {
            let round = self.begin().await?;
            if self.stop.is_cancelled() {
                break;
            }
            info!(round = round.number, "replaying");
            let options = ReplayOptions {
                speed: self.speed.into(),
                position_shift: round.number * ROUND_POSITIONS,
                timestamps: Timestamps::Append,
                ..ReplayOptions::default()
            };
            let report = capture::replay(&self.capture, &self.log, options, |_| {}, self.stop.clone())
                .await
                .map_err(|e| Error::other("cannot replay the demo's capture", e))?;
            if self.stop.is_cancelled() {
                break;
            }
            info!(round = round.number, records = report.n_records, "round ends");
        }
        Ok(())
    }

    /// Empties the tables if there was a round before, and notes the new one.
    async fn begin(&mut self) -> Result<Round, Error> {
        let before: Option<Round> = match std::fs::read_to_string(&self.state) {
            Ok(text) => Some(
                serde_json::from_str(&text)
                    .map_err(|e| Error::Content { path: self.state.clone(), reason: e.to_string() })?,
            ),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(Error::file("read", &self.state)(e)),
        };
        let round = Round { number: before.map_or(0, |b| b.number + 1) };
        let text = serde_json::json!(round).to_string();
        std::fs::write(&self.state, text).map_err(Error::file("write", &self.state))?;
        if before.is_some() {
            self.empty_tables(round).await?;
        }
        Ok(round)
    }

    async fn empty_tables(&mut self, round: Round) -> Result<(), Error> {
        let truncates = self
            .capture
            .truncates(round.number * ROUND_POSITIONS)
            .map_err(|e| Error::other("cannot read the demo's capture", e))?;
        let places: Vec<_> = truncates.iter().map(|r| (r.topic.clone(), r.partition.unwrap_or(0))).collect();
        let offsets = self.log.append(truncates).await?;
        let mut emptied = Offsets::default();
        for ((topic, partition), offset) in places.iter().zip(&offsets) {
            emptied.set(topic, *partition, offset + 1);
        }
        tokio::select! {
            is_read = self.consumed.wait_for(&emptied) => {
                if !is_read {
                    return Ok(());
                }
            }
            () = self.stop.cancelled() => return Ok(()),
        }
        self.clock.restart();
        for (topic, partition, next) in emptied.iter() {
            self.log.trim(topic, partition, next - 1).await?;
        }
        Ok(())
    }
}

/// The secret that signs this demo's tokens, made on the first start.
fn secret(path: &Path) -> Result<String, Error> {
    match std::fs::read_to_string(path) {
        Ok(secret) if secret.len() >= SECRET_BYTES => Ok(secret),
        _ => {
            let bytes: [u8; SECRET_BYTES] = rand::random();
            let secret: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            write_private(path, &secret)?;
            Ok(secret)
        }
    }
}

/// A token that may append records, valid as long as the demo's secret is.
fn ingest_token(secret: &str) -> Result<String, Error> {
    let claims = serde_json::json!({"sub": "demo", "roles": ["viewer", "ingest"]});
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key)
        .map_err(|e| Error::other("cannot sign a token", e))
}

fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path).map_err(Error::file("create", path))?;
    std::io::Write::write_all(&mut file, text.as_bytes()).map_err(Error::file("write", path))
}
