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

/// Methods of the general dialect, as they are there.
macro_rules! as_in_general {
    ($($method:ident),* $(,)?) => {
        $(fn $method(&self) -> bool {
            GenericDialect.$method()
        })*
    };
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

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        GenericDialect.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        GenericDialect.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        GenericDialect.is_identifier_part(ch)
    }

    as_in_general!(
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
