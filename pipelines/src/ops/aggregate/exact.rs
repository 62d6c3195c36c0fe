//! A sum of floats without rounding: what is added and taken away again leaves no trace, in any order.
//!
//! The sum is a fixed-point number wide enough for every double, held in 32-bit digits with room for carries (a
//! superaccumulator as Kulisch describes it); only digits in use are stored. It is rounded once, when it is read.

use super::bags::take_i64;
use crate::error::OpResult;

/// Bits of a digit; the remaining bits of its 64 are room for carries.
const DIGIT_BITS: u32 = 32;
const DIGIT_MASK: i64 = (1 << DIGIT_BITS) - 1;
/// A digit beyond this is carried over.
const DIGIT_MAX: u64 = 1 << 61;
/// The last bit of the smallest double is 2^-1074.
const DOUBLE_ORIGIN: u32 = 1_074;
const MANTISSA_BITS: u32 = 53;

/// Which terms a sum takes: its lowest bit is 2^-origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Terms {
    /// Doubles.
    Values,
    /// Products of two doubles.
    Products,
}

impl Terms {
    fn origin(self) -> u32 {
        match self {
            Self::Values => DOUBLE_ORIGIN,
            Self::Products => 2 * DOUBLE_ORIGIN,
        }
    }
}

/// An exact sum.
#[derive(Debug, Clone)]
pub(super) struct ExactSum {
    terms: Terms,
    /// Place of the first stored digit.
    base: usize,
    digits: Vec<i64>,
    /// Terms that are no finite number: NaN, +∞, −∞.
    special: [i64; 3],
}

/// A finite double as mantissa × 2^(place − 1074), and whether it is negative.
fn parts(value: f64) -> (u64, u32, bool) {
    let bits = value.to_bits();
    let exponent = u32::try_from((bits >> 52) & 0x7ff).unwrap_or(0);
    let fraction = bits & ((1 << 52) - 1);
    match exponent {
        0 => (fraction, 0, value.is_sign_negative()),
        _ => (fraction | (1 << 52), exponent - 1, value.is_sign_negative()),
    }
}

impl ExactSum {
    pub(super) fn new(terms: Terms) -> Self {
        Self { terms, base: 0, digits: Vec::new(), special: [0; 3] }
    }

    fn is_special(&mut self, value: f64, weight: i64) -> bool {
        let class = match value {
            v if v.is_nan() => 0,
            f64::INFINITY => 1,
            f64::NEG_INFINITY => 2,
            _ => return false,
        };
        self.special[class] += weight;
        true
    }

    /// Adds a value `weight` times.
    pub(super) fn add(&mut self, value: f64, weight: i64) {
        if self.is_special(value, weight) {
            return;
        }
        let (mantissa, place, negative) = parts(value);
        let place = place + self.terms.origin() - DOUBLE_ORIGIN;
        self.add_bits(u128::from(mantissa) * u128::from(weight.unsigned_abs()), place, negative != (weight < 0));
    }

    /// Adds a·b `weight` times; only for [`Terms::Products`].
    pub(super) fn add_product(&mut self, a: f64, b: f64, weight: i64) {
        if !(a.is_finite() && b.is_finite()) {
            self.is_special(a * b, weight);
            return;
        }
        let ((m, p, m_negative), (n, q, n_negative)) = (parts(a), parts(b));
        let negative = (m_negative != n_negative) != (weight < 0);
        let product = u128::from(m) * u128::from(n);
        let times = u128::from(weight.unsigned_abs());
        let low = product & ((1 << MANTISSA_BITS) - 1);
        self.add_bits(low * times, p + q, negative);
        self.add_bits((product >> MANTISSA_BITS) * times, p + q + MANTISSA_BITS, negative);
    }

    fn add_bits(&mut self, mut bits: u128, place: u32, negative: bool) {
        let mut digit = (place / DIGIT_BITS) as usize;
        let shift = place % DIGIT_BITS;
        while bits != 0 {
            let part = (bits & u128::from(u32::MAX)) << shift;
            self.add_digit(digit, i64::try_from(part & u128::from(u32::MAX)).unwrap_or(0), negative);
            self.add_digit(digit + 1, i64::try_from(part >> DIGIT_BITS).unwrap_or(0), negative);
            bits >>= DIGIT_BITS;
            digit += 1;
        }
    }

    fn add_digit(&mut self, place: usize, value: i64, negative: bool) {
        if value == 0 {
            return;
        }
        if self.digits.is_empty() {
            self.base = place;
        }
        if place < self.base {
            self.digits.splice(0..0, std::iter::repeat_n(0, self.base - place));
            self.base = place;
        }
        let at = place - self.base;
        if at >= self.digits.len() {
            self.digits.resize(at + 1, 0);
        }
        self.digits[at] += if negative { -value } else { value };
        if self.digits[at].unsigned_abs() > DIGIT_MAX {
            carry(&mut self.digits);
        }
    }

    /// The sum, rounded to the nearest double.
    pub(super) fn value(&self) -> f64 {
        match self.special {
            [0, 0, 0] => {}
            [0, _, 0] => return f64::INFINITY,
            [0, 0, _] => return f64::NEG_INFINITY,
            _ => return f64::NAN,
        }
        let mut digits = self.digits.clone();
        carry(&mut digits);
        let negative = digits.last().is_some_and(|d| *d < 0);
        if negative {
            digits.iter_mut().for_each(|d| *d = -*d);
            carry(&mut digits);
        }
        while digits.last() == Some(&0) {
            digits.pop();
        }
        let Some(top) = digits.len().checked_sub(1) else { return 0.0 };
        // The three highest digits hold more than the 53 bits of a double; what lies below decides ties only.
        let digit = |back: usize| top.checked_sub(back).map_or(0, |i| u128::from(digits[i].unsigned_abs()));
        let sticky = top >= 3 && digits[..top - 2].iter().any(|d| *d != 0);
        let bits = (digit(0) << (2 * DIGIT_BITS)) | (digit(1) << DIGIT_BITS) | digit(2) | u128::from(sticky);
        let lowest = i64::try_from((self.base + top) * DIGIT_BITS as usize).unwrap_or(0) - 2 * i64::from(DIGIT_BITS);
        let value = scaled(as_f64(bits), lowest - i64::from(self.terms.origin()));
        if negative { -value } else { value }
    }

    /// Σ(a − mean a)(b − mean b) over `count` pairs, from Σa, Σb and Σab: (count·Σab − Σa·Σb) / count. The difference is
    /// exact: it is zero where all values are equal, and nothing is lost where nearly all digits cancel.
    pub(super) fn co_deviation(count: i64, a: &Self, b: &Self, products: &Self) -> f64 {
        if [a, b, products].iter().any(|sum| sum.special != [0; 3]) {
            return f64::NAN;
        }
        let mut difference = Self::new(Terms::Products);
        for (i, digit) in products.digits.iter().enumerate() {
            difference.add_multiple(*digit, count, products.base + i, false);
        }
        for (i, x) in a.digits.iter().enumerate() {
            for (j, y) in b.digits.iter().enumerate() {
                difference.add_multiple(*x, *y, a.base + i + b.base + j, true);
            }
        }
        difference.value() / as_f64(u128::from(count.unsigned_abs()))
    }

    /// Adds the product of two digits, or takes it away.
    fn add_multiple(&mut self, x: i64, y: i64, digit: usize, negative: bool) {
        let bits = u128::from(x.unsigned_abs()) * u128::from(y.unsigned_abs());
        let place = u32::try_from(digit).unwrap_or(u32::MAX / DIGIT_BITS) * DIGIT_BITS;
        self.add_bits(bits, place, negative != ((x < 0) != (y < 0)));
    }

    pub(super) fn save(&self, out: &mut Vec<u8>) {
        for n in [self.base, self.digits.len()] {
            out.extend_from_slice(&i64::try_from(n).unwrap_or(i64::MAX).to_be_bytes());
        }
        self.special.iter().chain(&self.digits).for_each(|n| out.extend_from_slice(&n.to_be_bytes()));
    }

    pub(super) fn load(&mut self, bytes: &mut &[u8]) -> OpResult<()> {
        self.base = usize::try_from(take_i64(bytes)?).unwrap_or(0);
        let n_digits = take_i64(bytes)?;
        for special in &mut self.special {
            *special = take_i64(bytes)?;
        }
        self.digits = (0..n_digits).map(|_| take_i64(bytes)).collect::<OpResult<_>>()?;
        Ok(())
    }
}

/// Brings all digits but the last into 0..2^32, and the last one below 2^32.
fn carry(digits: &mut Vec<i64>) {
    let mut i = 0;
    while i < digits.len() {
        let over = digits[i] >> DIGIT_BITS;
        let is_last = i + 1 == digits.len();
        if over != 0 && !(is_last && over == -1) {
            digits[i] &= DIGIT_MASK;
            match is_last {
                true => digits.push(over),
                false => digits[i + 1] += over,
            }
        }
        i += 1;
    }
}

#[expect(clippy::cast_precision_loss, reason = "this is the rounding")]
fn as_f64(bits: u128) -> f64 {
    bits as f64
}

/// value × 2^exponent.
fn scaled(mut value: f64, mut exponent: i64) -> f64 {
    let power = |e: i64| f64::from_bits(u64::try_from(e + 1_023).unwrap_or(0) << 52);
    while exponent > 1_000 {
        value *= power(1_000);
        exponent -= 1_000;
    }
    while exponent < -1_000 {
        value *= power(-1_000);
        exponent += 1_000;
    }
    value * power(exponent)
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn what_is_taken_away_leaves_no_trace() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut sum = ExactSum::new(Terms::Values);
        let values: Vec<f64> =
            (0..2_000).map(|_| rng.random_range(-1.0..1.0) * 10_f64.powi(rng.random_range(-300..300))).collect();
        values.iter().for_each(|v| sum.add(*v, 3));
        sum.add(0.1, 1);
        values.iter().rev().for_each(|v| sum.add(*v, -2));
        values.iter().for_each(|v| sum.add(*v, -1));
        assert_eq!(sum.value().to_bits(), 0.1_f64.to_bits());
    }

    #[test]
    fn the_sum_is_rounded_once() {
        let cases: [(&[f64], f64); 9] = [
            (&[], 0.0),
            (&[0.1, 0.2, 0.3, -0.6], 2.775_557_561_562_891_4e-17),
            (&[1e308, 1e308, -1e308], 1e308),
            (&[1e16, 1.0, -1e16], 1.0),
            (&[5e-324, 5e-324], 1e-323),
            (&[-1.5, -2.25], -3.75),
            (&[f64::INFINITY, 1.0], f64::INFINITY),
            (&[9_007_199_254_740_992.0, 1.0, 5e-324], 9_007_199_254_740_994.0),
            (&[9_007_199_254_740_992.0, 1.0], 9_007_199_254_740_992.0),
        ];
        for (terms, expected) in cases {
            let mut sum = ExactSum::new(Terms::Values);
            terms.iter().for_each(|t| sum.add(*t, 1));
            assert_eq!(sum.value().to_bits(), expected.to_bits(), "{terms:?}");
        }
        let mut sum = ExactSum::new(Terms::Values);
        sum.add(f64::INFINITY, 1);
        sum.add(f64::NEG_INFINITY, 1);
        assert!(sum.value().is_nan());
        sum.add(f64::NEG_INFINITY, -1);
        sum.add(f64::INFINITY, -1);
        assert_eq!(sum.value().to_bits(), 0.0_f64.to_bits());
    }

    #[test]
    fn deviations_are_exact() {
        let check = |pairs: &[(f64, f64, i64)], expected: f64| {
            let (mut a, mut b) = (ExactSum::new(Terms::Values), ExactSum::new(Terms::Values));
            let mut products = ExactSum::new(Terms::Products);
            for (x, y, weight) in pairs {
                a.add(*x, *weight);
                b.add(*y, *weight);
                products.add_product(*x, *y, *weight);
            }
            let count = pairs.iter().map(|(_, _, weight)| weight).sum();
            let deviation = ExactSum::co_deviation(count, &a, &b, &products);
            assert_eq!(deviation.to_bits(), expected.to_bits(), "{pairs:?}");
        };
        check(&[(0.1, 0.1, 3)], 0.0);
        check(&[(0.1, 0.7, 1_000_001)], 0.0);
        check(&[(1.0, 2.0, 1), (3.0, -4.0, 1)], -6.0);
        check(&[(1e15, 1e15, 1), (1e15 + 1.0, 1e15 + 1.0, 1)], 0.5);
        check(&[(-1e200, 1e100, 2), (1e200, -1e100, 2), (5.0, 7.0, 1), (5.0, 7.0, -1)], -4e300);
        check(&[(f64::INFINITY, 1.0, 1), (2.0, 1.0, 1)], f64::NAN);
    }

    #[test]
    fn products_are_exact_too_and_are_stored() {
        let mut sum = ExactSum::new(Terms::Products);
        sum.add_product(0.1, 0.1, 5);
        sum.add_product(1e150, -1e150, 1);
        sum.add_product(1e150, 1e150, 1);
        let mut bytes = Vec::new();
        sum.save(&mut bytes);
        let mut restored = ExactSum::new(Terms::Products);
        restored.load(&mut bytes.as_slice()).expect("just written");
        assert!((restored.value() - 0.05).abs() < 1e-16);
        restored.add_product(0.1, 0.1, -5);
        assert_eq!(restored.value().to_bits(), 0.0_f64.to_bits());
    }
}
