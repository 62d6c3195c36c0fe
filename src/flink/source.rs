//! Source tables as Flink reads them rightly.
//!
//! Flink's `debezium-json` fails, or is silently wrong, where a table sends no before image. So a table of change events
//! becomes an `upsert-kafka` table over the raw envelope, keyed by the record's key, and a view that unpacks `after` and
//! leaves deleted rows out: Flink then needs no before image, as Andon does not. Times come as text or as numbers,
//! depending on the connector's settings; the view takes both.

use arrow::datatypes::{DataType, TimeUnit};
use model::{SourceFormat, SourceTable, TopicSelector};

use super::{FlinkOptions, quoted, text};

/// Columns of the envelope stand apart from those of the row.
const ENVELOPE: &str = "__envelope";

/// The statements that declare a source table.
pub(super) fn statements(table: &SourceTable, options: &FlinkOptions) -> Vec<String> {
    match (table.format, table.primary_key.is_empty()) {
        (SourceFormat::DebeziumJson, false) => vec![envelope_table(table, options), envelope_view(table)],
        _ => vec![plain_table(table, options)],
    }
}

fn envelope_table(table: &SourceTable, options: &FlinkOptions) -> String {
    let keys: Vec<String> = key_columns(table)
        .map(|i| format!("  {} {} NOT NULL", quoted(table.schema.field(i).name()), key_type(table, i)))
        .collect();
    let after: Vec<String> = row_columns(table)
        .map(|i| format!("{} {}", quoted(table.schema.field(i).name()), wire_type(table.schema.field(i).data_type())))
        .collect();
    let after = match after.is_empty() {
        true => String::new(),
        false => format!(",\n  `after` ROW<\n    {}>", after.join(",\n    ")),
    };
    format!(
        "CREATE TABLE {name} (\n{keys},\n  `op` STRING{after},\n  PRIMARY KEY ({key}) NOT ENFORCED\n) WITH (\n  {with}\n)",
        name = quoted(&format!("{}{ENVELOPE}", table.name)),
        keys = keys.join(",\n"),
        key = key_names(table),
        with = upsert_options(table, options, "EXCEPT_KEY").join(",\n  "),
    )
}

fn envelope_view(table: &SourceTable) -> String {
    let columns: Vec<String> = (0..table.schema.fields().len())
        .map(|i| {
            let name = quoted(table.schema.field(i).name());
            match table.primary_key.contains(&i) {
                true => from_wire(&name, table, i),
                false => from_wire(&format!("`after`.{name}"), table, i),
            }
        })
        .zip(table.schema.fields())
        .map(|(value, field)| match value == quoted(field.name()) {
            true => value,
            false => format!("{value} AS {}", quoted(field.name())),
        })
        .collect();
    format!(
        "CREATE VIEW {} AS\nSELECT\n  {}\nFROM {}\nWHERE `op` <> 'd'",
        quoted(&table.name),
        columns.join(",\n  "),
        quoted(&format!("{}{ENVELOPE}", table.name)),
    )
}

/// Plain JSON rows: upserts by key, or, without a key, rows that only come.
fn plain_table(table: &SourceTable, options: &FlinkOptions) -> String {
    let mut items: Vec<String> = table
        .schema
        .fields()
        .iter()
        .enumerate()
        .map(|(i, field)| {
            let nullable = if field.is_nullable() { "" } else { " NOT NULL" };
            format!("{} {}{nullable}", quoted(field.name()), sql_type(field.data_type(), digits(table, i)))
        })
        .collect();
    if let Some(event_time) = table.event_time {
        let column = quoted(table.schema.field(event_time.column).name());
        let delay = interval(event_time.delay_us);
        items.push(format!("WATERMARK FOR {column} AS {column} - {delay}"));
    }
    let with = match table.primary_key.is_empty() {
        true => append_options(table, options),
        false => {
            items.push(format!("PRIMARY KEY ({}) NOT ENFORCED", key_names(table)));
            upsert_options(table, options, "ALL")
        }
    };
    format!("CREATE TABLE {} (\n  {}\n) WITH (\n  {}\n)", quoted(&table.name), items.join(",\n  "), with.join(",\n  "))
}

fn upsert_options(table: &SourceTable, options: &FlinkOptions, fields: &str) -> Vec<String> {
    let mut with = vec![text_option("connector", "upsert-kafka"), topic_option(&table.topic)];
    with.push(text_option("properties.bootstrap.servers", &options.brokers));
    with.push(text_option("key.format", "json"));
    with.push(text_option("value.format", "json"));
    with.push(text_option("value.fields-include", fields));
    with.extend(bounded(options));
    with
}

fn append_options(table: &SourceTable, options: &FlinkOptions) -> Vec<String> {
    let mut with = vec![text_option("connector", "kafka"), topic_option(&table.topic)];
    with.push(text_option("properties.bootstrap.servers", &options.brokers));
    with.push(text_option("scan.startup.mode", "earliest-offset"));
    with.push(text_option("format", "json"));
    with.extend(bounded(options));
    with
}

fn bounded(options: &FlinkOptions) -> Option<String> {
    options.bounded.then(|| text_option("scan.bounded.mode", "latest-offset"))
}

fn topic_option(topic: &TopicSelector) -> String {
    match topic {
        TopicSelector::Name(name) => text_option("topic", name),
        TopicSelector::Pattern(pattern) => text_option("topic-pattern", pattern),
    }
}

pub(super) fn text_option(name: &str, value: &str) -> String {
    format!("{} = {}", text(name), text(value))
}

fn key_columns(table: &SourceTable) -> impl Iterator<Item = usize> + '_ {
    table.primary_key.iter().copied()
}

fn row_columns(table: &SourceTable) -> impl Iterator<Item = usize> + '_ {
    (0..table.schema.fields().len()).filter(|i| !table.primary_key.contains(i))
}

fn key_names(table: &SourceTable) -> String {
    key_columns(table).map(|i| quoted(table.schema.field(i).name())).collect::<Vec<_>>().join(", ")
}

fn digits(table: &SourceTable, column: usize) -> u8 {
    table.time_digits.get(column).copied().unwrap_or(6)
}

/// `INTERVAL '4.000' SECOND`: Flink's literals know milliseconds.
fn interval(us: i64) -> String {
    format!("INTERVAL '{}.{:03}' SECOND", us / 1_000_000, us % 1_000_000 / 1_000)
}

fn key_type(table: &SourceTable, column: usize) -> String {
    wire_type(table.schema.field(column).data_type())
}

/// The type under which a value of the envelope is read: times as text, whatever they are, since a connector's
/// settings decide their form.
fn wire_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Date32 | DataType::Time64(_) | DataType::Timestamp(_, _) => "STRING".to_owned(),
        other => sql_type(other, 0),
    }
}

/// A type of the portable DDL in Flink's words.
pub(super) fn sql_type(data_type: &DataType, digits: u8) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Int8 => "TINYINT".to_owned(),
        DataType::Int16 | DataType::UInt8 => "SMALLINT".to_owned(),
        DataType::Int32 | DataType::UInt16 => "INT".to_owned(),
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => "BIGINT".to_owned(),
        DataType::Float32 => "FLOAT".to_owned(),
        DataType::Float64 => "DOUBLE".to_owned(),
        DataType::Decimal128(p, s) | DataType::Decimal256(p, s) => format!("DECIMAL({}, {s})", (*p).min(38)),
        DataType::Binary | DataType::LargeBinary => "BYTES".to_owned(),
        DataType::Date32 => "DATE".to_owned(),
        DataType::Time64(_) => "TIME(0)".to_owned(),
        DataType::Timestamp(_, None) => format!("TIMESTAMP({digits})"),
        DataType::Timestamp(_, Some(_)) => format!("TIMESTAMP_LTZ({digits})"),
        DataType::List(item) => format!("ARRAY<{}>", sql_type(item.data_type(), 6)),
        _ => "STRING".to_owned(),
    }
}

/// The value of a column as the view gives it.
fn from_wire(value: &str, table: &SourceTable, column: usize) -> String {
    let digits = digits(table, column);
    match table.schema.field(column).data_type() {
        DataType::Date32 => format!(
            "CASE WHEN {value} LIKE '____-__-__%' THEN CAST(SUBSTRING({value}, 1, 10) AS DATE) \
             ELSE CAST(TIMESTAMPADD(DAY, CAST({value} AS INT), DATE '1970-01-01') AS DATE) END"
        ),
        DataType::Time64(_) => format!("CAST({value} AS TIME)"),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let stamp = format!(
                "CASE WHEN {value} LIKE '____-__-__%' \
                 THEN CAST(REPLACE(REPLACE({value}, 'T', ' '), 'Z', '') AS TIMESTAMP({digits})) \
                 ELSE {} END",
                from_number(&format!("CAST({value} AS BIGINT)"), digits)
            );
            match zone {
                Some(_) => format!("CAST({stamp} AS TIMESTAMP_LTZ({digits}))"),
                None => stamp,
            }
        }
        _ => value.to_owned(),
    }
}

/// A time from milliseconds, microseconds or nanoseconds since 1970, as its declared digits say.
fn from_number(number: &str, digits: u8) -> String {
    let (per_second, width) = match digits {
        0..=3 => (1_000_i64, 3),
        4..=6 => (1_000_000, 6),
        _ => (1_000_000_000, 9),
    };
    // The remainder is made positive first: times before 1970 count backwards.
    let rest = format!("MOD(MOD({number}, {per_second}) + {per_second}, {per_second})");
    format!(
        "CAST(CONCAT(FROM_UNIXTIME(({number} - {rest}) / {per_second}), '.', \
         LPAD(CAST({rest} AS STRING), {width}, '0')) AS TIMESTAMP({digits}))"
    )
}
