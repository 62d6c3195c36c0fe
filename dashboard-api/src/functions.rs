//! The SQL functions that callers may use. For queries and filters of callers this is a list of what is allowed, so that
//! a new version of the engine offers nothing unseen: no function whose result can be much larger than its input, which
//! no limit on memory sees, none whose work cannot be interrupted, and none that tells of the server.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SessionStateBuilder, config::SessionConfig};
use datafusion::logical_expr::{Expr, Operator, WindowFunctionDefinition};
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

/// Functions of one row that a query may use. None makes structs: the name of a type of structs in structs doubles with
/// every step.
#[rustfmt::skip]
const SCALARS: &[&str] = &[
    "abs", "acos", "acosh", "array_any_value", "array_append", "array_compact", "array_concat", "array_distinct",
    "array_element", "array_except", "array_has", "array_has_all", "array_has_any", "array_intersect",
    "array_length", "array_max", "array_min", "array_ndims", "array_pop_back", "array_pop_front", "array_position",
    "array_positions", "array_prepend", "array_remove", "array_remove_all", "array_remove_n", "array_reverse",
    "array_slice", "array_sort", "array_sum", "array_union", "arrow_typeof", "ascii", "asin", "asinh", "atan", "atan2",
    "atanh", "bit_length", "btrim", "cardinality", "cbrt", "ceil", "character_length", "chr", "coalesce", "concat",
    "concat_ws", "contains", "cos", "cosh", "cot", "current_date", "current_time", "date_bin", "date_part",
    "date_trunc", "degrees", "empty", "ends_with", "exp", "factorial", "find_in_set", "flatten", "floor",
    "from_unixtime", "gcd", "get_field", "greatest", "initcap", "isnan", "iszero", "lcm", "least", "left", "ln", "log",
    "log10", "log2", "lower", "ltrim", "make_array", "make_date", "make_time", "md5", "nanvl", "now",
    "nullif", "nvl", "nvl2", "octet_length", "pi", "power", "radians", "random", "regexp_count", "regexp_instr",
    "regexp_like", "reverse", "right", "round", "rtrim", "sha224", "sha256", "sha384", "sha512",
    "signum", "sin", "sinh", "split_part", "sqrt", "starts_with", "string_to_array", "strpos", "substr",
    "substr_index", "tan", "tanh", "to_char", "to_date", "to_hex", "to_local_time", "to_time", "to_timestamp",
    "to_timestamp_micros", "to_timestamp_millis", "to_timestamp_nanos", "to_timestamp_seconds", "to_unixtime",
    "translate", "trunc", "upper", "uuid",
];
/// Functions of a group that a query may use. Those that make one value of a whole group are not here: a join may then
/// repeat it on every row.
#[rustfmt::skip]
const AGGREGATES: &[&str] = &[
    "any_value", "approx_distinct", "approx_median", "approx_percentile_cont", "approx_percentile_cont_with_weight",
    "avg", "bit_and", "bit_or", "bit_xor", "bool_and", "bool_or", "corr", "count", "covar_pop", "covar_samp",
    "first_value", "grouping", "last_value", "max", "median", "min", "nth_value", "percentile_cont", "regr_avgx",
    "regr_avgy", "regr_count", "regr_intercept", "regr_r2", "regr_slope", "regr_sxx", "regr_sxy", "regr_syy", "stddev",
    "stddev_pop", "sum", "var", "var_pop",
];
/// Functions of a window that a query may use.
#[rustfmt::skip]
const WINDOWS: &[&str] = &[
    "cume_dist", "dense_rank", "first_value", "lag", "last_value", "lead", "nth_value", "ntile", "percent_rank",
    "rank", "row_number",
];
/// Functions that a subscription's filter may use.
const FILTER_SCALARS: &[&str] =
    &["abs", "character_length", "coalesce", "date_part", "date_trunc", "lower", "starts_with", "upper"];
/// Functions whose result can be as large as a number in the call says: not even for the operator's own conditions.
#[rustfmt::skip]
const LARGE: &[&str] = &[
    "array_repeat", "array_resize", "generate_series", "lpad", "range", "repeat", "rpad",
];
/// Functions that tell of the server.
const TELLING: &[&str] = &["arrow_metadata", "file_row_index", "input_file_name", "version"];

/// A context for the conditions of an operator: everything but the functions that are never safe; no table, no file
/// format, no information schema.
pub(crate) fn operator_context() -> SessionContext {
    let mut state = SessionStateBuilder::new()
        .with_config(SessionConfig::new().with_information_schema(false))
        .with_runtime_env(Arc::new(RuntimeEnv::default()))
        .with_default_features();
    if let Some(scalars) = state.scalar_functions() {
        scalars.retain(|function| !LARGE.contains(&function.name()) && !TELLING.contains(&function.name()));
    }
    *state.table_functions() = None;
    SessionContext::new_with_state(state.build())
}

/// A context for the queries of callers: what the lists above allow, with settings and limits.
pub(crate) fn restricted_context_with(config: SessionConfig, runtime: Arc<RuntimeEnv>) -> SessionContext {
    let mut state = SessionStateBuilder::new()
        .with_config(config.with_information_schema(false))
        .with_runtime_env(runtime)
        .with_default_features();
    if let Some(scalars) = state.scalar_functions() {
        scalars.retain(|function| SCALARS.contains(&function.name()));
    }
    if let Some(aggregates) = state.aggregate_functions() {
        aggregates.retain(|function| AGGREGATES.contains(&function.name()));
    }
    if let Some(windows) = state.window_functions() {
        windows.retain(|function| WINDOWS.contains(&function.name()));
    }
    *state.higher_order_functions() = None;
    *state.table_functions() = None;
    SessionContext::new_with_state(state.build())
}

/// What a query's expression names that is not allowed, looking at this node alone. Syntax such as `OVERLAY` or `a[1]`
/// becomes a function without being looked up, so that taking a function away is not enough.
pub(crate) fn refused_in_query(expr: &Expr) -> Option<String> {
    match expr {
        Expr::ScalarFunction(call) if !SCALARS.contains(&call.name()) => Some(call.name().to_owned()),
        Expr::AggregateFunction(call) if !AGGREGATES.contains(&call.func.name()) => Some(call.func.name().to_owned()),
        Expr::WindowFunction(call) => match &call.fun {
            WindowFunctionDefinition::AggregateUDF(function) if AGGREGATES.contains(&function.name()) => None,
            WindowFunctionDefinition::WindowUDF(function) if WINDOWS.contains(&function.name()) => None,
            other => Some(other.name().to_owned()),
        },
        Expr::HigherOrderFunction(call) => Some(call.func.name().to_owned()),
        Expr::Cast(cast) => refused_type(cast.field.data_type()),
        Expr::TryCast(cast) => refused_type(cast.field.data_type()),
        _ => None,
    }
}

/// What a subscription's filter uses that is not allowed, looking at this node alone.
pub(crate) fn refused_in_filter(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Column(_)
        | Expr::Literal(..)
        | Expr::Alias(_)
        | Expr::Not(_)
        | Expr::Negative(_)
        | Expr::Between(_)
        | Expr::InList(_)
        | Expr::Like(_)
        | Expr::Case(_)
        | Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsTrue(_)
        | Expr::IsNotTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsNotFalse(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotUnknown(_) => None,
        Expr::BinaryExpr(binary) => match binary.op {
            Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::Plus
            | Operator::Minus
            | Operator::Multiply
            | Operator::Divide
            | Operator::Modulo
            | Operator::And
            | Operator::Or
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom
            | Operator::LikeMatch
            | Operator::ILikeMatch
            | Operator::NotLikeMatch
            | Operator::NotILikeMatch => None,
            other => Some(other.to_string()),
        },
        Expr::ScalarFunction(call) if FILTER_SCALARS.contains(&call.name()) => None,
        Expr::ScalarFunction(call) => Some(call.name().to_owned()),
        Expr::Cast(cast) => refused_cast(cast.field.data_type()),
        Expr::TryCast(cast) => refused_cast(cast.field.data_type()),
        other => Some(other.variant_name().to_owned()),
    }
}

/// Whether a text of SQL has more parts than that: a chain of operators is as deep as it is long, and what is done with
/// it takes stack by its depth. Values and the commas between them do not count.
pub(crate) fn has_more_parts_than(sql: &str, parts_max: usize) -> bool {
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, sql).tokenize() else {
        // The parser says what is wrong with it.
        return false;
    };
    let is_part = |token: &&Token| {
        !matches!(token, Token::Whitespace(_) | Token::Comma | Token::Number(..) | Token::SingleQuotedString(_))
    };
    tokens.iter().filter(is_part).count() > parts_max
}

/// A type whose values are as large as a number in its name says.
fn refused_type(data_type: &DataType) -> Option<String> {
    match data_type {
        DataType::FixedSizeList(..) | DataType::FixedSizeBinary(_) => Some(format!("CAST AS {data_type}")),
        DataType::List(field) | DataType::LargeList(field) => refused_type(field.data_type()),
        DataType::Struct(fields) => fields.iter().find_map(|field| refused_type(field.data_type())),
        DataType::Dictionary(_, values) => refused_type(values),
        _ => None,
    }
}

/// Filters cast to plain types only.
fn refused_cast(data_type: &DataType) -> Option<String> {
    let is_plain = !data_type.is_nested() && !matches!(data_type, DataType::FixedSizeBinary(_));
    (!is_plain).then(|| format!("CAST AS {data_type}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The functions of the engine that callers do not get; each has been looked at.
    #[rustfmt::skip]
    const REFUSED_SCALARS: &[&str] = &[
        "array_add", "array_avg", "array_dims", "array_distance", "array_normalize", "array_product", "array_repeat",
        "array_replace", "array_replace_all", "array_replace_n", "array_resize", "array_scale", "array_subtract",
        "array_to_string", "arrays_zip", "arrow_cast", "arrow_field", "arrow_metadata", "arrow_try_cast",
        "cast_to_type", "cosine_distance", "decode", "digest", "encode", "file_row_index", "generate_series",
        "inner_product", "input_file_name", "levenshtein", "lpad", "map", "map_entries", "map_extract", "map_keys",
        "map_values", "named_struct", "overlay", "range", "regexp_match", "regexp_replace", "repeat", "replace", "rpad",
        "struct", "try_cast_to_type", "union_extract", "union_tag", "version", "with_metadata",
    ];
    const REFUSED_AGGREGATES: &[&str] = &["array_agg", "string_agg"];

    fn check<'a>(registered: impl Iterator<Item = &'a str>, allowed: &[&'a str], refused: &[&'a str]) {
        let registered: BTreeSet<&str> = registered.collect();
        let known: BTreeSet<&str> = allowed.iter().chain(refused).copied().collect();
        assert_eq!(known.len(), allowed.len() + refused.len(), "a function is listed twice");
        let unseen: Vec<_> = registered.difference(&known).collect();
        let gone: Vec<_> = known.difference(&registered).collect();
        assert!(unseen.is_empty() && gone.is_empty(), "not looked at: {unseen:?}; not there: {gone:?}");
    }

    #[test]
    fn every_function_of_the_engine_has_been_looked_at() {
        let all = SessionStateBuilder::new().with_default_features().build();
        check(all.scalar_functions().values().map(|function| function.name()), SCALARS, REFUSED_SCALARS);
        check(all.aggregate_functions().values().map(|function| function.name()), AGGREGATES, REFUSED_AGGREGATES);
        check(all.window_functions().values().map(|function| function.name()), WINDOWS, &[]);
        for name in LARGE.iter().chain(TELLING) {
            assert!(REFUSED_SCALARS.contains(name), "{name}");
        }
    }

    #[test]
    fn a_callers_context_has_the_listed_functions_and_no_other() {
        let context = restricted_context_with(SessionConfig::new(), Arc::new(RuntimeEnv::default()));
        let state = context.state();
        check(state.scalar_functions().values().map(|function| function.name()), SCALARS, &[]);
        check(state.aggregate_functions().values().map(|function| function.name()), AGGREGATES, &[]);
        check(state.window_functions().values().map(|function| function.name()), WINDOWS, &[]);
        assert!(state.table_functions().is_empty() && state.higher_order_functions().is_empty());
    }
}
