//! Growable typed columns: what decoding writes and what table state keeps.
//!
//! Unlike Arrow's builders they can be cut back to a row when a record turns out bad, be overwritten in place, and be
//! compared and gathered by row numbers. Integers, dates and times share one 64-bit form and get their width back in
//! [`Column::gather`]; arrays are kept as their JSON text.

use std::sync::Arc;

use arrow::array::{
    ArrayAccessor, ArrayIter, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, BooleanArray, Float32Array,
    Float64Array, Int64Array, ListArray, PrimitiveArray, RecordBatch, StringArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    Schema, Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use arrow::json::LineDelimitedWriter;

use crate::decode::array_elements;

/// Overwritten texts are swept out when they are more than this and more than half of the whole.
const GARBAGE_BYTES_MIN: usize = 64 * 1024;

/// A column of one of the types that DDL can declare.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    data_type: DataType,
    values: Values,
    valid: Vec<bool>,
}

#[derive(Debug, Clone)]
enum Values {
    Bool(Vec<bool>),
    Int(Vec<i64>),
    Float(Vec<f64>),
    Decimal(Vec<i128>),
    Bytes(Texts),
}

/// Byte strings in one buffer; an overwritten one leaves garbage behind.
#[derive(Debug, Clone, Default)]
struct Texts {
    data: Vec<u8>,
    starts: Vec<usize>,
    lens: Vec<u32>,
    garbage_bytes: usize,
}

impl Texts {
    #[inline]
    fn get(&self, row: usize) -> &[u8] {
        &self.data[self.starts[row]..self.starts[row] + self.lens[row] as usize]
    }

    #[inline]
    fn push(&mut self, bytes: &[u8]) {
        self.starts.push(self.data.len());
        // Records are limited to far less than 4 GB.
        self.lens.push(bytes.len() as u32);
        self.data.extend_from_slice(bytes);
    }

    fn set(&mut self, row: usize, bytes: &[u8]) {
        let (start, old_len) = (self.starts[row], self.lens[row] as usize);
        self.lens[row] = bytes.len() as u32;
        if bytes.len() <= old_len {
            self.data[start..start + bytes.len()].copy_from_slice(bytes);
            self.garbage_bytes += old_len - bytes.len();
            return;
        }
        self.garbage_bytes += old_len;
        self.starts[row] = self.data.len();
        self.data.extend_from_slice(bytes);
        if self.garbage_bytes > GARBAGE_BYTES_MIN && self.garbage_bytes > self.data.len() / 2 {
            self.sweep();
        }
    }

    fn sweep(&mut self) {
        let mut kept = Vec::with_capacity(self.data.len() - self.garbage_bytes);
        for (start, len) in self.starts.iter_mut().zip(&self.lens) {
            let from = std::mem::replace(start, kept.len());
            kept.extend_from_slice(&self.data[from..from + *len as usize]);
        }
        self.data = kept;
        self.garbage_bytes = 0;
    }
}

impl Column {
    pub(crate) fn new(data_type: &DataType) -> Self {
        let values = match data_type {
            DataType::Boolean => Values::Bool(Vec::new()),
            DataType::Float32 | DataType::Float64 => Values::Float(Vec::new()),
            DataType::Decimal128(_, _) => Values::Decimal(Vec::new()),
            DataType::Utf8 | DataType::Binary | DataType::List(_) => Values::Bytes(Texts::default()),
            _ => Values::Int(Vec::new()),
        };
        Self { data_type: data_type.clone(), values, valid: Vec::new() }
    }

    pub(crate) fn data_type(&self) -> &DataType {
        &self.data_type
    }

    pub(crate) fn len(&self) -> usize {
        self.valid.len()
    }

    /// A row without a value: NULL, or a placeholder where the caller knows better than to read it.
    #[inline]
    pub(crate) fn push_null(&mut self) {
        self.valid.push(false);
        match &mut self.values {
            Values::Bool(v) => v.push(false),
            Values::Int(v) => v.push(0),
            Values::Float(v) => v.push(0.0),
            Values::Decimal(v) => v.push(0),
            Values::Bytes(v) => v.push(&[]),
        }
    }

    /// Adds a boolean; the column must be of that type, here and in the next methods.
    #[inline]
    pub(crate) fn push_bool(&mut self, value: bool) {
        if let Values::Bool(v) = &mut self.values {
            v.push(value);
            self.valid.push(true);
        }
    }

    #[inline]
    pub(crate) fn push_int(&mut self, value: i64) {
        if let Values::Int(v) = &mut self.values {
            v.push(value);
            self.valid.push(true);
        }
    }

    #[inline]
    pub(crate) fn push_float(&mut self, value: f64) {
        if let Values::Float(v) = &mut self.values {
            v.push(value);
            self.valid.push(true);
        }
    }

    #[inline]
    pub(crate) fn push_decimal(&mut self, value: i128) {
        if let Values::Decimal(v) = &mut self.values {
            v.push(value);
            self.valid.push(true);
        }
    }

    #[inline]
    pub(crate) fn push_bytes(&mut self, value: &[u8]) {
        if let Values::Bytes(v) = &mut self.values {
            v.push(value);
            self.valid.push(true);
        }
    }

    /// A column with the values of an Arrow array, which has one of the types that DDL can declare.
    ///
    /// # Errors
    /// If the array has another type.
    pub(crate) fn from_array(array: &ArrayRef) -> Result<Self, ArrowError> {
        let mut column = Self::new(array.data_type());
        match array.data_type() {
            DataType::Boolean => each(array.as_boolean(), &mut column, Self::push_bool),
            DataType::Float64 => each(array.as_primitive::<Float64Type>(), &mut column, Self::push_float),
            DataType::Float32 => {
                each(array.as_primitive::<Float32Type>(), &mut column, |c, v| c.push_float(f64::from(v)));
            }
            DataType::Decimal128(_, _) => {
                each(array.as_primitive::<Decimal128Type>(), &mut column, Self::push_decimal);
            }
            DataType::Utf8 => each(array.as_string::<i32>(), &mut column, |c, v| c.push_bytes(v.as_bytes())),
            DataType::Binary => each(array.as_binary::<i32>(), &mut column, Self::push_bytes),
            DataType::List(_) => each(&json_texts(array)?, &mut column, |c, v| c.push_bytes(v.as_bytes())),
            DataType::Int8 => each(array.as_primitive::<Int8Type>(), &mut column, |c, v| c.push_int(v.into())),
            DataType::Int16 => each(array.as_primitive::<Int16Type>(), &mut column, |c, v| c.push_int(v.into())),
            DataType::Int32 => each(array.as_primitive::<Int32Type>(), &mut column, |c, v| c.push_int(v.into())),
            DataType::Date32 => each(array.as_primitive::<Date32Type>(), &mut column, |c, v| c.push_int(v.into())),
            DataType::Time64(_) => each(array.as_primitive::<Time64MicrosecondType>(), &mut column, Self::push_int),
            DataType::Timestamp(_, _) => {
                each(array.as_primitive::<TimestampMicrosecondType>(), &mut column, Self::push_int);
            }
            DataType::Int64 => each(array.as_primitive::<Int64Type>(), &mut column, Self::push_int),
            other => return Err(ArrowError::SchemaError(format!("{other} is no type of a source column"))),
        }
        Ok(column)
    }

    /// Adds a copy of a row of a column of the same type.
    pub(crate) fn push_from(&mut self, source: &Self, row: usize) {
        self.valid.push(source.valid[row]);
        match (&mut self.values, &source.values) {
            (Values::Bool(v), Values::Bool(s)) => v.push(s[row]),
            (Values::Int(v), Values::Int(s)) => v.push(s[row]),
            (Values::Float(v), Values::Float(s)) => v.push(s[row]),
            (Values::Decimal(v), Values::Decimal(s)) => v.push(s[row]),
            (Values::Bytes(v), Values::Bytes(s)) => v.push(s.get(row)),
            _ => unreachable!("columns of one table have one type"),
        }
    }

    /// Adds a copy of one of its own rows.
    pub(crate) fn push_own(&mut self, row: usize) {
        self.valid.push(self.valid[row]);
        match &mut self.values {
            Values::Bool(v) => v.push(v[row]),
            Values::Int(v) => v.push(v[row]),
            Values::Float(v) => v.push(v[row]),
            Values::Decimal(v) => v.push(v[row]),
            Values::Bytes(v) => {
                let (start, len) = (v.starts[row], v.lens[row]);
                v.starts.push(v.data.len());
                v.lens.push(len);
                v.data.extend_from_within(start..start + len as usize);
            }
        }
    }

    /// Cuts a column that was only ever appended to back to its first `len` rows.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.valid.truncate(len);
        match &mut self.values {
            Values::Bool(v) => v.truncate(len),
            Values::Int(v) => v.truncate(len),
            Values::Float(v) => v.truncate(len),
            Values::Decimal(v) => v.truncate(len),
            Values::Bytes(v) => {
                if let Some(start) = v.starts.get(len) {
                    v.data.truncate(*start);
                }
                v.starts.truncate(len);
                v.lens.truncate(len);
            }
        }
    }

    /// Adds rows without a value until there are `len`.
    pub(crate) fn grow(&mut self, len: usize) {
        while self.len() < len {
            self.push_null();
        }
    }

    /// Overwrites a row with one of a column of the same type.
    pub(crate) fn set_from(&mut self, row: usize, source: &Self, source_row: usize) {
        self.valid[row] = source.valid[source_row];
        match (&mut self.values, &source.values) {
            (Values::Bool(v), Values::Bool(s)) => v[row] = s[source_row],
            (Values::Int(v), Values::Int(s)) => v[row] = s[source_row],
            (Values::Float(v), Values::Float(s)) => v[row] = s[source_row],
            (Values::Decimal(v), Values::Decimal(s)) => v[row] = s[source_row],
            (Values::Bytes(v), Values::Bytes(s)) => v.set(row, s.get(source_row)),
            _ => unreachable!("columns of one table have one type"),
        }
    }

    /// Empties a row, so that a deleted row's text takes no room.
    pub(crate) fn unset(&mut self, row: usize) {
        self.valid[row] = false;
        if let Values::Bytes(v) = &mut self.values {
            v.set(row, &[]);
        }
    }

    pub(crate) fn is_null(&self, row: usize) -> bool {
        !self.valid[row]
    }

    /// Whether two rows hold the same value; NULL is the same as NULL, floats by their bits.
    #[inline]
    pub(crate) fn same(&self, row: usize, other: &Self, other_row: usize) -> bool {
        if self.valid[row] != other.valid[other_row] {
            return false;
        }
        !self.valid[row]
            || match (&self.values, &other.values) {
                (Values::Bool(a), Values::Bool(b)) => a[row] == b[other_row],
                (Values::Int(a), Values::Int(b)) => a[row] == b[other_row],
                (Values::Float(a), Values::Float(b)) => a[row].to_bits() == b[other_row].to_bits(),
                (Values::Decimal(a), Values::Decimal(b)) => a[row] == b[other_row],
                (Values::Bytes(a), Values::Bytes(b)) => a.get(row) == b.get(other_row),
                _ => unreachable!("columns of one table have one type"),
            }
    }

    /// The integer form of a row: integers, days, microseconds.
    #[inline]
    pub(crate) fn int(&self, row: usize) -> Option<i64> {
        match &self.values {
            Values::Int(v) if self.valid[row] => Some(v[row]),
            _ => None,
        }
    }

    /// The largest integer form of all rows that is not over `limit`.
    pub(crate) fn int_max(&self, limit: i64) -> Option<i64> {
        self.int_max_from(0, limit)
    }

    /// The same of the rows from `first` on.
    pub(crate) fn int_max_from(&self, first: usize, limit: i64) -> Option<i64> {
        let Values::Int(v) = &self.values else { return None };
        let rows = v[first..].iter().zip(&self.valid[first..]);
        rows.filter(|(value, valid)| **valid && **value <= limit).map(|(value, _)| *value).max()
    }

    /// Smallest integer form from row `first` on.
    pub(crate) fn int_min_from(&self, first: usize) -> Option<i64> {
        self.ints_from(first).filter_map(|(_, value)| value).min()
    }

    /// The rows from `first` on with their integer forms.
    pub(crate) fn ints_from(&self, first: usize) -> impl Iterator<Item = (usize, Option<i64>)> {
        let values: &[i64] = if let Values::Int(v) = &self.values { &v[first..] } else { &[] };
        let rows = values.iter().zip(&self.valid[first..]).enumerate();
        rows.map(move |(i, (value, valid))| (first + i, valid.then_some(*value)))
    }

    /// Number of rows from `first` on whose integer form is over `limit`.
    pub(crate) fn count_above(&self, first: usize, limit: i64) -> u64 {
        let Values::Int(v) = &self.values else { return 0 };
        let rows = v[first..].iter().zip(&self.valid[first..]);
        rows.filter(|(value, valid)| **valid && **value > limit).count() as u64
    }

    /// Appends an unambiguous form of a row for use as a part of a key.
    pub(crate) fn key_bytes(&self, row: usize, out: &mut Vec<u8>) {
        match &self.values {
            Values::Bool(v) => out.push(u8::from(v[row])),
            Values::Int(v) => out.extend_from_slice(&v[row].to_le_bytes()),
            Values::Float(v) => out.extend_from_slice(&v[row].to_bits().to_le_bytes()),
            Values::Decimal(v) => out.extend_from_slice(&v[row].to_le_bytes()),
            Values::Bytes(v) => {
                out.extend_from_slice(&v.lens[row].to_le_bytes());
                out.extend_from_slice(v.get(row));
            }
        }
    }

    /// All rows of a column that was only ever appended to, without copying most types; the column is empty
    /// afterwards.
    ///
    /// # Errors
    /// If the texts are too long together for one array.
    pub(crate) fn drain(&mut self) -> Result<ArrayRef, ArrowError> {
        let n_rows = self.len();
        let data_type = self.data_type.clone();
        let narrow = !matches!(data_type, DataType::Int64 | DataType::Timestamp(_, _) | DataType::Time64(_));
        if matches!(data_type, DataType::List(_)) || (narrow && matches!(self.values, Values::Int(_))) {
            let rows: Vec<u32> = (0..n_rows as u32).collect();
            let array = Self::gather([(self, &rows), (self, &[])])?;
            self.truncate(0);
            return Ok(array);
        }
        let drained = std::mem::replace(self, Self::new(&data_type));
        let nulls = drained.valid.contains(&false).then(|| NullBuffer::from(drained.valid));
        Ok(match drained.values {
            Values::Int(v) if data_type == DataType::Int64 => Arc::new(Int64Array::new(ScalarBuffer::from(v), nulls)),
            Values::Int(v) if matches!(data_type, DataType::Time64(_)) => {
                Arc::new(PrimitiveArray::<Time64MicrosecondType>::new(ScalarBuffer::from(v), nulls))
            }
            Values::Int(v) => Arc::new(
                PrimitiveArray::<TimestampMicrosecondType>::new(ScalarBuffer::from(v), nulls).with_data_type(data_type),
            ),
            Values::Float(v) if data_type == DataType::Float64 => {
                Arc::new(Float64Array::try_new(ScalarBuffer::from(v), nulls)?)
            }
            Values::Float(v) => {
                let values: Vec<f32> = v.into_iter().map(|v| v as f32).collect();
                Arc::new(Float32Array::try_new(ScalarBuffer::from(values), nulls)?)
            }
            Values::Decimal(v) => Arc::new(
                PrimitiveArray::<Decimal128Type>::try_new(ScalarBuffer::from(v), nulls)?.with_data_type(data_type),
            ),
            Values::Bool(v) => Arc::new(BooleanArray::new(BooleanBuffer::from(v), nulls)),
            Values::Bytes(v) => {
                let mut offsets = Vec::with_capacity(n_rows + 1);
                offsets.push(0_i32);
                let mut end = 0_usize;
                for len in &v.lens {
                    end += *len as usize;
                    offsets.push(i32::try_from(end).map_err(|_| ArrowError::OffsetOverflowError(end))?);
                }
                let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
                let data = Buffer::from_vec(v.data);
                match data_type {
                    DataType::Utf8 => Arc::new(StringArray::try_new(offsets, data, nulls)?),
                    _ => Arc::new(BinaryArray::try_new(offsets, data, nulls)?),
                }
            }
        })
    }

    /// Rows of several columns of this type, one after the other, as an Arrow array.
    ///
    /// # Errors
    /// If the texts are too long together for one array.
    pub(crate) fn gather(parts: [(&Self, &[u32]); 2]) -> Result<ArrayRef, ArrowError> {
        let n_rows = parts[0].1.len() + parts[1].1.len();
        let nulls = nulls(parts, n_rows);
        Ok(match &parts[0].0.data_type {
            DataType::Boolean => {
                let values = parts.iter().flat_map(|(c, rows)| match &c.values {
                    Values::Bool(v) => rows.iter().map(|r| v[*r as usize]).collect::<Vec<_>>(),
                    _ => Vec::new(),
                });
                Arc::new(BooleanArray::new(BooleanBuffer::from_iter(values), nulls))
            }
            DataType::Int8 => ints::<Int8Type>(parts, nulls, |v| v as i8, &DataType::Int8),
            DataType::Int16 => ints::<Int16Type>(parts, nulls, |v| v as i16, &DataType::Int16),
            DataType::Int32 => ints::<Int32Type>(parts, nulls, |v| v as i32, &DataType::Int32),
            DataType::Date32 => ints::<Date32Type>(parts, nulls, |v| v as i32, &DataType::Date32),
            t @ DataType::Time64(_) => ints::<Time64MicrosecondType>(parts, nulls, |v| v, t),
            t @ DataType::Timestamp(_, _) => ints::<TimestampMicrosecondType>(parts, nulls, |v| v, t),
            DataType::Float32 => Arc::new(Float32Array::try_new(floats(parts, |v| v as f32), nulls)?),
            DataType::Float64 => Arc::new(Float64Array::try_new(floats(parts, |v| v), nulls)?),
            t @ DataType::Decimal128(_, _) => {
                let values = collect(parts, |c, rows, out| {
                    if let Values::Decimal(v) = &c.values {
                        out.extend(rows.iter().map(|r| v[*r as usize]));
                    }
                });
                let array = PrimitiveArray::<Decimal128Type>::try_new(ScalarBuffer::from(values), nulls)?;
                Arc::new(array.with_data_type(t.clone()))
            }
            DataType::Utf8 => {
                let (offsets, data) = texts(parts)?;
                Arc::new(StringArray::try_new(offsets, data, nulls)?)
            }
            DataType::Binary => {
                let (offsets, data) = texts(parts)?;
                Arc::new(BinaryArray::try_new(offsets, data, nulls)?)
            }
            DataType::List(field) => {
                let mut child = Self::new(field.data_type());
                let mut lens = Vec::with_capacity(n_rows);
                for (column, rows) in parts {
                    let Values::Bytes(v) = &column.values else { continue };
                    for row in rows {
                        let before = child.len();
                        if column.valid[*row as usize] {
                            array_elements(v.get(*row as usize), &mut child)
                                .map_err(|e| ArrowError::JsonError(e.to_string()))?;
                        }
                        lens.push(child.len() - before);
                    }
                }
                let rows: Vec<u32> = (0..child.len() as u32).collect();
                let items = Self::gather([(&child, &rows), (&child, &[])])?;
                Arc::new(ListArray::try_new(Arc::clone(field), OffsetBuffer::from_lengths(lens), items, nulls)?)
            }
            t => ints::<Int64Type>(parts, nulls, |v| v, t),
        })
    }
}

fn each<A: ArrayAccessor>(array: A, column: &mut Column, push: impl Fn(&mut Column, A::Item)) {
    for value in ArrayIter::new(array) {
        match value {
            Some(value) => push(column, value),
            None => column.push_null(),
        }
    }
}

/// Lists as JSON texts, the form in which a column keeps them.
fn json_texts(array: &ArrayRef) -> Result<StringArray, ArrowError> {
    let field = Field::new("v", array.data_type().clone(), true);
    let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![Arc::clone(array)])?;
    let mut writer = LineDelimitedWriter::new(Vec::new());
    writer.write(&batch)?;
    writer.finish()?;
    let text = String::from_utf8(writer.into_inner()).map_err(|e| ArrowError::JsonError(e.to_string()))?;
    Ok(text.lines().map(|line| line.strip_prefix("{\"v\":").and_then(|rest| rest.strip_suffix('}'))).collect())
}

fn nulls(parts: [(&Column, &[u32]); 2], n_rows: usize) -> Option<NullBuffer> {
    let any = parts.iter().any(|(c, rows)| rows.iter().any(|r| !c.valid[*r as usize]));
    any.then(|| {
        let [(a, a_rows), (b, b_rows)] = parts;
        NullBuffer::new(BooleanBuffer::collect_bool(n_rows, |i| match a_rows.get(i) {
            Some(row) => a.valid[*row as usize],
            None => b.valid[b_rows[i - a_rows.len()] as usize],
        }))
    })
}

fn collect<T>(parts: [(&Column, &[u32]); 2], add: impl Fn(&Column, &[u32], &mut Vec<T>)) -> Vec<T> {
    let mut values = Vec::with_capacity(parts[0].1.len() + parts[1].1.len());
    for (column, rows) in parts {
        add(column, rows, &mut values);
    }
    values
}

fn ints<T: ArrowPrimitiveType>(
    parts: [(&Column, &[u32]); 2],
    nulls: Option<NullBuffer>,
    narrow: impl Fn(i64) -> T::Native,
    data_type: &DataType,
) -> ArrayRef {
    let values = collect(parts, |c, rows, out| {
        if let Values::Int(v) = &c.values {
            out.extend(rows.iter().map(|r| narrow(v[*r as usize])));
        }
    });
    Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(values), nulls).with_data_type(data_type.clone()))
}

fn floats<T: arrow::datatypes::ArrowNativeType>(
    parts: [(&Column, &[u32]); 2],
    narrow: impl Fn(f64) -> T,
) -> ScalarBuffer<T> {
    ScalarBuffer::from(collect(parts, |c, rows, out| {
        if let Values::Float(v) = &c.values {
            out.extend(rows.iter().map(|r| narrow(v[*r as usize])));
        }
    }))
}

fn texts(parts: [(&Column, &[u32]); 2]) -> Result<(OffsetBuffer<i32>, Buffer), ArrowError> {
    let mut offsets = Vec::with_capacity(parts[0].1.len() + parts[1].1.len() + 1);
    let mut data = Vec::new();
    offsets.push(0_i32);
    for (column, rows) in parts {
        let Values::Bytes(v) = &column.values else { continue };
        for row in rows {
            data.extend_from_slice(v.get(*row as usize));
            let end = i32::try_from(data.len()).map_err(|_| ArrowError::OffsetOverflowError(data.len()))?;
            offsets.push(end);
        }
    }
    Ok((OffsetBuffer::new(ScalarBuffer::from(offsets)), Buffer::from_vec(data)))
}
