//! The audit log's rows.

use super::{Store, StoreError, failed, on_pool};

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, sqlx::FromRow, utoipa::ToSchema)]
pub(crate) struct AuditRow {
    /// Grows with time.
    pub(crate) entry_id: String,
    /// Milliseconds since 1970.
    pub(crate) at_ms: i64,
    /// `sign_in`, `refresh`, `sign_out`, `revoke`, `denied`, `unauthorized`, `api_key`, `user`, `disconnect`, …
    pub(crate) event: String,
    /// `ok`, or why not.
    pub(crate) outcome: String,
    /// Who did it, or tried to; empty if nobody knows.
    #[sqlx(rename = "user_name")]
    pub(crate) user: String,
    /// From which address.
    pub(crate) address: String,
    /// On what: a route, a channel, a user.
    pub(crate) subject: String,
    /// More, for people.
    pub(crate) detail: String,
}

/// Which entries are asked for; the newest come first.
#[derive(Debug, Clone, Default)]
pub(crate) struct AuditFilter {
    pub(crate) user: Option<String>,
    pub(crate) event: Option<String>,
    /// Only entries before this one.
    pub(crate) before: Option<String>,
    pub(crate) limit: i64,
}

impl Store {
    /// Writes entries, in one transaction.
    pub(crate) async fn write_audit(&self, rows: &[AuditRow]) -> Result<(), StoreError> {
        let action = failed("write the audit log");
        on_pool!(self, pool => {
            let mut tx = pool.begin().await.map_err(&action)?;
            for row in rows {
                sqlx::query("INSERT INTO auth_audit \
                    (entry_id, at_ms, event, outcome, user_name, address, subject, detail) \
                    VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (entry_id) DO NOTHING")
                    .bind(&row.entry_id).bind(row.at_ms).bind(&row.event).bind(&row.outcome).bind(&row.user)
                    .bind(&row.address).bind(&row.subject).bind(&row.detail)
                    .execute(&mut *tx).await.map_err(&action)?;
            }
            tx.commit().await.map_err(&action)
        })
    }

    /// Removes entries that are older than `before_ms`, and the oldest beyond `entries_max`.
    pub(crate) async fn trim_audit(&self, before_ms: i64, entries_max: i64) -> Result<(), StoreError> {
        let action = failed("trim the audit log");
        on_pool!(self, pool => {
            sqlx::query("DELETE FROM auth_audit WHERE at_ms < $1").bind(before_ms)
                .execute(pool).await.map_err(&action)?;
            sqlx::query("DELETE FROM auth_audit WHERE entry_id <= \
                (SELECT entry_id FROM auth_audit ORDER BY entry_id DESC LIMIT 1 OFFSET $1)").bind(entries_max)
                .execute(pool).await.map(drop).map_err(&action)
        })
    }

    /// Entries, the newest first.
    pub(crate) async fn audit(&self, filter: &AuditFilter) -> Result<Vec<AuditRow>, StoreError> {
        const SQL: &str = "SELECT entry_id, at_ms, event, outcome, user_name, address, subject, detail FROM auth_audit \
            WHERE ($1 = '' OR user_name = $1) AND ($2 = '' OR event = $2) AND ($3 = '' OR entry_id < $3) \
            ORDER BY entry_id DESC LIMIT $4";
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        on_pool!(self, pool => sqlx::query_as(SQL)
            .bind(text(&filter.user)).bind(text(&filter.event)).bind(text(&filter.before)).bind(filter.limit)
            .fetch_all(pool).await)
        .map_err(failed("read the audit log"))
    }
}
