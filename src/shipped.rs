//! What travels inside the binary: source packs, views, rules, and the capture that the demo replays.
//!
//! A folder named on the command line or in the configuration wins over what is shipped.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use model::SqlFile;

use crate::Error;

mod embedded {
    include!(concat!(env!("OUT_DIR"), "/shipped.rs"));
}

/// Where the source packs live in the repository.
const SOURCES_DIR: &str = "ingest/sources/";

/// A folder holds at most so many SQL files; more means that a wrong folder was named.
const SQL_FILES_MAX: usize = 10_000;

/// Names of the source packs in the binary, sorted.
pub fn pack_names() -> Vec<&'static str> {
    let packs: BTreeSet<_> = embedded::SOURCES.iter().filter_map(|(path, _)| pack_of(path)).collect();
    packs.into_iter().collect()
}

fn pack_of(path: &'static str) -> Option<&'static str> {
    path.strip_prefix(SOURCES_DIR)?.split_once('/').map(|(pack, _)| pack)
}

/// The SQL files of a shipped source pack, or `None` if there is no pack of that name.
pub fn pack(name: &str) -> Option<Vec<SqlFile>> {
    let files: Vec<_> = embedded::SOURCES
        .iter()
        .filter(|(path, _)| pack_of(path) == Some(name))
        .map(|(path, text)| SqlFile { path: (*path).to_owned(), text: (*text).to_owned() })
        .collect();
    (!files.is_empty()).then_some(files)
}

/// The shipped views.
pub fn views() -> Vec<SqlFile> {
    to_files(embedded::VIEWS)
}

/// The shipped alert rules.
pub fn rules() -> Vec<SqlFile> {
    to_files(embedded::RULES)
}

fn to_files(all: &[(&str, &str)]) -> Vec<SqlFile> {
    all.iter().map(|(path, text)| SqlFile { path: (*path).to_owned(), text: (*text).to_owned() }).collect()
}

/// A source pack: the folder if `name_or_dir` is one, else the shipped pack of that name.
///
/// # Errors
/// [`Error::Usage`] with the list of shipped packs if it is neither.
pub fn source(name_or_dir: &str) -> Result<Vec<SqlFile>, Error> {
    let is_path = name_or_dir.contains(std::path::MAIN_SEPARATOR) || name_or_dir.starts_with('.');
    match pack(name_or_dir) {
        Some(files) if !is_path => Ok(files),
        _ if Path::new(name_or_dir).is_dir() => folder(Path::new(name_or_dir)),
        _ => Err(Error::Usage(format!(
            "there is no source pack and no folder named {name_or_dir:?}; shipped packs: {}",
            pack_names().join(", ")
        ))),
    }
}

/// All `*.sql` files below a folder, sorted by path.
///
/// # Errors
/// [`Error::File`] if something in it cannot be read, [`Error::Usage`] if there is no SQL file in it.
pub fn folder(dir: &Path) -> Result<Vec<SqlFile>, Error> {
    let mut paths = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).map_err(Error::file("read", &folder))?;
        for entry in entries {
            let path = entry.map_err(Error::file("read", &folder))?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "sql") {
                paths.push(path);
            }
        }
        if paths.len() > SQL_FILES_MAX {
            return Err(Error::Usage(format!("{} holds more than {SQL_FILES_MAX} SQL files", dir.display())));
        }
    }
    if paths.is_empty() {
        return Err(Error::Usage(format!("there is no .sql file in {}", dir.display())));
    }
    paths.sort();
    paths.into_iter().map(read).collect()
}

fn read(path: PathBuf) -> Result<SqlFile, Error> {
    let text = std::fs::read_to_string(&path).map_err(Error::file("read", &path))?;
    Ok(SqlFile { path: path.display().to_string(), text })
}

/// Writes the demo's capture below `dir` unless it is there already, and returns its folder.
///
/// # Errors
/// [`Error::File`] if the folder cannot be written.
pub fn unpack_capture(dir: &Path) -> Result<PathBuf, Error> {
    let topics = dir.join("topics");
    std::fs::create_dir_all(&topics).map_err(Error::file("create", &topics))?;
    for (path, bytes) in embedded::CAPTURE {
        let Some(name) = Path::new(path).file_name() else { continue };
        let file = topics.join(name);
        let is_there = std::fs::metadata(&file).is_ok_and(|m| m.len() == bytes.len() as u64);
        if !is_there {
            std::fs::write(&file, bytes).map_err(Error::file("write", &file))?;
        }
    }
    Ok(dir.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_source_names_the_shipped_ones() {
        let error = source("nav").expect_err("no such pack").to_string();
        assert!(error.contains("nav") && error.contains("shipped packs:"), "{error}");
    }

    #[test]
    fn a_folder_without_sql_is_refused() {
        let dir = tempfile::tempdir().expect("temp folder");
        let error = folder(dir.path()).expect_err("empty folder").to_string();
        assert!(error.contains("no .sql file"), "{error}");
    }

    #[test]
    fn a_folder_is_read_below_and_in_order() {
        let dir = tempfile::tempdir().expect("temp folder");
        std::fs::create_dir(dir.path().join("b")).expect("folder");
        for name in ["b/2.sql", "a.sql", "ignored.txt"] {
            std::fs::write(dir.path().join(name), name).expect("file");
        }
        let texts: Vec<_> = folder(dir.path()).expect("readable").into_iter().map(|f| f.text).collect();
        assert_eq!(texts, ["a.sql", "b/2.sql"]);
    }
}
