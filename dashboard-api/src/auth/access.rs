//! What a caller may do: the roles' permissions, and which rows of a view.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::config::{Permission, RoleConfig, shipped_roles};
use super::principal::Principal;
use crate::hub::VIEW_CHANNEL_PREFIX;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// See a view's or a channel's content: REST, subscribe, history, presence, SQL.
    Read,
    /// Send a message into a channel.
    Publish,
    /// Call a remote procedure.
    Call,
    /// What the permission says; the resource is [`Resource::Server`].
    Use(Permission),
}

/// With what it is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource<'a> {
    /// A kept view, by name.
    View(&'a str),
    /// A channel by its full name; `view:<name>` is the same as the view.
    Channel(&'a str),
    /// A remote procedure.
    Method(&'a str),
    /// The server as a whole.
    Server,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Access {
    /// No, for this reason.
    Denied(Denial),
    /// Yes.
    Allowed {
        /// The rows that may be seen; all of them without a rule.
        row_rule: Option<Arc<RowRule>>,
    },
}

impl Access {
    /// Whether it is a yes.
    pub(crate) fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed { .. })
    }
}

/// Why something is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denial {
    /// The caller has no role that the configuration knows.
    NoRole,
    /// None of the caller's roles allows it.
    NotAllowed,
}

impl Denial {
    /// For people and the audit log.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NoRole => "the caller has no role here",
            Self::NotAllowed => "none of the caller's roles allows it",
        }
    }
}

/// Which rows of a view a caller may see: those that fulfil one of the conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowRule {
    /// SQL conditions; a row is seen if one of them is true.
    pub(crate) any_of: Vec<String>,
    /// What `claims.NAME` stands for.
    pub(crate) claims: Arc<Map<String, Value>>,
}

/// The permissions of all roles.
#[derive(Debug)]
pub(crate) struct Roles(BTreeMap<String, RoleConfig>);

impl Roles {
    /// The shipped roles with the configured ones over them.
    pub(crate) fn new(configured: &BTreeMap<String, RoleConfig>) -> Self {
        let mut roles = shipped_roles();
        roles.extend(configured.iter().map(|(name, role)| (name.clone(), role.clone())));
        Self(roles)
    }

    /// Names of all roles.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether a caller may read views at all, whichever they are.
    pub(crate) fn may_read_views(&self, principal: &Principal) -> Access {
        let roles: Vec<_> = principal.roles.iter().filter_map(|name| self.0.get(name)).collect();
        if roles.iter().any(|role| !role.views.is_empty()) {
            return Access::Allowed { row_rule: None };
        }
        Access::Denied(if roles.is_empty() { Denial::NoRole } else { Denial::NotAllowed })
    }

    /// Whether a caller may do something.
    pub(crate) fn access(&self, principal: &Principal, action: Action, resource: Resource<'_>) -> Access {
        let resource = match resource {
            Resource::Channel(name) => name.strip_prefix(VIEW_CHANNEL_PREFIX).map_or(resource, Resource::View),
            other => other,
        };
        let mut roles = principal.roles.iter().filter_map(|name| self.0.get(name)).peekable();
        if roles.peek().is_none() {
            return Access::Denied(Denial::NoRole);
        }
        let mut allowing = roles.filter(|role| role.allows(action, resource)).peekable();
        if allowing.peek().is_none() {
            return Access::Denied(Denial::NotAllowed);
        }
        let Resource::View(view) = resource else { return Access::Allowed { row_rule: None } };
        let mut any_of = Vec::new();
        for role in allowing {
            match role.row_condition(view) {
                // One role that sees the view whole is enough.
                None => return Access::Allowed { row_rule: None },
                Some(condition) if any_of.contains(&condition) => {}
                Some(condition) => any_of.push(condition),
            }
        }
        any_of.sort();
        Access::Allowed { row_rule: Some(Arc::new(RowRule { any_of, claims: Arc::clone(&principal.claims) })) }
    }
}

impl RoleConfig {
    fn allows(&self, action: Action, resource: Resource<'_>) -> bool {
        let among = |patterns: &[String], name: &str| patterns.iter().any(|pattern| matches(pattern, name));
        match (action, resource) {
            (Action::Read, Resource::View(name)) => among(&self.views, name),
            (Action::Read, Resource::Channel(name)) => among(&self.channels, name),
            (Action::Publish, Resource::Channel(name)) => among(&self.publish, name),
            (Action::Call, Resource::Method(name)) => among(&self.commands, name),
            (Action::Use(permission), Resource::Server) => self.allow.contains(&permission),
            _ => false,
        }
    }

    /// All conditions that name the view, together.
    fn row_condition(&self, view: &str) -> Option<String> {
        let conditions: Vec<String> = self
            .rows
            .iter()
            .filter(|(pattern, _)| matches(pattern, view))
            .map(|(_, condition)| format!("({condition})"))
            .collect();
        (!conditions.is_empty()).then(|| conditions.join(" AND "))
    }
}

/// Whether a name fits a pattern in which `*` stands for any text.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn roles() -> Roles {
        let config = json!({
            "sales": {"views": ["sales_*", "kpi"], "channels": ["alerts"], "publish": ["chat:*"],
                      "rows": {"sales_*": "region = claims.region", "sales_order": "amount < 1000"}},
            "audit": {"views": ["sales_order"], "allow": ["sql"]},
        });
        Roles::new(&serde_json::from_value(config).expect("roles"))
    }

    fn caller(roles: &[&str]) -> Principal {
        let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
        Principal {
            claims: Arc::new(Map::from_iter([("region".to_owned(), json!("N"))])),
            ..Principal::anonymous(&roles)
        }
    }

    #[track_caller]
    fn rule(access: Access) -> Option<Vec<String>> {
        match access {
            Access::Allowed { row_rule } => row_rule.map(|rule| rule.any_of.clone()),
            Access::Denied(denial) => panic!("{denial:?}"),
        }
    }

    #[test]
    fn a_star_stands_for_any_text() {
        let cases = [
            ("*", "", true),
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "a", true),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "abcd", false),
            ("*b*", "abc", true),
            ("a*a", "a", false),
            ("", "a", false),
            ("a*b*b", "ab", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn only_what_a_role_names_is_allowed() {
        let (roles, sales) = (roles(), caller(&["sales", "nobody knows"]));
        let check = |action, resource| roles.access(&sales, action, resource).is_allowed();
        assert!(check(Action::Read, Resource::View("sales_order")));
        assert!(check(Action::Read, Resource::Channel("view:kpi")));
        assert!(!check(Action::Read, Resource::Channel("view:stock")));
        assert!(check(Action::Read, Resource::Channel("alerts")));
        assert!(!check(Action::Read, Resource::Channel("status")));
        assert!(!check(Action::Read, Resource::View("alerts")));
        assert!(check(Action::Publish, Resource::Channel("chat:1")));
        assert!(!check(Action::Publish, Resource::Channel("view:sales_order")));
        assert!(!check(Action::Use(Permission::Sql), Resource::Server));
        assert!(!check(Action::Call, Resource::Method("x")));
        assert_eq!(
            roles.access(&caller(&["nobody knows"]), Action::Read, Resource::View("kpi")),
            Access::Denied(Denial::NoRole)
        );
    }

    #[test]
    fn row_conditions_of_a_role_all_hold_and_roles_add_up() {
        let roles = roles();
        let read = |names: &[&str], view| rule(roles.access(&caller(names), Action::Read, Resource::View(view)));
        assert_eq!(read(&["sales"], "kpi"), None);
        assert_eq!(read(&["sales"], "sales_line"), Some(vec!["(region = claims.region)".to_owned()]));
        assert_eq!(
            read(&["sales"], "sales_order"),
            Some(vec!["(region = claims.region) AND (amount < 1000)".to_owned()])
        );
        assert_eq!(read(&["sales", "audit"], "sales_order"), None, "the role audit sees all rows");
        assert_eq!(read(&["sales", "viewer"], "sales_line"), None);
    }

    #[test]
    fn nobody_but_the_engine_writes_views() {
        let roles = roles();
        let admin = caller(&["admin"]);
        assert!(roles.access(&admin, Action::Publish, Resource::Channel("chat:1")).is_allowed());
        assert!(!roles.access(&admin, Action::Publish, Resource::Channel("view:kpi")).is_allowed());
    }
}
