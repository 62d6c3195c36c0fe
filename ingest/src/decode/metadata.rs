//! Columns that are read from the record itself: its topic, partition, offset and timestamp.

use model::Record;

use super::scan::{Kind, Raw};
use super::value::{self, Context, Hint};
use super::{ColumnSpec, DecimalText, Undecodable, wrong};
use crate::column::Column;
use crate::ddl::Metadata;

/// Where a record was read from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) topic: &'a str,
    pub(super) partition: i32,
    pub(super) record: &'a Record,
}

/// Writes what the log knows of a record.
pub(super) fn push(
    column: &mut Column,
    spec: &ColumnSpec,
    metadata: Metadata,
    source: Source<'_>,
    scratch: &mut Vec<u8>,
) -> Result<(), Undecodable> {
    let (kind, text) = match metadata {
        Metadata::Timestamp => (Kind::Number, source.record.timestamp_ms.to_string()),
        Metadata::Offset => (Kind::Number, source.record.offset.to_string()),
        Metadata::Partition => (Kind::Number, source.partition.to_string()),
        Metadata::Topic => (Kind::Text, source.topic.to_owned()),
    };
    let text = text.as_bytes();
    // The log's timestamps are milliseconds.
    let mut context = Context { hint: Hint::None, time_digits: 3, decimals: DecimalText::Unknown };
    value::push(column, &spec.data_type, &mut context, text, Raw::whole(kind, text), scratch)
        .map_err(|e| wrong(spec, e, text))
}
