//! What an operator can set about sign-in and permissions.

use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::keys::SECRET_BYTES_SAFE;

/// Shortest password that can be asked for.
const PASSWORD_LENGTH_FLOOR: usize = 8;

/// Who gets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMode {
    /// Everybody gets a short-lived viewer token from `/api/v1/session`. For demonstrations.
    Demo,
    /// Everybody has the `anonymous_roles` without a token; a token is still honoured. For a display on a closed
    /// network.
    Anonymous,
    /// A caller brings a token: one signed with a configured key, or one that a sign-in here gave out.
    #[default]
    Token,
}

/// Who gets in, and how tokens are checked.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// `demo`, `anonymous` or `token`.
    pub mode: AuthMode,
    /// Shared secret of HS256, HS384 and HS512 tokens, at least 32 bytes to be safe.
    pub jwt_secret: Option<String>,
    /// The secret before `jwt_secret`, so that tokens signed with it stay good for a while; at least 32 bytes.
    pub jwt_secret_previous: Option<String>,
    /// When `jwt_secret_previous` ends to be good, as in `2026-01-31T00:00:00Z`. Needed with it.
    pub jwt_secret_previous_until: Option<DateTime<Utc>>,
    /// Public keys of RS, PS, ES and EdDSA tokens; see [`KeyConfig`].
    pub jwt_keys: Vec<KeyConfig>,
    /// Address of a JSON Web Key Set, `https` or on this machine. It is read at the start, then every
    /// `jwks_refresh_seconds`, and when a token names a key that is not known yet.
    pub jwks_url: Option<String>,
    /// How often the key set is read.
    pub jwks_refresh_seconds: u64,
    /// If set, a token's `iss` must be this.
    pub jwt_issuer: Option<String>,
    /// If set, a token's `aud` must contain this.
    pub jwt_audience: Option<String>,
    /// Clock difference that is forgiven in `exp` and `nbf`, in seconds.
    pub jwt_leeway_seconds: u64,
    /// Claims that may name the user; the first that a token has counts. Django's SimpleJWT writes `user_id`; for
    /// OpenID Connect `preferred_username` before `sub` reads best.
    pub user_claims: Vec<String>,
    /// Claims with the roles, a list or one text; a dot goes into an object, as in `realm_access.roles`. The first that
    /// a token has counts.
    pub role_claims: Vec<String>,
    /// The identity provider's names of roles or groups, and the role that each stands for. Names that are not here
    /// stand for themselves.
    pub role_names: BTreeMap<String, String>,
    /// Roles of a token that says nothing of roles.
    pub default_roles: Vec<String>,
    /// Roles of callers without a token, in the modes `anonymous` and `demo`.
    pub anonymous_roles: Vec<String>,
    /// Life of the tokens that mode `demo` gives out, in seconds.
    pub demo_token_seconds: u64,
    /// Life of the access tokens that a sign-in with a password gives out, in seconds.
    pub access_token_seconds: u64,
    /// A refresh token that is not used for so long ends the session, in seconds.
    pub refresh_token_seconds: u64,
    /// A session ends so long after its sign-in in any case, in seconds.
    pub session_seconds: u64,
    /// Fewest characters of a new password.
    pub password_length_min: usize,
    /// Sign-ins that may be tried per minute, by address and by user each; further ones get 429.
    pub sign_ins_per_minute: u32,
    /// Entries of the audit log are kept for so many days.
    pub audit_days: u32,
    /// At most so many entries of the audit log are kept; beyond it the oldest go.
    pub audit_entries_max: u64,
}

/// A public key that signs tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// File with the public key in PEM form (RSA, P-256, P-384 or Ed25519).
    pub file: PathBuf,
    /// Algorithm of the tokens, for example `RS256`; a token that names another is refused. Without it every algorithm
    /// that fits the type of the key.
    #[serde(default)]
    pub algorithm: Option<String>,
    /// Key id. A token that names a key id is checked with the keys of that id alone.
    #[serde(default)]
    pub id: Option<String>,
    /// From then on the key is no longer good.
    #[serde(default)]
    pub until: Option<DateTime<Utc>>,
}

impl Default for AuthConfig {
    fn default() -> Self {
        let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect();
        Self {
            mode: AuthMode::default(),
            jwt_secret: None,
            jwt_secret_previous: None,
            jwt_secret_previous_until: None,
            jwt_keys: Vec::new(),
            jwks_url: None,
            jwks_refresh_seconds: 300,
            jwt_issuer: None,
            jwt_audience: None,
            jwt_leeway_seconds: 5,
            user_claims: texts(&["sub", "user_id"]),
            role_claims: texts(&["roles"]),
            role_names: BTreeMap::new(),
            default_roles: texts(&["viewer"]),
            anonymous_roles: texts(&["viewer"]),
            demo_token_seconds: 900,
            access_token_seconds: 300,
            refresh_token_seconds: 14 * 24 * 3600,
            session_seconds: 90 * 24 * 3600,
            password_length_min: 10,
            sign_ins_per_minute: 10,
            audit_days: 90,
            audit_entries_max: 1_000_000,
        }
    }
}

impl std::fmt::Debug for AuthConfig {
    /// Without the secrets, which must not reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthConfig")
            .field("mode", &self.mode)
            .field("jwt_secret", &self.jwt_secret.as_ref().map(|_| "…"))
            .field("jwt_secret_previous", &self.jwt_secret_previous.as_ref().map(|_| "…"))
            .field("jwt_keys", &self.jwt_keys)
            .field("jwks_url", &self.jwks_url)
            .field("jwt_issuer", &self.jwt_issuer)
            .field("jwt_audience", &self.jwt_audience)
            .finish_non_exhaustive()
    }
}

impl AuthConfig {
    /// Whether tokens of another program are taken.
    pub(crate) fn has_keys(&self) -> bool {
        self.jwt_secret.is_some() || !self.jwt_keys.is_empty() || self.jwks_url.is_some()
    }

    /// Everything that is wrong, one sentence each. `has_users` says whether people can sign in with a password here.
    pub(crate) fn validate(&self, has_users: bool, wrong: &mut Vec<String>) {
        let mut check = |ok: bool, message: &str| {
            if !ok {
                wrong.push(message.to_owned());
            }
        };
        check(
            self.mode != AuthMode::Token || self.has_keys() || has_users,
            "api.auth.jwt_secret is missing: mode `token` needs a secret, jwt_keys or a jwks_url that tokens are checked with, or local users",
        );
        check(self.jwt_secret.as_deref() != Some(""), "api.auth.jwt_secret is empty: leave it out or give a secret");
        check(
            self.jwt_secret_previous.as_ref().is_none_or(|secret| secret.len() >= SECRET_BYTES_SAFE),
            "api.auth.jwt_secret_previous has less than 32 bytes: a secret that can be guessed must not live on",
        );
        check(
            self.jwt_secret_previous.is_some() == self.jwt_secret_previous_until.is_some(),
            "api.auth.jwt_secret_previous and jwt_secret_previous_until go together",
        );
        check(self.demo_token_seconds >= 10, "api.auth.demo_token_seconds must be at least 10");
        check(self.access_token_seconds >= 10, "api.auth.access_token_seconds must be at least 10");
        check(
            self.refresh_token_seconds > self.access_token_seconds,
            "api.auth.refresh_token_seconds must be more than api.auth.access_token_seconds",
        );
        check(
            self.session_seconds >= self.refresh_token_seconds,
            "api.auth.session_seconds must be at least api.auth.refresh_token_seconds",
        );
        check(self.jwks_refresh_seconds > 0, "api.auth.jwks_refresh_seconds must be at least 1");
        check(self.password_length_min >= PASSWORD_LENGTH_FLOOR, "api.auth.password_length_min must be at least 8");
        check(self.sign_ins_per_minute > 0, "api.auth.sign_ins_per_minute must be at least 1");
        check(!self.user_claims.is_empty(), "api.auth.user_claims must name at least one claim");
        if let Some(url) = &self.jwks_url
            && let Err(reason) = super::jwks::check_url(url)
        {
            wrong.push(format!("api.auth.jwks_url: {reason}"));
        }
    }
}

/// What a role may do beside reading views and channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// Ask SQL of the views that the role may read.
    Sql,
    /// Append records to source topics over HTTP.
    Ingest,
    /// Use the server API: publish, disconnect and the like for other programs.
    ServerApi,
    /// See connections and the audit log, and end sessions.
    Admin,
}

/// A role: which views and channels, which of their rows, and what else.
///
/// A name may have `*` in it, which stands for any text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoleConfig {
    /// Views that may be read: over REST, live and in SQL.
    pub views: Vec<String>,
    /// Channels other than views that may be subscribed to: `alerts`, `status`, and those of namespaces.
    pub channels: Vec<String>,
    /// Channels that may be published to.
    pub publish: Vec<String>,
    /// Remote procedures that may be called.
    pub commands: Vec<String>,
    /// What else is allowed.
    pub allow: Vec<Permission>,
    /// For a view, the rows that may be seen: an SQL condition over the view's columns, in which `claims.NAME` is a
    /// claim of the caller's token. A caller without the claim sees no row. A view without an entry is seen whole.
    pub rows: BTreeMap<String, String>,
}

/// The roles there are unless the configuration says otherwise; `[api.roles.NAME]` adds a role or takes one's place.
pub(crate) fn shipped_roles() -> BTreeMap<String, RoleConfig> {
    let all = || vec!["*".to_owned()];
    let viewer = RoleConfig {
        views: all(),
        channels: all(),
        commands: all(),
        allow: vec![Permission::Sql],
        ..RoleConfig::default()
    };
    let ingest = RoleConfig { allow: vec![Permission::Ingest], ..RoleConfig::default() };
    let service = RoleConfig { allow: vec![Permission::ServerApi], ..RoleConfig::default() };
    let admin = RoleConfig {
        publish: all(),
        allow: vec![Permission::Sql, Permission::Ingest, Permission::ServerApi, Permission::Admin],
        ..viewer.clone()
    };
    [("viewer", viewer), ("ingest", ingest), ("service", service), ("admin", admin)]
        .map(|(name, role)| (name.to_owned(), role))
        .into()
}
