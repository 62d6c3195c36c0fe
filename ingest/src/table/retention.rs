//! What leaves a table by itself: rows that are older than the table's `ttl`, and the memory of deleted keys.

use std::collections::{BTreeSet, VecDeque};

/// So many deleted keys of a table are remembered with their position, so that a change that is sent again does not
/// bring a row back. A connector that crashes sends minutes of its history again, which is far less; beyond this the
/// keys deleted first are forgotten, and their room is used again.
pub(super) const DELETED_KEYS_MAX: usize = 1_000_000;

/// Rows by event time, for `ttl`.
#[derive(Debug)]
pub(super) struct Expiry {
    pub(super) ttl_us: i64,
    /// Rows with an earlier event time are gone. Never goes backwards.
    pub(super) before_us: i64,
    /// Event time and slot of every row that has one.
    pub(super) times: BTreeSet<(i64, u32)>,
}

impl Expiry {
    pub(super) fn new(ttl_us: i64) -> Self {
        Self { ttl_us, before_us: i64::MIN, times: BTreeSet::new() }
    }

    /// Whether a row has expired that is still there.
    pub(super) fn is_due(&self) -> bool {
        self.times.first().is_some_and(|(time, _)| *time < self.before_us)
    }
}

/// Slots of keys that have no row.
#[derive(Debug)]
pub(super) struct Dead {
    /// In the order in which they were deleted; a slot can be in it more than once, or live again.
    pub(super) deleted: VecDeque<u32>,
    /// Slots without a key.
    pub(super) free: Vec<u32>,
    /// Slots that got their key in this epoch, with the row of the changes that brought it.
    pub(super) fresh: Vec<(u32, u32)>,
    pub(super) keys_max: usize,
}

impl Default for Dead {
    fn default() -> Self {
        Self { deleted: VecDeque::new(), free: Vec::new(), fresh: Vec::new(), keys_max: DELETED_KEYS_MAX }
    }
}
