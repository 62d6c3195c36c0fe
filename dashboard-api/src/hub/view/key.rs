//! The key of a row.

use std::cmp::Ordering;
use std::fmt;

use bytes::Bytes;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::protocol::payload::one_line;

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
        Some(Self { parts, json: one_line(&Bytes::copy_from_slice(json)) })
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
