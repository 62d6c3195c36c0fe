//! Fossil deltas: the difference of two payloads as copies from the old one and inserted bytes.
//!
//! Format: `<length of the result>\n`, then any of `<n>@<offset>,` (copy) and `<n>:<bytes>` (insert), then
//! `<checksum of the result>;`. Numbers are written in base 64 with the digits below, most significant first.
//! Matches are found by the blocks of the old payload at multiples of [`BLOCK`], looked up at every place of the new one.

use std::collections::HashMap;

/// Length of the blocks that matches start from.
const BLOCK: usize = 16;
/// Payloads over this are sent whole: finding a delta would keep others waiting.
const BYTES_MAX: usize = 256 << 10;
const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";

/// The delta that makes `new` of `old`; `None` if it would not be shorter than `new` itself.
pub(crate) fn create(old: &[u8], new: &[u8]) -> Option<Vec<u8>> {
    if old.len() > BYTES_MAX || new.len() > BYTES_MAX {
        return None;
    }
    let mut out = Vec::with_capacity(64);
    write_number(&mut out, new.len());
    out.push(b'\n');
    // The last block of a kind wins; any would do.
    let blocks: HashMap<&[u8], usize> =
        old.chunks_exact(BLOCK).enumerate().map(|(block_idx, block)| (block, block_idx * BLOCK)).collect();
    let (mut written, mut at) = (0, 0);
    while at + BLOCK <= new.len() {
        let Some(&found) = blocks.get(&new[at..at + BLOCK]) else {
            at += 1;
            continue;
        };
        let before = common_suffix(&old[..found], &new[written..at]);
        let after = common_prefix(&old[found..], &new[at..]);
        insert(&mut out, &new[written..at - before]);
        write_number(&mut out, before + after);
        out.push(b'@');
        write_number(&mut out, found - before);
        out.push(b',');
        at += after;
        written = at;
        if out.len() >= new.len() {
            return None;
        }
    }
    insert(&mut out, &new[written..]);
    write_number(&mut out, checksum(new) as usize);
    out.push(b';');
    (out.len() < new.len()).then_some(out)
}

fn insert(out: &mut Vec<u8>, bytes: &[u8]) {
    if !bytes.is_empty() {
        write_number(out, bytes.len());
        out.push(b':');
        out.extend_from_slice(bytes);
    }
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

fn common_suffix(a: &[u8], b: &[u8]) -> usize {
    a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}

fn write_number(out: &mut Vec<u8>, mut number: usize) {
    let start = out.len();
    loop {
        out.push(DIGITS[number % 64]);
        number /= 64;
        if number == 0 {
            break;
        }
    }
    out[start..].reverse();
}

/// The sum of the bytes as big-endian 32-bit words, the last one filled up with zeros.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.chunks(4).fold(0, |sum: u32, chunk| {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        sum.wrapping_add(u32::from_be_bytes(word))
    })
}

/// Applies a delta, as a client does; `None` if it does not fit.
pub(crate) fn apply(old: &[u8], delta: &[u8]) -> Option<Vec<u8>> {
    let mut at = 0;
    let number = |at: &mut usize| {
        let mut number = 0_usize;
        while let Some(digit) = delta.get(*at).and_then(|b| DIGITS.iter().position(|d| d == b)) {
            number = number.saturating_mul(64).saturating_add(digit);
            *at += 1;
        }
        number
    };
    let length = number(&mut at);
    at += 1;
    let mut out = Vec::new();
    loop {
        let n = number(&mut at);
        let operator = *delta.get(at)?;
        at += 1;
        match operator {
            b'@' => {
                let offset = number(&mut at);
                at += 1;
                out.extend_from_slice(old.get(offset..offset.checked_add(n)?)?);
            }
            b':' => {
                out.extend_from_slice(delta.get(at..at.checked_add(n)?)?);
                at += n;
            }
            b';' => return (out.len() == length && n == checksum(&out) as usize).then_some(out),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_small_change_makes_a_small_delta() {
        let old = format!(r#"{{"counter":1,"payload":"{}"}}"#, "a".repeat(500));
        let new = old.replace(":1,", ":2,");
        let delta = create(old.as_bytes(), new.as_bytes()).expect("much shorter");
        assert!(delta.len() < 80, "{}", String::from_utf8_lossy(&delta));
        assert_eq!(apply(old.as_bytes(), &delta).as_deref(), Some(new.as_bytes()));
        assert_eq!(create(b"", b"{}"), None);
    }

    proptest! {
        #[test]
        fn a_delta_makes_the_new_of_the_old(
            old in proptest::collection::vec(0..3_u8, 0..400),
            edits in proptest::collection::vec((0..400_usize, proptest::collection::vec(any::<u8>(), 0..40), 0..60_usize), 0..5),
        ) {
            let mut new = old.clone();
            for (at, inserted, removed) in edits {
                let at = at.min(new.len());
                let end = (at + removed).min(new.len());
                new.splice(at..end, inserted);
            }
            if let Some(delta) = create(&old, &new) {
                prop_assert!(delta.len() < new.len());
                prop_assert_eq!(apply(&old, &delta), Some(new));
            }
        }
    }
}
