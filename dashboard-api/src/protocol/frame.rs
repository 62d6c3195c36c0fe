//! Frames to commands, and replies to lines: messages that are ready to be written by any transport.
//!
//! JSON: messages are separated by newlines. Protobuf: each message follows its length. A line carries the header of
//! its WebSocket frame before it, so that bytes that many connections share are written as they are.

use bytes::{Buf, Bytes};
use prost::Message;

use crate::protocol::codes::{Disconnect, ErrorCode};
use crate::protocol::message::{Command, Reply, ReplyError};

/// The form in which one connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Encoding {
    Json,
    Protobuf,
}

/// Longest header of a WebSocket frame that a server sends.
const HEADER_BYTES_MAX: usize = 10;

/// A message to one client, whose bytes may be shared with others.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// The header of a WebSocket frame, then the message or its first part.
    framed: Bytes,
    header_bytes: u8,
    /// What follows, of which the first part may be large and shared.
    rest: Option<Box<[Bytes; 2]>>,
}

impl Line {
    /// A message that `write` writes.
    pub(crate) fn new(encoding: Encoding, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        Self::with_rest(encoding, write, None)
    }

    fn with_rest(encoding: Encoding, write: impl FnOnce(&mut Vec<u8>), rest: Option<[Bytes; 2]>) -> Self {
        let mut out = Vec::with_capacity(256);
        out.resize(HEADER_BYTES_MAX, 0);
        write(&mut out);
        let rest_bytes: usize = rest.iter().flatten().map(Bytes::len).sum();
        let n_bytes = out.len() - HEADER_BYTES_MAX + rest_bytes;
        let (header, header_bytes) = websocket_header(encoding, n_bytes);
        let start = HEADER_BYTES_MAX - header_bytes;
        out[start..HEADER_BYTES_MAX].copy_from_slice(&header[..header_bytes]);
        let framed = Bytes::from(out).slice(start..);
        Self { framed, header_bytes: u8::try_from(header_bytes).unwrap_or_default(), rest: rest.map(Box::new) }
    }

    /// Bytes of the message, and of its frame.
    pub(crate) fn len(&self) -> usize {
        self.framed().map(Bytes::len).sum()
    }

    /// The WebSocket frame, in parts.
    pub(crate) fn framed(&self) -> impl Iterator<Item = &Bytes> {
        std::iter::once(&self.framed).chain(self.rest.iter().flat_map(|rest| rest.iter()))
    }

    /// The message alone, in parts.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let first = &self.framed[usize::from(self.header_bytes)..];
        std::iter::once(first).chain(self.rest.iter().flat_map(|rest| rest.iter().map(|part| &part[..])))
    }

    /// The message in one piece.
    #[cfg(test)]
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        self.parts().collect::<Vec<_>>().concat()
    }
}

/// The header of a final data frame from a server, and its length.
fn websocket_header(encoding: Encoding, n_bytes: usize) -> ([u8; HEADER_BYTES_MAX], usize) {
    let mut header = [0; HEADER_BYTES_MAX];
    header[0] = match encoding {
        Encoding::Json => 0x81,
        Encoding::Protobuf => 0x82,
    };
    let length = (n_bytes as u64).to_be_bytes();
    let header_bytes = match n_bytes {
        0..126 => {
            header[1] = length[7];
            2
        }
        126..0x1_0000 => {
            header[1] = 126;
            header[2..4].copy_from_slice(&length[6..]);
            4
        }
        _ => {
            header[1] = 127;
            header[2..].copy_from_slice(&length);
            10
        }
    };
    (header, header_bytes)
}

/// Reads the commands of a frame, in order.
///
/// # Errors
/// If the frame is empty or not of the expected form.
pub(crate) fn parse(encoding: Encoding, frame: &[u8]) -> Result<Vec<Command>, Disconnect> {
    let commands = match encoding {
        Encoding::Json => {
            let commands: Result<Vec<Command>, _> = serde_json::Deserializer::from_slice(frame).into_iter().collect();
            commands.ok()
        }
        Encoding::Protobuf => parse_protobuf(frame),
    };
    commands.filter(|commands| !commands.is_empty()).ok_or(Disconnect::BAD_REQUEST)
}

fn parse_protobuf(mut frame: &[u8]) -> Option<Vec<Command>> {
    let mut commands = Vec::new();
    while frame.has_remaining() {
        let length = usize::try_from(prost::encoding::decode_varint(&mut frame).ok()?).ok()?;
        // The length is the peer's word: nothing is allocated for it.
        let (message, rest) = frame.split_at_checked(length)?;
        commands.push(Command::decode(message).ok()?);
        frame = rest;
    }
    Some(commands)
}

/// A reply or push as a line.
pub(crate) fn line(encoding: Encoding, reply: &Reply) -> Line {
    Line::new(encoding, |out| write_reply(encoding, reply, out))
}

fn write_reply(encoding: Encoding, reply: &Reply, out: &mut Vec<u8>) {
    match encoding {
        Encoding::Json => serde_json::to_writer(out, reply).expect("replies are plain structs, which always serialise"),
        Encoding::Protobuf => reply.encode_length_delimited(out).expect("a vector takes any number of bytes"),
    }
}

/// The reply to `subscribe`, with a snapshot as its `data` whose bytes are shared where the form allows it.
pub(crate) fn line_with_data(encoding: Encoding, mut reply: Reply, data: Bytes) -> Line {
    match (&mut reply.subscribe, encoding) {
        (Some(subscribe), Encoding::Protobuf) => {
            subscribe.data = data;
            line(encoding, &reply)
        }
        (Some(_), Encoding::Json) => {
            let write = |out: &mut Vec<u8>| {
                write_reply(encoding, &reply, out);
                // Reopen the reply and its result, which ends the reply.
                out.truncate(out.len() - 2);
                let separator: &[u8] = if out.ends_with(b"{") { b"\"data\":" } else { b",\"data\":" };
                out.extend_from_slice(separator);
            };
            Line::with_rest(encoding, write, Some([data, Bytes::from_static(b"}}")]))
        }
        (None, _) => line(encoding, &reply),
    }
}

/// A reply with an error.
pub(crate) fn error_reply(id: u32, error: ErrorCode) -> Reply {
    let ErrorCode { code, message, temporary } = error;
    Reply { id, error: Some(ReplyError { code, message: message.to_owned(), temporary }), ..Reply::default() }
}

/// A server's ping.
pub(crate) fn ping(encoding: Encoding) -> Line {
    let (framed, header_bytes): (&'static [u8], _) = match encoding {
        Encoding::Json => (b"\x81\x02{}", 2),
        Encoding::Protobuf => (b"\x82\x01\x00", 2),
    };
    Line { framed: Bytes::from_static(framed), header_bytes, rest: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message::{ConnectResult, Empty, Push, SubscribeResult, UnsubscribePush};
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    #[expect(clippy::needless_pass_by_value, reason = "expect! makes a value")]
    fn check(reply: &Reply, expected: Expect) {
        let line = line(Encoding::Json, reply);
        serde_json::from_slice::<serde::de::IgnoredAny>(&line.to_vec()).expect("a reply is JSON");
        expected.assert_eq(std::str::from_utf8(&line.to_vec()).expect("JSON is UTF-8"));
    }

    #[test]
    fn replies_have_the_form_of_the_protocol() {
        check(
            &error_reply(4, ErrorCode::NOT_YET),
            expect![[r#"{"id":4,"error":{"code":100,"message":"internal server error","temporary":true}}"#]],
        );
        check(
            &Reply { id: 3, unsubscribe: Some(Empty {}), ..Reply::default() },
            expect![[r#"{"id":3,"unsubscribe":{}}"#]],
        );
        check(
            &Reply {
                id: 3,
                connect: Some(ConnectResult { pong: true, ..ConnectResult::default() }),
                ..Reply::default()
            },
            expect![[r#"{"id":3,"connect":{"client":"","version":"","pong":true,"time":0}}"#]],
        );
        let unsubscribe = UnsubscribePush { code: 2500, reason: "insufficient state".to_owned() };
        let push = Push { channel: "view:x".to_owned(), unsubscribe: Some(unsubscribe), ..Push::default() };
        check(
            &Reply { push: Some(push), ..Reply::default() },
            expect![[r#"{"push":{"channel":"view:x","unsubscribe":{"code":2500,"reason":"insufficient state"}}}"#]],
        );
    }

    #[test]
    fn a_snapshot_is_spliced_in() {
        for epoch in ["", "e"] {
            let subscribe = SubscribeResult { epoch: epoch.to_owned(), ..SubscribeResult::default() };
            let reply = Reply { id: 2, subscribe: Some(subscribe), ..Reply::default() };
            let line = line_with_data(Encoding::Json, reply.clone(), Bytes::from_static(b"{\"rows\":[]}"));
            let json: serde_json::Value = serde_json::from_slice(&line.to_vec()).expect("JSON");
            assert_eq!(json["subscribe"]["data"], serde_json::json!({"rows": []}));
            let line = line_with_data(Encoding::Protobuf, reply, Bytes::from_static(b"{}"));
            let reply = Reply::decode_length_delimited(&line.to_vec()[..]).expect("Protobuf");
            assert_eq!(reply.subscribe.expect("it is there").data, "{}");
        }
    }

    #[test]
    fn lines_know_their_websocket_header() {
        for (n_bytes, header) in [(5, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let line = Line::new(Encoding::Json, |out| out.extend(std::iter::repeat_n(b'x', n_bytes)));
            assert_eq!((line.to_vec().len(), line.len()), (n_bytes, n_bytes + header));
        }
        assert_eq!(ping(Encoding::Protobuf).to_vec(), [0]);
        assert_eq!(ping(Encoding::Json).to_vec(), b"{}");
    }

    #[test]
    fn a_frame_holds_one_or_more_commands() {
        let json = "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"a\",\"data\":{\"x\": 1}}}\n";
        let commands = parse(Encoding::Json, json.as_bytes()).expect("valid");
        assert_eq!(commands.iter().map(|c| c.id).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(commands[1].subscribe.as_ref().expect("it is there").data, "{\"x\": 1}");
        let binary: Vec<u8> = commands.iter().flat_map(Message::encode_length_delimited_to_vec).collect();
        assert_eq!(parse(Encoding::Protobuf, &binary).expect("valid"), commands);
        for bad in ["", "\n", "x", "[{}]", r#"{"id":-1}"#, r#"{"id":1,"connect":5}"#] {
            assert_eq!(parse(Encoding::Json, bad.as_bytes()).err(), Some(Disconnect::BAD_REQUEST), "{bad}");
        }
        let too_long = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 1];
        for bad in [&b""[..], b"\x05\x08", b"\xff", &too_long] {
            assert_eq!(parse(Encoding::Protobuf, bad).err(), Some(Disconnect::BAD_REQUEST), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(frame in proptest::collection::vec(any::<u8>(), 0..300)) {
            for encoding in [Encoding::Json, Encoding::Protobuf] {
                prop_assert!(parse(encoding, &frame).map_or(true, |commands| !commands.is_empty()));
            }
        }
    }
}
