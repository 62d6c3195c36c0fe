//! Sinks that write what Andon would write: the same topics, keys and JSON.

use std::str::FromStr;

use arrow::datatypes::DataType;
use model::ViewInfo;
use model::view::ViewColumn;

use super::source::{sql_type, text_option};
use super::{FlinkOptions, quoted, text};

/// The record's key where its columns may be NULL, which no primary key of Flink may be.
const KEY: &str = "__key";

/// How a view's rows reach their topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Upserts by key columns that are never NULL.
    Keyed,
    /// Upserts by the key's JSON text.
    TextKey,
    /// Rows without a key, each once.
    Append,
}

fn form(view: &ViewInfo, options: &FlinkOptions) -> Form {
    if options.append && view.key.len() == view.columns.len() {
        return Form::Append;
    }
    let never_null = |name: &String| view.columns.iter().any(|c| c.name == *name && !c.nullable);
    match !view.key.is_empty() && view.key.iter().all(never_null) {
        true => Form::Keyed,
        false => Form::TextKey,
    }
}

/// Name of the sink table of a view.
fn sink_name(view: &ViewInfo) -> String {
    quoted(&format!("{}__sink", view.name))
}

/// `CREATE TABLE` of the sink.
pub(super) fn table(view: &ViewInfo, options: &FlinkOptions) -> String {
    let form = form(view, options);
    let not_null =
        |name: &str| if form == Form::Keyed && view.key.iter().any(|k| k == name) { " NOT NULL" } else { "" };
    let mut items: Vec<String> = Vec::new();
    if form == Form::TextKey {
        items.push(format!("{} STRING NOT NULL", quoted(KEY)));
    }
    items.extend(
        view.columns.iter().map(|c| format!("{} {}{}", quoted(&c.name), json_type(&data_type(c)), not_null(&c.name))),
    );
    match form {
        Form::Keyed => {
            let key = view.key.iter().map(|k| quoted(k)).collect::<Vec<_>>().join(", ");
            items.push(format!("PRIMARY KEY ({key}) NOT ENFORCED"));
        }
        Form::TextKey => items.push(format!("PRIMARY KEY ({}) NOT ENFORCED", quoted(KEY))),
        Form::Append => {}
    }
    let topic = format!("{}{}", options.topic_prefix, view.name);
    let connector = if form == Form::Append { "kafka" } else { "upsert-kafka" };
    let mut with = vec![text_option("connector", connector), text_option("topic", &topic)];
    with.push(text_option("properties.bootstrap.servers", &options.brokers));
    match form {
        Form::Keyed => with.push(text_option("key.format", "json")),
        Form::TextKey => {
            with.push(text_option("key.format", "raw"));
            with.push(text_option("value.fields-include", "EXCEPT_KEY"));
        }
        Form::Append => {}
    }
    with.push(text_option("value.format", "json"));
    with.push(text_option("value.json.encode.decimal-as-plain-number", "true"));
    format!("CREATE TABLE {} (\n  {}\n) WITH (\n  {}\n)", sink_name(view), items.join(",\n  "), with.join(",\n  "))
}

/// `INSERT INTO` the sink.
pub(super) fn insert(view: &ViewInfo, options: &FlinkOptions) -> String {
    let mut values: Vec<String> = Vec::new();
    if form(view, options) == Form::TextKey {
        values.push(key_text(view));
    }
    values.extend(view.columns.iter().map(|c| json_value(&quoted(&c.name), &data_type(c))));
    format!("INSERT INTO {}\nSELECT\n  {}\nFROM {}", sink_name(view), values.join(",\n  "), quoted(&view.name))
}

/// The key as Andon writes it: a JSON object of the key columns, `{}` for a view of one row.
fn key_text(view: &ViewInfo) -> String {
    if view.key.is_empty() {
        return text("{}");
    }
    let mut parts = Vec::new();
    for (i, name) in view.key.iter().enumerate() {
        let Some(column) = view.columns.iter().find(|c| c.name == *name) else { continue };
        let start = if i == 0 { "{" } else { "," };
        parts.push(text(&format!("{start}{}:", serde_json::Value::from(name.as_str()))));
        let data_type = data_type(column);
        let value = json_value(&quoted(name), &data_type);
        // Numbers and truth values stand as they are; all else is a quoted text.
        let json = match json_type(&data_type).as_str() {
            "BOOLEAN" => format!("LOWER(CAST({value} AS STRING))"),
            "TINYINT" | "SMALLINT" | "INT" | "BIGINT" | "FLOAT" | "DOUBLE" => format!("CAST({value} AS STRING)"),
            "STRING" => format!("JSON_STRING({value})"),
            _ => format!("JSON_STRING(CAST({value} AS STRING))"),
        };
        parts.push(format!("COALESCE({json}, 'null')"));
    }
    parts.push(text("}"));
    format!("CONCAT({})", parts.join(", "))
}

fn data_type(column: &ViewColumn) -> DataType {
    DataType::from_str(&column.data_type).unwrap_or(DataType::Utf8)
}

/// The column's type in the sink: decimals and times are texts, as Andon writes them.
fn json_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Decimal128(_, _) | DataType::Decimal256(_, _) | DataType::Timestamp(_, _) => "STRING".to_owned(),
        other => sql_type(other, 0),
    }
}

/// The column's value in the sink. The cast to the type that Andon plans makes scales equal.
fn json_value(name: &str, data_type: &DataType) -> String {
    match data_type {
        DataType::Decimal128(_, _) | DataType::Decimal256(_, _) => {
            format!("CAST(CAST({name} AS {}) AS STRING)", sql_type(data_type, 0))
        }
        DataType::Timestamp(_, zone) => {
            let zone = if zone.is_some() { "'Z'" } else { "" };
            format!(
                "DATE_FORMAT(CAST({name} AS TIMESTAMP(6)), 'yyyy-MM-dd''T''HH:mm:ss.SSSSSS{}')",
                zone.replace('\'', "''")
            )
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::List(_) => name.to_owned(),
        other => format!("CAST({name} AS {})", sql_type(other, 0)),
    }
}
