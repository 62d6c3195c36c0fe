//! Functions of Flink that DataFusion lacks or means otherwise.

mod average;
mod calendar;
pub(super) mod decimal;
pub(super) mod interval;
mod json;
pub(crate) mod json_text;
pub(crate) mod one_row;
pub(crate) mod ordered_sets;
mod pattern;
mod row;
mod text;
pub(crate) mod time;
mod windows;

use datafusion::prelude::SessionContext;

pub(super) use calendar::Unit;

/// The longest that a unit of time can be, microseconds.
pub(crate) fn longest_us(unit: &str) -> Option<i64> {
    Unit::parse(unit)?.longest_us()
}

/// Makes all functions known to a session; those of the same name are replaced.
pub(crate) fn register(session: &SessionContext) {
    for function in windows::scalar() {
        session.register_udf(function);
    }
    let of_rows = [text::functions(), json::functions(), json_text::functions(), time::functions()];
    for function in of_rows.into_iter().flatten() {
        session.register_udf(function.into_udf());
    }
    for function in [one_row::function()].into_iter().chain(json_text::constructors()) {
        session.register_udf(function);
    }
    for function in [average::function()].into_iter().chain(ordered_sets::functions()) {
        session.register_udaf(function);
    }
    for function in windows::window() {
        session.register_udwf(function);
    }
}
