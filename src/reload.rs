//! SQL files that change while they are served.
//!
//! The files are looked at in intervals and on SIGHUP. A change counts when two looks in a row see the same, so that a
//! file that is half written does no harm. Files with mistakes change nothing: the messages are logged, and what ran
//! before runs on.

use std::time::Duration;

use alerting::Rule;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::config::Config;
use crate::program::{Planned, SqlSet};
use crate::{BoxError, Error};

/// Between two looks that must see the same.
const SETTLE_PAUSE: Duration = Duration::from_millis(100);

/// What became of changed files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// They run.
    Taken,
    /// They have mistakes, or a view failed on a row.
    Refused,
}

/// Counts an outcome, and says whether the files are what runs.
pub(crate) fn note(outcome: Outcome) {
    let name = if outcome == Outcome::Taken { "taken" } else { "refused" };
    metrics::counter!("andon_sql_changes_total", "outcome" => name).increment(1);
    metrics::gauge!("andon_sql_refused").set(if outcome == Outcome::Refused { 1.0 } else { 0.0 });
}

/// Sends the files whenever they have changed. `running` are those that run.
///
/// # Errors
/// If the process cannot listen to SIGHUP.
pub(crate) async fn watch(
    config: Config,
    running: SqlSet,
    to_stage: mpsc::Sender<SqlSet>,
    shutdown: CancellationToken,
) -> Result<(), BoxError> {
    let mut hangup = signal(SignalKind::hangup())?;
    metrics::gauge!("andon_sql_refused").set(0.0);
    let pause = match config.engine.sql_poll_ms {
        0 => Duration::MAX,
        ms => Duration::from_millis(ms),
    };
    let mut seen = running;
    let mut is_readable = true;
    loop {
        let is_asked = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = to_stage.closed() => return Ok(()),
            _ = hangup.recv() => true,
            () = tokio::time::sleep(pause) => false,
        };
        let sql = match look(&config, &seen).await {
            Ok(sql) => sql,
            Err(error) => {
                // A folder can be away for a moment, while it is replaced. It is said once.
                if std::mem::take(&mut is_readable) || is_asked {
                    refuse(&error);
                }
                continue;
            }
        };
        let was_readable = std::mem::replace(&mut is_readable, true);
        match sql {
            Some(sql) => {
                seen = sql.clone();
                if to_stage.send(sql).await.is_err() {
                    return Ok(());
                }
            }
            None if !was_readable => note(Outcome::Taken),
            None if is_asked => info!("SIGHUP: the SQL files have not changed"),
            None => {}
        }
    }
}

/// The files, if they differ from `seen` and nobody is writing them.
async fn look(config: &Config, seen: &SqlSet) -> Result<Option<SqlSet>, Error> {
    let mut last = read(config).await?;
    while last != *seen {
        tokio::time::sleep(SETTLE_PAUSE).await;
        let now = read(config).await?;
        if now == last {
            return Ok(Some(now));
        }
        last = now;
    }
    Ok(None)
}

async fn read(config: &Config) -> Result<SqlSet, Error> {
    let config = config.clone();
    let read = tokio::task::spawn_blocking(move || SqlSet::of_config(&config)).await;
    read.map_err(|e| Error::other("reading the SQL files panicked", e))?
}

/// Plans files; `None` if they have mistakes, which have then been logged.
pub(crate) async fn plan(sql: &SqlSet) -> Option<Planned> {
    let sql = sql.clone();
    match tokio::task::spawn_blocking(move || sql.plan()).await {
        Ok(Ok(planned)) => Some(planned),
        Ok(Err(error)) => {
            refuse(&error);
            None
        }
        Err(_) => {
            error!("planning the SQL files panicked; what ran before runs on");
            note(Outcome::Refused);
            None
        }
    }
}

fn refuse(error: &Error) {
    match error {
        Error::Sql(problems) => {
            for problem in problems {
                error!("{problem}");
            }
            error!(problems = problems.len(), "the SQL files have mistakes; what ran before runs on");
        }
        other => error!(error = other.chain(), "the SQL files cannot be used; what ran before runs on"),
    }
    note(Outcome::Refused);
}

/// Passes on the rules alone, for a node that keeps no views.
///
/// # Errors
/// Never.
pub(crate) async fn pass_rules(
    mut news: mpsc::Receiver<SqlSet>,
    to_alerting: watch::Sender<Vec<Rule>>,
) -> Result<(), BoxError> {
    while let Some(sql) = news.recv().await {
        match sql.load_rules() {
            Ok(rules) => {
                note(Outcome::Taken);
                to_alerting.send_replace(rules);
            }
            Err(error) => refuse(&error),
        }
    }
    Ok(())
}
