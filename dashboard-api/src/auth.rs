//! Who a caller is: JSON Web Tokens with Centrifugo's claim names, so that existing token code works.
//!
//! HS256 only for now. A token that says nothing of roles is a viewer's.

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use model::Clock;
use rand::Rng;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use crate::config::{AuthConfig, AuthMode};

/// Key ids of the tokens that mode `demo` gives out start with this.
const DEMO_KEY_PREFIX: &str = "demo-";
/// Longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 8 << 10;

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// May read views, alerts and status.
    Viewer,
    /// May append records over HTTP.
    Ingest,
    /// A role this version does not know; it gives no right.
    #[serde(other)]
    Unknown,
}

/// The claims that are read; all others are ignored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Claims {
    #[serde(default)]
    sub: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    aud: Option<serde_json::Value>,
    #[serde(default = "viewer_only")]
    roles: Vec<Role>,
}

fn viewer_only() -> Vec<Role> {
    vec![Role::Viewer]
}

/// A caller whose token was checked, or an anonymous one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Principal {
    /// Empty for anonymous callers.
    pub(crate) user: String,
    /// What the caller may do.
    pub(crate) roles: Vec<Role>,
    /// Seconds since 1970 at which the token expires, if it does.
    pub(crate) expires_at_s: Option<i64>,
}

impl Principal {
    fn anonymous() -> Self {
        Self { user: String::new(), roles: viewer_only(), expires_at_s: None }
    }

    pub(crate) fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

/// Why a token was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenError {
    /// There is none, and this server wants one.
    Missing,
    /// It was good once: a new one helps.
    Expired,
    /// Its signature, algorithm or claims are wrong.
    Invalid,
}

/// Checks tokens, and signs those of mode `demo`.
pub(crate) struct Auth {
    mode: AuthMode,
    clock: Arc<dyn Clock>,
    decoding: DecodingKey,
    encoding: EncodingKey,
    validation: Validation,
    /// Key id of the demo tokens of this process; `None` if the secret is configured and outlives the process.
    demo_key_id: Option<String>,
    demo_token_seconds: u64,
    issuer: Option<String>,
    audience: Option<String>,
}

impl Auth {
    pub(crate) fn new(config: &AuthConfig, clock: Arc<dyn Clock>) -> Self {
        let mut random = [0_u8; 32];
        rand::rng().fill(&mut random[..]);
        let secret = config.jwt_secret.as_ref().map_or(&random[..], |s| s.as_bytes());
        if config.jwt_secret.as_ref().is_some_and(|s| s.len() < 32) {
            tracing::warn!(bytes = secret.len(), "the token secret is short; 32 random bytes are safe");
        }
        let mut validation = Validation::new(Algorithm::HS256);
        validation.required_spec_claims.clear();
        validation.leeway = config.jwt_leeway_seconds;
        validation.validate_nbf = true;
        match &config.jwt_audience {
            Some(audience) => {
                validation.set_audience(&[audience]);
                validation.required_spec_claims.insert("aud".to_owned());
            }
            None => validation.validate_aud = false,
        }
        if let Some(issuer) = &config.jwt_issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        let demo_key_id =
            config.jwt_secret.is_none().then(|| format!("{DEMO_KEY_PREFIX}{}", uuid::Uuid::new_v4().simple()));
        Self {
            mode: config.mode,
            clock,
            decoding: DecodingKey::from_secret(secret),
            encoding: EncodingKey::from_secret(secret),
            validation,
            demo_key_id,
            demo_token_seconds: config.demo_token_seconds,
            issuer: config.jwt_issuer.clone(),
            audience: config.jwt_audience.clone(),
        }
    }

    pub(crate) fn mode(&self) -> AuthMode {
        self.mode
    }

    pub(crate) fn now_s(&self) -> i64 {
        self.clock.now_us().div_euclid(1_000_000)
    }

    /// Who connects to the WebSocket. In mode `demo` a token is wanted there, since it is given to anybody and the
    /// client exercises the same path as in production.
    pub(crate) fn connect(&self, token: &str) -> Result<Principal, TokenError> {
        match (token.is_empty(), self.mode) {
            (false, _) => self.verify(token),
            (true, AuthMode::Anonymous) => Ok(Principal::anonymous()),
            (true, _) => Err(TokenError::Missing),
        }
    }

    /// Who calls a REST route: as [`Self::connect`], but mode `demo` lets viewers in without a token.
    pub(crate) fn request(&self, token: Option<&str>) -> Result<Principal, TokenError> {
        match (token, self.mode) {
            (Some(token), _) => self.verify(token),
            (None, AuthMode::Demo | AuthMode::Anonymous) => Ok(Principal::anonymous()),
            (None, AuthMode::Token) => Err(TokenError::Missing),
        }
    }

    /// Checks a token's signature, algorithm and claims.
    pub(crate) fn verify(&self, token: &str) -> Result<Principal, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Invalid);
        }
        match jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation) {
            Ok(data) => {
                Ok(Principal { user: data.claims.sub, roles: data.claims.roles, expires_at_s: data.claims.exp })
            }
            Err(error) => match error.kind() {
                ErrorKind::ExpiredSignature => Err(TokenError::Expired),
                _ if self.is_of_an_earlier_demo(token) => Err(TokenError::Expired),
                _ => Err(TokenError::Invalid),
            },
        }
    }

    /// The key of a demo token may have gone with the process that made it: such a client shall fetch a new token
    /// instead of giving up. Nothing is granted by this.
    fn is_of_an_earlier_demo(&self, token: &str) -> bool {
        let Some(own) = &self.demo_key_id else { return false };
        jsonwebtoken::decode_header(token)
            .ok()
            .and_then(|header| header.kid)
            .is_some_and(|kid| kid.starts_with(DEMO_KEY_PREFIX) && kid != *own)
    }

    /// A viewer token for anybody; `None` unless in mode `demo`.
    pub(crate) fn demo_token(&self) -> Option<String> {
        if self.mode != AuthMode::Demo {
            return None;
        }
        let now_s = self.now_s();
        let claims = Claims {
            sub: "demo".to_owned(),
            exp: Some(now_s.saturating_add_unsigned(self.demo_token_seconds)),
            iat: Some(now_s),
            iss: self.issuer.clone(),
            aud: self.audience.clone().map(serde_json::Value::String),
            roles: viewer_only(),
        };
        let header = Header { kid: self.demo_key_id.clone(), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, &claims, &self.encoding)
            .inspect_err(|error| tracing::error!(%error, "cannot sign a demo token"))
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::clock::SystemClock;
    use serde_json::json;

    const SECRET: &str = "a secret of the tests, long enough";

    fn auth(mode: AuthMode, secret: Option<&str>) -> Auth {
        let config = AuthConfig { mode, jwt_secret: secret.map(str::to_owned), ..AuthConfig::default() };
        Auth::new(&config, Arc::new(SystemClock))
    }

    fn signed(claims: &serde_json::Value, secret: &str, algorithm: Algorithm) -> String {
        jsonwebtoken::encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret.as_bytes()))
            .expect("claims are JSON")
    }

    #[test]
    fn only_a_live_token_with_the_right_signature_gets_in() {
        let auth = auth(AuthMode::Token, Some(SECRET));
        let now_s = auth.now_s();
        let good = signed(&json!({"sub": "ann", "exp": now_s + 60}), SECRET, Algorithm::HS256);
        let principal = auth.connect(&good).expect("a good token");
        assert_eq!((principal.user.as_str(), principal.expires_at_s), ("ann", Some(now_s + 60)));
        assert!(principal.has(Role::Viewer) && !principal.has(Role::Ingest));

        let without_end = signed(&json!({"iat": now_s}), SECRET, Algorithm::HS256);
        assert_eq!(auth.connect(&without_end).map(|p| p.user), Ok(String::new()));

        let expired = signed(&json!({"sub": "ann", "exp": now_s - 60}), SECRET, Algorithm::HS256);
        assert_eq!(auth.connect(&expired), Err(TokenError::Expired));
        let forged = signed(&json!({"sub": "ann"}), "another secret", Algorithm::HS256);
        assert_eq!(auth.connect(&forged), Err(TokenError::Invalid));
        let other_algorithm = signed(&json!({"sub": "ann"}), SECRET, Algorithm::HS512);
        assert_eq!(auth.connect(&other_algorithm), Err(TokenError::Invalid));
        // {"alg":"none"} . {"sub":"ann"} . no signature
        assert_eq!(auth.connect("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ."), Err(TokenError::Invalid));
        assert_eq!(auth.connect("rubbish"), Err(TokenError::Invalid));
        assert_eq!(auth.connect(""), Err(TokenError::Missing));
    }

    #[test]
    fn issuer_and_audience_are_demanded_when_configured() {
        let config = AuthConfig {
            jwt_secret: Some(SECRET.to_owned()),
            jwt_issuer: Some("erp".to_owned()),
            jwt_audience: Some("andon".to_owned()),
            ..AuthConfig::default()
        };
        let auth = Auth::new(&config, Arc::new(SystemClock));
        let check = |claims| auth.connect(&signed(&claims, SECRET, Algorithm::HS256)).is_ok();
        assert!(check(json!({"iss": "erp", "aud": ["andon", "other"]})));
        assert!(!check(json!({"iss": "erp"})));
        assert!(!check(json!({"iss": "erp", "aud": "other"})));
        assert!(!check(json!({"iss": "other", "aud": "andon"})));
        assert!(!check(json!({"aud": "andon"})));
    }

    #[test]
    fn a_demo_token_of_an_earlier_process_asks_for_a_new_one() {
        let before = auth(AuthMode::Demo, None);
        let now = auth(AuthMode::Demo, None);
        let token = before.demo_token().expect("demo mode signs tokens");
        assert_eq!(before.connect(&token).map(|p| p.user), Ok("demo".to_owned()));
        assert_eq!(now.connect(&token), Err(TokenError::Expired));
        assert_eq!(auth(AuthMode::Token, Some(SECRET)).connect(&token), Err(TokenError::Invalid));
        assert_eq!(auth(AuthMode::Token, Some(SECRET)).demo_token(), None);
    }

    #[test]
    fn roles_of_the_token_decide() {
        let auth = auth(AuthMode::Anonymous, Some(SECRET));
        let token = signed(&json!({"sub": "debezium", "roles": ["ingest", "future"]}), SECRET, Algorithm::HS256);
        let principal = auth.request(Some(&token)).expect("a good token");
        assert!(principal.has(Role::Ingest) && !principal.has(Role::Viewer));
        assert!(auth.request(None).expect("anonymous").has(Role::Viewer));
    }
}
