//! What an operator can set for the dashboard API. Every field has a default; [`ApiConfig::validate`] names all
//! mistakes at once, so that a configuration is repaired in one go.

use std::collections::BTreeMap;

use metrics_exporter_prometheus::PrometheusHandle;
use serde::{Deserialize, Serialize};

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
    /// Origins of web pages other than our own that may open the WebSocket, for example
    /// `https://erp.example.com`. A page from the same host and port may always. `*` allows every page.
    pub allowed_origins: Vec<String>,
    /// Bounds on what clients may use.
    pub limits: LimitsConfig,
    /// Heartbeat and time-outs of live connections.
    pub heartbeat: HeartbeatConfig,
    /// Appending records over HTTP.
    pub ingest: HttpIngestConfig,
    /// Renders `/metrics`; the process that installed the recorder passes it. Without it `/metrics` answers 404.
    #[serde(skip)]
    pub metrics: Option<PrometheusHandle>,
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
    /// Everything that is wrong, one sentence each, naming the field; empty if all is well.
    pub fn validate(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        self.auth.validate(self.database_url.is_some(), &mut wrong);
        let mut check = |ok: bool, message: &str| {
            if !ok {
                wrong.push(message.to_owned());
            }
        };
        check(self.limits.connections > 0, "api.limits.connections must be at least 1");
        check(self.limits.channels_per_client > 0, "api.limits.channels_per_client must be at least 1");
        check(self.limits.message_bytes >= 1024, "api.limits.message_bytes must be at least 1024");
        check(self.limits.client_queue_bytes >= 4096, "api.limits.client_queue_bytes must be at least 4096");
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
    fn a_misspelt_field_is_refused() {
        let config = serde_json::from_value::<ApiConfig>(serde_json::json!({"limits": {"conections": 1}}));
        assert!(config.is_err());
    }
}
