//! What the fuzzer in `fuzz/` runs: every decoder that faces the network. Each target panics where a rule is broken, and
//! returns whatever the bytes are. The tests feed them mutated examples on any toolchain.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use bytes::Bytes;
use model::clock::SystemClock;
use model::view::ViewColumn;
use model::{Record, ViewInfo, ViewKind, topics};
use prost::Message;
use tokio::time::Instant;

use crate::auth::Authority;
use crate::auth::jwks::tolerant_set;
use crate::auth::keys::keys_of_set;
use crate::cluster::Cluster;
use crate::cluster::message::Envelope;
use crate::cluster::registry::{Registry, Transport};
use crate::config::{Allowed, ApiConfig, AuthMode, NamespaceConfig, SqlConfig};
use crate::fossil;
use crate::hub::Hub;
use crate::hub::lens::{Lens, LensSpec};
use crate::hub::tail::Tail;
use crate::protocol::message::Reply;
use crate::protocol::{Encoding, Line, frame};
use crate::rest::origin::{self, Origin};
use crate::server_api::{Parameters, payload_of};
use crate::session::{Session, SessionContext};
use crate::sql::{self, QueryTable, SqlEngine};
use crate::transport::websocket::accept_key;
use crate::transport::{emulation, frame as websocket};

/// One target: its name and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets of this crate.
pub const TARGETS: [Target; 11] = [
    ("frames", frames),
    ("commands", commands),
    ("session", session),
    ("emulation", emulation),
    ("delta", delta),
    ("filter", filter),
    ("sql", sql),
    ("token", token),
    ("server_api", server_api),
    ("cluster", cluster),
    ("headers", headers),
];

/// Bytes of one message in the targets.
const MESSAGE_BYTES_MAX: usize = 4096;
/// The stack of the threads that requests run on.
const STACK_BYTES: usize = 2 << 20;
/// Signs the tokens of the targets.
const SECRET: &str = "a secret of the fuzzer, long enough";
/// The view of the targets.
const VIEW: &str = "v";
const ROWS: [&str; 3] = [
    r#"{"id":1,"region":"north","amount":"0.10","day":"2025-10-01","at":"2025-10-01T12:00:00Z","ok":true,"x":1.5}"#,
    r#"{"id":2,"region":"süd \"2\"","amount":"-99999999.99","day":"1969-12-31","at":null,"ok":false,"x":-0.0}"#,
    r#"{"id":3,"region":null,"amount":null,"day":null,"at":null,"ok":null,"x":null}"#,
];

/// WebSocket frames, in two pieces.
pub fn frames(bytes: &[u8]) {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let mut decoder = websocket::Decoder::new(MESSAGE_BYTES_MAX);
    let mut events = Vec::new();
    if decoder.decode(first, &mut events).is_ok() && decoder.decode(second, &mut events).is_ok() {
        let mut whole = Vec::new();
        let outcome = websocket::Decoder::new(MESSAGE_BYTES_MAX).decode(bytes, &mut whole);
        assert!(outcome.is_ok() && whole == events, "pieces must not matter");
    }
}

/// Commands in both forms, and the `data` of a subscription.
pub fn commands(bytes: &[u8]) {
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        if let Ok(commands) = frame::parse(encoding, bytes) {
            assert!(!commands.is_empty(), "a frame holds commands or is refused");
        }
    }
    drop(LensSpec::parse(bytes));
}

/// A whole session. The first byte chooses the form and whether the client has connected; frames are separated by the
/// byte 255, which stands in no text.
pub fn session(bytes: &[u8]) {
    let Some((choice, frames)) = bytes.split_first() else { return };
    let (encoding, connects) = match choice % 4 {
        0 => (Encoding::Json, true),
        1 => (Encoding::Protobuf, true),
        2 => (Encoding::Json, false),
        _ => (Encoding::Protobuf, false),
    };
    let (hub, context) = place();
    let mut session = Session::new(context, Transport::WebSocket, encoding);
    if connects {
        session.on_frame(match encoding {
            Encoding::Json => br#"{"id":1,"connect":{}}"#,
            Encoding::Protobuf => b"\x04\x08\x01\x22\x00",
        });
    }
    for bytes in frames.split(|byte| *byte == 255) {
        session.on_frame(bytes);
        session.on_wake();
        session.outbox().take(|line| check_line(encoding, &line));
        if session.outbox().closing().is_some() {
            break;
        }
    }
    session.on_deadline(Instant::now());
    drop(session);
    assert!(hub.channels().is_empty(), "who has gone is subscribed to nothing");
}

/// What is sent is sound, whatever came.
fn check_line(encoding: Encoding, line: &Line) {
    let message = line.parts().collect::<Vec<_>>().concat();
    match encoding {
        Encoding::Json => {
            assert!(!message.contains(&b'\n'), "a message is one line");
            serde_json::from_slice::<serde_json::Value>(&message).expect("a message is JSON");
        }
        // A ping is a message without content.
        Encoding::Protobuf => drop(Reply::decode_length_delimited(&message[..]).expect("a message is Protobuf")),
    }
}

/// A hub with one view and a namespace that allows everything, and what sessions over it need.
fn place() -> (Arc<Hub>, Arc<SessionContext>) {
    let namespace = NamespaceConfig {
        publish: Allowed::Client,
        query: Allowed::Client,
        presence: true,
        join_leave: true,
        history_size: 10,
        recovery: true,
        delta: true,
        ..NamespaceConfig::default()
    };
    let mut config = config(AuthMode::Anonymous);
    config.live.namespaces = BTreeMap::from([(String::new(), namespace)]);
    let hub = Arc::new(Hub::new(&config.limits, &config.live));
    let auth = Authority::new(&config.auth, &config.roles, Arc::new(SystemClock)).expect("the keys are good");
    let cluster =
        Cluster::new(Arc::clone(&hub), Arc::new(Registry::default()), Arc::new(SystemClock), &config.live.redis);
    let mut tail = Tail::new(Arc::clone(&hub), Arc::new(SystemClock));
    let record = |offset, key: String, value: String| Record {
        offset,
        timestamp_ms: 0,
        key: Some(Bytes::from(key)),
        value: Some(Bytes::from(value)),
        headers: Vec::new(),
    };
    let catalog = serde_json::to_string(&view_info()).expect("plain structs always serialise");
    tail.apply(topics::CATALOG, &[record(0, VIEW.to_owned(), catalog)]);
    for (offset, row) in (0..).zip(ROWS) {
        tail.apply(&topics::view(VIEW), &[record(offset, format!(r#"{{"id":{}}}"#, offset + 1), row.to_owned())]);
    }
    hub.set_loaded();
    let (limits, heartbeat) = (config.limits.clone(), config.heartbeat.clone());
    let context = SessionContext::new(Arc::clone(&hub), Arc::new(auth), Arc::new(cluster), limits, heartbeat);
    (hub, Arc::new(context))
}

fn config(mode: AuthMode) -> ApiConfig {
    let mut config = ApiConfig::default();
    config.auth.mode = mode;
    config.auth.jwt_secret = Some(SECRET.to_owned());
    config
}

fn view_info() -> ViewInfo {
    let column = |(name, data_type): (&str, &str)| ViewColumn {
        name: name.to_owned(),
        data_type: data_type.to_owned(),
        nullable: true,
    };
    let columns = [
        ("id", "Int64"),
        ("region", "Utf8"),
        ("amount", "Decimal128(20, 2)"),
        ("day", "Date32"),
        ("at", "Timestamp(µs, \"UTC\")"),
        ("ok", "Boolean"),
        ("x", "Float64"),
    ];
    ViewInfo {
        name: VIEW.to_owned(),
        kind: ViewKind::View,
        topic: topics::view(VIEW),
        columns: columns.map(column).to_vec(),
        key: vec!["id".to_owned()],
        description: None,
        sql: String::new(),
        empty_inputs: vec![],
        maintenance: "incremental".to_owned(),
    }
}

/// Emulation requests in both forms.
pub fn emulation(bytes: &[u8]) {
    for is_binary in [false, true] {
        drop(emulation::parse(&Bytes::copy_from_slice(bytes), is_binary));
    }
}

/// Deltas between two payloads, and bytes as a delta.
pub fn delta(bytes: &[u8]) {
    let (old, new) = bytes.split_at(bytes.len() / 2);
    drop(fossil::apply(old, new));
    if let Some(delta) = fossil::create(old, new) {
        assert!(delta.len() < new.len(), "a delta is shorter than the whole");
        assert_eq!(fossil::apply(old, &delta).as_deref(), Some(new), "a delta makes the new of the old");
    }
}

/// A subscriber's filter over a view.
pub fn filter(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let data = serde_json::json!({ "filter": text }).to_string();
    on_small_stack(|| {
        let Ok(spec) = LensSpec::parse(data.as_bytes()) else { return };
        let Ok(lens) = Lens::compile(&view_info(), &spec) else { return };
        let rows = ROWS.map(|row| Bytes::from_static(row.as_bytes()));
        let together = lens.matches(&rows);
        let alone: Vec<bool> = rows.iter().flat_map(|row| lens.matches(std::slice::from_ref(row))).collect();
        assert_eq!(together, alone, "a row does not depend on others");
    });
}

/// A caller's SQL over a view: parsed, checked, planned and run.
pub fn sql(bytes: &[u8]) {
    static ENGINE: LazyLock<SqlEngine> =
        LazyLock::new(|| SqlEngine::new(&sql_config()).expect("threads can be started"));
    static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime can be started")
    });
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Some(query) = on_small_stack(|| sql::parse(text).ok()) else { return };
    if query.views.iter().any(|view| view != VIEW) {
        return;
    }
    let rows = ROWS.map(|row| Bytes::from_static(row.as_bytes())).to_vec();
    let table = QueryTable { info: Arc::new(view_info()), rows, filter: None };
    let permit = ENGINE.permit("anybody").expect("one query at a time");
    if let Ok(result) = RUNTIME.block_on(ENGINE.run(query, vec![table], permit)) {
        let n_rows: usize = result.batches.iter().map(arrow::array::RecordBatch::num_rows).sum();
        assert!(n_rows <= sql_config().rows, "no more rows than allowed");
    }
}

fn sql_config() -> SqlConfig {
    SqlConfig {
        memory_bytes: 16 << 20,
        rows: 100,
        seconds: 5,
        threads: 1,
        queries: 64,
        queries_per_user: 64,
        ..SqlConfig::default()
    }
}

/// Runs on a stack no larger than that of the threads of the server.
fn on_small_stack<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, run);
        match thread.expect("threads can be started").join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Tokens, and key sets of identity providers.
pub fn token(bytes: &[u8]) {
    static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| {
        let config = config(AuthMode::Token);
        Authority::new(&config.auth, &config.roles, Arc::new(SystemClock)).expect("the keys are good")
    });
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(principal) = AUTHORITY.authenticate(text)
    {
        assert_eq!(&*principal.user, "known", "nobody makes a token without the secret");
    }
    if let Ok(set) = tolerant_set(bytes) {
        drop(keys_of_set(&set));
    }
}

/// Calls of the server API.
pub fn server_api(bytes: &[u8]) {
    let Ok(parameters) = Parameters::parse(bytes) else { return };
    if let Ok(payload) = payload_of(&parameters) {
        assert!(!payload.contains(&b'\n') || !crate::protocol::payload::is_json(&payload), "JSON is one line");
    }
}

/// Messages of other nodes.
pub fn cluster(bytes: &[u8]) {
    let Ok(envelope) = Envelope::decode(bytes) else { return };
    let (_, context) = place();
    let session = Session::new(Arc::clone(&context), Transport::WebSocket, Encoding::Json);
    drop(context.cluster.apply(envelope, Some(7)));
    session.outbox().take(|line| check_line(Encoding::Json, &line));
}

/// What is read of a request's head: lines with its host, origin, and key of the handshake.
pub fn headers(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n').map(HeaderValue::from_bytes);
    let mut request = Request::new(Body::empty());
    for name in [header::HOST, header::ORIGIN, header::SEC_WEBSOCKET_KEY] {
        if let Some(Ok(value)) = lines.next() {
            request.headers_mut().insert(name, value);
        }
    }
    let fixed =
        [(header::CONNECTION, "upgrade"), (header::UPGRADE, "websocket"), (header::SEC_WEBSOCKET_VERSION, "13")];
    for (name, value) in fixed {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    drop(accept_key(request.headers()));
    if let Some(named) = Origin::of(&request, &["https://erp.example.com".to_owned()])
        && named.check().is_ok()
        && !named.is_listed()
    {
        let text = request.headers().get(header::ORIGIN).and_then(|origin| origin.to_str().ok()).unwrap_or("");
        let own = origin::host(&request).unwrap_or("");
        assert_eq!(text.split_once("://").map(|(_, name)| name), Some(own), "only our own page is at home");
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    /// The examples that the fuzzer begins with.
    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
        let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        files.map(|file| std::fs::read(file.expect("a file").path()).expect("it can be read")).collect()
    }

    /// What to do with an example: cut bytes out, put some in, take some of another one.
    #[derive(Debug, Clone)]
    enum Edit {
        Insert(Vec<u8>),
        Remove(usize),
        Repeat(usize),
        Other(usize, usize),
    }

    fn edits() -> impl Strategy<Value = Vec<(usize, Edit)>> {
        let edit = prop_oneof![
            proptest::collection::vec(any::<u8>(), 1..6).prop_map(Edit::Insert),
            (1..12_usize).prop_map(Edit::Remove),
            (1..40_usize).prop_map(Edit::Repeat),
            (any::<usize>(), 1..40_usize).prop_map(|(which, n)| Edit::Other(which, n)),
        ];
        proptest::collection::vec((any::<usize>(), edit), 0..4)
    }

    fn mutated(seeds: &[Vec<u8>], which: usize, edits: Vec<(usize, Edit)>) -> Vec<u8> {
        let mut bytes = seeds[which % seeds.len()].clone();
        for (at, edit) in edits {
            let at = at % (bytes.len() + 1);
            let some = |from: &[u8], n: usize| from[at.min(from.len())..(at + n).min(from.len())].to_vec();
            let (n_removed, inserted) = match edit {
                Edit::Insert(inserted) => (0, inserted),
                Edit::Remove(n) => (n, Vec::new()),
                Edit::Repeat(n) => (0, some(&bytes, n)),
                Edit::Other(which, n) => (n, some(&seeds[which % seeds.len()], n)),
            };
            bytes.splice(at..(at + n_removed).min(bytes.len()), inserted);
        }
        bytes
    }

    #[test]
    fn examples_are_taken_as_they_are() {
        for (name, run) in TARGETS {
            seeds(name).iter().for_each(|seed| run(seed));
        }
        let known = seeds("token").into_iter().filter_map(|seed| String::from_utf8(seed).ok());
        let config = config(AuthMode::Token);
        let authority = Authority::new(&config.auth, &config.roles, Arc::new(SystemClock)).expect("good keys");
        assert_eq!(known.filter(|token| authority.authenticate(token).is_ok()).count(), 1);
        for filter in seeds("filter") {
            let data = serde_json::json!({ "filter": String::from_utf8(filter).expect("text") }).to_string();
            let spec = LensSpec::parse(data.as_bytes()).expect("of the form");
            assert!(Lens::compile(&view_info(), &spec).is_ok(), "{data}");
        }
        for query in seeds("sql") {
            assert!(sql::parse(std::str::from_utf8(&query).expect("text")).is_ok());
        }
    }

    proptest! {
        #[test]
        fn no_mutation_breaks_a_decoder(which in any::<usize>(), edits in edits()) {
            for (name, run) in TARGETS.iter().filter(|(name, _)| *name != "sql") {
                run(&mutated(&seeds(name), which, edits.clone()));
            }
        }

        #[test]
        fn no_bytes_break_a_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            TARGETS.iter().for_each(|(_, run)| run(&bytes));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_mutation_breaks_sql(which in any::<usize>(), edits in edits()) {
            sql(&mutated(&seeds("sql"), which, edits));
        }
    }
}
