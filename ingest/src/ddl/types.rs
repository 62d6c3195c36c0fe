//! Flink's type names and what they are in Arrow.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};

/// Flink's largest decimal precision, which is also that of Arrow's `Decimal128`.
const DECIMAL_PRECISION_MAX: u64 = 38;

/// A type and, for times, its fractional-second digits.
pub(super) type Typed = (DataType, u8);

/// The type of a name with its arguments in parentheses; `local_zone` is `WITH LOCAL TIME ZONE`.
///
/// The error is a message and a help text.
pub(super) fn simple(name: &str, args: &[u64], local_zone: bool) -> Result<Typed, (String, Option<String>)> {
    let no_time = |data_type| Ok((data_type, 0));
    match name {
        "BOOLEAN" => no_time(DataType::Boolean),
        "TINYINT" => no_time(DataType::Int8),
        "SMALLINT" => no_time(DataType::Int16),
        "INT" | "INTEGER" => no_time(DataType::Int32),
        "BIGINT" => no_time(DataType::Int64),
        "FLOAT" => no_time(DataType::Float32),
        "DOUBLE" => no_time(DataType::Float64),
        "DECIMAL" | "DEC" | "NUMERIC" => decimal(args),
        "STRING" | "VARCHAR" | "CHAR" => no_time(DataType::Utf8),
        "BYTES" | "VARBINARY" | "BINARY" => no_time(DataType::Binary),
        "DATE" => no_time(DataType::Date32),
        "TIME" => Ok((DataType::Time64(TimeUnit::Microsecond), digits(args, 0)?)),
        "TIMESTAMP" | "TIMESTAMP_LTZ" => {
            let zone = (local_zone || name == "TIMESTAMP_LTZ").then(|| Arc::from("UTC"));
            Ok((DataType::Timestamp(TimeUnit::Microsecond, zone), digits(args, 6)?))
        }
        "MAP" | "ROW" | "MULTISET" | "RAW" | "VARIANT" => Err((
            format!("type {name} is not supported yet"),
            Some("declare a JSON column as STRING: it then holds the JSON text".to_owned()),
        )),
        "INTERVAL" => Err((
            "type INTERVAL is not supported in a table".to_owned(),
            Some("declare it as BIGINT: Debezium sends intervals as microseconds".to_owned()),
        )),
        "JSON" | "JSONB" | "TEXT" | "UUID" => {
            Err((format!("unknown type {name}"), Some("declare it as STRING".to_owned())))
        }
        other => Err((
            format!("unknown type {other}"),
            Some(
                "the types are BOOLEAN, TINYINT, SMALLINT, INT, BIGINT, FLOAT, DOUBLE, DECIMAL(p, s), STRING, \
                 VARCHAR(n), CHAR(n), DATE, TIME(p), TIMESTAMP(p), TIMESTAMP_LTZ(p), BYTES, ARRAY<type>"
                    .to_owned(),
            ),
        )),
    }
}

/// `ARRAY<T>`.
pub(super) fn array(element: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", element, true)))
}

/// Whether a column of this type can be the event time.
pub(super) fn is_event_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(_, _) | DataType::Date32)
}

fn decimal(args: &[u64]) -> Result<Typed, (String, Option<String>)> {
    let (precision, scale) = match args {
        [] => (10, 0),
        [p] => (*p, 0),
        [p, s] => (*p, *s),
        _ => return Err(("DECIMAL takes a precision and a scale".to_owned(), None)),
    };
    if precision == 0 || precision > DECIMAL_PRECISION_MAX || scale > precision {
        return Err((
            format!("DECIMAL({precision}, {scale}) is out of range"),
            Some(format!("the precision is 1 to {DECIMAL_PRECISION_MAX}, the scale 0 to the precision")),
        ));
    }
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(precision), Ok(scale)) => Ok((DataType::Decimal128(precision, scale), 0)),
        _ => Err((format!("DECIMAL({precision}, {scale}) is out of range"), None)),
    }
}

fn digits(args: &[u64], default: u8) -> Result<u8, (String, Option<String>)> {
    match args {
        [] => Ok(default),
        [p] if *p <= 9 => Ok(u8::try_from(*p).unwrap_or(9)),
        _ => Err(("the fractional-second digits are 0 to 9".to_owned(), None)),
    }
}

/// A positive duration like `90 days` or `1 day 12 hours`, microseconds.
pub(super) fn duration_us(text: &str) -> Option<i64> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut sum = 0_i64;
    for pair in words.chunks(2) {
        let [count, unit] = pair else { return None };
        let unit_us: i64 = match unit.to_lowercase().trim_end_matches('s') {
            "millisecond" => 1_000,
            "second" | "sec" => 1_000_000,
            "minute" | "min" => 60_000_000,
            "hour" | "h" => 3_600_000_000,
            "day" | "d" => 86_400_000_000,
            "week" => 7 * 86_400_000_000,
            _ => return None,
        };
        sum = sum.checked_add(count.parse::<i64>().ok()?.checked_mul(unit_us)?)?;
    }
    (sum > 0).then_some(sum)
}
