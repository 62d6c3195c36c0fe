//! The SQL of callers as it is parsed: DataFusion's general dialect, with a bound on the work.
//!
//! The parser tries one reading after the other, and in names and nested expressions it does so within each reading: a
//! text of a hundred bytes that fits none can keep it busy for years. Every reading of an expression asks the dialect first,
//! so that is where readings are counted.

use std::any::TypeId;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::sql::sqlparser::ast::Expr;
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect};
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

/// Readings of expressions that every text may have, some hundredths of a second's worth; further ones for each of its
/// bytes. Then it is refused as one that is too deep.
const READINGS_MAX: usize = 20_000;

/// The dialect for the parsing of one text.
#[derive(Debug)]
pub(crate) struct BoundedDialect {
    readings_left: AtomicUsize,
}

impl BoundedDialect {
    pub(crate) fn of(sql: &str) -> Self {
        Self { readings_left: AtomicUsize::new(READINGS_MAX + sql.len()) }
    }
}

impl Dialect for BoundedDialect {
    fn dialect(&self) -> TypeId {
        GenericDialect.dialect()
    }

    fn parse_prefix(&self, _parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        let left = self.readings_left.load(Ordering::Relaxed);
        if left == 0 {
            // The one error after which the parser tries nothing else.
            return Some(Err(ParserError::RecursionLimitExceeded));
        }
        self.readings_left.store(left - 1, Ordering::Relaxed);
        None
    }

    model::as_generic_dialect!();
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use datafusion::common::DataFusionError;
    use datafusion::sql::parser::{DFParserBuilder, Statement};

    use super::*;

    /// An expression in a query, as it was read.
    fn parse(expr: &str) -> Result<String, String> {
        let sql = format!("SELECT {expr}");
        let dialect = BoundedDialect::of(&sql);
        let parsed = DFParserBuilder::new(&*sql).with_dialect(&dialect).build();
        show(parsed.and_then(|mut parser| parser.parse_statements()))
    }

    fn show(parsed: Result<VecDeque<Statement>, DataFusionError>) -> Result<String, String> {
        parsed.map(|statements| format!("{statements:?}")).map_err(|error| error.to_string())
    }

    #[test]
    fn texts_with_many_readings_are_refused_by_their_number() {
        for bad in [
            format!("a .b{}...", " .e.c".repeat(40)),
            format!("a{}..", ".b".repeat(60)),
            format!("a{}", ".b(".repeat(45)),
            format!("a{}", ".b[".repeat(45)),
        ] {
            // Without a bound this would not come back.
            assert!(parse(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_long_but_plain_is_read() {
        let list = format!("a.b IN ({}1)", "1, ".repeat(20_000));
        assert!(parse(&list).is_ok());
        let nested = format!("{}1{}", "(".repeat(20), ")".repeat(20));
        assert!(parse(&nested).is_ok());
        let calls = format!("{}t.x{}", "coalesce(t.a, ".repeat(12), ")".repeat(12));
        assert!(parse(&calls).is_ok());
    }

    #[test]
    fn it_reads_what_the_general_dialect_reads() {
        for sql in
            ["a ILIKE 'x%'", "x::INT", "[1, 2][1]", "a IS DISTINCT FROM b", "E'\\n'", "a['k'].b", "INTERVAL '1' DAY"]
        {
            let text = format!("SELECT {sql}");
            let general = DFParserBuilder::new(&*text).build().and_then(|mut parser| parser.parse_statements());
            assert_eq!(parse(sql).ok(), show(general).ok(), "{sql}");
        }
    }
}
