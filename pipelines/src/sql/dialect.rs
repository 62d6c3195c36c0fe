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

/// Answers as the generic dialect does.
macro_rules! as_generic {
    ($($flag:ident),* $(,)?) => {
        $(fn $flag(&self) -> bool {
            self.0.$flag()
        })*
    };
}

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

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        self.0.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        self.0.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        self.0.is_identifier_part(ch)
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

    as_generic!(
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
        supports_xml_expressions,
    );
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
