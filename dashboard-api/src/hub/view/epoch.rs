//! From the records of a view's topic to the changes of engine epochs.

use bytes::Bytes;
use model::view::EpochMark;

use super::key::RowKey;

/// What one record says of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowChange {
    pub(crate) key: RowKey,
    /// The row, or `None` if it is gone.
    pub(crate) row: Option<Bytes>,
}

/// The changes that one engine epoch made to one view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ViewEpoch {
    pub(crate) epoch: u64,
    pub(crate) as_of_ms: i64,
    /// When its last record was written, milliseconds since 1970.
    pub(crate) written_at_ms: i64,
    /// The place in the topic after its last record: the position that its readers stand at.
    pub(crate) position: u64,
    pub(crate) changes: Vec<RowChange>,
}

/// A record's place in its topic, and when it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) offset: i64,
    pub(crate) written_at_ms: i64,
}

impl Place {
    /// The position of a reader that has this record.
    fn position(self) -> u64 {
        u64::try_from(self.offset).map_or(0, |offset| offset + 1)
    }
}

/// Gathers the records of a view topic into epochs.
///
/// An epoch ends at its record with the end mark, or where a record of another epoch follows (compaction may have
/// removed the end). A record without a mark is an epoch of its own.
#[derive(Debug, Default)]
pub(crate) struct EpochCollector {
    open: Option<ViewEpoch>,
}

impl EpochCollector {
    /// Adds a record's change; epochs that are complete now go to `complete`. An unmarked record is numbered by
    /// its place.
    pub(crate) fn push(
        &mut self,
        mark: Option<EpochMark>,
        place: Place,
        change: RowChange,
        complete: &mut Vec<ViewEpoch>,
    ) {
        let mark = mark.unwrap_or_else(|| EpochMark {
            epoch: u64::try_from(place.offset).unwrap_or_default(),
            as_of_ms: place.written_at_ms,
            last: true,
        });
        if self.open.as_ref().is_some_and(|open| open.epoch != mark.epoch) {
            complete.extend(self.open.take());
        }
        let open = self.open.get_or_insert_with(|| ViewEpoch {
            epoch: mark.epoch,
            as_of_ms: mark.as_of_ms,
            written_at_ms: place.written_at_ms,
            position: 0,
            changes: Vec::new(),
        });
        open.as_of_ms = mark.as_of_ms;
        open.written_at_ms = place.written_at_ms;
        open.position = place.position();
        open.changes.push(change);
        if mark.last {
            complete.extend(self.open.take());
        }
    }

    /// Ends an epoch that is known to be over since a later one is.
    pub(crate) fn end_before(&mut self, epoch: u64) -> Option<ViewEpoch> {
        self.open.take_if(|open| open.epoch < epoch)
    }
}
