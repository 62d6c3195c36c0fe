//! The sections of the configuration. Each field's comment is its documentation.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use dashboard_api::{
    ApiConfig, AuthConfig, HeartbeatConfig, HttpIngestConfig, LimitsConfig, LiveConfig, RoleConfig, ServerConfig,
    SqlConfig, TlsConfig,
};
use serde::{Deserialize, Deserializer, Serialize};

use crate::shipped;

/// `[log]`: the durable local log, used when `kafka.brokers` is not set.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LocalLog {
    /// Folder of the log. One process at a time may open it.
    pub dir: PathBuf,
    /// How long an appended record may stay in the operating system's cache before it is forced to disk. A crash of
    /// Andon loses nothing either way; a power cut can lose so much.
    pub sync_ms: u64,
}

impl Default for LocalLog {
    fn default() -> Self {
        Self { dir: PathBuf::from("data/log"), sync_ms: 200 }
    }
}

/// `[state]`: what the engine keeps between two runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct State {
    /// A folder, or the URL of a place in an object store: `s3://bucket/path`, `gs://…`, `az://…`. Credentials come
    /// from the environment variables of that store. Empty: nothing is stored, every start reads the topics again.
    pub location: String,
    /// Time between two checkpoints. After a crash so much is read again.
    pub checkpoint_ms: u64,
    /// While a checkpoint is on its way, the engine goes on until so much has gathered for the next one; then it waits
    /// for the store.
    pub unsaved_bytes_max: usize,
}

impl Default for State {
    fn default() -> Self {
        Self { location: "data/state".to_owned(), checkpoint_ms: 1_000, unsaved_bytes_max: 64 << 20 }
    }
}

impl State {
    pub(super) fn validate(&self, problems: &mut Vec<String>) {
        if self.checkpoint_ms == 0 {
            problems.push("state.checkpoint_ms: must be 1 or more".to_owned());
        }
        if self.unsaved_bytes_max < 1 << 20 {
            problems.push("state.unsaved_bytes_max: must be 1048576 (1 MiB) or more".to_owned());
        }
    }
}

/// `[kafka]`: the broker between the stages and the source of the ERP's changes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kafka {
    /// Comma-separated `host:port` list. Without it the local log is used.
    pub brokers: Option<String>,
    /// How long the start waits for the first answer of a broker.
    pub connect_timeout_ms: u64,
    /// How long the producer collects records before it sends them.
    pub linger_ms: u64,
    /// Any property of librdkafka, TLS and SASL included, for example `"security.protocol" = "SASL_SSL"`. In a
    /// variable write underscores for dots: `ANDON_KAFKA__CLIENT__SECURITY_PROTOCOL`.
    #[serde(deserialize_with = "client_properties")]
    pub client: BTreeMap<String, String>,
}

impl Default for Kafka {
    fn default() -> Self {
        Self { brokers: None, connect_timeout_ms: 30_000, linger_ms: 1, client: BTreeMap::new() }
    }
}

impl Kafka {
    pub(super) fn validate(&self, problems: &mut Vec<String>) {
        if self.brokers.as_ref().is_some_and(|b| b.split(',').any(|one| !one.trim().contains(':'))) {
            problems.push("kafka.brokers: write host:port, several with commas between".to_owned());
        }
        if self.brokers.is_none() && !self.client.is_empty() {
            problems.push("kafka.client is set, but kafka.brokers is not".to_owned());
        }
    }
}

/// librdkafka takes every value as text; a file may say `true` or `5` without quotes.
fn client_properties<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Value {
        Text(String),
        Flag(bool),
        Integer(i64),
        Float(f64),
    }
    let raw = BTreeMap::<String, Value>::deserialize(deserializer)?;
    let to_text = |value| match value {
        Value::Text(text) => text,
        Value::Flag(flag) => flag.to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
    };
    Ok(raw.into_iter().map(|(key, value)| (key.replace('_', "."), to_text(value))).collect())
}

/// `[source]`: which ERP's tables are read.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Source {
    /// Name of a shipped source pack.
    pub pack: String,
    /// Folder of DDL and mapping SQL, in place of a shipped pack.
    pub dir: Option<PathBuf>,
}

impl Default for Source {
    fn default() -> Self {
        Self { pack: "pyerp".to_owned(), dir: None }
    }
}

impl Source {
    pub(super) fn validate(&self, problems: &mut Vec<String>) {
        if self.dir.is_none() && shipped::pack(&self.pack).is_none() {
            let known = shipped::pack_names().join(", ");
            problems.push(format!("source.pack: there is no pack {:?}; shipped: {known}", self.pack));
        }
        validate_dir("source.dir", self.dir.as_ref(), problems);
    }
}

/// `[views]`: the views that are kept.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Views {
    /// Folder of views in place of the shipped ones.
    pub dir: Option<PathBuf>,
}

impl Views {
    pub(super) fn validate(&self, problems: &mut Vec<String>) {
        validate_dir("views.dir", self.dir.as_ref(), problems);
    }
}

/// `[rules]`: the alert rules.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// Folder of rules in place of the shipped ones.
    pub dir: Option<PathBuf>,
    /// Whether rules are kept at all.
    pub enabled: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self { dir: None, enabled: true }
    }
}

impl Rules {
    pub(super) fn validate(&self, problems: &mut Vec<String>) {
        validate_dir("rules.dir", self.dir.as_ref(), problems);
    }
}

fn validate_dir(key: &str, dir: Option<&PathBuf>, problems: &mut Vec<String>) {
    if let Some(dir) = dir.filter(|d| !d.is_dir()) {
        problems.push(format!("{key}: there is no folder {}", dir.display()));
    }
}

/// `[ingest]`: how records become epochs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ingest {
    /// An epoch holds at most so many records; large ones make catching up fast.
    pub epoch_records_max: usize,
    /// An epoch ends when nothing arrived for so long.
    pub epoch_idle_ms: u64,
    /// An epoch ends after so long in any case.
    pub epoch_ms_max: u64,
    /// A larger record goes to the dead-letter topic.
    pub record_bytes_max: usize,
    /// An event time further ahead of the clock than this stays in its row, but moves no watermark and no clock.
    pub future_event_time_max_s: u64,
    /// A partition that is read to its end and has sent nothing for so long does not hold the watermark of its table;
    /// 0 waits for it for ever.
    pub idle_timeout_ms: u64,
}

impl Default for Ingest {
    fn default() -> Self {
        Self {
            epoch_records_max: 32_768,
            epoch_idle_ms: 5,
            epoch_ms_max: 50,
            record_bytes_max: 8 * 1024 * 1024,
            future_event_time_max_s: 24 * 60 * 60,
            idle_timeout_ms: 60_000,
        }
    }
}

impl Ingest {
    pub(super) fn validate(&self, problems: &mut Vec<String>) {
        if self.epoch_records_max == 0 {
            problems.push("ingest.epoch_records_max: must be at least 1".to_owned());
        }
        if self.epoch_ms_max < self.epoch_idle_ms {
            problems.push("ingest.epoch_ms_max: must not be less than ingest.epoch_idle_ms".to_owned());
        }
        if self.record_bytes_max == 0 {
            problems.push("ingest.record_bytes_max: must be at least 1".to_owned());
        }
    }
}

/// What CURRENT_TIMESTAMP says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClockMode {
    /// The operating system's time.
    #[default]
    Wall,
    /// The newest event time in the sources: for replays of the past.
    Stream,
}

/// `[engine]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Engine {
    /// `wall` (the operating system's time) or `stream` (the newest event time, for replays of the past).
    pub clock: ClockMode,
    /// How often the SQL files are looked at while they are served; milliseconds. With 0 only SIGHUP makes the node look.
    pub sql_poll_ms: u64,
    /// How many threads share the keys of one GROUP BY, join, Top-N or window function. Default: the number of cores less two,
    /// which decode and write, and at least 1. May differ from start to start.
    pub shards: usize,
}

/// More only hand rows around.
const SHARDS_MAX: usize = 64;

/// More often would only cost.
const SQL_POLL_MS_MIN: u64 = 100;

impl Default for Engine {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { clock: ClockMode::default(), sql_poll_ms: 1_000, shards: cores.saturating_sub(2).clamp(1, SHARDS_MAX) }
    }
}

impl Engine {
    pub(super) fn validate(&self, problems: &mut Vec<String>) {
        if (1..SQL_POLL_MS_MIN).contains(&self.sql_poll_ms) {
            problems.push(format!("engine.sql_poll_ms must be 0 (SIGHUP only) or at least {SQL_POLL_MS_MIN}"));
        }
        if !(1..=SHARDS_MAX).contains(&self.shards) {
            problems.push(format!("engine.shards must be from 1 to {SHARDS_MAX}"));
        }
    }
}

/// `[alerting]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Alerting {
    /// Whether this node turns the rules' rows into alerts.
    pub enabled: bool,
}

impl Default for Alerting {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// `[api]`: the web server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    /// Address and port to listen on. Before anything but loopback set `tls`, or put a reverse proxy with TLS.
    pub listen: String,
    /// Origins of other web pages that may connect, for example `https://erp.example.com`; `*` allows every page.
    pub allowed_origins: Vec<String>,
    /// Names under which this server may be called, without port. Empty: any name in mode `token`; in the open modes only
    /// addresses and `localhost`.
    pub allowed_hosts: Vec<String>,
    /// Addresses of reverse proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// `[api.tls]`: the certificate.
    pub tls: TlsConfig,
    /// `[api.server]`: bounds on connections and requests.
    pub server: ServerConfig,
    /// `[api.sql]`: SQL over the views.
    pub sql: SqlConfig,
    /// `[api.auth]`: who gets in.
    pub auth: AuthConfig,
    /// `[api.roles.NAME]`: roles beside the shipped ones, or in their place.
    pub roles: BTreeMap<String, RoleConfig>,
    /// `[api.limits]`: what clients may use.
    pub limits: LimitsConfig,
    /// `[api.live]`: general channels, the server API, several nodes.
    pub live: LiveConfig,
    /// `[api.heartbeat]`: time-outs of live connections.
    pub heartbeat: HeartbeatConfig,
    /// `[api.ingest]`: appending records over HTTP.
    pub ingest: HttpIngestConfig,
}

impl Default for Api {
    fn default() -> Self {
        let ApiConfig {
            auth,
            roles,
            allowed_hosts,
            trusted_proxies,
            tls,
            server,
            sql,
            allowed_origins,
            limits,
            live,
            heartbeat,
            ingest,
            ..
        } = ApiConfig::default();
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            allowed_origins,
            allowed_hosts,
            trusted_proxies,
            tls,
            server,
            sql,
            auth,
            roles,
            limits,
            live,
            heartbeat,
            ingest,
        }
    }
}

impl Api {
    pub(super) fn validate(&self, database: &Database, problems: &mut Vec<String>) {
        if self.listen.parse::<SocketAddr>().is_err() {
            problems.push(format!("api.listen: {:?} is not ADDRESS:PORT, for example 127.0.0.1:8080", self.listen));
        }
        problems.extend(self.to_api_config(database).validate());
    }

    /// What the dashboard stage takes.
    pub fn to_api_config(&self, database: &Database) -> ApiConfig {
        ApiConfig {
            auth: self.auth.clone(),
            roles: self.roles.clone(),
            allowed_hosts: self.allowed_hosts.clone(),
            trusted_proxies: self.trusted_proxies.clone(),
            tls: self.tls.clone(),
            server: self.server.clone(),
            sql: self.sql.clone(),
            database_url: Some(database.url.clone()),
            allowed_origins: self.allowed_origins.clone(),
            limits: self.limits.clone(),
            live: self.live.clone(),
            heartbeat: self.heartbeat.clone(),
            ingest: self.ingest.clone(),
            metrics: None,
        }
    }
}

/// `[database]`: where alerts, users and the audit log are kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// `sqlite:FILE` or `postgres://…`.
    pub url: String,
}

impl Default for Database {
    fn default() -> Self {
        Self { url: "sqlite:data/andon.db".to_owned() }
    }
}

impl Database {
    pub(super) fn validate(&self, problems: &mut Vec<String>) {
        if !["sqlite:", "postgres:", "postgresql:"].iter().any(|p| self.url.starts_with(p)) {
            problems.push("database.url: must start with sqlite: or postgres:".to_owned());
        }
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Life cycle of our own parts, and from the local log's storage engine only what is odd.
pub const DEFAULT_LOG_FILTER: &str = "info,fjall=warn,lsm_tree=warn,slatedb=warn";

/// `[telemetry]`. Metrics are always at `/metrics`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// `text` or `json`; always on stderr.
    pub log_format: LogFormat,
    /// Which lines are written, in the form of `tracing`'s filters, for example `info,ingest=debug`.
    pub log_filter: String,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { log_format: LogFormat::Text, log_filter: DEFAULT_LOG_FILTER.to_owned() }
    }
}

impl Telemetry {
    pub(super) fn validate(&self, problems: &mut Vec<String>) {
        if let Err(error) = self.log_filter.parse::<tracing_subscriber::EnvFilter>() {
            problems.push(format!("telemetry.log_filter: {error}"));
        }
    }
}
