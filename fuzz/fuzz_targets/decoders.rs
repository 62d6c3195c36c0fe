//! All targets in one program: the variable `ANDON_FUZZ` names the one to run.
#![no_main]

use std::sync::LazyLock;

static RUN: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let wanted = std::env::var("ANDON_FUZZ").unwrap_or_default();
    let mut all = dashboard_api::fuzz::TARGETS.to_vec();
    all.push(("records", ingest::fuzz::records));
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    match all.iter().find(|(name, _)| *name == wanted) {
        Some((_, run)) => *run,
        None => panic!("ANDON_FUZZ is one of {}", names.join(", ")),
    }
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| RUN(bytes));
