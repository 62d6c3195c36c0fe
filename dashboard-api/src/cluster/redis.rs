//! The nodes' common stream in Redis (6 or newer): `<prefix>:stream`, and `<prefix>:epoch`, which names it.
//!
//! The place of a message is the id that Redis gave it, as a number: it grows, and is the same for all nodes. A node
//! that comes begins with what the stream still holds, so that clients may come to it with positions of other nodes. If
//! Redis has lost the stream, or a node has missed more than it holds, subscribers with positions start anew.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use prost::Message;
use redis::aio::MultiplexedConnection;
use redis::sentinel::{SentinelClient, SentinelServerType};
use redis::{AsyncConnectionConfig, RedisError, Value, cmd};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::cluster::message::Envelope;
use crate::cluster::{Cluster, Done};
use crate::hub::stream::random_epoch;
use crate::hub::topics::{Position, Shared};
use crate::live::RedisConfig;
use crate::protocol::ErrorCode;

/// How long Redis may take to accept a connection, or to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one read waits for something new; below [`ANSWER_TIMEOUT`].
const READ_WAIT: Duration = Duration::from_secs(2);
/// Pause before the connection is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Messages that one read brings at most, and that one write takes along.
const BATCH: usize = 500;
/// Ids within one millisecond that have places of their own; Redis cannot write as many.
const IDS_PER_MS: u64 = 4096;

/// A message that goes to Redis.
pub(crate) struct Outgoing {
    pub(crate) payload: Vec<u8>,
    pub(crate) done: Option<Done>,
}

/// The connection to the common stream.
pub(crate) struct RedisBus {
    config: RedisConfig,
    outgoing: mpsc::Receiver<Outgoing>,
}

/// What one entry of a stream is: its id, and its fields.
type Entry = (String, HashMap<String, Value>);

impl RedisBus {
    pub(crate) fn new(config: RedisConfig, outgoing: mpsc::Receiver<Outgoing>) -> Self {
        Self { config, outgoing }
    }

    /// Reads and writes until `shutdown`, over any number of connections.
    pub(crate) async fn run(self, cluster: Arc<Cluster>, shutdown: CancellationToken) {
        // A second provider may be linked in, so that rustls cannot choose by itself; one that is set already is fine.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let Self { config, mut outgoing } = self;
        let reading = async {
            tokio::select! {
                () = read_for_ever(&config, &cluster) => {}
                () = shutdown.cancelled() => {}
            }
        };
        let writing = write_until_shutdown(&config, &mut outgoing, &shutdown);
        tokio::join!(reading, writing);
    }
}

async fn connect(config: &RedisConfig) -> Result<MultiplexedConnection, RedisError> {
    let options = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(ANSWER_TIMEOUT))
        .set_response_timeout(Some(ANSWER_TIMEOUT));
    if !config.sentinels.is_empty() {
        let sentinels = config.sentinels.clone();
        let mut client =
            SentinelClient::build(sentinels, config.sentinel_master.clone(), None, SentinelServerType::Master)?;
        return client.get_async_connection_with_config(&options).await;
    }
    let url = config.url.as_deref().unwrap_or_default();
    redis::Client::open(url)?.get_multiplexed_async_connection_with_config(&options).await
}

/// Reads the stream, connecting again whenever that fails.
async fn read_for_ever(config: &RedisConfig, cluster: &Arc<Cluster>) {
    let mut is_known_down = false;
    loop {
        let error = match connect(config).await {
            Ok(connection) => {
                if is_known_down {
                    tracing::info!("redis is back");
                }
                is_known_down = false;
                gauge!("api_cluster_connected_total").set(1.0);
                read(config, connection, cluster).await
            }
            Err(error) => error,
        };
        gauge!("api_cluster_connected_total").set(0.0);
        counter!("api_cluster_reconnects_total").increment(1);
        if !is_known_down {
            is_known_down = true;
            tracing::warn!(%error, "redis cannot be reached: presence and general channels are limited to this node");
        }
        sleep(RETRY_PAUSE).await;
    }
}

/// Follows the stream until that fails.
async fn read(config: &RedisConfig, mut connection: MultiplexedConnection, cluster: &Arc<Cluster>) -> RedisError {
    let stream = format!("{}:stream", config.prefix);
    let mut last_id = match begin(config, &stream, &mut connection, cluster).await {
        Ok(last_id) => last_id,
        Err(error) => return error,
    };
    cluster.on_connected();
    loop {
        let mut command = cmd("XREAD");
        command.arg("COUNT").arg(BATCH).arg("BLOCK").arg(READ_WAIT.as_millis() as u64);
        command.arg("STREAMS").arg(&stream).arg(&last_id);
        let reply: Option<Vec<(String, Vec<Entry>)>> = match command.query_async(&mut connection).await {
            Ok(reply) => reply,
            Err(error) => return error,
        };
        for (id, fields) in reply.into_iter().flatten().flat_map(|(_, entries)| entries) {
            apply(cluster, &id, &fields);
            last_id = id;
        }
    }
}

/// Finds out where this node stands in the stream. Returns the id to read on from.
async fn begin(
    config: &RedisConfig,
    stream: &str,
    connection: &mut MultiplexedConnection,
    cluster: &Cluster,
) -> Result<String, RedisError> {
    let key = format!("{}:epoch", config.prefix);
    let _: Option<String> = cmd("SET").arg(&key).arg(&*random_epoch()).arg("NX").query_async(connection).await?;
    let epoch: String = cmd("GET").arg(&key).query_async(connection).await?;
    let oldest: Vec<Entry> =
        cmd("XRANGE").arg(stream).arg("-").arg("+").arg("COUNT").arg(1).query_async(connection).await?;
    // What came before the oldest entry is lost; with an empty stream nothing is.
    let oldest = oldest.first().map_or(0, |(id, _)| place(id).saturating_sub(1));
    let topics = cluster.hub.topics();
    let known = topics.shared_position().filter(|known| *known.epoch == *epoch && known.top >= oldest);
    Ok(match known {
        Some(known) => id_of(known.top),
        None => {
            topics.share(Shared { epoch: Arc::from(epoch), floor: oldest, top: oldest });
            "0".to_owned()
        }
    })
}

fn apply(cluster: &Cluster, id: &str, fields: &HashMap<String, Value>) {
    let at = place(id);
    let envelope = match fields.get("m") {
        Some(Value::BulkString(bytes)) => Envelope::decode(&bytes[..]).ok(),
        _ => None,
    };
    match envelope {
        Some(envelope) => {
            if let Err(error) = cluster.apply(envelope, Some(at)) {
                tracing::debug!(code = error.code, "a message of another node has no effect here");
            }
        }
        None => counter!("api_cluster_invalid_total").increment(1),
    }
    cluster.hub.topics().advance(at);
}

/// Writes what is sent, connecting again whenever that fails.
async fn write_until_shutdown(
    config: &RedisConfig,
    outgoing: &mut mpsc::Receiver<Outgoing>,
    shutdown: &CancellationToken,
) {
    let stream = format!("{}:stream", config.prefix);
    let mut connection: Option<MultiplexedConnection> = None;
    let mut batch = Vec::new();
    loop {
        let n_messages = tokio::select! {
            n = outgoing.recv_many(&mut batch, BATCH) => n,
            () = shutdown.cancelled() => {
                // The farewell, if it comes at once.
                let farewell = timeout(Duration::from_millis(200), outgoing.recv_many(&mut batch, BATCH)).await;
                if let (Ok(1..), Some(connection)) = (farewell, &mut connection) {
                    write(config, &stream, connection, &mut batch).await;
                }
                return;
            }
        };
        if n_messages == 0 {
            return;
        }
        if connection.is_none() {
            connection = connect(config).await.ok();
        }
        let is_written = match &mut connection {
            Some(connection) => write(config, &stream, connection, &mut batch).await,
            None => false,
        };
        if !is_written {
            connection = None;
            // Whoever waits is told; what nobody waits for is told again once the connection is back.
            batch.drain(..).filter_map(|message| message.done).for_each(|done| done(Err(ErrorCode::NOT_YET)));
        }
    }
}

/// Writes a batch in order. Returns whether Redis has it.
async fn write(
    config: &RedisConfig,
    stream: &str,
    connection: &mut MultiplexedConnection,
    batch: &mut Vec<Outgoing>,
) -> bool {
    let epoch_key = format!("{}:epoch", config.prefix);
    let mut pipeline = redis::pipe();
    pipeline.cmd("GET").arg(&epoch_key);
    for message in batch.iter() {
        pipeline.cmd("XADD").arg(stream).arg("MAXLEN").arg("~").arg(config.stream_size);
        pipeline.arg("*").arg("m").arg(&message.payload[..]);
    }
    let reply: Result<Vec<Option<String>>, RedisError> = pipeline.query_async(connection).await;
    let Ok(ids) = reply else { return false };
    let mut ids = ids.into_iter();
    let epoch = ids.next().flatten().unwrap_or_default();
    for (message, id) in batch.drain(..).zip(ids) {
        let position = id.map(|id| Position { offset: place(&id), epoch: epoch.clone() });
        if let Some(done) = message.done {
            done(position.ok_or(ErrorCode::NOT_YET));
        }
    }
    true
}

/// The place of an id (`<milliseconds>-<number>`) as one number below 2^53.
fn place(id: &str) -> u64 {
    let (ms, number) = id.split_once('-').unwrap_or((id, "0"));
    let (ms, number): (u64, u64) = (ms.parse().unwrap_or(0), number.parse().unwrap_or(0));
    ms * IDS_PER_MS + number.min(IDS_PER_MS - 1)
}

fn id_of(place: u64) -> String {
    format!("{}-{}", place / IDS_PER_MS, place % IDS_PER_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_grow_as_ids_do() {
        let ids = ["0-1", "1767225600000-0", "1767225600000-1", "1767225600001-0", "9999999999999-0"];
        assert!(ids.is_sorted_by_key(|id| place(id)));
        assert!(place("2100000000000-0") < 1 << 53, "clients keep places in JSON numbers");
        assert_eq!(id_of(place("1767225600000-17")), "1767225600000-17");
    }
}
