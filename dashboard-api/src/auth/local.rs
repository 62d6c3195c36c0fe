//! Local users, sessions and API keys as every node holds them in memory, and the access tokens of local sessions.
//!
//! An access token names its user and session, nothing else: roles and claims are those that the directory has when
//! the token is checked, so that a change of them, and a revocation, hold at once. Other nodes, and `andon user`, write to
//! the database; a node looks for changes every [`POLL_INTERVAL`].

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use model::Clock;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::AuthError;
use super::config::AuthConfig;
use super::keys::{self, Expected, Key};
use super::principal::{Credential, Principal};
use super::store::{API_KEY_PREFIX, Directory, DirectoryUser, Lives, Store, StoreError, digest};

/// Key id of access tokens of local sessions.
const KEY_ID: &str = "andon";
/// How often a node looks for changes in the database: a revocation shall cut connections within a second.
const POLL_INTERVAL: Duration = Duration::from_millis(300);
/// How often sessions that are over are forgotten.
const SWEEP_INTERVAL: Duration = Duration::from_secs(3_600);
/// How much longer than an access token lives its revocation is remembered.
const REVOCATION_SLACK_S: u64 = 3_600;

/// What an access token says.
const TOKEN_CLAIMS: [&str; 4] = ["sub", "sid", "iat", "exp"];

/// Local users, sessions and API keys.
pub(crate) struct LocalAccounts {
    store: Store,
    clock: Arc<dyn Clock>,
    directory: ArcSwap<Directory>,
    signing: EncodingKey,
    checking: Key,
    access_token_seconds: u64,
    lives: Lives,
}

impl LocalAccounts {
    pub(super) async fn load(store: Store, config: &AuthConfig, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let secret = store.signing_secret().await?;
        let ms = |seconds: u64| i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX / 4).min(i64::MAX / 4);
        let accounts = Self {
            signing: EncodingKey::from_secret(secret.as_bytes()),
            checking: Key::secret(secret.as_bytes(), None).with_id(KEY_ID),
            access_token_seconds: config.access_token_seconds,
            lives: Lives { refresh_ms: ms(config.refresh_token_seconds), session_ms: ms(config.session_seconds) },
            directory: ArcSwap::default(),
            store,
            clock,
        };
        let directory = accounts.store.directory(accounts.revoked_since_ms()).await?;
        accounts.directory.store(Arc::new(directory));
        Ok(accounts)
    }

    /// The database.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// How long sessions and their tokens last.
    pub(crate) fn lives(&self) -> Lives {
        self.lives
    }

    /// Whether anybody can sign in with a password.
    pub(crate) fn has_users(&self) -> bool {
        self.directory.load().users.values().any(|user| !user.is_disabled)
    }

    fn revoked_since_ms(&self) -> i64 {
        let span_s =
            i64::try_from(self.access_token_seconds.saturating_add(REVOCATION_SLACK_S)).unwrap_or(i64::MAX / 4000);
        self.clock.now_us() / 1000 - span_s * 1000
    }

    /// Reads the database again and tells everybody who watches.
    pub(super) async fn reload(&self, revocations: &watch::Sender<u64>) -> Result<(), StoreError> {
        let directory = self.store.directory(self.revoked_since_ms()).await?;
        self.directory.store(Arc::new(directory));
        revocations.send_modify(|n| *n += 1);
        Ok(())
    }

    /// Looks for changes until `shutdown`. While the database cannot be reached, what is known stays in force.
    pub(super) async fn follow(&self, revocations: &watch::Sender<u64>, shutdown: CancellationToken) {
        let mut is_reachable = true;
        let mut next_sweep = Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(POLL_INTERVAL) => {}
                () = shutdown.cancelled() => return,
            }
            let outcome = match self.store.version().await {
                Ok(version) if version == self.directory.load().version => Ok(()),
                Ok(_) => self.reload(revocations).await,
                Err(error) => Err(error),
            };
            match &outcome {
                Ok(()) if !is_reachable => tracing::info!("the database of users is reachable again"),
                Err(error) if is_reachable => {
                    tracing::error!(error = error as &dyn std::error::Error, "cannot read the database of users");
                }
                _ => {}
            }
            is_reachable = outcome.is_ok();
            if is_reachable && Instant::now() >= next_sweep {
                next_sweep = Instant::now() + SWEEP_INTERVAL;
                if let Err(error) = self.store.sweep(self.clock.now_us() / 1000).await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot forget sessions that are over");
                }
            }
        }
    }

    /// An access token for a session, and the seconds that it lives.
    pub(crate) fn access_token(&self, user: &str, session_id: &str, now_s: i64) -> Result<(String, u64), AuthError> {
        let claims = json!({
            "sub": user,
            "sid": session_id,
            "iat": now_s,
            "exp": now_s.saturating_add_unsigned(self.access_token_seconds),
        });
        let header = Header { kid: Some(KEY_ID.to_owned()), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, &claims, &self.signing).map(|token| (token, self.access_token_seconds)).map_err(
            |error| {
                tracing::error!(%error, "cannot sign an access token");
                AuthError::Invalid
            },
        )
    }

    /// Who brings this token, if it is an API key or an access token of a local session; `None` if it is neither.
    pub(super) fn authenticate(&self, token: &str, now_s: i64) -> Option<Result<Principal, AuthError>> {
        if let Some(key) = token.strip_prefix(API_KEY_PREFIX) {
            return Some(self.of_api_key(key, now_s));
        }
        let header = jsonwebtoken::decode_header(token).ok()?;
        (header.kid.as_deref() == Some(KEY_ID)).then(|| self.of_session(token, now_s))
    }

    fn of_api_key(&self, key: &str, now_s: i64) -> Result<Principal, AuthError> {
        let (id, secret) = key.split_once('_').ok_or(AuthError::Invalid)?;
        let directory = self.directory.load();
        let known = directory.api_keys.get(id).ok_or(AuthError::Invalid)?;
        // What is compared are hashes of what the caller brings: how far they agree tells nothing of the secret.
        if digest(secret) != known.secret_hash {
            return Err(AuthError::Invalid);
        }
        if known.expires_at_ms.is_some_and(|end_ms| end_ms / 1000 <= now_s) {
            return Err(AuthError::Expired);
        }
        Ok(Principal {
            user: format!("key:{}", known.name).into(),
            roles: known.roles.clone().into(),
            claims: Arc::new(known.claims.clone()),
            expires_at_s: known.expires_at_ms.map(|end_ms| end_ms / 1000),
            issued_at_s: None,
            session_id: Some(Arc::from(id)),
            credential: Credential::ApiKey,
        })
    }

    fn of_session(&self, token: &str, now_s: i64) -> Result<Principal, AuthError> {
        let mut claims = keys::verify(token, std::iter::once(&self.checking), &Expected::default(), now_s)?;
        let text = |claims: &Map<String, Value>, name: &str| claims.get(name)?.as_str().map(str::to_owned);
        let user = text(&claims, "sub").ok_or(AuthError::Invalid)?;
        let session_id = text(&claims, "sid").ok_or(AuthError::Invalid)?;
        let directory = self.directory.load();
        let known = directory.users.get(&user).ok_or(AuthError::Revoked)?;
        add_claims(&mut claims, known);
        let principal = Principal {
            roles: known.roles.clone().into(),
            expires_at_s: claims.get("exp").and_then(Value::as_i64),
            issued_at_s: claims.get("iat").and_then(Value::as_i64),
            session_id: Some(session_id.into()),
            credential: Credential::Session,
            user: user.into(),
            claims: Arc::new(claims),
        };
        self.still_valid(&principal)?;
        Ok(principal)
    }

    /// A local user who was let in, with the roles and claims of now; `None` if they are the same.
    pub(super) fn changed(&self, principal: &Principal) -> Option<Principal> {
        if principal.credential != Credential::Session {
            return None;
        }
        let directory = self.directory.load();
        let known = directory.users.get(&*principal.user)?;
        let mut claims: Map<String, Value> =
            principal.claims.iter().filter(|(name, _)| TOKEN_CLAIMS.contains(&name.as_str())).map(owned).collect();
        add_claims(&mut claims, known);
        let is_same = *principal.roles == known.roles[..] && *principal.claims == claims;
        (!is_same).then(|| Principal {
            roles: known.roles.clone().into(),
            claims: Arc::new(claims),
            ..principal.clone()
        })
    }

    /// Whether a caller who was let in still is.
    pub(super) fn still_valid(&self, principal: &Principal) -> Result<(), AuthError> {
        let directory = self.directory.load();
        let session_id = principal.session_id.as_deref();
        let is_good = match principal.credential {
            Credential::Session => {
                let is_user = directory.users.get(&*principal.user).is_some_and(|user| !user.is_disabled);
                is_user && session_id.is_some_and(|id| !directory.revoked_sessions.contains(id))
            }
            Credential::ApiKey => session_id.is_some_and(|id| directory.api_keys.contains_key(id)),
            // A token that does not say when it was issued may be an old one.
            Credential::Token => directory
                .cutoffs_s
                .get(&*principal.user)
                .is_none_or(|before_s| principal.issued_at_s.is_some_and(|issued_s| issued_s > *before_s)),
            Credential::None | Credential::Demo => true,
        };
        if is_good { Ok(()) } else { Err(AuthError::Revoked) }
    }
}

/// What the operator wrote of a user does not override whom the token is for.
fn add_claims(claims: &mut Map<String, Value>, user: &DirectoryUser) {
    for (name, value) in &user.claims {
        claims.entry(name).or_insert_with(|| value.clone());
    }
}

fn owned((name, value): (&String, &Value)) -> (String, Value) {
    (name.clone(), value.clone())
}
