//! Titles: a template over the row of an alert, rendered in a sandbox. A template sees the row's columns and nothing
//! else; work, output and input are bounded, since a title is rendered for every changed row.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use serde_json::{Map, Value};

/// Steps a template may take; a title of a few columns takes about twenty.
const FUEL: u64 = 5_000;
/// Longer titles are cut and end in an ellipsis.
pub(super) const TITLE_CHARS_MAX: usize = 200;
/// Longer texts in the row are cut before the template sees them.
const CELL_CHARS_MAX: usize = 500;
const RECURSION_MAX: usize = 16;
const TEMPLATE: &str = "title";

/// A parsed title template.
#[derive(Clone)]
pub struct Title {
    source: Arc<str>,
    environment: Arc<Environment<'static>>,
}

/// Why a title does not parse or render.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TitleError(String);

impl Title {
    /// Parses a template.
    ///
    /// # Errors
    /// What the template language says is wrong.
    pub fn parse(source: &str) -> Result<Self, TitleError> {
        let mut environment = Environment::new();
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION_MAX);
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.add_filter("number", number_filter);
        environment.add_template_owned(TEMPLATE, source.to_owned()).map_err(|e| explain(&e))?;
        Ok(Self { source: Arc::from(source), environment: Arc::new(environment) })
    }

    /// The template as written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Names of the columns it reads, sorted.
    pub fn columns(&self) -> Vec<String> {
        let names: HashSet<String> =
            self.environment.get_template(TEMPLATE).map(|t| t.undeclared_variables(false)).unwrap_or_default();
        let mut names: Vec<String> = names.into_iter().filter(|n| !is_global(n)).collect();
        names.sort();
        names
    }

    /// Renders one line for a row.
    ///
    /// # Errors
    /// A column that the row does not have, or a template that takes too long.
    pub fn render(&self, row: &Map<String, Value>) -> Result<String, TitleError> {
        let template = self.environment.get_template(TEMPLATE).map_err(|e| explain(&e))?;
        let context: BTreeMap<String, minijinja::Value> =
            row.iter().map(|(name, value)| (name.clone(), to_value(value))).collect();
        let text = template.render(minijinja::Value::from_object(context)).map_err(|e| explain(&e))?;
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        Ok(shorten(&line, TITLE_CHARS_MAX))
    }
}

impl fmt::Debug for Title {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Title").field(&self.source).finish()
    }
}

fn explain(error: &minijinja::Error) -> TitleError {
    let what = match error.kind() {
        ErrorKind::OutOfFuel => "it takes too long".to_owned(),
        kind => error.detail().map_or_else(|| kind.to_string(), str::to_owned),
    };
    TitleError(what)
}

/// Functions that the template language brings along; they look like columns to it.
fn is_global(name: &str) -> bool {
    ["range", "dict", "namespace", "debug", "loop"].contains(&name)
}

fn to_value(value: &Value) -> minijinja::Value {
    match value {
        Value::Null => minijinja::Value::from(()),
        Value::Bool(b) => minijinja::Value::from(*b),
        Value::Number(n) => match (n.as_i64(), n.as_f64()) {
            (Some(i), _) => minijinja::Value::from(i),
            (None, Some(f)) => minijinja::Value::from(f),
            (None, None) => minijinja::Value::from(n.to_string()),
        },
        Value::String(s) => minijinja::Value::from(shorten(s, CELL_CHARS_MAX)),
        other => minijinja::Value::from(shorten(&other.to_string(), CELL_CHARS_MAX)),
    }
}

fn shorten(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(chars_max - 1).collect();
    short.push('…');
    short
}

/// `{{ quantity | number }}` writes a decimal without needless zeros, `{{ amount | number(2) }}` with two digits, halves
/// rounded away from zero. What is no number stays as it is.
fn number_filter(value: &minijinja::Value, digits: Option<u32>) -> String {
    let text = value.to_string();
    format_decimal(&text, digits).unwrap_or(text)
}

fn format_decimal(text: &str, digits: Option<u32>) -> Option<String> {
    let (sign, unsigned) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text),
    };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let is_number = !whole.is_empty() && whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit());
    if !is_number || whole.len() + fraction.len() > 38 {
        return None;
    }
    let (whole, fraction) = match digits {
        None => (whole.to_owned(), fraction.trim_end_matches('0').to_owned()),
        Some(digits) => {
            let digits = usize::try_from(digits.min(12)).ok()?;
            let kept: String = fraction.chars().chain(std::iter::repeat('0')).take(digits).collect();
            let rounds_up = fraction.as_bytes().get(digits).is_some_and(|d| *d >= b'5');
            let scaled = format!("{whole}{kept}").parse::<i128>().ok()? + i128::from(rounds_up);
            let padded = format!("{scaled:0>width$}", width = digits + 1);
            let (whole, fraction) = padded.split_at(padded.len() - digits);
            (whole.to_owned(), fraction.to_owned())
        }
    };
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        trimmed => trimmed,
    };
    let is_zero = whole == "0" && fraction.bytes().all(|b| b == b'0');
    let sign = if is_zero { "" } else { sign };
    Some(if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(template: &str, row: Value, expected: Result<&str, &str>) {
        let Value::Object(row) = row else { panic!("a row is an object") };
        let title = Title::parse(template).expect("parses");
        let rendered = title.render(&row).map_err(|e| e.to_string());
        assert_eq!(rendered.as_deref().map_err(String::as_str), expected, "{template}");
    }

    #[test]
    fn renders_columns_as_one_line_without_escaping() {
        check("{{ sku }}\n  <{{ n }}> & {{ t }}", json!({"sku": "A\n1", "n": 3, "t": true}), Ok("A 1 <3> & True"));
    }

    #[test]
    fn numbers_lose_needless_zeros_or_get_wanted_digits() {
        let row = json!({"q": "12.500000", "z": "-0.000", "m": "1234.565", "big": "0.9999", "n": null, "i": 7});
        check(
            "{{ q|number }} {{ z|number }} {{ m|number(2) }} {{ big|number(2) }} {{ n|number }} {{ i|number(1) }}",
            row,
            Ok("12.5 0 1234.57 1.00 None 7.0"),
        );
    }

    #[test]
    fn unknown_columns_are_errors_and_defaults_are_possible() {
        check("{{ nothing }}", json!({}), Err("undefined value"));
        check("{{ nothing | default('-') }}", json!({}), Ok("-"));
    }

    #[test]
    fn work_and_length_are_bounded() {
        check("{% for i in range(100000) %}x{% endfor %}", json!({}), Err("it takes too long"));
        let long = json!({"t": "ä".repeat(10_000)});
        let Value::Object(row) = long else { panic!("a row is an object") };
        let rendered = Title::parse("{{ t }}{{ t }}").expect("parses").render(&row).expect("renders");
        assert_eq!(rendered.chars().count(), TITLE_CHARS_MAX);
        assert!(rendered.ends_with('…'));
    }

    #[test]
    fn templates_name_their_columns() {
        let title = Title::parse("{{ b }} {{ a|number }} {% for i in range(2) %}{{ i }}{{ c }}{% endfor %}");
        assert_eq!(title.expect("parses").columns(), ["a", "b", "c"]);
    }
}
