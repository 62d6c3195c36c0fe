//! Another database as the judge: what DataFusion itself gets wrong, plain DataFusion cannot show.
//!
//! The portable part of the grammar runs on a real PostgreSQL over the final rows. Decimals that a division or an
//! average makes have other numbers of digits there, so numbers are compared as numbers, within [`ABSOLUTE`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use arrow::array::{Array, RecordBatch};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use dev_services::Postgres;

use super::case::Case;
use super::compare::{Line, difference_within};
use super::data::{Cell, Row, State, TableSpec, Type};
use super::expr::Out;

/// Averages of decimals are rounded to six digits here, and have more there.
const ABSOLUTE: f64 = 1e-6;
const CASES: u64 = 24;
const VIEWS: usize = 16;

#[test]
fn random_queries_equal_postgresql() {
    let postgres = Postgres::start().expect("PostgreSQL starts");
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let seeds = match number("ANDON_ORACLE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("ANDON_ORACLE_CASES").unwrap_or(CASES),
    };
    let (mut n_compared, mut n_rows, mut refused) = (0, 0, BTreeMap::<String, usize>::new());
    let mut failures = Vec::new();
    for seed in seeds {
        let mut case = Case::random_portable(seed, VIEWS);
        case.drop_refused();
        let (state, kept, now_us) = case.final_contents().expect("the case runs");
        let judged = answers(&postgres, &case, &state, now_us);
        for (name, batch) in kept {
            let view = case.views.iter().find(|v| v.name == name).expect("a view of the case");
            match judged.get(&name) {
                Some(Ok(rows)) => {
                    n_compared += 1;
                    n_rows += rows.len();
                    let kept = sorted(kept_rows(&batch, &view.columns));
                    if let Some(text) = difference_within(&kept, &sorted(rows.clone()), ABSOLUTE) {
                        failures.push(format!("ANDON_ORACLE_SEED={seed} view {name}\n{}\n{text}", view.sql));
                    }
                }
                Some(Err(message)) => *refused.entry(message.clone()).or_default() += 1,
                None => panic!("PostgreSQL said nothing of {name}"),
            }
        }
    }
    println!("{n_compared} comparisons of {n_rows} rows");
    for (message, n) in &refused {
        println!("{n:4} PostgreSQL: {message}");
    }
    for failure in failures.iter().take(20) {
        println!("{failure}");
    }
    assert!(failures.is_empty(), "{} views differ from PostgreSQL", failures.len());
    let n_refused: usize = refused.values().sum();
    assert!(n_refused * 4 < n_compared, "PostgreSQL refused {n_refused} queries");
}

fn sorted(mut lines: Vec<Line>) -> Vec<Line> {
    lines.sort_by(super::compare::order);
    lines
}

/// The rows of each view as PostgreSQL has them, or why it has none.
fn answers(
    postgres: &Postgres,
    case: &Case,
    state: &State,
    now_us: i64,
) -> BTreeMap<String, Result<Vec<Line>, String>> {
    let mut script =
        "DROP SCHEMA IF EXISTS c CASCADE; CREATE SCHEMA c; SET search_path = c; SET timezone = 'UTC';\n".to_owned();
    for (table, rows) in case.tables.iter().zip(&state.rows) {
        script.push_str(&create(table));
        for (key, row) in rows {
            script.push_str(&insert(table, &[table.key_cells(*key), row.clone()].concat()));
        }
    }
    let now = format!("(TIMESTAMP '1970-01-01' + INTERVAL '{now_us} microseconds')");
    for view in &case.views {
        let sql = view.sql.replace("AS DOUBLE)", "AS DOUBLE PRECISION)").replace("CURRENT_TIMESTAMP", &now);
        let name = &view.name;
        writeln!(
            script,
            "\\echo @{name}\nCREATE VIEW {name} AS {sql};\n\\echo ?:ERROR :LAST_ERROR_MESSAGE\n\
             COPY (SELECT * FROM {name}) TO STDOUT;\n\\echo ?:ERROR :LAST_ERROR_MESSAGE"
        )
        .expect("a String takes every text");
    }
    let mut psql = Command::new("psql")
        .args(["-XqAt", postgres.url()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("psql runs");
    let mut stdin = psql.stdin.take().expect("stdin is piped");
    let writing = std::thread::spawn(move || stdin.write_all(script.as_bytes()));
    let output = psql.wait_with_output().expect("psql ends");
    writing.join().expect("the writer ends").expect("psql reads all");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let part = |part: &str| {
        let (name, rest) = part.split_once('\n')?;
        let view = case.views.iter().find(|v| v.name == name).expect("a view of the case");
        let lines: Vec<&str> = rest.split('\n').collect();
        if let Some(message) = lines.iter().find_map(|line| line.strip_prefix("?true ")) {
            return Some((name.to_owned(), Err(message.to_owned())));
        }
        // The rows stand between the two marks. A row of one empty text is an empty line.
        let is_mark = |line: &&str| line.starts_with("?false");
        let (first, last) = (lines.iter().position(|l| is_mark(&l))?, lines.iter().rposition(|l| is_mark(&l))?);
        let lines = &lines[first + 1..last];
        Some((name.to_owned(), Ok(lines.iter().map(|line| answered(line, &view.columns)).collect())))
    };
    format!("\n{text}").split("\n@").filter_map(part).collect()
}

fn create(table: &TableSpec) -> String {
    let columns: Vec<String> = table
        .columns
        .iter()
        .map(|c| format!("{} {}", c.name, c.ddl.replace("STRING", "TEXT").replace("DOUBLE", "DOUBLE PRECISION")))
        .collect();
    format!("CREATE TABLE {} ({});\n", table.name, columns.join(", "))
}

fn insert(table: &TableSpec, row: &Row) -> String {
    let value = |(cell, column): (&Cell, &super::data::ColumnSpec)| match (cell, column.ty) {
        (Cell::Null, _) => "NULL".to_owned(),
        (Cell::Int(v), Type::Bool) => if *v != 0 { "TRUE" } else { "FALSE" }.to_owned(),
        (Cell::Int(v), Type::Date) => format!("DATE '1970-01-01' + {v}"),
        (Cell::Int(v), Type::Time) => format!("TIMESTAMP '1970-01-01' + INTERVAL '{v} microseconds'"),
        (Cell::Int(v), _) => v.to_string(),
        (Cell::Dec(v), _) => {
            let (_, scale) = super::data::precision_scale(&column.ddl);
            format!("{v}::numeric / 1{}", "0".repeat(usize::try_from(scale).expect("not negative")))
        }
        (Cell::Text(t), _) => format!("'{}'", t.replace('\'', "''")),
        (Cell::Float(x), _) => format!("{x}::float8"),
    };
    let values: Vec<String> = row.iter().zip(&table.columns).map(value).collect();
    format!("INSERT INTO {} VALUES ({});\n", table.name, values.join(", "))
}

fn answered(line: &str, columns: &[Out]) -> Line {
    let cells = line.split('\t').map(|cell| (cell != "\\N").then(|| cell.replace("\\\\", "\\")));
    line_of(cells, columns)
}

fn kept_rows(batch: &RecordBatch, columns: &[Out]) -> Vec<Line> {
    let options = FormatOptions::default();
    let texts: Vec<ArrayFormatter<'_>> =
        batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).expect("a text form")).collect();
    (0..batch.num_rows())
        .map(|row| {
            let cells =
                texts.iter().zip(batch.columns()).map(|(text, c)| c.is_valid(row).then(|| text.value(row).to_string()));
            line_of(cells, columns)
        })
        .collect()
}

/// One row in a form that both databases share.
fn line_of(cells: impl Iterator<Item = Option<String>>, columns: &[Out]) -> Line {
    let mut line = Line::default();
    for (cell, column) in cells.zip(columns) {
        let text = match (cell, column.ty) {
            (_, Type::List) => continue,
            (None, _) => "NULL".to_owned(),
            (Some(text), Type::Int | Type::Dec | Type::Double | Type::Fuzzy) => {
                line.floats.push(text.parse().expect("a number"));
                "~".to_owned()
            }
            (Some(text), Type::Bool) => text[..1].to_owned(),
            (Some(text), Type::Time) => {
                let text = text.replace('T', " ");
                match text.contains('.') {
                    true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
                    false => text,
                }
            }
            (Some(text), _) => text,
        };
        write!(line.exact, "{text} | ").expect("a String takes every text");
    }
    line
}
