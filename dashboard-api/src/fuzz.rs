//! Entry points for the fuzz targets in `fuzz/`: every decoder that faces the network. Each panics where a rule is
//! broken, and returns whatever the bytes are.

use bytes::Bytes;

use crate::fossil;
use crate::hub::lens::LensSpec;
use crate::protocol::{Encoding, frame};
use crate::transport::{emulation, frame as websocket};

/// Bytes of one message in the targets.
const MESSAGE_BYTES_MAX: usize = 4096;

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

/// Emulation requests in both forms.
pub fn emulation(bytes: &[u8]) {
    for is_binary in [false, true] {
        drop(emulation::parse(&Bytes::copy_from_slice(bytes), is_binary));
    }
}

/// Deltas between two payloads.
pub fn delta(bytes: &[u8]) {
    let (old, new) = bytes.split_at(bytes.len() / 2);
    if let Some(delta) = fossil::create(old, new) {
        assert!(delta.len() < new.len(), "a delta is shorter than the whole");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_break_a_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            super::frames(&bytes);
            super::commands(&bytes);
            super::emulation(&bytes);
            super::delta(&bytes);
        }
    }
}
