//! What a well-behaved client library does not do: raw WebSockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use dashboard_api::{ApiConfig, AuthMode};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::feeder::{Feeder, open_log, stock_view};
use crate::server::{PATIENCE, Server, config, eventually};

fn anonymous() -> ApiConfig {
    let mut config = config();
    config.auth.mode = AuthMode::Anonymous;
    config
}

async fn start(config: ApiConfig) -> (Server, Feeder, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let log = open_log(dir.path());
    let feeder = Feeder::new(log.clone());
    feeder.declare(&stock_view()).await;
    feeder.status("live").await;
    (Server::start(config, log).await, feeder, dir)
}

/// A WebSocket whose network takes in little that is not read.
async fn connect(
    address: SocketAddr,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Result<WebSocketStream<TcpStream>, Error> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let stream = socket.connect(address).await.unwrap();
    let mut request = format!("ws://{address}{path}").into_client_request()?;
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    Ok(tokio_tungstenite::client_async(request, stream).await?.0)
}

async fn open(address: SocketAddr) -> WebSocketStream<TcpStream> {
    connect(address, "/connection/websocket", &[]).await.unwrap()
}

async fn send(socket: &mut WebSocketStream<TcpStream>, frame: &str) {
    socket.send(Message::text(frame)).await.unwrap();
}

/// Reads until the server closes; the messages and the close frame.
async fn read_to_end(socket: &mut WebSocketStream<TcpStream>) -> (Vec<Value>, Option<CloseFrame>) {
    let mut messages = Vec::new();
    loop {
        match tokio::time::timeout(PATIENCE, socket.next()).await.expect("the server closes") {
            Some(Ok(Message::Text(text))) => {
                messages.extend(text.split('\n').map(|line| serde_json::from_str::<Value>(line).unwrap()));
            }
            Some(Ok(Message::Close(close))) => return (messages, close),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return (messages, None),
        }
    }
}

async fn close_code(socket: &mut WebSocketStream<TcpStream>) -> u16 {
    read_to_end(socket).await.1.expect("a close frame").code.into()
}

const CONNECT: &str = r#"{"id":1,"connect":{}}"#;
const SUBSCRIBE: &str = r#"{"id":2,"subscribe":{"channel":"view:stock"}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_is_cut_off_and_nobody_else() {
    let mut config = anonymous();
    config.limits.client_queue_bytes = 256 << 10;
    config.limits.history_bytes = 256 << 10;
    let (server, feeder, _dir) = start(config).await;
    let mut slow = open(server.address).await;
    let mut quick = open(server.address).await;
    for socket in [&mut slow, &mut quick] {
        send(socket, &format!("{CONNECT}\n{SUBSCRIBE}")).await;
    }
    let n_read = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&n_read);
    let reading = tokio::spawn(async move {
        let mut epochs = 0_u64;
        while epochs < 200 {
            counter.store(epochs, Ordering::Relaxed);
            let frame = tokio::time::timeout(PATIENCE, quick.next()).await.expect("frames come").unwrap().unwrap();
            epochs += frame.to_text().unwrap().matches(r#""pub":"#).count() as u64;
        }
    });
    for epoch in 1..=200 {
        feeder.large_epoch(epoch, 100_000).await;
        eventually("the server has read it", async || {
            let body = server.get("/api/v1/views").await.1;
            let has_read = body.contains(&format!(r#""epoch":{epoch},"#));
            // On a busy machine the quick one needs its time too: no more waits for it than its queue has room for.
            (has_read && n_read.load(Ordering::Relaxed) + 1 >= epoch).then_some(())
        })
        .await;
    }
    reading.await.unwrap();
    let (messages, close) = read_to_end(&mut slow).await;
    let close = close.expect("a close frame");
    assert_eq!((u16::from(close.code), close.reason.as_str()), (3008, "slow"));
    let offsets: Vec<u64> = messages.iter().filter_map(|m| m["push"]["pub"]["offset"].as_u64()).collect();
    assert!(offsets.len() < 200, "some were never sent");
    assert!(offsets.iter().zip(1..).all(|(offset, n)| *offset == n), "without a hole up to the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_answer_is_given_up() {
    let mut config = anonymous();
    config.heartbeat.ping_seconds = 2;
    config.heartbeat.pong_seconds = 1;
    config.heartbeat.connect_seconds = 1;
    let (server, _feeder, _dir) = start(config).await;
    let mut mute = open(server.address).await;
    send(&mut mute, CONNECT).await;
    let (messages, close) = read_to_end(&mut mute).await;
    assert_eq!(messages.last(), Some(&json!({})), "a ping was sent");
    assert_eq!(u16::from(close.expect("a close frame").code), 3012);
    let mut silent = open(server.address).await;
    assert_eq!(close_code(&mut silent).await, 3502);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_spoken_is_refused() {
    let mut config = anonymous();
    config.limits.connections = 1;
    config.limits.message_bytes = 1024;
    let (server, _feeder, _dir) = start(config).await;
    let path = "/connection/websocket";
    let offer = [("sec-websocket-protocol", "centrifuge-json")];
    let mut json = connect(server.address, path, &offer).await.unwrap();
    send(&mut json, CONNECT).await;
    json.next().await.unwrap().unwrap();

    let mut one_too_many = open(server.address).await;
    assert_eq!(close_code(&mut one_too_many).await, 3504);
    send(&mut json, &format!(r#"{{"id":2,"rpc":{{"data":"{}"}}}}"#, "x".repeat(2000))).await;
    assert_eq!(close_code(&mut json).await, 1009);

    let mut binary = eventually("the place is free again", async || {
        let mut socket = open(server.address).await;
        send(&mut socket, CONNECT).await;
        matches!(socket.next().await, Some(Ok(Message::Text(_)))).then_some(socket)
    })
    .await;
    binary.send(Message::Binary(Bytes::from_static(b"\x00"))).await.unwrap();
    assert_eq!(close_code(&mut binary).await, 3506);

    let foreign = connect(server.address, path, &[("origin", "https://evil.example.com")]).await;
    assert!(matches!(foreign, Err(Error::Http(response)) if response.status() == 403));
}
