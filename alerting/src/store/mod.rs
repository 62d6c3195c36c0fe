//! Alerts and their events in SQLite or PostgreSQL. The same statements run on both, on a typed pool each; one
//! process writes.

mod rows;

use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use uuid::Uuid;

use crate::Error;
use crate::alert::Alert;
use crate::book::{Changes, Progress};
use rows::{AlertRow, EventRow};

const CONNECTIONS_MAX: u32 = 4;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Other stages keep tables in the same database, each with its own record of migrations.
const MIGRATIONS_TABLE: &str = "alert_migration";

/// An event as the store keeps it.
pub use rows::StoredEvent;

/// The database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pool: Pool,
}

#[derive(Debug, Clone)]
enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// What alerting goes on from.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) open: Vec<Alert>,
    pub(crate) progress: HashMap<String, Progress>,
    pub(crate) last_seq: i64,
}

/// Runs the same code on whichever pool it is: the statements are the same, the types are not.
macro_rules! on_pool {
    ($store:expr, $pool:ident => $body:expr) => {
        match &$store.pool {
            Pool::Sqlite($pool) => $body,
            Pool::Postgres($pool) => $body,
        }
    };
}

impl Store {
    /// Opens `sqlite:PATH`, which is created if missing, or `postgres://…`, and brings the tables to this version.
    ///
    /// # Errors
    /// A database that cannot be reached, or has tables of a later version.
    pub async fn open(url: &str) -> Result<Self, Error> {
        let opening = failed("open");
        let pool = if url.starts_with("sqlite:") {
            let options = SqliteConnectOptions::from_str(url)
                .map_err(&opening)?
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(BUSY_TIMEOUT);
            // One connection: SQLite has one writer, and waiting in the pool is fairer than waiting for the file.
            let pool = SqlitePoolOptions::new().max_connections(1).acquire_timeout(CONNECT_TIMEOUT);
            Pool::Sqlite(pool.connect_with(options).await.map_err(&opening)?)
        } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            let options = PgConnectOptions::from_str(url).map_err(&opening)?;
            let pool = PgPoolOptions::new().max_connections(CONNECTIONS_MAX).acquire_timeout(CONNECT_TIMEOUT);
            Pool::Postgres(pool.connect_with(options).await.map_err(&opening)?)
        } else {
            let scheme = url.split(':').next().unwrap_or_default();
            return Err(Error::DatabaseUrl { url: format!("{scheme}:…") });
        };
        let store = Self { pool };
        let mut migrator: Migrator = sqlx::migrate!("./migrations");
        migrator.dangerous_set_table_name(MIGRATIONS_TABLE);
        on_pool!(store, pool => migrator.run(pool).await).map_err(Error::Migrate)?;
        Ok(store)
    }

    /// Closes the connections and waits for them.
    pub async fn close(&self) {
        on_pool!(self, pool => pool.close().await);
    }

    /// Alerts, firing ones first, each group by priority, at most `limit`.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn alerts(&self, limit: u32) -> Result<Vec<Alert>, Error> {
        const SQL: &str = "SELECT * FROM alert ORDER BY state, priority DESC, fired_at_ms DESC, alert_id LIMIT $1";
        let rows: Vec<AlertRow> =
            on_pool!(self, pool => sqlx::query_as(SQL).bind(i64::from(limit)).fetch_all(pool).await)
                .map_err(failed("read alerts"))?;
        rows.into_iter().map(AlertRow::into_alert).collect()
    }

    /// Events with a number greater than `after_seq` in order, at most `limit`.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn events(&self, after_seq: i64, limit: u32) -> Result<Vec<StoredEvent>, Error> {
        const SQL: &str = "SELECT seq, event_id, alert_id, body FROM alert_event WHERE seq > $1 ORDER BY seq LIMIT $2";
        let rows: Vec<EventRow> =
            on_pool!(self, pool => sqlx::query_as(SQL).bind(after_seq).bind(i64::from(limit)).fetch_all(pool).await)
                .map_err(failed("read events"))?;
        rows.into_iter().map(EventRow::into_event).collect()
    }

    /// What to go on from.
    pub(crate) async fn load(&self) -> Result<Loaded, Error> {
        let loading = failed("load");
        let open: Vec<AlertRow> =
            on_pool!(self, pool => sqlx::query_as("SELECT * FROM alert WHERE state = 'firing'").fetch_all(pool).await)
                .map_err(&loading)?;
        let progress: Vec<(String, i64, i64)> = on_pool!(self, pool =>
            sqlx::query_as("SELECT rule, next_offset, as_of_ms FROM alert_progress").fetch_all(pool).await)
        .map_err(&loading)?;
        let (last_seq,): (i64,) = on_pool!(self, pool =>
            sqlx::query_as("SELECT COALESCE(MAX(seq), 0) FROM alert_event").fetch_one(pool).await)
        .map_err(&loading)?;
        let open = open.into_iter().map(AlertRow::into_alert).collect::<Result<_, _>>()?;
        let progress = progress
            .into_iter()
            .map(|(rule, next_offset, as_of_ms)| (rule, Progress { next_offset, as_of_ms }))
            .collect();
        Ok(Loaded { open, progress, last_seq })
    }

    /// Writes one round in one transaction. The same round may be written again: that changes nothing.
    pub(crate) async fn commit(&self, changes: &Changes) -> Result<(), Error> {
        on_pool!(self, pool => {
            let mut tx = pool.begin().await.map_err(failed("begin"))?;
            // Ended alerts first: a new alert of the same instance may come in the same round.
            let mut alerts: Vec<&Alert> = changes.alerts.values().collect();
            alerts.sort_by_key(|a| (std::cmp::Reverse(a.resolved_at_ms.is_some()), a.alert_id));
            for alert in alerts {
                let row = AlertRow::from_alert(alert);
                sqlx::query(UPSERT_ALERT)
                    .bind(row.alert_id)
                    .bind(row.rule)
                    .bind(row.instance_key)
                    .bind(row.severity)
                    .bind(row.owner)
                    .bind(row.state)
                    .bind(row.title)
                    .bind(row.row_json)
                    .bind(row.impact)
                    .bind(row.priority)
                    .bind(row.fired_at_ms)
                    .bind(row.resolved_at_ms)
                    .bind(row.reason)
                    .bind(row.epoch)
                    .bind(row.is_update_pending)
                    .execute(&mut *tx)
                    .await
                    .map_err(failed("write an alert"))?;
            }
            for event in &changes.events {
                sqlx::query(INSERT_EVENT)
                    .bind(event.seq)
                    .bind(event.id.to_string())
                    .bind(event.alert_id.to_string())
                    .bind(&*event.rule)
                    .bind(event.state.as_str())
                    .bind(event.at_ms)
                    .bind(&event.body)
                    .execute(&mut *tx)
                    .await
                    .map_err(failed("write an event"))?;
            }
            for (rule, progress) in &changes.progress {
                sqlx::query(UPSERT_PROGRESS)
                    .bind(rule)
                    .bind(progress.next_offset)
                    .bind(progress.as_of_ms)
                    .execute(&mut *tx)
                    .await
                    .map_err(failed("write the position"))?;
            }
            tx.commit().await.map_err(failed("commit"))
        })
    }

    /// Events that the log does not have yet, in order.
    pub(crate) async fn unpublished(&self, limit: u32) -> Result<Vec<StoredEvent>, Error> {
        const SQL: &str =
            "SELECT seq, event_id, alert_id, body FROM alert_event WHERE NOT published ORDER BY seq LIMIT $1";
        let rows: Vec<EventRow> =
            on_pool!(self, pool => sqlx::query_as(SQL).bind(i64::from(limit)).fetch_all(pool).await)
                .map_err(failed("read unpublished events"))?;
        rows.into_iter().map(EventRow::into_event).collect()
    }

    /// Notes that the log has all events up to this one.
    pub(crate) async fn mark_published(&self, up_to_seq: i64) -> Result<(), Error> {
        const SQL: &str = "UPDATE alert_event SET published = TRUE WHERE seq <= $1 AND NOT published";
        on_pool!(self, pool => sqlx::query(SQL).bind(up_to_seq).execute(pool).await.map(drop))
            .map_err(failed("mark events as published"))
    }

    /// The greatest number among the events with these ids.
    pub(crate) async fn seq_of(&self, event_id: Uuid) -> Result<Option<i64>, Error> {
        let row: Option<(i64,)> = on_pool!(self, pool =>
            sqlx::query_as("SELECT seq FROM alert_event WHERE event_id = $1")
                .bind(event_id.to_string())
                .fetch_optional(pool)
                .await)
        .map_err(failed("look up an event"))?;
        Ok(row.map(|(seq,)| seq))
    }
}

const UPSERT_ALERT: &str = "INSERT INTO alert (alert_id, rule, instance_key, severity, owner, state, title, row_json, \
    impact, priority, fired_at_ms, resolved_at_ms, reason, epoch, is_update_pending) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) \
    ON CONFLICT (alert_id) DO UPDATE SET severity = excluded.severity, owner = excluded.owner, state = excluded.state, \
    title = excluded.title, row_json = excluded.row_json, impact = excluded.impact, priority = excluded.priority, \
    resolved_at_ms = excluded.resolved_at_ms, reason = excluded.reason, epoch = excluded.epoch, \
    is_update_pending = excluded.is_update_pending";

const INSERT_EVENT: &str = "INSERT INTO alert_event (seq, event_id, alert_id, rule, state, at_ms, body, published) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, FALSE) ON CONFLICT (event_id) DO NOTHING";

const UPSERT_PROGRESS: &str = "INSERT INTO alert_progress (rule, next_offset, as_of_ms) VALUES ($1, $2, $3) \
    ON CONFLICT (rule) DO UPDATE SET next_offset = excluded.next_offset, as_of_ms = excluded.as_of_ms";

fn failed(action: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |source| Error::Store { action, source }
}
