//! Finds the parts of a record: which form it has, and where the values of the table's columns are in its text.
//!
//! Four forms are told apart record by record: Debezium's envelope, a flattened row with `__op` and the like, a plain
//! row, and each of these wrapped in `{"schema", "payload"}`.

use std::collections::HashMap;

use model::SourceFormat;

use super::changes::NO_POSITION;
use super::layout::Layout;
use super::scan::{Kind, Malformed, Raw, Scanner};
use super::schema::SchemaCache;

/// A field that is no column of the table.
const NO_COLUMN: u16 = u16::MAX;

/// What a field at the top of a record is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Before,
    After,
    Source,
    Op,
    Schema,
    Payload,
    FlatOp,
    FlatDeleted,
    FlatPosition,
    TransactionMark,
    Transaction,
    None,
}

/// A field's role and, since rows may have columns of such names, its column.
#[derive(Debug, Clone, Copy)]
struct Meaning {
    role: Role,
    column: u16,
}

impl Meaning {
    fn of(name: &[u8], columns: &HashMap<Box<[u8]>, u16>, format: SourceFormat) -> Self {
        let role = match (format, name) {
            (_, b"schema") => Role::Schema,
            (_, b"payload") => Role::Payload,
            (_, b"__op") => Role::FlatOp,
            (_, b"__deleted") => Role::FlatDeleted,
            (_, b"__source_lsn" | b"__lsn") => Role::FlatPosition,
            (SourceFormat::Json, _) => Role::None,
            (_, b"before") => Role::Before,
            (_, b"after") => Role::After,
            (_, b"source") => Role::Source,
            (_, b"op") => Role::Op,
            (_, b"data_collections") => Role::TransactionMark,
            (_, b"transaction") => Role::Transaction,
            _ => Role::None,
        };
        Self { role, column: columns.get(name).copied().unwrap_or(NO_COLUMN) }
    }
}

/// What was found in a record's value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    /// `c`, `u`, `r`, `d`, `t`, `m`, …; `None` if there is no such field.
    pub(crate) op: Option<u8>,
    /// Whether there was a `before`, `after` or `source` as an envelope has it.
    pub(crate) is_envelope: bool,
    /// Whether `after` is an object; its values are in [`Parser::row`].
    pub(crate) has_after: bool,
    pub(crate) before: Raw,
    pub(crate) schema: Raw,
    pub(crate) payload: Raw,
    /// Position in the database's log.
    pub(crate) position: i64,
    pub(crate) flat_op: Option<u8>,
    pub(crate) flat_deleted: bool,
    /// The block that names the source transaction.
    pub(crate) transaction: Raw,
    pub(crate) is_transaction_mark: bool,
    /// Whether any of the table's columns is at the top.
    pub(crate) has_columns: bool,
}

impl Default for Found {
    fn default() -> Self {
        Self {
            op: None,
            is_envelope: false,
            has_after: false,
            before: Raw::default(),
            schema: Raw::default(),
            payload: Raw::default(),
            position: NO_POSITION,
            flat_op: None,
            flat_deleted: false,
            transaction: Raw::default(),
            is_transaction_mark: false,
            has_columns: false,
        }
    }
}

/// Remembers the fields of earlier records, and holds the places of the current one's values.
#[derive(Debug)]
pub(crate) struct Parser {
    format: SourceFormat,
    pub(crate) columns: HashMap<Box<[u8]>, u16>,
    top: [Layout<Meaning>; 2],
    row_layout: Layout<u16>,
    source_layout: Layout<bool>,
    key_layout: [Layout<Meaning>; 2],
    /// Values of `after`, by column.
    pub(crate) row: Vec<Raw>,
    /// Values at the top, by column.
    pub(crate) flat: Vec<Raw>,
    /// Values of the record's key, by column.
    pub(crate) key: Vec<Raw>,
}

impl Parser {
    pub(crate) fn new(format: SourceFormat, columns: HashMap<Box<[u8]>, u16>) -> Self {
        let none = vec![Raw::default(); columns.len()];
        Self {
            format,
            columns,
            top: [Layout::new(), Layout::new()],
            row_layout: Layout::new(),
            source_layout: Layout::new(),
            key_layout: [Layout::new(), Layout::new()],
            row: none.clone(),
            flat: none.clone(),
            key: none,
        }
    }

    /// Reads a record's value; `schemas` knows the schema part of earlier ones.
    pub(crate) fn value(&mut self, text: &[u8], schemas: &SchemaCache) -> Result<Found, Malformed> {
        let mut found = Found::default();
        self.row.fill(Raw::default());
        self.flat.fill(Raw::default());
        let mut scanner = Scanner::new(text);
        self.object(&mut scanner, text, 0, schemas, &mut found)?;
        scanner.end()?;
        if found.schema.kind == Kind::Object && found.payload.kind == Kind::Object {
            let (schema, payload) = (found.schema, found.payload);
            self.row.fill(Raw::default());
            self.flat.fill(Raw::default());
            found = Found::default();
            self.object(&mut Scanner::inside(text, payload), text, 1, schemas, &mut found)?;
            found.schema = schema;
        }
        Ok(found)
    }

    fn object(
        &mut self,
        scanner: &mut Scanner<'_>,
        text: &[u8],
        level: usize,
        schemas: &SchemaCache,
        found: &mut Found,
    ) -> Result<(), Malformed> {
        scanner.expect(b'{')?;
        if scanner.accept(b'}') {
            return Ok(());
        }
        let mut index = 0;
        loop {
            let (columns, format) = (&self.columns, self.format);
            let meaning = self.top[level].next(scanner, text, index, |name| Meaning::of(name, columns, format))?;
            self.field(scanner, text, meaning, schemas, found)?;
            index += 1;
            if !scanner.accept(b',') {
                return scanner.expect(b'}');
            }
        }
    }

    #[inline]
    fn field(
        &mut self,
        scanner: &mut Scanner<'_>,
        text: &[u8],
        meaning: Meaning,
        schemas: &SchemaCache,
        found: &mut Found,
    ) -> Result<(), Malformed> {
        let next = scanner.peek();
        let start = scanner.at;
        let raw = match meaning.role {
            Role::After if next == Some(b'{') => {
                row(scanner, text, &self.columns, &mut self.row_layout, &mut self.row)?;
                found.has_after = true;
                found.is_envelope = true;
                Raw::between(Kind::Object, start, scanner.at)
            }
            Role::Source if next == Some(b'{') => {
                self.source(scanner, text, found)?;
                found.is_envelope = true;
                Raw::between(Kind::Object, start, scanner.at)
            }
            Role::Schema if !schemas.bytes().is_empty() && scanner.accept_exact(schemas.bytes()) => {
                Raw::between(Kind::Object, start, scanner.at)
            }
            _ => scanner.value()?,
        };
        let bytes = raw.of(text);
        match meaning.role {
            Role::After => found.is_envelope |= raw.kind == Kind::Null,
            Role::Before => {
                found.is_envelope |= matches!(raw.kind, Kind::Object | Kind::Null);
                found.before = raw;
            }
            Role::Op => found.op = (raw.kind == Kind::Text && bytes.len() == 1).then(|| bytes[0]),
            Role::FlatOp => found.flat_op = (raw.kind == Kind::Text && bytes.len() == 1).then(|| bytes[0]),
            Role::FlatDeleted => found.flat_deleted = bytes == b"true",
            Role::FlatPosition => found.position = position(raw, text),
            Role::Schema => found.schema = raw,
            Role::Payload => found.payload = raw,
            Role::Transaction => found.transaction = raw,
            Role::TransactionMark => found.is_transaction_mark = true,
            Role::Source | Role::None => {}
        }
        if meaning.column != NO_COLUMN {
            self.flat[usize::from(meaning.column)] = raw;
            found.has_columns = true;
        }
        Ok(())
    }

    /// Of an envelope's source only the position matters.
    fn source(&mut self, scanner: &mut Scanner<'_>, text: &[u8], found: &mut Found) -> Result<(), Malformed> {
        scanner.expect(b'{')?;
        if scanner.accept(b'}') {
            return Ok(());
        }
        let mut index = 0;
        loop {
            let is_position = self.source_layout.next(scanner, text, index, |name| name == b"lsn")?;
            let raw = scanner.value()?;
            if is_position {
                found.position = position(raw, text);
            }
            index += 1;
            if !scanner.accept(b',') {
                return scanner.expect(b'}');
            }
        }
    }

    /// Reads the row in `before` into [`Self::row`].
    pub(crate) fn before(&mut self, text: &[u8], before: Raw) -> Result<(), Malformed> {
        self.row.fill(Raw::default());
        row(&mut Scanner::inside(text, before), text, &self.columns, &mut self.row_layout, &mut self.row)
    }

    /// Reads a record's key into [`Self::key`]: an object, wrapped or not, or a bare value for a key of one column.
    /// Returns the place of the schema part.
    pub(crate) fn key(&mut self, text: &[u8], single: Option<usize>) -> Result<Raw, Malformed> {
        self.key.fill(Raw::default());
        let mut scanner = Scanner::new(text);
        if scanner.peek() != Some(b'{') {
            let raw = scanner.value()?;
            scanner.end()?;
            if let Some(column) = single {
                self.key[column] = raw;
            }
            return Ok(Raw::default());
        }
        let (schema, payload) = self.key_object(&mut scanner, text, 0)?;
        scanner.end()?;
        if schema.kind != Kind::Object || !payload.is_some() {
            return Ok(Raw::default());
        }
        self.key.fill(Raw::default());
        match (payload.kind, single) {
            (Kind::Object, _) => {
                self.key_object(&mut Scanner::inside(text, payload), text, 1)?;
            }
            (_, Some(column)) => self.key[column] = payload,
            _ => {}
        }
        Ok(schema)
    }

    fn key_object(&mut self, scanner: &mut Scanner<'_>, text: &[u8], level: usize) -> Result<(Raw, Raw), Malformed> {
        let (mut schema, mut payload) = (Raw::default(), Raw::default());
        scanner.expect(b'{')?;
        if scanner.accept(b'}') {
            return Ok((schema, payload));
        }
        let mut index = 0;
        loop {
            let columns = &self.columns;
            let meaning = self.key_layout[level]
                .next(scanner, text, index, |name| Meaning::of(name, columns, SourceFormat::Json))?;
            let raw = scanner.value()?;
            match meaning.role {
                Role::Schema => schema = raw,
                Role::Payload => payload = raw,
                _ => {}
            }
            if meaning.column != NO_COLUMN {
                self.key[usize::from(meaning.column)] = raw;
            }
            index += 1;
            if !scanner.accept(b',') {
                scanner.expect(b'}')?;
                return Ok((schema, payload));
            }
        }
    }
}

/// Reads a row's values by column.
fn row(
    scanner: &mut Scanner<'_>,
    text: &[u8],
    columns: &HashMap<Box<[u8]>, u16>,
    layout: &mut Layout<u16>,
    out: &mut [Raw],
) -> Result<(), Malformed> {
    scanner.expect(b'{')?;
    if scanner.accept(b'}') {
        return Ok(());
    }
    let mut index = 0;
    loop {
        let column = layout.next(scanner, text, index, |name| columns.get(name).copied().unwrap_or(NO_COLUMN))?;
        let raw = scanner.value()?;
        if let Some(place) = out.get_mut(usize::from(column)) {
            *place = raw;
        }
        index += 1;
        if !scanner.accept(b',') {
            return scanner.expect(b'}');
        }
    }
}

fn position(raw: Raw, text: &[u8]) -> i64 {
    match raw.kind {
        Kind::Number | Kind::Text => super::number::integer(raw.of(text)).unwrap_or(NO_POSITION),
        _ => NO_POSITION,
    }
}
