//! How messages travel between a client and its session.
//!
//! - [`websocket`]: both ways over one socket, with the frames of [`frame`];
//! - [`stream`]: server-sent events and HTTP streaming one way, [`emulation`] requests the other way.
//!
//! Which pages may connect has been decided before a request gets here.

pub(crate) mod emulation;
pub(crate) mod frame;
pub(crate) mod stream;
pub(crate) mod websocket;

use std::sync::LazyLock;

use metrics::{Counter, counter, gauge};

use crate::cluster::registry::Transport;
use crate::protocol::Disconnect;

/// What is counted with every message. Looked up once, since finding a counter by its name costs as much as a message.
pub(crate) static METERS: LazyLock<Meters> = LazyLock::new(|| Meters {
    messages_sent: counter!("api_messages_sent_total"),
    sent_bytes: counter!("api_sent_bytes_total"),
    frames_received: counter!("api_frames_received_total"),
});

/// Counters of messages.
pub(crate) struct Meters {
    pub(crate) messages_sent: Counter,
    pub(crate) sent_bytes: Counter,
    pub(crate) frames_received: Counter,
}

/// Counts a connection as long as it lives.
pub(crate) struct Counted(Transport);

impl Counted {
    pub(crate) fn new(transport: Transport) -> Self {
        counter!("api_connections_opened_total", "transport" => transport.name()).increment(1);
        gauge!("api_connections_open_total", "transport" => transport.name()).increment(1.0);
        Self(transport)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        gauge!("api_connections_open_total", "transport" => self.0.name()).decrement(1.0);
    }
}

pub(crate) fn count_disconnect(disconnect: &Disconnect) {
    counter!("api_disconnects_total", "code" => disconnect.code.to_string()).increment(1);
}
