//! Java's date patterns (`yyyy-MM-dd HH:mm:ss`), for writing and reading times.
//!
//! A pattern with a `%` is taken in the form of `strftime`, as DataFusion has it.

use chrono::format::{Parsed, StrftimeItems};
use chrono::{Datelike, NaiveDate, NaiveDateTime, NaiveTime, Timelike};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// A letter, so many times.
    Field(char, usize),
    Text(String),
}

/// A pattern, ready to write and to read.
#[derive(Debug, Clone)]
pub(super) enum Pattern {
    Java(Vec<Item>),
    Strftime(String),
}

impl Pattern {
    /// The error says which letter has no meaning.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.contains('%') {
            let is_good = StrftimeItems::new(text).all(|i| !matches!(i, chrono::format::Item::Error));
            return if is_good {
                Ok(Self::Strftime(text.to_owned()))
            } else {
                Err(format!("'{text}' is no date pattern"))
            };
        }
        let mut items: Vec<Item> = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\'' => {
                    let mut literal = String::new();
                    loop {
                        match chars.next() {
                            Some('\'') if chars.peek() == Some(&'\'') => {
                                chars.next();
                                literal.push('\'');
                            }
                            Some('\'') => break,
                            Some(other) => literal.push(other),
                            None => return Err(format!("the quote in date pattern '{text}' never ends")),
                        }
                    }
                    items.push(Item::Text(if literal.is_empty() { "'".to_owned() } else { literal }));
                }
                'y' | 'u' | 'M' | 'L' | 'd' | 'D' | 'H' | 'h' | 'k' | 'K' | 'm' | 's' | 'S' | 'n' | 'a' | 'E' | 'e'
                | 'Q' => {
                    let mut n = 1;
                    while chars.next_if_eq(&c).is_some() {
                        n += 1;
                    }
                    items.push(Item::Field(c, n));
                }
                letter if letter.is_ascii_alphabetic() => {
                    return Err(format!("letter {letter} of date pattern '{text}' is not supported"));
                }
                other => items.push(Item::Text(other.to_string())),
            }
        }
        Ok(Self::Java(items))
    }

    pub(super) fn write(&self, time: NaiveDateTime) -> String {
        match self {
            Self::Strftime(pattern) => time.format(pattern).to_string(),
            Self::Java(items) => items.iter().map(|item| write_item(item, time)).collect(),
        }
    }

    /// `None` if the text does not have this form.
    pub(super) fn read(&self, text: &str) -> Option<NaiveDateTime> {
        match self {
            Self::Strftime(pattern) => NaiveDateTime::parse_from_str(text, pattern)
                .ok()
                .or_else(|| Some(NaiveDate::parse_from_str(text, pattern).ok()?.and_time(NaiveTime::MIN))),
            Self::Java(items) => read(items, text),
        }
    }
}

fn write_item(item: &Item, time: NaiveDateTime) -> String {
    let hour12 = (time.hour() + 11) % 12 + 1;
    let month = MONTHS[time.month0() as usize];
    let day = DAYS[time.weekday().num_days_from_monday() as usize];
    let short = |name: &str| name[..3].to_owned();
    match item {
        Item::Text(text) => text.clone(),
        Item::Field('y' | 'u', 2) => format!("{:02}", time.year().rem_euclid(100)),
        Item::Field('y' | 'u', n) => format!("{:0n$}", time.year()),
        Item::Field('M' | 'L', 3) => short(month),
        Item::Field('M' | 'L', 4) => month.to_owned(),
        Item::Field('M' | 'L', n) => format!("{:0n$}", time.month()),
        Item::Field('d', n) => format!("{:0n$}", time.day()),
        Item::Field('D', n) => format!("{:0n$}", time.ordinal()),
        Item::Field('H', n) => format!("{:0n$}", time.hour()),
        Item::Field('k', n) => format!("{:0n$}", (time.hour() + 23) % 24 + 1),
        Item::Field('h', n) => format!("{hour12:0n$}"),
        Item::Field('K', n) => format!("{:0n$}", time.hour() % 12),
        Item::Field('m', n) => format!("{:0n$}", time.minute()),
        Item::Field('s', n) => format!("{:0n$}", time.second()),
        Item::Field('S', n) => format!("{:0<n$.n$}", format!("{:09}", time.nanosecond())),
        Item::Field('n', n) => format!("{:0n$}", time.nanosecond()),
        Item::Field('a', _) => if time.hour() < 12 { "AM" } else { "PM" }.to_owned(),
        Item::Field('E', n) if *n >= 4 => day.to_owned(),
        Item::Field('E', _) => short(day),
        Item::Field('Q', n) => format!("{:0n$}", time.month0() / 3 + 1),
        Item::Field('e', n) => format!("{:0n$}", time.weekday().num_days_from_sunday() + 1),
        Item::Field(_, _) => String::new(),
    }
}

fn read(items: &[Item], mut text: &str) -> Option<NaiveDateTime> {
    let mut parsed = Parsed::new();
    for (i, item) in items.iter().enumerate() {
        // A number is as long as it can be, unless digits follow it directly.
        let next_is_number =
            matches!(items.get(i + 1), Some(Item::Field(c, n)) if !(matches!(c, 'a' | 'E') || (*c == 'M' && *n > 2)));
        match item {
            Item::Text(literal) => text = text.strip_prefix(literal.as_str())?,
            Item::Field('M' | 'L', n) if *n > 2 => {
                let (at, len) = name(&MONTHS, text, *n == 3)?;
                parsed.set_month(at + 1).ok()?;
                text = &text[len..];
            }
            Item::Field('E', n) => text = &text[name(&DAYS, text, *n < 4)?.1..],
            Item::Field('a', _) => {
                let half = text.get(..2)?;
                parsed.set_ampm(half.eq_ignore_ascii_case("PM")).ok()?;
                if !half.eq_ignore_ascii_case("PM") && !half.eq_ignore_ascii_case("AM") {
                    return None;
                }
                text = &text[2..];
            }
            Item::Field(letter, n) => {
                let n_max = if next_is_number || *letter == 'S' { *n } else { 9.max(*n) };
                let n_digits = text.bytes().take(n_max).take_while(u8::is_ascii_digit).count();
                if n_digits < *n && !(*n == 1 && n_digits >= 1) {
                    return None;
                }
                let number: i64 = text[..n_digits].parse().ok()?;
                set(&mut parsed, *letter, *n, n_digits, number)?;
                text = &text[n_digits..];
            }
        }
    }
    if !text.is_empty() {
        return None;
    }
    finish(parsed)
}

/// Number of the name that the text begins with, and its length.
fn name(names: &[&str], text: &str, short: bool) -> Option<(i64, usize)> {
    let len = |name: &str| if short { 3 } else { name.len() };
    let at = names.iter().position(|n| text.get(..len(n)).is_some_and(|t| t.eq_ignore_ascii_case(&n[..len(n)])))?;
    Some((i64::try_from(at).ok()?, len(names[at])))
}

fn set(parsed: &mut Parsed, letter: char, n: usize, n_digits: usize, number: i64) -> Option<()> {
    match letter {
        'y' | 'u' if n == 2 => parsed.set_year(2000 + number),
        'y' | 'u' => parsed.set_year(number),
        'M' | 'L' => parsed.set_month(number),
        'd' => parsed.set_day(number),
        'D' => parsed.set_ordinal(number),
        'H' => parsed.set_hour(number),
        'h' => parsed.set_hour12(number),
        'm' => parsed.set_minute(number),
        's' => parsed.set_second(number),
        'S' => {
            parsed.set_nanosecond(number.checked_mul(10_i64.pow(u32::try_from(9_usize.checked_sub(n_digits)?).ok()?))?)
        }
        _ => return None,
    }
    .ok()?;
    Some(())
}

/// What the text did not say is the first of its kind: January, the 1st, midnight.
fn finish(mut parsed: Parsed) -> Option<NaiveDateTime> {
    parsed.year()?;
    if parsed.ordinal().is_none() {
        if parsed.month().is_none() {
            parsed.set_month(1).ok()?;
        }
        if parsed.day().is_none() {
            parsed.set_day(1).ok()?;
        }
    }
    if parsed.hour_mod_12().is_none() {
        parsed.set_hour(0).ok()?;
    } else if parsed.hour_div_12().is_none() {
        parsed.set_ampm(false).ok()?;
    }
    if parsed.minute().is_none() {
        parsed.set_minute(0).ok()?;
    }
    if parsed.second().is_none() {
        parsed.set_second(0).ok()?;
    }
    parsed.to_naive_date().ok()?.and_time(parsed.to_naive_time().ok()?).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> NaiveDateTime {
        "2024-03-05T14:07:09.123456".parse().expect("a time")
    }

    #[test]
    fn written() {
        for (pattern, expected) in [
            ("yyyy-MM-dd HH:mm:ss", "2024-03-05 14:07:09"),
            ("yyyy-MM-dd'T'HH:mm:ss.SSS", "2024-03-05T14:07:09.123"),
            ("yy/M/d h:mm a", "24/3/5 2:07 PM"),
            ("EEE, dd MMM yyyy", "Tue, 05 Mar 2024"),
            ("EEEE d MMMM", "Tuesday 5 March"),
            ("yyyyMMdd", "20240305"),
            ("'it''s' HH 'o''clock'", "it's 14 o'clock"),
            ("yyyy-'Q'Q D", "2024-Q1 65"),
            ("%Y-%m", "2024-03"),
        ] {
            assert_eq!(Pattern::parse(pattern).map(|p| p.write(at())), Ok(expected.to_owned()), "{pattern}");
        }
        assert!(Pattern::parse("yyyy-ww").is_err_and(|e| e.contains("letter w")));
        assert!(Pattern::parse("'open").is_err());
    }

    #[test]
    fn read_back() {
        for (pattern, text, expected) in [
            ("yyyy-MM-dd HH:mm:ss", "2024-03-05 14:07:09", Some("2024-03-05T14:07:09")),
            ("yyyyMMddHHmmss", "20240305140709", Some("2024-03-05T14:07:09")),
            ("dd.MM.yyyy", "05.03.2024", Some("2024-03-05T00:00:00")),
            ("d/M/yyyy h:mm a", "5/3/2024 2:07 pm", Some("2024-03-05T14:07:00")),
            ("yyyy-MM-dd HH:mm:ss.SSS", "2024-03-05 14:07:09.120", Some("2024-03-05T14:07:09.120")),
            ("dd MMM yyyy", "05 Mar 2024", Some("2024-03-05T00:00:00")),
            ("yyyy-MM-dd", "2024-02-30", None),
            ("yyyy-MM-dd", "2024-3-5", None),
            ("yyyy-MM-dd", "2024-03-05 10", None),
            ("HH:mm", "10:00", None),
        ] {
            let expected = expected.map(|e| e.parse::<NaiveDateTime>().expect("a time"));
            assert_eq!(Pattern::parse(pattern).expect("a pattern").read(text), expected, "{pattern} {text}");
        }
    }
}
