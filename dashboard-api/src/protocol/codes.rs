//! Codes of errors in replies, of disconnects and of unsubscribes, with their texts.

use std::borrow::Cow;

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

    const fn temporary(code: u32, message: &'static str) -> Self {
        Self { code, message, temporary: true }
    }

    /// This server cannot do it now (it is still reading the log, or the other nodes cannot be reached); the client
    /// tries again by itself.
    pub(crate) const NOT_YET: Self = Self::temporary(100, "internal server error");
    pub(crate) const UNKNOWN_CHANNEL: Self = Self::lasting(102, "unknown channel");
    pub(crate) const PERMISSION_DENIED: Self = Self::lasting(103, "permission denied");
    pub(crate) const METHOD_NOT_FOUND: Self = Self::lasting(104, "method not found");
    pub(crate) const ALREADY_SUBSCRIBED: Self = Self::lasting(105, "already subscribed");
    pub(crate) const LIMIT_EXCEEDED: Self = Self::lasting(106, "limit exceeded");
    pub(crate) const BAD_REQUEST: Self = Self::lasting(107, "bad request");
    pub(crate) const NOT_AVAILABLE: Self = Self::lasting(108, "not available");
    pub(crate) const TOKEN_EXPIRED: Self = Self::lasting(109, "token expired");
    /// Of one kind of command; the client tries again by itself.
    pub(crate) const TOO_MANY_REQUESTS: Self = Self::temporary(111, "too many requests");
    pub(crate) const UNRECOVERABLE_POSITION: Self = Self::lasting(112, "unrecoverable position");
}

/// Why the server ends a connection: the code and reason of the WebSocket close frame, or of a push on the transports
/// that have none. Clients come back after codes below 3500 (and 4000 to 4499) and give up after others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Disconnect {
    pub(crate) code: u16,
    pub(crate) reason: Cow<'static, str>,
}

/// A close reason may have at most so many bytes.
const REASON_BYTES_MAX: usize = 123;

impl Disconnect {
    const fn new(code: u16, reason: &'static str) -> Self {
        Self { code, reason: Cow::Borrowed(reason) }
    }

    /// A disconnect that a server-side caller asks for; `None` if the code is not one of the protocol's.
    pub(crate) fn custom(code: u32, reason: &str) -> Option<Self> {
        let code = u16::try_from(code).ok().filter(|code| (3000..5000).contains(code))?;
        let is_sound = reason.len() <= REASON_BYTES_MAX;
        is_sound.then(|| Self { code, reason: Cow::Owned(reason.to_owned()) })
    }

    /// The peer closed first: echoed as a normal closure.
    pub(crate) const CLOSED_BY_PEER: Self = Self::new(1000, "");
    /// A frame that is not WebSocket.
    pub(crate) const PROTOCOL_ERROR: Self = Self::new(1002, "protocol error");
    /// A message over the limit; the client library gives up on it.
    pub(crate) const MESSAGE_TOO_BIG: Self = Self::new(1009, "message size limit");
    pub(crate) const SHUTDOWN: Self = Self::new(3001, "shutdown");
    pub(crate) const EXPIRED: Self = Self::new(3005, "connection expired");
    pub(crate) const SUBSCRIPTION_EXPIRED: Self = Self::new(3006, "subscription expired");
    pub(crate) const SLOW: Self = Self::new(3008, "slow");
    pub(crate) const WRITE_ERROR: Self = Self::new(3009, "write error");
    pub(crate) const INSUFFICIENT_STATE: Self = Self::new(3010, "insufficient state");
    pub(crate) const NO_PONG: Self = Self::new(3012, "no pong");
    pub(crate) const INVALID_TOKEN: Self = Self::new(3500, "invalid token");
    pub(crate) const BAD_REQUEST: Self = Self::new(3501, "bad request");
    pub(crate) const STALE: Self = Self::new(3502, "stale");
    pub(crate) const FORCE_DISCONNECT: Self = Self::new(3503, "force disconnect");
    pub(crate) const CONNECTION_LIMIT: Self = Self::new(3504, "connection limit");
    pub(crate) const CHANNEL_LIMIT: Self = Self::new(3505, "channel limit");
    pub(crate) const INAPPROPRIATE_PROTOCOL: Self = Self::new(3506, "inappropriate protocol");
    pub(crate) const PERMISSION_DENIED: Self = Self::new(3507, "permission denied");
    pub(crate) const NOT_AVAILABLE: Self = Self::new(3508, "not available");
}

/// Why a subscription ended. From 2500 on the client subscribes again by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unsubscribe {
    pub(crate) code: u32,
    pub(crate) reason: &'static str,
}

impl Unsubscribe {
    pub(crate) const BY_SERVER: Self = Self { code: 2000, reason: "server unsubscribe" };
    pub(crate) const INSUFFICIENT_STATE: Self = Self { code: 2500, reason: "insufficient state" };
    pub(crate) const EXPIRED: Self = Self { code: 2501, reason: "subscription expired" };
}
