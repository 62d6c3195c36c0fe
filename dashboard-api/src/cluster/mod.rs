//! Several nodes as one: presence, publications into topics, the server API's orders and revocations reach every node.
//! Views do not come this way; every node reads them from the log.
//!
//! A node alone applies what it sends at once. Nodes that share a Redis write everything into one stream there, which
//! gives it one order; each node reads the stream and applies it. What only concerns the sender's own clients (its
//! presence, orders to its connections) it applies at once, so that an outage keeps none of that from working here.
//!
//! - [`message`]: what nodes tell each other; [`redis`]: the stream; [`registry`]: this node's connections.

pub(crate) mod message;
pub(crate) mod redis;
pub(crate) mod registry;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::gauge;
use model::Clock;
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::cluster::message::{
    Alive, Control, DisconnectOrder, Emulation, Envelope, Presence, PresenceChange, Publish,
};
use crate::cluster::redis::{Outgoing, RedisBus};
use crate::cluster::registry::{Handle, Order, Registry};
use crate::hub::Hub;
use crate::hub::topics::{Position, Present};
use crate::live::RedisConfig;
use crate::protocol::message::ClientInfo;
use crate::protocol::{Disconnect, ErrorCode};

/// How often a node says that it is there, and tidies up.
const ALIVE_INTERVAL: Duration = Duration::from_secs(3);
/// A node that has been silent for so long is gone, and its clients with it.
const NODE_PATIENCE: Duration = Duration::from_secs(15);
/// Messages that may wait for Redis; one more is refused with error 100.
const OUTGOING_MAX: usize = 10_000;
/// How long a repeated idempotency key has no effect.
const IDEMPOTENCY_TIME: Duration = Duration::from_secs(300);
/// Idempotency keys that are remembered; the oldest go first.
const IDEMPOTENCY_MAX: usize = 100_000;

/// Called with the place of a publication, or why there is none.
pub(crate) type Done = Box<dyn FnOnce(Result<Position, ErrorCode>) + Send>;

/// Has the live connections checked.
pub(crate) type LookAgain = Box<dyn Fn() + Send>;

/// This node and what it knows of the others.
pub(crate) struct Cluster {
    node: Arc<str>,
    hub: Arc<Hub>,
    registry: Arc<Registry>,
    clock: Arc<dyn Clock>,
    started: Instant,
    /// To Redis; `None` where this node is alone.
    outgoing: Option<mpsc::Sender<Outgoing>>,
    bus: Mutex<Option<RedisBus>>,
    nodes: Mutex<BTreeMap<String, Node>>,
    published: Mutex<Published>,
    on_revoked: Mutex<Option<LookAgain>>,
}

/// Another node, or this one.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) seen: Instant,
    pub(crate) alive: Alive,
}

/// What was published under which idempotency key.
#[derive(Default)]
struct Published {
    positions: HashMap<(String, String), Position>,
    order: VecDeque<(Instant, (String, String))>,
}

impl Cluster {
    pub(crate) fn new(hub: Arc<Hub>, registry: Arc<Registry>, clock: Arc<dyn Clock>, config: &RedisConfig) -> Self {
        let is_shared = config.url.is_some() || !config.sentinels.is_empty();
        let (outgoing, bus) = match is_shared {
            true => {
                let (sender, receiver) = mpsc::channel(OUTGOING_MAX);
                (Some(sender), Some(RedisBus::new(config.clone(), receiver)))
            }
            false => (None, None),
        };
        Self {
            node: Arc::from(uuid::Uuid::new_v4().to_string()),
            hub,
            registry,
            clock,
            started: Instant::now(),
            outgoing,
            bus: Mutex::new(bus),
            nodes: Mutex::default(),
            published: Mutex::default(),
            on_revoked: Mutex::default(),
        }
    }

    /// The name of this node.
    pub(crate) fn node(&self) -> &Arc<str> {
        &self.node
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// All nodes that are there, this one first among them, by name.
    pub(crate) fn nodes(&self) -> BTreeMap<String, Alive> {
        let mut nodes: BTreeMap<String, Alive> =
            lock(&self.nodes).iter().map(|(name, node)| (name.clone(), node.alive.clone())).collect();
        nodes.insert(self.node.to_string(), self.alive());
        nodes
    }

    /// Publishes into a topic on all nodes; `done` is told when it has its place.
    pub(crate) fn publish(&self, publish: Publish, done: Done) {
        if let Err(error) = self.hub.topics().namespace(&publish.channel) {
            return done(Err(error));
        }
        if let Some(position) = lock(&self.published).get(&publish) {
            return done(Ok(position));
        }
        let envelope = Envelope { publish: Some(publish), ..self.envelope() };
        match &self.outgoing {
            None => done(self.apply(envelope, None)),
            Some(outgoing) => {
                let message = Outgoing { payload: envelope.encode_to_vec(), done: Some(done) };
                if let Err(refused) = outgoing.try_send(message)
                    && let Some(done) = refused.into_inner().done
                {
                    done(Err(ErrorCode::NOT_YET));
                }
            }
        }
    }

    /// A client of this node is in a channel now.
    pub(crate) fn join(&self, channel: &str, info: &Arc<ClientInfo>) {
        self.hub.topics().join(channel, Present { node: Arc::clone(&self.node), info: Arc::clone(info) });
        let presence = Presence { channel: channel.to_owned(), info: Some((**info).clone()) };
        self.tell(Envelope {
            presence: Some(PresenceChange { joined: vec![presence], ..PresenceChange::default() }),
            ..self.envelope()
        });
    }

    /// A client of this node is no longer in a channel.
    pub(crate) fn leave(&self, channel: &str, info: &Arc<ClientInfo>) {
        self.hub.topics().leave(channel, &info.client);
        let presence = Presence { channel: channel.to_owned(), info: Some((**info).clone()) };
        self.tell(Envelope {
            presence: Some(PresenceChange { left: vec![presence], ..PresenceChange::default() }),
            ..self.envelope()
        });
    }

    /// Has all nodes do something with the connections that it means.
    pub(crate) fn control(&self, control: Control) {
        self.obey(&control);
        self.tell(Envelope { control: Some(control), ..self.envelope() });
    }

    /// Called when another node says that credentials have been revoked.
    pub(crate) fn set_on_revoked(&self, look_again: LookAgain) {
        *lock(&self.on_revoked) = Some(look_again);
    }

    /// Passes a client's commands to its session, here or at another node. Returns whether the node and, as far as
    /// that is known, the session are there.
    pub(crate) fn emulate(&self, emulation: Emulation) -> Result<(), EmulationError> {
        if *emulation.node == *self.node {
            return self.emulate_here(&emulation);
        }
        if !lock(&self.nodes).contains_key(&emulation.node) {
            return Err(EmulationError::UnknownNode);
        }
        self.tell(Envelope { emulation: Some(emulation), ..self.envelope() });
        Ok(())
    }

    fn emulate_here(&self, emulation: &Emulation) -> Result<(), EmulationError> {
        let handle = self.registry.by_session(&emulation.session).ok_or(EmulationError::UnknownSession)?;
        if !handle.order(Order::Frame(emulation.data.clone())) {
            handle.outbox.close(Disconnect::SLOW);
        }
        Ok(())
    }

    fn envelope(&self) -> Envelope {
        Envelope { node: self.node.to_string(), ..Envelope::default() }
    }

    /// Tells the other nodes, if there can be any.
    fn tell(&self, envelope: Envelope) {
        if let Some(outgoing) = &self.outgoing {
            let message = Outgoing { payload: envelope.encode_to_vec(), done: None };
            if outgoing.try_send(message).is_err() {
                metrics::counter!("api_cluster_dropped_total").increment(1);
            }
        }
    }

    /// Applies a message; `at` is its place in the common order, if there is one.
    pub(crate) fn apply(&self, envelope: Envelope, at: Option<u64>) -> Result<Position, ErrorCode> {
        let is_own = *envelope.node == *self.node;
        if let Some(publish) = envelope.publish {
            return self.apply_publish(publish, at);
        }
        if is_own {
            return Ok(Position::default());
        }
        if let Some(change) = envelope.presence {
            self.apply_presence(&envelope.node, change);
        }
        if let Some(alive) = envelope.alive {
            self.apply_alive(&envelope.node, alive);
        }
        if let Some(control) = &envelope.control {
            self.obey(control);
        }
        if let Some(emulation) = envelope.emulation.filter(|emulation| *emulation.node == *self.node)
            && self.emulate_here(&emulation).is_err()
        {
            tracing::debug!("commands for a session that is not here");
        }
        Ok(Position::default())
    }

    fn apply_publish(&self, publish: Publish, at: Option<u64>) -> Result<Position, ErrorCode> {
        // A repetition may be under way together with the first: whoever comes second waits for the first one's place.
        let mut published = (!publish.idempotency_key.is_empty()).then(|| lock(&self.published));
        if let Some(position) = published.as_ref().and_then(|published| published.get(&publish)) {
            return Ok(position);
        }
        let Publish { channel, publication, skip_history, idempotency_key } = publish;
        let publication = publication.ok_or(ErrorCode::BAD_REQUEST)?;
        let position = self.hub.topics().publish(&channel, publication, at, !skip_history)?;
        if let Some(published) = &mut published {
            published.put((channel, idempotency_key), position.clone());
        }
        Ok(position)
    }

    fn apply_presence(&self, node: &str, change: PresenceChange) {
        let topics = self.hub.topics();
        let name: Arc<str> = Arc::from(node);
        if change.is_complete {
            let client = |presence: &Presence| presence.info.as_ref().map(|info| info.client.clone());
            let still: BTreeSet<(String, String)> =
                change.joined.iter().filter_map(|p| Some((p.channel.clone(), client(p)?))).collect();
            topics.forget_node(node, &still);
        }
        for Presence { channel, info } in change.joined {
            if let Some(info) = info {
                topics.join(&channel, Present { node: Arc::clone(&name), info: Arc::new(info) });
            }
        }
        for Presence { channel, info } in change.left {
            if let Some(info) = info {
                topics.leave(&channel, &info.client);
            }
        }
    }

    fn apply_alive(&self, node: &str, alive: Alive) {
        if alive.is_gone {
            lock(&self.nodes).remove(node);
            self.hub.topics().forget_node(node, &BTreeSet::new());
            return;
        }
        let is_new = alive.is_new;
        lock(&self.nodes).insert(node.to_owned(), Node { seen: Instant::now(), alive });
        if is_new {
            self.tell_presence();
            self.tell(Envelope { alive: Some(self.alive()), ..self.envelope() });
        }
    }

    /// Tells who is at this node.
    fn tell_presence(&self) {
        let joined = self.hub.topics().present_at(&self.node);
        let joined = joined.into_iter().map(|(channel, info)| Presence { channel, info: Some(info) }).collect();
        let change = PresenceChange { joined, is_complete: true, ..PresenceChange::default() };
        self.tell(Envelope { presence: Some(change), ..self.envelope() });
    }

    /// The connection to the other nodes is there (again).
    fn on_connected(&self) {
        self.tell(Envelope { alive: Some(Alive { is_new: true, ..self.alive() }), ..self.envelope() });
        self.tell_presence();
    }

    fn obey(&self, control: &Control) {
        if let Some(channel) = &control.remove_history {
            self.hub.topics().remove_history(channel);
        }
        if control.revoked
            && let Some(look_again) = &*lock(&self.on_revoked)
        {
            look_again();
        }
        let Some(who) = &control.who else { return };
        for handle in self.registry.select(who) {
            if let Some(order) = &control.disconnect {
                end(&handle, order);
            }
            let orders =
                [control.subscribe.clone().map(Order::Subscribe), control.unsubscribe.clone().map(Order::Unsubscribe)];
            for order in orders.into_iter().flatten() {
                if !handle.order(order) {
                    handle.outbox.close(Disconnect::SLOW);
                }
            }
        }
    }

    fn alive(&self) -> Alive {
        let handles = self.registry.all();
        let users: BTreeSet<&Arc<str>> = handles.iter().filter_map(|h| h.about().map(|about| &about.user)).collect();
        let channels = self.hub.channels();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Alive {
            n_clients: count(handles.len()),
            n_users: count(users.len()),
            n_channels: count(channels.len()),
            n_subscriptions: count(channels.iter().map(|(_, n)| n).sum()),
            uptime_s: self.started.elapsed().as_secs(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            channels: channels.into_iter().map(|(name, n)| (name, count(n))).collect(),
            ..Alive::default()
        }
    }

    /// Keeps in touch with the other nodes, and tidies up, until `shutdown`.
    pub(crate) async fn run(self: &Arc<Self>, shutdown: CancellationToken) {
        let bus = lock(&self.bus).take();
        let talking = async {
            match bus {
                Some(bus) => bus.run(Arc::clone(self), shutdown.clone()).await,
                None => shutdown.cancelled().await,
            }
        };
        let beating = async {
            let mut ticks = tokio::time::interval(ALIVE_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = ticks.tick() => self.beat(),
                    () = shutdown.cancelled() => break,
                }
            }
            self.tell(Envelope { alive: Some(Alive { is_gone: true, ..Alive::default() }), ..self.envelope() });
        };
        tokio::join!(talking, beating);
    }

    fn beat(&self) {
        self.tell(Envelope { alive: Some(self.alive()), ..self.envelope() });
        let is_gone = |node: &Node| node.seen.elapsed() > NODE_PATIENCE;
        let gone: Vec<String> =
            lock(&self.nodes).extract_if(.., |_, node| is_gone(node)).map(|(name, _)| name).collect();
        for node in gone {
            tracing::warn!(node, "another node has fallen silent");
            self.hub.topics().forget_node(&node, &BTreeSet::new());
        }
        self.hub.topics().tidy(self.clock.now_us() / 1000);
        lock(&self.published).tidy();
        gauge!("api_nodes_total").set(f64::from(u32::try_from(lock(&self.nodes).len() + 1).unwrap_or(u32::MAX)));
    }
}

/// Ends a connection as ordered.
fn end(handle: &Handle, order: &DisconnectOrder) {
    let custom = Disconnect::custom(order.code, &order.reason);
    handle.outbox.close(custom.unwrap_or(Disconnect::FORCE_DISCONNECT));
}

/// Why commands cannot be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EmulationError {
    UnknownNode,
    UnknownSession,
}

impl Published {
    fn get(&self, publish: &Publish) -> Option<Position> {
        if publish.idempotency_key.is_empty() {
            return None;
        }
        self.positions.get(&(publish.channel.clone(), publish.idempotency_key.clone())).cloned()
    }

    fn put(&mut self, key: (String, String), position: Position) {
        if self.positions.insert(key.clone(), position).is_none() {
            self.order.push_back((Instant::now(), key));
        }
        while self.order.len() > IDEMPOTENCY_MAX {
            self.drop_oldest();
        }
    }

    fn tidy(&mut self) {
        while self.order.front().is_some_and(|(at, _)| at.elapsed() > IDEMPOTENCY_TIME) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, key)) = self.order.pop_front() {
            self.positions.remove(&key);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
