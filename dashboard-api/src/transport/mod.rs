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

use metrics::{counter, gauge};

use crate::cluster::registry::Transport;
use crate::protocol::Disconnect;

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
