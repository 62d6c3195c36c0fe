//! One client's session: commands in, replies and subscriptions out. It knows the protocol's rules and timers and
//! nothing of sockets; a transport feeds it frames, asks when it next wants to be woken, and empties its outbox.

mod rates;
mod subscribe;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use serde_json::Value;
use tokio::time::Instant;

use crate::auth::{Action, AuthError, Authority, Principal, Resource};
use crate::cluster::Cluster;
use crate::cluster::message::Publish;
use crate::cluster::registry::{About, Handle, Order, Transport};
use crate::config::{HeartbeatConfig, LimitsConfig};
use crate::hub::channel::SessionId;
use crate::hub::{Hub, is_built_in};
use crate::live::Allowed;
use crate::outbox::{Budget, Outbox, OutboxLimits};
use crate::protocol::message::{
    ClientInfo, Command, ConnectRequest, ConnectResult, Empty, HistoryRequest, HistoryResult, PresenceResult,
    Publication, PublishRequest, RefreshRequest, RefreshResult, Reply, RpcRequest, RpcResult,
};
use crate::protocol::{Disconnect, Encoding, ErrorCode, frame};
use rates::Rates;
use subscribe::Subscription;

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
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) limits: LimitsConfig,
    pub(crate) heartbeat: HeartbeatConfig,
    next_id: AtomicU64,
}

impl SessionContext {
    pub(crate) fn new(
        hub: Arc<Hub>,
        auth: Arc<Authority>,
        cluster: Arc<Cluster>,
        limits: LimitsConfig,
        heartbeat: HeartbeatConfig,
    ) -> Self {
        Self { hub, auth, cluster, limits, heartbeat, next_id: AtomicU64::new(1) }
    }
}

/// One client's session. Dropping it ends its subscriptions.
pub(crate) struct Session {
    context: Arc<SessionContext>,
    handle: Arc<Handle>,
    encoding: Encoding,
    opened_at: Instant,
    phase: Phase,
    subscriptions: HashMap<String, Subscription>,
    rates: Rates,
    /// How others see this client, as far as the connection goes.
    info: Arc<ClientInfo>,
    /// When the connection is given up if it has not connected, and later when the client's answer to a ping is due.
    patience_ends: Option<Instant>,
    next_ping: Option<Instant>,
    expires: Option<Instant>,
    /// When the first subscription expires.
    subscription_expires: Option<Instant>,
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
    pub(crate) fn new(context: Arc<SessionContext>, transport: Transport, encoding: Encoding) -> Self {
        let limits = OutboxLimits {
            live_bytes: context.limits.client_queue_bytes,
            state_bytes: context.limits.snapshot_bytes.saturating_mul(WAITING_SNAPSHOTS_MAX),
        };
        let patience = Duration::from_secs(context.heartbeat.connect_seconds.into());
        let id: SessionId = context.next_id.fetch_add(1, Ordering::Relaxed);
        let now_ms = context.auth.now_s() * 1000;
        let handle = Arc::new(Handle::new(id, transport, Arc::new(Outbox::new(limits)), now_ms));
        context.cluster.registry().add(&handle);
        Self {
            handle,
            encoding,
            opened_at: Instant::now(),
            phase: Phase::New,
            subscriptions: HashMap::new(),
            rates: Rates::default(),
            info: Arc::default(),
            patience_ends: Some(Instant::now() + patience),
            next_ping: None,
            expires: None,
            subscription_expires: None,
            context,
        }
    }

    /// What is to be written to the client.
    pub(crate) fn outbox(&self) -> &Arc<Outbox> {
        &self.handle.outbox
    }

    /// Names the connection in logs.
    pub(crate) fn client(&self) -> &str {
        &self.handle.client
    }

    /// Handles a frame: its commands in order, up to one that ends the session.
    pub(crate) fn on_frame(&mut self, bytes: &[u8]) {
        let outcome = frame::parse(self.encoding, bytes)
            .and_then(|commands| commands.into_iter().try_for_each(|command| self.on_command(command)));
        if let Err(disconnect) = outcome {
            self.outbox().close(disconnect);
        }
    }

    /// Carries out the orders that came from outside. Returns whether there were any.
    pub(crate) fn on_wake(&mut self) -> bool {
        if !self.outbox().was_called() {
            return false;
        }
        for order in self.handle.take_orders() {
            if self.outbox().closing().is_some() {
                break;
            }
            match order {
                Order::Frame(bytes) => self.on_frame(&bytes),
                Order::Subscribe(order) => self.subscribe_by_server(&order),
                Order::Unsubscribe(channel) => self.unsubscribe_by_server(&channel),
                Order::CheckAgain => self.check_again(),
            }
        }
        true
    }

    /// When [`Self::on_deadline`] is to be called, if the session is not touched before.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        [self.patience_ends, self.next_ping, self.expires, self.subscription_expires].into_iter().flatten().min()
    }

    /// Does what is due at `now`.
    pub(crate) fn on_deadline(&mut self, now: Instant) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.patience_ends) {
            let is_connected = matches!(self.phase, Phase::Connected(_));
            self.outbox().close(if is_connected { Disconnect::NO_PONG } else { Disconnect::STALE });
        } else if is_due(self.expires) {
            self.outbox().close(Disconnect::EXPIRED);
        } else if is_due(self.subscription_expires) {
            self.end_expired_subscriptions(now);
        } else if is_due(self.next_ping) {
            self.outbox().push(Budget::Live, frame::ping(self.encoding));
            let heartbeat = &self.context.heartbeat;
            self.next_ping = Some(now + Duration::from_secs(heartbeat.ping_seconds.into()));
            self.patience_ends = Some(now + Duration::from_secs(heartbeat.pong_seconds.into()));
        }
    }

    fn reply(&self, reply: &Reply) {
        self.outbox().push(Budget::Live, frame::line(self.encoding, reply));
    }

    fn reply_or_error(&self, id: u32, reply: Result<Reply, ErrorCode>) {
        self.reply(&reply.map_or_else(|error| frame::error_reply(id, error), |reply| Reply { id, ..reply }));
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
            Err(error @ (AuthError::Expired | AuthError::UnknownKey)) => {
                self.phase = Phase::Refused;
                let error = if error == AuthError::Expired { ErrorCode::TOKEN_EXPIRED } else { ErrorCode::NOT_YET };
                self.reply(&frame::error_reply(id, error));
                return Ok(());
            }
            Err(AuthError::Missing) => return Err(Disconnect::BAD_REQUEST),
            Err(_) => return Err(Disconnect::INVALID_TOKEN),
        };
        let now = Instant::now();
        let ping_seconds = self.context.heartbeat.ping_seconds;
        // Spread over the second half of the interval, so that clients that come together do not stay in step.
        let first_ping = Duration::from_secs(ping_seconds.into()).mul_f64(rand::rng().random_range(0.5..1.0));
        self.patience_ends = None;
        self.next_ping = Some(now + first_ping);
        let ttl_s = self.accept(&principal, now);
        let library = format!("{} {}", request.name, request.version).trim().chars().take(64).collect();
        tracing::debug!(client = self.client(), user = &*principal.user, library, "client connected");
        self.handle.introduce(About { user: Arc::clone(&principal.user), library });
        self.info = Arc::new(ClientInfo {
            user: principal.user.to_string(),
            client: self.client().to_owned(),
            conn_info: principal.claims.get("info").map_or_else(Bytes::new, |info| Bytes::from(info.to_string())),
            chan_info: Bytes::new(),
        });
        self.phase = Phase::Connected(principal);
        // The reply comes first, whatever its subscriptions bring meanwhile.
        let slot = self.outbox().reserve();
        let subs = self.subscribe_from_token(request)?;
        let budget = if subs.is_empty() { Budget::Live } else { Budget::State };
        let is_emulated = self.handle.transport.is_emulated();
        let connect = ConnectResult {
            client: self.client().to_owned(),
            version: VERSION.to_owned(),
            expires: ttl_s.is_some(),
            ttl: ttl_s.unwrap_or(0),
            subs,
            ping: ping_seconds,
            pong: true,
            session: self.handle.session.clone(),
            node: if is_emulated { self.context.cluster.node().to_string() } else { String::new() },
            time: self.context.auth.now_s() * 1000,
        };
        let reply = Reply { id, connect: Some(connect), ..Reply::default() };
        self.outbox().fill(slot, budget, frame::line(self.encoding, &reply));
        Ok(())
    }

    /// Sets the timer of the token's end. Returns the seconds until then, if it ends.
    fn accept(&mut self, principal: &Principal, now: Instant) -> Option<u32> {
        let ttl_s = principal.expires_at_s.map(|end_s| self.ttl_s(end_s));
        self.expires = ttl_s.map(|ttl_s| now + Duration::from_secs(ttl_s.into()) + EXPIRY_GRACE);
        ttl_s
    }

    /// Seconds until a moment in seconds since 1970.
    fn ttl_s(&self, end_s: i64) -> u32 {
        u32::try_from((end_s - self.context.auth.now_s()).clamp(1, TTL_S_MAX)).unwrap_or(1)
    }

    fn on_connected_command(&mut self, command: Command) -> Result<(), Disconnect> {
        let id = command.id;
        if !self.rates.admit(&command, &self.context.limits.commands_per_second, Instant::now()) {
            self.reply(&frame::error_reply(id, ErrorCode::TOO_MANY_REQUESTS));
            return Ok(());
        }
        if let Some(request) = &command.subscribe {
            return self.on_subscribe(id, request);
        } else if let Some(request) = &command.unsubscribe {
            self.unsubscribe(&request.channel);
            self.reply(&Reply { id, unsubscribe: Some(Empty {}), ..Reply::default() });
        } else if let Some(request) = command.publish {
            self.on_publish(id, request)?;
        } else if let Some(request) = &command.presence {
            let presence = self.may_query_presence(&request.channel).map(|()| {
                let presence = self.context.hub.topics().presence(&request.channel);
                Reply { presence: Some(PresenceResult { presence }), ..Reply::default() }
            });
            self.reply_or_error(id, presence);
        } else if let Some(request) = &command.presence_stats {
            let stats = self.may_query_presence(&request.channel).map(|()| {
                let presence_stats = Some(self.context.hub.topics().presence_stats(&request.channel));
                Reply { presence_stats, ..Reply::default() }
            });
            self.reply_or_error(id, stats);
        } else if let Some(request) = &command.history {
            let history = self.history(request).map(|history| Reply { id, history: Some(history), ..Reply::default() });
            let reply = history.unwrap_or_else(|error| frame::error_reply(id, error));
            self.outbox().push(Budget::State, frame::line(self.encoding, &reply));
        } else if let Some(request) = &command.rpc {
            let rpc = self.call(request).map(|rpc| Reply { rpc: Some(rpc), ..Reply::default() });
            self.reply_or_error(id, rpc);
        } else if let Some(request) = &command.refresh {
            return self.on_refresh(id, request);
        } else if let Some(request) = &command.sub_refresh {
            return self.on_sub_refresh(id, request);
        } else if command.ping.is_some() {
            self.reply(&frame::error_reply(id, ErrorCode::NOT_AVAILABLE));
        } else if command.send.is_some() {
            return Err(Disconnect::NOT_AVAILABLE);
        } else {
            return Err(Disconnect::BAD_REQUEST);
        }
        Ok(())
    }

    fn on_publish(&mut self, id: u32, request: PublishRequest) -> Result<(), Disconnect> {
        if request.channel.is_empty() {
            return Err(Disconnect::BAD_REQUEST);
        }
        if let Err(error) = self.may_publish(&request) {
            self.reply(&frame::error_reply(id, error));
            return Ok(());
        }
        let publication = Publication {
            data: request.data,
            info: Some(self.info_in(&request.channel)),
            time: self.context.auth.now_s() * 1000,
            ..Publication::default()
        };
        let publish = Publish { channel: request.channel, publication: Some(publication), ..Publish::default() };
        let (outbox, encoding) = (Arc::clone(self.outbox()), self.encoding);
        let done = move |outcome: Result<_, ErrorCode>| {
            let reply = match outcome {
                Ok(_) => Reply { id, publish: Some(Empty {}), ..Reply::default() },
                Err(error) => frame::error_reply(id, error),
            };
            outbox.push(Budget::Live, frame::line(encoding, &reply));
        };
        self.context.cluster.publish(publish, Box::new(done));
        Ok(())
    }

    fn may_publish(&self, request: &PublishRequest) -> Result<(), ErrorCode> {
        if request.kind != 0 {
            return Err(ErrorCode::NOT_AVAILABLE);
        }
        if is_built_in(&request.channel) {
            // The engine alone writes to these channels.
            return Err(ErrorCode::PERMISSION_DENIED);
        }
        if request.data.is_empty() {
            return Err(ErrorCode::BAD_REQUEST);
        }
        let allowed = self.context.hub.topics().namespace(&request.channel)?.publish;
        // A role may allow what the namespace does not.
        match self.role_allows(Action::Publish, Resource::Channel(&request.channel)) {
            true => Ok(()),
            false => self.is_allowed(allowed, &request.channel),
        }
    }

    fn is_allowed(&self, allowed: Allowed, channel: &str) -> Result<(), ErrorCode> {
        let is_allowed = match allowed {
            Allowed::Nobody => false,
            Allowed::Subscriber => self.subscriptions.contains_key(channel),
            // Who is in is in, by a token for example; whoever is not needs what coming in would need.
            Allowed::Client => self.subscriptions.contains_key(channel) || self.may_approach(channel),
        };
        if is_allowed { Ok(()) } else { Err(ErrorCode::PERMISSION_DENIED) }
    }

    fn may_query_presence(&self, channel: &str) -> Result<(), ErrorCode> {
        if is_built_in(channel) {
            return Err(ErrorCode::NOT_AVAILABLE);
        }
        let namespace = self.context.hub.topics().namespace(channel)?;
        if !namespace.presence {
            return Err(ErrorCode::NOT_AVAILABLE);
        }
        self.is_allowed(namespace.query, channel)
    }

    fn history(&self, request: &HistoryRequest) -> Result<HistoryResult, ErrorCode> {
        if is_built_in(&request.channel) {
            let (channel, mut lens) = self.built_in(&request.channel)?;
            // Who is subscribed through a filter has the history of what passes it.
            if let Some(subscription) = self.subscriptions.get(&request.channel) {
                lens = subscription.lens.clone();
            }
            return channel.history(request, &lens);
        }
        let namespace = self.context.hub.topics().namespace(&request.channel)?;
        if namespace.history_size == 0 {
            return Err(ErrorCode::NOT_AVAILABLE);
        }
        self.is_allowed(namespace.query, &request.channel)?;
        self.context.hub.topics().history(&request.channel, request)
    }

    /// The methods that clients may call: `andon.views`, the names of the views that the caller may see.
    fn call(&self, request: &RpcRequest) -> Result<RpcResult, ErrorCode> {
        match request.method.as_str() {
            method if method.starts_with("andon.") && !self.role_allows(Action::Call, Resource::Method(method)) => {
                Err(ErrorCode::PERMISSION_DENIED)
            }
            "andon.views" => {
                let names: Vec<Value> = self
                    .context
                    .hub
                    .views()
                    .iter()
                    .filter(|view| self.built_in(view.name()).is_ok())
                    .map(|view| Value::from(view.name()))
                    .collect();
                Ok(RpcResult { data: Bytes::from(Value::from(names).to_string()) })
            }
            method if method.starts_with("andon.") => Err(ErrorCode::METHOD_NOT_FOUND),
            _ => Err(ErrorCode::NOT_AVAILABLE),
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
        self.keep_what_is_allowed()?;
        let refresh = RefreshResult {
            client: self.client().to_owned(),
            version: VERSION.to_owned(),
            expires: ttl_s.is_some(),
            ttl: ttl_s.unwrap_or(0),
        };
        self.reply(&Reply { id, refresh: Some(refresh), ..Reply::default() });
        Ok(())
    }

    /// Credentials may have been revoked, or given other roles.
    fn check_again(&mut self) {
        let Phase::Connected(principal) = &self.phase else { return };
        match self.context.auth.as_of_now(principal) {
            Err(_) => self.outbox().close(Disconnect::INVALID_TOKEN),
            Ok(None) => {}
            Ok(Some(changed)) => {
                self.phase = Phase::Connected(changed);
                if let Err(disconnect) = self.keep_what_is_allowed() {
                    self.outbox().close(disconnect);
                }
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end_subscriptions();
        self.context.cluster.registry().remove(&self.handle.client);
    }
}
