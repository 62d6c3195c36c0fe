//! The dashboard API on a real log: over HTTP, over raw WebSockets, and with the official Centrifuge client.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

mod client;
mod feeder;
mod go_suite;
mod live;
mod nodes;
mod proxy;
mod rest;
mod security;
mod server;
mod soak;
mod websocket;
