//! Dates and times from the texts and numbers that connectors send.

use super::ValueError;

pub(crate) const DAY_US: i64 = 86_400_000_000;

/// What a bare number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Days,
    Millis,
    Micros,
    Nanos,
}

impl Unit {
    /// The unit that Debezium's adaptive mode uses for a column with so many fractional-second digits.
    pub(crate) fn of_digits(digits: u8) -> Self {
        match digits {
            0..=3 => Self::Millis,
            4..=6 => Self::Micros,
            _ => Self::Nanos,
        }
    }

    /// Microseconds; nanoseconds are cut, never rounded up into the future.
    pub(crate) fn to_us(self, count: i64) -> Result<i64, ValueError> {
        let us = match self {
            Self::Days => count.checked_mul(DAY_US),
            Self::Millis => count.checked_mul(1_000),
            Self::Micros => Some(count),
            Self::Nanos => Some(count.div_euclid(1_000)),
        };
        us.ok_or(ValueError::OutOfRange)
    }
}

/// The instants that calendars can compute with: years -262143 to 262142. PostgreSQL's `infinity` is beyond.
const TIMESTAMP_US_MIN: i64 = -8_334_601_228_800_000_000;
const TIMESTAMP_US_MAX: i64 = 8_210_266_876_799_999_999;

/// Refuses instants that no calendar function can work with.
pub(crate) fn timestamp_in_range(us: i64) -> Result<i64, ValueError> {
    if (TIMESTAMP_US_MIN..=TIMESTAMP_US_MAX).contains(&us) { Ok(us) } else { Err(ValueError::OutOfRange) }
}

/// Refuses days that no calendar function can work with.
pub(crate) fn date_in_range(days: i64) -> Result<i64, ValueError> {
    if (TIMESTAMP_US_MIN / DAY_US..=TIMESTAMP_US_MAX / DAY_US).contains(&days) {
        Ok(days)
    } else {
        Err(ValueError::OutOfRange)
    }
}

/// Refuses times that are not within one day.
pub(crate) fn time_in_range(us: i64) -> Result<i64, ValueError> {
    if (0..DAY_US).contains(&us) { Ok(us) } else { Err(ValueError::OutOfRange) }
}

/// Days since 1970 from `2025-08-25`, `2025-08-25Z` or with an offset, or a timestamp at midnight.
pub(crate) fn date(text: &[u8]) -> Result<i64, ValueError> {
    let (days, rest) = days(text)?;
    if !rest.is_empty() && offset_us(rest).is_err() {
        let (us, rest) = time_of_day(rest[1..].trim_ascii_start())?;
        offset_us(rest)?;
        if us != 0 {
            return Err(ValueError::NoDate);
        }
    }
    date_in_range(days)
}

/// Microseconds since 1970 UTC from an ISO text; without an offset it is UTC.
pub(crate) fn timestamp(text: &[u8]) -> Result<i64, ValueError> {
    let (days, rest) = days(text)?;
    let (us, rest) = match rest.split_first() {
        None => (0, rest),
        Some((b'T' | b't' | b' ', rest)) => time_of_day(rest)?,
        Some(_) => return Err(ValueError::NoTimestamp),
    };
    let us = date_in_range(days)? * DAY_US + us - offset_us(rest)?;
    timestamp_in_range(us)
}

/// Microseconds of the day from `14:05:06.5`, with `Z` or an offset, in UTC.
pub(crate) fn time(text: &[u8]) -> Result<i64, ValueError> {
    let (us, rest) = time_of_day(text)?;
    Ok((us - offset_us(rest)?).rem_euclid(DAY_US))
}

/// `±YYYY…-MM-DD` and what follows.
fn days(text: &[u8]) -> Result<(i64, &[u8]), ValueError> {
    let (sign, text) = match text.split_first() {
        Some((b'-', rest)) => (-1, rest),
        Some((b'+', rest)) => (1, rest),
        _ => (1, text),
    };
    let n_digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
    if !(4..=9).contains(&n_digits) {
        return Err(ValueError::NoDate);
    }
    let (year, rest) = text.split_at(n_digits);
    let year = sign * year.iter().fold(0_i64, |y, b| y * 10 + i64::from(b - b'0'));
    let [b'-', m1, m2, b'-', d1, d2, rest @ ..] = rest else { return Err(ValueError::NoDate) };
    let month = two(*m1, *m2).filter(|m| (1..=12).contains(m)).ok_or(ValueError::NoDate)?;
    let day = two(*d1, *d2).ok_or(ValueError::NoDate)?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if !(1..=last).contains(&day) {
        return Err(ValueError::NoDate);
    }
    Ok((days_from_civil(year, month, day), rest))
}

/// Days since 1970-01-01 of a proleptic Gregorian date (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// `HH:MM[:SS[.fraction]]` and what follows; digits beyond microseconds are cut.
fn time_of_day(text: &[u8]) -> Result<(i64, &[u8]), ValueError> {
    let [h1, h2, b':', m1, m2, rest @ ..] = text else { return Err(ValueError::NoTimestamp) };
    let hour = two(*h1, *h2).filter(|h| *h < 24).ok_or(ValueError::NoTimestamp)?;
    let minute = two(*m1, *m2).filter(|m| *m < 60).ok_or(ValueError::NoTimestamp)?;
    let mut us = (hour * 60 + minute) * 60_000_000;
    let [b':', s1, s2, rest @ ..] = rest else { return Ok((us, rest)) };
    us += two(*s1, *s2).filter(|s| *s < 60).ok_or(ValueError::NoTimestamp)? * 1_000_000;
    let [b'.', rest @ ..] = rest else { return Ok((us, rest)) };
    let n_digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    if n_digits == 0 {
        return Err(ValueError::NoTimestamp);
    }
    let mut place = 100_000;
    for byte in &rest[..n_digits] {
        us += i64::from(byte - b'0') * place;
        place /= 10;
    }
    Ok((us, &rest[n_digits..]))
}

/// Nothing, `Z`, `+02`, `+0200`, `+02:00` or `+02:00:00`, as microseconds east of UTC.
fn offset_us(text: &[u8]) -> Result<i64, ValueError> {
    let (sign, digits) = match text.split_first() {
        None => return Ok(0),
        Some((b'Z' | b'z', [])) => return Ok(0),
        Some((b'+', rest)) => (1, rest),
        Some((b'-', rest)) => (-1, rest),
        _ => return Err(ValueError::NoTimestamp),
    };
    let fields = match *digits {
        [a, b] => [two(a, b), Some(0), Some(0)],
        [a, b, c, d] | [a, b, b':', c, d] => [two(a, b), two(c, d), Some(0)],
        [a, b, b':', c, d, b':', e, f] => [two(a, b), two(c, d), two(e, f)],
        _ => return Err(ValueError::NoTimestamp),
    };
    match fields {
        [Some(h), Some(m), Some(s)] if h <= 18 && m < 60 && s < 60 => Ok(sign * ((h * 60 + m) * 60 + s) * 1_000_000),
        _ => Err(ValueError::NoTimestamp),
    }
}

fn two(tens: u8, ones: u8) -> Option<i64> {
    (tens.is_ascii_digit() && ones.is_ascii_digit()).then(|| i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
}

/// Microseconds of an ISO 8601 duration such as `P0Y0M21DT0H0M0.5S`, with months of 365.25 / 12 days as Debezium has
/// them in its numeric form.
pub(crate) fn duration_us(text: &[u8]) -> Result<i64, ValueError> {
    let (sign, mut rest) = match text {
        [b'-', b'P', rest @ ..] => (-1, rest),
        [b'P', rest @ ..] => (1, rest),
        _ => return Err(ValueError::NoNumber),
    };
    let mut total_us = 0_i128;
    let mut in_time = false;
    while !rest.is_empty() {
        if let [b'T', after @ ..] = rest {
            in_time = true;
            rest = after;
            continue;
        }
        let len = rest.iter().position(u8::is_ascii_alphabetic).ok_or(ValueError::NoNumber)?;
        let count_us = super::number::decimal(&rest[..len], 24, 6, super::number::Noise::None)?;
        // One unit in microseconds, exactly: a month is 30.4375 days.
        let unit: i128 = match (rest[len], in_time) {
            (b'Y', false) => 31_557_600,
            (b'M', false) => 2_629_800,
            (b'W', false) => 604_800,
            (b'D', false) => 86_400,
            (b'H', true) => 3_600,
            (b'M', true) => 60,
            (b'S', true) => 1,
            _ => return Err(ValueError::NoNumber),
        };
        total_us += count_us * unit;
        rest = &rest[len + 1..];
    }
    i64::try_from(sign * total_us).map_err(|_| ValueError::OutOfRange)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, NaiveDate, Utc};

    #[test]
    fn ranges_are_those_of_the_calendar() {
        assert_eq!(TIMESTAMP_US_MIN, DateTime::<Utc>::MIN_UTC.timestamp_micros());
        assert_eq!(TIMESTAMP_US_MAX, DateTime::<Utc>::MAX_UTC.timestamp_micros());
        assert!(timestamp_in_range(9_223_372_036_825_200_000).is_err());
    }

    #[test]
    fn dates_agree_with_chrono() {
        let epoch = NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();
        for day in (-800_000..4_000_000).step_by(97) {
            let text = (epoch + chrono::Duration::days(day)).to_string();
            assert_eq!(date(text.as_bytes()), Ok(day), "{text}");
        }
        for bad in
            ["2025-02-29", "2025-13-01", "2025-00-01", "25-01-01", "2025-1-1", "", "2025-08-25x", "2025-08-25T10:00:00"]
        {
            assert!(date(bad.as_bytes()).is_err(), "{bad}");
        }
        for good in ["2025-08-25", "2025-08-25Z", "2025-08-25+02:00", "2025-08-25T00:00:00Z"] {
            assert_eq!(date(good.as_bytes()), Ok(20325), "{good}");
        }
        assert_eq!(date(b"+999999-01-01"), Err(ValueError::OutOfRange));
    }

    #[test]
    fn timestamps_in_every_form() {
        let expected = DateTime::parse_from_rfc3339("2025-08-25T08:04:01.595656Z").unwrap().timestamp_micros();
        for text in [
            "2025-08-25T08:04:01.595656Z",
            "2025-08-25T08:04:01.595656",
            "2025-08-25 10:04:01.595656+02:00",
            "2025-08-25T10:04:01.595656+0200",
            "2025-08-25T06:04:01.595656789-02",
        ] {
            assert_eq!(timestamp(text.as_bytes()), Ok(expected), "{text}");
        }
        assert_eq!(timestamp(b"1969-12-31T23:59:59.5Z"), Ok(-500_000));
        assert_eq!(timestamp(b"9999-12-31T23:59:59.999999Z"), Ok(253_402_300_799_999_999));
        assert_eq!(timestamp(b"+292278994-08-17T07:12:55.807Z"), Err(ValueError::OutOfRange));
        assert!(timestamp(b"2025-08-25T25:00:00Z").is_err());
        assert!(timestamp(b"yesterday").is_err());
        assert_eq!(time(b"14:05:06.5Z"), Ok(50_706_500_000));
        assert_eq!(time(b"01:00+02:00"), Ok(23 * 3_600_000_000));
    }

    #[test]
    fn durations_count_as_debezium_counts() {
        assert_eq!(duration_us(b"P0Y0M21DT0H0M0S"), Ok(1_814_400_000_000));
        assert_eq!(duration_us(b"P0Y0M0DT2H15M0S"), Ok(8_100_000_000));
        assert_eq!(duration_us(b"P1Y2M3DT4H5M6.78S"), Ok(37_091_106_780_000));
        assert_eq!(duration_us(b"PT-1.5S"), Ok(-1_500_000));
        assert!(duration_us(b"P1H").is_err());
    }
}
