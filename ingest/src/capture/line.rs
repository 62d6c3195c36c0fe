//! One line of a capture.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// A line with key and value as text.
#[derive(Debug, Deserialize)]
pub(super) struct Line<'a> {
    #[serde(borrow)]
    pub(super) topic: Cow<'a, str>,
    #[serde(default)]
    pub(super) partition: i32,
    pub(super) offset: Option<i64>,
    pub(super) timestamp: Option<i64>,
    #[serde(borrow)]
    pub(super) key: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) value: Option<&'a RawValue>,
}

/// The beginning of a line: enough to know where the record belongs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place<'a> {
    pub(super) topic: Cow<'a, str>,
    pub(super) partition: i32,
    pub(super) offset: Option<i64>,
}

/// Reads where a record belongs. Lines in the usual form are not parsed beyond their first three fields.
///
/// # Errors
/// The parser's message for a line that is not a record.
pub(super) fn place(line: &str) -> Result<Place<'_>, serde_json::Error> {
    if let Some(place) = usual_place(line) {
        return Ok(place);
    }
    let line: Line<'_> = serde_json::from_str(line)?;
    Ok(Place { topic: line.topic, partition: line.partition, offset: line.offset })
}

/// `{"topic":"…","partition":N,"offset":N,` without any space, quote or escape that would need a parser.
fn usual_place(line: &str) -> Option<Place<'_>> {
    let (topic, rest) = line.strip_prefix(r#"{"topic":""#)?.split_once('"')?;
    if topic.contains('\\') {
        return None;
    }
    let (partition, rest) = rest.strip_prefix(r#","partition":"#)?.split_once(',')?;
    let (offset, _) = rest.strip_prefix(r#""offset":"#)?.split_once(',')?;
    Some(Place { topic: Cow::Borrowed(topic), partition: partition.parse().ok()?, offset: Some(offset.parse().ok()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_way_says_what_the_parser_says() {
        let usual = r#"{"topic":"a.b","partition":2,"offset":17,"timestamp":1,"key":null,"value":{"x":1}}"#;
        let expected = Place { topic: Cow::Borrowed("a.b"), partition: 2, offset: Some(17) };
        assert_eq!(usual_place(usual), Some(expected));
        let others = [
            r#"{"topic": "a.b", "partition": 2, "offset": 17, "key": null, "value": null}"#,
            r#"{"offset":17,"partition":2,"topic":"a.b"}"#,
            r#"{"topic":"\u0061.b","partition":2,"offset":17,"key":1}"#,
        ];
        for line in others {
            assert_eq!(usual_place(line), None, "{line}");
            assert_eq!(place(line).unwrap(), Place { topic: "a.b".into(), partition: 2, offset: Some(17) });
        }
    }

    #[test]
    fn text_of_key_and_value_is_kept() {
        let text = r#"{"topic":"t","key": {"id" : 1.50} ,"value":{"a":"\u00e4", "b":[1,  2]}}"#;
        let line: Line<'_> = serde_json::from_str(text).unwrap();
        assert_eq!(line.key.unwrap().get(), r#"{"id" : 1.50}"#);
        assert_eq!(line.value.unwrap().get(), r#"{"a":"\u00e4", "b":[1,  2]}"#);
        assert_eq!((line.partition, line.offset, line.timestamp), (0, None, None));
    }
}
