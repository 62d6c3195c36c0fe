//! The content of a `view:<name>` channel: the rows of a kept view as JSON, by key, and the engine epoch they stand at.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use model::ViewInfo;
use model::view::EpochMark;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::hub::channel::{Content, Effect};

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
    pub(crate) changes: Vec<RowChange>,
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
    /// Adds a record's change; epochs that are complete now go to `complete`. `fallback` numbers an unmarked record.
    pub(crate) fn push(
        &mut self,
        mark: Option<EpochMark>,
        fallback: EpochMark,
        change: RowChange,
        complete: &mut Vec<ViewEpoch>,
    ) {
        let mark = mark.unwrap_or(EpochMark { last: true, ..fallback });
        if self.open.as_ref().is_some_and(|open| open.epoch != mark.epoch) {
            complete.extend(self.open.take());
        }
        let open = self.open.get_or_insert_with(|| ViewEpoch {
            epoch: mark.epoch,
            as_of_ms: mark.as_of_ms,
            changes: Vec::new(),
        });
        open.as_of_ms = mark.as_of_ms;
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

/// A kept view as its readers see it.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// The catalog's entry; a view without one is not offered, though its rows may be there already.
    pub(crate) info: Option<Arc<ViewInfo>>,
    /// Rows by key.
    rows: BTreeMap<RowKey, Bytes>,
    rows_bytes: usize,
    /// The engine's epoch that changed it last.
    pub(crate) epoch: u64,
    /// Business time of that epoch, milliseconds since 1970.
    pub(crate) as_of_ms: i64,
}

/// What a view's readers know of it beside its rows.
#[derive(Serialize)]
struct Head<'a> {
    view: &'a str,
    key: &'a [String],
    columns: &'a [model::view::ViewColumn],
}

#[derive(Serialize)]
struct Foot<'a> {
    epoch: u64,
    as_of_ms: i64,
    empty_inputs: &'a [String],
}

impl View {
    /// Takes over an epoch's changes. Those that change nothing (an epoch that was written again after a crash) are
    /// not passed on.
    pub(crate) fn apply(&mut self, epoch: ViewEpoch, publish: bool) -> Effect {
        let mut data = format!(r#"{{"epoch":{},"as_of_ms":{},"changes":["#, epoch.epoch, epoch.as_of_ms).into_bytes();
        let mut n_changes = 0_usize;
        for change in epoch.changes {
            if publish {
                let before = data.len();
                write_change(&mut data, &change, n_changes > 0);
                if self.set(change) {
                    n_changes += 1;
                } else {
                    data.truncate(before);
                }
            } else {
                self.set(change);
            }
        }
        self.epoch = epoch.epoch;
        self.as_of_ms = epoch.as_of_ms;
        if !publish || n_changes == 0 {
            return Effect::Silent;
        }
        data.extend_from_slice(b"]}");
        Effect::Publish(data)
    }

    /// Returns whether that makes a difference.
    fn set(&mut self, change: RowChange) -> bool {
        let key_bytes = change.key.json.len();
        match change.row {
            Some(row) => {
                self.rows_bytes += row.len() + 1;
                let differs = self.rows.get(&change.key) != Some(&row);
                if let Some(old) = self.rows.insert(change.key, row) {
                    self.rows_bytes -= old.len() + 1;
                }
                differs
            }
            None => match self.rows.remove(&change.key) {
                Some(old) => {
                    debug_assert!(key_bytes > 0, "a key is an object");
                    self.rows_bytes -= old.len() + 1;
                    true
                }
                None => false,
            },
        }
    }

    /// Takes over the catalog's entry. A view of another form starts anew for its readers.
    pub(crate) fn describe(&mut self, info: Option<ViewInfo>) -> Effect {
        if self.info.as_deref() == info.as_ref() {
            return Effect::Nothing;
        }
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
        self.rows.range((from, Bound::Unbounded))
    }

    /// Writes the view with the rows given: `{"view",…,"rows":[…],"epoch",…}` and, before the end, `extra`.
    pub(crate) fn write_json<'a>(&self, out: &mut Vec<u8>, rows: impl Iterator<Item = &'a Bytes>, extra: &str) {
        let Some(info) = &self.info else {
            out.extend_from_slice(b"null");
            return;
        };
        let head = Head { view: &info.name, key: &info.key, columns: &info.columns };
        let foot = Foot { epoch: self.epoch, as_of_ms: self.as_of_ms, empty_inputs: &info.empty_inputs };
        out.extend_from_slice(&without_last(&head));
        out.extend_from_slice(br#","rows":["#);
        for (row_idx, row) in rows.enumerate() {
            if row_idx > 0 {
                out.push(b',');
            }
            out.extend_from_slice(row);
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

fn write_change(out: &mut Vec<u8>, change: &RowChange, after_another: bool) {
    if after_another {
        out.push(b',');
    }
    out.extend_from_slice(br#"{"key":"#);
    out.extend_from_slice(&change.key.json);
    out.extend_from_slice(br#","row":"#);
    out.extend_from_slice(change.row.as_deref().unwrap_or(b"null"));
    out.push(b'}');
}

impl Content for View {
    fn exists(&self) -> bool {
        self.info.is_some()
    }

    fn snapshot_bytes(&self) -> usize {
        self.rows_bytes
    }

    fn write_snapshot(&self, out: &mut Vec<u8>) {
        self.write_json(out, self.rows.values(), "");
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

    fn publication(effect: Effect) -> String {
        match effect {
            Effect::Publish(data) => String::from_utf8(data).expect("JSON"),
            Effect::Silent => "silent".to_owned(),
            Effect::Nothing => "nothing".to_owned(),
            Effect::Restart => "restart".to_owned(),
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "expect! makes a value")]
    fn check_snapshot(view: &View, expected: Expect) {
        let mut out = Vec::new();
        view.write_snapshot(&mut out);
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
        let effect = view.apply(ViewEpoch { epoch: 7, as_of_ms: 1, changes }, true);
        expect![[r#"{"epoch":7,"as_of_ms":1,"changes":[{"key":{"id":10},"row":{"id":10}},{"key":{"id":9},"row":{"id": 9}},{"key":{"id":null},"row":{"id":null}}]}"#]].assert_eq(&publication(effect));
        check_snapshot(
            &view,
            expect![[
                r#"{"view":"v","key":["id"],"columns":[{"name":"id","type":"Int64","nullable":false}],"rows":[{"id":null},{"id": 9},{"id":10}],"epoch":7,"as_of_ms":1,"empty_inputs":["bom_line"]}"#
            ]],
        );
    }

    #[test]
    fn an_epoch_that_is_written_again_is_not_published_again() {
        let mut view = view();
        let epoch = |changes| ViewEpoch { epoch: 7, as_of_ms: 1, changes };
        let first = vec![change(r#"{"id":1}"#, Some(r#"{"id":1}"#)), change(r#"{"id":2}"#, None)];
        let effect = view.apply(epoch(first.clone()), true);
        expect![[r#"{"epoch":7,"as_of_ms":1,"changes":[{"key":{"id":1},"row":{"id":1}}]}"#]]
            .assert_eq(&publication(effect));
        assert_eq!(publication(view.apply(epoch(first), true)), "silent");
        let effect = view.apply(epoch(vec![change(r#"{"id":2}"#, None), change(r#"{"id":1}"#, None)]), true);
        expect![[r#"{"epoch":7,"as_of_ms":1,"changes":[{"key":{"id":1},"row":null}]}"#]]
            .assert_eq(&publication(effect));
        assert_eq!(view.rows_bytes, 0);
    }

    #[test]
    fn epochs_end_at_their_mark_or_where_another_begins() {
        let mut collector = EpochCollector::default();
        let mut complete = Vec::new();
        let mark = |epoch, last| Some(EpochMark { epoch, as_of_ms: 0, last });
        let unmarked = EpochMark { epoch: 99, as_of_ms: 0, last: true };
        for (n, mark) in [mark(1, false), mark(1, true), mark(2, false), mark(3, false), None].into_iter().enumerate() {
            collector.push(mark, unmarked, change(&format!(r#"{{"id":{n}}}"#), None), &mut complete);
        }
        let sizes: Vec<_> = complete.iter().map(|e| (e.epoch, e.changes.len())).collect();
        assert_eq!(sizes, [(1, 2), (2, 1), (3, 1), (99, 1)]);
    }

    #[test]
    fn only_another_form_of_the_view_restarts_it() {
        let mut view = view();
        let same = view.info.as_deref().cloned();
        assert_eq!(publication(view.describe(same.clone())), "nothing");
        let other = same.map(|info| ViewInfo { key: vec![], ..info });
        assert_eq!(publication(view.describe(other)), "restart");
        assert_eq!(publication(view.describe(None)), "restart");
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
