//! What the unit tests of several modules share.

use std::sync::Arc;

use bytes::Bytes;
use model::clock::SystemClock;
use model::view::{EngineStatus, EpochMark, ViewColumn};
use model::{LogBatch, Record, ViewInfo, ViewKind, topics};
use serde_json::Value;

use crate::auth::Authority;
use crate::cluster::Cluster;
use crate::cluster::registry::{Registry, Transport};
use crate::config::{ApiConfig, AuthMode};
use crate::hub::Hub;
use crate::hub::tail::Tail;
use crate::outbox::{Next, Outbox};
use crate::protocol::{Disconnect, Encoding, Line};
use crate::session::{Session, SessionContext};

pub(crate) const SECRET: &str = "a secret of the tests, long enough";

/// A configuration that lets anybody in.
pub(crate) fn open_config() -> ApiConfig {
    let mut config = ApiConfig::default();
    config.auth.mode = AuthMode::Anonymous;
    config.auth.jwt_secret = Some(SECRET.to_owned());
    config
}

/// A hub and what sessions need.
pub(crate) fn context(config: &ApiConfig) -> (Arc<Hub>, Arc<SessionContext>) {
    let hub = Arc::new(Hub::new(&config.limits, &config.live));
    let auth = Arc::new(Authority::new(&config.auth, &config.roles, Arc::new(SystemClock)).expect("good keys"));
    let registry = Arc::new(Registry::default());
    let cluster = Cluster::new(Arc::clone(&hub), registry, Arc::new(SystemClock), &config.live.redis);
    let (limits, heartbeat) = (config.limits.clone(), config.heartbeat.clone());
    let context = SessionContext::new(Arc::clone(&hub), auth, Arc::new(cluster), limits, heartbeat);
    (hub, Arc::new(context))
}

pub(crate) fn tail(hub: &Arc<Hub>) -> Tail {
    Tail::new(Arc::clone(hub), Arc::new(SystemClock))
}

/// Applies a batch.
pub(crate) fn feed(tail: &mut Tail, batch: LogBatch) {
    tail.apply(&batch.topic, &batch.records);
}

/// A token with these claims.
pub(crate) fn token(claims: &Value) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).expect("claims are JSON")
}

/// A view with the key column `id` and the column `n`.
pub(crate) fn view_info(name: &str) -> ViewInfo {
    let column = |name: &str| ViewColumn { name: name.to_owned(), data_type: "Int64".to_owned(), nullable: true };
    ViewInfo {
        name: name.to_owned(),
        kind: ViewKind::View,
        topic: topics::view(name),
        columns: vec![column("id"), column("n")],
        key: vec!["id".to_owned()],
        description: None,
        sql: format!("CREATE MATERIALIZED VIEW {name} AS SELECT id, n FROM t"),
        empty_inputs: vec![],
        maintenance: "incremental".to_owned(),
    }
}

/// Key, value and mark of a record.
pub(crate) type RecordParts = (String, Option<String>, Option<EpochMark>);

/// A batch of records at the beginning of a topic.
pub(crate) fn batch(topic: &str, records: Vec<RecordParts>) -> LogBatch {
    batch_at(topic, 0, records)
}

/// A batch of records from an offset on.
pub(crate) fn batch_at(topic: &str, first_offset: i64, records: Vec<RecordParts>) -> LogBatch {
    let record = |(n, (key, value, mark)): (usize, RecordParts)| Record {
        offset: first_offset + i64::try_from(n).expect("few records"),
        timestamp_ms: 0,
        key: Some(Bytes::from(key)),
        value: value.map(Bytes::from),
        headers: mark.map(EpochMark::to_headers).unwrap_or_default(),
    };
    LogBatch { topic: topic.into(), partition: 0, records: records.into_iter().enumerate().map(record).collect() }
}

/// A batch with the catalog's entry of a view.
pub(crate) fn catalog(info: &ViewInfo) -> LogBatch {
    let json = serde_json::to_string(info).expect("JSON");
    batch(topics::CATALOG, vec![(info.name.clone(), Some(json), None)])
}

/// A batch with a report of a live engine.
pub(crate) fn status(epoch: u64) -> LogBatch {
    let status = EngineStatus {
        epoch,
        as_of_ms: 1,
        written_at_ms: 1,
        event_time_ms: None,
        records_read: 1,
        lag_records: Some(0),
        dead_letters: 0,
        phase: "live".to_owned(),
    };
    let json = serde_json::to_string(&status).expect("JSON");
    batch(topics::STATUS, vec![("engine".to_owned(), Some(json), None)])
}

/// A session over a WebSocket with JSON.
pub(crate) fn session(context: &Arc<SessionContext>) -> Session {
    Session::new(Arc::clone(context), Transport::WebSocket, Encoding::Json)
}

/// Takes the messages that wait in an outbox, and why it closes if it does.
pub(crate) fn drain(outbox: &Outbox) -> (Vec<String>, Option<Disconnect>) {
    let mut messages = Vec::new();
    loop {
        match outbox.try_next() {
            Some(Next::Write(lines)) => {
                messages.extend(lines.iter().map(|line: &Line| String::from_utf8(line.to_vec()).expect("UTF-8")));
            }
            Some(Next::Close(disconnect)) => return (messages, Some(disconnect)),
            None => return (messages, None),
        }
    }
}
