//! The audit log: who signed in or failed to, what was denied to whom, and what administrators did.
//!
//! Requests never wait for it: entries go through a bounded queue to one writer. Where an address causes many
//! entries, further ones are only counted, so that nobody can push out what matters.

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use model::Clock;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::store::{AuditRow, Store};
use crate::limits::{Rates, network_of};

/// Entries that may wait for the database; beyond it they go to the process's log alone, and are counted.
const QUEUE_MAX: usize = 8_192;
/// Entries in one transaction.
const BATCH_MAX: usize = 256;
/// Refusals per minute and address that are written one by one.
const REFUSALS_PER_MINUTE: u32 = 120;
/// How often the bounds on age and number are applied.
const TRIM_INTERVAL: Duration = Duration::from_secs(600);
/// How long the writer waits after the database failed.
const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// Longest text of an entry; the rest is cut off.
const TEXT_BYTES_MAX: usize = 300;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuditEvent {
    /// A sign-in with a password.
    SignIn,
    /// A refresh token was brought.
    Refresh,
    /// A session was ended by its owner.
    SignOut,
    /// A password was changed.
    Password,
    /// An administrator called back tokens or cut connections.
    Revoke,
    /// An API key was made or called back.
    ApiKey,
    /// A credential was not accepted.
    Unauthorized,
    /// A caller may not do what they tried.
    Denied,
}

impl AuditEvent {
    /// The name in the log.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::SignIn => "sign_in",
            Self::Refresh => "refresh",
            Self::SignOut => "sign_out",
            Self::Password => "password",
            Self::Revoke => "revoke",
            Self::ApiKey => "api_key",
            Self::Unauthorized => "unauthorized",
            Self::Denied => "denied",
        }
    }
}

/// Who did it, from where, and on what.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct AuditContext<'a> {
    /// Empty if nobody knows.
    pub(crate) user: &'a str,
    pub(crate) address: &'a str,
    /// A route, a channel, a user, a key.
    pub(crate) subject: &'a str,
    /// More, for people.
    pub(crate) detail: &'a str,
}

/// Takes entries.
pub(crate) struct AuditLog {
    clock: Arc<dyn Clock>,
    queue: Option<mpsc::Sender<AuditRow>>,
    refusals: Rates,
}

/// Takes entries from the queue to the database.
pub(crate) struct AuditWriter {
    clock: Arc<dyn Clock>,
    store: Store,
    queue: mpsc::Receiver<AuditRow>,
    keep_ms: i64,
    entries_max: i64,
}

impl AuditLog {
    /// A log that only the process's own log has.
    pub(crate) fn without_store(clock: Arc<dyn Clock>) -> Self {
        Self { clock, queue: None, refusals: Rates::per_minute(REFUSALS_PER_MINUTE) }
    }

    /// A log in the database; the writer is to be run.
    pub(crate) fn with_store(clock: Arc<dyn Clock>, store: Store, days: u32, entries_max: u64) -> (Self, AuditWriter) {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let log = Self { queue: Some(sender), ..Self::without_store(Arc::clone(&clock)) };
        let writer = AuditWriter {
            clock,
            store,
            queue: receiver,
            keep_ms: i64::from(days) * 24 * 3_600_000,
            entries_max: i64::try_from(entries_max).unwrap_or(i64::MAX),
        };
        (log, writer)
    }

    /// Adds an entry. `outcome` is `ok`, or why not.
    pub(crate) fn record(&self, event: AuditEvent, outcome: &str, context: AuditContext<'_>) {
        counter!("api_audit_entries_total", "event" => event.as_str()).increment(1);
        if outcome != "ok" && self.is_too_much(context.address) {
            counter!("api_audit_suppressed_total").increment(1);
            return;
        }
        let AuditContext { user, address, subject, detail } = context;
        tracing::info!(event = event.as_str(), outcome, user, address, subject, detail, "audit");
        let row = AuditRow {
            entry_id: uuid::Uuid::now_v7().to_string(),
            at_ms: self.clock.now_us() / 1000,
            event: event.as_str().to_owned(),
            outcome: cut(outcome),
            user: cut(user),
            address: cut(address),
            subject: cut(subject),
            detail: cut(detail),
        };
        if let Some(queue) = &self.queue
            && queue.try_send(row).is_err()
        {
            counter!("api_audit_lost_total").increment(1);
            tracing::error!("the audit log's queue is full: the entry is in this log only");
        }
    }

    fn is_too_much(&self, address: &str) -> bool {
        let network = address.parse().map_or_else(|_| address.to_owned(), |address| network_of(address).to_string());
        self.refusals.is_too_fast(&network)
    }
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
}

impl AuditWriter {
    /// Writes until `shutdown`, and then what is still queued.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut next_trim = Instant::now();
        let mut rows = Vec::with_capacity(BATCH_MAX);
        loop {
            tokio::select! {
                _ = self.queue.recv_many(&mut rows, BATCH_MAX) => {}
                () = tokio::time::sleep_until(next_trim) => {
                    self.trim().await;
                    next_trim = Instant::now() + TRIM_INTERVAL;
                }
                () = shutdown.cancelled() => break,
            }
            while !rows.is_empty() {
                match self.store.write_audit(&rows).await {
                    Ok(()) => rows.clear(),
                    Err(error) => {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "cannot write the audit log; trying again"
                        );
                        tokio::select! {
                            () = tokio::time::sleep(RETRY_PAUSE) => {}
                            () = shutdown.cancelled() => break,
                        }
                    }
                }
            }
        }
        self.queue.close();
        while let Ok(row) = self.queue.try_recv() {
            rows.push(row);
        }
        if let Err(error) = self.store.write_audit(&rows).await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                n_entries = rows.len(),
                "the last entries of the audit log are in this log only"
            );
        }
    }

    async fn trim(&self) {
        let before_ms = self.clock.now_us() / 1000 - self.keep_ms;
        if let Err(error) = self.store.trim_audit(before_ms, self.entries_max).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot trim the audit log");
        }
    }
}
