//! Channels where clients and servers publish: what a namespace allows, who is subscribed, who is there, and a bounded
//! history.
//!
//! A topic counts its publications itself, unless several nodes share it: then every publication has its place in their
//! common order ([`Shared`]), and that is its offset on every node.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;
use metrics::counter;

use crate::hub::channel::{LAG_PATIENCE, SessionId, Subscribed, Subscriber, unsubscribe_push};
use crate::hub::stream::{Stream, StreamBounds, random_epoch};
use crate::live::NamespaceConfig;
use crate::outbox::Budget;
use crate::protocol::message::{
    ClientInfo, HistoryRequest, HistoryResult, Join, PresenceStatsResult, Publication, Push, Reply, SubscribeRequest,
    SubscribeResult,
};
use crate::protocol::publication::{self, Delta, Encoder, Form};
use crate::protocol::{Encoding, ErrorCode, Line, Unsubscribe, frame};

/// Topics that are known at a time; one more gets error 106.
const TOPICS_MAX: usize = 100_000;
/// Clients that a topic's presence names; further ones are left out and counted.
const PRESENCE_MAX: usize = 20_000;
/// Longest name of a channel.
pub(crate) const CHANNEL_BYTES_MAX: usize = 255;
/// How long the position of a topic with recovery is kept after the last of it has gone. A client that comes back later
/// starts anew.
const POSITION_TTL_MS: i64 = 24 * 3_600_000;
/// With so many topics no position is kept of one that nobody uses, so that names made up by clients take no place.
const TOPICS_COMFORTABLE: usize = TOPICS_MAX / 2;
/// Bytes of history of one topic.
const HISTORY_BYTES_MAX: usize = 4 << 20;

/// A place in a channel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) offset: u64,
    pub(crate) epoch: String,
}

/// The common order of several nodes, as far as this node has it.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) epoch: Arc<str>,
    /// This node has everything after this.
    pub(crate) floor: u64,
    /// … up to this.
    pub(crate) top: u64,
}

/// All topics of this node.
pub(crate) struct Topics {
    namespaces: BTreeMap<String, Arc<NamespaceConfig>>,
    topics: RwLock<HashMap<Arc<str>, Arc<Mutex<Topic>>>>,
    shared: Mutex<Option<Shared>>,
}

struct Topic {
    name: Arc<str>,
    namespace: Arc<NamespaceConfig>,
    stream: Stream,
    /// The payload that the next delta is made from.
    last: Option<Bytes>,
    subscribers: HashMap<SessionId, TopicSubscriber>,
    presence: BTreeMap<String, Present>,
    /// Since when nothing but its position is left, in milliseconds since 1970.
    idle_since_ms: Option<i64>,
}

struct TopicSubscriber {
    subscriber: Subscriber,
    delta: bool,
    /// Whether it has the publication that the next delta is made from.
    has_base: bool,
    wants_joins: bool,
}

/// A client that is there, and the node that it is at.
#[derive(Debug, Clone)]
pub(crate) struct Present {
    pub(crate) node: Arc<str>,
    pub(crate) info: Arc<ClientInfo>,
}

impl Topics {
    pub(crate) fn new(namespaces: &BTreeMap<String, NamespaceConfig>) -> Self {
        let namespaces = namespaces.iter().map(|(name, config)| (name.clone(), Arc::new(config.clone()))).collect();
        Self { namespaces, topics: RwLock::default(), shared: Mutex::default() }
    }

    /// What holds for a channel.
    ///
    /// # Errors
    /// [`ErrorCode::UNKNOWN_CHANNEL`] if its namespace is not configured, [`ErrorCode::BAD_REQUEST`] if its name is too long.
    pub(crate) fn namespace(&self, channel: &str) -> Result<&Arc<NamespaceConfig>, ErrorCode> {
        if channel.len() > CHANNEL_BYTES_MAX {
            return Err(ErrorCode::BAD_REQUEST);
        }
        let bare = channel.strip_prefix('$').unwrap_or(channel);
        let name = bare.split_once(':').map_or("", |(name, _)| name);
        self.namespaces.get(name).ok_or(ErrorCode::UNKNOWN_CHANNEL)
    }

    /// Subscribes a session. The caller holds a place for the reply in the outbox.
    ///
    /// # Errors
    /// The protocol error to answer with; then nothing has changed.
    pub(crate) fn subscribe(
        &self,
        subscriber: &Subscriber,
        request: &SubscribeRequest,
    ) -> Result<Subscribed, ErrorCode> {
        let namespace = self.namespace(&request.channel)?;
        let shared_top = self.shared().as_ref().map(|shared| shared.top);
        let topic = self.topic_or_new(&request.channel)?;
        let mut topic = lock(&topic);
        topic.idle_since_ms = None;
        if let Some(top) = shared_top {
            topic.stream.advance(top);
        }
        let mut result = SubscribeResult { was_recovering: request.recover, ..SubscribeResult::default() };
        let delta = namespace.delta && request.delta == "fossil";
        result.delta = delta;
        if namespace.recovery {
            topic.position(subscriber, request, delta, shared_top.is_some(), &mut result)?;
        }
        let has_base = !result.publications.is_empty();
        let wants_joins = namespace.join_leave && (request.join_leave || namespace.force_join_leave);
        let entry = TopicSubscriber { subscriber: subscriber.clone(), delta, has_base, wants_joins };
        topic.subscribers.insert(subscriber.session, entry);
        Ok(Subscribed { result, snapshot: None })
    }

    /// Ends a subscription. Returns whether there was one.
    pub(crate) fn unsubscribe(&self, channel: &str, session: SessionId) -> bool {
        self.topic(channel).is_some_and(|topic| lock(&topic).subscribers.remove(&session).is_some())
    }

    pub(crate) fn is_subscribed(&self, channel: &str, session: SessionId) -> bool {
        self.topic(channel).is_some_and(|topic| lock(&topic).subscribers.contains_key(&session))
    }

    /// Publishes to this node's subscribers. `at` is the place in the nodes' common order, if there is one.
    ///
    /// # Errors
    /// The protocol error to answer with.
    pub(crate) fn publish(
        &self,
        channel: &str,
        mut publication: Publication,
        at: Option<u64>,
        keep: bool,
    ) -> Result<Position, ErrorCode> {
        let namespace = self.namespace(channel)?;
        let keep = keep && namespace.history_size > 0;
        let topic = match keep {
            true => self.topic_or_new(channel)?,
            false => match self.topic(channel) {
                Some(topic) => topic,
                None => return Ok(Position::default()),
            },
        };
        let mut topic = lock(&topic);
        topic.idle_since_ms = None;
        counter!("api_publications_total").increment(1);
        if keep {
            publication.offset = at.unwrap_or(topic.stream.top() + 1);
        }
        topic.publish(publication, keep);
        Ok(match keep {
            true => Position { offset: topic.stream.top(), epoch: topic.stream.epoch().to_owned() },
            false => Position::default(),
        })
    }

    /// Somebody came.
    pub(crate) fn join(&self, channel: &str, present: Present) {
        let Ok(topic) = self.topic_or_new(channel) else { return };
        let mut topic = lock(&topic);
        let client = present.info.client.clone();
        if topic.presence.len() >= PRESENCE_MAX && !topic.presence.contains_key(&client) {
            counter!("api_presence_left_out_total").increment(1);
            return;
        }
        let info = Arc::clone(&present.info);
        if topic.presence.insert(client, present).is_none() {
            topic.tell_of(&info, true);
        }
    }

    /// Somebody left.
    pub(crate) fn leave(&self, channel: &str, client: &str) {
        let Some(topic) = self.topic(channel) else { return };
        let mut topic = lock(&topic);
        if let Some(present) = topic.presence.remove(client) {
            topic.tell_of(&present.info, false);
        }
    }

    /// All clients of a node are gone, except for those in `still`, by channel and client.
    pub(crate) fn forget_node(&self, node: &str, still: &BTreeSet<(String, String)>) {
        for topic in self.all() {
            let mut topic = lock(&topic);
            let name = topic.name.to_string();
            let is_gone = |(client, present): &(&String, &Present)| {
                &*present.node == node && !still.contains(&(name.clone(), (*client).clone()))
            };
            let gone: Vec<String> = topic.presence.iter().filter(is_gone).map(|(client, _)| client.clone()).collect();
            for client in gone {
                if let Some(present) = topic.presence.remove(&client) {
                    topic.tell_of(&present.info, false);
                }
            }
        }
    }

    /// Who is there.
    pub(crate) fn presence(&self, channel: &str) -> BTreeMap<String, ClientInfo> {
        let Some(topic) = self.topic(channel) else { return BTreeMap::new() };
        let topic = lock(&topic);
        topic.presence.iter().map(|(client, present)| (client.clone(), (*present.info).clone())).collect()
    }

    /// The clients of a node, with the channels they are in.
    pub(crate) fn present_at(&self, node: &str) -> Vec<(String, ClientInfo)> {
        let mut all = Vec::new();
        for topic in self.all() {
            let topic = lock(&topic);
            let here = topic.presence.values().filter(|present| &*present.node == node);
            all.extend(here.map(|present| (topic.name.to_string(), (*present.info).clone())));
        }
        all
    }

    /// How many are there.
    pub(crate) fn presence_stats(&self, channel: &str) -> PresenceStatsResult {
        let Some(topic) = self.topic(channel) else { return PresenceStatsResult::default() };
        let topic = lock(&topic);
        let users: BTreeSet<&str> = topic.presence.values().map(|present| present.info.user.as_str()).collect();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        PresenceStatsResult { num_clients: count(topic.presence.len()), num_users: count(users.len()) }
    }

    /// Answers a `history` command.
    ///
    /// # Errors
    /// The protocol error to answer with.
    pub(crate) fn history(&self, channel: &str, request: &HistoryRequest) -> Result<HistoryResult, ErrorCode> {
        if self.namespace(channel)?.history_size == 0 {
            return Err(ErrorCode::NOT_AVAILABLE);
        }
        let topic = self.topic_or_new(channel)?;
        let topic = lock(&topic);
        let publications = topic.stream.history(request)?;
        Ok(HistoryResult { publications, epoch: topic.stream.epoch().to_owned(), offset: topic.stream.top() })
    }

    /// Forgets a channel's history.
    pub(crate) fn remove_history(&self, channel: &str) {
        if let Some(topic) = self.topic(channel) {
            lock(&topic).stream.clear();
        }
    }

    /// Names of the channels with subscribers here, and how many.
    pub(crate) fn channels(&self) -> Vec<(String, usize)> {
        let count = |topic: &Arc<Mutex<Topic>>| {
            let topic = lock(topic);
            (topic.name.to_string(), topic.subscribers.len())
        };
        self.all().iter().map(count).filter(|(_, n)| *n > 0).collect()
    }

    /// Takes over the nodes' common order. One of another epoch, or with a hole, has subscribers start anew.
    pub(crate) fn share(&self, new: Shared) {
        let mut shared = self.shared();
        let goes_on = shared.as_ref().is_some_and(|old| old.epoch == new.epoch && new.floor <= old.top);
        if goes_on {
            if let Some(old) = &mut *shared {
                old.top = old.top.max(new.top);
            }
            return;
        }
        *shared = Some(new.clone());
        drop(shared);
        for topic in self.all() {
            lock(&topic).restart(&new);
        }
    }

    /// This node has read the common order up to `top`.
    pub(crate) fn advance(&self, top: u64) {
        if let Some(shared) = &mut *self.shared() {
            shared.top = shared.top.max(top);
        }
    }

    /// How far this node has read the common order.
    pub(crate) fn shared_position(&self) -> Option<Shared> {
        self.shared().clone()
    }

    /// Drops what is too old, and topics of which nothing is left.
    pub(crate) fn tidy(&self, now_ms: i64) {
        let mut lost_to = 0;
        let is_shared = self.shared().is_some();
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        let is_comfortable = topics.len() <= TOPICS_COMFORTABLE;
        topics.retain(|_, topic| {
            let is_in_use = Arc::strong_count(topic) > 1;
            let mut topic = lock(topic);
            let ttl_ms = i64::from(topic.namespace.history_ttl_seconds) * 1000;
            topic.stream.drop_before(now_ms - ttl_ms);
            let is_empty = topic.subscribers.is_empty() && topic.presence.is_empty() && topic.stream.is_empty();
            topic.idle_since_ms = is_empty.then(|| topic.idle_since_ms.unwrap_or(now_ms));
            // Where clients may come back with a position, forgetting the stream would cost them a fresh start.
            let is_recent = topic.idle_since_ms.is_some_and(|since_ms| now_ms - since_ms < POSITION_TTL_MS);
            let has_position = topic.namespace.recovery && topic.stream.top() > 0 && !is_shared;
            let stays = is_in_use || !is_empty || (has_position && is_recent && is_comfortable);
            if !stays {
                lost_to = lost_to.max(topic.stream.top());
            }
            stays
        });
        drop(topics);
        if let Some(shared) = &mut *self.shared() {
            shared.floor = shared.floor.max(lost_to);
        }
    }

    fn topic(&self, channel: &str) -> Option<Arc<Mutex<Topic>>> {
        self.topics.read().unwrap_or_else(PoisonError::into_inner).get(channel).cloned()
    }

    fn all(&self) -> Vec<Arc<Mutex<Topic>>> {
        self.topics.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn topic_or_new(&self, channel: &str) -> Result<Arc<Mutex<Topic>>, ErrorCode> {
        if let Some(topic) = self.topic(channel) {
            return Ok(topic);
        }
        let namespace = Arc::clone(self.namespace(channel)?);
        let shared = self.shared().clone();
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = topics.get(channel) {
            return Ok(Arc::clone(topic));
        }
        if topics.len() >= TOPICS_MAX {
            tracing::warn!(limit = TOPICS_MAX, "refused a channel: there are too many");
            return Err(ErrorCode::LIMIT_EXCEEDED);
        }
        let name: Arc<str> = Arc::from(channel);
        let bounds = StreamBounds { size_max: namespace.history_size, bytes_max: HISTORY_BYTES_MAX };
        let mut stream = match &shared {
            Some(shared) => Stream::new(Arc::clone(&shared.epoch), shared.floor, bounds),
            None => Stream::new(random_epoch(), 0, bounds),
        };
        if let Some(shared) = &shared {
            stream.advance(shared.top);
        }
        let topic = Topic {
            name: Arc::clone(&name),
            namespace,
            stream,
            last: None,
            subscribers: HashMap::new(),
            presence: BTreeMap::new(),
            idle_since_ms: None,
        };
        let topic = Arc::new(Mutex::new(topic));
        topics.insert(name, Arc::clone(&topic));
        Ok(topic)
    }

    fn shared(&self) -> MutexGuard<'_, Option<Shared>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock(topic: &Arc<Mutex<Topic>>) -> MutexGuard<'_, Topic> {
    topic.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Topic {
    /// Fills in position and recovery.
    fn position(
        &self,
        subscriber: &Subscriber,
        request: &SubscribeRequest,
        delta: bool,
        is_shared: bool,
        result: &mut SubscribeResult,
    ) -> Result<(), ErrorCode> {
        let stream = &self.stream;
        result.recoverable = true;
        result.positioned = true;
        result.epoch = stream.epoch().to_owned();
        result.offset = stream.top();
        if !request.recover {
            return Ok(());
        }
        if self.namespace.cache_recovery {
            let last = stream.last().filter(|last| request.epoch != result.epoch || last.offset > request.offset);
            result.publications = publication::chain(last.into_iter(), delta, subscriber.encoding);
            result.recovered = stream.last().is_some();
            return Ok(());
        }
        let is_ahead = is_shared && request.epoch == result.epoch && request.offset > stream.top();
        if is_ahead && subscriber.connected_at.elapsed() < LAG_PATIENCE {
            return Err(ErrorCode::NOT_YET);
        }
        // A client that knows no epoch has seen nothing: it can be given all if all is there.
        let epoch = if request.epoch.is_empty() { stream.epoch() } else { &request.epoch };
        match stream.recover(epoch, request.offset) {
            Some(missed) => {
                counter!("api_recoveries_total", "outcome" => "recovered").increment(1);
                result.publications = publication::chain(missed, delta, subscriber.encoding);
                result.recovered = true;
                result.offset = request.offset;
            }
            None => {
                counter!("api_recoveries_total", "outcome" => "unrecoverable").increment(1);
                if request.rejects_unrecovered() {
                    return Err(ErrorCode::UNRECOVERABLE_POSITION);
                }
            }
        }
        Ok(())
    }

    fn publish(&mut self, publication: Publication, keep: bool) {
        if keep && !self.stream.append(publication.clone()) {
            tracing::warn!(channel = &*self.name, "a publication is larger than a history may be");
        }
        let Self { name, last, subscribers, namespace, .. } = self;
        let mut encoder = Encoder::new(name, &publication, last.as_ref());
        subscribers.retain(|_, entry| {
            let delta = match (entry.delta, entry.has_base) {
                (false, _) => Delta::Off,
                (true, false) => Delta::Whole,
                (true, true) => Delta::Patch,
            };
            entry.has_base = true;
            let Subscriber { outbox, encoding, .. } = &entry.subscriber;
            outbox.push(Budget::Live, encoder.line(Form { encoding: *encoding, delta }))
        });
        if namespace.delta {
            self.last = Some(publication.data);
        }
    }

    fn tell_of(&mut self, info: &Arc<ClientInfo>, has_come: bool) {
        let (mut json, mut protobuf): (Option<Line>, Option<Line>) = (None, None);
        let name = &self.name;
        let line = |encoding| {
            let join = Some(Join { info: Some((**info).clone()) });
            let (join, leave) = if has_come { (join, None) } else { (None, join) };
            let push = Push { channel: name.to_string(), join, leave, ..Push::default() };
            frame::line(encoding, &Reply { push: Some(push), ..Reply::default() })
        };
        for entry in self.subscribers.values().filter(|entry| entry.wants_joins) {
            let line = match entry.subscriber.encoding {
                Encoding::Json => json.get_or_insert_with(|| line(Encoding::Json)).clone(),
                Encoding::Protobuf => protobuf.get_or_insert_with(|| line(Encoding::Protobuf)).clone(),
            };
            entry.subscriber.outbox.push(Budget::Live, line);
        }
    }

    /// The common order has changed under it: who relies on a position starts anew.
    fn restart(&mut self, shared: &Shared) {
        let bounds = StreamBounds { size_max: self.namespace.history_size, bytes_max: HISTORY_BYTES_MAX };
        self.stream = Stream::new(Arc::clone(&shared.epoch), shared.floor, bounds);
        self.stream.advance(shared.top);
        self.last = None;
        if self.namespace.recovery {
            for (_, entry) in self.subscribers.drain() {
                let line = unsubscribe_push(entry.subscriber.encoding, &self.name, Unsubscribe::INSUFFICIENT_STATE);
                entry.subscriber.outbox.push(Budget::Live, line);
            }
        }
    }
}

#[cfg(test)]
mod tests;
