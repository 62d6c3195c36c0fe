//! Local users, their passwords and their sessions.

use argon2::password_hash::{PasswordHash, SaltString};
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use serde_json::{Map, Value};

use super::{ENTRIES_MAX, Store, StoreError, digest, failed, hex, on_pool};

/// Longest name of a user.
const USER_NAME_BYTES_MAX: usize = 128;
/// Longer passwords are refused: hashing them would cost without making them better.
const PASSWORD_BYTES_MAX: usize = 1024;
/// How long a session that is over is remembered: its last access token must not outlive its revocation.
const SESSION_OVER_MS: i64 = 24 * 3_600_000;
/// Sessions that a user may have; the oldest ends when one more begins.
const SESSIONS_PER_USER_MAX: i64 = 100;

/// A local user as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct UserInfo {
    /// The name.
    pub name: String,
    /// Names of roles.
    pub roles: Vec<String>,
    /// What row rules call `claims`.
    pub claims: Map<String, Value>,
    /// Whether the user may not sign in.
    pub disabled: bool,
}

/// A sign-in.
#[derive(Debug)]
pub(crate) struct SignedIn {
    pub(crate) user: String,
    pub(crate) session_id: String,
    /// To be given out once; only its hash is kept.
    pub(crate) refresh_token: String,
}

/// What came of a refresh token.
#[derive(Debug)]
pub(crate) enum Refreshed {
    /// It was good; a new one takes its place.
    Renewed(SignedIn),
    /// It is not known, or its time or its session is over.
    Refused,
    /// It was used before: its session has been ended.
    Replayed {
        /// Whose session that was.
        user: String,
    },
}

/// How long things last, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lives {
    pub(crate) refresh_ms: i64,
    pub(crate) session_ms: i64,
}

impl Store {
    /// Adds a user who can sign in with this password.
    ///
    /// # Errors
    /// If there is such a user, or the name is not one.
    pub async fn add_user(
        &self,
        name: &str,
        password: &str,
        roles: &[String],
        claims: &Map<String, Value>,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let is_name = !name.is_empty()
            && name.len() <= USER_NAME_BYTES_MAX
            && name.chars().all(|c| c.is_alphanumeric() || "._-@+".contains(c));
        if !is_name {
            let message = "a user's name has at most 128 letters, digits and . _ - @ +";
            return Err(StoreError::Invalid(message.to_owned()));
        }
        let (n_users,): (i64,) = on_pool!(self, pool =>
            sqlx::query_as("SELECT COUNT(*) FROM auth_user").fetch_one(pool).await)
        .map_err(failed("count the users"))?;
        if n_users >= ENTRIES_MAX {
            return Err(StoreError::Full);
        }
        let hash = hash_password(password).await?;
        let n_added = on_pool!(self, pool => sqlx::query("INSERT INTO auth_user \
            (user_name, password_hash, roles, claims, is_disabled, created_at_ms, changed_at_ms) \
            VALUES ($1, $2, $3, $4, FALSE, $5, $5) ON CONFLICT (user_name) DO NOTHING")
            .bind(name).bind(hash).bind(Value::from(roles).to_string())
            .bind(Value::Object(claims.clone()).to_string()).bind(now_ms)
            .execute(pool).await.map(|done| done.rows_affected()))
        .map_err(failed("add a user"))?;
        if n_added == 0 {
            return Err(StoreError::Exists(name.to_owned()));
        }
        self.bump().await
    }

    /// All users by name.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn users(&self) -> Result<Vec<UserInfo>, StoreError> {
        let rows: Vec<(String, String, String, bool)> = on_pool!(self, pool =>
            sqlx::query_as("SELECT user_name, roles, claims, is_disabled FROM auth_user ORDER BY user_name")
                .fetch_all(pool).await)
        .map_err(failed("read the users"))?;
        let info = |(name, roles, claims, disabled): (String, String, String, bool)| UserInfo {
            name,
            roles: super::texts(&roles),
            claims: super::object(&claims),
            disabled,
        };
        Ok(rows.into_iter().map(info).collect())
    }

    /// Lets a user sign in, or not any more. Not any more ends all sessions.
    ///
    /// # Errors
    /// If there is no such user.
    pub async fn set_disabled(&self, name: &str, disabled: bool, now_ms: i64) -> Result<(), StoreError> {
        let n_changed = on_pool!(self, pool =>
            sqlx::query("UPDATE auth_user SET is_disabled = $2, changed_at_ms = $3 WHERE user_name = $1")
                .bind(name).bind(disabled).bind(now_ms)
                .execute(pool).await.map(|done| done.rows_affected()))
        .map_err(failed("change a user"))?;
        self.changed(name, n_changed, disabled, now_ms).await
    }

    /// Gives a user other roles and claims.
    ///
    /// # Errors
    /// If there is no such user.
    pub async fn set_roles(
        &self,
        name: &str,
        roles: &[String],
        claims: &Map<String, Value>,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let n_changed = on_pool!(self, pool =>
            sqlx::query("UPDATE auth_user SET roles = $2, claims = $3, changed_at_ms = $4 WHERE user_name = $1")
                .bind(name).bind(Value::from(roles).to_string()).bind(Value::Object(claims.clone()).to_string())
                .bind(now_ms).execute(pool).await.map(|done| done.rows_affected()))
        .map_err(failed("change a user"))?;
        self.changed(name, n_changed, false, now_ms).await
    }

    /// Gives a user another password and ends all sessions.
    ///
    /// # Errors
    /// If there is no such user.
    pub async fn set_password(&self, name: &str, password: &str, now_ms: i64) -> Result<(), StoreError> {
        let hash = hash_password(password).await?;
        let n_changed = on_pool!(self, pool =>
            sqlx::query("UPDATE auth_user SET password_hash = $2, changed_at_ms = $3 WHERE user_name = $1")
                .bind(name).bind(hash).bind(now_ms).execute(pool).await.map(|done| done.rows_affected()))
        .map_err(failed("change a password"))?;
        self.changed(name, n_changed, true, now_ms).await
    }

    async fn changed(&self, name: &str, n_changed: u64, ends_sessions: bool, now_ms: i64) -> Result<(), StoreError> {
        match (n_changed, ends_sessions) {
            (0, _) => Err(StoreError::Unknown(name.to_owned())),
            (_, true) => self.end_sessions(name, now_ms).await,
            (_, false) => self.bump().await,
        }
    }

    /// Ends all sessions of a local user.
    pub(crate) async fn end_sessions(&self, name: &str, now_ms: i64) -> Result<(), StoreError> {
        on_pool!(self, pool =>
            sqlx::query("UPDATE auth_session SET revoked_at_ms = $2 WHERE user_name = $1 AND revoked_at_ms IS NULL")
                .bind(name).bind(now_ms).execute(pool).await.map(drop))
        .map_err(failed("end sessions"))?;
        self.bump().await
    }

    /// Ends one session.
    pub(crate) async fn end_session(&self, session_id: &str, now_ms: i64) -> Result<(), StoreError> {
        on_pool!(self, pool =>
            sqlx::query("UPDATE auth_session SET revoked_at_ms = $2 WHERE session_id = $1 AND revoked_at_ms IS NULL")
                .bind(session_id).bind(now_ms).execute(pool).await.map(drop))
        .map_err(failed("end a session"))?;
        self.bump().await
    }

    /// Whether the password is the user's. An unknown user takes as long to answer as a known one.
    pub(crate) async fn check_password(&self, name: &str, password: &str) -> Result<bool, StoreError> {
        let row: Option<(String, bool)> = on_pool!(self, pool =>
            sqlx::query_as("SELECT password_hash, is_disabled FROM auth_user WHERE user_name = $1")
                .bind(name).fetch_optional(pool).await)
        .map_err(failed("read a user"))?;
        let (hash, may_enter) = match row {
            Some((hash, is_disabled)) => (Some(hash), !is_disabled),
            None => (None, false),
        };
        Ok(verify_password(hash, password).await? && may_enter)
    }

    /// Begins a session of a user whose password was checked.
    pub(crate) async fn sign_in(
        &self,
        name: &str,
        address: &str,
        lives: Lives,
        now_ms: i64,
    ) -> Result<SignedIn, StoreError> {
        let session_id = uuid::Uuid::now_v7().to_string();
        let refresh_token = new_secret();
        let action = failed("begin a session");
        on_pool!(self, pool => {
            let mut tx = pool.begin().await.map_err(&action)?;
            sqlx::query("INSERT INTO auth_session (session_id, user_name, created_at_ms, ends_at_ms, address) \
                VALUES ($1, $2, $3, $4, $5)")
                .bind(&session_id).bind(name).bind(now_ms).bind(now_ms + lives.session_ms).bind(address)
                .execute(&mut *tx).await.map_err(&action)?;
            sqlx::query(INSERT_REFRESH_TOKEN)
                .bind(digest(&refresh_token)).bind(&session_id).bind(now_ms + lives.refresh_ms)
                .execute(&mut *tx).await.map_err(&action)?;
            // What is over is forgotten, and what is too much ends.
            sqlx::query("DELETE FROM auth_refresh_token WHERE session_id IN \
                (SELECT session_id FROM auth_session WHERE user_name = $1 AND ends_at_ms < $2)")
                .bind(name).bind(now_ms).execute(&mut *tx).await.map_err(&action)?;
            sqlx::query("DELETE FROM auth_session WHERE user_name = $1 AND ends_at_ms < $2")
                .bind(name).bind(now_ms).execute(&mut *tx).await.map_err(&action)?;
            sqlx::query("UPDATE auth_session SET revoked_at_ms = $2 WHERE user_name = $1 AND revoked_at_ms IS NULL \
                AND session_id NOT IN (SELECT session_id FROM auth_session WHERE user_name = $1 \
                AND revoked_at_ms IS NULL ORDER BY created_at_ms DESC, session_id DESC LIMIT $3)")
                .bind(name).bind(now_ms).bind(SESSIONS_PER_USER_MAX).execute(&mut *tx).await.map_err(&action)?;
            tx.commit().await.map_err(&action)
        })?;
        Ok(SignedIn { user: name.to_owned(), session_id, refresh_token })
    }

    /// Takes a refresh token and gives a new one.
    pub(crate) async fn refresh(&self, token: &str, lives: Lives, now_ms: i64) -> Result<Refreshed, StoreError> {
        let action = failed("refresh a session");
        let (hash, refresh_token) = (digest(token), new_secret());
        // In one transaction: whoever loses the answer to a failure has not lost the session too.
        let (known, n_used) = on_pool!(self, pool => {
            let mut tx = pool.begin().await.map_err(&action)?;
            // First, since of two that bring the same token at once only one gets through here.
            let used = sqlx::query(
                "UPDATE auth_refresh_token SET used_at_ms = $2 WHERE token_hash = $1 AND used_at_ms IS NULL")
                .bind(&hash).bind(now_ms).execute(&mut *tx).await.map_err(&action)?;
            let known: Option<(String, String, bool)> = sqlx::query_as("SELECT s.session_id, s.user_name, \
                s.revoked_at_ms IS NULL AND s.ends_at_ms > $2 AND t.expires_at_ms > $2 AND NOT u.is_disabled \
                FROM auth_refresh_token t JOIN auth_session s ON s.session_id = t.session_id \
                JOIN auth_user u ON u.user_name = s.user_name WHERE t.token_hash = $1")
                .bind(&hash).bind(now_ms).fetch_optional(&mut *tx).await.map_err(&action)?;
            if let (Some((session_id, _, true)), 1) = (&known, used.rows_affected()) {
                sqlx::query(INSERT_REFRESH_TOKEN)
                    .bind(digest(&refresh_token)).bind(session_id).bind(now_ms + lives.refresh_ms)
                    .execute(&mut *tx).await.map_err(&action)?;
            }
            tx.commit().await.map_err(&action)?;
            (known, used.rows_affected())
        });
        let Some((session_id, user, is_good)) = known else { return Ok(Refreshed::Refused) };
        if n_used == 0 {
            self.end_session(&session_id, now_ms).await?;
            return Ok(Refreshed::Replayed { user });
        }
        if !is_good {
            return Ok(Refreshed::Refused);
        }
        Ok(Refreshed::Renewed(SignedIn { user, session_id, refresh_token }))
    }

    /// Forgets sessions that have been over for a while, whoever's they were, and refresh tokens that are too old to be
    /// good or to be noticed when they come again. Returns how many tokens.
    pub(crate) async fn sweep(&self, now_ms: i64) -> Result<u64, StoreError> {
        let action = failed("forget sessions that are over");
        let over_ms = now_ms - SESSION_OVER_MS;
        on_pool!(self, pool => {
            let mut tx = pool.begin().await.map_err(&action)?;
            let swept = sqlx::query("DELETE FROM auth_refresh_token WHERE expires_at_ms < $1 OR session_id IN \
                (SELECT session_id FROM auth_session WHERE ends_at_ms < $1)")
                .bind(over_ms).execute(&mut *tx).await.map_err(&action)?;
            sqlx::query("DELETE FROM auth_session WHERE ends_at_ms < $1")
                .bind(over_ms).execute(&mut *tx).await.map_err(&action)?;
            tx.commit().await.map_err(&action)?;
            Ok(swept.rows_affected())
        })
    }

    /// The session that a refresh token belongs to, and its user.
    pub(crate) async fn session_of(&self, token: &str) -> Result<Option<(String, String)>, StoreError> {
        on_pool!(self, pool =>
            sqlx::query_as("SELECT s.session_id, s.user_name FROM auth_refresh_token t \
                JOIN auth_session s ON s.session_id = t.session_id WHERE t.token_hash = $1")
                .bind(digest(token)).fetch_optional(pool).await)
        .map_err(failed("look up a session"))
    }
}

const INSERT_REFRESH_TOKEN: &str =
    "INSERT INTO auth_refresh_token (token_hash, session_id, expires_at_ms) VALUES ($1, $2, $3)";

/// A secret that cannot be guessed.
pub(super) fn new_secret() -> String {
    let random: [u8; 32] = rand::random();
    hex(&random)
}

async fn hash_password(password: &str) -> Result<String, StoreError> {
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(StoreError::Invalid("a password has at most 1024 bytes".to_owned()));
    }
    let password = password.to_owned();
    on_blocking_pool(move || {
        let salt: [u8; 16] = rand::random();
        let salt = SaltString::encode_b64(&salt).map_err(|error| error.to_string())?;
        let hash = Argon2::default().hash_password(password.as_bytes(), &salt).map_err(|error| error.to_string())?;
        Ok(hash.to_string())
    })
    .await
}

/// Whether a password fits a hash; without a hash the same work is done in vain.
async fn verify_password(hash: Option<String>, password: &str) -> Result<bool, StoreError> {
    /// Of no password that anybody knows.
    const NOBODY: &str =
        "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    if password.len() > PASSWORD_BYTES_MAX {
        return Ok(false);
    }
    let password = password.to_owned();
    on_blocking_pool(move || {
        let hash = hash.unwrap_or_else(|| NOBODY.to_owned());
        let hash = PasswordHash::new(&hash).map_err(|error| error.to_string())?;
        Ok(Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
    })
    .await
}

async fn on_blocking_pool<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| StoreError::Hash(error.to_string()))?
        .map_err(StoreError::Hash)
}
