//! API keys: for programs. A key reads `andon_<id>_<secret>`; the id is shown, of the secret only a hash is kept.

use serde_json::{Map, Value};

use super::{ENTRIES_MAX, Store, StoreError, digest, failed, on_pool, users::new_secret};

/// What every API key starts with, so that secret scanners find it.
pub(crate) const API_KEY_PREFIX: &str = "andon_";
/// Characters of a key's id.
const ID_CHARS: usize = 12;
/// Longest name of a key.
const KEY_NAME_BYTES_MAX: usize = 128;

/// What a new key may do.
#[derive(Debug, Clone, Default, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewApiKey {
    /// What it is for.
    pub name: String,
    /// Names of roles.
    pub roles: Vec<String>,
    /// What row rules call `claims`.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub claims: Map<String, Value>,
    /// Milliseconds since 1970 from which it is no longer good.
    #[serde(default)]
    pub expires_at_ms: Option<i64>,
}

/// An API key as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct ApiKeyInfo {
    /// The part of the key that is shown.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// Names of roles.
    pub roles: Vec<String>,
    /// When it was made, milliseconds since 1970.
    pub created_at_ms: i64,
    /// Milliseconds since 1970 from which it is no longer good.
    pub expires_at_ms: Option<i64>,
    /// When it was revoked, milliseconds since 1970.
    pub revoked_at_ms: Option<i64>,
}

impl Store {
    /// Makes a key. The answer is the only time that it is shown.
    ///
    /// # Errors
    /// If the name is not one, or there are too many keys.
    pub async fn add_api_key(&self, key: &NewApiKey, now_ms: i64) -> Result<String, StoreError> {
        if key.name.is_empty() || key.name.len() > KEY_NAME_BYTES_MAX {
            return Err(StoreError::Invalid("a key's name has 1 to 128 bytes".to_owned()));
        }
        let (n_keys,): (i64,) = on_pool!(self, pool =>
            sqlx::query_as("SELECT COUNT(*) FROM auth_api_key").fetch_one(pool).await)
        .map_err(failed("count the API keys"))?;
        if n_keys >= ENTRIES_MAX {
            return Err(StoreError::Full);
        }
        let id: String = new_secret().chars().take(ID_CHARS).collect();
        let secret = new_secret();
        on_pool!(self, pool => sqlx::query("INSERT INTO auth_api_key \
            (key_id, secret_hash, key_name, roles, claims, created_at_ms, expires_at_ms) \
            VALUES ($1, $2, $3, $4, $5, $6, $7)")
            .bind(&id).bind(digest(&secret)).bind(&key.name).bind(Value::from(key.roles.clone()).to_string())
            .bind(Value::Object(key.claims.clone()).to_string()).bind(now_ms).bind(key.expires_at_ms)
            .execute(pool).await.map(drop))
        .map_err(failed("add an API key"))?;
        self.bump().await?;
        Ok(format!("{API_KEY_PREFIX}{id}_{secret}"))
    }

    /// All keys, the newest first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn api_keys(&self) -> Result<Vec<ApiKeyInfo>, StoreError> {
        type Row = (String, String, String, i64, Option<i64>, Option<i64>);
        let rows: Vec<Row> = on_pool!(self, pool =>
            sqlx::query_as("SELECT key_id, key_name, roles, created_at_ms, expires_at_ms, revoked_at_ms \
                FROM auth_api_key ORDER BY created_at_ms DESC, key_id").fetch_all(pool).await)
        .map_err(failed("read the API keys"))?;
        let info = |(id, name, roles, created_at_ms, expires_at_ms, revoked_at_ms): Row| ApiKeyInfo {
            id,
            name,
            roles: super::texts(&roles),
            created_at_ms,
            expires_at_ms,
            revoked_at_ms,
        };
        Ok(rows.into_iter().map(info).collect())
    }

    /// Calls a key back.
    ///
    /// # Errors
    /// If there is no such key that is still good.
    pub async fn revoke_api_key(&self, id: &str, now_ms: i64) -> Result<(), StoreError> {
        let n_revoked = on_pool!(self, pool =>
            sqlx::query("UPDATE auth_api_key SET revoked_at_ms = $2 WHERE key_id = $1 AND revoked_at_ms IS NULL")
                .bind(id).bind(now_ms).execute(pool).await.map(|done| done.rows_affected()))
        .map_err(failed("revoke an API key"))?;
        if n_revoked == 0 {
            return Err(StoreError::Unknown(id.to_owned()));
        }
        self.bump().await
    }
}
