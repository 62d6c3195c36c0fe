//! A step of a view as its readers are told of it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::key::RowKey;
use crate::hub::lens::Lens;

/// A step of a view from one state to a later one.
#[derive(Debug)]
pub(crate) struct ViewChange {
    pub(super) epoch: u64,
    pub(super) as_of_ms: i64,
    pub(super) written_at_ms: i64,
    pub(super) steps: Vec<RowStep>,
    /// Whether the rows before are unknown: the reader has been away.
    pub(super) is_net: bool,
}

/// What happened to one row.
#[derive(Debug)]
pub(super) struct RowStep {
    pub(super) key: RowKey,
    pub(super) before: Option<Bytes>,
    pub(super) after: Option<Bytes>,
}

impl ViewChange {
    /// What is seen of each row through a lens: the row as it is now, or that it is gone. Rows that were not seen
    /// before and are not now are left out.
    fn seen_through(&self, lens: &Lens) -> Vec<(&RowKey, Option<Bytes>)> {
        let passing = |row: fn(&RowStep) -> Option<&Bytes>| {
            let rows: Vec<Bytes> = self.steps.iter().filter_map(row).cloned().collect();
            let mut seen = lens.matches(&rows).into_iter().zip(rows);
            let sent = self.steps.iter().map(|step| {
                let (is_seen, row) = row(step).and_then(|_| seen.next())?;
                is_seen.then(|| lens.project(&row))
            });
            sent.collect::<Vec<_>>()
        };
        let before = passing(|step| step.before.as_ref());
        let after = passing(|step| step.after.as_ref());
        let steps = self.steps.iter().zip(before).zip(after);
        steps
            .filter(|((_, before), after)| before != after || (self.is_net && !lens.is_restricted))
            .map(|((step, _), after)| (&step.key, after))
            .collect()
    }

    /// The change as a message, as far as it is seen through a lens; `None` if nothing of it is.
    pub(super) fn render(&self, lens: Option<&Lens>) -> Option<Vec<u8>> {
        let ViewChange { epoch, as_of_ms, written_at_ms, steps, .. } = self;
        let mut data =
            format!(r#"{{"epoch":{epoch},"as_of_ms":{as_of_ms},"written_at_ms":{written_at_ms},"changes":["#)
                .into_bytes();
        let empty = data.len();
        match lens {
            None => steps.iter().for_each(|step| write_change(&mut data, &step.key, step.after.as_ref())),
            Some(lens) => {
                self.seen_through(lens).iter().for_each(|(key, row)| write_change(&mut data, key, row.as_ref()));
            }
        }
        if data.len() == empty {
            return None;
        }
        data.pop();
        data.extend_from_slice(b"]}");
        Some(data)
    }

    /// This change and the next one as one.
    pub(super) fn followed_by(self, later: Self) -> Self {
        let mut steps: BTreeMap<RowKey, RowStep> =
            self.steps.into_iter().map(|step| (step.key.clone(), step)).collect();
        for step in later.steps {
            match steps.get_mut(&step.key) {
                Some(first) => first.after = step.after,
                None => drop(steps.insert(step.key.clone(), step)),
            }
        }
        Self { steps: steps.into_values().collect(), ..later }
    }
}

fn write_change(out: &mut Vec<u8>, key: &RowKey, row: Option<&Bytes>) {
    out.extend_from_slice(br#"{"key":"#);
    out.extend_from_slice(key.json());
    out.extend_from_slice(br#","row":"#);
    out.extend_from_slice(row.map_or(b"null", |row| row));
    out.extend_from_slice(b"},");
}
