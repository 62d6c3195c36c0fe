//! Who a caller is and what they may do.
//!
//! - [`keys`], [`jwks`]: tokens of other programs, checked with configured or fetched keys;
//! - [`principal`]: the caller;
//! - [`access`]: the roles' permissions; [`rows`]: which rows of a view;
//! - [`store`]: local users, sessions and API keys in a database; [`local`]: what nodes hold of them in memory;
//! - [`audit`]: the log of sign-ins, denials and administrative changes;
//! - [`config`]: what an operator can set.
//!
//! [`Authority`] is the one place that decides. Checking a token never waits: what has to be fetched is fetched beside.

pub(crate) mod access;
pub(crate) mod audit;
pub(crate) mod config;
pub(crate) mod jwks;
pub(crate) mod keys;
pub(crate) mod local;
pub(crate) mod principal;
pub(crate) mod rows;
pub(crate) mod store;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use model::Clock;
use rand::Rng;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) use access::{Access, Action, Resource, RowRule, matches};
pub(crate) use config::Permission;
pub(crate) use principal::{Credential, Principal};
pub(crate) use rows::{RowFilter, RowFilterError};
pub(crate) use store::hex;

use access::Roles;
use audit::{AuditLog, AuditWriter};
use config::{AuthConfig, AuthMode, RoleConfig};
use jwks::KeySet;
use keys::{Expected, Key};
use local::LocalAccounts;
use store::{Store, StoreError};

/// Key ids of the tokens that mode `demo` gives out start with this.
const DEMO_KEY_PREFIX: &str = "demo-";

/// Why a token was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuthError {
    /// There is none, and this server wants one.
    #[error("this route wants a token")]
    Missing,
    /// It was good once: a new one helps.
    #[error("the token has expired")]
    Expired,
    /// Its signature, algorithm or claims are wrong.
    #[error("the token is not valid here")]
    Invalid,
    /// It was good, but has been called back.
    #[error("the token has been revoked")]
    Revoked,
    /// It names a key that is not known; the key set is being read, so that trying again may help.
    #[error("the key that signed the token is not known")]
    UnknownKey,
}

/// Decides who callers are and what they may do.
pub(crate) struct Authority {
    config: AuthConfig,
    clock: Arc<dyn Clock>,
    roles: Roles,
    keys: Vec<Key>,
    key_set: Option<KeySet>,
    expected: Expected,
    demo_encoding: EncodingKey,
    /// Key id of the demo tokens of this process; `None` if the secret is configured and outlives the process.
    demo_key_id: Option<String>,
    accounts: Option<LocalAccounts>,
    audit: AuditLog,
    audit_writer: Mutex<Option<AuditWriter>>,
    revocations: watch::Sender<u64>,
}

impl Authority {
    /// # Errors
    /// What is wrong with the configured keys, one sentence each.
    pub(crate) fn new(
        config: &AuthConfig,
        roles: &BTreeMap<String, RoleConfig>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Vec<String>> {
        let mut keys = keys::configured_keys(config)?;
        let mut random = [0_u8; 32];
        rand::rng().fill(&mut random[..]);
        let demo_secret = config.jwt_secret.as_ref().map_or(&random[..], |s| s.as_bytes());
        let demo_key_id =
            config.jwt_secret.is_none().then(|| format!("{DEMO_KEY_PREFIX}{}", uuid::Uuid::new_v4().simple()));
        if let (AuthMode::Demo, Some(id)) = (config.mode, &demo_key_id) {
            keys.push(Key::secret(demo_secret, None).with_id(id));
        }
        let refresh = Duration::from_secs(config.jwks_refresh_seconds);
        Ok(Self {
            roles: Roles::new(roles),
            demo_encoding: EncodingKey::from_secret(demo_secret),
            demo_key_id,
            keys,
            key_set: config.jwks_url.as_ref().map(|url| KeySet::new(url, refresh)),
            expected: Expected {
                issuer: config.jwt_issuer.clone(),
                audience: config.jwt_audience.clone(),
                leeway_s: config.jwt_leeway_seconds,
            },
            accounts: None,
            audit: AuditLog::without_store(Arc::clone(&clock)),
            audit_writer: Mutex::new(None),
            revocations: watch::channel(0).0,
            config: config.clone(),
            clock,
        })
    }

    /// The same with the users, sessions and API keys of a database.
    ///
    /// # Errors
    /// If the database fails.
    pub(crate) async fn with_store(mut self, store: Store) -> Result<Self, StoreError> {
        self.accounts = Some(LocalAccounts::load(store.clone(), &self.config, Arc::clone(&self.clock)).await?);
        let (days, entries_max) = (self.config.audit_days, self.config.audit_entries_max);
        let (audit, writer) = AuditLog::with_store(Arc::clone(&self.clock), store, days, entries_max);
        self.audit = audit;
        self.audit_writer = Mutex::new(Some(writer));
        Ok(self)
    }

    /// Keeps what is fetched up to date, and writes the audit log, until `shutdown`.
    pub(crate) async fn run(&self, shutdown: CancellationToken) {
        let writer = self.audit_writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let writing = async {
            match writer {
                Some(writer) => writer.run(shutdown.clone()).await,
                None => shutdown.cancelled().await,
            }
        };
        let fetching = async {
            match &self.key_set {
                Some(key_set) => key_set.run(shutdown.clone()).await,
                None => shutdown.cancelled().await,
            }
        };
        let following = async {
            match &self.accounts {
                Some(accounts) => accounts.follow(&self.revocations, shutdown.clone()).await,
                None => shutdown.cancelled().await,
            }
        };
        tokio::join!(writing, fetching, following);
    }

    /// Local users, sessions and API keys; `None` without a database.
    pub(crate) fn accounts(&self) -> Option<&LocalAccounts> {
        self.accounts.as_ref()
    }

    /// Where sign-ins, denials and administrative changes are written.
    pub(crate) fn audit(&self) -> &AuditLog {
        &self.audit
    }

    /// Takes over what was changed through this node, at once.
    pub(crate) async fn refresh_accounts(&self) -> Result<(), StoreError> {
        match &self.accounts {
            Some(accounts) => accounts.reload(&self.revocations).await,
            None => Ok(()),
        }
    }

    /// Names of all roles.
    pub(crate) fn role_names(&self) -> impl Iterator<Item = &str> {
        self.roles.names()
    }

    pub(crate) fn mode(&self) -> AuthMode {
        self.config.mode
    }

    pub(crate) fn now_s(&self) -> i64 {
        self.clock.now_us().div_euclid(1_000_000)
    }

    /// Who brings this token. Without a token (an empty one) it is an anonymous caller where those are let in.
    ///
    /// # Errors
    /// Why the token is not accepted.
    pub(crate) fn authenticate(&self, token: &str) -> Result<Principal, AuthError> {
        match (token.is_empty(), self.config.mode) {
            (false, _) => self.principal_of(token),
            (true, AuthMode::Token) => Err(AuthError::Missing),
            (true, _) => Ok(Principal::anonymous(&self.config.anonymous_roles)),
        }
    }

    /// Who connects for live data. Mode `demo` wants a token there: it is given to anybody, and the client goes the
    /// same way as in production.
    ///
    /// # Errors
    /// As [`Self::authenticate`].
    pub(crate) fn connect(&self, token: &str) -> Result<Principal, AuthError> {
        match (token.is_empty(), self.config.mode) {
            (true, AuthMode::Demo) => Err(AuthError::Missing),
            _ => self.authenticate(token),
        }
    }

    /// The claims of a token of another program, whatever they say: a subscription token for example.
    ///
    /// # Errors
    /// Why the token is not accepted.
    pub(crate) fn verify(&self, token: &str) -> Result<Map<String, Value>, AuthError> {
        let fetched = self.key_set.as_ref().map(KeySet::keys);
        let keys = self.keys.iter().chain(fetched.iter().flat_map(|keys| keys.iter()));
        match keys::verify(token, keys, &self.expected, self.now_s()) {
            Err(_) if self.is_of_an_earlier_demo(token) => Err(AuthError::Expired),
            Err(AuthError::UnknownKey) => match &self.key_set {
                Some(key_set) => {
                    key_set.ask();
                    Err(AuthError::UnknownKey)
                }
                None => Err(AuthError::Invalid),
            },
            other => other,
        }
    }

    fn principal_of(&self, token: &str) -> Result<Principal, AuthError> {
        if let Some(accounts) = &self.accounts
            && let Some(outcome) = accounts.authenticate(token, self.now_s())
        {
            return outcome;
        }
        let claims = self.verify(token)?;
        // SimpleJWT signs refresh tokens with the same key; they are no proof here.
        if claims.get("token_type").is_some_and(|kind| kind != "access") {
            return Err(AuthError::Invalid);
        }
        // A subscription token is for one channel only.
        if claims.contains_key("channel") {
            return Err(AuthError::Invalid);
        }
        let is_demo = claims.get("sub").is_some_and(|sub| sub == "demo") && self.config.mode == AuthMode::Demo;
        let principal = Principal {
            user: self.config.user_claims.iter().find_map(|path| text_at(&claims, path)).unwrap_or_default().into(),
            roles: self.roles_of(&claims).into(),
            expires_at_s: match claims.get("expire_at").and_then(Value::as_i64) {
                Some(0) => None,
                Some(at_s) => Some(at_s),
                None => claims.get("exp").and_then(Value::as_i64),
            },
            issued_at_s: claims.get("iat").and_then(Value::as_i64),
            session_id: ["sid", "jti"].into_iter().find_map(|name| text_at(&claims, name)).map(Arc::from),
            credential: if is_demo { Credential::Demo } else { Credential::Token },
            claims: Arc::new(claims),
        };
        self.still_valid(&principal)?;
        Ok(principal)
    }

    fn roles_of(&self, claims: &Map<String, Value>) -> Vec<String> {
        let Some(value) = self.config.role_claims.iter().find_map(|path| value_at(claims, path)) else {
            return self.config.default_roles.clone();
        };
        let named = |name: &str| self.config.role_names.get(name).cloned().unwrap_or_else(|| name.to_owned());
        match value {
            Value::String(name) => vec![named(name)],
            Value::Array(names) => names.iter().filter_map(Value::as_str).map(named).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether a caller who was let in still is: to be asked whenever [`Self::revocations`] changes.
    ///
    /// # Errors
    /// [`AuthError::Revoked`].
    pub(crate) fn still_valid(&self, principal: &Principal) -> Result<(), AuthError> {
        match &self.accounts {
            Some(accounts) => accounts.still_valid(principal),
            None => Ok(()),
        }
    }

    /// The caller as it would be let in now, if that is no longer the same: a local user may have got other roles.
    ///
    /// # Errors
    /// [`AuthError::Revoked`].
    pub(crate) fn as_of_now(&self, principal: &Principal) -> Result<Option<Principal>, AuthError> {
        self.still_valid(principal)?;
        Ok(self.accounts.as_ref().and_then(|accounts| accounts.changed(principal)))
    }

    /// Changes whenever something was revoked.
    pub(crate) fn revocations(&self) -> watch::Receiver<u64> {
        self.revocations.subscribe()
    }

    /// Whether a caller may do something, and with which rows.
    pub(crate) fn access(&self, principal: &Principal, action: Action, resource: Resource<'_>) -> Access {
        self.roles.access(principal, action, resource)
    }

    /// Whether a caller may read views at all, whichever they are.
    pub(crate) fn may_read_views(&self, principal: &Principal) -> Access {
        self.roles.may_read_views(principal)
    }

    /// The key of a demo token may have gone with the process that made it: such a client shall fetch a new token
    /// instead of giving up. Nothing is granted by this.
    fn is_of_an_earlier_demo(&self, token: &str) -> bool {
        let (AuthMode::Demo, Some(own)) = (self.config.mode, &self.demo_key_id) else { return false };
        jsonwebtoken::decode_header(token)
            .ok()
            .and_then(|header| header.kid)
            .is_some_and(|kid| kid.starts_with(DEMO_KEY_PREFIX) && kid != *own)
    }

    /// A token for anybody; `None` unless in mode `demo`.
    pub(crate) fn demo_token(&self) -> Option<String> {
        if self.config.mode != AuthMode::Demo {
            return None;
        }
        let now_s = self.now_s();
        let mut claims = json!({
            "sub": "demo",
            "exp": now_s.saturating_add_unsigned(self.config.demo_token_seconds),
            "iat": now_s,
        });
        claims["roles"] = json!(self.config.anonymous_roles);
        if let Some(issuer) = &self.config.jwt_issuer {
            claims["iss"] = json!(issuer);
        }
        if let Some(audience) = &self.config.jwt_audience {
            claims["aud"] = json!(audience);
        }
        let header = Header { kid: self.demo_key_id.clone(), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, &claims, &self.demo_encoding)
            .inspect_err(|error| tracing::error!(%error, "cannot sign a demo token"))
            .ok()
    }
}

/// The value at a path of names with dots between; a name that has dots itself is found too.
fn value_at<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let mut names = path.split('.');
    let first = claims.get(names.next()?)?;
    names.try_fold(first, |value, name| value.get(name))
}

/// The same as text; numbers, which SimpleJWT uses for users, are written out.
fn text_at(claims: &Map<String, Value>, path: &str) -> Option<String> {
    match value_at(claims, path)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
