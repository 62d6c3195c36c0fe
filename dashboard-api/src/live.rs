//! What an operator can set for live channels: namespaces of general channels, the server API, pacing, and how several
//! nodes find each other.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Shortest key of the server API: shorter ones can be guessed.
const KEY_BYTES_MIN: usize = 16;

/// Settings of live channels.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LiveConfig {
    /// General channels, where clients and servers publish, by the part of their name before the first `:`. The
    /// namespace `""` holds channels without one. What is not configured does not exist.
    pub namespaces: BTreeMap<String, NamespaceConfig>,
    /// Keys of the server API (`POST /api/publish` and so on, header `X-API-Key`), each of at least 16 bytes. Tokens and
    /// API keys whose roles have the permission `server_api` open it too.
    pub server_api_keys: Vec<String>,
    /// How often subscribers of a view with one row (a figure) are told of changes, at most, a second; of what came in
    /// between they get the newest. 0 tells every change.
    pub tile_updates_per_second: u32,
    /// Over how many seconds clients are told to go elsewhere when the server stops, so that they do not all come to
    /// another node at once. 0 tells all at once.
    pub drain_seconds: u32,
    /// The connection between several nodes.
    pub redis: RedisConfig,
}

impl Default for LiveConfig {
    fn default() -> Self {
        Self {
            namespaces: BTreeMap::new(),
            server_api_keys: Vec::new(),
            tile_updates_per_second: 4,
            drain_seconds: 0,
            redis: RedisConfig::default(),
        }
    }
}

impl std::fmt::Debug for LiveConfig {
    /// Without the keys, which must not reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveConfig")
            .field("namespaces", &self.namespaces)
            .field("server_api_keys", &self.server_api_keys.len())
            .field("tile_updates_per_second", &self.tile_updates_per_second)
            .field("drain_seconds", &self.drain_seconds)
            .field("redis", &self.redis)
            .finish()
    }
}

impl LiveConfig {
    /// The pause between two updates of a tile.
    pub(crate) fn tile_interval(&self) -> Duration {
        match self.tile_updates_per_second {
            0 => Duration::ZERO,
            per_second => Duration::from_secs(1) / per_second,
        }
    }

    /// Everything that is wrong, one sentence each, naming the field.
    pub(crate) fn validate(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (name, namespace) in &self.namespaces {
            if name.contains([':', '#', '$']) || ["view", "alerts", "status"].contains(&name.as_str()) {
                wrong.push(format!("api.live.namespaces: `{name}` cannot be the name of a namespace"));
            }
            if namespace.recovery && namespace.history_size == 0 {
                wrong.push(format!("api.live.namespaces.{name}: recovery needs history_size and history_ttl_seconds"));
            }
            if namespace.history_size > 0 && namespace.history_ttl_seconds == 0 {
                wrong.push(format!("api.live.namespaces.{name}.history_ttl_seconds must be at least 1"));
            }
        }
        if self.server_api_keys.iter().any(|key| key.len() < KEY_BYTES_MIN) {
            wrong.push(format!("api.live.server_api_keys: a key must have at least {KEY_BYTES_MIN} bytes"));
        }
        if !self.redis.sentinels.is_empty() && self.redis.sentinel_master.is_empty() {
            wrong.push("api.live.redis.sentinel_master is missing: sentinels are asked for it".to_owned());
        }
        wrong
    }
}

/// Who may do something in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Allowed {
    /// No client; the server API always may.
    #[default]
    Nobody,
    /// Clients that are subscribed to the channel.
    Subscriber,
    /// Every connected client.
    Client,
}

/// Settings of one namespace of general channels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NamespaceConfig {
    /// Whether every connected client may subscribe. If not, and for channels whose name begins with `$`, it needs a
    /// subscription token; a channel `name#user1,user2` is for those users.
    pub subscribe: bool,
    /// Which clients may publish: `nobody`, `subscriber` or `client`.
    pub publish: Allowed,
    /// Which clients may ask for presence and history: `nobody`, `subscriber` or `client`.
    pub query: Allowed,
    /// Whether the server knows who is there.
    pub presence: bool,
    /// Whether subscribers are told who comes and goes, if they ask for it.
    pub join_leave: bool,
    /// Whether all subscribers are told of that, also those that do not ask.
    pub force_join_leave: bool,
    /// Publications kept; 0 keeps none.
    pub history_size: usize,
    /// How long they are kept, in seconds.
    pub history_ttl_seconds: u32,
    /// Whether a client that comes back gets what it missed.
    pub recovery: bool,
    /// Whether it gets only the newest publication, wherever it was: for channels that carry a state.
    pub cache_recovery: bool,
    /// Whether clients may ask for Fossil deltas.
    pub delta: bool,
}

impl Default for NamespaceConfig {
    fn default() -> Self {
        Self {
            subscribe: true,
            publish: Allowed::Nobody,
            query: Allowed::Subscriber,
            presence: false,
            join_leave: false,
            force_join_leave: false,
            history_size: 0,
            history_ttl_seconds: 300,
            recovery: false,
            cache_recovery: false,
            delta: false,
        }
    }
}

/// The Redis, version 6 or newer, through which several nodes share general channels, presence and the server API.
/// Views do not need it: every node reads them from the log. While it cannot be reached, publishing and presence are
/// limited to what the node knows, and heal afterwards.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisConfig {
    /// For example `redis://user:password@redis.example.com:6379/0`, or `rediss://…` for TLS. Without it (and without
    /// sentinels) this node is alone.
    pub url: Option<String>,
    /// URLs of sentinels, which know where the master is.
    pub sentinels: Vec<String>,
    /// The name by which the sentinels know the master.
    pub sentinel_master: String,
    /// What the keys begin with; nodes with the same prefix belong together.
    pub prefix: String,
    /// Messages that a node may miss while it cannot reach Redis, before subscribers have to start anew.
    pub stream_size: u32,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            url: None,
            sentinels: Vec::new(),
            sentinel_master: String::new(),
            prefix: "andon".to_owned(),
            stream_size: 10_000,
        }
    }
}

impl std::fmt::Debug for RedisConfig {
    /// Without the URLs, which may hold passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisConfig")
            .field("url", &self.url.as_ref().map(|_| "…"))
            .field("sentinels", &self.sentinels.len())
            .field("sentinel_master", &self.sentinel_master)
            .field("prefix", &self.prefix)
            .field("stream_size", &self.stream_size)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_named() {
        let config: LiveConfig = serde_json::from_value(serde_json::json!({
            "namespaces": {"a:b": {}, "view": {}, "chat": {"recovery": true}, "log": {"history_size": 1, "history_ttl_seconds": 0}},
            "server_api_keys": ["", "a short key"],
            "redis": {"sentinels": ["redis://a"]},
        }))
        .expect("of the form");
        assert_eq!(config.validate().len(), 6, "{:#?}", config.validate());
        assert_eq!(LiveConfig::default().validate(), Vec::<String>::new());
    }
}
