//! A server with nothing in its log but the view `stock`, for conformance suites and measurements:
//! `live_server PORT CONFIG.json`. The configuration is that of the section `api`. Ends when its input does.

use std::sync::Arc;

use dashboard_api::ApiConfig;
use ingest::log::{LocalLog, LocalLogOptions};
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().ok_or("PORT is missing")?.parse()?;
    let config: ApiConfig = match arguments.next() {
        Some(path) => serde_json::from_slice(&std::fs::read(path)?)?,
        None => ApiConfig::default(),
    };
    let dir = tempfile::tempdir()?;
    let log: Arc<dyn model::Log> = LocalLog::open(dir.path(), LocalLogOptions::default())?;
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        let mut rest = Vec::new();
        drop(tokio::io::stdin().read_to_end(&mut rest).await);
        stop.cancel();
    });
    let listener = dashboard_api::listen(&format!("127.0.0.1:{port}")).await?;
    println!("{}", listener.local_addr()?);
    dashboard_api::run(listener, config, log, shutdown).await?;
    Ok(())
}
