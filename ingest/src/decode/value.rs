//! One JSON value into one typed column, by the declared type and by what the record's schema part says.

use arrow::datatypes::DataType;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::number::{self, Noise};
use super::scan::{Kind, Raw, Scanner, unescape};
use super::time::{self, Unit};
use super::{DecimalText, ValueError};
use crate::column::Column;

/// What the `schema` part of a record says of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Hint {
    /// Nothing: the declared type decides.
    #[default]
    None,
    /// The unit of a bare number in a date, time or timestamp column.
    Unit(Unit),
    /// Base64 of an unscaled integer with this scale (Connect's `Decimal`).
    Unscaled(i32),
    /// The decimal is sent as text.
    Text,
}

/// What conversion needs to know besides the value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context {
    pub(crate) hint: Hint,
    /// Fractional-second digits the column declares.
    pub(crate) time_digits: u8,
    /// Whether this topic sends decimals as digits or as base64, as far as known.
    pub(crate) decimals: DecimalText,
}

/// Adds the value to the column; on an error the column is as it was.
///
/// `raw` is neither missing nor null.
#[inline]
pub(crate) fn push(
    column: &mut Column,
    data_type: &DataType,
    context: &mut Context,
    text: &[u8],
    raw: Raw,
    scratch: &mut Vec<u8>,
) -> Result<(), ValueError> {
    let mut bytes = raw.of(text);
    if raw.kind == Kind::Escaped {
        scratch.clear();
        unescape(bytes, scratch).ok_or(ValueError::BadEscape)?;
        bytes = scratch.as_slice();
    }
    let is_text = matches!(raw.kind, Kind::Text | Kind::Escaped);
    match data_type {
        DataType::Utf8 => column.push_bytes(bytes),
        DataType::Int64 if is_text && matches!(bytes.first(), Some(b'P' | b'-')) => {
            column.push_int(time::duration_us(bytes).or_else(|_| number::integer(bytes))?);
        }
        DataType::Int64 => column.push_int(integer(raw.kind, bytes)?),
        DataType::Int32 => column.push_int(narrow::<i32>(integer(raw.kind, bytes)?)?),
        DataType::Int16 => column.push_int(narrow::<i16>(integer(raw.kind, bytes)?)?),
        DataType::Int8 => column.push_int(narrow::<i8>(integer(raw.kind, bytes)?)?),
        DataType::Decimal128(precision, scale) => {
            column.push_decimal(decimal(raw.kind, bytes, *precision, *scale, context)?);
        }
        DataType::Boolean => column.push_bool(boolean(raw.kind, bytes)?),
        DataType::Timestamp(_, _) => {
            let us = if is_text { time::timestamp(bytes)? } else { count(raw.kind, bytes, context)? };
            column.push_int(time::timestamp_in_range(us)?);
        }
        DataType::Date32 => column.push_int(date(raw.kind, bytes, is_text, context)?),
        DataType::Time64(_) => {
            let us = if is_text { time::time(bytes)? } else { count(raw.kind, bytes, context)? };
            column.push_int(time::time_in_range(us)?);
        }
        DataType::Float64 => column.push_float(float(raw.kind, bytes)?),
        DataType::Float32 => {
            let value = float(raw.kind, bytes)?;
            if (value as f32).is_infinite() {
                return Err(ValueError::OutOfRange);
            }
            column.push_float(value);
        }
        DataType::Binary if is_text => {
            column.push_bytes(&STANDARD.decode(bytes).map_err(|_| ValueError::NoBase64)?);
        }
        DataType::List(field) => {
            // Some connectors send an array as a string with JSON inside.
            if raw.kind != Kind::Array && !(is_text && bytes.first() == Some(&b'[')) {
                return Err(ValueError::WrongKind(raw.kind));
            }
            let mut trial = Column::new(field.data_type());
            array_elements(bytes, &mut trial)?;
            column.push_bytes(bytes);
        }
        _ => return Err(ValueError::WrongKind(raw.kind)),
    }
    Ok(())
}

/// Adds every element of a JSON array to `child`.
pub(crate) fn array_elements(text: &[u8], child: &mut Column) -> Result<(), ValueError> {
    let malformed = |_| ValueError::NoArray;
    let mut scanner = Scanner::new(text);
    let mut scratch = Vec::new();
    let data_type = child.data_type().clone();
    scanner.expect(b'[').map_err(malformed)?;
    if scanner.accept(b']') {
        return scanner.end().map_err(malformed);
    }
    loop {
        let raw = scanner.value().map_err(malformed)?;
        if raw.is_some() {
            let mut context = Context { hint: Hint::None, time_digits: 6, decimals: DecimalText::Unknown };
            push(child, &data_type, &mut context, text, raw, &mut scratch)?;
        } else {
            child.push_null();
        }
        if !scanner.accept(b',') {
            scanner.expect(b']').map_err(malformed)?;
            return scanner.end().map_err(malformed);
        }
    }
}

#[inline]
fn integer(kind: Kind, bytes: &[u8]) -> Result<i64, ValueError> {
    match kind {
        Kind::Number | Kind::Text => number::integer(bytes),
        other => Err(ValueError::WrongKind(other)),
    }
}

fn narrow<T: TryFrom<i64>>(value: i64) -> Result<i64, ValueError> {
    if T::try_from(value).is_ok() { Ok(value) } else { Err(ValueError::OutOfRange) }
}

fn float(kind: Kind, bytes: &[u8]) -> Result<f64, ValueError> {
    match kind {
        Kind::Number | Kind::Text => number::float(bytes),
        other => Err(ValueError::WrongKind(other)),
    }
}

fn boolean(kind: Kind, bytes: &[u8]) -> Result<bool, ValueError> {
    match (kind, bytes) {
        (Kind::True, _) | (Kind::Text, b"true") | (Kind::Number, b"1") => Ok(true),
        (Kind::False, _) | (Kind::Text, b"false") | (Kind::Number, b"0") => Ok(false),
        (other, _) => Err(ValueError::WrongKind(other)),
    }
}

/// A bare number in a time or timestamp column, in microseconds.
fn count(kind: Kind, bytes: &[u8], context: &Context) -> Result<i64, ValueError> {
    if kind != Kind::Number {
        return Err(ValueError::WrongKind(kind));
    }
    let unit = match context.hint {
        Hint::Unit(unit) => unit,
        _ => Unit::of_digits(context.time_digits),
    };
    unit.to_us(number::integer(bytes)?)
}

fn date(kind: Kind, bytes: &[u8], is_text: bool, context: &Context) -> Result<i64, ValueError> {
    if is_text {
        return time::date(bytes);
    }
    if kind != Kind::Number {
        return Err(ValueError::WrongKind(kind));
    }
    let number = number::integer(bytes)?;
    let days = match context.hint {
        // Some databases' DATE has a time, and comes as a timestamp.
        Hint::Unit(unit) if unit != Unit::Days => unit.to_us(number)?.div_euclid(time::DAY_US),
        _ => number,
    };
    time::date_in_range(days)
}

fn decimal(kind: Kind, bytes: &[u8], precision: u8, scale: i8, context: &mut Context) -> Result<i128, ValueError> {
    match kind {
        Kind::Number => number::decimal(bytes, precision, scale, Noise::Possible),
        Kind::Text | Kind::Escaped => {
            let from_scale = match context.hint {
                Hint::Unscaled(from_scale) => Some(from_scale),
                Hint::Text => None,
                _ => is_base64(bytes, &mut context.decimals)?.then_some(i32::from(scale)),
            };
            match from_scale {
                Some(from_scale) => unscaled(bytes, from_scale, precision, scale),
                None => number::decimal(bytes, precision, scale, Noise::None),
            }
        }
        Kind::Object => variable_scale(bytes, precision, scale),
        other => Err(ValueError::WrongKind(other)),
    }
}

/// What a decimal sent as text looks like.
///
/// A few base64 texts look like a number too: `1234`, or `+123`. What the topic sent before decides these.
pub(crate) fn decimal_text(bytes: &[u8]) -> DecimalText {
    let is_digits = !bytes.len().is_multiple_of(4) || bytes.iter().any(|b| matches!(b, b'.' | b'-'));
    if is_digits || bytes == b"Infinity" {
        DecimalText::Digits
    } else if bytes.iter().all(|b| matches!(b, b'0'..=b'9' | b'+' | b'e' | b'E')) {
        DecimalText::Unknown
    } else {
        DecimalText::Base64
    }
}

/// Whether a decimal sent as text is base64 rather than digits; remembers what the topic sends.
fn is_base64(bytes: &[u8], topic: &mut DecimalText) -> Result<bool, ValueError> {
    match (decimal_text(bytes), *topic) {
        (DecimalText::Unknown, known) => Ok(known == DecimalText::Base64),
        // It may as well be a word that is no number: the caller looks at the other decimals of the record.
        (DecimalText::Base64, DecimalText::Digits | DecimalText::Unknown) => Err(ValueError::DecimalFormChanged),
        (found, _) => {
            *topic = found;
            Ok(found == DecimalText::Base64)
        }
    }
}

fn unscaled(base64: &[u8], from_scale: i32, precision: u8, scale: i8) -> Result<i128, ValueError> {
    // Numbers are short; a longer text is decoded on the heap.
    let mut buffer = [0_u8; 36];
    if base64.len() <= 48 {
        let len = STANDARD.decode_slice(base64, &mut buffer).map_err(|_| ValueError::NoNumber)?;
        return number::unscaled(&buffer[..len], from_scale, precision, scale);
    }
    let bytes = STANDARD.decode(base64).map_err(|_| ValueError::NoNumber)?;
    number::unscaled(&bytes, from_scale, precision, scale)
}

/// `{"scale":2,"value":"AuKg"}`.
fn variable_scale(object: &[u8], precision: u8, scale: i8) -> Result<i128, ValueError> {
    let malformed = |_| ValueError::NoNumber;
    let mut scanner = Scanner::new(object);
    let mut from_scale = None;
    let mut value = None;
    scanner.expect(b'{').map_err(malformed)?;
    while !scanner.accept(b'}') {
        let key = scanner.string().map_err(malformed)?;
        scanner.expect(b':').map_err(malformed)?;
        let raw = scanner.value().map_err(malformed)?;
        match (key.of(object), raw.kind) {
            (b"scale", Kind::Number) => from_scale = i32::try_from(number::integer(raw.of(object))?).ok(),
            (b"value", Kind::Text) => value = Some(raw),
            _ => {}
        }
        scanner.accept(b',');
    }
    match (from_scale, value) {
        (Some(from_scale), Some(value)) => unscaled(value.of(object), from_scale, precision, scale),
        _ => Err(ValueError::NoNumber),
    }
}
