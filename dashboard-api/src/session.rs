//! One client's session: commands in, replies and subscriptions out. It knows the protocol's rules and timers and
//! nothing of sockets; a transport feeds it frames, asks when it next wants to be woken, and empties its outbox.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use crate::auth::{Access, Action, AuthError, Authority, Principal, Resource};
use crate::config::{HeartbeatConfig, LimitsConfig};
use crate::hub::Hub;
use crate::hub::channel::{SessionId, Subscribable};
use crate::outbox::{Budget, Outbox, OutboxLimits};
use crate::protocol::{
    self, Command, ConnectRequest, ConnectResult, Disconnect, Empty, ErrorCode, HistoryRequest, Line, RefreshRequest,
    RefreshResult, SubscribeRequest,
};

/// Longest channel name.
const CHANNEL_BYTES_MAX: usize = 255;
/// How long after its token's end a client may still bring a new one.
const EXPIRY_GRACE: Duration = Duration::from_secs(25);
/// Largest `ttl` told to a client; longer lives are refreshed in between.
const TTL_S_MAX: i64 = 365 * 24 * 3600;
/// Snapshots that may wait for one client, as a multiple of the largest one.
const WAITING_SNAPSHOTS_MAX: usize = 4;
/// Told to clients as the server's version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What all sessions of a server share.
pub(crate) struct SessionContext {
    pub(crate) hub: Arc<Hub>,
    pub(crate) auth: Arc<Authority>,
    pub(crate) limits: LimitsConfig,
    pub(crate) heartbeat: HeartbeatConfig,
    next_id: AtomicU64,
}

impl SessionContext {
    pub(crate) fn new(hub: Arc<Hub>, auth: Arc<Authority>, limits: LimitsConfig, heartbeat: HeartbeatConfig) -> Self {
        Self { hub, auth, limits, heartbeat, next_id: AtomicU64::new(1) }
    }
}

/// One client's session. Dropping it ends its subscriptions.
pub(crate) struct Session {
    context: Arc<SessionContext>,
    id: SessionId,
    client: String,
    outbox: Arc<Outbox>,
    phase: Phase,
    subscriptions: HashMap<String, Arc<dyn Subscribable>>,
    /// When the connection is given up if it has not connected, and later when the client's answer to a ping is due.
    patience_ends: Option<Instant>,
    next_ping: Option<Instant>,
    expires: Option<Instant>,
}

enum Phase {
    /// Nothing has come yet.
    New,
    /// `connect` got an error: nothing more is accepted.
    Refused,
    /// In use.
    Connected(Principal),
}

impl Session {
    pub(crate) fn new(context: Arc<SessionContext>) -> Self {
        let limits = OutboxLimits {
            live_bytes: context.limits.client_queue_bytes,
            state_bytes: context.limits.snapshot_bytes.saturating_mul(WAITING_SNAPSHOTS_MAX),
        };
        let patience = Duration::from_secs(context.heartbeat.connect_seconds.into());
        Self {
            id: context.next_id.fetch_add(1, Ordering::Relaxed),
            client: uuid::Uuid::new_v4().to_string(),
            outbox: Arc::new(Outbox::new(limits)),
            phase: Phase::New,
            subscriptions: HashMap::new(),
            patience_ends: Some(Instant::now() + patience),
            next_ping: None,
            expires: None,
            context,
        }
    }

    /// What is to be written to the client.
    pub(crate) fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// Handles a frame: its commands in order, up to one that ends the session.
    pub(crate) fn on_frame(&mut self, text: &str) {
        let outcome = protocol::parse_frame(text)
            .and_then(|commands| commands.into_iter().try_for_each(|command| self.on_command(command)));
        if let Err(disconnect) = outcome {
            self.outbox.close(disconnect);
        }
    }

    /// When [`Self::on_deadline`] is to be called, if the session is not touched before.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        [self.patience_ends, self.next_ping, self.expires].into_iter().flatten().min()
    }

    /// Does what is due at `now`.
    pub(crate) fn on_deadline(&mut self, now: Instant) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.patience_ends) {
            let is_connected = matches!(self.phase, Phase::Connected(_));
            self.outbox.close(if is_connected { Disconnect::NO_PONG } else { Disconnect::STALE });
        } else if is_due(self.expires) {
            self.outbox.close(Disconnect::EXPIRED);
        } else if is_due(self.next_ping) {
            self.send(Line::Whole(protocol::PING));
            let heartbeat = &self.context.heartbeat;
            self.next_ping = Some(now + Duration::from_secs(heartbeat.ping_seconds.into()));
            self.patience_ends = Some(now + Duration::from_secs(heartbeat.pong_seconds.into()));
        }
    }

    fn send(&self, line: Line) {
        self.outbox.push(Budget::Live, line);
    }

    fn on_command(&mut self, command: Command) -> Result<(), Disconnect> {
        if command.id == 0 && command.send.is_none() {
            return self.on_pong();
        }
        match (&self.phase, &command.connect) {
            (Phase::New, Some(request)) => self.on_connect(command.id, request),
            (Phase::Connected(_), None) => self.on_connected_command(command),
            _ => Err(Disconnect::BAD_REQUEST),
        }
    }

    fn on_pong(&mut self) -> Result<(), Disconnect> {
        if !matches!(self.phase, Phase::Connected(_)) || self.patience_ends.take().is_none() {
            return Err(Disconnect::BAD_REQUEST);
        }
        Ok(())
    }

    fn on_connect(&mut self, id: u32, request: &ConnectRequest) -> Result<(), Disconnect> {
        let principal = match self.context.auth.connect(&request.token) {
            Ok(principal) => principal,
            Err(AuthError::Expired) => {
                self.phase = Phase::Refused;
                self.send(protocol::error_reply(id, ErrorCode::TOKEN_EXPIRED));
                return Ok(());
            }
            Err(AuthError::UnknownKey) => {
                self.phase = Phase::Refused;
                self.send(protocol::error_reply(id, ErrorCode::NOT_YET));
                return Ok(());
            }
            Err(AuthError::Invalid | AuthError::Revoked) => return Err(Disconnect::INVALID_TOKEN),
            Err(AuthError::Missing) => return Err(Disconnect::BAD_REQUEST),
        };
        let now = Instant::now();
        let ping_seconds = self.context.heartbeat.ping_seconds;
        // Spread over the second half of the interval, so that clients that come together do not stay in step.
        let first_ping = Duration::from_secs(ping_seconds.into()).mul_f64(rand::rng().random_range(0.5..1.0));
        self.patience_ends = None;
        self.next_ping = Some(now + first_ping);
        let ttl_s = self.accept(&principal, now);
        tracing::debug!(client = self.client, user = &*principal.user, library = request.name, "client connected");
        self.phase = Phase::Connected(principal);
        let result = ConnectResult {
            client: self.client.clone(),
            version: VERSION,
            expires: ttl_s.is_some(),
            ttl: ttl_s.unwrap_or(0),
            ping: ping_seconds,
            pong: true,
            time: self.context.auth.now_s() * 1000,
        };
        self.send(protocol::reply(id, "connect", &result));
        Ok(())
    }

    /// Sets the timer of the token's end. Returns the seconds until then, if it ends.
    fn accept(&mut self, principal: &Principal, now: Instant) -> Option<u32> {
        let ttl_s = principal.expires_at_s.map(|end_s| (end_s - self.context.auth.now_s()).clamp(1, TTL_S_MAX));
        let ttl_s = ttl_s.and_then(|ttl_s| u32::try_from(ttl_s).ok());
        self.expires = ttl_s.map(|ttl_s| now + Duration::from_secs(ttl_s.into()) + EXPIRY_GRACE);
        ttl_s
    }

    fn on_connected_command(&mut self, command: Command) -> Result<(), Disconnect> {
        let id = command.id;
        if let Some(request) = &command.subscribe {
            self.on_subscribe(id, request)
        } else if let Some(request) = &command.unsubscribe {
            if let Some(channel) = self.subscriptions.remove(&request.channel) {
                channel.unsubscribe(self.id);
            }
            self.send(protocol::reply(id, "unsubscribe", &Empty {}));
            Ok(())
        } else if let Some(request) = &command.history {
            let line = self.history(id, request).unwrap_or_else(|error| protocol::error_reply(id, error));
            self.outbox.push(Budget::State, line);
            Ok(())
        } else if let Some(request) = &command.refresh {
            self.on_refresh(id, request)
        } else if command.send.is_some() {
            Err(Disconnect::NOT_AVAILABLE)
        } else {
            let error = self.refusal(&command).ok_or(Disconnect::BAD_REQUEST)?;
            self.send(protocol::error_reply(id, error));
            Ok(())
        }
    }

    /// The error for a command that this server knows but does not offer; `None` for an unknown one.
    fn refusal(&self, command: &Command) -> Option<ErrorCode> {
        if command.publish.is_some() {
            // The engine alone writes to these channels.
            return Some(ErrorCode::PERMISSION_DENIED);
        }
        if let Some(request) = &command.sub_refresh {
            let is_subscribed = self.subscriptions.contains_key(&request.channel);
            return Some(if is_subscribed { ErrorCode::NOT_AVAILABLE } else { ErrorCode::PERMISSION_DENIED });
        }
        let is_known = command.presence.is_some()
            || command.presence_stats.is_some()
            || command.rpc.is_some()
            || command.ping.is_some();
        is_known.then_some(ErrorCode::NOT_AVAILABLE)
    }

    fn on_subscribe(&mut self, id: u32, request: &SubscribeRequest) -> Result<(), Disconnect> {
        let is_bad = request.channel.is_empty() || !(request.delta.is_empty() || request.delta == "fossil");
        if is_bad {
            return Err(Disconnect::BAD_REQUEST);
        }
        if let Err(error) = self.subscribe(id, request) {
            self.send(protocol::error_reply(id, error));
        }
        Ok(())
    }

    fn subscribe(&mut self, id: u32, request: &SubscribeRequest) -> Result<(), ErrorCode> {
        if request.channel.len() > CHANNEL_BYTES_MAX || request.tf.is_some() {
            return Err(ErrorCode::BAD_REQUEST);
        }
        if request.kind != 0 {
            return Err(ErrorCode::NOT_AVAILABLE);
        }
        if self.subscriptions.get(&request.channel).is_some_and(|channel| channel.is_subscribed(self.id)) {
            return Err(ErrorCode::ALREADY_SUBSCRIBED);
        }
        let limit = self.context.limits.channels_per_client;
        if self.subscriptions.len() >= limit {
            // Channels that started anew have dropped this session, and it has not come back to them.
            self.subscriptions.retain(|_, channel| channel.is_subscribed(self.id));
            if self.subscriptions.len() >= limit {
                return Err(ErrorCode::LIMIT_EXCEEDED);
            }
        }
        let channel = self.channel(&request.channel)?;
        channel.subscribe(self.id, &self.outbox, id, request)?;
        self.subscriptions.insert(request.channel.clone(), channel);
        Ok(())
    }

    fn history(&self, id: u32, request: &HistoryRequest) -> Result<Line, ErrorCode> {
        self.channel(&request.channel)?.history(id, request)
    }

    /// The channel of that name, if this client may read it.
    fn channel(&self, name: &str) -> Result<Arc<dyn Subscribable>, ErrorCode> {
        let Phase::Connected(principal) = &self.phase else { return Err(ErrorCode::PERMISSION_DENIED) };
        match self.context.auth.access(principal, Action::Read, Resource::Channel(name)) {
            Access::Allowed { row_rule: None } => self.context.hub.find(name),
            // Until a channel can leave rows out, a caller with a rule gets none rather than all.
            Access::Allowed { row_rule: Some(_) } | Access::Denied(_) => Err(ErrorCode::PERMISSION_DENIED),
        }
    }

    fn on_refresh(&mut self, id: u32, request: &RefreshRequest) -> Result<(), Disconnect> {
        if request.token.is_empty() {
            return Err(Disconnect::BAD_REQUEST);
        }
        let principal = match self.context.auth.authenticate(&request.token) {
            Ok(principal) => principal,
            Err(AuthError::Expired) => return Err(Disconnect::EXPIRED),
            Err(_) => return Err(Disconnect::INVALID_TOKEN),
        };
        if !matches!(&self.phase, Phase::Connected(old) if old.user == principal.user) {
            return Err(Disconnect::INVALID_TOKEN);
        }
        let ttl_s = self.accept(&principal, Instant::now());
        self.phase = Phase::Connected(principal);
        if self.subscriptions.keys().any(|channel| self.channel(channel).is_err()) {
            return Err(Disconnect::PERMISSION_DENIED);
        }
        let result = RefreshResult {
            client: self.client.clone(),
            version: VERSION,
            expires: ttl_s.is_some(),
            ttl: ttl_s.unwrap_or(0),
        };
        self.send(protocol::reply(id, "refresh", &result));
        Ok(())
    }

    fn end_subscriptions(&mut self) {
        for (_, channel) in self.subscriptions.drain() {
            channel.unsubscribe(self.id);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end_subscriptions();
    }
}

#[cfg(test)]
mod tests;
