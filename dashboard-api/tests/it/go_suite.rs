//! The test suite of the official Go client, from its module, against a real server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use dashboard_api::{Allowed, ApiConfig, AuthMode, NamespaceConfig};

use crate::feeder::open_log;
use crate::server::{Server, config};

const MODULE: &str = "github.com/centrifugal/centrifuge-go@v0.12.1";
/// The address that the suite has built in.
const BUILT_IN_ADDRESS: &str = "localhost:8000";

/// What the suite expects of its server.
fn suite_config() -> ApiConfig {
    let mut config = config();
    config.auth.mode = AuthMode::Anonymous;
    let open = NamespaceConfig {
        publish: Allowed::Client,
        query: Allowed::Client,
        history_size: 100,
        recovery: true,
        delta: true,
        ..NamespaceConfig::default()
    };
    let small = NamespaceConfig { history_size: 2, ..open.clone() };
    config.live.namespaces = BTreeMap::from([(String::new(), open), ("smallhistory".to_owned(), small)]);
    config
}

fn go(folder: &Path, arguments: &[&str]) -> Output {
    Command::new("go")
        .args(arguments)
        .current_dir(folder)
        .env("GOFLAGS", "-mod=mod")
        .env("GOWORK", "off")
        .output()
        .expect("go runs; deploy/dev/setup.sh installs it")
}

/// A copy of the module that talks to another address.
fn copy_of_the_module(folder: &Path, address: &str) {
    let download = go(folder, &["mod", "download", "-json", MODULE]);
    assert!(download.status.success(), "{}", String::from_utf8_lossy(&download.stdout));
    let about: serde_json::Value = serde_json::from_slice(&download.stdout).unwrap();
    let module = PathBuf::from(about["Dir"].as_str().unwrap());
    for entry in std::fs::read_dir(module).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let text = std::fs::read_to_string(&path).unwrap().replace(BUILT_IN_ADDRESS, address);
            std::fs::write(folder.join(path.file_name().unwrap()), text).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_go_clients_own_tests_pass() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(suite_config(), open_log(dir.path())).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let address = server.address.to_string();
    let output = tokio::task::spawn_blocking(move || {
        copy_of_the_module(&path, &address);
        go(&path, &["test", "-count=1", "-timeout=300s", "./..."])
    });
    let output = output.await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    server.stop().await;
}
