//! How messages travel between a client and its session. One transport so far: [`websocket`].

pub(crate) mod websocket;
