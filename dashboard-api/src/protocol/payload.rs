//! Application data: any bytes in Protobuf, embedded raw JSON in the JSON form.

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// Reads embedded JSON as its text.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let raw = Option::<Box<RawValue>>::deserialize(deserializer)?;
    Ok(raw.map_or_else(Bytes::new, |raw| Bytes::from(Box::<str>::from(raw).into_string())))
}

/// Embeds bytes as JSON; those that are not JSON become a string.
pub(crate) fn serialize<S: Serializer>(payload: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    let text = to_json(payload);
    let text = std::str::from_utf8(&text).map_err(serde::ser::Error::custom)?;
    RawValue::from_string(text.to_owned()).map_err(serde::ser::Error::custom)?.serialize(serializer)
}

/// The payload as one line of JSON: itself if it is JSON, else a JSON string of it.
pub(crate) fn to_json(payload: &Bytes) -> Bytes {
    match is_json(payload) {
        true => one_line(payload),
        false => quoted(&String::from_utf8_lossy(payload)),
    }
}

/// Whether the bytes are one JSON value.
pub(crate) fn is_json(payload: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(payload).is_ok()
}

/// Valid JSON without raw newlines, which would end a message; within strings they cannot occur.
pub(crate) fn one_line(json: &Bytes) -> Bytes {
    if json.iter().any(|b| matches!(b, b'\n' | b'\r')) {
        return json.iter().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { *b }).collect();
    }
    json.clone()
}

/// A text as a JSON string.
pub(crate) fn quoted(text: &str) -> Bytes {
    Bytes::from(serde_json::Value::from(text).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_payload_has_a_json_form() {
        let check = |bytes: &'static [u8], json: &str| assert_eq!(to_json(&Bytes::from_static(bytes)), json);
        check(b"{\"a\":\n1}", "{\"a\": 1}");
        check(b"boom", "\"boom\"");
        check(b"\xff\n", "\"\u{fffd}\\n\"");
        check(b"", "\"\"");
    }
}
