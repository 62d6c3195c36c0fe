//! Rows of source tables as entries of the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use model::{SourceTable, TableDelta, TableRows};

use super::store::{StateStore, StoredTable, table_prefix};
use super::{Packed, StateError};
use crate::error::OpResult;
use crate::fingerprint::Fingerprint;
use crate::rows::{RowCodec, Set};

/// Rows handed on in one part while a table is read back.
const PART_ROWS: usize = 65_536;
/// Length of the position in front of a stored row.
const POSITION_BYTES: usize = 8;

/// The changing tables of a program, with their places in the store.
#[derive(Debug)]
pub(crate) struct StoredTables {
    tables: Vec<(Arc<str>, StoredTable, TableCodec)>,
}

/// Encodes one table's rows.
#[derive(Debug)]
struct TableCodec {
    primary_key: Vec<usize>,
    key: RowCodec,
    row: RowCodec,
}

impl StoredTables {
    /// Tables that are stored already keep their place if they still have the same columns and key; the others get a
    /// new one.
    pub(crate) fn new(tables: &[SourceTable], known: &BTreeMap<String, StoredTable>) -> OpResult<Self> {
        let mut next_id = known.values().map(|t| t.id + 1).max().unwrap_or(0);
        let mut all = Vec::new();
        for table in tables.iter().filter(|t| !t.is_append_only()) {
            let fingerprint = table_fingerprint(table);
            let id = match known.get(&*table.name) {
                Some(stored) if stored.fingerprint == fingerprint => stored.id,
                _ => {
                    next_id += 1;
                    next_id - 1
                }
            };
            let codec = TableCodec {
                primary_key: table.primary_key.clone(),
                key: RowCodec::of_columns(&table.schema, &table.primary_key)?,
                row: RowCodec::new(Arc::clone(&table.schema))?,
            };
            all.push((Arc::clone(&table.name), StoredTable { id, fingerprint }, codec));
        }
        Ok(Self { tables: all })
    }

    /// For the checkpoint record.
    pub(crate) fn stored(&self) -> BTreeMap<String, StoredTable> {
        self.tables.iter().map(|(name, stored, _)| (name.to_string(), stored.clone())).collect()
    }

    /// Entries that changes, in order, put and delete.
    pub(crate) fn encode(&self, changes: &[TableDelta]) -> OpResult<Vec<Packed>> {
        let mut all = Vec::new();
        for (name, stored, codec) in &self.tables {
            let mut packed = Packed::new(table_prefix(stored.id));
            for change in changes.iter().filter(|change| change.table == *name) {
                codec.encode(change, &mut packed)?;
            }
            all.push(packed);
        }
        Ok(all)
    }

    /// Reads the tables back that are stored as they are declared now.
    pub(crate) async fn read(
        &self,
        store: &StateStore,
        known: &BTreeMap<String, StoredTable>,
    ) -> Result<Vec<TableRows>, StateError> {
        let mut all = Vec::new();
        for (name, stored, codec) in &self.tables {
            if known.get(&**name) != Some(stored) {
                continue;
            }
            let mut part = Part::default();
            store
                .each_entry(&table_prefix(stored.id), |_, value| {
                    let Some((position, row)) = value.split_at_checked(POSITION_BYTES) else {
                        return Err(store.damaged(format!("a row of table {name} is cut off")));
                    };
                    part.positions.push(position.try_into().map_or(i64::MIN, i64::from_be_bytes));
                    part.bytes.extend_from_slice(row);
                    part.ends.push(part.bytes.len());
                    if part.positions.len() == PART_ROWS {
                        all.push(part.take(name, codec).map_err(|e| store.damaged(e.to_string()))?);
                    }
                    Ok(())
                })
                .await?;
            if !part.positions.is_empty() {
                all.push(part.take(name, codec).map_err(|e| store.damaged(e.to_string()))?);
            }
        }
        Ok(all)
    }
}

impl TableCodec {
    fn encode(&self, change: &TableDelta, packed: &mut Packed) -> OpResult<()> {
        let rows = &change.delta.rows;
        let key_columns: Vec<ArrayRef> = self.primary_key.iter().map(|i| Arc::clone(rows.column(*i))).collect();
        let (keys, encoded) = (self.key.encode(&key_columns)?, self.row.encode_batch(rows)?);
        let weights = change.delta.weights.values();
        let rows_with = |sign: i64| weights.iter().enumerate().filter(move |(_, w)| w.signum() == sign).map(|(i, _)| i);
        // An update is −old +new under one key, and the new row alone says all.
        let put: Set<&[u8]> = rows_with(1).map(|i| keys.row(i).data()).collect();
        for key in rows_with(-1).map(|i| keys.row(i).data()).filter(|key| !put.contains(key)) {
            packed.push(key, None);
        }
        for i in rows_with(1) {
            let position = change.positions.get(i).copied().unwrap_or(i64::MIN);
            packed.push(keys.row(i).data(), Some([&position.to_be_bytes(), encoded.row(i).data()]));
        }
        Ok(())
    }
}

/// Rows read back so far.
#[derive(Debug, Default)]
struct Part {
    positions: Vec<i64>,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Part {
    fn take(&mut self, table: &Arc<str>, codec: &TableCodec) -> OpResult<TableRows> {
        let part = std::mem::take(self);
        let starts = std::iter::once(0).chain(part.ends.iter().copied());
        let slices = starts.zip(&part.ends).map(|(from, to)| &part.bytes[from..*to]);
        let rows = RecordBatch::try_new(Arc::clone(codec.row.schema()), codec.row.decode(slices)?)?;
        Ok(TableRows { table: Arc::clone(table), rows, positions: part.positions })
    }
}

/// Changes with what a table's rows mean: its columns and key, and where they come from.
pub(crate) fn table_fingerprint(table: &SourceTable) -> Fingerprint {
    let key: Vec<u8> = table.primary_key.iter().flat_map(|i| (*i as u64).to_be_bytes()).collect();
    let fields = format!("{:?}", table.schema.fields());
    let origin = format!("{:?} {:?} {:?} {:?}", table.topic, table.format, table.event_time, table.time_digits);
    Fingerprint::of([table.name.as_bytes(), &key, fields.as_bytes(), origin.as_bytes()])
}
