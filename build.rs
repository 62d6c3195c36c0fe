//! Embeds what the binary ships: source packs, views, rules and the demo's capture.
//!
//! Writes `shipped.rs` with one `include_str!` or `include_bytes!` per file, so that cargo rebuilds the binary when a
//! file changes; the folders themselves are watched for files that come and go.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Where the demo's records are kept in the repository.
const CAPTURE_DIR: &str = "tests/captures/pyerp/topics";

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("shipped.rs");
    let mut code = String::new();
    for (constant, folder) in [("SOURCES", "ingest/sources"), ("VIEWS", "pipelines/sql"), ("RULES", "rules")] {
        let files = files_below(&root.join(folder), ".sql")?;
        embed(&mut code, &root, constant, "&str", "include_str", &files);
        println!("cargo:rerun-if-changed={folder}");
    }
    let records = files_below(&root.join(CAPTURE_DIR), ".ndjson.gz")?;
    embed(&mut code, &root, "CAPTURE", "&[u8]", "include_bytes", &records);
    println!("cargo:rerun-if-changed={CAPTURE_DIR}");
    fs::write(out, code)
}

fn embed(code: &mut String, root: &Path, constant: &str, kind: &str, include: &str, files: &[PathBuf]) {
    writeln!(code, "pub(crate) static {constant}: &[(&str, {kind})] = &[").expect("a String takes every text");
    for file in files {
        let shown = file.strip_prefix(root).unwrap_or(file).display().to_string();
        writeln!(code, "    ({shown:?}, {include}!({:?})),", file.display().to_string())
            .expect("a String takes every text");
    }
    writeln!(code, "];").expect("a String takes every text");
}

/// All files below a folder whose name ends so, sorted by path; none if the folder does not exist.
fn files_below(folder: &Path, ending: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        if !folder.is_dir() {
            continue;
        }
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
