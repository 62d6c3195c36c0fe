//! The view statements of SQL files: name, SELECT as it was written, and what it reads.

use std::collections::{BTreeMap, BTreeSet};

use model::sql::split_statements;
use model::{Diagnostic, SqlFile, SqlStatement};
use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::portable::{is, place, tokens};

/// How the warning begins that names stand between double quotes. It is no reason to leave a view out, since the script
/// has Flink's quotes.
const OTHER_QUOTES: &str = "Flink quotes names";

/// A `CREATE [MATERIALIZED] VIEW`.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) name: String,
    /// The SELECT, with names in Flink's quotes and nothing else changed.
    pub(super) select: String,
    /// What stands where a relation stands; names of common table expressions are among them.
    pub(super) relations: BTreeSet<String>,
    pub(super) source: SqlStatement,
}

impl View {
    /// `file:line`.
    pub(super) fn at(&self) -> String {
        format!("{}:{}", self.source.path, self.source.line)
    }

    /// Why the view is not for Flink, from what its file says of itself and from what `andon check` warns about.
    pub(super) fn known_problem(&self, warnings: &[Diagnostic]) -> Option<Diagnostic> {
        let note = self.source.comment.lines().find_map(|l| l.trim_start().strip_prefix("NOT PORTABLE:"));
        if let Some(why) = note {
            return Some(self.source.diagnostic(format!("{} is marked NOT PORTABLE:{why}", self.name)));
        }
        let lines = self.source.sql.split('\n').count();
        let last = self.source.sql.rsplit('\n').next().map_or(0, |line| line.chars().count());
        let start = (self.source.line, self.source.column);
        let end = match lines {
            1 => (start.0, start.1 + last),
            _ => (start.0 + lines - 1, last),
        };
        let is_mine = |w: &&Diagnostic| w.path == self.source.path && (start..=end).contains(&(w.line, w.column));
        warnings.iter().filter(is_mine).find(|w| !w.message.starts_with(OTHER_QUOTES)).cloned()
    }
}

/// All views of the files by name. The files have been planned before, so nothing can be wrong with them.
pub(super) fn read<'a>(files: impl Iterator<Item = &'a SqlFile>) -> BTreeMap<String, View> {
    let statements = files.flat_map(|file| split_statements(file).unwrap_or_default());
    statements.filter_map(view).map(|v| (v.name.clone(), v)).collect()
}

fn view(source: SqlStatement) -> Option<View> {
    let all = tokens(&source);
    let at = all.iter().position(|t| is(t, "VIEW"))?;
    let is_create = is(all.first()?, "CREATE") && all[1..at].iter().all(|t| matches!(t.token, Token::Word(_)));
    if !is_create {
        return None;
    }
    let name = name(&all[at + 1])?;
    // `WITH ('key' = '…')` may stand between the name and AS.
    let body = 1 + at + 1 + all[at + 1..].iter().position(|t| is(t, "AS"))?;
    let rest = &all[body..];
    let select = flink_quotes(&source.sql, rest)?;
    let relations = relations(rest);
    Some(View { name, select, relations, source })
}

fn name(token: &TokenWithSpan) -> Option<String> {
    match &token.token {
        Token::Word(word) if word.quote_style.is_some() => Some(word.value.clone()),
        Token::Word(word) => Some(word.value.to_lowercase()),
        _ => None,
    }
}

/// Names after FROM, JOIN and TABLE, and after a comma within a FROM clause.
fn relations(rest: &[TokenWithSpan]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    // Whether each open parenthesis, outermost first, is within a FROM clause.
    let mut in_from = vec![false];
    for (i, token) in rest.iter().enumerate() {
        let before = i.checked_sub(1).map(|b| &rest[b]);
        let opens = |t: &TokenWithSpan| is(t, "FROM") || is(t, "JOIN") || is(t, "TABLE");
        let is_next = matches!(before.map(|t| &t.token), Some(Token::Comma)) && in_from.last() == Some(&true);
        if (before.is_some_and(opens) || is_next) && !is(token, "LATERAL") {
            found.extend(name(token));
        }
        match &token.token {
            Token::LParen => in_from.push(false),
            Token::RParen if in_from.len() > 1 => drop(in_from.pop()),
            Token::Word(_) => {
                let ends =
                    ["SELECT", "WHERE", "GROUP", "HAVING", "ORDER", "UNION", "EXCEPT", "INTERSECT", "ON", "LIMIT"];
                let state = in_from.last_mut().filter(|_| is(token, "FROM") || ends.iter().any(|w| is(token, w)));
                if let Some(state) = state {
                    *state = is(token, "FROM");
                }
            }
            _ => {}
        }
    }
    found
}

/// The text from the first of these tokens on, with double quotes around names turned into back quotes, and without
/// `EMIT ON WINDOW CLOSE`, which is how Flink always emits a window.
fn flink_quotes(sql: &str, rest: &[TokenWithSpan]) -> Option<String> {
    let start = offset(sql, rest.first()?)?;
    let emit =
        rest.windows(4).find(|w| ["EMIT", "ON", "WINDOW", "CLOSE"].iter().zip(*w).all(|(word, token)| is(token, word)));
    let end = emit.and_then(|w| offset(sql, &w[0])).unwrap_or(sql.len());
    let mut text: Vec<u8> = sql.as_bytes()[..end].to_vec();
    for token in rest {
        let Token::Word(word) = &token.token else { continue };
        if word.quote_style != Some('"') || word.value.contains(['"', '`']) {
            continue;
        }
        let from = offset(sql, token)?;
        let to = from + word.value.len() + 1;
        if let (true, true) = (to < text.len(), from >= start) {
            text[from] = b'`';
            text[to] = b'`';
        }
    }
    String::from_utf8(text[start..].to_vec()).ok().map(|t| t.trim_end().to_owned())
}

/// Byte offset of a token in its statement.
fn offset(sql: &str, token: &TokenWithSpan) -> Option<usize> {
    let (line, column) = (place(token.span.start.line), place(token.span.start.column));
    let line_start: usize = sql.split_inclusive('\n').take(line.checked_sub(1)?).map(str::len).sum();
    let (in_line, _) = sql[line_start..].char_indices().nth(column.checked_sub(1)?)?;
    Some(line_start + in_line)
}

/// Views such that each comes after those it reads.
pub(super) fn in_order(views: &BTreeMap<String, View>) -> Vec<&View> {
    let mut done: BTreeSet<&str> = BTreeSet::new();
    let mut order = Vec::new();
    while order.len() < views.len() {
        let ready: Vec<&View> = views
            .values()
            .filter(|v| {
                let waits = |r: &&String| views.contains_key(*r) && !done.contains(r.as_str());
                !done.contains(v.name.as_str()) && !v.relations.iter().any(|r| waits(&r))
            })
            .collect();
        // A column that has the name of a view can look like a cycle; the planner has excluded real ones.
        let next = match ready.is_empty() {
            true => views.values().filter(|v| !done.contains(v.name.as_str())).take(1).collect(),
            false => ready,
        };
        done.extend(next.iter().map(|v| v.name.as_str()));
        order.extend(next);
    }
    order
}
