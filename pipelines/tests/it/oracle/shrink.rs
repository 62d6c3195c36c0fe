//! Makes a failing case small: the one view, few events, few changes.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::case::{Case, Event, Failure};
use super::data::Op;

/// Making a case smaller ends after so long; what is left is printed.
const TIME_MAX: Duration = Duration::from_secs(40);

/// The smallest case found that still fails, as text.
pub(crate) fn shrunk(case: &Case, failure: &Failure) -> String {
    let deadline = Instant::now() + TIME_MAX;
    let mut best = case.clone();
    let mut last = failure.clone();
    let mut attempt = |smaller: Case, best: &mut Case| match smaller.run() {
        Err(found) => {
            *best = smaller;
            last = found;
            true
        }
        Ok(_) => false,
    };
    match &failure.view {
        Some(view) => {
            attempt(case.only(view), &mut best);
        }
        None => {
            for view in case.views.iter().rev() {
                if attempt(case.only(&view.name), &mut best) {
                    break;
                }
            }
        }
    }
    let mut size = n_ops(&best).div_ceil(2);
    while size > 0 && Instant::now() < deadline {
        let mut from = 0;
        while from < n_ops(&best) && Instant::now() < deadline {
            if !attempt(without(&best, from, size), &mut best) {
                from += size;
            }
        }
        size /= 2;
    }
    let mut at = 0;
    while at < best.events.len() && Instant::now() < deadline {
        let mut smaller = best.clone();
        smaller.events.remove(at);
        if !attempt(smaller, &mut best) {
            at += 1;
        }
    }
    text(&best, &last)
}

fn n_ops(case: &Case) -> usize {
    case.events.iter().map(|e| if let Event::Epoch(ops) = e { ops.len() } else { 0 }).sum()
}

/// Leaves out changes number `from` to `from + size`.
fn without(case: &Case, from: usize, size: usize) -> Case {
    let mut case = case.clone();
    let mut n = 0;
    for event in &mut case.events {
        if let Event::Epoch(ops) = event {
            ops.retain(|_| {
                n += 1;
                !(from..from + size).contains(&(n - 1))
            });
        }
    }
    case
}

fn text(case: &Case, failure: &Failure) -> String {
    let mut text = String::new();
    let mut line = |s: String| writeln!(text, "{s}").expect("a String takes every text");
    for table in &case.tables {
        if case.views.iter().any(|v| v.sql.contains(&table.name)) {
            line(table.ddl());
        }
    }
    for view in &case.views {
        line(format!("{}: {}", view.name, view.sql));
    }
    for event in &case.events {
        match event {
            Event::Epoch(ops) if ops.is_empty() => line("epoch without changes".to_owned()),
            Event::Epoch(ops) => {
                line("epoch".to_owned());
                for Op { table, key, row } in ops {
                    let key = case.tables[*table].key_cells(*key);
                    line(format!("  {} {key:?} {row:?}", case.tables[*table].name));
                }
            }
            other => line(format!("{other:?}")),
        }
    }
    line(case.edit.iter().map(|v| format!("edited to {}: {}\n", v.name, v.sql)).collect());
    line(case.explained().unwrap_or_else(|refused| refused));
    line(failure.what.clone());
    text
}
