//! The keys that other programs sign tokens with, and the check of one token.
//!
//! A key is bound to its algorithms: a token chooses among the keys that fit the algorithm in its header, never how a
//! key is used. An RSA public key is so never taken for a shared secret, and `none` fits no key.

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation};
use serde_json::{Map, Value};

use super::AuthError;
use super::config::{AuthConfig, KeyConfig};

/// Longest token that is looked at.
pub(crate) const TOKEN_BYTES_MAX: usize = 8 << 10;
/// A file with a key is not larger.
const KEY_FILE_BYTES_MAX: u64 = 64 << 10;
/// Keys of a key set that are taken; further ones are left out.
const JWKS_KEYS_MAX: usize = 64;
/// Shared secrets shorter than this can be guessed.
pub(crate) const SECRET_BYTES_SAFE: usize = 32;

/// A key with what binds it.
#[derive(Clone)]
pub(crate) struct Key {
    decoding: DecodingKey,
    algorithms: Vec<Algorithm>,
    id: Option<String>,
    /// Seconds since 1970 from which it is no longer good.
    until_s: Option<i64>,
}

impl std::fmt::Debug for Key {
    /// Without the key, which may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("algorithms", &self.algorithms).field("id", &self.id).finish_non_exhaustive()
    }
}

impl Key {
    /// A shared secret.
    pub(crate) fn secret(secret: &[u8], until_s: Option<i64>) -> Self {
        Self {
            decoding: DecodingKey::from_secret(secret),
            algorithms: AlgorithmFamily::Hmac.algorithms().to_vec(),
            id: None,
            until_s,
        }
    }

    /// The same for tokens that name this id.
    pub(crate) fn with_id(self, id: &str) -> Self {
        Self { id: Some(id.to_owned()), ..self }
    }

    fn from_file(config: &KeyConfig) -> Result<Self, String> {
        let path = config.file.display();
        let size = std::fs::metadata(&config.file).map_err(|error| format!("cannot read {path}: {error}"))?.len();
        if size > KEY_FILE_BYTES_MAX {
            return Err(format!("{path} is too large for a key"));
        }
        let pem = std::fs::read(&config.file).map_err(|error| format!("cannot read {path}: {error}"))?;
        // A PEM file says what it holds, but each form has its own reader.
        let (decoding, algorithms) = if let Ok(key) = DecodingKey::from_rsa_pem(&pem) {
            (key, AlgorithmFamily::Rsa.algorithms().to_vec())
        } else if let Ok(key) = DecodingKey::from_ec_pem(&pem) {
            (key, AlgorithmFamily::Ec.algorithms().to_vec())
        } else if let Ok(key) = DecodingKey::from_ed_pem(&pem) {
            (key, vec![Algorithm::EdDSA])
        } else {
            return Err(format!("{path} holds no public key that is known (RSA, P-256, P-384 or Ed25519, as PEM)"));
        };
        let algorithms = match &config.algorithm {
            None => algorithms,
            Some(name) => match name.parse::<Algorithm>() {
                Ok(algorithm) if algorithms.contains(&algorithm) => vec![algorithm],
                Ok(_) => return Err(format!("the key in {path} is not one of {name}")),
                Err(_) => return Err(format!("there is no algorithm {name}")),
            },
        };
        Ok(Self { decoding, algorithms, id: config.id.clone(), until_s: config.until.map(|at| at.timestamp()) })
    }

    /// A key of a key set; `None` if it is not for signatures, or of a kind that cannot be checked. A symmetric key has
    /// no place in a public set.
    fn from_jwk(jwk: &Jwk) -> Option<Self> {
        if jwk.common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature) {
            return None;
        }
        let fitting: Vec<Algorithm> = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa.algorithms().to_vec(),
            AlgorithmParameters::EllipticCurve(key) => match key.curve {
                EllipticCurve::P256 => vec![Algorithm::ES256],
                EllipticCurve::P384 => vec![Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => vec![Algorithm::EdDSA],
            _ => return None,
        };
        let algorithms = match jwk.common.key_algorithm {
            None => fitting,
            Some(named) => vec![Algorithm::try_from(named).ok().filter(|algorithm| fitting.contains(algorithm))?],
        };
        let decoding = DecodingKey::from_jwk(jwk).ok()?;
        Some(Self { decoding, algorithms, id: jwk.common.key_id.clone(), until_s: None })
    }

    fn is_good_at(&self, now_s: i64) -> bool {
        self.until_s.is_none_or(|until_s| now_s < until_s)
    }
}

/// The keys of a key set that can be used.
pub(crate) fn keys_of_set(set: &JwkSet) -> Vec<Key> {
    set.keys.iter().take(JWKS_KEYS_MAX).filter_map(Key::from_jwk).collect()
}

/// The keys that the configuration names.
///
/// # Errors
/// What is wrong, one sentence for each key.
pub(crate) fn configured_keys(config: &AuthConfig) -> Result<Vec<Key>, Vec<String>> {
    let mut keys = Vec::new();
    let mut wrong = Vec::new();
    if let Some(secret) = &config.jwt_secret {
        if secret.len() < SECRET_BYTES_SAFE {
            tracing::warn!(bytes = secret.len(), "the token secret is short; 32 random bytes are safe");
        }
        keys.push(Key::secret(secret.as_bytes(), None));
    }
    if let (Some(secret), Some(until)) = (&config.jwt_secret_previous, config.jwt_secret_previous_until) {
        keys.push(Key::secret(secret.as_bytes(), Some(until.timestamp())));
    }
    for key in &config.jwt_keys {
        match Key::from_file(key) {
            Ok(key) => keys.push(key),
            Err(reason) => wrong.push(format!("api.auth.jwt_keys: {reason}")),
        }
    }
    if wrong.is_empty() { Ok(keys) } else { Err(wrong) }
}

/// What a token's claims must say beside the signature.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expected {
    pub(crate) issuer: Option<String>,
    pub(crate) audience: Option<String>,
    pub(crate) leeway_s: u64,
}

impl Expected {
    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.required_spec_claims.clear();
        validation.leeway = self.leeway_s;
        validation.validate_nbf = true;
        match &self.audience {
            Some(audience) => {
                validation.set_audience(&[audience]);
                validation.required_spec_claims.insert("aud".to_owned());
            }
            None => validation.validate_aud = false,
        }
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        validation
    }
}

/// Checks a token's form, signature, times, issuer and audience.
///
/// # Errors
/// [`AuthError::UnknownKey`] if no key fits the algorithm and key id that the token names.
pub(crate) fn verify<'a>(
    token: &str,
    keys: impl Iterator<Item = &'a Key>,
    expected: &Expected,
    now_s: i64,
) -> Result<Map<String, Value>, AuthError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(AuthError::Invalid);
    }
    // Fails for an algorithm that is none, or not known.
    let header = jsonwebtoken::decode_header(token).map_err(|_| AuthError::Invalid)?;
    let validation = expected.validation(header.alg);
    let mut outcome = AuthError::UnknownKey;
    for key in keys {
        let fits = key.algorithms.contains(&header.alg) && key.is_good_at(now_s);
        // A key without an id is tried for every token; one with an id only for tokens that name it.
        if !fits || (key.id.is_some() && key.id != header.kid) {
            continue;
        }
        match jsonwebtoken::decode::<Map<String, Value>>(token, &key.decoding, &validation) {
            Ok(data) => return Ok(data.claims),
            Err(error) => match error.kind() {
                ErrorKind::InvalidSignature => outcome = AuthError::Invalid,
                ErrorKind::ExpiredSignature => return Err(AuthError::Expired),
                _ => return Err(AuthError::Invalid),
            },
        }
    }
    Err(outcome)
}
