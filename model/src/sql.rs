//! SQL files as people write them: statements with their place in the file, and messages that point at a place.

use std::fmt;

/// A SQL file by name and text. Nothing here reads it from disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlFile {
    /// Path as shown in messages.
    pub path: String,
    /// The whole text.
    pub text: String,
}

/// One statement of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlStatement {
    /// Path of the file.
    pub path: String,
    /// Line of the statement's first word, from 1.
    pub line: usize,
    /// Column of the statement's first word, from 1.
    pub column: usize,
    /// The statement without its leading comments and its semicolon.
    pub sql: String,
    /// The comments directly above the statement, without their marks; empty if there are none.
    pub comment: String,
}

impl SqlStatement {
    /// A message about a place within this statement, `line` and `column` from 1 as parsers count them.
    pub fn diagnostic_at(&self, line: usize, column: usize, message: impl Into<String>) -> Diagnostic {
        let (line, column) = match line {
            0 | 1 => (self.line, self.column + column.saturating_sub(1)),
            _ => (self.line + line - 1, column),
        };
        Diagnostic { path: self.path.clone(), line, column, message: message.into(), help: None }
    }

    /// A message about the statement as a whole.
    pub fn diagnostic(&self, message: impl Into<String>) -> Diagnostic {
        self.diagnostic_at(1, 1, message)
    }
}

/// What is wrong in a SQL file, where, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Path of the file.
    pub path: String,
    /// Line from 1.
    pub line: usize,
    /// Column from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// Adds what to do about it.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.path, self.line, self.column, self.message)?;
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

/// Splits a file at the semicolons that are outside quotes and comments.
///
/// # Errors
/// One [`Diagnostic`] for a quote or block comment that never ends.
pub fn split_statements(file: &SqlFile) -> Result<Vec<SqlStatement>, Diagnostic> {
    let mut statements = Vec::new();
    let mut current = Pending::default();
    let bytes = file.text.as_bytes();
    let mut at = 0;
    let mut place = Place { line: 1, column: 1 };
    while at < bytes.len() {
        let rest = &file.text[at..];
        let opened = place;
        let token_len = match rest {
            r if r.starts_with("--") => r.find('\n').unwrap_or(r.len()),
            r if r.starts_with("/*") => match r[2..].find("*/") {
                Some(end) => end + 4,
                None => return Err(unended(file, opened, "block comment")),
            },
            r if r.starts_with(['\'', '"', '`']) => match quoted_len(r) {
                Some(len) => len,
                None => return Err(unended(file, opened, "quote")),
            },
            r => r.chars().next().map_or(1, char::len_utf8),
        };
        let token = &rest[..token_len];
        let is_comment = token.starts_with("--") || token.starts_with("/*");
        if token == ";" {
            statements.extend(current.finish(&file.path));
        } else if is_comment && current.sql.is_empty() {
            current.add_comment(token);
        } else if current.sql.is_empty() && token.trim().is_empty() {
            current.blank(token);
        } else {
            current.push(token, opened);
        }
        place.advance(token);
        at += token_len;
    }
    statements.extend(current.finish(&file.path));
    Ok(statements)
}

fn unended(file: &SqlFile, at: Place, what: &str) -> Diagnostic {
    let message = format!("this {what} never ends");
    Diagnostic { path: file.path.clone(), line: at.line, column: at.column, message, help: None }
}

/// Length of a quoted token, its quotes included; a doubled quote stands for itself.
fn quoted_len(text: &str) -> Option<usize> {
    let quote = text.as_bytes()[0];
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        if bytes[at] == quote {
            if bytes.get(at + 1) != Some(&quote) {
                return Some(at + 1);
            }
            at += 1;
        }
        at += 1;
    }
    None
}

#[derive(Clone, Copy)]
struct Place {
    line: usize,
    column: usize,
}

impl Place {
    fn advance(&mut self, token: &str) {
        for c in token.chars() {
            if c == '\n' {
                self.line += 1;
                self.column = 1;
            } else {
                self.column += 1;
            }
        }
    }
}

#[derive(Default)]
struct Pending {
    sql: String,
    start: Option<Place>,
    comment: Vec<String>,
    newlines: usize,
}

impl Pending {
    fn add_comment(&mut self, token: &str) {
        // A blank line separates a file's header from the comment of its first statement.
        if self.newlines > 1 {
            self.comment.clear();
        }
        self.newlines = 0;
        let text = match token.strip_prefix("--") {
            Some(line) => line.strip_prefix(' ').unwrap_or(line).trim_end(),
            None => token[2..token.len() - 2].trim(),
        };
        self.comment.push(text.to_owned());
    }

    fn blank(&mut self, token: &str) {
        self.newlines += token.matches('\n').count();
    }

    fn push(&mut self, token: &str, place: Place) {
        self.start.get_or_insert(place);
        self.sql.push_str(token);
    }

    fn finish(&mut self, path: &str) -> Option<SqlStatement> {
        let pending = std::mem::take(self);
        let place = pending.start?;
        Some(SqlStatement {
            path: path.to_owned(),
            line: place.line,
            column: place.column,
            sql: pending.sql.trim_end().to_owned(),
            comment: pending.comment.join("\n"),
        })
    }
}

/// What sqlparser's generic dialect answers, for the `impl Dialect` of a dialect that differs from it in little. The trait's own
/// defaults answer otherwise, so all of these must be named; `GenericDialect` must be in scope.
#[macro_export]
macro_rules! as_generic_dialect {
    () => {
        fn is_delimited_identifier_start(&self, ch: char) -> bool {
            GenericDialect.is_delimited_identifier_start(ch)
        }

        fn is_identifier_start(&self, ch: char) -> bool {
            GenericDialect.is_identifier_start(ch)
        }

        fn is_identifier_part(&self, ch: char) -> bool {
            GenericDialect.is_identifier_part(ch)
        }

        $crate::as_generic_dialect!(
            supports_unicode_string_literal,
            supports_partition_by_after_order_by,
            supports_array_join_syntax,
            supports_group_by_expr,
            supports_group_by_with_modifier,
            supports_left_associative_joins_without_parens,
            supports_connect_by,
            supports_match_recognize,
            supports_pipe_operator,
            supports_start_transaction_modifier,
            supports_window_function_null_treatment_arg,
            supports_dictionary_syntax,
            supports_window_clause_named_window_reference,
            supports_parenthesized_set_variables,
            supports_select_wildcard_except,
            support_map_literal_syntax,
            allow_extract_custom,
            allow_extract_single_quotes,
            supports_extract_comma_syntax,
            supports_create_view_comment_syntax,
            supports_parens_around_table_factor,
            supports_values_as_table_factor,
            supports_create_index_with_clause,
            supports_explain_with_utility_options,
            supports_limit_comma,
            supports_update_order_by,
            supports_from_first_select,
            supports_projection_trailing_commas,
            supports_asc_desc_in_column_definition,
            supports_try_convert,
            supports_bitwise_shift_operators,
            supports_comment_on,
            supports_load_extension,
            supports_named_fn_args_with_assignment_operator,
            supports_struct_literal,
            supports_empty_projections,
            supports_nested_comments,
            supports_multiline_comment_hints,
            supports_user_host_grantee,
            supports_string_escape_constant,
            supports_array_typedef_with_brackets,
            supports_match_against,
            supports_set_names,
            supports_comma_separated_set_assignments,
            supports_filter_during_aggregation,
            supports_select_wildcard_exclude,
            supports_data_type_signed_suffix,
            supports_interval_options,
            supports_quote_delimited_string,
            supports_select_wildcard_replace,
            supports_select_wildcard_ilike,
            supports_select_wildcard_rename,
            supports_optimize_table,
            supports_install,
            supports_detach,
            supports_prewhere,
            supports_with_fill,
            supports_limit_by,
            supports_interpolate,
            supports_settings,
            supports_select_format,
            supports_comment_optimizer_hint,
            supports_constraint_keyword_without_name,
            supports_key_column_option,
            supports_comma_separated_trim,
            supports_cte_without_as,
            supports_select_item_multi_column_alias,
            supports_xml_expressions
        );
    };
    ($($method:ident),*) => {
        $(fn $method(&self) -> bool {
            GenericDialect.$method()
        })*
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[expect(clippy::needless_pass_by_value, reason = "expect! makes a value")]
    fn check(text: &str, expected: Expect) {
        let file = SqlFile { path: "a.sql".to_owned(), text: text.to_owned() };
        let out = match split_statements(&file) {
            Ok(all) => all
                .iter()
                .map(|s| format!("{}:{} [{}] {:?}\n", s.line, s.column, s.comment.replace('\n', "|"), s.sql))
                .collect(),
            Err(d) => format!("{d}\n"),
        };
        expected.assert_eq(&out);
    }

    #[test]
    fn statements_carry_their_place_and_comment() {
        check(
            "-- header\n\n-- Purpose\n-- more\nSELECT 'a;''b' -- in;side\nFROM \"t;\";\n\n  SELECT 2",
            expect![[r#"
                5:1 [Purpose|more] "SELECT 'a;''b' -- in;side\nFROM \"t;\""
                8:3 [] "SELECT 2"
            "#]],
        );
    }

    #[test]
    fn an_open_quote_is_named_with_its_place() {
        check(
            "SELECT 1;\nSELECT 'abc",
            expect![[r#"
            a.sql:2:8: this quote never ends
        "#]],
        );
    }
}
