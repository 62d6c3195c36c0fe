//! Flink's `TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR [, offset]))`, with and without the outer `TABLE()`.
//!
//! A tumbling window is a function of the row alone, so it becomes three columns: `window_start`, `window_end` and
//! `window_time` (the window's last millisecond). A row without event time is in no window: the columns are NULL.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName, Statement, TableAlias, TableFactor, VisitMut,
    VisitorMut,
};
use datafusion::sql::sqlparser::parser::Parser;

use super::dialect::AndonDialect;

/// Message and help.
type Refusal = (String, String);

const USAGE: &str = "write TABLE(TUMBLE(TABLE t, DESCRIPTOR(event_time), INTERVAL '1' HOUR))";

/// Replaces every tumbling window function in the FROM clauses of a statement.
pub(super) fn rewrite(statement: &mut Statement) -> Result<(), Refusal> {
    match statement.visit(&mut Rewriter) {
        ControlFlow::Break(refusal) => Err(refusal),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Rewriter;

impl VisitorMut for Rewriter {
    type Break = Refusal;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Refusal> {
        let replacement = match factor {
            TableFactor::TableFunction { expr: Expr::Function(call), alias } => match &call.args {
                FunctionArguments::List(list) => window(&call.name, &list.args, alias.clone()),
                _ => None,
            },
            TableFactor::Table { name, args: Some(args), alias, .. } => window(name, &args.args, alias.clone()),
            _ => None,
        };
        match replacement {
            None => ControlFlow::Continue(()),
            Some(Ok(new)) => {
                *factor = new;
                ControlFlow::Continue(())
            }
            Some(Err(refusal)) => ControlFlow::Break(refusal),
        }
    }
}

fn window(name: &ObjectName, args: &[FunctionArg], alias: Option<TableAlias>) -> Option<Result<TableFactor, Refusal>> {
    let name = name.to_string().to_uppercase();
    match name.as_str() {
        "TUMBLE" => Some(tumble(args, alias)),
        "HOP" | "CUMULATE" | "SESSION" => {
            Some(Err((format!("the window function {name} is not supported yet"), "use TUMBLE".to_owned())))
        }
        _ => None,
    }
}

fn tumble(args: &[FunctionArg], alias: Option<TableAlias>) -> Result<TableFactor, Refusal> {
    let refuse = |what: &str| (format!("TUMBLE {what}"), USAGE.to_owned());
    let args: Vec<&Expr> = args.iter().map(positional).collect::<Option<_>>().ok_or_else(|| {
        refuse("takes its arguments by position, or by the names DATA, TIMECOL, SIZE and OFFSET in this order")
    })?;
    let (table, descriptor, size, offset) = match args.as_slice() {
        [table, descriptor, size] => (table, descriptor, size, None),
        [table, descriptor, size, offset] => (table, descriptor, size, Some(offset)),
        _ => return Err(refuse("takes a table, a time column, a size and perhaps an offset")),
    };
    let column = match descriptor {
        Expr::Function(f) if f.name.to_string().eq_ignore_ascii_case("descriptor") => match &f.args {
            FunctionArguments::List(list) if list.args.len() == 1 => positional(&list.args[0]),
            _ => None,
        },
        _ => None,
    };
    let column = column.ok_or_else(|| refuse("wants DESCRIPTOR(column) as its second argument"))?;
    let origin = offset.map(|o| format!(", TIMESTAMP '1970-01-01 00:00:00' + {o}")).unwrap_or_default();
    let start = format!("date_bin({size}, {column}{origin})");
    let sql = format!(
        "SELECT *, {start} AS window_start, {start} + {size} AS window_end, \
         {start} + {size} - INTERVAL '1 millisecond' AS window_time FROM {table}"
    );
    let subquery = Parser::new(&AndonDialect::default())
        .try_with_sql(&sql)
        .and_then(|mut p| p.parse_query())
        .map_err(|e| refuse(&format!("has an argument that cannot be read: {e}")))?;
    Ok(TableFactor::Derived { lateral: false, subquery, alias, sample: None })
}

fn positional(arg: &FunctionArg) -> Option<&Expr> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(e))
        | FunctionArg::Named { arg: FunctionArgExpr::Expr(e), .. }
        | FunctionArg::ExprNamed { arg: FunctionArgExpr::Expr(e), .. } => Some(e),
        _ => None,
    }
}
