//! The content of a `view:<name>` channel: the rows of a kept view as JSON, by key, and the engine epoch they stand at.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use model::ViewInfo;
use model::view::EpochMark;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::hub::channel::{Content, Effect, fnv64};
use crate::hub::lens::{Lens, LensSpec};
use crate::protocol::ErrorCode;

/// The key of a row: its JSON text, ordered by the values in it, numbers as numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowKey {
    parts: Vec<KeyPart>,
    json: Bytes,
}

#[derive(Debug, Clone)]
enum KeyPart {
    Null,
    Bool(bool),
    Number(f64),
    Text(Box<str>),
}

impl RowKey {
    /// Reads a record's key; `None` unless it is a JSON object.
    pub(crate) fn parse(json: &[u8]) -> Option<Self> {
        let KeyParts(parts) = serde_json::from_slice(json).ok()?;
        Some(Self { parts, json: one_line(json) })
    }

    /// The key as a JSON object.
    pub(crate) fn json(&self) -> &Bytes {
        &self.json
    }
}

impl Ord for RowKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts.cmp(&other.parts).then_with(|| self.json.cmp(&other.json))
    }
}

impl PartialOrd for RowKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for KeyPart {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Number(a), Self::Number(b)) => a.total_cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for KeyPart {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for KeyPart {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for KeyPart {}

impl KeyPart {
    fn rank(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Bool(_) => 1,
            Self::Number(_) => 2,
            Self::Text(_) => 3,
        }
    }

    fn new(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(b) => Self::Bool(b),
            Value::Number(n) => Self::Number(n.as_f64().unwrap_or(f64::INFINITY)),
            Value::String(s) => Self::Text(s.into_boxed_str()),
            other => Self::Text(other.to_string().into_boxed_str()),
        }
    }
}

/// The values of a JSON object in the order they are written.
struct KeyParts(Vec<KeyPart>);

impl<'de> Deserialize<'de> for KeyParts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts;
        impl<'de> Visitor<'de> for Parts {
            type Value = KeyParts;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object with the key columns")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<KeyParts, M::Error> {
                let mut parts = Vec::new();
                while let Some((_, value)) = map.next_entry::<IgnoredAny, Value>()? {
                    parts.push(KeyPart::new(value));
                }
                Ok(KeyParts(parts))
            }
        }
        deserializer.deserialize_map(Parts)
    }
}

/// A copy of valid JSON without raw newlines, which would end a message. Within strings they cannot occur.
pub(crate) fn one_line(json: &[u8]) -> Bytes {
    if json.iter().any(|b| matches!(b, b'\n' | b'\r')) {
        return json.iter().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { *b }).collect();
    }
    Bytes::copy_from_slice(json)
}

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

/// Rows that have left which are remembered, so that a reader who was away can be told of them alone.
const DEPARTURES_MAX: usize = 10_000;
/// The log keeps the tombstone of a row for a day. What is younger than this when it is loaded is surely complete.
const COMPLETE_AGE_MS: i64 = 12 * 3600 * 1000;

/// A kept view as its readers see it.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// The catalog's entry; a view without one is not offered, though its rows may be there already.
    pub(crate) info: Option<Arc<ViewInfo>>,
    /// Names this form of the view, the same on every node; changes with the catalog's entry.
    fingerprint: String,
    /// Rows by key, with the position at which each changed last.
    rows: BTreeMap<RowKey, (Bytes, u64)>,
    rows_bytes: usize,
    /// Rows that have left, by the position at which they did. Every one after `departures_floor` is here.
    departures: VecDeque<(u64, RowKey)>,
    /// `None`: nothing young enough has been read to be sure of any.
    departures_floor: Option<u64>,
    /// The place in the topic that the rows stand at.
    position: u64,
    /// The engine's epoch that changed it last.
    pub(crate) epoch: u64,
    /// Business time of that epoch, milliseconds since 1970.
    pub(crate) as_of_ms: i64,
    /// When that epoch was written, milliseconds since 1970: the figures' age.
    pub(crate) written_at_ms: i64,
}

/// A step of a view from one state to a later one.
#[derive(Debug)]
pub(crate) struct ViewChange {
    epoch: u64,
    as_of_ms: i64,
    written_at_ms: i64,
    steps: Vec<RowStep>,
    /// Whether the rows before are unknown: the reader has been away.
    is_net: bool,
}

/// What happened to one row.
#[derive(Debug)]
struct RowStep {
    key: RowKey,
    before: Option<Bytes>,
    after: Option<Bytes>,
}

/// What a view's readers know of it beside its rows.
#[derive(Serialize)]
struct Head<'a> {
    view: &'a str,
    key: &'a [String],
    columns: Vec<&'a model::view::ViewColumn>,
}

#[derive(Serialize)]
struct Foot<'a> {
    epoch: u64,
    as_of_ms: i64,
    written_at_ms: i64,
    empty_inputs: &'a [String],
}

impl View {
    /// Takes over an epoch's changes. Those that change nothing (an epoch that was written again after a crash) are
    /// not passed on. While history is loaded (`publish` is false), `now_ms` tells what is old.
    pub(crate) fn apply(&mut self, epoch: ViewEpoch, publish: bool, now_ms: i64) -> Effect<ViewChange> {
        let is_complete = publish || epoch.written_at_ms > now_ms - COMPLETE_AGE_MS;
        if is_complete && self.departures_floor.is_none() {
            let first = epoch.position.saturating_sub(epoch.changes.len() as u64);
            self.departures_floor = Some(if publish { self.position } else { first });
        }
        let mut steps = Vec::with_capacity(if publish { epoch.changes.len() } else { 0 });
        for change in epoch.changes {
            let step = self.set(change, epoch.position);
            if publish && step.before != step.after {
                steps.push(step);
            }
        }
        self.position = self.position.max(epoch.position);
        self.epoch = epoch.epoch;
        self.as_of_ms = epoch.as_of_ms;
        self.written_at_ms = epoch.written_at_ms;
        if steps.is_empty() {
            return Effect::Silent { at: Some(epoch.position) };
        }
        let ViewEpoch { epoch, as_of_ms, written_at_ms, position, .. } = epoch;
        let change = ViewChange { epoch, as_of_ms, written_at_ms, steps, is_net: false };
        Effect::Publish { change, at: Some(position) }
    }

    fn set(&mut self, change: RowChange, position: u64) -> RowStep {
        let RowChange { key, row: after } = change;
        let before = match &after {
            Some(row) => {
                self.rows_bytes += row.len() + 1;
                self.rows.insert(key.clone(), (row.clone(), position))
            }
            None => {
                self.departures.push_back((position, key.clone()));
                if self.departures.len() > DEPARTURES_MAX
                    && let Some((forgotten, _)) = self.departures.pop_front()
                {
                    self.departures_floor = self.departures_floor.map(|floor| floor.max(forgotten));
                }
                self.rows.remove(&key)
            }
        };
        let before = before.map(|(row, _)| row);
        self.rows_bytes -= before.as_ref().map_or(0, |row| row.len() + 1);
        RowStep { key, before, after }
    }

    /// Takes over the catalog's entry. A view of another form starts anew for its readers.
    pub(crate) fn describe(&mut self, info: Option<ViewInfo>) -> Effect<ViewChange> {
        if self.info.as_deref() == info.as_ref() {
            return Effect::Nothing;
        }
        let json = serde_json::to_vec(&info).expect("plain structs always serialise");
        self.fingerprint = format!("{:016x}", fnv64(&json));
        self.info = info.map(Arc::new);
        Effect::Restart
    }

    /// Number of rows.
    pub(crate) fn n_rows(&self) -> usize {
        self.rows.len()
    }

    /// The rows after a key, in order of their keys.
    pub(crate) fn rows_after(&self, key: Option<&RowKey>) -> impl Iterator<Item = (&RowKey, &Bytes)> {
        let from = key.map_or(Bound::Unbounded, Bound::Excluded);
        self.rows.range((from, Bound::Unbounded)).map(|(key, (row, _))| (key, row))
    }

    /// Writes the view with the rows given: `{"view",…,"rows":[…],"epoch",…}` and, before the end, `extra`.
    pub(crate) fn write_json<'a>(&self, out: &mut Vec<u8>, rows: impl Iterator<Item = &'a Bytes>, extra: &str) {
        self.write_through(None, out, rows, extra);
    }

    fn write_through<R: AsRef<[u8]>>(
        &self,
        lens: Option<&Lens>,
        out: &mut Vec<u8>,
        rows: impl Iterator<Item = R>,
        extra: &str,
    ) {
        let Some(info) = &self.info else {
            out.extend_from_slice(b"null");
            return;
        };
        let is_sent = |column: &&model::view::ViewColumn| lens.is_none_or(|lens| lens.sends(&column.name));
        let head = Head { view: &info.name, key: &info.key, columns: info.columns.iter().filter(is_sent).collect() };
        let foot = Foot {
            epoch: self.epoch,
            as_of_ms: self.as_of_ms,
            written_at_ms: self.written_at_ms,
            empty_inputs: &info.empty_inputs,
        };
        out.extend_from_slice(&without_last(&head));
        out.extend_from_slice(br#","rows":["#);
        for (row_idx, row) in rows.enumerate() {
            if row_idx > 0 {
                out.push(b',');
            }
            out.extend_from_slice(row.as_ref());
        }
        out.extend_from_slice(b"],");
        out.extend_from_slice(&without_last(&foot)[1..]);
        out.extend_from_slice(extra.as_bytes());
        out.push(b'}');
    }
}

fn without_last<T: Serialize>(value: &T) -> Vec<u8> {
    let mut json = serde_json::to_vec(value).expect("plain structs always serialise");
    json.pop();
    json
}

fn write_change(out: &mut Vec<u8>, key: &RowKey, row: Option<&Bytes>) {
    out.extend_from_slice(br#"{"key":"#);
    out.extend_from_slice(&key.json);
    out.extend_from_slice(br#","row":"#);
    out.extend_from_slice(row.map_or(b"null", |row| row));
    out.extend_from_slice(b"},");
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
}

impl Content for View {
    type Change = ViewChange;

    fn exists(&self) -> bool {
        self.info.is_some()
    }

    fn epoch(&self) -> Option<String> {
        Some(self.fingerprint.clone())
    }

    fn snapshot_bytes(&self) -> usize {
        self.rows_bytes
    }

    fn write_snapshot(&self, lens: Option<&Lens>, out: &mut Vec<u8>) {
        let Some(lens) = lens else {
            self.write_json(out, self.rows.values().map(|(row, _)| row), "");
            return;
        };
        let rows: Vec<Bytes> = self.rows.values().map(|(row, _)| row.clone()).collect();
        let seen = lens.matches(&rows).into_iter().zip(&rows).filter(|(is_seen, _)| *is_seen);
        self.write_through(Some(lens), out, seen.map(|(_, row)| lens.project(row)), "");
    }

    fn render(&self, change: &ViewChange, lens: Option<&Lens>) -> Option<Vec<u8>> {
        let ViewChange { epoch, as_of_ms, written_at_ms, steps, .. } = change;
        let mut data =
            format!(r#"{{"epoch":{epoch},"as_of_ms":{as_of_ms},"written_at_ms":{written_at_ms},"changes":["#)
                .into_bytes();
        let empty = data.len();
        match lens {
            None => steps.iter().for_each(|step| write_change(&mut data, &step.key, step.after.as_ref())),
            Some(lens) => {
                change.seen_through(lens).iter().for_each(|(key, row)| write_change(&mut data, key, row.as_ref()));
            }
        }
        if data.len() == empty {
            return None;
        }
        data.pop();
        data.extend_from_slice(b"]}");
        Some(data)
    }

    fn change_since(&self, offset: u64) -> Option<ViewChange> {
        if self.departures_floor.is_none_or(|floor| offset < floor) {
            return None;
        }
        let gone = self.departures.iter().rev().take_while(|(position, _)| *position > offset);
        let gone: std::collections::BTreeSet<&RowKey> =
            gone.map(|(_, key)| key).filter(|key| !self.rows.contains_key(key)).collect();
        let gone = gone.into_iter().map(|key| RowStep { key: key.clone(), before: None, after: None });
        let newer = self.rows.iter().filter(|(_, (_, position))| *position > offset);
        let newer = newer.map(|(key, (row, _))| RowStep { key: key.clone(), before: None, after: Some(row.clone()) });
        let steps = gone.chain(newer).collect();
        let Self { epoch, as_of_ms, written_at_ms, .. } = *self;
        Some(ViewChange { epoch, as_of_ms, written_at_ms, steps, is_net: true })
    }

    fn merge(&self, earlier: ViewChange, later: ViewChange) -> ViewChange {
        let mut steps: BTreeMap<RowKey, RowStep> =
            earlier.steps.into_iter().map(|step| (step.key.clone(), step)).collect();
        for step in later.steps {
            match steps.get_mut(&step.key) {
                Some(first) => first.after = step.after,
                None => drop(steps.insert(step.key.clone(), step)),
            }
        }
        ViewChange { steps: steps.into_values().collect(), ..later }
    }

    /// A view without a key has one row: a figure, of which only the newest value matters.
    fn is_tile(&self) -> bool {
        self.info.as_ref().is_some_and(|info| info.key.is_empty())
    }

    fn lens(&self, spec: &LensSpec) -> Result<Lens, ErrorCode> {
        Lens::compile(self.info.as_deref().ok_or(ErrorCode::UNKNOWN_CHANNEL)?, spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use model::ViewKind;
    use model::view::ViewColumn;

    fn change(key: &str, row: Option<&str>) -> RowChange {
        RowChange { key: RowKey::parse(key.as_bytes()).expect("an object"), row: row.map(|r| one_line(r.as_bytes())) }
    }

    fn view() -> View {
        let column = |name: &str| ViewColumn { name: name.to_owned(), data_type: "Int64".to_owned(), nullable: false };
        let mut view = View::default();
        view.describe(Some(ViewInfo {
            name: "v".to_owned(),
            kind: ViewKind::View,
            topic: "andon.view.v".to_owned(),
            columns: vec![column("id")],
            key: vec!["id".to_owned()],
            description: None,
            sql: String::new(),
            empty_inputs: vec!["bom_line".to_owned()],
            maintenance: "incremental".to_owned(),
        }));
        view
    }

    fn publication(view: &View, effect: Effect<ViewChange>) -> String {
        match effect {
            Effect::Publish { change, .. } => {
                String::from_utf8(view.render(&change, None).expect("not empty")).expect("JSON")
            }
            Effect::Silent { .. } => "silent".to_owned(),
            Effect::Nothing => "nothing".to_owned(),
            Effect::Restart => "restart".to_owned(),
        }
    }

    fn epoch(epoch: u64, changes: Vec<RowChange>) -> ViewEpoch {
        ViewEpoch { epoch, as_of_ms: 1, written_at_ms: 2, position: epoch, changes }
    }

    #[expect(clippy::needless_pass_by_value, reason = "expect! makes a value")]
    fn check_snapshot(view: &View, expected: Expect) {
        let mut out = Vec::new();
        view.write_snapshot(None, &mut out);
        expected.assert_eq(std::str::from_utf8(&out).expect("JSON"));
    }

    #[test]
    fn rows_are_ordered_by_the_values_of_their_key() {
        let mut view = view();
        let changes = vec![
            change(r#"{"id":10}"#, Some(r#"{"id":10}"#)),
            change(r#"{"id":9}"#, Some("{\"id\":\n9}")),
            change(r#"{"id":null}"#, Some(r#"{"id":null}"#)),
        ];
        let effect = view.apply(epoch(7, changes), true, 0);
        expect![[r#"{"epoch":7,"as_of_ms":1,"written_at_ms":2,"changes":[{"key":{"id":10},"row":{"id":10}},{"key":{"id":9},"row":{"id": 9}},{"key":{"id":null},"row":{"id":null}}]}"#]].assert_eq(&publication(&view, effect));
        check_snapshot(
            &view,
            expect![[
                r#"{"view":"v","key":["id"],"columns":[{"name":"id","type":"Int64","nullable":false}],"rows":[{"id":null},{"id": 9},{"id":10}],"epoch":7,"as_of_ms":1,"written_at_ms":2,"empty_inputs":["bom_line"]}"#
            ]],
        );
    }

    #[test]
    fn an_epoch_that_is_written_again_is_not_published_again() {
        let mut view = view();
        let first = vec![change(r#"{"id":1}"#, Some(r#"{"id":1}"#)), change(r#"{"id":2}"#, None)];
        let effect = view.apply(epoch(7, first.clone()), true, 0);
        expect![[r#"{"epoch":7,"as_of_ms":1,"written_at_ms":2,"changes":[{"key":{"id":1},"row":{"id":1}}]}"#]]
            .assert_eq(&publication(&view, effect));
        let effect = view.apply(epoch(7, first), true, 0);
        assert_eq!(publication(&view, effect), "silent");
        let effect = view.apply(epoch(7, vec![change(r#"{"id":2}"#, None), change(r#"{"id":1}"#, None)]), true, 0);
        expect![[r#"{"epoch":7,"as_of_ms":1,"written_at_ms":2,"changes":[{"key":{"id":1},"row":null}]}"#]]
            .assert_eq(&publication(&view, effect));
        assert_eq!(view.rows_bytes, 0);
    }

    #[test]
    fn who_was_away_is_told_the_net_change() {
        let mut view = view();
        let id = |n: u64, is_there: bool| {
            let json = format!(r#"{{"id":{n}}}"#);
            change(&json, is_there.then_some(&json))
        };
        view.apply(epoch(10, vec![id(1, true), id(2, true)]), false, COMPLETE_AGE_MS + 2);
        assert!(view.change_since(9).is_none(), "too old to know whether all departures are there");
        view.apply(epoch(20, vec![id(2, false), id(3, true)]), true, COMPLETE_AGE_MS + 2);
        view.apply(epoch(30, vec![id(3, false), id(4, true)]), true, COMPLETE_AGE_MS + 2);
        let since = |offset| view.change_since(offset).and_then(|change| view.render(&change, None));
        let rows = |offset| {
            let json: serde_json::Value = serde_json::from_slice(&since(offset)?).ok()?;
            Some(json["changes"].to_string())
        };
        let (gone_3, new_4) = (r#"{"key":{"id":3},"row":null}"#, r#"{"key":{"id":4},"row":{"id":4}}"#);
        assert_eq!(rows(9), None);
        assert_eq!(rows(10), Some(format!(r#"[{{"key":{{"id":2}},"row":null}},{gone_3},{new_4}]"#)));
        assert_eq!(rows(20), Some(format!("[{gone_3},{new_4}]")));
        assert_eq!(rows(30), None, "nothing was missed");
    }

    #[test]
    fn a_row_that_leaves_a_filter_leaves_the_reader() {
        let mut view = view();
        let spec = LensSpec { filter: Some("id > 1".to_owned()), ..LensSpec::default() };
        let lens = view.lens(&spec).expect("it fits");
        let row = |id: u8| change(r#"{"id":0}"#, Some(&format!(r#"{{"id":{id}}}"#)));
        let mut seen = Vec::new();
        for (n, id) in [1, 2, 3, 1, 0].into_iter().enumerate() {
            if let Effect::Publish { change, .. } = view.apply(epoch(n as u64 + 1, vec![row(id)]), true, 0) {
                let data = view.render(&change, Some(&lens)).unwrap_or_default();
                let json: serde_json::Value = serde_json::from_slice(&data).unwrap_or_default();
                seen.push(
                    json["changes"][0]["row"]["id"]
                        .as_u64()
                        .map_or_else(|| json.is_object().to_string(), |n| n.to_string()),
                );
            }
        }
        assert_eq!(seen, ["false", "2", "3", "true", "false"], "true: told that it is gone; false: not told");
    }

    #[test]
    fn epochs_end_at_their_mark_or_where_another_begins() {
        let mut collector = EpochCollector::default();
        let mut complete = Vec::new();
        let mark = |epoch, last| Some(EpochMark { epoch, as_of_ms: 0, last });
        for (n, mark) in [mark(1, false), mark(1, true), mark(2, false), mark(3, false), None].into_iter().enumerate() {
            let place = Place { offset: 95 + n as i64, written_at_ms: 0 };
            collector.push(mark, place, change(&format!(r#"{{"id":{n}}}"#), None), &mut complete);
        }
        let sizes: Vec<_> = complete.iter().map(|e| (e.epoch, e.changes.len(), e.position)).collect();
        assert_eq!(sizes, [(1, 2, 97), (2, 1, 98), (3, 1, 99), (99, 1, 100)]);
    }

    #[test]
    fn only_another_form_of_the_view_restarts_it() {
        let mut view = view();
        let same = view.info.as_deref().cloned();
        let before = Content::epoch(&view);
        assert!(matches!(view.describe(same.clone()), Effect::Nothing));
        let other = same.map(|info| ViewInfo { key: vec![], ..info });
        assert!(matches!(view.describe(other), Effect::Restart));
        assert_ne!(Content::epoch(&view), before);
        assert!(matches!(view.describe(None), Effect::Restart));
        assert!(!view.exists());
    }

    #[test]
    fn a_key_is_a_json_object() {
        for bad in ["", "1", "[1]", "{", "null"] {
            assert_eq!(RowKey::parse(bad.as_bytes()), None, "{bad}");
        }
        assert!(RowKey::parse(b"{}").is_some());
    }
}
