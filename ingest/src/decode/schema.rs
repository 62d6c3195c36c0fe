//! The `schema` part that Connect's JSON converter can put beside the payload.
//!
//! It is several times the size of the payload and nearly always the same, so it is parsed once and recognised by its
//! bytes from then on.

use std::collections::HashMap;

use serde_json::Value;

use super::time::Unit;
use super::value::Hint;

/// The hints of the last schema seen, by column.
#[derive(Debug, Default)]
pub(crate) struct SchemaCache {
    schema: Vec<u8>,
    hints: Vec<Hint>,
}

impl SchemaCache {
    /// The bytes of the schema that is cached; empty at first.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.schema
    }

    /// The hint of one column by the last schema seen.
    pub(crate) fn hint(&self, column: usize) -> Hint {
        self.hints.get(column).copied().unwrap_or_default()
    }

    /// Takes over the hints of `schema` for these columns.
    pub(crate) fn read(&mut self, schema: &[u8], columns: &HashMap<Box<[u8]>, u16>) {
        if self.schema != schema {
            self.hints = read(schema, columns);
            self.schema = schema.to_vec();
        }
    }
}

fn read(schema: &[u8], columns: &HashMap<Box<[u8]>, u16>) -> Vec<Hint> {
    let mut hints = vec![Hint::None; columns.len()];
    let Ok(schema) = serde_json::from_slice::<Value>(schema) else { return hints };
    let fields = |v: &Value| v.get("fields").and_then(Value::as_array).cloned().unwrap_or_default();
    let top = fields(&schema);
    let after = top
        .iter()
        .find(|f| f.get("field").and_then(Value::as_str) == Some("after"))
        .filter(|f| f.get("type").and_then(Value::as_str) == Some("struct") && !fields(f).is_empty());
    let row = after.map_or(top.clone(), fields);
    for field in &row {
        let name = field.get("field").and_then(Value::as_str).unwrap_or_default();
        if let Some(index) = columns.get(name.as_bytes()) {
            hints[usize::from(*index)] = hint(field);
        }
    }
    hints
}

fn hint(field: &Value) -> Hint {
    let name = field.get("name").and_then(Value::as_str).unwrap_or_default();
    match name {
        "org.apache.kafka.connect.data.Decimal" => {
            let scale = field.pointer("/parameters/scale").and_then(Value::as_str);
            scale.and_then(|s| s.parse().ok()).map_or(Hint::None, Hint::Unscaled)
        }
        "io.debezium.time.Timestamp" | "io.debezium.time.Time" => Hint::Unit(Unit::Millis),
        "org.apache.kafka.connect.data.Timestamp" | "org.apache.kafka.connect.data.Time" => Hint::Unit(Unit::Millis),
        "io.debezium.time.MicroTimestamp" | "io.debezium.time.MicroTime" => Hint::Unit(Unit::Micros),
        "io.debezium.time.NanoTimestamp" | "io.debezium.time.NanoTime" => Hint::Unit(Unit::Nanos),
        "io.debezium.time.Date" | "org.apache.kafka.connect.data.Date" => Hint::Unit(Unit::Days),
        "" if field.get("type").and_then(Value::as_str) == Some("string") => Hint::Text,
        _ => Hint::None,
    }
}
