//! Why a record, or a value in it, cannot be used.

use super::scan::{Kind, Malformed};

/// Why a value does not fit its declared type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ValueError {
    #[error("{} where the declared type has another form", kind_name(*.0))]
    WrongKind(Kind),
    #[error("not a number")]
    NoNumber,
    #[error("not a finite number")]
    NotFinite,
    #[error("out of range")]
    OutOfRange,
    #[error("digits would be lost at the declared scale")]
    DigitsLost,
    #[error("not a date")]
    NoDate,
    #[error("not a time")]
    NoTimestamp,
    #[error("not base64")]
    NoBase64,
    #[error("not an array")]
    NoArray,
    #[error("an escape that JSON does not know")]
    BadEscape,
    #[error("not a number in the form that this topic sends")]
    DecimalFormChanged,
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Missing | Kind::Null => "null",
        Kind::True | Kind::False => "a boolean",
        Kind::Number => "a number",
        Kind::Text | Kind::Escaped => "a text",
        Kind::Object => "an object",
        Kind::Array => "an array",
    }
}

/// Why a record goes to the dead-letter topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    /// The value or key is no JSON.
    #[error("the {part} is not JSON from byte {at}")]
    Malformed {
        /// `value` or `key`.
        part: &'static str,
        /// Where it stops making sense.
        at: usize,
    },
    /// The bytes are no UTF-8.
    #[error("the {part} is not UTF-8 from byte {at}")]
    NotUtf8 {
        /// `value` or `key`.
        part: &'static str,
        /// The first bad byte.
        at: usize,
    },
    /// JSON, but neither an envelope nor a row.
    #[error("the value is JSON, but no row and no change of one: {reason}")]
    NoRow {
        /// What is missing.
        reason: &'static str,
    },
    /// A value does not fit its declared type.
    #[error("column {column} ({data_type}): {reason}, found {found}")]
    Value {
        /// The column.
        column: String,
        /// Its declared type.
        data_type: String,
        /// What is wrong.
        reason: String,
        /// The start of the value as it was sent.
        found: String,
    },
    /// A NOT NULL column has no value.
    #[error("column {column} is NOT NULL, but the record has {found}")]
    MissingColumn {
        /// The column.
        column: String,
        /// `no value for it` or `null`.
        found: &'static str,
    },
    /// There is no primary key in the record's value, nor in its key.
    #[error("primary key column {column} has no value")]
    MissingKey {
        /// The column.
        column: String,
    },
    /// The record is over the size limit.
    #[error("the record has {bytes} bytes, the limit is {limit_bytes}")]
    Oversized {
        /// Its key and value together.
        bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// The connector left an unchanged value out, and no earlier record of the row is known.
    #[error("column {column} is NOT NULL, its unchanged value was left out, and the row is not known")]
    UnknownUnchanged {
        /// The column.
        column: String,
    },
    /// An append-only table takes new rows only.
    #[error("the table has no primary key, so it takes new rows only, and this is {what}")]
    NoNewRow {
        /// What the record is instead.
        what: &'static str,
    },
}

impl Undecodable {
    /// The reason's class, for counting.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "malformed",
            Self::NotUtf8 { .. } => "not_utf8",
            Self::NoRow { .. } => "no_row",
            Self::Value { .. } => "wrong_value",
            Self::MissingColumn { .. } => "missing_column",
            Self::MissingKey { .. } => "missing_key",
            Self::Oversized { .. } => "oversized",
            Self::UnknownUnchanged { .. } => "unknown_unchanged",
            Self::NoNewRow { .. } => "no_new_row",
        }
    }

    pub(crate) fn malformed(part: &'static str) -> impl Fn(Malformed) -> Self {
        move |m| Self::Malformed { part, at: m.at }
    }
}
