//! Random queries over random tables under random changes: each kept view equals plain DataFusion.
//!
//! `ANDON_ORACLE_SEED=n` replays one seed, `ANDON_ORACLE_CASES=n` says how many to try, `ANDON_ORACLE_FROM=n` where
//! to begin, `ANDON_ORACLE_SECONDS=n` goes on for so long.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::case::{Case, Report};
use super::features::FEATURES;
use super::shrink::shrunk;

/// Views of one case.
const VIEWS: usize = 16;
/// Cases of a plain test run.
const CASES: u64 = 40;
/// Share of comparisons that may fall out because DataFusion itself fails on the data.
const PLAIN_FAILED_MAX: f64 = 0.01;

/// What DataFusion says of queries that it parses and cannot run. They are refused with the view's place.
const IMPOSSIBLE: [&str; 1] = ["Conflicting ordering requirements"];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|v| v.parse().ok())
}

/// How often a feature was used, and how.
#[derive(Debug, Default)]
struct Coverage {
    /// Feature → incremental, recomputed.
    uses: BTreeMap<&'static str, (usize, usize)>,
    reasons: BTreeMap<String, usize>,
    n_compared: usize,
    n_rows: usize,
    n_restores: usize,
    plain_failed: Vec<String>,
    /// Queries that DataFusion parses and cannot run.
    impossible: Vec<String>,
    refused: Vec<String>,
}

impl Coverage {
    fn add(&mut self, case: &Case, report: Report) {
        for view in &case.views {
            let Some(maintenance) = report.maintenance.get(&view.name) else { continue };
            let incremental = maintenance == "incremental";
            for feature in &view.features {
                let uses = self.uses.entry(feature).or_default();
                *(if incremental { &mut uses.0 } else { &mut uses.1 }) += 1;
            }
            if !incremental {
                *self.reasons.entry(maintenance.clone()).or_default() += 1;
            }
        }
        self.n_compared += report.n_compared;
        self.n_rows += report.n_rows;
        self.n_restores += report.n_restores;
        self.plain_failed.extend(report.plain_failed);
    }

    fn print(&self) {
        println!("{:28} incremental  recompute", "feature");
        for (feature, (incremental, recompute)) in &self.uses {
            println!("{feature:28} {incremental:11} {recompute:10}");
        }
        for (reason, n) in &self.reasons {
            println!("{n:5} {reason}");
        }
        println!("{} comparisons of {} rows, {} restores", self.n_compared, self.n_rows, self.n_restores);
    }
}

fn run_one(seed: u64, coverage: &mut Coverage) -> Result<(), String> {
    let mut case = Case::random(seed, VIEWS);
    for (view, message) in case.drop_refused() {
        if IMPOSSIBLE.iter().any(|known| message.contains(known)) {
            coverage.impossible.push(message);
            continue;
        }
        coverage.refused.push(format!("ANDON_ORACLE_SEED={seed}: {message}\n  {}", view.sql));
    }
    match case.run() {
        Ok(report) => {
            coverage.add(&case, report);
            Ok(())
        }
        Err(failure) => Err(format!(
            "ANDON_ORACLE_SEED={seed} cargo test -p pipelines --test it random_queries\n{:?} {}\n{}",
            failure.view,
            failure.what,
            shrunk(&case, &failure)
        )),
    }
}

#[test]
fn random_queries_equal_plain_sql() {
    let mut coverage = Coverage::default();
    let (from, only) = (number("ANDON_ORACLE_FROM").unwrap_or(0), number("ANDON_ORACLE_SEED"));
    let seeds = match (only, number("ANDON_ORACLE_SECONDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(_)) => from..u64::MAX,
        (None, None) => from..from + number("ANDON_ORACLE_CASES").unwrap_or(CASES),
    };
    let deadline = number("ANDON_ORACLE_SECONDS").map(|s| Instant::now() + Duration::from_secs(s));
    let goes_on = number("ANDON_ORACLE_KEEP_GOING").is_some();
    let mut failures = Vec::new();
    for seed in seeds {
        if let Err(failure) = run_one(seed, &mut coverage) {
            println!("{failure}");
            failures.push(seed);
            if !goes_on {
                break;
            }
        }
        if deadline.is_some_and(|at| Instant::now() >= at) {
            println!("last seed: {seed}");
            break;
        }
    }
    coverage.print();
    for refused in &coverage.refused {
        println!("refused: {refused}");
    }
    for failed in coverage.plain_failed.iter().chain(&coverage.impossible) {
        println!("plain DataFusion failed: {}", failed.chars().take(300).collect::<String>());
    }
    assert!(failures.is_empty(), "seeds {failures:?} failed");
    assert!(coverage.refused.is_empty(), "{} queries were refused", coverage.refused.len());
    let n_out = coverage.plain_failed.len() + coverage.impossible.len();
    let share = n_out as f64 / coverage.n_compared.max(1) as f64;
    assert!(share <= PLAIN_FAILED_MAX, "plain DataFusion failed on a share of {share}");
    if only.is_none() {
        assert!(coverage.n_restores > 0, "an engine was killed and restored");
        let missing: Vec<_> = FEATURES.iter().filter(|f| !coverage.uses.contains_key(*f)).collect();
        assert!(missing.is_empty(), "no query used {missing:?}");
    }
}
