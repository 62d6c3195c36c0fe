//! WebSocket frames (RFC 6455), as a server meets them: a decoder for what clients send, and the few control frames that
//! a server sends. Data frames of the server carry their header in the line ([`crate::protocol::Line`]).
//!
//! The decoder holds nothing between messages, so that a connection that is silent costs no buffer.

use bytes::Bytes;

use crate::protocol::Disconnect;

/// Longest payload of a control frame.
const CONTROL_BYTES_MAX: u64 = 125;

/// What a client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close,
}

/// Puts frames together to messages.
#[derive(Debug)]
pub(crate) struct Decoder {
    message_bytes_max: usize,
    /// The beginning of a frame whose rest has not come.
    partial: Vec<u8>,
    /// The frames so far of a message whose last one has not come: its opcode and its payload.
    message: Option<(u8, Vec<u8>)>,
}

/// A frame's header.
struct Header {
    is_final: bool,
    opcode: u8,
    payload_bytes: u64,
    mask: [u8; 4],
    header_bytes: usize,
}

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

impl Decoder {
    pub(crate) fn new(message_bytes_max: usize) -> Self {
        Self { message_bytes_max, partial: Vec::new(), message: None }
    }

    /// Takes in bytes as they come, in whatever pieces. What is complete goes to `events`, in order.
    ///
    /// # Errors
    /// Why the connection must end.
    pub(crate) fn decode(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), Disconnect> {
        if self.partial.is_empty() {
            let n_used = self.decode_frames(bytes, events)?;
            self.partial = bytes[n_used..].to_vec();
            return Ok(());
        }
        let mut pending = std::mem::take(&mut self.partial);
        pending.extend_from_slice(bytes);
        let n_used = self.decode_frames(&pending, events)?;
        if n_used > 0 {
            pending = pending[n_used..].to_vec();
        }
        self.partial = pending;
        Ok(())
    }

    /// Returns how many bytes complete frames took.
    fn decode_frames(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<usize, Disconnect> {
        let mut at = 0;
        while let Some(header) = Header::parse(&bytes[at..])? {
            let so_far = self.message.as_ref().map_or(0, |(_, payload)| payload.len());
            let room = (self.message_bytes_max - so_far.min(self.message_bytes_max)) as u64;
            if header.payload_bytes > room && header.opcode < CLOSE {
                return Err(Disconnect::MESSAGE_TOO_BIG);
            }
            let start = at + header.header_bytes;
            let Some(payload) = usize::try_from(header.payload_bytes).ok().and_then(|n| bytes.get(start..start + n))
            else {
                break;
            };
            at = start + payload.len();
            let payload: Vec<u8> = payload.iter().zip(header.mask.iter().cycle()).map(|(b, mask)| b ^ mask).collect();
            events.extend(self.on_frame(&header, payload)?);
        }
        Ok(at)
    }

    fn on_frame(&mut self, header: &Header, payload: Vec<u8>) -> Result<Option<Event>, Disconnect> {
        let (opcode, payload) = match (header.opcode, self.message.take()) {
            (CLOSE, _) => return Ok(Some(Event::Close)),
            (PING, message) => {
                self.message = message;
                return Ok(Some(Event::Ping(payload)));
            }
            (PONG, message) => {
                self.message = message;
                return Ok(Some(Event::Pong));
            }
            (CONTINUATION, Some((opcode, mut message))) => {
                message.extend_from_slice(&payload);
                (opcode, message)
            }
            (opcode @ (TEXT | BINARY), None) => (opcode, payload),
            _ => return Err(Disconnect::PROTOCOL_ERROR),
        };
        if !header.is_final {
            self.message = Some((opcode, payload));
            return Ok(None);
        }
        Ok(Some(if opcode == TEXT { Event::Text(payload) } else { Event::Binary(payload) }))
    }
}

impl Header {
    /// `None` if it is not complete.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, Disconnect> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        let (is_final, reserved, opcode) = (first & 0x80 != 0, first & 0x70, first & 0x0f);
        let (is_masked, short_length) = (second & 0x80 != 0, second & 0x7f);
        let is_control = opcode >= CLOSE;
        let is_known = matches!(opcode, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG);
        let is_short = u64::from(short_length) <= CONTROL_BYTES_MAX;
        if reserved != 0 || !is_known || !is_masked || (is_control && !(is_final && is_short)) {
            return Err(Disconnect::PROTOCOL_ERROR);
        }
        let length_bytes = match short_length {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some((length, rest)) = rest.split_at_checked(length_bytes) else { return Ok(None) };
        let payload_bytes = match length {
            [] => u64::from(short_length),
            long => long.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        let Some(mask) = rest.first_chunk::<4>() else { return Ok(None) };
        Ok(Some(Self { is_final, opcode, payload_bytes, mask: *mask, header_bytes: 2 + length_bytes + 4 }))
    }
}

/// The answer to a ping.
pub(crate) fn pong(payload: &[u8]) -> Bytes {
    control(PONG, payload)
}

/// A close frame with code and reason.
pub(crate) fn close(disconnect: &Disconnect) -> Bytes {
    control(CLOSE, &[&disconnect.code.to_be_bytes(), disconnect.reason.as_bytes()].concat())
}

fn control(opcode: u8, payload: &[u8]) -> Bytes {
    let payload = &payload[..payload.len().min(CONTROL_BYTES_MAX as usize)];
    let length = u8::try_from(payload.len()).unwrap_or_default();
    [&[0x80 | opcode, length], payload].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A frame as a client sends it.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        match payload.len() {
            n @ 0..126 => out.push(0x80 | n as u8),
            n @ 126..0x1_0000 => {
                out.push(0x80 | 126);
                out.extend((n as u16).to_be_bytes());
            }
            n => {
                out.push(0x80 | 127);
                out.extend((n as u64).to_be_bytes());
            }
        }
        let mask = [1, 2, 3, 4];
        out.extend(mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, mask)| b ^ mask));
        out
    }

    fn decode(bytes: &[u8]) -> Result<Vec<Event>, Disconnect> {
        let mut events = Vec::new();
        Decoder::new(70_000).decode(bytes, &mut events).map(|()| events)
    }

    #[test]
    fn what_breaks_the_rules_ends_the_connection() {
        let unmasked = [0x81, 0x01, b'x'];
        let reserved = frame(0xc1, b"x");
        let unknown = frame(0x83, b"x");
        let fragmented_ping = frame(0x09, b"x");
        let long_ping = frame(0x89, &[0; 126]);
        let nothing_to_continue = frame(0x80, b"x");
        let unfinished = [frame(0x01, b"a"), frame(0x81, b"b")].concat();
        for bad in [&unmasked[..], &reserved, &unknown, &fragmented_ping, &long_ping, &nothing_to_continue, &unfinished]
        {
            assert_eq!(decode(bad), Err(Disconnect::PROTOCOL_ERROR), "{bad:?}");
        }
        let huge = [0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        assert_eq!(decode(&huge), Err(Disconnect::MESSAGE_TOO_BIG), "before anything is allocated");
        let in_pieces = [frame(0x01, &[b'a'; 60_000]), frame(0x80, &[b'a'; 20_000])].concat();
        assert_eq!(decode(&in_pieces), Err(Disconnect::MESSAGE_TOO_BIG));
    }

    #[test]
    fn control_frames_come_between_fragments() {
        let bytes = [frame(0x01, b"he"), frame(0x89, b"p"), frame(0x00, b"ll"), frame(0x80, b"o"), frame(0x88, b"")];
        let events = decode(&bytes.concat()).expect("sound");
        assert_eq!(events, [Event::Ping(b"p".to_vec()), Event::Text(b"hello".to_vec()), Event::Close]);
        assert_eq!(pong(b"p")[..], [0x8a, 1, b'p']);
        assert_eq!(close(&Disconnect::SHUTDOWN)[..4], [0x88, 10, 11, 185]);
    }

    proptest! {
        #[test]
        fn pieces_make_the_same_messages(
            messages in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..300)), 1..6),
            cuts in proptest::collection::vec(1..50_usize, 1..40),
        ) {
            let bytes: Vec<u8> = messages.iter()
                .flat_map(|(is_text, payload)| frame(if *is_text { 0x81 } else { 0x82 }, payload))
                .collect();
            let expected: Vec<Event> = messages.into_iter()
                .map(|(is_text, payload)| if is_text { Event::Text(payload) } else { Event::Binary(payload) })
                .collect();
            let mut decoder = Decoder::new(1_000);
            let (mut events, mut rest, mut cuts) = (Vec::new(), &bytes[..], cuts.into_iter().cycle());
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
                prop_assert!(decoder.decode(piece, &mut events).is_ok());
                rest = after;
            }
            prop_assert_eq!(events, expected);
            prop_assert!(decoder.partial.capacity() == 0, "nothing is kept between messages");
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
            let mut decoder = Decoder::new(100);
            let mut events = Vec::new();
            if decoder.decode(&bytes, &mut events).is_ok() {
                prop_assert!(decoder.partial.len() <= bytes.len());
            }
        }
    }
}
