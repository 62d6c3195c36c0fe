//! The files of `tests/slt`, run through the real engine: what each SQL feature does.
//!
//! A file's statements are `CREATE TABLE` (the WITH clause may be left out), `CREATE [MATERIALIZED] VIEW`, `INSERT`,
//! `UPDATE` and `DELETE` on source tables, `SET now = '…'`, and queries over views and tables; `EXPLAIN view` says how it
//! is kept. Each file runs three times with equal results: as written, row by row, and with every change taken back and
//! made again. `UPDATE_SLT=1 cargo test -p pipelines --test it slt` writes the results into the files.

mod database;

use std::path::{Path, PathBuf};

use sqllogictest::Runner;

use database::{Changes, Database};

fn files() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt");
    let entries = std::fs::read_dir(dir).expect("the folder is there");
    let mut files: Vec<PathBuf> =
        entries.map(|e| e.expect("readable").path()).filter(|p| p.extension().is_some_and(|e| e == "slt")).collect();
    files.sort();
    files
}

fn run(changes: Changes) {
    let mut failures = Vec::new();
    for file in files() {
        let mut runner = Runner::new(|| async { Ok(Database::new(changes)) });
        if let Err(error) = runner.run_file(&file) {
            failures.push(error.display(false).to_string());
        }
    }
    assert!(failures.is_empty(), "{changes:?}\n{}", failures.join("\n\n"));
}

#[test]
fn slt_as_written() {
    if std::env::var_os("UPDATE_SLT").is_some() {
        for file in files() {
            let mut runner = Runner::new(|| async { Ok(Database::new(Changes::Together)) });
            let update = runner.update_test_file(
                &file,
                "\t",
                sqllogictest::default_validator,
                sqllogictest::default_normalizer,
                sqllogictest::default_column_validator,
            );
            futures::executor::block_on(update).expect("the file can be run and written");
        }
    }
    run(Changes::Together);
}

#[test]
fn slt_row_by_row() {
    run(Changes::RowByRow);
}

#[test]
fn slt_taken_back_and_made_again() {
    run(Changes::Again);
}
