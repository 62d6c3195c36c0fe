//! Embeds the built user interface (`web/dist`, made by `npm run build` in `web/`) as a table of paths and bytes. Without
//! a build, one page that says how to make it is embedded in its place, so that the crate always compiles.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

const NOT_BUILT: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>Andon</title>\
<h1>The user interface is not built</h1><p>The server runs. Build the page, then the program again:\
<pre>cd dashboard-api/web\nnpm ci\nnpm run build</pre>";

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or_else(|| io::Error::other("run by cargo"))?);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("run by cargo"))?);
    let dist = root.join("web/dist");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=migrations");
    // While there is nothing to watch, a path that never exists makes cargo run this at every build.
    let watched = if dist.is_dir() { dist.clone() } else { out.join("no-such-file") };
    println!("cargo::rerun-if-changed={}", watched.display());
    let mut files = Vec::new();
    if dist.join("index.html").is_file() {
        list(&dist, &mut files)?;
        files.sort();
    }
    let mut table = String::from("static ASSETS: &[(&str, &[u8])] = &[\n");
    for file in &files {
        let name = file.strip_prefix(&dist).map_err(io::Error::other)?.to_string_lossy().replace('\\', "/");
        writeln!(table, "({name:?}, include_bytes!({:?})),", file.display().to_string()).map_err(io::Error::other)?;
    }
    if files.is_empty() {
        writeln!(table, "(\"index.html\", {NOT_BUILT:?}.as_bytes()),").map_err(io::Error::other)?;
    }
    table.push_str("];\n");
    fs::write(out.join("assets.rs"), table)
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            // Vite's manifest is for the build, not for browsers.
            if path.file_name().is_some_and(|name| name != ".vite") {
                list(&path, files)?;
            }
        } else {
            files.push(path);
        }
    }
    Ok(())
}
