//! Users, sessions, API keys and the audit log in SQLite or PostgreSQL. The same statements run on both, on a typed
//! pool each. Several nodes may share the database.

mod audit;
mod keys;
mod users;

use std::collections::{HashMap, HashSet};
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Map, Value};
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};

pub use keys::{ApiKeyInfo, NewApiKey};
pub use users::UserInfo;

pub(crate) use audit::{AuditFilter, AuditRow};
pub(crate) use keys::API_KEY_PREFIX;
pub(crate) use users::{Lives, Refreshed, SignedIn};

const CONNECTIONS_MAX: u32 = 4;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Other stages keep tables in the same database, each with its own record of migrations.
const MIGRATIONS_TABLE: &str = "auth_migration";
/// Users and API keys that are held in memory; there cannot be more.
pub(crate) const ENTRIES_MAX: i64 = 100_000;

/// Why the database of users could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The address is not one of a database that is supported.
    #[error("`{scheme}` is not sqlite: or postgres:")]
    Url {
        /// What it starts with; the rest may hold a password.
        scheme: String,
    },
    /// The database failed or cannot be reached.
    #[error("cannot {action}")]
    Database {
        /// What was being done.
        action: &'static str,
        /// What the database said.
        #[source]
        source: sqlx::Error,
    },
    /// The tables cannot be brought to this version.
    #[error("cannot bring the tables of users to this version")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// A password cannot be hashed.
    #[error("cannot hash the password: {0}")]
    Hash(String),
    /// There is such a user or key already.
    #[error("there is `{0}` already")]
    Exists(String),
    /// There is no such user or key.
    #[error("there is no `{0}`")]
    Unknown(String),
    /// There are as many as can be held.
    #[error("there are {ENTRIES_MAX} already, which is the most that can be held")]
    Full,
    /// What was given makes no sense.
    #[error("{0}")]
    Invalid(String),
}

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

/// Runs the same code on whichever pool it is: the statements are the same, the types are not.
macro_rules! on_pool {
    ($store:expr, $pool:ident => $body:expr) => {
        match &$store.pool {
            $crate::auth::store::Pool::Sqlite($pool) => $body,
            $crate::auth::store::Pool::Postgres($pool) => $body,
        }
    };
}
pub(super) use on_pool;

/// What every node holds in memory, so that checking a caller never waits for the database.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    pub(crate) version: i64,
    pub(crate) users: HashMap<String, DirectoryUser>,
    pub(crate) api_keys: HashMap<String, DirectoryKey>,
    /// Sessions that were ended and whose access tokens may still be about.
    pub(crate) revoked_sessions: HashSet<String>,
    /// Per user: tokens of other programs issued up to then, in seconds since 1970, are no longer good.
    pub(crate) cutoffs_s: HashMap<String, i64>,
}

/// A local user.
#[derive(Debug)]
pub(crate) struct DirectoryUser {
    pub(crate) roles: Vec<String>,
    pub(crate) claims: Map<String, Value>,
    pub(crate) is_disabled: bool,
}

/// An API key that is not revoked.
#[derive(Debug)]
pub(crate) struct DirectoryKey {
    pub(crate) secret_hash: String,
    pub(crate) name: String,
    pub(crate) roles: Vec<String>,
    pub(crate) claims: Map<String, Value>,
    pub(crate) expires_at_ms: Option<i64>,
}

impl Store {
    /// Opens `sqlite:PATH`, which is created if missing, or `postgres://…`, and brings the tables to this version.
    ///
    /// # Errors
    /// A database that cannot be reached, or has tables of a later version.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let opening = failed("open the database of users");
        let pool = if url.starts_with("sqlite:") {
            let options = SqliteConnectOptions::from_str(url)
                .map_err(&opening)?
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                // A revocation that was confirmed must not come back after a power failure.
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(BUSY_TIMEOUT);
            let pool = SqlitePoolOptions::new().max_connections(1).acquire_timeout(CONNECT_TIMEOUT);
            Pool::Sqlite(pool.connect_with(options).await.map_err(&opening)?)
        } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            let options = PgConnectOptions::from_str(url).map_err(&opening)?;
            let pool = PgPoolOptions::new().max_connections(CONNECTIONS_MAX).acquire_timeout(CONNECT_TIMEOUT);
            Pool::Postgres(pool.connect_with(options).await.map_err(&opening)?)
        } else {
            let scheme = url.split(':').next().unwrap_or_default();
            return Err(StoreError::Url { scheme: scheme.to_owned() });
        };
        let store = Self { pool };
        let mut migrator: Migrator = sqlx::migrate!("./migrations");
        migrator.dangerous_set_table_name(MIGRATIONS_TABLE);
        on_pool!(store, pool => migrator.run(pool).await).map_err(StoreError::Migrate)?;
        Ok(store)
    }

    /// Closes the connections and waits for them.
    pub async fn close(&self) {
        on_pool!(self, pool => pool.close().await);
    }

    /// The number of the last change.
    pub(crate) async fn version(&self) -> Result<i64, StoreError> {
        let (version,): (i64,) = on_pool!(self, pool =>
            sqlx::query_as("SELECT version FROM auth_version WHERE version_id = 1").fetch_one(pool).await)
        .map_err(failed("read the version of the users"))?;
        Ok(version)
    }

    /// Tells the other nodes, and this one, that something changed.
    async fn bump(&self) -> Result<(), StoreError> {
        on_pool!(self, pool => sqlx::query("UPDATE auth_version SET version = version + 1 WHERE version_id = 1")
            .execute(pool).await.map(drop))
        .map_err(failed("note a change of the users"))
    }

    /// The secret that signs access tokens; the first node makes it.
    pub(crate) async fn signing_secret(&self) -> Result<String, StoreError> {
        let fresh: [u8; 32] = rand::random();
        let fresh: String = hex(&fresh);
        let action = failed("read the signing secret");
        on_pool!(self, pool => sqlx::query("INSERT INTO auth_secret (secret_name, secret) VALUES ('access', $1) \
            ON CONFLICT (secret_name) DO NOTHING").bind(fresh).execute(pool).await.map(drop))
        .map_err(&action)?;
        let (secret,): (String,) = on_pool!(self, pool =>
            sqlx::query_as("SELECT secret FROM auth_secret WHERE secret_name = 'access'").fetch_one(pool).await)
        .map_err(&action)?;
        Ok(secret)
    }

    /// Everything that is held in memory. `revoked_since_ms`: revocations before that no longer matter.
    pub(crate) async fn directory(&self, revoked_since_ms: i64) -> Result<Directory, StoreError> {
        let action = failed("read the users");
        // Read first: a change in between is then read again.
        let version = self.version().await?;
        let users: Vec<(String, String, String, bool)> = on_pool!(self, pool =>
            sqlx::query_as("SELECT user_name, roles, claims, is_disabled FROM auth_user").fetch_all(pool).await)
        .map_err(&action)?;
        let keys: Vec<(String, String, String, String, String, Option<i64>)> = on_pool!(self, pool =>
            sqlx::query_as("SELECT key_id, secret_hash, key_name, roles, claims, expires_at_ms FROM auth_api_key \
                WHERE revoked_at_ms IS NULL").fetch_all(pool).await)
        .map_err(&action)?;
        let revoked: Vec<(String,)> = on_pool!(self, pool =>
            sqlx::query_as("SELECT session_id FROM auth_session WHERE revoked_at_ms >= $1")
                .bind(revoked_since_ms).fetch_all(pool).await)
        .map_err(&action)?;
        let cutoffs: Vec<(String, i64)> = on_pool!(self, pool =>
            sqlx::query_as("SELECT user_name, before_s FROM auth_cutoff").fetch_all(pool).await)
        .map_err(&action)?;
        let users = users.into_iter().map(|(name, roles, claims, is_disabled)| {
            (name, DirectoryUser { roles: texts(&roles), claims: object(&claims), is_disabled })
        });
        let api_keys = keys.into_iter().map(|(id, secret_hash, name, roles, claims, expires_at_ms)| {
            let (roles, claims) = (texts(&roles), object(&claims));
            (id, DirectoryKey { secret_hash, name, roles, claims, expires_at_ms })
        });
        Ok(Directory {
            version,
            users: users.collect(),
            api_keys: api_keys.collect(),
            revoked_sessions: revoked.into_iter().map(|(id,)| id).collect(),
            cutoffs_s: cutoffs.into_iter().collect(),
        })
    }

    /// Calls back all tokens of a user that were issued up to `now_s`, whoever issued them.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn revoke_user(&self, user: &str, now_s: i64) -> Result<(), StoreError> {
        let action = failed("revoke a user's tokens");
        on_pool!(self, pool => {
            let mut tx = pool.begin().await.map_err(&action)?;
            sqlx::query("UPDATE auth_session SET revoked_at_ms = $2 WHERE user_name = $1 AND revoked_at_ms IS NULL")
                .bind(user).bind(now_s * 1000 + 999).execute(&mut *tx).await.map_err(&action)?;
            sqlx::query("INSERT INTO auth_cutoff (user_name, before_s) VALUES ($1, $2) \
                ON CONFLICT (user_name) DO UPDATE SET before_s = excluded.before_s")
                .bind(user).bind(now_s).execute(&mut *tx).await.map_err(&action)?;
            tx.commit().await.map_err(&action)
        })?;
        self.bump().await
    }
}

fn failed(action: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |source| StoreError::Database { action, source }
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

/// SHA-256 as hexadecimal digits: for secrets that are random, which nobody can guess from a fast hash.
pub(crate) fn digest(secret: &str) -> String {
    use sha2::Digest as _;
    hex(&sha2::Sha256::digest(secret.as_bytes()))
}

fn texts(json: &str) -> Vec<String> {
    serde_json::from_str(json).unwrap_or_default()
}

fn object(json: &str) -> Map<String, Value> {
    serde_json::from_str(json).unwrap_or_default()
}

#[cfg(test)]
mod tests;
