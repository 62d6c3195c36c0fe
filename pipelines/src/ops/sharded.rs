//! One operator as several, each with a share of the keys, so that the cores work side by side.
//!
//! A row goes to the shard that its key names; the operators that are sharded treat every key by itself, so together they
//! put out what one would. Where an entry of stored state belongs follows from the key in it, so state does not
//! depend on the number of shards.

use std::hash::BuildHasher as _;

use arrow::array::{Int64Array, UInt32Array};
use arrow::compute::{take, take_record_batch};
use arrow::datatypes::SchemaRef;
use datafusion::common::cast::as_int64_array;
use datafusion::error::DataFusionError;
use model::Delta;

use super::keyed::malformed;
use super::{Operator, Step, concat};
use crate::error::OpResult;
use crate::rows::RowCodec;
use crate::state::StateWriter;

/// Fewer rows are taken in one shard after the other: waking threads would cost more.
const PARALLEL_ROWS_MIN: usize = 2_048;

/// The key in an entry of an operator's stored state.
pub(crate) type StoredKey = fn(&[u8]) -> OpResult<&[u8]>;

/// Which columns of an input are the key.
#[derive(Debug)]
struct Keys {
    columns: Vec<usize>,
    codec: RowCodec,
}

/// The operator.
#[derive(Debug)]
pub(crate) struct Sharded {
    shards: Vec<Box<dyn Operator>>,
    inputs: Vec<Keys>,
    stored_key: StoredKey,
}

/// Always the same, so that an entry finds its shard again within a process and over restarts.
fn hash(key: &[u8]) -> u64 {
    foldhash::fast::FixedState::with_seed(0x616e_646f_6e21).hash_one(key)
}

impl Sharded {
    /// `shards` must be equal and new; `keys` names the key's columns in each input, whose schemas are `inputs`.
    pub(crate) fn new(
        shards: Vec<Box<dyn Operator>>,
        inputs: &[(SchemaRef, Vec<usize>)],
        stored_key: StoredKey,
    ) -> OpResult<Self> {
        let keys = |(schema, columns): &(SchemaRef, Vec<usize>)| {
            Ok(Keys { columns: columns.clone(), codec: RowCodec::of_columns(schema, columns)? })
        };
        Ok(Self { shards, inputs: inputs.iter().map(keys).collect::<OpResult<_>>()?, stored_key })
    }

    fn shard_of(&self, key: &[u8]) -> usize {
        // The upper half of the product is as even as a remainder, and cheaper.
        ((u128::from(hash(key)) * self.shards.len() as u128) >> 64) as usize
    }

    /// The rows of each shard; `None` where there are none.
    fn split(&self, delta: &Delta, keys: &Keys) -> OpResult<Vec<Option<Delta>>> {
        let mut rows: Vec<Vec<u32>> = vec![Vec::new(); self.shards.len()];
        let encoded = keys.codec.encode_some(&delta.rows, keys.columns.iter().copied())?;
        for i in 0..delta.len() {
            let key = encoded.as_ref().map_or(&[][..], |encoded| encoded.row(i).data());
            rows[self.shard_of(key)].push(i as u32);
        }
        rows.into_iter().map(|rows| (!rows.is_empty()).then(|| taken(delta, rows)).transpose()).collect()
    }
}

fn taken(delta: &Delta, rows: Vec<u32>) -> OpResult<Delta> {
    let rows = UInt32Array::from(rows);
    let column = |values: &Int64Array| Ok::<_, DataFusionError>(as_int64_array(&take(values, &rows, None)?)?.clone());
    let missed = delta.missed.as_ref().map(column).transpose()?;
    Ok(Delta::new(take_record_batch(&delta.rows, &rows)?, column(&delta.weights)?).with_missed(missed))
}

impl Operator for Sharded {
    fn wants(&self, step: &Step<'_>) -> bool {
        self.shards.iter().any(|shard| shard.wants(step))
    }

    fn step(&mut self, inputs: &[Option<&Delta>], step: &Step<'_>) -> OpResult<Option<Delta>> {
        let n_rows: usize = inputs.iter().flatten().map(|delta| delta.len()).sum();
        let mut parts: Vec<Vec<Option<Delta>>> = self.shards.iter().map(|_| Vec::new()).collect();
        for (delta, keys) in inputs.iter().zip(&self.inputs) {
            let split = match delta {
                Some(delta) => self.split(delta, keys)?,
                None => vec![None; self.shards.len()],
            };
            parts.iter_mut().zip(split).for_each(|(part, delta)| part.push(delta));
        }
        let mut due: Vec<_> = self
            .shards
            .iter_mut()
            .zip(&parts)
            .filter(|(shard, part)| part.iter().any(Option::is_some) || shard.wants(step))
            .collect();
        let run = |shard: &mut Box<dyn Operator>, part: &[Option<Delta>]| {
            let inputs: Vec<Option<&Delta>> = part.iter().map(Option::as_ref).collect();
            shard.step(&inputs, step)
        };
        let here = due.pop();
        let run_here = || here.map_or(Ok(None), |(shard, part)| run(shard, part));
        let mut out = Vec::new();
        if n_rows < PARALLEL_ROWS_MIN {
            out.push(run_here());
            out.extend(due.into_iter().map(|(shard, part)| run(shard, part)));
        } else {
            std::thread::scope(|scope| {
                let others: Vec<_> = due.into_iter().map(|(shard, part)| scope.spawn(|| run(shard, part))).collect();
                out.push(run_here());
                let joined = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                };
                out.extend(others.into_iter().map(joined));
            });
        }
        let out: Vec<Delta> = out.into_iter().collect::<OpResult<Vec<_>>>()?.into_iter().flatten().collect();
        concat(&out)
    }

    fn state_rows(&self) -> usize {
        self.shards.iter().map(|shard| shard.state_rows()).sum()
    }

    fn postponed(&self) -> bool {
        self.shards.iter().any(|shard| shard.postponed())
    }

    fn forgets(&self) -> bool {
        self.shards.iter().any(|shard| shard.forgets())
    }

    fn remembers(&self) -> bool {
        self.shards.iter().all(|shard| shard.remembers())
    }

    fn standing(&mut self) -> OpResult<Option<Delta>> {
        let all = self.shards.iter_mut().map(|shard| shard.standing()).collect::<OpResult<Vec<_>>>()?;
        concat(&all.into_iter().flatten().collect::<Vec<_>>())
    }

    fn track(&mut self) {
        self.shards.iter_mut().for_each(|shard| shard.track());
    }

    fn checkpoint(&mut self, out: &mut StateWriter<'_>) -> OpResult<()> {
        self.shards.iter_mut().try_for_each(|shard| shard.checkpoint(out))
    }

    fn restore(&mut self, entries: &mut dyn Iterator<Item = (&[u8], &[u8])>) -> OpResult<()> {
        let mut of_shards: Vec<Vec<(&[u8], &[u8])>> = vec![Vec::new(); self.shards.len()];
        for (entry, value) in entries {
            of_shards[self.shard_of((self.stored_key)(entry)?)].push((entry, value));
        }
        for (shard, entries) in self.shards.iter_mut().zip(of_shards) {
            shard.restore(&mut entries.into_iter())?;
        }
        Ok(())
    }
}

/// The key of an entry that is a pair of a key and a place below it.
pub(crate) fn paired_key(entry: &[u8]) -> OpResult<&[u8]> {
    Ok(super::keyed::unpair(entry)?.0)
}

/// The same where a byte says the side in front of the pair.
pub(crate) fn tagged_key(entry: &[u8]) -> OpResult<&[u8]> {
    paired_key(entry.split_first().ok_or_else(malformed)?.1)
}

/// The same where the byte is the first of the pair's key.
pub(crate) fn key_behind_tag(entry: &[u8]) -> OpResult<&[u8]> {
    Ok(paired_key(entry)?.split_first().ok_or_else(malformed)?.1)
}
