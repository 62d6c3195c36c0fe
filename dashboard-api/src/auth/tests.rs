use jsonwebtoken::{Algorithm, EncodingKey, Header};
use model::clock::SystemClock;
use serde_json::json;

use super::access::Denial;

use super::*;

const SECRET: &str = "a secret of the tests, long enough";

fn authority(mode: AuthMode, secret: Option<&str>) -> Authority {
    with(AuthConfig { mode, jwt_secret: secret.map(str::to_owned), ..AuthConfig::default() })
}

#[expect(clippy::needless_pass_by_value, reason = "callers make it on the spot")]
fn with(config: AuthConfig) -> Authority {
    Authority::new(&config, &BTreeMap::new(), Arc::new(SystemClock)).expect("good keys")
}

fn signed(claims: &Value, secret: &str, algorithm: Algorithm) -> String {
    jsonwebtoken::encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret.as_bytes()))
        .expect("claims are JSON")
}

fn may(authority: &Authority, principal: &Principal, permission: Permission) -> bool {
    authority.access(principal, Action::Use(permission), Resource::Server).is_allowed()
}

#[test]
fn only_a_live_token_with_the_right_signature_gets_in() {
    let authority = authority(AuthMode::Token, Some(SECRET));
    let now_s = authority.now_s();
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        let good = signed(&json!({"sub": "ann", "exp": now_s + 60}), SECRET, algorithm);
        let principal = authority.connect(&good).expect("a good token");
        assert_eq!((&*principal.user, principal.expires_at_s), ("ann", Some(now_s + 60)));
        assert_eq!(*principal.roles, ["viewer"]);
    }
    let without_end = signed(&json!({"iat": now_s}), SECRET, Algorithm::HS256);
    assert_eq!(authority.connect(&without_end).map(|p| p.user), Ok("".into()));

    let expired = signed(&json!({"sub": "ann", "exp": now_s - 60}), SECRET, Algorithm::HS256);
    assert_eq!(authority.connect(&expired), Err(AuthError::Expired));
    let early = signed(&json!({"sub": "ann", "nbf": now_s + 60}), SECRET, Algorithm::HS256);
    assert_eq!(authority.connect(&early), Err(AuthError::Invalid));
    let forged = signed(&json!({"sub": "ann"}), "another secret", Algorithm::HS256);
    assert_eq!(authority.connect(&forged), Err(AuthError::Invalid));
    // {"alg":"none"} . {"sub":"ann"} . no signature
    assert_eq!(authority.connect("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ."), Err(AuthError::Invalid));
    assert_eq!(authority.connect("rubbish"), Err(AuthError::Invalid));
    assert_eq!(authority.connect(&"x".repeat(keys::TOKEN_BYTES_MAX + 1)), Err(AuthError::Invalid));
    assert_eq!(authority.connect(""), Err(AuthError::Missing));
}

#[test]
fn issuer_and_audience_are_demanded_when_configured() {
    let authority = with(AuthConfig {
        jwt_secret: Some(SECRET.to_owned()),
        jwt_issuer: Some("erp".to_owned()),
        jwt_audience: Some("andon".to_owned()),
        ..AuthConfig::default()
    });
    let check = |claims| authority.connect(&signed(&claims, SECRET, Algorithm::HS256)).is_ok();
    assert!(check(json!({"iss": "erp", "aud": ["andon", "other"]})));
    assert!(!check(json!({"iss": "erp"})));
    assert!(!check(json!({"iss": "erp", "aud": "other"})));
    assert!(!check(json!({"iss": "other", "aud": "andon"})));
    assert!(!check(json!({"aud": "andon"})));
}

#[test]
fn a_demo_token_of_an_earlier_process_asks_for_a_new_one() {
    let before = authority(AuthMode::Demo, None);
    let now = authority(AuthMode::Demo, None);
    let token = before.demo_token().expect("demo mode signs tokens");
    assert_eq!(before.connect(&token).map(|p| p.user), Ok("demo".into()));
    assert_eq!(now.connect(&token), Err(AuthError::Expired));
    assert_eq!(authority(AuthMode::Token, Some(SECRET)).connect(&token), Err(AuthError::Invalid));
    assert_eq!(authority(AuthMode::Token, Some(SECRET)).demo_token(), None);
}

#[test]
fn roles_of_the_token_decide() {
    let authority = authority(AuthMode::Anonymous, Some(SECRET));
    let token = signed(&json!({"sub": "debezium", "roles": ["ingest", "future"]}), SECRET, Algorithm::HS256);
    let sender = authority.authenticate(&token).expect("a good token");
    assert!(may(&authority, &sender, Permission::Ingest) && !may(&authority, &sender, Permission::Sql));
    let anonymous = authority.authenticate("").expect("anonymous");
    assert!(authority.access(&anonymous, Action::Read, Resource::View("kpi")).is_allowed());
    assert!(!may(&authority, &anonymous, Permission::Ingest));
    for roles in [json!([]), json!(7), json!(null), json!([7])] {
        let token = signed(&json!({"sub": "ann", "roles": roles}), SECRET, Algorithm::HS256);
        let nobody = authority.authenticate(&token).expect("a good token");
        assert_eq!(authority.access(&nobody, Action::Read, Resource::View("kpi")), Access::Denied(Denial::NoRole));
    }
}

#[test]
fn tokens_of_simple_jwt_and_openid_connect_are_understood() {
    let django = authority(AuthMode::Token, Some(SECRET));
    let token = |claims: Value| signed(&claims, SECRET, Algorithm::HS256);
    let access = json!({"token_type": "access", "user_id": 7, "jti": "abc", "exp": django.now_s() + 60});
    let principal = django.authenticate(&token(access)).expect("an access token");
    assert_eq!((&*principal.user, principal.session_id.as_deref()), ("7", Some("abc")));
    let refresh = json!({"token_type": "refresh", "user_id": 7, "exp": django.now_s() + 60});
    assert_eq!(django.authenticate(&token(refresh)), Err(AuthError::Invalid), "a refresh token is no proof");
    let subscription = json!({"sub": "ann", "channel": "chat:1"});
    assert_eq!(django.authenticate(&token(subscription)), Err(AuthError::Invalid));

    let oidc = with(AuthConfig {
        jwt_secret: Some(SECRET.to_owned()),
        user_claims: vec!["preferred_username".to_owned(), "sub".to_owned()],
        role_claims: vec!["realm_access.roles".to_owned(), "groups".to_owned()],
        role_names: BTreeMap::from([("erp-admins".to_owned(), "admin".to_owned())]),
        ..AuthConfig::default()
    });
    let claims = json!({"sub": "f81d", "preferred_username": "ann", "realm_access": {"roles": ["erp-admins", "x"]}});
    let principal = oidc.authenticate(&token(claims)).expect("a good token");
    assert_eq!((&*principal.user, &*principal.roles), ("ann", &["admin".to_owned(), "x".to_owned()][..]));
    let principal = oidc.authenticate(&token(json!({"sub": "f81d", "groups": "viewer"}))).expect("a good token");
    assert_eq!((&*principal.user, &*principal.roles), ("f81d", &["viewer".to_owned()][..]));
}

#[test]
fn a_previous_secret_is_good_until_its_end() {
    let until = |seconds: i64| AuthConfig {
        jwt_secret: Some(SECRET.to_owned()),
        jwt_secret_previous: Some("the secret before, long enough too".to_owned()),
        jwt_secret_previous_until: Some(chrono::Utc::now() + chrono::TimeDelta::seconds(seconds)),
        ..AuthConfig::default()
    };
    let old = signed(&json!({"sub": "ann"}), "the secret before, long enough too", Algorithm::HS256);
    let new = signed(&json!({"sub": "ann"}), SECRET, Algorithm::HS256);
    assert!(with(until(60)).authenticate(&old).is_ok());
    assert!(with(until(60)).authenticate(&new).is_ok());
    assert_eq!(with(until(-60)).authenticate(&old), Err(AuthError::Invalid));
    assert!(with(until(-60)).authenticate(&new).is_ok());
}

#[test]
fn a_key_is_never_used_for_another_algorithm() {
    let dir = tempfile::tempdir().expect("a folder");
    let pair = |algorithm| rcgen::KeyPair::generate_for(algorithm).expect("a key");
    let file = |name: &str, pem: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, pem).expect("written");
        path
    };
    let p256 = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
    let ed = pair(&rcgen::PKCS_ED25519);
    let key = |file: &std::path::Path, id: Option<&str>| config::KeyConfig {
        file: file.to_owned(),
        algorithm: None,
        id: id.map(str::to_owned),
        until: None,
    };
    let (p256_file, ed_file) = (file("p256.pem", p256.public_key_pem()), file("ed.pem", ed.public_key_pem()));
    let authority =
        with(AuthConfig { jwt_keys: vec![key(&p256_file, None), key(&ed_file, Some("ed"))], ..AuthConfig::default() });
    let sign = |algorithm, key: &EncodingKey, id: Option<&str>| {
        let header = Header { kid: id.map(str::to_owned), ..Header::new(algorithm) };
        jsonwebtoken::encode(&header, &json!({"sub": "ann"}), key).expect("signed")
    };
    let ec_key = EncodingKey::from_ec_pem(p256.serialize_pem().as_bytes()).expect("a key");
    let ed_key = EncodingKey::from_ed_pem(ed.serialize_pem().as_bytes()).expect("a key");
    assert!(authority.authenticate(&sign(Algorithm::ES256, &ec_key, None)).is_ok());
    assert!(authority.authenticate(&sign(Algorithm::EdDSA, &ed_key, Some("ed"))).is_ok());
    // A key with an id is for tokens that name it.
    assert_eq!(authority.authenticate(&sign(Algorithm::EdDSA, &ed_key, Some("other"))), Err(AuthError::Invalid));
    // The public key, which anybody may know, taken for a shared secret.
    for public in [p256.public_key_pem(), ed.public_key_pem()] {
        let confused = sign(Algorithm::HS256, &EncodingKey::from_secret(public.as_bytes()), None);
        assert_eq!(authority.authenticate(&confused), Err(AuthError::Invalid));
    }
    let other = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
    let other = EncodingKey::from_ec_pem(other.serialize_pem().as_bytes()).expect("a key");
    assert_eq!(authority.authenticate(&sign(Algorithm::ES256, &other, None)), Err(AuthError::Invalid));
    // A file that pins another algorithm than the key's is refused at the start.
    let pinned = config::KeyConfig { algorithm: Some("RS256".to_owned()), ..key(&p256_file, None) };
    let config = AuthConfig { jwt_keys: vec![pinned], ..AuthConfig::default() };
    assert!(Authority::new(&config, &BTreeMap::new(), Arc::new(SystemClock)).is_err());
}
