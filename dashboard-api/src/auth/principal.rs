//! A caller who has been told apart from others.

use std::sync::Arc;

use serde_json::{Map, Value};

/// How a caller proved who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Credential {
    /// Not at all.
    None,
    /// A token of another program, signed with a configured key.
    Token,
    /// A token that mode `demo` gave out.
    Demo,
    /// An access token of a sign-in here.
    Session,
    /// An API key.
    ApiKey,
}

/// A caller whose token was checked, or an anonymous one. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Principal {
    /// Empty for anonymous callers.
    pub(crate) user: Arc<str>,
    /// Names of roles; those that the configuration does not know give no right.
    pub(crate) roles: Arc<[String]>,
    /// All claims of the token, or those kept for the local user: row rules read them.
    pub(crate) claims: Arc<Map<String, Value>>,
    /// Seconds since 1970 at which the credential expires, if it does.
    pub(crate) expires_at_s: Option<i64>,
    /// Seconds since 1970 at which the token was issued, if it says so.
    pub(crate) issued_at_s: Option<i64>,
    /// What a revocation of this sign-in alone names: the local session, the `sid` or `jti` of another program's
    /// token, or the id of the API key.
    pub(crate) session_id: Option<Arc<str>>,
    /// How the caller proved it.
    pub(crate) credential: Credential,
}

impl Principal {
    /// A caller without a token.
    pub(crate) fn anonymous(roles: &[String]) -> Self {
        Self {
            user: Arc::from(""),
            roles: roles.into(),
            claims: Arc::default(),
            expires_at_s: None,
            issued_at_s: None,
            session_id: None,
            credential: Credential::None,
        }
    }
}
