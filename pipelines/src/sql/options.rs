//! What a kept view says beside its SELECT: `WITH ('key' = …, 'allowed_lateness' = …) … EMIT ON WINDOW CLOSE`.

use datafusion::sql::sqlparser::ast::{CreateTableOptions, Expr, SqlOption};

use super::refusal::Refusal;
use super::windows::duration_us;

/// How a view is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ViewOptions {
    /// Key columns, if declared: `'key' = 'a, b'`.
    pub(crate) key: Option<Vec<String>>,
    /// `EMIT ON WINDOW CLOSE`: a window's rows appear once, when the watermark has passed its end.
    pub(crate) emit_on_window_close: bool,
    /// `'allowed_lateness' = '10 minutes'`: how far behind the watermark a row is still taken, microseconds.
    pub(crate) allowed_lateness_us: Option<i64>,
}

const KNOWN: &str = "the options are 'key' = 'column, column', 'allowed_lateness' = '10 minutes'";

impl ViewOptions {
    /// Reads the WITH clause of a view.
    pub(super) fn parse(options: &CreateTableOptions) -> Result<Self, Refusal> {
        let mut parsed = Self::default();
        let (CreateTableOptions::With(options) | CreateTableOptions::Options(options)) = options else {
            return Ok(parsed);
        };
        let mut seen: Vec<&str> = Vec::new();
        for option in options {
            let SqlOption::KeyValue { key: name, value } = option else {
                return Err(Refusal::of(option, format!("option `{option}` is not understood"), KNOWN));
            };
            let text = match value {
                Expr::Value(v) => v.value.clone().into_string().unwrap_or_else(|| v.value.to_string()),
                other => other.to_string(),
            };
            let duration = || {
                let help = format!("write '{}' = '10 minutes'", name.value);
                match duration_us(&text) {
                    Ok(us) if us >= 0 => Ok(Some(us)),
                    Ok(_) => Err(Refusal::of(value, format!("'{text}' is negative"), help)),
                    Err(why) => Err(Refusal::of(value, why, help)),
                }
            };
            match name.value.as_str() {
                "key" => {
                    let columns = text.split(',').map(|c| c.trim().to_owned()).filter(|c| !c.is_empty());
                    parsed.key = Some(columns.collect());
                }
                "allowed_lateness" => parsed.allowed_lateness_us = duration()?,
                other @ ("retention" | "state_ttl") => {
                    return Err(Refusal::new(name.span, format!("option '{other}' is not supported"), KNOWN));
                }
                other => return Err(Refusal::new(name.span, format!("unknown option '{other}'"), KNOWN)),
            }
            if seen.contains(&name.value.as_str()) {
                return Err(Refusal::new(name.span, format!("option '{}' is given twice", name.value), "keep one"));
            }
            seen.push(&name.value);
        }
        Ok(parsed)
    }

    /// Whether anything is said at all.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
