//! The live connections of this node, by client id: to be looked at, told something, or ended from outside.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use bytes::Bytes;
use serde::Serialize;

use crate::cluster::message::{Selector, SubscribeOrder};
use crate::hub::channel::SessionId;
use crate::outbox::Outbox;
use crate::protocol::Disconnect;

/// Orders that may wait for one connection; a connection with more is ended.
const ORDERS_MAX: usize = 1_000;

/// Something that a session does when it is its turn.
#[derive(Debug)]
pub(crate) enum Order {
    /// Handle a frame that came beside the transport.
    Frame(Bytes),
    Subscribe(SubscribeOrder),
    Unsubscribe(String),
    /// Look whether the client is still let in.
    CheckAgain,
}

/// How messages travel between a client and its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    WebSocket,
    Sse,
    HttpStream,
}

impl Transport {
    /// As it stands in metrics and logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Sse => "sse",
            Self::HttpStream => "http_stream",
        }
    }

    /// Whether the client sends its commands beside the stream.
    pub(crate) fn is_emulated(self) -> bool {
        self != Self::WebSocket
    }
}

/// A live connection as others see it.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) id: SessionId,
    pub(crate) client: String,
    /// Known to the client alone: it proves that a command sent beside the transport is the client's. Empty where the
    /// transport goes both ways.
    pub(crate) session: String,
    pub(crate) transport: Transport,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) connected_at_ms: i64,
    about: OnceLock<About>,
    orders: Mutex<Vec<Order>>,
}

/// What is known once the client has introduced itself.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct About {
    pub(crate) user: Arc<str>,
    /// The client library.
    pub(crate) library: String,
}

impl Handle {
    pub(crate) fn new(id: SessionId, transport: Transport, outbox: Arc<Outbox>, now_ms: i64) -> Self {
        let client = uuid::Uuid::new_v4().to_string();
        let session = match transport.is_emulated() {
            true => format!("{client}.{}", uuid::Uuid::new_v4().simple()),
            false => String::new(),
        };
        Self {
            id,
            client,
            session,
            transport,
            outbox,
            connected_at_ms: now_ms,
            about: OnceLock::new(),
            orders: Mutex::default(),
        }
    }

    /// The client has introduced itself.
    pub(crate) fn introduce(&self, about: About) {
        self.about.get_or_init(|| about);
    }

    pub(crate) fn about(&self) -> Option<&About> {
        self.about.get()
    }

    /// Leaves an order. Returns whether there was room for it.
    pub(crate) fn order(&self, order: Order) -> bool {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if orders.len() >= ORDERS_MAX {
            return false;
        }
        orders.push(order);
        drop(orders);
        self.outbox.call();
        true
    }

    /// Takes the orders that wait.
    pub(crate) fn take_orders(&self) -> Vec<Order> {
        std::mem::take(&mut *self.orders.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// All live connections.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    by_client: RwLock<HashMap<String, Arc<Handle>>>,
}

impl Registry {
    pub(crate) fn add(&self, handle: &Arc<Handle>) {
        let mut all = self.by_client.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(handle.client.clone(), Arc::clone(handle));
    }

    pub(crate) fn remove(&self, client: &str) {
        self.by_client.write().unwrap_or_else(PoisonError::into_inner).remove(client);
    }

    pub(crate) fn get(&self, client: &str) -> Option<Arc<Handle>> {
        self.by_client.read().unwrap_or_else(PoisonError::into_inner).get(client).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Handle>> {
        self.by_client.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Has every session look whether its client is still let in.
    pub(crate) fn check_again(&self) {
        for handle in self.all() {
            if !handle.order(Order::CheckAgain) {
                handle.outbox.close(Disconnect::SLOW);
            }
        }
    }

    /// The connection with this secret.
    pub(crate) fn by_session(&self, session: &str) -> Option<Arc<Handle>> {
        // The client's id is the part before the dot, so that it is found without a second index.
        let handle = self.get(session.split_once('.')?.0)?;
        (handle.session == session).then_some(handle)
    }

    /// The connections that a selector means.
    pub(crate) fn select(&self, who: &Selector) -> Vec<Arc<Handle>> {
        let Selector { user, client, session, except } = who;
        if user.is_none() && client.is_empty() && session.is_empty() {
            return Vec::new();
        }
        let fits = |handle: &Arc<Handle>| {
            let is_user = user.as_ref().is_none_or(|user| handle.about().is_some_and(|about| *about.user == **user));
            let is_client = client.is_empty() || *client == handle.client;
            let is_session = session.is_empty() || *session == handle.session;
            is_user && is_client && is_session && !except.contains(&handle.client)
        };
        match client.is_empty() {
            true => self.all().into_iter().filter(fits).collect(),
            false => self.get(client).into_iter().filter(fits).collect(),
        }
    }
}
