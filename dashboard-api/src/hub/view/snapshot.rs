//! A view and its rows as one message.

use bytes::Bytes;
use serde::Serialize;

use super::View;
use crate::hub::lens::Lens;

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
    /// Writes the view with the rows given: `{"view",…,"rows":[…],"epoch",…}` and, before the end, `extra`.
    pub(crate) fn write_json<'a>(&self, out: &mut Vec<u8>, rows: impl Iterator<Item = &'a Bytes>, extra: &str) {
        self.write_through(None, out, rows, extra);
    }

    pub(super) fn write_through<R: AsRef<[u8]>>(
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
