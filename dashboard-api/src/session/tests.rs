//! The protocol's rules, as a client meets them: frames in, messages and close codes out.

use std::sync::Arc;
use std::time::Duration;

use expect_test::{Expect, expect};
use model::topics;
use model::view::EpochMark;
use serde_json::json;
use tokio::time::Instant;

use crate::config::{ApiConfig, AuthMode};
use crate::fixtures::{batch, catalog, context, drain, feed, open_config, session, status, tail, token, view_info};
use crate::hub::Hub;
use crate::session::Session;

/// A hub with the view `v`: one row, and one publication since the start.
fn fed(config: &ApiConfig) -> (Arc<Hub>, Session) {
    let (hub, context) = context(config);
    let mut tail = tail(&hub);
    feed(&mut tail, catalog(&view_info("v")));
    feed(&mut tail, status(1));
    hub.set_loaded();
    let mark = EpochMark { epoch: 1, as_of_ms: 5, last: true };
    let row = (r#"{"id":1}"#.to_owned(), Some(r#"{"id":1,"n":2}"#.to_owned()), Some(mark));
    feed(&mut tail, batch(&topics::view("v"), vec![row]));
    (hub, session(&context))
}

/// What came out of a session, with the parts that are random or of the moment replaced.
fn output(session: &Session) -> String {
    let (messages, closing) = drain(session.outbox());
    let mut out = String::new();
    for message in messages {
        let mut json: serde_json::Value = serde_json::from_str(&message).expect("a message is JSON");
        for pointer in ["/connect/client", "/connect/time", "/refresh/client", "/subscribe/epoch", "/history/epoch"] {
            if let Some(value) = json.pointer_mut(pointer) {
                *value = json!("…");
            }
        }
        out.push_str(&format!("{json}\n"));
    }
    if let Some(disconnect) = closing {
        out.push_str(&format!("close {} {}\n", disconnect.code, disconnect.reason));
    }
    out
}

fn check(frames: &[&str], expected: Expect) {
    check_with(&open_config(), frames, expected);
}

#[expect(clippy::needless_pass_by_value, reason = "expect! makes a value")]
fn check_with(config: &ApiConfig, frames: &[&str], expected: Expect) {
    let (_hub, mut session) = fed(config);
    for frame in frames {
        session.on_frame(frame.as_bytes());
    }
    expected.assert_eq(&output(&session));
}

const CONNECT: &str = r#"{"id":1,"connect":{}}"#;

#[test]
fn connect_and_subscriptions_share_a_frame() {
    check(
        &[
            "{\"id\":1,\"connect\":{\"name\":\"js\"}}\n{\"id\":2,\"subscribe\":{\"channel\":\"view:v\"}}\n{\"id\":3,\"subscribe\":{\"channel\":\"alerts\"}}\n{\"id\":4,\"subscribe\":{\"channel\":\"status\",\"flag\":1}}",
        ],
        expect![[r#"
            {"connect":{"client":"…","ping":25,"pong":true,"time":"…","version":"0.1.0"},"id":1}
            {"id":2,"subscribe":{"data":{"as_of_ms":5,"columns":[{"name":"id","nullable":true,"type":"Int64"},{"name":"n","nullable":true,"type":"Int64"}],"empty_inputs":[],"epoch":1,"key":["id"],"rows":[{"id":1,"n":2}],"view":"v","written_at_ms":0},"epoch":"…","offset":1,"positioned":true,"recoverable":true}}
            {"id":3,"subscribe":{"data":{"alerts":[],"firing":0},"epoch":"…","positioned":true,"recoverable":true}}
            {"id":4,"subscribe":{"data":{"as_of_ms":1,"dead_letters":0,"epoch":1,"event_time_ms":null,"lag_records":0,"phase":"live","records_read":1,"written_at_ms":1},"epoch":"…","positioned":true,"recoverable":true}}
        "#]],
    );
}

#[test]
fn the_first_command_is_connect_and_only_the_first() {
    check(
        &[r#"{"id":1,"subscribe":{"channel":"view:v"}}"#],
        expect![[r#"
        close 3501 bad request
    "#]],
    );
    check(
        &[CONNECT, r#"{"id":2,"connect":{}}"#],
        expect![[r#"
        {"connect":{"client":"…","ping":25,"pong":true,"time":"…","version":"0.1.0"},"id":1}
        close 3501 bad request
    "#]],
    );
    check(
        &["{}"],
        expect![[r#"
        close 3501 bad request
    "#]],
    );
    check(
        &["nonsense"],
        expect![[r#"
        close 3501 bad request
    "#]],
    );
    check(
        &[""],
        expect![[r#"
        close 3501 bad request
    "#]],
    );
}

#[test]
fn what_is_not_offered_says_so() {
    check(
        &[
            CONNECT,
            r#"{"id":2,"presence":{"channel":"view:v"}}{"id":3,"presence_stats":{"channel":"view:v"}}"#,
            r#"{"id":4,"rpc":{"method":"x"}}{"id":5,"ping":{}}{"id":6,"publish":{"channel":"view:v","data":{}}}"#,
            r#"{"id":7,"sub_refresh":{"channel":"view:v"}}{"id":8,"unsubscribe":{"channel":"view:v"}}"#,
            r#"{"id":9,"unheard_of":{}}"#,
        ],
        expect![[r#"
            {"connect":{"client":"…","ping":25,"pong":true,"time":"…","version":"0.1.0"},"id":1}
            {"error":{"code":108,"message":"not available"},"id":2}
            {"error":{"code":108,"message":"not available"},"id":3}
            {"error":{"code":108,"message":"not available"},"id":4}
            {"error":{"code":108,"message":"not available"},"id":5}
            {"error":{"code":103,"message":"permission denied"},"id":6}
            {"error":{"code":103,"message":"permission denied"},"id":7}
            {"id":8,"unsubscribe":{}}
            close 3501 bad request
        "#]],
    );
    check(
        &[CONNECT, r#"{"send":{"data":{}}}"#],
        expect![[r#"
        {"connect":{"client":"…","ping":25,"pong":true,"time":"…","version":"0.1.0"},"id":1}
        close 3508 not available
    "#]],
    );
}

#[test]
fn subscriptions_that_cannot_be() {
    let long = format!(r#"{{"id":9,"subscribe":{{"channel":"view:{}"}}}}"#, "x".repeat(260));
    check(
        &[
            CONNECT,
            r#"{"id":2,"subscribe":{"channel":"view:v"}}{"id":3,"subscribe":{"channel":"view:v"}}"#,
            r#"{"id":4,"subscribe":{"channel":"view:w"}}{"id":5,"subscribe":{"channel":"chat"}}"#,
            r#"{"id":6,"subscribe":{"channel":"alerts","type":1}}{"id":7,"subscribe":{"channel":"alerts","tf":{"op":"and"}}}"#,
            &long,
            r#"{"id":10,"subscribe":{"channel":""}}"#,
        ],
        expect![[r#"
            {"connect":{"client":"…","ping":25,"pong":true,"time":"…","version":"0.1.0"},"id":1}
            {"id":2,"subscribe":{"data":{"as_of_ms":5,"columns":[{"name":"id","nullable":true,"type":"Int64"},{"name":"n","nullable":true,"type":"Int64"}],"empty_inputs":[],"epoch":1,"key":["id"],"rows":[{"id":1,"n":2}],"view":"v","written_at_ms":0},"epoch":"…","offset":1,"positioned":true,"recoverable":true}}
            {"error":{"code":105,"message":"already subscribed"},"id":3}
            {"error":{"code":102,"message":"unknown channel"},"id":4}
            {"error":{"code":102,"message":"unknown channel"},"id":5}
            {"error":{"code":108,"message":"not available"},"id":6}
            {"error":{"code":107,"message":"bad request"},"id":7}
            {"error":{"code":107,"message":"bad request"},"id":9}
            close 3501 bad request
        "#]],
    );
    let mut config = open_config();
    config.limits.channels_per_client = 1;
    check_with(
        &config,
        &[CONNECT, r#"{"id":2,"subscribe":{"channel":"status"}}{"id":3,"subscribe":{"channel":"alerts"}}"#],
        expect![[r#"
            {"connect":{"client":"…","ping":25,"pong":true,"time":"…","version":"0.1.0"},"id":1}
            {"id":2,"subscribe":{"data":{"as_of_ms":1,"dead_letters":0,"epoch":1,"event_time_ms":null,"lag_records":0,"phase":"live","records_read":1,"written_at_ms":1},"epoch":"…","positioned":true,"recoverable":true}}
            {"error":{"code":106,"message":"limit exceeded"},"id":3}
        "#]],
    );
    config.limits.snapshot_bytes = 4;
    check_with(
        &config,
        &[CONNECT, r#"{"id":2,"subscribe":{"channel":"view:v"}}"#],
        expect![[r#"
            {"connect":{"client":"…","ping":25,"pong":true,"time":"…","version":"0.1.0"},"id":1}
            {"error":{"code":106,"message":"limit exceeded"},"id":2}
        "#]],
    );
}

#[test]
fn a_position_is_recovered_or_refused() {
    let (hub, mut session) = fed(&open_config());
    session.on_frame(CONNECT.as_bytes());
    let epoch = hub.view("v").expect("it is there").read(|_, epoch, _| epoch.to_owned());
    for (id, (epoch, offset, flag)) in
        [(epoch.as_str(), 0, 0), (epoch.as_str(), 1, 0), (epoch.as_str(), 2, 0), ("other", 1, 2)]
            .into_iter()
            .enumerate()
    {
        let subscribe = json!({"channel": "view:v", "recover": true, "epoch": epoch, "offset": offset, "flag": flag});
        session.on_frame(json!({"id": id + 2, "subscribe": subscribe}).to_string().as_bytes());
        session.on_frame(json!({"id": id + 20, "unsubscribe": {"channel": "view:v"}}).to_string().as_bytes());
    }
    let history = |since: i64| json!({"channel": "view:v", "limit": -1, "since": {"epoch": epoch, "offset": since}});
    session.on_frame(json!({"id": 30, "history": {"channel": "view:v"}}).to_string().as_bytes());
    session.on_frame(json!({"id": 31, "history": history(0)}).to_string().as_bytes());
    session.on_frame(json!({"id": 32, "history": history(7)}).to_string().as_bytes());
    expect![[r#"
        {"connect":{"client":"…","ping":25,"pong":true,"time":"…","version":"0.1.0"},"id":1}
        {"id":2,"subscribe":{"epoch":"…","positioned":true,"publications":[{"data":{"as_of_ms":5,"changes":[{"key":{"id":1},"row":{"id":1,"n":2}}],"epoch":1,"written_at_ms":0},"offset":1}],"recoverable":true,"recovered":true,"was_recovering":true}}
        {"id":20,"unsubscribe":{}}
        {"id":3,"subscribe":{"epoch":"…","offset":1,"positioned":true,"recoverable":true,"recovered":true,"was_recovering":true}}
        {"id":21,"unsubscribe":{}}
        {"error":{"code":100,"message":"internal server error","temporary":true},"id":4}
        {"id":22,"unsubscribe":{}}
        {"error":{"code":112,"message":"unrecoverable position"},"id":5}
        {"id":23,"unsubscribe":{}}
        {"history":{"epoch":"…","offset":1,"publications":[]},"id":30}
        {"history":{"epoch":"…","offset":1,"publications":[{"data":{"as_of_ms":5,"changes":[{"key":{"id":1},"row":{"id":1,"n":2}}],"epoch":1,"written_at_ms":0},"offset":1}]},"id":31}
        {"error":{"code":112,"message":"unrecoverable position"},"id":32}
    "#]].assert_eq(&output(&session));
}

#[test]
fn tokens_decide_who_gets_in() {
    let mut config = open_config();
    config.auth.mode = AuthMode::Token;
    let frame = |token: &str| json!({"id": 1, "connect": {"token": token}}).to_string();
    let now_s = chrono::Utc::now().timestamp();
    check_with(
        &config,
        &[CONNECT],
        expect![[r#"
        close 3501 bad request
    "#]],
    );
    check_with(
        &config,
        &[&frame("forged")],
        expect![[r#"
        close 3500 invalid token
    "#]],
    );
    let expired = frame(&token(&json!({"sub": "ann", "exp": now_s - 100})));
    check_with(
        &config,
        &[&expired, r#"{"id":2,"rpc":{}}"#],
        expect![[r#"
        {"error":{"code":109,"message":"token expired"},"id":1}
        close 3501 bad request
    "#]],
    );
    let ann = frame(&token(&json!({"sub": "ann"})));
    check_with(
        &config,
        &[&ann],
        expect![[r#"
        {"connect":{"client":"…","ping":25,"pong":true,"time":"…","version":"0.1.0"},"id":1}
    "#]],
    );
    let sender = frame(&token(&json!({"sub": "debezium", "roles": ["ingest"]})));
    check_with(
        &config,
        &[&sender, r#"{"id":2,"subscribe":{"channel":"view:v"}}"#],
        expect![[r#"
        {"connect":{"client":"…","ping":25,"pong":true,"time":"…","version":"0.1.0"},"id":1}
        {"error":{"code":103,"message":"permission denied"},"id":2}
    "#]],
    );

    let refresh = |claims| json!({"id": 2, "refresh": {"token": token(&claims)}}).to_string();
    check_with(
        &config,
        &[&ann, &refresh(json!({"sub": "ann"}))],
        expect![[r#"
        {"connect":{"client":"…","ping":25,"pong":true,"time":"…","version":"0.1.0"},"id":1}
        {"id":2,"refresh":{"client":"…","version":"0.1.0"}}
    "#]],
    );
    check_with(
        &config,
        &[&ann, &refresh(json!({"sub": "bob"}))],
        expect![[r#"
        {"connect":{"client":"…","ping":25,"pong":true,"time":"…","version":"0.1.0"},"id":1}
        close 3500 invalid token
    "#]],
    );
    check_with(
        &config,
        &[&ann, &refresh(json!({"sub": "ann", "exp": now_s - 100}))],
        expect![[r#"
        {"connect":{"client":"…","ping":25,"pong":true,"time":"…","version":"0.1.0"},"id":1}
        close 3005 connection expired
    "#]],
    );
    check_with(
        &config,
        &[&ann, r#"{"id":2,"refresh":{}}"#],
        expect![[r#"
        {"connect":{"client":"…","ping":25,"pong":true,"time":"…","version":"0.1.0"},"id":1}
        close 3501 bad request
    "#]],
    );
}

#[test]
fn silence_has_an_end() {
    let (_hub, session) = fed(&open_config());
    assert_eq!(run_out(session), "15 s\nclose 3502 stale\n");

    let (_hub, mut session) = fed(&open_config());
    session.on_frame(CONNECT.as_bytes());
    output(&session);
    let started = Instant::now();
    let ping_at = session.next_deadline().expect("a ping is due");
    assert!((12.5..=25.0).contains(&(ping_at - started).as_secs_f64()), "the first ping is spread");
    session.on_deadline(ping_at);
    assert_eq!(output(&session), "{}\n");
    session.on_frame(b"{}");
    assert_eq!(session.next_deadline(), Some(ping_at + Duration::from_secs(25)));
    let out = run_out(session);
    assert!(out.contains(" s\n{}\n") && out.ends_with(" s\nclose 3012 no pong\n"), "a ping, then the end: {out}");

    let (_hub, mut session) = fed(&open_config());
    session.on_frame(CONNECT.as_bytes());
    session.on_frame(b"{}");
    assert!(output(&session).ends_with("close 3501 bad request\n"), "a pong that nobody asked for");
}

#[test]
fn a_token_that_ends_ends_the_connection() {
    let mut config = open_config();
    config.heartbeat.ping_seconds = 1_000;
    let (_hub, mut session) = fed(&config);
    let exp = chrono::Utc::now().timestamp() + 100;
    session.on_frame(
        json!({"id": 1, "connect": {"token": token(&json!({"sub": "ann", "exp": exp}))}}).to_string().as_bytes(),
    );
    output(&session);
    let out = run_out(session);
    let is_on_time = ["124 s", "125 s"].iter().any(|at| out.starts_with(at));
    assert!(is_on_time && out.ends_with("close 3005 connection expired\n"), "{out}");
}

#[tokio::test(start_paused = true)]
async fn commands_of_a_kind_are_limited_in_a_second() {
    let mut config = open_config();
    config.live.namespaces.insert(String::new(), crate::config::NamespaceConfig::default());
    let limits = &mut config.limits.commands_per_second;
    (limits.subscribe, limits.publish, limits.history, limits.presence, limits.rpc) = (2, 2, 2, 2, 2);
    let (_hub, mut session) = fed(&config);
    session.on_frame(CONNECT.as_bytes());
    output(&session);
    let commands = [
        json!({"subscribe": {"channel": "x"}}),
        json!({"publish": {"channel": "x", "data": 1}}),
        json!({"history": {"channel": "x"}}),
        json!({"presence": {"channel": "x"}}),
        json!({"rpc": {"method": "x"}}),
    ];
    let mut refused = |n: usize| {
        let mut all = Vec::new();
        for command in &commands {
            for id in 1..=n {
                let mut command = command.clone();
                command["id"] = json!(id);
                session.on_frame(command.to_string().as_bytes());
            }
            all.push(output(&session).matches(r#""code":111"#).count());
        }
        all
    };
    assert_eq!(refused(3), [1, 1, 1, 1, 1]);
    assert_eq!(refused(1), [1, 1, 1, 1, 1]);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(refused(2), [0, 0, 0, 0, 0]);
}

#[test]
fn private_channels_and_those_of_others_take_no_questions_and_no_messages() {
    let mut config = open_config();
    let open = crate::config::NamespaceConfig {
        publish: crate::config::Allowed::Client,
        query: crate::config::Allowed::Client,
        presence: true,
        history_size: 10,
        ..crate::config::NamespaceConfig::default()
    };
    config.live.namespaces.insert("room".to_owned(), open);
    config.roles = serde_json::from_value(json!({"guest": {"channels": ["room:hall", "room:*#*"]}})).expect("roles");
    let (_hub, mut session) = fed(&config);
    let token = token(&json!({"sub": "ann", "roles": ["guest"]}));
    session.on_frame(json!({"id": 1, "connect": {"token": token}}).to_string().as_bytes());
    output(&session);
    let mut codes = |channel: &str| {
        for command in ["presence", "presence_stats", "history", "publish"] {
            let command = json!({"id": 1, command: {"channel": channel, "data": {}}});
            session.on_frame(command.to_string().as_bytes());
        }
        let out = output(&session);
        out.lines().map(|line| line.contains(r#""code":103"#)).collect::<Vec<_>>()
    };
    assert_eq!(codes("room:hall"), [false; 4]);
    assert_eq!(codes("room:1#bob,ann"), [false; 4]);
    for channel in ["$room:hall", "room:1#bob", "room:cellar"] {
        assert_eq!(codes(channel), [true; 4], "{channel}");
    }
}

#[test]
fn general_channels_are_checked_again_after_a_refresh() {
    let mut config = open_config();
    config.live.namespaces.insert("room".to_owned(), crate::config::NamespaceConfig::default());
    config.roles = serde_json::from_value(json!({"guest": {"channels": ["room:hall"]}})).expect("roles");
    let (hub, mut session) = fed(&config);
    let of = |roles: &[&str]| token(&json!({"sub": "ann", "roles": roles}));
    session.on_frame(json!({"id": 1, "connect": {"token": of(&["viewer"])}}).to_string().as_bytes());
    let by_token = token(&json!({"sub": "ann", "channel": "room:attic"}));
    for (channel, token) in [("room:hall", ""), ("room:cellar", ""), ("room:attic", by_token.as_str())] {
        let subscribe = json!({"id": 2, "subscribe": {"channel": channel, "token": token}});
        session.on_frame(subscribe.to_string().as_bytes());
    }
    output(&session);
    session.on_frame(json!({"id": 3, "refresh": {"token": of(&["guest"])}}).to_string().as_bytes());
    expect![[r#"
        {"push":{"channel":"room:cellar","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}
        {"id":3,"refresh":{"client":"…","version":"0.1.0"}}
    "#]]
    .assert_eq(&output(&session));
    let still: Vec<String> = hub.topics().channels().into_iter().map(|(name, _)| name).collect();
    assert!(still.len() == 2 && !still.contains(&"room:cellar".to_owned()), "{still:?}");
}

#[test]
fn filters_of_clients_do_not_take_the_places_of_rules_and_leave_no_snapshot() {
    let mut config = open_config();
    config.roles =
        serde_json::from_value(json!({"own": {"views": ["v"], "rows": {"v": "id = claims.id"}}})).expect("roles");
    let (hub, context) = context(&config);
    let mut tail = tail(&hub);
    feed(&mut tail, catalog(&view_info("v")));
    feed(&mut tail, batch(&topics::view("v"), vec![(r#"{"id":1}"#.to_owned(), Some(r#"{"id":1}"#.to_owned()), None)]));
    hub.set_loaded();
    let subscribe = |token: &str, data: serde_json::Value| {
        let mut session = session(&context);
        session.on_frame(json!({"id": 1, "connect": {"token": token}}).to_string().as_bytes());
        session.on_frame(json!({"id": 2, "subscribe": {"channel": "view:v", "data": data}}).to_string().as_bytes());
        let out = output(&session);
        (session, out.contains(r#""code":106"#))
    };
    let of_clients: Vec<_> = (0..256).map(|n| subscribe("", json!({"filter": format!("id > {n}")}))).collect();
    assert!(of_clients.iter().all(|(_, is_refused)| !is_refused));
    let (_, is_refused) = subscribe("", json!({"filter": "id > 1000"}));
    assert!(is_refused, "one filter too many");
    let own = token(&json!({"sub": "ann", "roles": ["own"], "id": 1}));
    let (by_rule, is_refused) = subscribe(&own, json!(null));
    assert!(!is_refused, "rules have places of their own");
    assert_eq!(hub.view("v").expect("it is there").n_snapshots(), 257);
    drop((of_clients, by_rule));
    assert_eq!(hub.view("v").expect("it is there").n_snapshots(), 0);
    assert!(!subscribe("", json!({"filter": "id > 1000"})).1, "places that nobody uses are given on");
}

/// Calls the session whenever it wants, until it closes.
fn run_out(mut session: Session) -> String {
    let started = Instant::now();
    let mut out = String::new();
    while session.outbox().closing().is_none() {
        let deadline = session.next_deadline().expect("an open session waits for something");
        session.on_deadline(deadline);
        out.push_str(&format!("{} s\n{}", (deadline - started).as_secs_f64().round(), output(&session)));
    }
    out
}
