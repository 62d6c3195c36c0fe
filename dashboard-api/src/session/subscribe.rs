//! A session's subscriptions: who may have which, how they begin, and how they end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::{EXPIRY_GRACE, Phase, Session};
use crate::auth::{Access, Action, AuthError, Resource};
use crate::cluster::message::SubscribeOrder;
use crate::hub::channel::{Subscribable, Subscribed, Subscriber, unsubscribe_push};
use crate::hub::is_built_in;
use crate::hub::lens::LensSpec;
use crate::hub::topics::CHANNEL_BYTES_MAX;
use crate::outbox::Budget;
use crate::protocol::message::{
    ClientInfo, ConnectRequest, Push, Reply, SubRefreshRequest, SubRefreshResult, SubscribePush, SubscribeRequest,
    SubscribeResult,
};
use crate::protocol::{Disconnect, ErrorCode, Unsubscribe, frame};

/// One subscription of a session.
pub(super) struct Subscription {
    /// The channel, if its content is ours; else it is a topic.
    built_in: Option<Arc<dyn Subscribable>>,
    /// What is seen of it.
    pub(super) lens: LensSpec,
    /// How others see this client there.
    info: Arc<ClientInfo>,
    /// Whether others are told that it is there.
    is_present: bool,
    /// Whether the server made it, and the client cannot renew it by itself.
    is_by_server: bool,
    /// Whether a subscription token allows it, whatever the client's roles say.
    is_by_token: bool,
    expires: Option<Instant>,
}

/// What a subscription token, or the server, says of a subscription.
#[derive(Default)]
struct Grant {
    chan_info: Bytes,
    expire_at_s: Option<i64>,
    is_by_server: bool,
    is_by_token: bool,
}

/// Why a subscription token is not accepted.
enum GrantError {
    Reply(ErrorCode),
    Disconnect(Disconnect),
}

impl From<ErrorCode> for GrantError {
    fn from(error: ErrorCode) -> Self {
        Self::Reply(error)
    }
}

impl Session {
    pub(super) fn on_subscribe(&mut self, id: u32, request: &SubscribeRequest) -> Result<(), Disconnect> {
        let is_bad = request.channel.is_empty() || !(request.delta.is_empty() || request.delta == "fossil");
        if is_bad {
            return Err(Disconnect::BAD_REQUEST);
        }
        let slot = self.outbox().reserve();
        let (budget, line) = match self.subscribe(request) {
            Ok(Subscribed { result, snapshot }) => {
                let reply = Reply { id, subscribe: Some(result), ..Reply::default() };
                let line = match snapshot {
                    Some(snapshot) => frame::line_with_data(self.encoding, reply, snapshot),
                    None => frame::line(self.encoding, &reply),
                };
                (Budget::State, line)
            }
            Err(GrantError::Reply(error)) => (Budget::Live, frame::line(self.encoding, &frame::error_reply(id, error))),
            Err(GrantError::Disconnect(disconnect)) => return Err(disconnect),
        };
        self.outbox().fill(slot, budget, line);
        Ok(())
    }

    fn subscribe(&mut self, request: &SubscribeRequest) -> Result<Subscribed, GrantError> {
        if request.channel.len() > CHANNEL_BYTES_MAX || request.tf.is_some() {
            return Err(ErrorCode::BAD_REQUEST.into());
        }
        if request.kind != 0 {
            return Err(ErrorCode::NOT_AVAILABLE.into());
        }
        if self.is_subscribed(&request.channel) {
            return Err(ErrorCode::ALREADY_SUBSCRIBED.into());
        }
        let limit = self.context.limits.channels_per_client;
        if self.subscriptions.len() >= limit {
            // Channels that started anew have dropped this session, and it has not come back to them.
            let live: Vec<bool> = self.subscriptions.keys().map(|channel| self.is_subscribed(channel)).collect();
            let mut live = live.into_iter();
            self.subscriptions.retain(|_, _| live.next().unwrap_or(false));
            if self.subscriptions.len() >= limit {
                return Err(ErrorCode::LIMIT_EXCEEDED.into());
            }
        }
        let grant = match is_built_in(&request.channel) {
            true => Grant::default(),
            false => self.grant(&request.channel, &request.token)?,
        };
        Ok(self.begin(request, grant)?)
    }

    /// Registers a subscription that is allowed.
    fn begin(&mut self, request: &SubscribeRequest, grant: Grant) -> Result<Subscribed, ErrorCode> {
        let channel = &request.channel;
        let info = Arc::new(ClientInfo { chan_info: grant.chan_info.clone(), ..(*self.info).clone() });
        let subscriber = Subscriber {
            session: self.handle.id,
            encoding: self.encoding,
            outbox: Arc::clone(self.outbox()),
            connected_at: self.opened_at,
        };
        let (built_in, lens, mut subscribed) = match is_built_in(channel) {
            true => {
                let (built_in, rule) = self.built_in(channel)?;
                let lens = LensSpec { rule: rule.rule, ..LensSpec::parse(&request.data)? };
                let subscribed = built_in.subscribe(&subscriber, request, &lens)?;
                (Some(built_in), lens, subscribed)
            }
            false => (None, LensSpec::default(), self.context.hub.topics().subscribe(&subscriber, request)?),
        };
        let expires = grant.expire_at_s.map(|at_s| {
            let ttl_s = self.ttl_s(at_s);
            subscribed.result.expires = !grant.is_by_server;
            subscribed.result.ttl = if grant.is_by_server { 0 } else { ttl_s };
            Instant::now() + Duration::from_secs(ttl_s.into()) + EXPIRY_GRACE
        });
        let namespace = self.context.hub.topics().namespace(channel).ok().filter(|_| built_in.is_none());
        let is_present = namespace.is_some_and(|namespace| namespace.presence || namespace.join_leave);
        if is_present {
            self.context.cluster.join(channel, &info);
        }
        let Grant { is_by_server, is_by_token, .. } = grant;
        let subscription = Subscription { built_in, lens, info, is_present, is_by_server, is_by_token, expires };
        self.subscriptions.insert(channel.clone(), subscription);
        self.schedule_expiry();
        Ok(subscribed)
    }

    fn is_subscribed(&self, channel: &str) -> bool {
        self.subscriptions.get(channel).is_some_and(|subscription| match &subscription.built_in {
            Some(built_in) => built_in.is_subscribed(self.handle.id),
            None => self.context.hub.topics().is_subscribed(channel, self.handle.id),
        })
    }

    /// The channel with content of ours, and which rows of it this client may see.
    pub(super) fn built_in(&self, channel: &str) -> Result<(Arc<dyn Subscribable>, LensSpec), ErrorCode> {
        let Phase::Connected(principal) = &self.phase else { return Err(ErrorCode::PERMISSION_DENIED) };
        match self.context.auth.access(principal, Action::Read, Resource::Channel(channel)) {
            Access::Allowed { row_rule } => {
                Ok((self.context.hub.find(channel)?, LensSpec { rule: row_rule, ..LensSpec::default() }))
            }
            Access::Denied(_) => Err(ErrorCode::PERMISSION_DENIED),
        }
    }

    /// Whether this client may subscribe to a topic, and as what.
    fn grant(&self, channel: &str, token: &str) -> Result<Grant, GrantError> {
        let namespace = self.context.hub.topics().namespace(channel)?;
        if !token.is_empty() {
            return self.grant_by_token(channel, token);
        }
        // A channel of named users is theirs, whatever holds for the others of its namespace.
        match self.may_approach(channel) && (namespace.subscribe || channel.contains('#')) {
            true => Ok(Grant::default()),
            false => Err(ErrorCode::PERMISSION_DENIED.into()),
        }
    }

    /// Whether the name of a topic lets this client near it without a token: not if it is private, or of other users, or
    /// of no role of the client.
    pub(super) fn may_approach(&self, channel: &str) -> bool {
        if channel.starts_with('$') {
            return false;
        }
        match channel.split_once('#') {
            Some((_, users)) => !self.info.user.is_empty() && users.split(',').any(|user| user == self.info.user),
            None => self.role_allows(Action::Read, Resource::Channel(channel)),
        }
    }

    /// Whether one of the caller's roles allows it.
    pub(super) fn role_allows(&self, action: Action, resource: Resource<'_>) -> bool {
        match &self.phase {
            Phase::Connected(principal) => self.context.auth.access(principal, action, resource).is_allowed(),
            _ => false,
        }
    }

    fn grant_by_token(&self, channel: &str, token: &str) -> Result<Grant, GrantError> {
        let claims = match self.context.auth.verify(token) {
            Ok(claims) => claims,
            Err(AuthError::Expired) => return Err(ErrorCode::TOKEN_EXPIRED.into()),
            Err(_) => return Err(ErrorCode::PERMISSION_DENIED.into()),
        };
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let is_for_this = text("channel") == Some(channel) && text("sub").is_none_or(|user| user == self.info.user);
        if !is_for_this {
            return Err(GrantError::Disconnect(Disconnect::INVALID_TOKEN));
        }
        Ok(Grant {
            chan_info: claims.get("info").map_or_else(Bytes::new, |info| Bytes::from(info.to_string())),
            expire_at_s: expire_at_s(&claims),
            is_by_server: false,
            is_by_token: true,
        })
    }

    /// How others see this client in a channel.
    pub(super) fn info_in(&self, channel: &str) -> ClientInfo {
        self.subscriptions.get(channel).map_or_else(|| (*self.info).clone(), |s| (*s.info).clone())
    }

    /// Makes the subscriptions that the connection's token names (`channels`, `subs`).
    pub(super) fn subscribe_from_token(
        &mut self,
        request: &ConnectRequest,
    ) -> Result<BTreeMap<String, SubscribeResult>, Disconnect> {
        let Phase::Connected(principal) = &self.phase else { return Ok(BTreeMap::new()) };
        let claims = Arc::clone(&principal.claims);
        let listed = claims.get("channels").and_then(Value::as_array).into_iter().flatten();
        let mut wanted: BTreeMap<&str, Option<&Value>> =
            listed.filter_map(Value::as_str).map(|channel| (channel, None)).collect();
        let described = claims.get("subs").and_then(Value::as_object).into_iter().flatten();
        wanted.extend(described.map(|(channel, about)| (channel.as_str(), Some(about))));
        if wanted.len() > self.context.limits.channels_per_client {
            return Err(Disconnect::CHANNEL_LIMIT);
        }
        let mut results = BTreeMap::new();
        for (channel, about) in wanted {
            let position = request.subs.get(channel).cloned().unwrap_or_default();
            let request = SubscribeRequest { channel: channel.to_owned(), data: Bytes::new(), ..position };
            let info = about.and_then(|about| about.get("info"));
            let chan_info = info.map_or_else(Bytes::new, |info| Bytes::from(info.to_string()));
            let grant = Grant { chan_info, is_by_server: true, ..Grant::default() };
            match self.begin(&request, grant) {
                Ok(Subscribed { mut result, snapshot }) => {
                    result.data = snapshot.unwrap_or_default();
                    results.insert(channel.to_owned(), result);
                }
                Err(ErrorCode { code: 100, .. }) => return Err(Disconnect::INSUFFICIENT_STATE),
                Err(error) => {
                    tracing::debug!(channel, code = error.code, "left out a subscription that a token names");
                }
            }
        }
        Ok(results)
    }

    /// Subscribes the client because the server says so.
    pub(super) fn subscribe_by_server(&mut self, order: &SubscribeOrder) {
        if !matches!(self.phase, Phase::Connected(_)) || self.is_subscribed(&order.channel) {
            return;
        }
        let request = SubscribeRequest { channel: order.channel.clone(), ..SubscribeRequest::default() };
        let grant = Grant {
            chan_info: order.info.clone(),
            expire_at_s: Some(order.expire_at_s).filter(|at_s| *at_s > 0),
            is_by_server: true,
            is_by_token: false,
        };
        let slot = self.outbox().reserve();
        let push = match self.begin(&request, grant) {
            Ok(Subscribed { result, snapshot }) => {
                let SubscribeResult { recoverable, epoch, offset, positioned, .. } = result;
                let data = snapshot.unwrap_or_default();
                let subscribe = SubscribePush { recoverable, epoch, offset, positioned, data };
                Push { channel: order.channel.clone(), subscribe: Some(subscribe), ..Push::default() }
            }
            Err(error) => {
                tracing::debug!(channel = order.channel, code = error.code, "could not subscribe a client");
                // The place is taken: a push that clients know to ignore.
                Push::default()
            }
        };
        let line = frame::line(self.encoding, &Reply { push: Some(push), ..Reply::default() });
        self.outbox().fill(slot, Budget::State, line);
    }

    pub(super) fn unsubscribe_by_server(&mut self, channel: &str) {
        if self.unsubscribe(channel) {
            self.outbox().push(Budget::Live, unsubscribe_push(self.encoding, channel, Unsubscribe::BY_SERVER));
        }
    }

    /// Ends a subscription. Returns whether there was one.
    pub(super) fn unsubscribe(&mut self, channel: &str) -> bool {
        let Some(subscription) = self.subscriptions.remove(channel) else { return false };
        self.end(channel, &subscription);
        true
    }

    fn end(&self, channel: &str, subscription: &Subscription) {
        match &subscription.built_in {
            Some(built_in) => built_in.unsubscribe(self.handle.id),
            None => drop(self.context.hub.topics().unsubscribe(channel, self.handle.id)),
        }
        if subscription.is_present {
            self.context.cluster.leave(channel, &subscription.info);
        }
    }

    pub(super) fn end_subscriptions(&mut self) {
        for (channel, subscription) in std::mem::take(&mut self.subscriptions) {
            self.end(&channel, &subscription);
        }
    }

    /// After the client's rights have changed.
    pub(super) fn keep_what_is_allowed(&mut self) -> Result<(), Disconnect> {
        let by_role =
            self.subscriptions.iter().filter(|(_, s)| s.built_in.is_none() && !s.is_by_server && !s.is_by_token);
        let lost: Vec<String> =
            by_role.map(|(channel, _)| channel).filter(|channel| self.grant(channel, "").is_err()).cloned().collect();
        for channel in lost {
            self.unsubscribe_by_server(&channel);
        }
        let built_in = self.subscriptions.iter().filter(|(_, subscription)| subscription.built_in.is_some());
        for (channel, subscription) in built_in {
            match self.built_in(channel) {
                Ok((_, rule)) if rule.rule == subscription.lens.rule => {}
                // Other rows than before: the client starts anew.
                Ok(_) => return Err(Disconnect::INSUFFICIENT_STATE),
                Err(_) => return Err(Disconnect::PERMISSION_DENIED),
            }
        }
        Ok(())
    }

    pub(super) fn on_sub_refresh(&mut self, id: u32, request: &SubRefreshRequest) -> Result<(), Disconnect> {
        let reply = match self.refresh_subscription(request) {
            Ok(result) => Reply { id, sub_refresh: Some(result), ..Reply::default() },
            Err(GrantError::Reply(error)) => frame::error_reply(id, error),
            Err(GrantError::Disconnect(disconnect)) => return Err(disconnect),
        };
        self.reply(&reply);
        Ok(())
    }

    fn refresh_subscription(&mut self, request: &SubRefreshRequest) -> Result<SubRefreshResult, GrantError> {
        if request.kind != 0 {
            return Err(ErrorCode::NOT_AVAILABLE.into());
        }
        match self.subscriptions.get(&request.channel) {
            None => return Err(ErrorCode::PERMISSION_DENIED.into()),
            Some(Subscription { built_in: Some(_), .. }) => return Err(ErrorCode::NOT_AVAILABLE.into()),
            Some(_) if request.token.is_empty() => return Err(GrantError::Disconnect(Disconnect::BAD_REQUEST)),
            Some(_) => {}
        }
        let grant = match self.grant_by_token(&request.channel, &request.token) {
            Err(GrantError::Reply(ErrorCode::PERMISSION_DENIED)) => {
                return Err(GrantError::Disconnect(Disconnect::INVALID_TOKEN));
            }
            other => other?,
        };
        let ttl_s = grant.expire_at_s.map(|at_s| self.ttl_s(at_s));
        if let Some(subscription) = self.subscriptions.get_mut(&request.channel) {
            let after = |ttl_s: u32| Instant::now() + Duration::from_secs(ttl_s.into()) + EXPIRY_GRACE;
            subscription.expires = ttl_s.map(after);
        }
        self.schedule_expiry();
        Ok(SubRefreshResult { expires: ttl_s.is_some(), ttl: ttl_s.unwrap_or(0) })
    }

    fn schedule_expiry(&mut self) {
        self.subscription_expires = self.subscriptions.values().filter_map(|subscription| subscription.expires).min();
    }

    pub(super) fn end_expired_subscriptions(&mut self, now: Instant) {
        let is_expired = |subscription: &Subscription| subscription.expires.is_some_and(|at| at <= now);
        if self.subscriptions.values().any(|subscription| subscription.is_by_server && is_expired(subscription)) {
            self.outbox().close(Disconnect::SUBSCRIPTION_EXPIRED);
            return;
        }
        let expired: Vec<String> =
            self.subscriptions.iter().filter(|(_, s)| is_expired(s)).map(|(channel, _)| channel.clone()).collect();
        for channel in expired {
            self.unsubscribe(&channel);
            self.outbox().push(Budget::Live, unsubscribe_push(self.encoding, &channel, Unsubscribe::EXPIRED));
        }
        self.schedule_expiry();
    }
}

/// When a token's right ends: `expire_at`, where 0 is never, else `exp`.
fn expire_at_s(claims: &Map<String, Value>) -> Option<i64> {
    match claims.get("expire_at").and_then(Value::as_i64) {
        Some(0) => None,
        Some(at_s) => Some(at_s),
        None => claims.get("exp").and_then(Value::as_i64),
    }
}
