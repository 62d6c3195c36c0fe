//! Debezium's log positions inside a record's JSON: reading them, moving them, and making a truncate record.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Position;

/// The parts of a value that say where it is from: the envelope, with or without its `schema`, and the metadata columns
/// that the flattening transform adds.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Envelope<'a> {
    #[serde(borrow)]
    op: Option<Cow<'a, str>>,
    #[serde(borrow)]
    source: Option<Source<'a>>,
    #[serde(borrow)]
    payload: Option<Box<Envelope<'a>>>,
    #[serde(borrow, rename = "__op")]
    flat_op: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "__source_lsn")]
    flat_lsn: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Source<'a> {
    #[serde(borrow)]
    lsn: Option<&'a RawValue>,
    #[serde(borrow)]
    sequence: Option<&'a RawValue>,
    ts_ms: Option<i64>,
}

/// The metadata columns alone, for a row with a column of its own that is called `source` or `op`.
#[derive(Debug, Deserialize)]
struct Flat<'a> {
    #[serde(borrow, rename = "__op")]
    op: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "__source_lsn")]
    lsn: Option<&'a RawValue>,
}

/// Parses a value as far as its position goes; `None` for other JSON, whose fields of the same names mean something else.
fn envelope(value: &[u8]) -> Option<Envelope<'_>> {
    let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(value) else {
        let flat: Flat<'_> = serde_json::from_slice(value).ok()?;
        return Some(Envelope { flat_op: flat.op, flat_lsn: flat.lsn, ..Envelope::default() });
    };
    match envelope.payload {
        Some(payload) if envelope.source.is_none() && (payload.source.is_some() || payload.flat_lsn.is_some()) => {
            Some(*payload)
        }
        _ => Some(envelope),
    }
}

fn number(raw: Option<&RawValue>) -> Option<i64> {
    raw?.get().parse().ok()
}

/// The two elements of `source.sequence`: a string that holds JSON, `["<commit lsn or null>","<lsn>"]`.
fn sequence(raw: Option<&RawValue>) -> Option<[Option<i64>; 2]> {
    let text: Cow<'_, str> = serde_json::from_str(raw?.get()).ok()?;
    let elements: [Option<String>; 2] = serde_json::from_str(&text).ok()?;
    Some(elements.map(|element| element?.parse().ok()))
}

/// How `source` begins in every envelope that Debezium's JSON converter writes. A quote within a JSON string is
/// escaped, so this cannot be part of one, and only scalars follow it but for `transaction`.
const SOURCE_START: &str = r#""source":{"version":"#;

/// The envelope of a value in Debezium's own order, from the end of the text, without parsing the row.
fn usual_envelope(value: &[u8]) -> Option<Envelope<'_>> {
    let text = std::str::from_utf8(value).ok()?;
    let from_source = &text[text.rfind(SOURCE_START)? + r#""source":"#.len()..];
    let mut objects = serde_json::Deserializer::from_str(from_source).into_iter::<Source<'_>>();
    let source = objects.next()?.ok()?;
    let rest = from_source[objects.byte_offset()..].strip_prefix(',')?;
    // The rest is the end of an object whose beginning was passed over: `"op":"u","ts_ms":…}`.
    let (_, op) = rest.split_once(r#""op":""#)?;
    let (op, _) = op.split_once('"')?;
    Some(Envelope { op: Some(Cow::Borrowed(op)), source: Some(source), ..Envelope::default() })
}

/// The position of a value, and the time at which the database wrote it in milliseconds since 1970.
pub(super) fn of(value: &[u8]) -> (Option<Position>, Option<i64>) {
    let Some(envelope) = usual_envelope(value).or_else(|| envelope(value)) else {
        return (None, None);
    };
    let is_change = |op: Option<&str>| op != Some("r");
    let position = match &envelope.source {
        Some(source) => number(source.lsn).map(|lsn| Position {
            is_change: is_change(envelope.op.as_deref()),
            commit_lsn: sequence(source.sequence).and_then(|[commit, _]| commit).unwrap_or(0),
            lsn,
        }),
        // Without the commit's position, the row's own stands for it: transactions of one writer do not overlap.
        None => number(envelope.flat_lsn).map(|lsn| Position {
            is_change: is_change(envelope.flat_op.as_deref()),
            commit_lsn: lsn,
            lsn,
        }),
    };
    (position, envelope.source.and_then(|source| source.ts_ms))
}

/// Adds to `source.lsn` and both parts of `source.sequence` (or to `__source_lsn`), leaving all other text as it is.
/// `None` if the value has no position.
pub(super) fn shifted(value: &[u8], shift: i64) -> Option<Vec<u8>> {
    let envelope = envelope(value)?;
    let mut edits: Vec<(&str, String)> = Vec::with_capacity(2);
    let moved = |raw: &RawValue| Some(raw.get().parse::<i64>().ok()?.checked_add(shift)?.to_string());
    match &envelope.source {
        Some(source) => {
            let lsn = source.lsn?;
            edits.push((lsn.get(), moved(lsn)?));
            if let (Some(raw), Some(elements)) = (source.sequence, sequence(source.sequence)) {
                // A missing commit position means the beginning, which moves as well.
                let [commit, row] = elements.map(|element| element.unwrap_or(0).saturating_add(shift));
                edits.push((raw.get(), format!("\"[\\\"{commit}\\\",\\\"{row}\\\"]\"")));
            }
        }
        None => edits.push((envelope.flat_lsn?.get(), moved(envelope.flat_lsn?)?)),
    }
    // The raw texts are slices of the value, so their addresses are their places.
    let start = value.as_ptr() as usize;
    edits.sort_by_key(|(old, _)| old.as_ptr() as usize);
    let mut out = Vec::with_capacity(value.len() + 16);
    let mut at = 0;
    for (old, new) in edits {
        let place = old.as_ptr() as usize - start;
        out.extend_from_slice(value.get(at..place)?);
        out.extend_from_slice(new.as_bytes());
        at = place + old.len();
    }
    out.extend_from_slice(value.get(at..)?);
    Some(out)
}

/// A truncate record of the same table as `value`, at this position; `None` if that is not a Debezium envelope.
pub(super) fn truncate(value: &[u8], lsn: i64) -> Option<Vec<u8>> {
    #[derive(Deserialize)]
    struct WithSource {
        source: Option<serde_json::Map<String, serde_json::Value>>,
        payload: Option<Box<WithSource>>,
    }
    let value: WithSource = serde_json::from_slice(value).ok()?;
    let mut source = value.source.or_else(|| value.payload?.source)?;
    source.get("lsn")?;
    source.insert("lsn".to_owned(), lsn.into());
    source.insert("sequence".to_owned(), format!("[\"{lsn}\",\"{lsn}\"]").into());
    source.insert("snapshot".to_owned(), "false".into());
    let record = serde_json::json!({"before": null, "after": null, "source": source, "op": "t"});
    serde_json::to_vec(&record).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGE: &str = r#"{"before":null, "after":{"id":1,"lsn":5},"source":{"name":"a","sequence":"[\"90\",\"100\"]","lsn":100,"ts_ms":7},"op":"u"}"#;

    fn position(is_change: bool, commit_lsn: i64, lsn: i64) -> Option<Position> {
        Some(Position { is_change, commit_lsn, lsn })
    }

    #[test]
    fn positions_of_all_forms_are_found() {
        let snapshot = CHANGE.replace(r#""op":"u""#, r#""op":"r""#).replace(r#"\"90\""#, "null");
        let with_schema = format!(r#"{{"schema":{{"type":"struct"}},"payload":{CHANGE}}}"#);
        let flat = r#"{"id":1,"op":"x","__op":"u","__source_lsn":100}"#;
        assert_eq!(of(CHANGE.as_bytes()), (position(true, 90, 100), Some(7)));
        assert_eq!(of(snapshot.as_bytes()), (position(false, 0, 100), Some(7)));
        assert_eq!(of(with_schema.as_bytes()), (position(true, 90, 100), Some(7)));
        assert_eq!(of(flat.as_bytes()), (position(true, 100, 100), None));
        let own_columns = r#"{"id":1,"source":"mail","op":3,"__op":"r","__source_lsn":100}"#;
        assert_eq!(of(own_columns.as_bytes()), (position(false, 100, 100), None));
        assert_eq!(of(br#"{"id":1,"op":3,"source":"mail"}"#), (None, None));
        assert_eq!(of(b"17"), (None, None));
    }

    #[test]
    fn the_short_way_says_what_the_parser_says() {
        let usual = CHANGE.replace(r#""source":{"#, r#""source":{"version":"3.6","#);
        let short = usual_envelope(usual.as_bytes()).unwrap();
        assert_eq!((short.op.as_deref(), number(short.source.unwrap().lsn)), (Some("u"), Some(100)));
        assert_eq!(of(usual.as_bytes()), of(CHANGE.as_bytes()));
        // A row that holds such a text is not taken for the source.
        let quoted = serde_json::json!({"after": {"note": usual}, "op": "c"}).to_string();
        assert!(usual_envelope(quoted.as_bytes()).is_none());
        assert_eq!(of(quoted.as_bytes()), (None, None));
    }

    #[test]
    fn a_shift_changes_nothing_else() {
        let moved = |text: &str| String::from_utf8(shifted(text.as_bytes(), 1000).unwrap()).unwrap();
        let expected = CHANGE.replace(r#"[\"90\",\"100\"]"#, r#"[\"1090\",\"1100\"]"#).replace(":100,", ":1100,");
        assert_eq!(moved(CHANGE), expected);
        assert_eq!(moved(&CHANGE.replace(r#"\"90\""#, "null")), expected.replace(r#"\"1090\""#, r#"\"1000\""#));
        assert_eq!(moved(r#"{"id":1, "__source_lsn":5}"#), r#"{"id":1, "__source_lsn":1005}"#);
        assert_eq!(shifted(br#"{"id":1}"#, 1000), None);
    }

    #[test]
    fn a_truncate_is_of_the_same_table_at_its_position() {
        let text = truncate(CHANGE.as_bytes(), 500).unwrap();
        assert_eq!(of(&text), (position(true, 500, 500), Some(7)));
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!((&json["op"], &json["source"]["name"]), (&"t".into(), &"a".into()));
        assert_eq!(truncate(br#"{"id":1}"#, 500), None);
    }
}
