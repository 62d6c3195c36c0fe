//! Partitions whose rows are kept in order: what Top-N and OVER windows have in common.
//!
//! The place of a row is its ORDER BY's part and then the whole row, so rows that the ORDER BY does not tell apart have a
//! place that does not depend on how they arrived. A partition whose key is closed is forgotten with its rows: what was
//! put out for it stays, and nothing comes for it any more.

use arrow::array::Int64Array;
use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use arrow::row::Rows;
use model::Delta;

use super::Step;
use super::closes::ClosingSlots;
use super::keyed::{Changed, Keyed, malformed};
use super::sorted::{Counted, Sorted};
use crate::error::OpResult;
use crate::rows::RowCodec;
use crate::watermark::{Horizon, at, instants};

/// The rows of one partition, and what its operator notes of it.
#[derive(Debug)]
pub(super) struct Partition<E, N> {
    pub(super) rows: Sorted<E>,
    pub(super) note: N,
}

impl<E: Counted + Default, N: Default> Default for Partition<E, N> {
    fn default() -> Self {
        Self { rows: Sorted::default(), note: N::default() }
    }
}

/// How rows are put into partitions. Columns are indexes into the input.
#[derive(Debug)]
pub(super) struct Arrangement {
    keys: Vec<usize>,
    order: Vec<usize>,
    key_codec: RowCodec,
    order_codec: RowCodec,
    pub(super) row_codec: RowCodec,
    n_columns: usize,
}

/// All partitions.
#[derive(Debug)]
pub(super) struct Partitions<E, N> {
    pub(super) arrangement: Arrangement,
    pub(super) slots: Keyed<Partition<E, N>>,
    pub(super) changed: Changed,
    closes: Option<ClosingSlots>,
}

/// A change, encoded.
pub(super) struct Placed {
    keys: Option<Rows>,
    orders: Option<Rows>,
    rows: Option<Rows>,
    closing: Option<Int64Array>,
}

impl Placed {
    fn key(&self, i: usize) -> &[u8] {
        self.keys.as_ref().map_or(&[][..], |keys| keys.row(i).data())
    }

    pub(super) fn order(&self, i: usize) -> &[u8] {
        self.orders.as_ref().map_or(&[][..], |orders| orders.row(i).data())
    }

    /// Writes the place of a row, and gives the length of the ORDER BY's part.
    pub(super) fn place(&self, i: usize, place: &mut Vec<u8>) -> OpResult<u32> {
        place.clear();
        place.extend_from_slice(self.order(i));
        let order_len = u32::try_from(place.len()).map_err(|_| malformed())?;
        place.extend_from_slice(self.rows.as_ref().map_or(&[][..], |rows| rows.row(i).data()));
        Ok(order_len)
    }
}

impl<E: Counted + Default, N: Default> Partitions<E, N> {
    /// Rows are the first `n_columns` of the input; `closed`: which column of the partition's key closes.
    pub(super) fn new(
        input: &SchemaRef,
        keys: Vec<usize>,
        order: &[(usize, SortOptions)],
        n_columns: usize,
        closed: Option<(usize, Horizon)>,
    ) -> OpResult<Self> {
        let columns: Vec<usize> = (0..n_columns).collect();
        let arrangement = Arrangement {
            key_codec: RowCodec::of_columns(input, &keys)?,
            order_codec: RowCodec::ordered(input, order)?,
            row_codec: RowCodec::of_columns(input, &columns)?,
            keys,
            order: order.iter().map(|(column, _)| *column).collect(),
            n_columns,
        };
        let closes = closed.map(|(part, horizon)| ClosingSlots::new(part, horizon));
        Ok(Self { arrangement, slots: Keyed::default(), changed: Changed::default(), closes })
    }

    pub(super) fn encode(&self, delta: &Delta) -> OpResult<Placed> {
        let Arrangement { keys, order, key_codec, order_codec, row_codec, n_columns } = &self.arrangement;
        let closing = self.closes.as_ref().map(|c| instants(delta.rows.column(keys[c.part()]))).transpose()?;
        Ok(Placed {
            keys: key_codec.encode_some(&delta.rows, keys.iter().copied())?,
            orders: order_codec.encode_some(&delta.rows, order.iter().copied())?,
            rows: row_codec.encode_some(&delta.rows, 0..*n_columns)?,
            closing,
        })
    }

    /// The slot of a row's partition, made if it is not there; the step touches it.
    pub(super) fn slot(&mut self, placed: &Placed, i: usize) -> u32 {
        let n_known = self.slots.len();
        let slot = self.slots.slot(placed.key(i));
        if self.slots.len() > n_known
            && let (Some(closes), Some(closing)) = (&mut self.closes, &placed.closing)
        {
            closes.add(slot, at(closing, i));
        }
        self.slots.touch(slot);
        slot
    }

    /// Whether partitions are forgotten when they close.
    pub(super) fn closes(&self) -> bool {
        self.closes.is_some()
    }

    /// Forgets a partition without rows.
    pub(super) fn release(&mut self, slot: u32) {
        if let Some(closes) = &mut self.closes {
            closes.remove(slot);
        }
        self.slots.release(slot);
    }

    /// Whether the step closes partitions.
    pub(super) fn wants(&self, step: &Step<'_>) -> bool {
        self.closes.as_ref().is_some_and(|closes| closes.wants(step))
    }

    /// Forgets the partitions that are closed when the step ends.
    pub(super) fn forget_closed(&mut self, step: &Step<'_>) {
        let Some(closes) = &mut self.closes else { return };
        for slot in closes.take_closed(step) {
            if self.changed.is_tracking() {
                let (key, partition) = self.slots.at(slot);
                partition.rows.iter().for_each(|(row, _)| self.changed.note(key, row));
            }
            self.slots.release(slot);
        }
    }

    /// Takes back a stored row, and gives its partition's slot.
    pub(super) fn restore(&mut self, partition: &[u8], row: &[u8], entry: E) -> u32 {
        let slot = self.slots.slot(partition);
        self.slots.at(slot).1.rows.alter(row, |known| *known = Some(entry));
        slot
    }

    /// After all rows were taken back: when each partition closes.
    pub(super) fn restored(&mut self) -> OpResult<()> {
        let Some(closes) = &mut self.closes else { return Ok(()) };
        let (slots, keys): (Vec<u32>, Vec<&[u8]>) = self.slots.keys().unzip();
        let columns = self.arrangement.key_codec.decode(keys.into_iter())?;
        let values = instants(columns.get(closes.part()).ok_or_else(malformed)?)?;
        slots.into_iter().enumerate().for_each(|(i, slot)| closes.add(slot, at(&values, i)));
        Ok(())
    }

    /// Number of rows.
    pub(super) fn rows(&self) -> usize {
        self.slots.values().map(|partition| partition.rows.len()).sum()
    }
}
