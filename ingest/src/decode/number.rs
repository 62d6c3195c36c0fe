//! Numbers from their digits, exactly: nothing here goes through a float.

use super::ValueError;

/// 10^0 to 10^38.
pub(crate) const POW10: [i128; 39] = {
    let mut powers = [1_i128; 39];
    let mut i = 1;
    while i < 39 {
        powers[i] = powers[i - 1] * 10;
        i += 1;
    }
    powers
};

/// Digits of a number that came from a double: beyond these the rest is noise of the binary form.
const DOUBLE_NOISE_DIGITS: u32 = 15;
const NOISE_FACTOR: u128 = 10_u128.pow(DOUBLE_NOISE_DIGITS);

/// Whether digits that the declared scale has no room for may be noise of a binary float.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Noise {
    /// A JSON number: it may be 0.30000000000000004.
    Possible,
    /// A text: every digit was meant.
    None,
}

/// The unscaled value of `text` at `scale`.
///
/// Digits that would be lost are an error, but for trailing zeros and the noise of a double.
pub(crate) fn decimal(text: &[u8], precision: u8, scale: i8, noise: Noise) -> Result<i128, ValueError> {
    let (negative, digits) = match text.first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let mut mantissa = 0_u128;
    let mut exponent = 0_i64;
    let mut n_digits = 0_usize;
    let mut seen_point = false;
    let mut at = 0;
    while let Some(&byte) = digits.get(at) {
        match byte {
            b'0'..=b'9' => {
                n_digits += 1;
                let digit = u128::from(byte - b'0');
                match mantissa.checked_mul(10).and_then(|m| m.checked_add(digit)) {
                    Some(m) => {
                        mantissa = m;
                        exponent -= i64::from(seen_point);
                    }
                    // Beyond 38 digits only zeros carry no value.
                    None if digit == 0 => exponent += i64::from(!seen_point),
                    None => return Err(ValueError::OutOfRange),
                }
            }
            b'.' if !seen_point => seen_point = true,
            b'e' | b'E' if n_digits > 0 => {
                exponent += exponent_of(&digits[at + 1..])?;
                at = digits.len();
                continue;
            }
            _ => return Err(ValueError::NoNumber),
        }
        at += 1;
    }
    if n_digits == 0 {
        return Err(ValueError::NoNumber);
    }
    let value = rescale(mantissa, exponent + i64::from(scale), noise)?;
    in_precision(if negative { -value } else { value }, precision)
}

fn exponent_of(text: &[u8]) -> Result<i64, ValueError> {
    let text = std::str::from_utf8(text).map_err(|_| ValueError::NoNumber)?;
    text.parse::<i32>().map(i64::from).map_err(|_| ValueError::NoNumber)
}

/// `mantissa` × 10^`shift`.
fn rescale(mantissa: u128, shift: i64, noise: Noise) -> Result<i128, ValueError> {
    let value = if mantissa == 0 || shift == 0 {
        mantissa
    } else if shift > 0 {
        let factor = usize::try_from(shift).ok().and_then(|s| POW10.get(s)).ok_or(ValueError::OutOfRange)?;
        mantissa.checked_mul(factor.unsigned_abs()).ok_or(ValueError::OutOfRange)?
    } else {
        let divisor = usize::try_from(-shift).ok().and_then(|s| POW10.get(s)).ok_or(ValueError::DigitsLost)?;
        let divisor = divisor.unsigned_abs();
        let (quotient, rest) = (mantissa / divisor, mantissa % divisor);
        let (rounded, off) = if rest * 2 >= divisor { (quotient + 1, divisor - rest) } else { (quotient, rest) };
        let is_noise = noise == Noise::Possible && off.checked_mul(NOISE_FACTOR).is_some_and(|o| o <= mantissa);
        if rest != 0 && !is_noise {
            return Err(ValueError::DigitsLost);
        }
        rounded
    };
    i128::try_from(value).map_err(|_| ValueError::OutOfRange)
}

fn in_precision(value: i128, precision: u8) -> Result<i128, ValueError> {
    match POW10.get(usize::from(precision)) {
        Some(limit) if value.abs() < *limit => Ok(value),
        _ => Err(ValueError::OutOfRange),
    }
}

/// An unscaled big-endian two's-complement integer at `from_scale`, rescaled to `scale`.
pub(crate) fn unscaled(bytes: &[u8], from_scale: i32, precision: u8, scale: i8) -> Result<i128, ValueError> {
    let first = *bytes.first().ok_or(ValueError::NoNumber)?;
    let fill = if first & 0x80 != 0 { 0xFF } else { 0 };
    let significant = bytes.iter().position(|&b| b != fill).map_or(&bytes[bytes.len() - 1..], |at| {
        // Keep one fill byte where the next byte alone would have the other sign.
        let from = if (bytes[at] ^ fill) & 0x80 != 0 { at.saturating_sub(1) } else { at };
        &bytes[from..]
    });
    if significant.len() > 16 {
        return Err(ValueError::OutOfRange);
    }
    let mut word = [fill; 16];
    word[16 - significant.len()..].copy_from_slice(significant);
    let value = i128::from_be_bytes(word);
    let scaled = rescale(value.unsigned_abs(), i64::from(scale) - i64::from(from_scale), Noise::None)?;
    in_precision(if value < 0 { -scaled } else { scaled }, precision)
}

/// An integer from a JSON number or from text; `5.0` and `5e2` are integers too.
#[inline]
pub(crate) fn integer(text: &[u8]) -> Result<i64, ValueError> {
    let (negative, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, text),
    };
    // 18 digits cannot overflow; whatever else there is takes the exact way.
    if digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        let value = decimal(text, 20, 0, Noise::None)?;
        return i64::try_from(value).map_err(|_| ValueError::OutOfRange);
    }
    let value = digits.iter().fold(0_i64, |value, byte| value * 10 + i64::from(byte - b'0'));
    Ok(if negative { -value } else { value })
}

/// A finite float.
pub(crate) fn float(text: &[u8]) -> Result<f64, ValueError> {
    let text = std::str::from_utf8(text).map_err(|_| ValueError::NoNumber)?;
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        Ok(_) => Err(ValueError::NotFinite),
        Err(_) => Err(ValueError::NoNumber),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact_or_refused() {
        let text = |t: &str| decimal(t.as_bytes(), 10, 2, Noise::None);
        assert_eq!(text("12.50"), Ok(1250));
        assert_eq!(text("-0.07"), Ok(-7));
        assert_eq!(text("12.5000"), Ok(1250));
        assert_eq!(text("1.25e1"), Ok(1250));
        assert_eq!(text("1E+3"), Ok(100_000));
        assert_eq!(text("12.505"), Err(ValueError::DigitsLost));
        assert_eq!(text("123456789.00"), Err(ValueError::OutOfRange));
        assert_eq!(text("99999999.99"), Ok(9_999_999_999));
        for bad in ["", "-", "NaN", "1.2.3", "e5", "0x1", "1,5", "--1"] {
            assert_eq!(text(bad), Err(ValueError::NoNumber), "{bad}");
        }
        assert_eq!(decimal(b"0.30000000000000004", 10, 2, Noise::Possible), Ok(30));
        assert_eq!(decimal(b"0.29999999999999998", 10, 2, Noise::Possible), Ok(30));
        assert_eq!(decimal(b"0.305", 10, 2, Noise::Possible), Err(ValueError::DigitsLost));
        let long = "12345678901234567890123456789012345678";
        assert_eq!(decimal(long.as_bytes(), 38, 0, Noise::None), Ok(long.parse().unwrap()));
        assert_eq!(decimal(b"1e400", 38, 0, Noise::None), Err(ValueError::OutOfRange));
        assert_eq!(decimal(b"0e400", 38, 0, Noise::None), Ok(0));
    }

    #[test]
    fn unscaled_integers_have_any_length() {
        assert_eq!(unscaled(&[0x28, 0x15], 2, 10, 2), Ok(10261));
        assert_eq!(unscaled(&[0xFF], 2, 10, 2), Ok(-1));
        assert_eq!(unscaled(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF], 0, 10, 2), Ok(25_500));
        assert_eq!(unscaled(&[0xFF; 20], 0, 10, 0), Ok(-1));
        assert_eq!(unscaled(&[0x7F; 17], 0, 38, 0), Err(ValueError::OutOfRange));
        assert_eq!(unscaled(&[5], 3, 10, 2), Err(ValueError::DigitsLost));
        assert_eq!(unscaled(&[50], 3, 10, 2), Ok(5));
        assert_eq!(unscaled(&[5], -2, 10, 2), Ok(50_000));
        assert_eq!(unscaled(&[], 0, 10, 2), Err(ValueError::NoNumber));
    }

    #[test]
    fn integers_have_no_fraction() {
        assert_eq!(integer(b"-42"), Ok(-42));
        assert_eq!(integer(b"9223372036854775807"), Ok(i64::MAX));
        assert_eq!(integer(b"-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(integer(b"9223372036854775808"), Err(ValueError::OutOfRange));
        assert_eq!(integer(b"5.0"), Ok(5));
        assert_eq!(integer(b"5.5"), Err(ValueError::DigitsLost));
        assert_eq!(integer(b"x"), Err(ValueError::NoNumber));
        assert_eq!(float(b"0.1"), Ok(0.1));
        assert_eq!(float(b"NaN"), Err(ValueError::NotFinite));
    }
}
