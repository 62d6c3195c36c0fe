//! sqlparser's generic dialect with a repair: `a IS [NOT] DISTINCT FROM b AND c` means `(a IS … b) AND c`, as the
//! standard has it. sqlparser 0.62 takes all that follows, `b AND c`, as the right side. And `a IS [NOT] JSON` is a function.

use std::any::TypeId;

use datafusion::sql::sqlparser::ast::Expr;
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect, Precedence};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

use super::functions::json_text::IS;
use super::template;

/// The dialect that every statement is parsed with.
#[derive(Debug, Default)]
pub(crate) struct AndonDialect(GenericDialect);

/// What follows `IS JSON`, which is a test of the text before it.
fn is_json(parser: &mut Parser<'_>, text: &Expr, negated: bool) -> Result<Expr, ParserError> {
    const KINDS: [&str; 4] = ["VALUE", "SCALAR", "OBJECT", "ARRAY"];
    let next = parser.peek_token().token.to_string();
    let kind = KINDS.into_iter().find(|kind| next.eq_ignore_ascii_case(kind));
    if kind.is_some() {
        parser.advance_token();
    }
    let outside = if negated { "NOT " } else { "" };
    let kind = kind.unwrap_or("VALUE").to_lowercase();
    template::expr(&format!("{outside}{IS}(__a, '{kind}')"), vec![("__a", text.clone())])
}

impl Dialect for AndonDialect {
    /// The parser asks in places whether the dialect is the generic one.
    fn dialect(&self) -> TypeId {
        TypeId::of::<GenericDialect>()
    }

    /// `->` and its like bind closer than comparisons, as in PostgreSQL.
    fn prec_value(&self, prec: Precedence) -> u8 {
        match prec {
            Precedence::PgOther => self.0.prec_value(Precedence::PlusMinus) - 1,
            other => self.0.prec_value(other),
        }
    }

    fn parse_infix(&self, parser: &mut Parser<'_>, expr: &Expr, _: u8) -> Option<Result<Expr, ParserError>> {
        let is_not_json = parser.parse_keywords(&[Keyword::IS, Keyword::NOT, Keyword::JSON]);
        if is_not_json || parser.parse_keywords(&[Keyword::IS, Keyword::JSON]) {
            return Some(is_json(parser, expr, is_not_json));
        }
        let is_not = parser.parse_keywords(&[Keyword::IS, Keyword::NOT, Keyword::DISTINCT, Keyword::FROM]);
        if !is_not && !parser.parse_keywords(&[Keyword::IS, Keyword::DISTINCT, Keyword::FROM]) {
            return None;
        }
        let left = Box::new(expr.clone());
        Some(parser.parse_subexpr(self.prec_value(Precedence::Is)).map(|right| match is_not {
            true => Expr::IsNotDistinctFrom(left, Box::new(right)),
            false => Expr::IsDistinctFrom(left, Box::new(right)),
        }))
    }

    model::as_generic_dialect!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_distinct_from_binds_tighter_than_and() {
        let check = |sql: &str, expected: &str| {
            let parsed = Parser::new(&AndonDialect::default()).try_with_sql(sql).and_then(|mut p| p.parse_expr());
            let with_parentheses = |e: &Expr| match e {
                Expr::BinaryOp { left, op, right } => format!("({left}) {op} ({right})"),
                other => other.to_string(),
            };
            assert_eq!(parsed.map(|e| with_parentheses(&e)), Ok(expected.to_owned()));
        };
        check("a IS DISTINCT FROM b AND c", "(a IS DISTINCT FROM b) AND (c)");
        check("NOT a IS NOT DISTINCT FROM b + 1 OR c", "(NOT a IS NOT DISTINCT FROM b + 1) OR (c)");
        check("x AND a IS NOT DISTINCT FROM b", "(x) AND (a IS NOT DISTINCT FROM b)");
    }
}
