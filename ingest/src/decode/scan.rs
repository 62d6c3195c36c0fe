//! One forward pass over JSON text: where values start and end, and nothing more.
//!
//! Nothing is copied and nothing is built: a record of a kilobyte has a dozen values that matter, and the rest is
//! only stepped over. Strings are scanned eight bytes at a time. Skipped values are checked for balance, not for every
//! rule of JSON; what is used is checked when it is converted. No recursion, so depth cannot exhaust the stack.

/// What a value is, told by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Kind {
    /// There is no such value.
    #[default]
    Missing,
    Null,
    True,
    False,
    Number,
    /// A string without escapes: its bytes are its text.
    Text,
    /// A string with escapes.
    Escaped,
    Object,
    Array,
}

/// The place of a value in its text; for strings without the quotes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Raw {
    pub(crate) kind: Kind,
    start: u32,
    end: u32,
}

impl Raw {
    /// The bytes of the value.
    pub(crate) fn of<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        text.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// A value that is the whole of `text`.
    pub(crate) fn whole(kind: Kind, text: &[u8]) -> Self {
        Self { kind, start: 0, end: u32::try_from(text.len()).unwrap_or(u32::MAX) }
    }

    /// A value that lies between two positions.
    pub(crate) fn between(kind: Kind, start: usize, end: usize) -> Self {
        Self { kind, start: start as u32, end: end as u32 }
    }

    /// Whether there is a value that is not null.
    pub(crate) fn is_some(&self) -> bool {
        !matches!(self.kind, Kind::Missing | Kind::Null)
    }
}

/// Where the text stops being JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed {
    pub(crate) at: usize,
}

/// Moves forward over JSON text of less than 4 GB (records are limited far below).
pub(crate) struct Scanner<'a> {
    bytes: &'a [u8],
    pub(crate) at: usize,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Starts at the first byte of a value found earlier.
    pub(crate) fn inside(bytes: &'a [u8], raw: Raw) -> Self {
        Self { bytes, at: raw.start as usize }
    }

    pub(crate) fn malformed<T>(&self) -> Result<T, Malformed> {
        Err(Malformed { at: self.at })
    }

    /// The next byte that is not white space, without moving past it.
    #[inline]
    pub(crate) fn peek(&mut self) -> Option<u8> {
        loop {
            match self.bytes.get(self.at) {
                Some(b' ' | b'\n' | b'\t' | b'\r') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    /// Moves past `byte`, or stays.
    #[inline]
    pub(crate) fn accept(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    #[inline]
    pub(crate) fn expect(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.accept(byte) { Ok(()) } else { self.malformed() }
    }

    /// Nothing but white space is left.
    pub(crate) fn end(&mut self) -> Result<(), Malformed> {
        if self.peek().is_none() { Ok(()) } else { self.malformed() }
    }

    /// Moves past these exact bytes, or stays.
    #[inline]
    pub(crate) fn accept_exact(&mut self, expected: &[u8]) -> bool {
        let found = self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(expected));
        if found {
            self.at += expected.len();
        }
        found
    }

    /// Bytes from an earlier position up to here.
    pub(crate) fn since(&self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.at]
    }

    /// The next value; moves past it.
    #[inline]
    pub(crate) fn value(&mut self) -> Result<Raw, Malformed> {
        let first = self.peek();
        let start = self.at;
        let kind = match first {
            Some(b'"') => return self.string(),
            Some(b'-' | b'0'..=b'9') => {
                self.number();
                Kind::Number
            }
            Some(b'n') => self.word(b"null", Kind::Null)?,
            Some(b't') => self.word(b"true", Kind::True)?,
            Some(b'f') => self.word(b"false", Kind::False)?,
            Some(b'{') => self.container(Kind::Object)?,
            Some(b'[') => self.container(Kind::Array)?,
            _ => return self.malformed(),
        };
        Ok(Raw { kind, start: start as u32, end: self.at as u32 })
    }

    /// A string, its opening quote included in what is moved past.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<Raw, Malformed> {
        self.expect(b'"')?;
        let start = self.at;
        let mut kind = Kind::Text;
        loop {
            match self.quote_or_escape() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Raw { kind, start: start as u32, end: self.at as u32 - 1 });
                }
                Some(_) => {
                    kind = Kind::Escaped;
                    self.at += 2;
                }
                None => return self.malformed(),
            }
        }
    }

    /// Moves to the next quote or backslash.
    #[inline]
    fn quote_or_escape(&mut self) -> Option<u8> {
        const ONES: u64 = 0x0101_0101_0101_0101;
        const HIGHS: u64 = 0x8080_8080_8080_8080;
        // The classic test for a zero byte in a word; the lowest hit it reports is exact.
        let hits = |word: u64, byte: u8| {
            let x = word ^ (ONES * u64::from(byte));
            x.wrapping_sub(ONES) & !x & HIGHS
        };
        while let Some(chunk) = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
            let word = u64::from_le_bytes(*chunk);
            let found = hits(word, b'"') | hits(word, b'\\');
            if found != 0 {
                self.at += found.trailing_zeros() as usize / 8;
                return self.bytes.get(self.at).copied();
            }
            self.at += 8;
        }
        while let Some(&byte) = self.bytes.get(self.at) {
            if byte == b'"' || byte == b'\\' {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    #[inline]
    fn number(&mut self) {
        while let Some(b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    #[inline]
    fn word(&mut self, word: &[u8], kind: Kind) -> Result<Kind, Malformed> {
        if self.accept_exact(word) { Ok(kind) } else { self.malformed() }
    }

    /// Moves past an object or array by counting brackets outside strings.
    fn container(&mut self, kind: Kind) -> Result<Kind, Malformed> {
        let mut depth = 0_usize;
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.string()?;
                    continue;
                }
                Some(b'{' | b'[') => depth += 1,
                Some(b'}' | b']') => {
                    depth -= 1;
                    if depth == 0 {
                        self.at += 1;
                        return Ok(kind);
                    }
                }
                Some(_) => {}
                None => return self.malformed(),
            }
            self.at += 1;
        }
    }
}

/// Appends the text of an escaped string.
///
/// Fails on an unknown escape and on half of a surrogate pair.
pub(crate) fn unescape(raw: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut rest = raw;
    while let Some(at) = rest.iter().position(|&b| b == b'\\') {
        out.extend_from_slice(&rest[..at]);
        let (escape, after) = rest[at + 1..].split_first()?;
        rest = after;
        match escape {
            b'"' | b'\\' | b'/' => out.push(*escape),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => {
                let mut code = hex4(rest)?;
                rest = &rest[4..];
                if (0xD800..0xDC00).contains(&code) {
                    let low = hex4(rest.strip_prefix(b"\\u")?)?.checked_sub(0xDC00).filter(|low| *low < 0x400)?;
                    rest = &rest[6..];
                    code = 0x10000 + ((code - 0xD800) << 10) + low;
                }
                out.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes());
            }
            _ => return None,
        }
    }
    out.extend_from_slice(rest);
    Some(())
}

fn hex4(text: &[u8]) -> Option<u32> {
    text.get(..4)?.iter().try_fold(0, |code, &b| Some(code * 16 + char::from(b).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_end_where_json_says() {
        for (text, kind, len) in [
            (r#""a\"b\\" , 1"#, Kind::Escaped, 6),
            (r#""a much longer text, over eight bytes""#, Kind::Text, 36),
            ("-1.5e+3]", Kind::Number, 7),
            (r#"{"a":"}","b":[{}]} x"#, Kind::Object, 18),
            ("null,", Kind::Null, 4),
        ] {
            let raw = Scanner::new(text.as_bytes()).value().unwrap();
            assert_eq!((raw.kind, raw.of(text.as_bytes()).len()), (kind, len), "{text}");
        }
        for text in ["", "\"open", "{\"a\":1", "nul", "\"a\\", "]"] {
            assert!(Scanner::new(text.as_bytes()).value().is_err(), "{text}");
        }
    }

    #[test]
    fn escapes_are_those_of_json() {
        let check = |text: &str| {
            let mut out = Vec::new();
            unescape(text.as_bytes(), &mut out).map(|()| String::from_utf8(out).unwrap())
        };
        assert_eq!(check(r#"a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00 ü"#).unwrap(), "a\"\\/\u{8}\u{c}\n\r\té😀 ü");
        assert_eq!(check(r"\ud83d"), None);
        assert_eq!(check(r"\ude00"), None);
        assert_eq!(check(r"\x"), None);
        assert_eq!(check(r"\u12"), None);
    }
}
