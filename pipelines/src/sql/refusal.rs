//! A refusal of something in a statement, with the place of the offending token and what to write instead.

use datafusion::sql::sqlparser::ast::Spanned;
use datafusion::sql::sqlparser::tokenizer::{Location, Span};
use model::{Diagnostic, SqlStatement};

/// What is wrong, where in the statement, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal(Box<Body>);

/// Boxed, since visitors carry it through deep recursion.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Body {
    at: Location,
    message: String,
    help: String,
}

impl Refusal {
    pub(crate) fn new(at: Span, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self(Box::new(Body { at: at.start, message: message.into(), help: help.into() }))
    }

    /// A refusal of a piece of the syntax tree.
    pub(crate) fn of(node: &impl Spanned, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(node.span(), message, help)
    }

    /// The message with its place in the file. A place that is not known is the statement's start.
    pub(crate) fn diagnostic(self, statement: &SqlStatement) -> Diagnostic {
        let Body { at, message, help } = *self.0;
        let found = statement.diagnostic_at(index(at.line).max(1), index(at.column).max(1), message);
        if help.is_empty() { found } else { found.with_help(help) }
    }
}

pub(crate) fn index(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
