//! Ground truth: the figures that the ERPs themselves give at recorded moments, against those of Andon's views.
//!
//! `tests/truth/<erp>/NAME.sql` asks for the columns of NAME.csv of a checkpoint. Rows are compared as a multiset, numbers
//! as exact decimals, everything else as text.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{andon, repository, run};

/// Rows printed per file and side when figures differ.
const ROWS_SHOWN: usize = 3;

/// One ERP's capture, its checkpoints and the queries for it.
struct Truth {
    erp: &'static str,
    /// Folder of the checkpoints within the capture.
    checkpoints: &'static str,
    /// Files compared at each checkpoint.
    n_files: usize,
}

const PYERP: Truth = Truth { erp: "pyerp", checkpoints: "truth", n_files: 28 };
const TRYTON: Truth = Truth { erp: "tryton", checkpoints: "ground_truth", n_files: 8 };

impl Truth {
    fn capture(&self) -> PathBuf {
        repository().join("tests/captures").join(self.erp)
    }

    fn all_checkpoints(&self) -> Vec<PathBuf> {
        let mut all: Vec<_> = entries(&self.capture().join(self.checkpoints)).collect();
        all.sort();
        all
    }

    /// Asks everything at one checkpoint; the differences, readable.
    fn differences(&self, checkpoint: &Path) -> Vec<String> {
        let out = tempfile::tempdir().expect("a folder");
        let queries = repository().join("tests/truth").join(self.erp);
        let upto = checkpoint.join("checkpoint.json");
        let now = read_json(&upto)["now"].as_str().expect("a checkpoint has a time").to_owned();
        let mut command = andon();
        command.args(["query", "--source", self.erp, "--now", &now]);
        command.arg("--replay").arg(self.capture()).arg("--upto").arg(&upto);
        command.arg("--queries").arg(&queries).arg("--out").arg(out.path());
        let (code, _, stderr) = run(&mut command);
        assert_eq!(code, 0, "{} at {}: {stderr}", self.erp, checkpoint.display());
        let names = queries_of(&queries);
        let compared: Vec<_> = names.iter().filter(|n| checkpoint.join(format!("{n}.csv")).exists()).collect();
        assert_eq!(compared.len(), self.n_files, "files compared at {}", checkpoint.display());
        compared
            .iter()
            .filter_map(|name| {
                let file = format!("{name}.csv");
                let text = compare(&read_csv(&checkpoint.join(&file)), &read_csv(&out.path().join(&file)))?;
                Some(format!("{} {name}: {text}", checkpoint.display()))
            })
            .collect()
    }

    fn holds_at_every_checkpoint(&self) {
        let differences: Vec<_> = self.all_checkpoints().iter().flat_map(|c| self.differences(c)).collect();
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }
}

#[test]
fn pyerp_figures_are_the_erps_own_at_every_checkpoint() {
    PYERP.holds_at_every_checkpoint();
}

#[test]
fn tryton_figures_are_the_erps_own_at_every_checkpoint() {
    TRYTON.holds_at_every_checkpoint();
}

#[test]
fn every_pyerp_figure_has_a_query() {
    let checkpoint = PYERP.all_checkpoints().pop().expect("a checkpoint");
    let figures: BTreeSet<_> = names(&checkpoint, "csv").collect();
    assert_eq!(figures, queries_of(&repository().join("tests/truth/pyerp")));
}

/// What differs, or nothing.
fn compare(wanted: &[Vec<String>], got: &[Vec<String>]) -> Option<String> {
    if wanted.first() != got.first() {
        return Some(format!("columns {:?}, wanted {:?}", got.first(), wanted.first()));
    }
    let mut balance: BTreeMap<Vec<String>, i64> = BTreeMap::new();
    for (rows, weight) in [(wanted, 1), (got, -1)] {
        for row in rows.iter().skip(1) {
            *balance.entry(row.iter().map(|cell| plain(cell)).collect()).or_default() += weight;
        }
    }
    let side = |sign: i64| {
        let rows: Vec<_> = balance.iter().filter(|(_, n)| n.signum() == sign).map(|(row, _)| row.join(",")).collect();
        let shown = rows.iter().take(ROWS_SHOWN).map(|r| format!("\n    {r}")).collect::<String>();
        (rows.len(), shown)
    };
    match (side(1), side(-1)) {
        ((0, _), (0, _)) => None,
        ((n_missing, missing), (n_extra, extra)) => {
            Some(format!("{n_missing} rows missing{missing}\n  {n_extra} rows not wanted{extra}"))
        }
    }
}

/// A number in one spelling, so that 0, 0.00 and -0.0 are the same; other text as it is.
fn plain(cell: &str) -> String {
    let (sign, digits) = cell.strip_prefix('-').map_or(("", cell), |rest| ("-", rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) {
        return cell.to_owned();
    }
    match (whole.trim_start_matches('0'), fraction.trim_end_matches('0')) {
        ("", "") => "0".to_owned(),
        (whole, "") => format!("{sign}{whole}"),
        (whole, fraction) => format!("{sign}{whole}.{fraction}"),
    }
}

/// RFC 4180: quoted cells may hold commas, quotes and line ends.
fn read_csv(path: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut rows = Vec::new();
    let (mut row, mut cell, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                cell.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut cell)),
            '\r' if !quoted && chars.peek() == Some(&'\n') => {}
            '\n' if !quoted => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            other => cell.push(other),
        }
    }
    assert!(!quoted && cell.is_empty() && row.is_empty(), "{} ends within a row", path.display());
    rows
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("read")).expect("JSON")
}

fn queries_of(folder: &Path) -> BTreeSet<String> {
    names(folder, "sql").collect()
}

fn names(folder: &Path, extension: &'static str) -> impl Iterator<Item = String> {
    entries(folder)
        .filter(move |f| f.extension().is_some_and(|e| e == extension))
        .filter_map(|f| Some(f.file_stem()?.to_str()?.to_owned()))
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.expect("an entry").path())
}

#[test]
fn numbers_compare_by_value() {
    for (one, other) in [("0", "0.00"), ("-0.0", "0"), ("12.50", "12.5"), ("007", "7.0"), ("-1.10", "-1.1")] {
        assert_eq!(plain(one), plain(other));
    }
    for (one, other) in [("1", "10"), ("-1", "1"), ("1.1", "1.01"), ("", "0"), ("2025-10-01", "2025-10-1")] {
        assert_ne!(plain(one), plain(other));
    }
}
