//! The fields of an object in the order they were last seen.
//!
//! A connector writes the fields of a table always in the same order, so the next field is nearly always the one that
//! came next in the record before. Comparing its bytes is one `memcmp`; only a surprise is looked up.

use super::scan::{Malformed, Scanner, unescape};

/// An object's fields with what each means to the caller.
#[derive(Debug)]
pub(crate) struct Layout<T> {
    /// The bytes from the field's opening quote to after its colon, and its meaning.
    fields: Vec<(Box<[u8]>, T)>,
}

/// Beyond so many fields nothing is remembered; further ones are looked up each time.
const FIELDS_MAX: usize = 4096;

impl<T: Copy> Layout<T> {
    pub(crate) fn new() -> Self {
        Self { fields: Vec::new() }
    }

    /// Moves past the next field's name and colon and says what it means.
    #[inline]
    pub(crate) fn next(
        &mut self,
        scanner: &mut Scanner<'_>,
        text: &[u8],
        index: usize,
        lookup: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, Malformed> {
        scanner.peek();
        if let Some((name, meaning)) = self.fields.get(index)
            && scanner.accept_exact(name)
        {
            return Ok(*meaning);
        }
        self.learn(scanner, text, index, lookup)
    }

    #[cold]
    fn learn(
        &mut self,
        scanner: &mut Scanner<'_>,
        text: &[u8],
        index: usize,
        lookup: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, Malformed> {
        let start = scanner.at;
        let name = scanner.string()?;
        scanner.expect(b':')?;
        let mut plain = Vec::new();
        if unescape(name.of(text), &mut plain).is_none() {
            return Err(Malformed { at: start });
        }
        let meaning = lookup(&plain);
        if index < FIELDS_MAX {
            self.fields.truncate(index);
            if self.fields.len() == index {
                self.fields.push((scanner.since(start).into(), meaning));
            }
        }
        Ok(meaning)
    }
}
