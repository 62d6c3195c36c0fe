//! A publication, encoded at most once for each form in which somebody reads it.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;

use crate::fossil;
use crate::protocol::frame::{Encoding, Line};
use crate::protocol::message::{ClientInfo, Publication, Push, Reply};
use crate::protocol::payload;

/// How a subscriber wants its publications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) encoding: Encoding,
    pub(crate) delta: Delta,
}

/// Whether, and from what, deltas are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delta {
    /// None were agreed on.
    Off,
    /// They were, but the subscriber does not have the publication before: the whole payload, as deltas go.
    Whole,
    /// The patch of the publication before.
    Patch,
}

/// Encodes one publication of a channel.
pub(crate) struct Encoder<'a> {
    channel: &'a str,
    publication: &'a Publication,
    /// The payload of the publication before.
    previous: Option<&'a Bytes>,
    lines: [Option<Line>; 6],
}

impl<'a> Encoder<'a> {
    pub(crate) fn new(channel: &'a str, publication: &'a Publication, previous: Option<&'a Bytes>) -> Self {
        Self { channel, publication, previous, lines: [const { None }; 6] }
    }

    /// The push in this form. Its bytes are shared by all who ask for the same.
    pub(crate) fn line(&mut self, form: Form) -> Line {
        let encoding_idx = match form.encoding {
            Encoding::Json => 0,
            Encoding::Protobuf => 3,
        };
        let delta_idx = match form.delta {
            Delta::Off => 0,
            Delta::Whole => 1,
            Delta::Patch => 2,
        };
        let Self { channel, publication, previous, lines } = self;
        lines[encoding_idx + delta_idx].get_or_insert_with(|| encode(channel, publication, *previous, form)).clone()
    }
}

fn encode(channel: &str, publication: &Publication, previous: Option<&Bytes>, form: Form) -> Line {
    let in_form;
    let publication = match form.delta {
        Delta::Off => publication,
        _ => {
            in_form = delta_form(publication, previous.filter(|_| form.delta == Delta::Patch), form.encoding);
            &in_form
        }
    };
    match form.encoding {
        Encoding::Json => Line::new(form.encoding, |out| {
            out.extend_from_slice(br#"{"push":{"channel":"#);
            out.extend_from_slice(&payload::quoted(channel));
            out.extend_from_slice(br#","pub":"#);
            write_json(out, publication);
            out.extend_from_slice(b"}}");
        }),
        Encoding::Protobuf => {
            let push = Push { channel: channel.to_owned(), publication: Some(publication.clone()), ..Push::default() };
            let reply = Reply { push: Some(push), ..Reply::default() };
            Line::new(form.encoding, |out| {
                reply.encode_length_delimited(out).expect("a vector takes any number of bytes");
            })
        }
    }
}

/// As [`Publication`] serialises, without a second look at the payload.
fn write_json(out: &mut Vec<u8>, publication: &Publication) {
    let Publication { data, info, offset, tags, delta, time } = publication;
    out.extend_from_slice(br#"{"data":"#);
    out.extend_from_slice(&payload::to_json(data));
    write_info(out, info.as_ref());
    if *offset > 0 {
        out.extend_from_slice(format!(r#","offset":{offset}"#).as_bytes());
    }
    write_tags(out, tags);
    if *delta {
        out.extend_from_slice(br#","delta":true"#);
    }
    if *time != 0 {
        out.extend_from_slice(format!(r#","time":{time}"#).as_bytes());
    }
    out.push(b'}');
}

fn write_info(out: &mut Vec<u8>, info: Option<&ClientInfo>) {
    if let Some(info) = info {
        out.extend_from_slice(br#","info":"#);
        serde_json::to_writer(out, info).expect("plain structs always serialise");
    }
}

fn write_tags(out: &mut Vec<u8>, tags: &BTreeMap<String, String>) {
    if !tags.is_empty() {
        out.extend_from_slice(br#","tags":"#);
        serde_json::to_writer(out, tags).expect("maps of text always serialise");
    }
}

/// The publication as a subscription with deltas carries it: in JSON every payload is a string.
fn delta_form(publication: &Publication, base: Option<&Bytes>, encoding: Encoding) -> Publication {
    let whole = match encoding {
        Encoding::Json => payload::to_json(&publication.data),
        Encoding::Protobuf => publication.data.clone(),
    };
    let base = base.map(|base| match encoding {
        Encoding::Json => payload::to_json(base),
        Encoding::Protobuf => base.clone(),
    });
    let patch = base.and_then(|base| fossil::create(&base, &whole)).map(Bytes::from);
    // A patch is cut at bytes and may not be text: then JSON cannot carry it.
    let patch = patch.filter(|patch| encoding == Encoding::Protobuf || std::str::from_utf8(patch).is_ok());
    let delta = patch.is_some();
    let data = patch.unwrap_or(whole);
    let data = match encoding {
        Encoding::Json => payload::quoted(&String::from_utf8_lossy(&data)),
        Encoding::Protobuf => data,
    };
    Publication { data, delta, ..publication.clone() }
}

/// Consecutive publications in the form of a subscriber who gets them at once: the first one whole.
pub(crate) fn chain<'a>(
    publications: impl Iterator<Item = &'a Publication>,
    delta: bool,
    encoding: Encoding,
) -> Vec<Publication> {
    let mut previous: Option<&Bytes> = None;
    publications
        .map(|publication| {
            let in_form = match delta {
                true => delta_form(publication, previous, encoding),
                false => publication.clone(),
            };
            previous = Some(&publication.data);
            in_form
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fossil::apply;
    use expect_test::expect;

    fn publication(data: String, offset: u64) -> Publication {
        Publication { data: Bytes::from(data), offset, ..Publication::default() }
    }

    fn json(encoder: &mut Encoder<'_>, delta: Delta) -> String {
        String::from_utf8(encoder.line(Form { encoding: Encoding::Json, delta }).to_vec()).expect("UTF-8")
    }

    #[test]
    fn json_is_written_as_the_derived_form() {
        let info = ClientInfo { user: "42".to_owned(), client: "c".to_owned(), ..ClientInfo::default() };
        let tags = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
        let publication = Publication { info: Some(info), tags, time: 5, ..publication("{\"a\":\n1}".to_owned(), 12) };
        let text = json(&mut Encoder::new("a\"b", &publication, None), Delta::Off);
        expect![[r#"{"push":{"channel":"a\"b","pub":{"data":{"a": 1},"info":{"user":"42","client":"c"},"offset":12,"tags":{"k":"v"},"time":5}}}"#]].assert_eq(&text);
        let push = Push { channel: "a\"b".to_owned(), publication: Some(publication), ..Push::default() };
        let derived = serde_json::to_string(&Reply { push: Some(push), ..Reply::default() }).expect("JSON");
        assert_eq!(text, derived);
    }

    #[test]
    fn patches_are_strings_in_json_and_always_text() {
        let payload = |n: &str| format!(r#"{{"n":"{n}","rest":"{}"}}"#, "ä".repeat(100));
        let (old, new) = (publication(payload("1"), 1), publication(payload("2"), 2));
        let mut encoder = Encoder::new("c", &new, Some(&old.data));
        let whole: serde_json::Value = serde_json::from_str(&json(&mut encoder, Delta::Whole)).expect("JSON");
        assert_eq!(whole["push"]["pub"]["data"], payload("2"));
        let patch: serde_json::Value = serde_json::from_str(&json(&mut encoder, Delta::Patch)).expect("JSON");
        assert_eq!(patch["push"]["pub"]["delta"], true);
        let patch = patch["push"]["pub"]["data"].as_str().expect("a string").to_owned();
        assert_eq!(apply(&old.data, patch.as_bytes()).as_deref(), Some(&new.data[..]));
        let chained = chain([&old, &new].into_iter(), true, Encoding::Protobuf);
        assert_eq!((chained[0].delta, chained[1].delta), (false, true));
        // "ä" and "ö" share their first byte: the patch cuts between the two.
        let (old, new) = (publication("x".repeat(31) + "ä", 1), publication("x".repeat(31) + "ö", 2));
        let cut: serde_json::Value =
            serde_json::from_str(&json(&mut Encoder::new("c", &new, Some(&old.data)), Delta::Patch)).expect("JSON");
        assert!(cut["push"]["pub"]["data"].is_string());
    }
}
