//! The Centrifuge client protocol, version 2, in its JSON form: what clients send, what the server answers, and the
//! codes of errors and disconnects. Pure: bytes in, values out, and back.

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// An error in a reply. The connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ErrorCode {
    pub(crate) code: u32,
    pub(crate) message: &'static str,
    /// Whether the client shall try again by itself.
    pub(crate) temporary: bool,
}

impl ErrorCode {
    const fn lasting(code: u32, message: &'static str) -> Self {
        Self { code, message, temporary: false }
    }

    /// The server is still reading the log; the client tries again by itself.
    pub(crate) const NOT_YET: Self = Self { code: 100, message: "internal server error", temporary: true };
    pub(crate) const UNKNOWN_CHANNEL: Self = Self::lasting(102, "unknown channel");
    pub(crate) const PERMISSION_DENIED: Self = Self::lasting(103, "permission denied");
    pub(crate) const ALREADY_SUBSCRIBED: Self = Self::lasting(105, "already subscribed");
    pub(crate) const LIMIT_EXCEEDED: Self = Self::lasting(106, "limit exceeded");
    pub(crate) const BAD_REQUEST: Self = Self::lasting(107, "bad request");
    pub(crate) const NOT_AVAILABLE: Self = Self::lasting(108, "not available");
    pub(crate) const TOKEN_EXPIRED: Self = Self::lasting(109, "token expired");
    pub(crate) const UNRECOVERABLE_POSITION: Self = Self::lasting(112, "unrecoverable position");
}

/// Why the server ends a connection: the code and reason of the WebSocket close frame. Clients come back after codes
/// below 3500 and give up after others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Disconnect {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
}

impl Disconnect {
    const fn new(code: u16, reason: &'static str) -> Self {
        Self { code, reason }
    }

    /// The peer closed first: echoed as a normal closure.
    pub(crate) const CLOSED_BY_PEER: Self = Self::new(1000, "");
    /// A message over the limit; the client library gives up on it.
    pub(crate) const MESSAGE_TOO_BIG: Self = Self::new(1009, "message size limit");
    pub(crate) const SHUTDOWN: Self = Self::new(3001, "shutdown");
    pub(crate) const EXPIRED: Self = Self::new(3005, "connection expired");
    pub(crate) const SLOW: Self = Self::new(3008, "slow");
    pub(crate) const WRITE_ERROR: Self = Self::new(3009, "write error");
    pub(crate) const NO_PONG: Self = Self::new(3012, "no pong");
    pub(crate) const INVALID_TOKEN: Self = Self::new(3500, "invalid token");
    pub(crate) const BAD_REQUEST: Self = Self::new(3501, "bad request");
    pub(crate) const STALE: Self = Self::new(3502, "stale");
    pub(crate) const CONNECTION_LIMIT: Self = Self::new(3504, "connection limit");
    pub(crate) const INAPPROPRIATE_PROTOCOL: Self = Self::new(3506, "inappropriate protocol");
    pub(crate) const PERMISSION_DENIED: Self = Self::new(3507, "permission denied");
    pub(crate) const NOT_AVAILABLE: Self = Self::new(3508, "not available");
}

/// Code and reason of an unsubscribe push after which the client subscribes again by itself.
const INSUFFICIENT_STATE: (u32, &str) = (2500, "insufficient state");

/// A server's ping, and a client's pong.
pub(crate) const PING: Bytes = Bytes::from_static(b"{}");

/// One command as it stands in a frame. At most one of the methods is expected; the first one counts.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Command {
    pub(crate) id: u32,
    pub(crate) connect: Option<ConnectRequest>,
    pub(crate) subscribe: Option<SubscribeRequest>,
    pub(crate) unsubscribe: Option<ChannelRequest>,
    pub(crate) publish: Option<ChannelRequest>,
    pub(crate) presence: Option<ChannelRequest>,
    pub(crate) presence_stats: Option<ChannelRequest>,
    pub(crate) history: Option<HistoryRequest>,
    pub(crate) ping: Option<IgnoredAny>,
    pub(crate) send: Option<IgnoredAny>,
    pub(crate) rpc: Option<IgnoredAny>,
    pub(crate) refresh: Option<RefreshRequest>,
    pub(crate) sub_refresh: Option<ChannelRequest>,
}

/// Opens the session.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ConnectRequest {
    pub(crate) token: String,
    /// The client library's name, for the log.
    pub(crate) name: String,
}

/// Subscribes to a channel, from a known position if `recover`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SubscribeRequest {
    pub(crate) channel: String,
    pub(crate) recover: bool,
    pub(crate) epoch: String,
    pub(crate) offset: u64,
    pub(crate) flag: u64,
    /// Kinds other than 0 (stream) are experimental in the protocol and not offered.
    #[serde(rename = "type")]
    pub(crate) kind: u32,
    pub(crate) delta: String,
    pub(crate) tf: Option<IgnoredAny>,
}

impl SubscribeRequest {
    /// Whether the client wants error 112 where a position cannot be recovered, in place of a fresh start.
    pub(crate) fn rejects_unrecovered(&self) -> bool {
        self.flag & 0b10 != 0
    }
}

/// A command about a channel and nothing else that is read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ChannelRequest {
    pub(crate) channel: String,
}

/// Asks for kept publications of a channel.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct HistoryRequest {
    pub(crate) channel: String,
    /// 0: position only; negative: all that are kept.
    pub(crate) limit: i64,
    pub(crate) since: Option<Since>,
    pub(crate) reverse: bool,
}

/// A position in a channel.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(crate) struct Since {
    pub(crate) offset: u64,
    pub(crate) epoch: String,
}

/// Brings a new token.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RefreshRequest {
    pub(crate) token: String,
}

/// Answer to `connect`.
#[derive(Debug, Serialize)]
pub(crate) struct ConnectResult {
    pub(crate) client: String,
    pub(crate) version: &'static str,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) expires: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) ttl: u32,
    pub(crate) ping: u32,
    pub(crate) pong: bool,
    pub(crate) time: i64,
}

/// Answer to `refresh`.
#[derive(Debug, Serialize)]
pub(crate) struct RefreshResult {
    pub(crate) client: String,
    pub(crate) version: &'static str,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) expires: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) ttl: u32,
}

/// Answers without a field, for example to `unsubscribe`.
#[derive(Debug, Serialize)]
pub(crate) struct Empty {}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// A message to one client, whose large middle part may be shared with others.
#[derive(Debug, Clone)]
pub(crate) enum Line {
    /// All of it.
    Whole(Bytes),
    /// To be written one after the other.
    Parts([Bytes; 3]),
}

impl Line {
    pub(crate) fn len(&self) -> usize {
        self.parts().iter().map(Bytes::len).sum()
    }

    pub(crate) fn parts(&self) -> &[Bytes] {
        match self {
            Self::Whole(bytes) => std::slice::from_ref(bytes),
            Self::Parts(parts) => parts,
        }
    }
}

/// Reads the commands of a frame, in order.
///
/// # Errors
/// If the frame is empty or is not JSON of the expected form.
pub(crate) fn parse_frame(text: &str) -> Result<Vec<Command>, Disconnect> {
    let commands: Result<Vec<Command>, _> = serde_json::Deserializer::from_str(text).into_iter().collect();
    match commands {
        Ok(commands) if !commands.is_empty() => Ok(commands),
        _ => Err(Disconnect::BAD_REQUEST),
    }
}

/// A reply with a result.
pub(crate) fn reply<T: Serialize>(id: u32, method: &str, result: &T) -> Line {
    let result = serde_json::to_string(result).expect("results are plain structs, which always serialise");
    Line::Whole(Bytes::from(format!(r#"{{"id":{id},"{method}":{result}}}"#)))
}

/// A reply with an error.
pub(crate) fn error_reply(id: u32, error: ErrorCode) -> Line {
    let ErrorCode { code, message, temporary } = error;
    let temporary = if temporary { r#","temporary":true"# } else { "" };
    Line::Whole(Bytes::from(format!(r#"{{"id":{id},"error":{{"code":{code},"message":"{message}"{temporary}}}}}"#)))
}

/// What a subscriber starts with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// The publications it missed, each a publication object.
    Recovered(Vec<Bytes>),
    /// The state as it is now, a JSON object.
    Snapshot(Bytes),
}

/// The reply to `subscribe`. `offset` is the channel's top for a snapshot, the client's own for a recovery.
pub(crate) fn subscribe_reply(id: u32, epoch: &str, offset: u64, was_recovering: bool, start: Start) -> Line {
    let mut head = format!(r#"{{"id":{id},"subscribe":{{"recoverable":true,"positioned":true,"epoch":"{epoch}""#);
    if offset > 0 {
        head.push_str(&format!(r#","offset":{offset}"#));
    }
    if was_recovering {
        head.push_str(r#","was_recovering":true"#);
    }
    let (middle, tail) = match start {
        Start::Recovered(publications) => {
            head.push_str(r#","recovered":true,"publications":["#);
            (Bytes::from(publications.join(&b","[..])), "]}}")
        }
        Start::Snapshot(snapshot) => {
            head.push_str(r#","data":"#);
            (snapshot, "}}")
        }
    };
    Line::Parts([Bytes::from(head), middle, Bytes::from_static(tail.as_bytes())])
}

/// The reply to `history`.
pub(crate) fn history_reply(id: u32, epoch: &str, offset: u64, publications: &[Bytes]) -> Line {
    let head = format!(r#"{{"id":{id},"history":{{"publications":["#);
    let tail = format!(r#"],"epoch":"{epoch}","offset":{offset}}}}}"#);
    Line::Parts([Bytes::from(head), Bytes::from(publications.join(&b","[..])), Bytes::from(tail)])
}

/// A publication, encoded once for all its readers.
#[derive(Debug, Clone)]
pub(crate) struct Publication {
    pub(crate) offset: u64,
    /// The push as it goes to live subscribers.
    pub(crate) push: Bytes,
    /// The publication object alone, for recovery and history; shares the bytes of `push`.
    pub(crate) object: Bytes,
}

impl Publication {
    /// `channel_json` is the channel's name as a JSON string; `data` is JSON without raw newlines.
    pub(crate) fn encode(channel_json: &str, data: &[u8], offset: u64) -> Self {
        let mut push = Vec::with_capacity(channel_json.len() + data.len() + 72);
        push.extend_from_slice(br#"{"push":{"channel":"#);
        push.extend_from_slice(channel_json.as_bytes());
        push.extend_from_slice(br#","pub":"#);
        let start = push.len();
        push.extend_from_slice(br#"{"data":"#);
        push.extend_from_slice(data);
        push.extend_from_slice(format!(r#","offset":{offset}}}"#).as_bytes());
        let end = push.len();
        push.extend_from_slice(b"}}");
        let push = Bytes::from(push);
        let object = push.slice(start..end);
        Self { offset, push, object }
    }
}

/// Tells a subscriber that its channel starts anew: it subscribes again by itself.
pub(crate) fn resubscribe_push(channel_json: &str) -> Bytes {
    let (code, reason) = INSUFFICIENT_STATE;
    Bytes::from(format!(
        r#"{{"push":{{"channel":{channel_json},"unsubscribe":{{"code":{code},"reason":"{reason}"}}}}}}"#
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[expect(clippy::needless_pass_by_value, reason = "expect! makes a value")]
    fn check(line: Line, expected: Expect) {
        let text: Vec<u8> = line.parts().concat();
        assert_eq!(text.len(), line.len());
        serde_json::from_slice::<IgnoredAny>(&text).expect("a reply is JSON");
        expected.assert_eq(std::str::from_utf8(&text).expect("JSON is UTF-8"));
    }

    #[test]
    fn replies_have_the_form_of_the_protocol() {
        check(
            error_reply(4, ErrorCode::NOT_YET),
            expect![[r#"{"id":4,"error":{"code":100,"message":"internal server error","temporary":true}}"#]],
        );
        check(reply(3, "unsubscribe", &Empty {}), expect![[r#"{"id":3,"unsubscribe":{}}"#]]);
        let publication = Publication::encode(r#""view:x""#, br#"{"a":1}"#, 12);
        check(
            Line::Whole(publication.push.clone()),
            expect![[r#"{"push":{"channel":"view:x","pub":{"data":{"a":1},"offset":12}}}"#]],
        );
        check(
            history_reply(5, "e", 12, std::slice::from_ref(&publication.object)),
            expect![[r#"{"id":5,"history":{"publications":[{"data":{"a":1},"offset":12}],"epoch":"e","offset":12}}"#]],
        );
        check(
            subscribe_reply(2, "e", 11, true, Start::Recovered(vec![publication.object.clone()])),
            expect![[
                r#"{"id":2,"subscribe":{"recoverable":true,"positioned":true,"epoch":"e","offset":11,"was_recovering":true,"recovered":true,"publications":[{"data":{"a":1},"offset":12}]}}"#
            ]],
        );
        check(
            subscribe_reply(2, "e", 0, false, Start::Snapshot(Bytes::from_static(b"{}"))),
            expect![[r#"{"id":2,"subscribe":{"recoverable":true,"positioned":true,"epoch":"e","data":{}}}"#]],
        );
        check(
            Line::Whole(resubscribe_push(r#""view:x""#)),
            expect![[r#"{"push":{"channel":"view:x","unsubscribe":{"code":2500,"reason":"insufficient state"}}}"#]],
        );
    }

    #[test]
    fn a_frame_holds_one_or_more_commands() {
        let commands =
            parse_frame("{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"a\"}}\n").expect("valid");
        assert_eq!(commands.iter().map(|c| c.id).collect::<Vec<_>>(), [1, 2]);
        for bad in ["", "\n", "x", "[{}]", r#"{"id":-1}"#, r#"{"id":1,"connect":5}"#] {
            assert_eq!(parse_frame(bad).err(), Some(Disconnect::BAD_REQUEST), "{bad}");
        }
    }
}
