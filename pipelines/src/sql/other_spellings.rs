//! Functions that other databases spell in their own way and mean alike.

use datafusion::sql::sqlparser::ast::{Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments};

use super::refusal::Refusal;
use super::spellings::{Rewritten, filled, listagg, same_place};

/// Functions that only have another name.
const RENAMED: [(&str, &str); 6] = [
    ("LIST", "array_agg"),
    ("FIRST", "first_value"),
    ("LAST", "last_value"),
    ("GROUPING_ID", "grouping"),
    ("STRING_SPLIT", "string_to_array"),
    ("PREFIX", "starts_with"),
];

/// The function in the planner's spelling; `None` if it has been renamed in place or needs nothing.
pub(super) fn function(call: &mut Function, name: &str, args: &[Expr]) -> Rewritten {
    let refs: Vec<&Expr> = args.iter().collect();
    match (name, refs.len()) {
        ("DAY", 1) => filled("CAST(date_part('day', __a) AS BIGINT)", &refs),
        ("EPOCH", 1) => filled("date_part('epoch', __a)", &refs),
        ("REGEXP_MATCHES", 2) => filled("__a ~ __b", &refs),
        ("DATE_ADD", 2) => filled("__a + __b", &refs),
        ("DATE_SUB", 2) => filled("__a - __b", &refs),
        ("GROUP_CONCAT", 1 | 2) => listagg(call, args),
        ("COUNT_IF", 1) => {
            if let (FunctionArguments::List(list), Some(case)) =
                (&mut call.args, filled("CASE WHEN __a THEN 1 END", &refs)?)
            {
                list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(case))];
            }
            call.name = same_place(&call.name, "count");
            Ok(None)
        }
        ("ARG_MAX" | "MAX_BY", 2) => by(call, &refs, "DESC"),
        ("ARG_MIN" | "MIN_BY", 2) => by(call, &refs, "ASC"),
        ("DATE_DIFF" | "DATEDIFF", _) => {
            let help = "write TIMESTAMPDIFF(DAY, a, b), which counts whole units";
            Err(Refusal::of(&call.name, format!("{name} is not supported"), help))
        }
        _ => {
            if let Some((_, new)) = RENAMED.iter().find(|(old, _)| *old == name) {
                call.name = same_place(&call.name, new);
            }
            Ok(None)
        }
    }
}

/// The first argument of the row with the largest or smallest second one, where both are there.
fn by(call: &Function, args: &[&Expr], direction: &str) -> Rewritten {
    let both = "__a IS NOT NULL AND __b IS NOT NULL";
    let order = format!("first_value(__a ORDER BY __b {direction} NULLS LAST, __a)");
    let made = match call.filter.as_deref() {
        Some(filter) => filled(&format!("{order} FILTER (WHERE {both} AND (__c))"), &[args[0], args[1], filter])?,
        None => filled(&format!("{order} FILTER (WHERE {both})"), args)?,
    };
    Ok(made.map(|expr| match expr {
        Expr::Function(mut function) => {
            function.over.clone_from(&call.over);
            Expr::Function(function)
        }
        other => other,
    }))
}
