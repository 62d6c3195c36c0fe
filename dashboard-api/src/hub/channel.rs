//! A channel over kept content: the content, its stream positions and its subscribers, under one lock. That is what
//! makes a subscription exact: the snapshot, the position and the registration are one step, so that nothing is missed
//! or doubled.
//!
//! Subscribers who see the same through the same lens share one facet: its stream, its snapshot and its encoded
//! publications.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use metrics::counter;
use tokio::time::Instant;

use crate::config::LimitsConfig;
use crate::hub::lens::{Lens, LensSpec};
use crate::hub::stream::{Stream, StreamBounds};
use crate::outbox::{Budget, Outbox};
use crate::protocol::message::{
    HistoryRequest, HistoryResult, Publication, Push, Reply, SubscribeRequest, SubscribeResult, UnsubscribePush,
};
use crate::protocol::publication::{Delta, Encoder, Form};
use crate::protocol::{Encoding, ErrorCode, Unsubscribe, frame};

/// Identifies a live connection within the process.
pub(crate) type SessionId = u64;

/// Different filters of clients on one channel at a time; one more gets error 106.
const FILTERS_MAX: usize = 256;
/// Different row rules on one channel at a time, apart from those with a filter; one more gets error 106.
const RULES_MAX: usize = 1_024;
/// A subscriber's position may be ahead of this node's by what the node has still to read. So long after it connected
/// the client is told to try again; then it is taken at its word no longer and gets a snapshot.
pub(crate) const LAG_PATIENCE: Duration = Duration::from_secs(5);

/// A live connection that subscribes.
#[derive(Debug, Clone)]
pub(crate) struct Subscriber {
    pub(crate) session: SessionId,
    pub(crate) encoding: Encoding,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) connected_at: Instant,
}

/// Answer to a subscription.
#[derive(Debug, Default)]
pub(crate) struct Subscribed {
    pub(crate) result: SubscribeResult,
    /// The state as it is now, to be spliced in as the result's `data`.
    pub(crate) snapshot: Option<Bytes>,
}

/// What a channel shows: state that the log's records build up.
pub(crate) trait Content: Send + 'static {
    /// A step from one state to the next.
    type Change: Send;

    /// Whether the channel can be subscribed to at all.
    fn exists(&self) -> bool;

    /// Names the stream of publications: positions of another epoch mean nothing. `None` for one that lives only as
    /// long as this process.
    fn epoch(&self) -> Option<String>;

    /// About how many bytes a snapshot takes.
    fn snapshot_bytes(&self) -> usize;

    /// Writes the state as JSON without raw newlines: the `data` of a subscribe reply.
    fn write_snapshot(&self, lens: Option<&Lens>, out: &mut Vec<u8>);

    /// The data of the publication of a change; `None` if nothing of it is seen through the lens.
    fn render(&self, change: &Self::Change, lens: Option<&Lens>) -> Option<Vec<u8>>;

    /// All that changed since a position, as one change, if it is still known.
    fn change_since(&self, offset: u64) -> Option<Self::Change>;

    /// Makes one change of two that follow each other.
    fn merge(&self, earlier: Self::Change, later: Self::Change) -> Self::Change;

    /// Whether updates may be held back for a moment since only the newest state matters.
    fn is_tile(&self) -> bool {
        false
    }

    /// The lens that a subscriber asks for.
    ///
    /// # Errors
    /// [`ErrorCode::BAD_REQUEST`] where it does not fit.
    fn lens(&self, spec: &LensSpec) -> Result<Lens, ErrorCode>;
}

/// A channel as sessions see it, whatever it shows.
pub(crate) trait Subscribable: Send + Sync {
    /// Subscribes a session. The caller holds a place for the reply in the outbox.
    ///
    /// # Errors
    /// The protocol error to answer with; then nothing has changed.
    fn subscribe(
        &self,
        subscriber: &Subscriber,
        request: &SubscribeRequest,
        lens: &LensSpec,
    ) -> Result<Subscribed, ErrorCode>;

    /// Ends a subscription; does nothing if there is none.
    fn unsubscribe(&self, session: SessionId);

    /// Whether the session gets this channel's publications.
    fn is_subscribed(&self, session: SessionId) -> bool;

    /// Answers a `history` command.
    ///
    /// # Errors
    /// The protocol error to answer with.
    fn history(&self, request: &HistoryRequest, lens: &LensSpec) -> Result<HistoryResult, ErrorCode>;
}

/// A channel and all that hangs on it.
pub(crate) struct Channel<C: Content> {
    name: Arc<str>,
    inner: Mutex<Inner<C>>,
    snapshot_bytes_max: usize,
    tile_interval: Duration,
}

struct Inner<C: Content> {
    content: C,
    /// Where the content stands.
    top: u64,
    /// By the key of their lens; the one without a lens has the empty key.
    facets: BTreeMap<Arc<str>, Facet>,
    bounds: StreamBounds,
    /// A tile's change that waits until the next update may go out.
    held: Option<C::Change>,
    last_update: Option<Instant>,
    /// The epoch of a stream without a name of its own.
    own_epoch: Arc<str>,
}

/// What subscribers with the same lens share.
struct Facet {
    lens: Option<Lens>,
    stream: Stream,
    subscribers: HashMap<SessionId, FacetSubscriber>,
    /// The snapshot at the present position, made at the first need.
    snapshot: Option<Bytes>,
}

struct FacetSubscriber {
    outbox: Arc<Outbox>,
    encoding: Encoding,
    /// What it has got already: it started from a snapshot that was ahead of a change held back.
    seen: u64,
}

/// What a step of the content means for the channel's readers.
pub(crate) enum Effect<C> {
    /// Readers see no difference.
    Nothing,
    /// Readers are told of this change. `at` is its position, if the content counts them itself.
    Publish { change: C, at: Option<u64> },
    /// The state changed, but nobody is told: history is being read, or the change makes no difference.
    Silent { at: Option<u64> },
    /// Readers must start over from a snapshot.
    Restart,
}

impl<C: Content> Channel<C> {
    pub(crate) fn new(name: &str, content: C, limits: &LimitsConfig, tile_interval: Duration) -> Self {
        let inner = Inner {
            content,
            top: 0,
            facets: BTreeMap::new(),
            bounds: StreamBounds { size_max: limits.history_size, bytes_max: limits.history_bytes },
            held: None,
            last_update: None,
            own_epoch: crate::hub::stream::random_epoch(),
        };
        Self {
            name: Arc::from(name),
            inner: Mutex::new(inner),
            snapshot_bytes_max: limits.snapshot_bytes,
            tile_interval,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Changes the content and tells the subscribers, as one step. Returns when [`Self::flush`] is due, if a change
    /// is held back.
    pub(crate) fn update(&self, step: impl FnOnce(&mut C) -> Effect<C::Change>) -> Option<Instant> {
        let mut inner = self.lock();
        match step(&mut inner.content) {
            Effect::Nothing => None,
            Effect::Silent { at } => {
                inner.advance(at);
                None
            }
            Effect::Restart => {
                inner.own_epoch = crate::hub::stream::random_epoch();
                inner.held = None;
                inner.restart(&self.name);
                None
            }
            Effect::Publish { change, at } => {
                // Opened first, so that its history begins with this change.
                inner.open_facet(Arc::from(""), None);
                let top = at.unwrap_or(inner.top + 1);
                inner.advance(Some(top));
                inner.publish_or_hold(&self.name, change, self.tile_interval)
            }
        }
    }

    /// Publishes what was held back, if it is time. Returns when to call again.
    pub(crate) fn flush(&self, now: Instant) -> Option<Instant> {
        let mut inner = self.lock();
        let due = inner.last_update.map_or(now, |last| last + self.tile_interval);
        if inner.held.is_some() && due > now {
            return Some(due);
        }
        let change = inner.held.take()?;
        counter!("api_tile_updates_total").increment(1);
        inner.last_update = Some(now);
        inner.publish(&self.name, &change);
        None
    }

    /// Looks at the content together with the position it stands at: stream epoch and offset.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&C, &str, u64) -> T) -> T {
        let inner = self.lock();
        look(&inner.content, &inner.epoch(""), inner.top)
    }

    /// Snapshots that are held for subscribers to come.
    #[cfg(test)]
    pub(crate) fn n_snapshots(&self) -> usize {
        self.lock().facets.values().filter(|facet| facet.snapshot.is_some()).count()
    }

    /// Live subscriptions.
    pub(crate) fn n_subscribers(&self) -> usize {
        self.lock().facets.values().map(|facet| facet.subscribers.len()).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Inner<C>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Content> Inner<C> {
    fn advance(&mut self, at: Option<u64>) {
        if let Some(at) = at {
            self.top = self.top.max(at);
        }
        for facet in self.facets.values_mut() {
            facet.snapshot = None;
            facet.stream.advance(self.top);
        }
    }

    fn epoch(&self, lens_key: &str) -> Arc<str> {
        let Some(epoch) = self.content.epoch() else { return Arc::clone(&self.own_epoch) };
        match lens_key {
            "" => Arc::from(epoch),
            key => Arc::from(format!("{:016x}", fnv64(format!("{epoch} {key}").as_bytes()))),
        }
    }

    fn restart(&mut self, channel: &str) {
        for facet in std::mem::take(&mut self.facets).into_values() {
            facet.dismiss(channel);
        }
    }

    fn publish_or_hold(&mut self, channel: &str, change: C::Change, interval: Duration) -> Option<Instant> {
        if !interval.is_zero() && self.content.is_tile() {
            let now = Instant::now();
            let due = self.last_update.map_or(now, |last| last + interval);
            if let Some(held) = self.held.take() {
                counter!("api_coalesced_total").increment(1);
                self.held = Some(self.content.merge(held, change));
                return Some(due);
            }
            if due > now {
                self.held = Some(change);
                return Some(due);
            }
            self.last_update = Some(now);
        }
        let change = match self.held.take() {
            Some(held) => self.content.merge(held, change),
            None => change,
        };
        self.publish(channel, &change);
        None
    }

    fn publish(&mut self, channel: &str, change: &C::Change) {
        counter!("api_publications_total").increment(1);
        let (top, content) = (self.top, &self.content);
        self.facets.retain(|key, facet| {
            if facet.subscribers.is_empty() && !key.is_empty() && facet.stream.is_empty() {
                return false;
            }
            if let Some(data) = content.render(change, facet.lens.as_ref()) {
                facet.publish(channel, Publication { data: Bytes::from(data), offset: top, ..Publication::default() });
            }
            true
        });
    }

    /// The key of the facet with that lens, which is there then.
    fn facet_key(&mut self, spec: &LensSpec) -> Result<Arc<str>, ErrorCode> {
        if spec.is_plain() {
            let key: Arc<str> = Arc::from("");
            self.open_facet(Arc::clone(&key), None);
            return Ok(key);
        }
        let lens = self.content.lens(spec)?;
        let key = Arc::clone(&lens.key);
        if !self.facets.contains_key(&key) {
            // Each kind has its places: clients' filters cannot take those of rules.
            let is_alike =
                |facet: &Facet| facet.lens.as_ref().is_some_and(|other| other.is_of_client == lens.is_of_client);
            let places = if lens.is_of_client { FILTERS_MAX } else { RULES_MAX };
            let is_full =
                |facets: &BTreeMap<_, Facet>| facets.values().filter(|facet| is_alike(facet)).count() >= places;
            if is_full(&self.facets) {
                self.facets.retain(|_, facet| !is_alike(facet) || !facet.subscribers.is_empty());
            }
            if is_full(&self.facets) {
                return Err(ErrorCode::LIMIT_EXCEEDED);
            }
        }
        self.open_facet(Arc::clone(&key), Some(lens));
        Ok(key)
    }

    fn open_facet(&mut self, key: Arc<str>, lens: Option<Lens>) {
        if !self.facets.contains_key(&key) {
            let stream = Stream::new(self.epoch(&key), self.top, self.bounds);
            self.facets.insert(key, Facet { lens, stream, subscribers: HashMap::new(), snapshot: None });
        }
    }

    /// What a client at this position has missed, if that can be told.
    fn recovered(&self, key: &str, request: &SubscribeRequest) -> Option<Vec<Publication>> {
        let facet = self.facets.get(key)?;
        if let Some(missed) = facet.stream.recover(&request.epoch, request.offset) {
            return Some(missed.cloned().collect());
        }
        let is_restricted = facet.lens.as_ref().is_some_and(|lens| lens.is_restricted);
        let is_known = request.epoch == facet.stream.epoch() && request.offset <= self.top && !is_restricted;
        let change = is_known.then(|| self.content.change_since(request.offset)).flatten()?;
        let data = self.content.render(&change, facet.lens.as_ref());
        Some(data.map_or(vec![], |data| {
            vec![Publication { data: Bytes::from(data), offset: self.top, ..Publication::default() }]
        }))
    }
}

impl Facet {
    fn publish(&mut self, channel: &str, publication: Publication) {
        if !self.stream.append(publication.clone()) {
            for (_, subscriber) in self.subscribers.drain() {
                subscriber.outbox.push(Budget::Live, unsubscribe_line(subscriber.encoding, channel));
            }
            return;
        }
        let mut encoder = Encoder::new(channel, &publication, None);
        self.subscribers.retain(|_, subscriber| {
            if publication.offset <= subscriber.seen {
                return true;
            }
            let line = encoder.line(Form { encoding: subscriber.encoding, delta: Delta::Off });
            subscriber.outbox.push(Budget::Live, line)
        });
    }

    fn dismiss(self, channel: &str) {
        for subscriber in self.subscribers.into_values() {
            subscriber.outbox.push(Budget::Live, unsubscribe_line(subscriber.encoding, channel));
        }
    }
}

/// Tells a subscriber that its channel starts anew: it subscribes again by itself.
fn unsubscribe_line(encoding: Encoding, channel: &str) -> frame::Line {
    unsubscribe_push(encoding, channel, Unsubscribe::INSUFFICIENT_STATE)
}

/// Tells a subscriber that its subscription has ended.
pub(crate) fn unsubscribe_push(encoding: Encoding, channel: &str, why: Unsubscribe) -> frame::Line {
    let unsubscribe = UnsubscribePush { code: why.code, reason: why.reason.to_owned() };
    let push = Push { channel: channel.to_owned(), unsubscribe: Some(unsubscribe), ..Push::default() };
    frame::line(encoding, &Reply { push: Some(push), ..Reply::default() })
}

impl<C: Content> Subscribable for Channel<C> {
    fn subscribe(
        &self,
        subscriber: &Subscriber,
        request: &SubscribeRequest,
        lens: &LensSpec,
    ) -> Result<Subscribed, ErrorCode> {
        let mut inner = self.lock();
        if !inner.content.exists() {
            return Err(ErrorCode::UNKNOWN_CHANNEL);
        }
        let key = inner.facet_key(lens)?;
        let recovered = match request.recover {
            true => inner.recovered(&key, request),
            false => None,
        };
        let top = inner.top;
        let n_bytes = inner.content.snapshot_bytes();
        let Inner { content, facets, .. } = &mut *inner;
        let facet = facets.get_mut(&key).ok_or(ErrorCode::NOT_YET)?;
        if request.recover {
            let is_ahead = request.epoch == facet.stream.epoch() && request.offset > top;
            if is_ahead && subscriber.connected_at.elapsed() < LAG_PATIENCE {
                counter!("api_recoveries_total", "outcome" => "ahead").increment(1);
                return Err(ErrorCode::NOT_YET);
            }
            let outcome = if recovered.is_some() { "recovered" } else { "unrecoverable" };
            counter!("api_recoveries_total", "outcome" => outcome).increment(1);
        }
        let mut result = SubscribeResult {
            recoverable: true,
            positioned: true,
            epoch: facet.stream.epoch().to_owned(),
            was_recovering: request.recover,
            ..SubscribeResult::default()
        };
        let mut snapshot = None;
        match recovered {
            Some(publications) => {
                result.recovered = true;
                result.offset = request.offset;
                result.publications = publications;
            }
            None if request.recover && request.rejects_unrecovered() => {
                return Err(ErrorCode::UNRECOVERABLE_POSITION);
            }
            None if n_bytes > self.snapshot_bytes_max => return Err(ErrorCode::LIMIT_EXCEEDED),
            None => {
                let make = || {
                    let mut out = Vec::with_capacity(n_bytes + 512);
                    content.write_snapshot(facet.lens.as_ref(), &mut out);
                    Bytes::from(out)
                };
                result.offset = top;
                snapshot = Some(facet.snapshot.get_or_insert_with(make).clone());
            }
        }
        let seen = result.publications.last().map_or(result.offset, |last| last.offset);
        let outbox = Arc::clone(&subscriber.outbox);
        facet.subscribers.insert(subscriber.session, FacetSubscriber { outbox, encoding: subscriber.encoding, seen });
        Ok(Subscribed { result, snapshot })
    }

    fn unsubscribe(&self, session: SessionId) {
        for facet in self.lock().facets.values_mut() {
            facet.subscribers.remove(&session);
            // Nobody may come again to read it.
            if facet.subscribers.is_empty() {
                facet.snapshot = None;
            }
        }
    }

    fn is_subscribed(&self, session: SessionId) -> bool {
        self.lock().facets.values().any(|facet| facet.subscribers.contains_key(&session))
    }

    fn history(&self, request: &HistoryRequest, lens: &LensSpec) -> Result<HistoryResult, ErrorCode> {
        let mut inner = self.lock();
        if !inner.content.exists() {
            return Err(ErrorCode::UNKNOWN_CHANNEL);
        }
        let offset = inner.top;
        let key = inner.facet_key(lens)?;
        let facet = inner.facets.get(&key).ok_or(ErrorCode::NOT_YET)?;
        let publications = facet.stream.history(request)?;
        Ok(HistoryResult { publications, epoch: facet.stream.epoch().to_owned(), offset })
    }
}

/// A stable hash (FNV-1a): equal on every node and in every version.
pub(crate) fn fnv64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
