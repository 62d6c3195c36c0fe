//! The fields of an object in the order they were last seen.
//!
//! A connector writes the fields of a table always in the same order, so the next field is nearly always the one that
//! came next in the record before. Comparing its bytes is one `memcmp`; only a surprise is looked up. A topic may carry
//! records of a few kinds, so each place remembers a few fields.

use super::scan::{Malformed, Scanner, unescape};

/// An object's fields with what each means to the caller.
#[derive(Debug)]
pub(crate) struct Layout<T> {
    /// By place: the bytes from a field's opening quote to after its colon, and its meaning.
    places: Vec<Vec<(Box<[u8]>, T)>>,
}

/// Beyond so many fields nothing is remembered; further ones are looked up each time.
const FIELDS_MAX: usize = 4096;
/// Fields that are remembered for one place; the oldest gives way to another.
const KINDS_MAX: usize = 4;

impl<T: Copy> Layout<T> {
    pub(crate) fn new() -> Self {
        Self { places: Vec::new() }
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
        for (name, meaning) in self.places.get(index).into_iter().flatten() {
            if scanner.accept_exact(name) {
                return Ok(*meaning);
            }
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
            if self.places.len() <= index {
                self.places.resize_with(index + 1, Vec::new);
            }
            let known = &mut self.places[index];
            if known.len() == KINDS_MAX {
                known.remove(0);
            }
            known.push((scanner.since(start).into(), meaning));
        }
        Ok(meaning)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_several_kinds_are_looked_up_once() {
        let mut layout = Layout::new();
        let mut n_lookups = 0;
        let mut read = |text: &str| {
            let mut scanner = Scanner::new(text.as_bytes());
            let mut names = Vec::new();
            while scanner.peek().is_some() {
                let lookup = |name: &[u8]| {
                    n_lookups += 1;
                    name[0]
                };
                names.push(layout.next(&mut scanner, text.as_bytes(), names.len(), lookup).expect("a name"));
                scanner.value().expect("a value");
                scanner.accept(b',');
            }
            String::from_utf8(names).expect("letters")
        };
        for _ in 0..10 {
            assert_eq!(read(r#""a":1,"b":2,"c":3"#), "abc");
            assert_eq!(read(r#""b":1,"a":2"#), "ba");
            assert_eq!(read(r#""d":1,"b": 2,"e":3,"f":4"#), "dbef");
        }
        assert_eq!(n_lookups, 8, "a, b, c; b, a; d, e, f");
    }
}
