//! The hub's conscience: whatever epochs come, whoever joins, leaves and recovers meanwhile, and whenever the node is
//! killed and another takes its place with what a compacted log still holds, every client ends with exactly the view's
//! rows that pass its filter, and sees every publication once and in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::view::EpochMark;
use model::{Record, ViewInfo, topics};
use proptest::prelude::*;
use serde_json::Value;

use crate::fixtures::{
    RecordParts, batch_at, catalog, context, drain, feed, open_config, session, status, tail, view_info,
};
use crate::hub::tail::Tail;
use crate::session::{Session, SessionContext};

const CLIENTS: usize = 3;
type Rows = BTreeMap<String, Value>;

#[derive(Debug, Clone)]
enum Step {
    /// An epoch with these rows written (`Some`) or deleted, its records in batches of this many.
    Epoch { changes: Vec<(u8, Option<u16>)>, batch_size: usize, is_marked: bool },
    /// The client connects, from where it was if it was there before.
    Join(usize),
    /// The client's connection is cut, with what was under way to it.
    Leave(usize),
    /// The client reads what has come.
    Read(usize),
    /// The view is declared anew.
    Redeclare,
    /// An epoch that its engine did not live to end: the truth has its row.
    Torn(u8, u16),
    /// The node is killed, and another reads what the compacted log holds.
    Kill,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let change = (0..12_u8, proptest::option::weighted(0.7, any::<u16>()));
    let epoch = (proptest::collection::vec(change, 1..6), 1..4_usize, proptest::bool::weighted(0.9));
    let step = prop_oneof![
        8 => epoch.prop_map(|(changes, batch_size, is_marked)| Step::Epoch { changes, batch_size, is_marked }),
        3 => (0..CLIENTS).prop_map(Step::Join),
        2 => (0..CLIENTS).prop_map(Step::Leave),
        3 => (0..CLIENTS).prop_map(Step::Read),
        1 => Just(Step::Redeclare),
        1 => (0..12_u8, any::<u16>()).prop_map(|(id, n)| Step::Torn(id, n)),
        1 => Just(Step::Kill),
    ];
    proptest::collection::vec(step, 1..60)
}

/// The filter of the last client; the others see everything.
const FILTER: &str = "n % 2 = 0";

fn passes(row: &Value) -> bool {
    row["n"].as_u64().is_some_and(|n| n % 2 == 0)
}

/// A node, and the log that outlives it.
struct World {
    context: Arc<SessionContext>,
    tail: Tail,
    info: ViewInfo,
    records: Vec<Record>,
}

impl World {
    /// A node that has read what the log holds.
    fn new(info: ViewInfo, kept: &[Record]) -> Self {
        let mut config = open_config();
        config.limits.history_size = 4;
        config.limits.history_bytes = 400;
        let (hub, context) = context(&config);
        let mut tail = tail(&hub);
        feed(&mut tail, catalog(&info));
        tail.apply(&topics::view("v"), kept);
        feed(&mut tail, status(1_000));
        hub.set_loaded();
        Self { context, tail, info, records: Vec::new() }
    }

    /// Another node in its place, with the newest record of each key.
    fn kill(&mut self) {
        let newest: BTreeMap<_, _> = self.records.iter().map(|record| (record.key.clone(), record)).collect();
        let mut kept: Vec<Record> = newest.into_values().cloned().collect();
        kept.sort_by_key(|record| record.offset);
        let records = std::mem::take(&mut self.records);
        *self = Self { records, ..Self::new(self.info.clone(), &kept) };
    }

    fn append(&mut self, records: Vec<RecordParts>) {
        let first_offset = self.records.len() as i64;
        let mut batch = batch_at(&topics::view("v"), first_offset, records);
        let now_ms = chrono::Utc::now().timestamp_millis();
        batch.records.iter_mut().for_each(|record| record.timestamp_ms = now_ms);
        self.records.extend(batch.records.iter().cloned());
        feed(&mut self.tail, batch);
    }
}

/// What a client library and its application keep.
#[derive(Default)]
struct Client {
    is_filtered: bool,
    session: Option<Session>,
    rows: Rows,
    position: Option<(String, u64)>,
}

impl Client {
    fn join(&mut self, context: &Arc<SessionContext>) {
        let mut session = session(context);
        session.on_frame(br#"{"id":1,"connect":{}}"#);
        self.session = Some(session);
        self.subscribe();
    }

    fn subscribe(&mut self) {
        let mut request = serde_json::json!({"id": 2, "subscribe": {"channel": "view:v"}});
        if self.is_filtered {
            request["subscribe"]["data"] = serde_json::json!({"filter": FILTER});
        }
        if let Some((epoch, offset)) = &self.position {
            let subscribe = request["subscribe"].as_object_mut().expect("an object");
            subscribe.insert("recover".to_owned(), true.into());
            subscribe.insert("epoch".to_owned(), epoch.clone().into());
            subscribe.insert("offset".to_owned(), (*offset).into());
        }
        let session = self.session.as_mut().expect("connected");
        session.on_frame(request.to_string().as_bytes());
    }

    fn read(&mut self) {
        loop {
            let Some(session) = &self.session else { return };
            let (messages, closing) = drain(session.outbox());
            assert_eq!(closing, None, "nothing here is a reason to close");
            if messages.is_empty() {
                return;
            }
            for message in messages {
                self.on_message(&serde_json::from_str(&message).expect("JSON"));
            }
        }
    }

    fn on_message(&mut self, message: &Value) {
        assert_eq!(message.get("error"), None, "{message}");
        let reply = &message["subscribe"];
        let push = &message["push"];
        if reply.is_object() {
            let offset = reply["offset"].as_u64().unwrap_or(0);
            self.position = Some((reply["epoch"].as_str().expect("an epoch").to_owned(), offset));
            if reply["recovered"] == true {
                let publications = reply["publications"].as_array().into_iter().flatten();
                publications.for_each(|publication| self.on_publication(publication));
            } else {
                let rows = reply["data"]["rows"].as_array().expect("a snapshot");
                self.rows = rows.iter().map(|row| (row["id"].to_string(), row.clone())).collect();
            }
        } else if push["pub"].is_object() {
            self.on_publication(&push["pub"]);
        } else if push["unsubscribe"].is_object() {
            assert_eq!(push["unsubscribe"]["code"], 2500);
            self.subscribe();
        }
    }

    fn on_publication(&mut self, publication: &Value) {
        let (_, offset) = self.position.as_mut().expect("subscribed");
        let next = publication["offset"].as_u64().expect("an offset");
        assert!(next > *offset, "every publication once and in order: {next} after {offset}");
        *offset = next;
        for change in publication["data"]["changes"].as_array().expect("changes") {
            let id = change["key"]["id"].to_string();
            match &change["row"] {
                Value::Null => self.rows.remove(&id),
                row => self.rows.insert(id, row.clone()),
            };
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_client_ends_with_the_views_rows(steps in steps()) {
        let mut world = World::new(view_info("v"), &[]);
        let mut truth = Rows::new();
        let client = |n| Client { is_filtered: n + 1 == CLIENTS, ..Client::default() };
        let mut clients: Vec<Client> = (0..CLIENTS).map(client).collect();
        for (step_idx, step) in steps.into_iter().enumerate() {
            match step {
                Step::Join(n) if clients[n].session.is_none() => clients[n].join(&world.context),
                Step::Join(n) | Step::Read(n) => clients[n].read(),
                Step::Leave(n) => clients[n].session = None,
                Step::Redeclare => {
                    world.info.sql.push_str(&format!(" -- {step_idx}"));
                    feed(&mut world.tail, catalog(&world.info));
                }
                Step::Kill => {
                    clients.iter_mut().for_each(|client| client.session = None);
                    world.kill();
                }
                Step::Torn(id, n) => {
                    let row = serde_json::json!({"id": id, "n": n});
                    truth.insert(id.to_string(), row.clone());
                    let mark = EpochMark { epoch: step_idx as u64, as_of_ms: 0, last: false };
                    let record = (format!(r#"{{"id":{id}}}"#), Some(row.to_string()), Some(mark));
                    world.append(vec![record]);
                }
                Step::Epoch { changes, batch_size, is_marked } => {
                    let n_changes = changes.len();
                    let records: Vec<_> = changes.into_iter().enumerate().map(|(n, (id, value))| {
                        let row = value.map(|n| serde_json::json!({"id": id, "n": n}));
                        match &row {
                            Some(row) => truth.insert(id.to_string(), row.clone()),
                            None => truth.remove(&id.to_string()),
                        };
                        let mark = EpochMark { epoch: step_idx as u64, as_of_ms: 0, last: n + 1 == n_changes };
                        (format!(r#"{{"id":{id}}}"#), row.map(|r| r.to_string()), is_marked.then_some(mark))
                    }).collect();
                    for records in records.chunks(batch_size) {
                        world.append(records.to_vec());
                    }
                }
            }
        }
        feed(&mut world.tail, status(1_000));
        for client in &mut clients {
            client.read();
            if client.session.is_none() {
                client.join(&world.context);
                client.read();
            }
            let seen = |row: &Value| !client.is_filtered || passes(row);
            let expected: Rows =
                truth.iter().filter(|(_, row)| seen(row)).map(|(id, row)| (id.clone(), row.clone())).collect();
            prop_assert_eq!(&client.rows, &expected);
        }
    }
}
