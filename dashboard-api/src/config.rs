//! What an operator can set for the dashboard API. Every field has a default; [`ApiConfig::validate`] names all
//! mistakes at once, so that a configuration is repaired in one go.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use metrics_exporter_prometheus::PrometheusHandle;
use serde::{Deserialize, Serialize};

pub use crate::live::{Allowed, LiveConfig, NamespaceConfig, RedisConfig};

pub use crate::auth::config::{AuthConfig, AuthMode, KeyConfig, Permission, RoleConfig};

/// Settings of the dashboard API.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiConfig {
    /// Who may connect, and how tokens are checked.
    pub auth: AuthConfig,
    /// Roles beside the shipped ones (`viewer`, `ingest`, `service`, `admin`), or in their place.
    pub roles: BTreeMap<String, RoleConfig>,
    /// The database of local users, sessions, API keys and the audit log: `sqlite:FILE` or `postgres://…`. Without it
    /// nobody can sign in with a password here, and the audit log goes to the process's log alone.
    #[serde(skip)]
    pub database_url: Option<String>,
    /// Names under which this server may be called, without port. Empty: any name in mode `token`; in the open modes only
    /// addresses and `localhost`, so that no other page can make a browser its way in.
    pub allowed_hosts: Vec<String>,
    /// Addresses of reverse proxies whose `X-Forwarded-For` is believed, and that may open any number of connections.
    pub trusted_proxies: Vec<IpAddr>,
    /// The certificate, if connections are to be encrypted here.
    pub tls: TlsConfig,
    /// Bounds on connections and requests.
    pub server: ServerConfig,
    /// SQL over the views.
    pub sql: SqlConfig,
    /// Origins of web pages other than our own that may open the WebSocket, for example
    /// `https://erp.example.com`. A page from the same host and port may always. `*` allows every page.
    pub allowed_origins: Vec<String>,
    /// Bounds on what clients may use.
    pub limits: LimitsConfig,
    /// General channels, the server API, and several nodes.
    pub live: LiveConfig,
    /// Heartbeat and time-outs of live connections.
    pub heartbeat: HeartbeatConfig,
    /// Appending records over HTTP.
    pub ingest: HttpIngestConfig,
    /// Renders `/metrics`; the process that installed the recorder passes it. Without it `/metrics` answers 404.
    #[serde(skip)]
    pub metrics: Option<PrometheusHandle>,
}

/// The certificate of encrypted connections.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file with the certificate and those that lead to its root. With it every connection is encrypted. It is read
    /// again when it changes.
    pub certificate_file: Option<PathBuf>,
    /// PEM file with the certificate's private key.
    pub key_file: Option<PathBuf>,
}

/// Bounds on connections and requests, before a route sees them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Connections that one address may have; one more is closed at once.
    pub connections_per_address: usize,
    /// How long a TLS handshake may take, in seconds.
    pub handshake_seconds: u32,
    /// How long the head of a request may take, and a connection be idle between two, in seconds.
    pub header_seconds: u32,
    /// Lines in the head of a request; with more it gets 431.
    pub headers: usize,
    /// Bytes of the head of a request; with more it gets 431.
    pub header_bytes: usize,
    /// How long the body of a request may take, in seconds; then it gets 408.
    pub body_seconds: u32,
    /// An HTTP/2 connection without a sign of life for so long is closed, in seconds.
    pub idle_seconds: u32,
    /// Requests that one address may make in a second, on average over some ten seconds; further ones get 429.
    pub requests_per_second: u32,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            connections_per_address: 10_000,
            handshake_seconds: 10,
            header_seconds: 10,
            headers: 100,
            header_bytes: 32 << 10,
            body_seconds: 30,
            idle_seconds: 60,
            requests_per_second: 1_000,
        }
    }
}

/// Read-only SQL over the views (`POST /api/v1/sql`).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SqlConfig {
    /// Whether the route answers at all. A caller needs the permission `sql`.
    pub enabled: bool,
    /// How long a query may run, in seconds; then it gets 408.
    pub seconds: u32,
    /// Memory for sorts, joins and groups of one query, in bytes; beyond it the query gets 413.
    pub memory_bytes: usize,
    /// Bytes of the rows of all views that one query reads; beyond it the query gets 413.
    pub scan_bytes: usize,
    /// Rows of a result; a longer one is cut off, and says so.
    pub rows: usize,
    /// Queries at a time; one more gets 429.
    pub queries: usize,
    /// Queries of one user at a time; one more gets 429.
    pub queries_per_user: usize,
    /// Longest text of a query, in bytes.
    pub query_bytes: usize,
    /// Threads that run queries, apart from those of live connections.
    pub threads: usize,
}

impl Default for SqlConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            seconds: 10,
            memory_bytes: 256 << 20,
            scan_bytes: 512 << 20,
            rows: 10_000,
            queries: 8,
            queries_per_user: 2,
            query_bytes: 64 << 10,
            threads: 2,
        }
    }
}

/// Bounds on what clients may use.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Live connections at a time; one more is closed with code 3504.
    pub connections: usize,
    /// Channels a connection may be subscribed to; one more gets error 106.
    pub channels_per_client: usize,
    /// Largest message from a client, in bytes; a larger one closes the connection with code 1009.
    pub message_bytes: usize,
    /// Publications that may wait for a slow reader, in bytes; beyond it the connection is closed with code 3008
    /// and the client comes back with recovery.
    pub client_queue_bytes: usize,
    /// Publications kept per channel for recovery. A client that missed more gets a fresh snapshot.
    pub history_size: usize,
    /// Bytes of publications kept per channel for recovery. A single publication larger than this is not sent:
    /// subscribers take a fresh snapshot in its place.
    pub history_bytes: usize,
    /// Largest snapshot of one channel, in bytes. Subscribing to a larger view gets error 106; it can be read
    /// page by page over REST.
    pub snapshot_bytes: usize,
    /// Commands of one connection in a second, by kind; further ones get error 111, and the client tries again.
    pub commands_per_second: CommandLimits,
}

/// Commands of one connection in a second, by kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CommandLimits {
    /// Subscriptions, and tokens that are renewed.
    pub subscribe: u32,
    /// Messages published.
    pub publish: u32,
    /// Questions for the history.
    pub history: u32,
    /// Questions for who is there.
    pub presence: u32,
    /// Remote procedures called.
    pub rpc: u32,
}

impl Default for CommandLimits {
    fn default() -> Self {
        Self { subscribe: 2_000, publish: 2_000, history: 1_000, presence: 1_000, rpc: 1_000 }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections: 10_000,
            channels_per_client: 128,
            message_bytes: 64 << 10,
            client_queue_bytes: 1 << 20,
            history_size: 300,
            history_bytes: 1 << 20,
            snapshot_bytes: 16 << 20,
            commands_per_second: CommandLimits::default(),
        }
    }
}

/// Heartbeat and time-outs of live connections.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeartbeatConfig {
    /// The server pings every so many seconds.
    pub ping_seconds: u32,
    /// A client that has not answered a ping after so many seconds is closed with code 3012.
    pub pong_seconds: u32,
    /// A connection that has not sent `connect` after so many seconds is closed with code 3502.
    pub connect_seconds: u32,
    /// A write that makes no progress for so many seconds closes the connection with code 3009. Longer than the
    /// second that other servers give, since a snapshot is one large write.
    pub write_seconds: u32,
}

impl Default for HeartbeatConfig {
    fn default() -> Self {
        Self { ping_seconds: 25, pong_seconds: 10, connect_seconds: 15, write_seconds: 10 }
    }
}

/// Appending records over HTTP (`POST /api/v1/ingest/{topic}`).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpIngestConfig {
    /// Whether the route takes records at all. A caller needs a token with the role `ingest`.
    pub enabled: bool,
    /// Largest request body, in bytes.
    pub body_bytes: usize,
    /// A topic must start with one of these; empty allows every topic but Andon's own (`andon.…`).
    pub topic_prefixes: Vec<String>,
}

impl Default for HttpIngestConfig {
    fn default() -> Self {
        Self { enabled: false, body_bytes: 1 << 20, topic_prefixes: Vec::new() }
    }
}

impl ApiConfig {
    /// Names of all roles, shipped and configured.
    pub fn role_names(&self) -> Vec<String> {
        crate::auth::access::Roles::new(&self.roles).names().map(str::to_owned).collect()
    }

    /// Everything that is wrong, one sentence each, naming the field; empty if all is well.
    pub fn validate(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        self.auth.validate(self.database_url.is_some(), &mut wrong);
        let mut check = |ok: bool, message: &str| {
            if !ok {
                wrong.push(message.to_owned());
            }
        };
        check(
            self.tls.certificate_file.is_some() == self.tls.key_file.is_some(),
            "api.tls.certificate_file and api.tls.key_file go together",
        );
        check(self.server.connections_per_address > 0, "api.server.connections_per_address must be at least 1");
        check(self.server.handshake_seconds > 0, "api.server.handshake_seconds must be at least 1");
        check(self.server.header_seconds > 0, "api.server.header_seconds must be at least 1");
        check(self.server.body_seconds > 0, "api.server.body_seconds must be at least 1");
        check(self.server.idle_seconds > 0, "api.server.idle_seconds must be at least 1");
        check(self.server.headers >= 10, "api.server.headers must be at least 10");
        check(self.server.header_bytes >= 8192, "api.server.header_bytes must be at least 8192");
        check(self.server.requests_per_second > 0, "api.server.requests_per_second must be at least 1");
        check(self.sql.seconds > 0, "api.sql.seconds must be at least 1");
        check(self.sql.memory_bytes >= 1 << 20, "api.sql.memory_bytes must be at least 1048576");
        check(self.sql.rows > 0, "api.sql.rows must be at least 1");
        check(self.sql.queries > 0, "api.sql.queries must be at least 1");
        check(self.sql.queries_per_user > 0, "api.sql.queries_per_user must be at least 1");
        check(self.sql.query_bytes > 0, "api.sql.query_bytes must be at least 1");
        check((1..=64).contains(&self.sql.threads), "api.sql.threads must be 1 to 64");
        check(self.limits.connections > 0, "api.limits.connections must be at least 1");
        check(self.limits.channels_per_client > 0, "api.limits.channels_per_client must be at least 1");
        check(self.limits.message_bytes >= 1024, "api.limits.message_bytes must be at least 1024");
        check(self.limits.client_queue_bytes >= 4096, "api.limits.client_queue_bytes must be at least 4096");
        let CommandLimits { subscribe, publish, history, presence, rpc } = self.limits.commands_per_second;
        check(
            [subscribe, publish, history, presence, rpc].iter().all(|n| *n > 0),
            "api.limits.commands_per_second must be at least 1 for every kind",
        );
        check(self.limits.snapshot_bytes >= 4096, "api.limits.snapshot_bytes must be at least 4096");
        check(
            self.limits.history_bytes <= self.limits.client_queue_bytes,
            "api.limits.history_bytes must not be larger than api.limits.client_queue_bytes",
        );
        check(self.heartbeat.ping_seconds > 0, "api.heartbeat.ping_seconds must be at least 1");
        check(
            (1..self.heartbeat.ping_seconds.max(2)).contains(&self.heartbeat.pong_seconds),
            "api.heartbeat.pong_seconds must be at least 1 and less than api.heartbeat.ping_seconds",
        );
        check(self.heartbeat.connect_seconds > 0, "api.heartbeat.connect_seconds must be at least 1");
        check(self.heartbeat.write_seconds > 0, "api.heartbeat.write_seconds must be at least 1");
        check(self.ingest.body_bytes > 0, "api.ingest.body_bytes must be at least 1");
        wrong.extend(self.live.validate());
        for (role, config) in &self.roles {
            for (view, condition) in &config.rows {
                if let Err(error) = crate::auth::rows::check_condition(condition) {
                    wrong.push(format!("api.roles.{role}.rows: the condition of `{view}`: {error}"));
                }
            }
        }
        for origin in &self.allowed_origins {
            if origin != "*" && !(origin.starts_with("http://") || origin.starts_with("https://")) {
                wrong.push(format!(
                    "api.allowed_origins: `{origin}` is not an origin: write scheme and host, as in https://erp.example.com"
                ));
            }
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_mistakes_are_named_at_once() {
        let config: ApiConfig = serde_json::from_value(serde_json::json!({
            "auth": {"mode": "token"},
            "allowed_origins": ["erp.example.com"],
            "limits": {"connections": 0},
            "heartbeat": {"ping_seconds": 5, "pong_seconds": 5},
        }))
        .expect("the form is right");
        let wrong = config.validate();
        assert_eq!(wrong.len(), 4, "{wrong:#?}");
    }

    #[test]
    fn the_defaults_need_only_a_secret() {
        let mut config = ApiConfig::default();
        assert_eq!(config.validate().len(), 1);
        config.auth.jwt_secret = Some("0123456789abcdef0123456789abcdef".to_owned());
        assert_eq!(config.validate(), Vec::<String>::new());
        assert!(!format!("{config:?}").contains("0123456789"), "secrets stay out of logs");
    }

    #[test]
    fn secrets_that_can_be_guessed_are_refused() {
        let check = |previous: &str| {
            let mut config = ApiConfig::default();
            config.auth.jwt_secret = Some("0123456789abcdef0123456789abcdef".to_owned());
            config.auth.jwt_secret_previous = Some(previous.to_owned());
            config.auth.jwt_secret_previous_until = chrono::DateTime::from_timestamp(4_000_000_000, 0);
            config.validate()
        };
        assert_eq!(check("0123456789abcdef0123456789abcdee"), Vec::<String>::new());
        for bad in ["", "a short one"] {
            assert!(check(bad).concat().contains("api.auth.jwt_secret_previous"), "{bad}");
        }
        for bad in ["", "a short key"] {
            let mut config = ApiConfig::default();
            config.auth.jwt_secret = Some("0123456789abcdef0123456789abcdef".to_owned());
            config.live.server_api_keys = vec!["a key that is long enough".to_owned(), bad.to_owned()];
            assert!(config.validate().concat().contains("api.live.server_api_keys"), "{bad}");
        }
    }

    #[test]
    fn a_misspelt_field_is_refused() {
        let config = serde_json::from_value::<ApiConfig>(serde_json::json!({"limits": {"conections": 1}}));
        assert!(config.is_err());
    }
}
