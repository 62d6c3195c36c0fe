//! What nodes tell each other, as Protobuf.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;

use crate::protocol::message::{ClientInfo, Publication};

/// One message; exactly one of the parts is there.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Envelope {
    /// The node that sent it.
    #[prost(string, tag = "1")]
    pub(crate) node: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) publish: Option<Publish>,
    #[prost(message, optional, tag = "3")]
    pub(crate) presence: Option<PresenceChange>,
    #[prost(message, optional, tag = "4")]
    pub(crate) alive: Option<Alive>,
    #[prost(message, optional, tag = "5")]
    pub(crate) control: Option<Control>,
    #[prost(message, optional, tag = "6")]
    pub(crate) emulation: Option<Emulation>,
}

/// A publication into a topic.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Publish {
    #[prost(string, tag = "1")]
    pub(crate) channel: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) publication: Option<Publication>,
    /// Not kept in the history.
    #[prost(bool, tag = "3")]
    pub(crate) skip_history: bool,
    /// Repeating it within some minutes has no effect.
    #[prost(string, tag = "4")]
    pub(crate) idempotency_key: String,
}

/// Clients came to channels or left them.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PresenceChange {
    #[prost(message, repeated, tag = "1")]
    pub(crate) joined: Vec<Presence>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) left: Vec<Presence>,
    /// `joined` are all clients of the sender: whoever is not named has left.
    #[prost(bool, tag = "3")]
    pub(crate) is_complete: bool,
}

/// A client in a channel.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Presence {
    #[prost(string, tag = "1")]
    pub(crate) channel: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) info: Option<ClientInfo>,
}

/// A node is there.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Alive {
    #[prost(uint32, tag = "1")]
    pub(crate) n_clients: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) n_users: u32,
    #[prost(uint32, tag = "3")]
    pub(crate) n_channels: u32,
    #[prost(uint32, tag = "4")]
    pub(crate) n_subscriptions: u32,
    #[prost(uint64, tag = "5")]
    pub(crate) uptime_s: u64,
    #[prost(string, tag = "6")]
    pub(crate) version: String,
    /// The node has just come: the others tell it who is there.
    #[prost(bool, tag = "7")]
    pub(crate) is_new: bool,
    /// The node goes.
    #[prost(bool, tag = "8")]
    pub(crate) is_gone: bool,
    /// Subscribers by channel.
    #[prost(btree_map = "string, uint32", tag = "9")]
    pub(crate) channels: BTreeMap<String, u32>,
}

/// What is to be done with some connections.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Control {
    #[prost(message, optional, tag = "1")]
    pub(crate) who: Option<Selector>,
    #[prost(message, optional, tag = "2")]
    pub(crate) disconnect: Option<DisconnectOrder>,
    #[prost(message, optional, tag = "3")]
    pub(crate) subscribe: Option<SubscribeOrder>,
    #[prost(string, optional, tag = "4")]
    pub(crate) unsubscribe: Option<String>,
    #[prost(string, optional, tag = "5")]
    pub(crate) remove_history: Option<String>,
    /// Credentials have been revoked: every node looks again at its connections.
    #[prost(bool, tag = "6")]
    pub(crate) revoked: bool,
}

/// Which connections. Every part that is not empty must fit; if all are empty, none does.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Selector {
    #[prost(string, optional, tag = "1")]
    pub(crate) user: Option<String>,
    #[prost(string, tag = "2")]
    pub(crate) client: String,
    #[prost(string, tag = "3")]
    pub(crate) session: String,
    /// Clients that stay.
    #[prost(string, repeated, tag = "4")]
    pub(crate) except: Vec<String>,
}

/// With what code and reason connections are ended.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct DisconnectOrder {
    #[prost(uint32, tag = "1")]
    pub(crate) code: u32,
    #[prost(string, tag = "2")]
    pub(crate) reason: String,
}

/// A subscription that the server makes.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct SubscribeOrder {
    #[prost(string, tag = "1")]
    pub(crate) channel: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) info: Bytes,
    /// Seconds since 1970; 0: never.
    #[prost(int64, tag = "3")]
    pub(crate) expire_at_s: i64,
}

/// Commands for a client at another node.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Emulation {
    #[prost(string, tag = "1")]
    pub(crate) node: String,
    #[prost(string, tag = "2")]
    pub(crate) session: String,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) data: Bytes,
}
