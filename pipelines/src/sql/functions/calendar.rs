//! Calendar arithmetic on microseconds since 1970 UTC, as Flink does it.

use chrono::{DateTime, Datelike, Months, NaiveDate, NaiveDateTime, NaiveTime};

pub(super) const US_PER_SECOND: i64 = 1_000_000;
pub(super) const US_PER_DAY: i64 = 86_400 * US_PER_SECOND;

/// A unit of `TIMESTAMPADD`, `TIMESTAMPDIFF`, `FLOOR … TO` and `CEIL … TO`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A fixed number of microseconds.
    Fixed(i64),
    /// Seven days, from Sunday on.
    Week,
    /// So many months.
    Months(i32),
}

impl Unit {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let name = name.to_ascii_uppercase();
        let name = name.strip_prefix("SQL_TSI_").unwrap_or(&name);
        Some(match name.strip_suffix('S').unwrap_or(name) {
            "MICROSECOND" | "FRAC_SECOND" => Self::Fixed(1),
            "MILLISECOND" => Self::Fixed(1_000),
            "SECOND" => Self::Fixed(US_PER_SECOND),
            "MINUTE" => Self::Fixed(60 * US_PER_SECOND),
            "HOUR" => Self::Fixed(3_600 * US_PER_SECOND),
            "DAY" => Self::Fixed(US_PER_DAY),
            "WEEK" => Self::Week,
            "MONTH" => Self::Months(1),
            "QUARTER" => Self::Months(3),
            "YEAR" => Self::Months(12),
            "DECADE" => Self::Months(120),
            _ => return None,
        })
    }

    /// Whether adding it to a date gives a date.
    pub(crate) fn is_whole_days(self) -> bool {
        self != Self::Fixed(0) && !matches!(self, Self::Fixed(us) if us % US_PER_DAY != 0)
    }

    /// The longest that it can be.
    pub(crate) fn longest_us(self) -> Option<i64> {
        match self {
            Self::Fixed(us) => Some(us),
            Self::Week => Some(7 * US_PER_DAY),
            Self::Months(n) => i64::from(n).checked_mul(31 * US_PER_DAY),
        }
    }

    /// The start of the unit that `us` is in.
    pub(super) fn floor(self, us: i64) -> Option<i64> {
        match self {
            Self::Fixed(unit) => us.checked_sub(us.rem_euclid(unit)),
            // 1970-01-04 was a Sunday.
            Self::Week => us.checked_sub((us - 3 * US_PER_DAY).rem_euclid(7 * US_PER_DAY)),
            Self::Months(n) => {
                let at = to_time(us)?;
                let month = at.year() * 12 + i32::try_from(at.month0()).ok()?;
                let month = month - month.rem_euclid(n);
                let first =
                    NaiveDate::from_ymd_opt(month.div_euclid(12), u32::try_from(month.rem_euclid(12) + 1).ok()?, 1)?;
                Some(of_time(first.and_time(NaiveTime::MIN)))
            }
        }
    }

    /// The first start of a unit at or after `us`.
    pub(super) fn ceil(self, us: i64) -> Option<i64> {
        let floor = self.floor(us)?;
        if floor == us { Some(us) } else { self.add(floor, 1) }
    }

    /// `n` units later; the day of the month is clamped to the month's last.
    pub(super) fn add(self, us: i64, n: i64) -> Option<i64> {
        match self {
            Self::Fixed(unit) => us.checked_add(unit.checked_mul(n)?),
            Self::Week => us.checked_add(n.checked_mul(7 * US_PER_DAY)?),
            Self::Months(months) => {
                let n = n.checked_mul(i64::from(months))?;
                let by = Months::new(u32::try_from(n.unsigned_abs()).ok()?);
                let at = to_time(us)?;
                let moved = if n < 0 { at.checked_sub_months(by)? } else { at.checked_add_months(by)? };
                Some(of_time(moved))
            }
        }
    }

    /// Whole units from `from` to `to`, towards zero.
    pub(super) fn between(self, from: i64, to: i64) -> Option<i64> {
        match self {
            Self::Fixed(unit) => Some(to.checked_sub(from)? / unit),
            Self::Week => Some(to.checked_sub(from)? / (7 * US_PER_DAY)),
            Self::Months(months) => {
                if to < from {
                    return Some(-self.between(to, from)?);
                }
                let (a, b) = (to_time(from)?, to_time(to)?);
                let months_of = |t: NaiveDateTime| i64::from(t.year()) * 12 + i64::from(t.month0());
                let mut n = months_of(b) - months_of(a);
                if Self::Months(1).add(from, n)? > to {
                    n -= 1;
                }
                Some(n / i64::from(months))
            }
        }
    }
}

pub(super) fn to_time(us: i64) -> Option<NaiveDateTime> {
    DateTime::from_timestamp_micros(us).map(|t| t.naive_utc())
}

pub(super) fn of_time(time: NaiveDateTime) -> i64 {
    time.and_utc().timestamp_micros()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(text: &str) -> i64 {
        of_time(text.parse().expect("a time"))
    }

    fn unit(name: &str) -> Unit {
        Unit::parse(name).expect("a unit")
    }

    #[test]
    fn floors_and_ceilings() {
        let at = us("2024-05-15T13:45:10.5");
        let cases = [
            ("hour", "2024-05-15T13:00:00", "2024-05-15T14:00:00"),
            ("day", "2024-05-15T00:00:00", "2024-05-16T00:00:00"),
            ("week", "2024-05-12T00:00:00", "2024-05-19T00:00:00"),
            ("month", "2024-05-01T00:00:00", "2024-06-01T00:00:00"),
            ("quarter", "2024-04-01T00:00:00", "2024-07-01T00:00:00"),
            ("year", "2024-01-01T00:00:00", "2025-01-01T00:00:00"),
        ];
        for (name, floor, ceil) in cases {
            assert_eq!(unit(name).floor(at), Some(us(floor)), "floor to {name}");
            assert_eq!(unit(name).ceil(at), Some(us(ceil)), "ceil to {name}");
        }
        assert_eq!(unit("day").floor(us("1969-12-31T12:00:00")), Some(us("1969-12-31T00:00:00")));
        assert_eq!(unit("month").floor(us("1969-12-31T12:00:00")), Some(us("1969-12-01T00:00:00")));
    }

    #[test]
    fn differences_are_whole_units_towards_zero() {
        let cases = [
            ("month", "2024-01-31T00:00:00", "2024-02-29T00:00:00", 1),
            ("month", "2024-01-15T10:00:00", "2024-02-15T09:59:59", 0),
            ("month", "2024-02-15T10:00:00", "2024-01-15T10:00:01", 0),
            ("year", "2020-02-29T00:00:00", "2023-02-28T00:00:00", 3),
            ("quarter", "2024-01-01T00:00:00", "2024-12-31T00:00:00", 3),
            ("day", "2024-01-01T12:00:00", "2024-01-03T11:00:00", 1),
            ("hour", "2024-01-01T12:00:00", "2024-01-01T10:30:00", -1),
        ];
        for (name, from, to, expected) in cases {
            assert_eq!(unit(name).between(us(from), us(to)), Some(expected), "{name} {from} {to}");
        }
    }

    #[test]
    fn adding_months_clamps_the_day() {
        assert_eq!(unit("month").add(us("2024-01-31T08:00:00"), 1), Some(us("2024-02-29T08:00:00")));
        assert_eq!(unit("year").add(us("2024-02-29T00:00:00"), -1), Some(us("2023-02-28T00:00:00")));
        assert_eq!(unit("second").add(i64::MAX, 1), None);
    }
}
