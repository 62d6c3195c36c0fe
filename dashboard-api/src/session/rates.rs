//! How many commands of each kind a session takes in a second: one client must not keep a core busy for itself.

use std::time::Duration;

use metrics::counter;
use tokio::time::Instant;

use crate::config::CommandLimits;
use crate::protocol::message::Command;

/// What the limits are about.
const WINDOW: Duration = Duration::from_secs(1);

/// The commands of the present second.
#[derive(Debug, Default)]
pub(super) struct Rates {
    since: Option<Instant>,
    subscribe: u32,
    publish: u32,
    history: u32,
    presence: u32,
    rpc: u32,
}

impl Rates {
    /// Counts a command. Returns whether there is room for it.
    pub(super) fn admit(&mut self, command: &Command, limits: &CommandLimits, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.duration_since(since) >= WINDOW) {
            *self = Self { since: Some(now), ..Self::default() };
        }
        let is_subscribe = command.subscribe.is_some() || command.refresh.is_some() || command.sub_refresh.is_some();
        let (kind, count, limit) = if is_subscribe {
            ("subscribe", &mut self.subscribe, limits.subscribe)
        } else if command.publish.is_some() {
            ("publish", &mut self.publish, limits.publish)
        } else if command.history.is_some() {
            ("history", &mut self.history, limits.history)
        } else if command.presence.is_some() || command.presence_stats.is_some() {
            ("presence", &mut self.presence, limits.presence)
        } else if command.rpc.is_some() {
            ("rpc", &mut self.rpc, limits.rpc)
        } else {
            return true;
        };
        if *count >= limit {
            counter!("api_commands_refused_total", "command" => kind).increment(1);
            return false;
        }
        *count += 1;
        true
    }
}
