//! A channel: its content, its stream position and its subscribers, under one lock. That is what makes a subscription
//! exact: the snapshot, the position and the registration are one step, so that nothing is missed or doubled, and the
//! reply is queued before any later publication.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use metrics::counter;

use crate::config::LimitsConfig;
use crate::hub::stream::Stream;
use crate::outbox::{Budget, Outbox};
use crate::protocol::{self, ErrorCode, HistoryRequest, Line, Start, SubscribeRequest};

/// Identifies a live connection within the process.
pub(crate) type SessionId = u64;

/// What a channel shows: state that the log's records build up.
pub(crate) trait Content: Send + 'static {
    /// Whether the channel can be subscribed to at all.
    fn exists(&self) -> bool;

    /// About how many bytes a snapshot takes.
    fn snapshot_bytes(&self) -> usize;

    /// Writes the state as JSON without raw newlines: the `data` of a subscribe reply.
    fn write_snapshot(&self, out: &mut Vec<u8>);
}

/// A channel as sessions see it, whatever it shows.
pub(crate) trait Subscribable: Send + Sync {
    /// Subscribes a session and queues the reply.
    ///
    /// # Errors
    /// The protocol error to answer with; then nothing has changed.
    fn subscribe(
        &self,
        session: SessionId,
        outbox: &Arc<Outbox>,
        id: u32,
        request: &SubscribeRequest,
    ) -> Result<(), ErrorCode>;

    /// Ends a subscription; does nothing if there is none.
    fn unsubscribe(&self, session: SessionId);

    /// Whether the session gets this channel's publications.
    fn is_subscribed(&self, session: SessionId) -> bool;

    /// Answers a `history` command.
    ///
    /// # Errors
    /// The protocol error to answer with.
    fn history(&self, id: u32, request: &HistoryRequest) -> Result<Line, ErrorCode>;
}

/// A channel and all that hangs on it.
pub(crate) struct Channel<C> {
    inner: Mutex<Inner<C>>,
    snapshot_bytes_max: usize,
}

struct Inner<C> {
    content: C,
    stream: Stream,
    subscribers: HashMap<SessionId, Arc<Outbox>>,
    /// The snapshot at the present position, made at the first need.
    snapshot: Option<Bytes>,
}

/// What a change of content means for the channel's readers.
pub(crate) enum Effect {
    /// Readers see no difference.
    Nothing,
    /// Readers apply this publication's data.
    Publish(Vec<u8>),
    /// The state changed, but nobody is told: history is being read.
    Silent,
    /// Readers must start over from a snapshot.
    Restart,
}

impl<C: Content> Channel<C> {
    pub(crate) fn new(name: &str, content: C, limits: &LimitsConfig) -> Self {
        let stream = Stream::new(name, limits);
        let inner = Inner { content, stream, subscribers: HashMap::new(), snapshot: None };
        Self { inner: Mutex::new(inner), snapshot_bytes_max: limits.snapshot_bytes }
    }

    /// Changes the content and tells the subscribers, as one step.
    pub(crate) fn update(&self, change: impl FnOnce(&mut C) -> Effect) {
        let mut inner = self.lock();
        match change(&mut inner.content) {
            Effect::Nothing => {}
            Effect::Silent => inner.snapshot = None,
            Effect::Restart => {
                inner.stream.restart();
                inner.restart_subscribers();
            }
            Effect::Publish(data) => {
                inner.snapshot = None;
                match inner.stream.append(&data) {
                    Some(push) => inner.subscribers.retain(|_, outbox| outbox.publish(&push)),
                    None => inner.restart_subscribers(),
                }
                counter!("api_publications_total").increment(1);
            }
        }
    }

    /// Looks at the content together with the position it stands at: stream epoch and offset.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&C, &str, u64) -> T) -> T {
        let inner = self.lock();
        look(&inner.content, inner.stream.epoch(), inner.stream.top())
    }

    fn lock(&self) -> MutexGuard<'_, Inner<C>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Content> Inner<C> {
    fn restart_subscribers(&mut self) {
        self.snapshot = None;
        let push = protocol::resubscribe_push(self.stream.channel_json());
        for (_, outbox) in self.subscribers.drain() {
            outbox.publish(&push);
        }
    }

    fn snapshot(&mut self) -> Bytes {
        let Self { content, snapshot, .. } = self;
        snapshot
            .get_or_insert_with(|| {
                let mut out = Vec::with_capacity(content.snapshot_bytes() + 512);
                content.write_snapshot(&mut out);
                Bytes::from(out)
            })
            .clone()
    }
}

impl<C: Content> Subscribable for Channel<C> {
    fn subscribe(
        &self,
        session: SessionId,
        outbox: &Arc<Outbox>,
        id: u32,
        request: &SubscribeRequest,
    ) -> Result<(), ErrorCode> {
        let mut inner = self.lock();
        if !inner.content.exists() {
            return Err(ErrorCode::UNKNOWN_CHANNEL);
        }
        let recovered = match request.recover {
            true => inner.stream.recover(&request.epoch, request.offset),
            false => None,
        };
        if request.recover {
            let outcome = if recovered.is_some() { "recovered" } else { "unrecoverable" };
            counter!("api_recoveries_total", "outcome" => outcome).increment(1);
        }
        let (offset, start) = match recovered {
            Some(publications) => (request.offset, Start::Recovered(publications)),
            None if request.recover && request.rejects_unrecovered() => {
                return Err(ErrorCode::UNRECOVERABLE_POSITION);
            }
            None if inner.content.snapshot_bytes() > self.snapshot_bytes_max => {
                return Err(ErrorCode::LIMIT_EXCEEDED);
            }
            None => (inner.stream.top(), Start::Snapshot(inner.snapshot())),
        };
        let reply = protocol::subscribe_reply(id, inner.stream.epoch(), offset, request.recover, start);
        if outbox.push(Budget::State, reply) {
            inner.subscribers.insert(session, Arc::clone(outbox));
        }
        Ok(())
    }

    fn unsubscribe(&self, session: SessionId) {
        self.lock().subscribers.remove(&session);
    }

    fn is_subscribed(&self, session: SessionId) -> bool {
        self.lock().subscribers.contains_key(&session)
    }

    fn history(&self, id: u32, request: &HistoryRequest) -> Result<Line, ErrorCode> {
        let inner = self.lock();
        if !inner.content.exists() {
            return Err(ErrorCode::UNKNOWN_CHANNEL);
        }
        let publications = inner.stream.history(request)?;
        Ok(protocol::history_reply(id, inner.stream.epoch(), inner.stream.top(), &publications))
    }
}
