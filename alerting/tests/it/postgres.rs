//! The same on PostgreSQL.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::restarts::play_a_few;

/// A server of its own; removed when dropped.
struct Postgres {
    folder: tempfile::TempDir,
    url: String,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/dev/postgres.sh")
}

impl Postgres {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new(script()).arg("start").arg(folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let url = text.lines().find_map(|l| l.strip_prefix("POSTGRES_URL=")).unwrap().to_owned();
        Self { folder, url }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let status = Command::new(script()).arg("clean").arg(self.folder.path()).status();
        assert!(status.is_ok_and(|s| s.success()), "PostgreSQL could not be removed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn epochs_and_restarts_on_postgresql() {
    let postgres = Postgres::start();
    play_a_few(postgres.url.clone()).await;
}
