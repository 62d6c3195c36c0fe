//! A network that can be cut: forwards TCP connections to a server that may change.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Where connections go; `None` while the network is cut.
type Target = Option<SocketAddr>;

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    target: Arc<watch::Sender<Target>>,
}

impl Proxy {
    pub(crate) async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let target = Arc::new(watch::Sender::new(Some(target)));
        let sender = Arc::clone(&target);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, sender.subscribe()));
            }
        });
        Self { address, target }
    }

    /// Drops every connection, and new ones until [`Self::mend`].
    pub(crate) fn cut(&self) {
        self.target.send_replace(None);
    }

    pub(crate) fn mend(&self, target: SocketAddr) {
        self.target.send_replace(Some(target));
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/connection/websocket", self.address)
    }
}

async fn forward(mut client: TcpStream, mut target: watch::Receiver<Target>) {
    let Some(address) = *target.borrow_and_update() else { return };
    let Ok(mut server) = TcpStream::connect(address).await else { return };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
        _ = target.changed() => {}
    }
}
