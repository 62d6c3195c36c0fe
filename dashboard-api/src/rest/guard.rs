//! What stands before every route: who may call it. The table [`ROUTES`] is the authorization of all routes in one place;
//! a route that is not in it is refused, so that none can be forgotten.
//!
//! In this order: the host name, the rate, the origin, the caller, and what the route needs of the caller.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use metrics::counter;
use tokio::time::Instant;

use crate::auth::audit::{AuditContext, AuditEvent};
use crate::auth::{Access, Action, Permission, Principal, Resource, RowRule};
use crate::config::{ApiConfig, AuthMode};
use crate::hub::ALERTS_CHANNEL;
use crate::limits::{Rates, network_of};
use crate::problem::Problem;
use crate::rest::bearer;
use crate::rest::origin::{Origin, host, is_change, preflight};
use crate::server::Peer;
use crate::state::AppState;

/// An address may make so many seconds' worth of requests at once.
const BURST_SECONDS: u32 = 10;

/// What a route needs of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing: it tells nothing, or it is where credentials are brought.
    Nothing,
    /// The protocol that is spoken there asks for itself.
    Protocol,
    /// A caller; without a token only in the open modes. What is read is checked by name in the route.
    Caller,
    /// The same, who may read some view.
    Views,
    /// The same, who may read the alerts.
    Alerts,
    /// The same, with a permission.
    Permission(Permission),
    /// A token, also in the open modes, with a permission.
    Token(Permission),
    /// An access token of a sign-in here.
    Session,
}

/// Every route, and what it needs. `*` as method is any.
pub(crate) const ROUTES: &[(&str, &str, Need)] = &[
    ("GET", "/healthz", Need::Nothing),
    ("GET", "/readyz", Need::Nothing),
    ("GET", "/metrics", Need::Nothing),
    ("GET", "/api/v1/openapi.json", Need::Nothing),
    ("GET", "/api/v1/docs", Need::Nothing),
    ("GET", "/api/v1/session", Need::Caller),
    ("POST", "/api/v1/auth/login", Need::Nothing),
    ("POST", "/api/v1/auth/refresh", Need::Nothing),
    ("POST", "/api/v1/auth/logout", Need::Nothing),
    ("POST", "/api/v1/auth/logout-everywhere", Need::Session),
    ("POST", "/api/v1/auth/password", Need::Session),
    ("GET", "/api/v1/views", Need::Views),
    ("GET", "/api/v1/views/{name}", Need::Caller),
    ("GET", "/api/v1/views/{name}/series", Need::Caller),
    ("GET", "/api/v1/views/{name}/changes", Need::Caller),
    ("GET", "/api/v1/alerts", Need::Alerts),
    ("POST", "/api/v1/sql", Need::Permission(Permission::Sql)),
    ("POST", "/api/v1/ingest/{topic}", Need::Token(Permission::Ingest)),
    ("GET", "/api/v1/audit", Need::Token(Permission::Admin)),
    ("POST", "/api/v1/users/{name}/revoke", Need::Token(Permission::Admin)),
    ("GET", "/api/v1/api-keys", Need::Token(Permission::Admin)),
    ("POST", "/api/v1/api-keys", Need::Token(Permission::Admin)),
    ("DELETE", "/api/v1/api-keys/{id}", Need::Token(Permission::Admin)),
    ("GET", "/api/v1/graph", Need::Token(Permission::Admin)),
    ("GET", "/api/v1/live", Need::Token(Permission::Admin)),
    ("DELETE", "/api/v1/live/{client}", Need::Token(Permission::Admin)),
    ("GET", "/connection/websocket", Need::Protocol),
    ("*", "/connection/sse", Need::Protocol),
    ("*", "/connection/http_stream", Need::Protocol),
    ("*", "/emulation", Need::Protocol),
    ("POST", "/api/{method}", Need::Protocol),
];

/// The caller of a route, and from where.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) principal: Principal,
    /// The client's address, as far as it is known.
    pub(crate) address: Arc<str>,
}

/// The address of the client, also where nobody knows who it is.
#[derive(Debug, Clone)]
pub(crate) struct ClientAddress(pub(crate) Arc<str>);

impl FromRequestParts<AppState> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &AppState) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| Problem::internal(&"a route without its caller"))
    }
}

impl FromRequestParts<AppState> for ClientAddress {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &AppState) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| Problem::internal(&"a route without its address"))
    }
}

impl Caller {
    /// Whether the caller may do that, and with which rows. A refusal goes to the audit log.
    pub(crate) fn check(
        &self,
        state: &AppState,
        action: Action,
        resource: Resource<'_>,
    ) -> Result<Option<Arc<RowRule>>, Problem> {
        match state.auth().access(&self.principal, action, resource) {
            Access::Allowed { row_rule } => Ok(row_rule),
            Access::Denied(denial) => {
                let subject = format!("{resource:?}");
                let context =
                    AuditContext { user: &self.principal.user, address: &self.address, subject: &subject, detail: "" };
                state.auth().audit().record(AuditEvent::Denied, denial.as_str(), context);
                Err(Problem::forbidden(denial.as_str()))
            }
        }
    }
}

/// What the guard remembers between requests.
pub(crate) struct Gate {
    rates: Rates,
}

impl Gate {
    pub(crate) fn new(config: &ApiConfig) -> Self {
        Self { rates: Rates::per_second(config.server.requests_per_second, BURST_SECONDS) }
    }

    fn is_too_fast(&self, address: IpAddr) -> bool {
        self.rates.is_too_fast(&network_of(address).to_string())
    }
}

/// Lets a request through to its route, or answers in its place.
pub(crate) async fn guard(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let address = client_address(&request, &state.config().trusted_proxies);
    let text: Arc<str> = address.map_or(String::new(), |address| address.to_string()).into();
    request.extensions_mut().insert(ClientAddress(Arc::clone(&text)));
    let origin = Origin::of(&request, &state.config().allowed_origins);
    let is_transport = is_transport(&request);
    let verdict = admit(&state, &mut request, origin.as_ref(), address, &text);
    let mut response = match verdict {
        Err(problem) => {
            counter!("api_requests_refused_total", "status" => problem.status().to_string()).increment(1);
            problem.into_response()
        }
        Ok(Verdict::Preflight) => preflight(is_transport),
        Ok(Verdict::Pass) => {
            let patience = Duration::from_secs(state.config().server.body_seconds.into());
            let (request, is_late) = with_deadline(request, patience);
            let response = next.run(request).await;
            match is_late.load(Ordering::Relaxed) {
                true => Problem::new(
                    StatusCode::REQUEST_TIMEOUT,
                    "body-timeout",
                    "the request's body took too long",
                    "send it faster, or in smaller parts",
                )
                .into_response(),
                false => response,
            }
        }
    };
    if let Some(origin) = origin {
        origin.allow(is_transport, response.headers_mut());
    }
    response
}

enum Verdict {
    Pass,
    Preflight,
}

fn admit(
    state: &AppState,
    request: &mut Request,
    origin: Option<&Origin>,
    address: Option<IpAddr>,
    text: &Arc<str>,
) -> Result<Verdict, Problem> {
    check_host(state.config(), request)?;
    if address.is_some_and(|address| state.gate().is_too_fast(address)) {
        return Err(Problem::too_many("this address sends too many requests"));
    }
    // Live connections are no change by their method, and are for chosen pages nevertheless.
    let is_transport = is_transport(request);
    if let Some(origin) = origin.filter(|_| is_transport || is_change(request.method())) {
        origin.check()?;
    }
    if request.method() == Method::OPTIONS && (is_transport || origin.is_some_and(Origin::is_listed)) {
        return Ok(Verdict::Preflight);
    }
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    // Without a route it is the page, which anybody may load.
    let Some(path) = path else { return Ok(Verdict::Pass) };
    let need = need_of(request.method(), &path)?;
    if let Some(principal) = check_caller(state, request.headers(), need, text, &path)? {
        request.extensions_mut().insert(Caller { principal, address: Arc::clone(text) });
    }
    Ok(Verdict::Pass)
}

/// Whether it is for one of the transports of live data.
fn is_transport(request: &Request) -> bool {
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    path.is_some_and(|path| path.starts_with("/connection/") || path == "/emulation")
}

/// What a route needs, by the table.
fn need_of(method: &Method, path: &str) -> Result<Need, Problem> {
    let method = if *method == Method::HEAD { "GET" } else { method.as_str() };
    let mut same_path = ROUTES.iter().filter(|(_, known, _)| *known == path).peekable();
    if same_path.peek().is_none() {
        tracing::error!(path, "a route is not in the authorization table");
        return Err(Problem::forbidden("this route is not in the authorization table"));
    }
    same_path.find(|(known, _, _)| [method, "*"].contains(known)).map(|(_, _, need)| *need).ok_or_else(|| {
        Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method",
            format!("{path} does not take {method}"),
            "see /api/v1/openapi.json for what there is",
        )
    })
}

fn check_caller(
    state: &AppState,
    headers: &HeaderMap,
    need: Need,
    address: &str,
    path: &str,
) -> Result<Option<Principal>, Problem> {
    if matches!(need, Need::Nothing | Need::Protocol) {
        return Ok(None);
    }
    let auth = state.auth();
    let refuse = |reason: &str| {
        let context = AuditContext { user: "", address, subject: path, detail: "" };
        auth.audit().record(AuditEvent::Unauthorized, reason, context);
        Problem::unauthorized(reason)
    };
    let token = bearer(headers)?.unwrap_or_default();
    if token.is_empty() && matches!(need, Need::Token(_) | Need::Session) {
        return Err(refuse("this route wants a token"));
    }
    let principal = auth.authenticate(token).map_err(|error| refuse(&error.to_string()))?;
    let access = match need {
        Need::Views => auth.may_read_views(&principal),
        Need::Alerts => auth.access(&principal, Action::Read, Resource::Channel(ALERTS_CHANNEL)),
        Need::Permission(permission) | Need::Token(permission) => {
            auth.access(&principal, Action::Use(permission), Resource::Server)
        }
        Need::Session if principal.credential != crate::auth::Credential::Session => {
            return Err(refuse("this route wants the access token of a sign-in"));
        }
        Need::Nothing | Need::Protocol | Need::Caller | Need::Session => Access::Allowed { row_rule: None },
    };
    if let Access::Denied(denial) = access {
        let context = AuditContext { user: &principal.user, address, subject: path, detail: "" };
        auth.audit().record(AuditEvent::Denied, denial.as_str(), context);
        return Err(Problem::forbidden(denial.as_str()));
    }
    Ok(Some(principal))
}

/// The client's address: that of the connection, or what a trusted proxy says.
fn client_address(request: &Request, trusted: &[IpAddr]) -> Option<IpAddr> {
    let peer = request.extensions().get::<Peer>()?.0.ip().to_canonical();
    if !trusted.contains(&peer) {
        return Some(peer);
    }
    let forwarded = request.headers().get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let addresses: Vec<&str> = forwarded.flat_map(|value| value.split(',')).map(str::trim).collect();
    // From the right: what the trusted proxies added. What stands further left anybody could have written.
    for address in addresses.into_iter().rev() {
        match address.parse::<IpAddr>().map(|address| address.to_canonical()) {
            Ok(address) if trusted.contains(&address) => {}
            Ok(address) => return Some(address),
            Err(_) => break,
        }
    }
    Some(peer)
}

/// A page that made its own name point here must not get in with a browser behind the firewall.
fn check_host(config: &ApiConfig, request: &Request) -> Result<(), Problem> {
    // A program that sends none is no browser.
    let Some(host) = host(request) else { return Ok(()) };
    if host_is_allowed(config, host) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::MISDIRECTED_REQUEST,
        "host",
        "this server does not go by that name",
        "call it by a name that api.allowed_hosts lists",
    ))
}

fn host_is_allowed(config: &ApiConfig, host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(""),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let is_address = name.parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost");
    let is_listed = config.allowed_hosts.iter().any(|known| known.eq_ignore_ascii_case(name));
    is_address || is_listed || (config.allowed_hosts.is_empty() && config.auth.mode == AuthMode::Token)
}

/// Gives the body of a request so long to arrive.
fn with_deadline(request: Request, patience: Duration) -> (Request, Arc<AtomicBool>) {
    let is_late = Arc::new(AtomicBool::new(false));
    if [Method::GET, Method::HEAD].contains(request.method()) {
        return (request, is_late);
    }
    let deadline = Instant::now() + patience;
    let flag = Arc::clone(&is_late);
    let request = request.map(|body| {
        let chunks = futures::stream::unfold(body.into_data_stream(), move |mut body| {
            let flag = Arc::clone(&flag);
            async move {
                match tokio::time::timeout_at(deadline, body.next()).await {
                    Ok(chunk) => chunk.map(|chunk| (chunk, body)),
                    Err(_) => {
                        flag.store(true, Ordering::Relaxed);
                        let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
                        Some((Err(axum::Error::new(late)), body))
                    }
                }
            }
        });
        Body::from_stream(chunks)
    });
    (request, is_late)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_ours_is_refused_in_the_open_modes() {
        let mut config = ApiConfig::default();
        let mut check = |mode, allowed: &[&str], host: &str| {
            config.auth.mode = mode;
            config.allowed_hosts = allowed.iter().map(|name| (*name).to_owned()).collect();
            host_is_allowed(&config, host)
        };
        for mode in [AuthMode::Token, AuthMode::Demo, AuthMode::Anonymous] {
            for host in ["127.0.0.1:8080", "localhost:8080", "LOCALHOST", "[::1]:8080", "192.0.2.7"] {
                assert!(check(mode, &[], host), "{host}");
            }
            assert!(check(mode, &["andon.example.com"], "andon.example.com:443"));
            assert!(!check(mode, &["andon.example.com"], "evil.example.com"));
        }
        assert!(check(AuthMode::Token, &[], "andon.example.com"));
        assert!(!check(AuthMode::Demo, &[], "evil.example.com"));
        assert!(!check(AuthMode::Anonymous, &[], "127.0.0.1.evil.example.com"));
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let trusted: Vec<IpAddr> = vec!["10.0.0.1".parse().expect("an address"), "10.0.0.2".parse().expect("one")];
        let check = |peer: &str, forwarded: &[&str]| {
            let mut request = Request::new(Body::empty());
            request.extensions_mut().insert(Peer(format!("{peer}:1234").parse().expect("an address")));
            for value in forwarded {
                request.headers_mut().append("x-forwarded-for", value.parse().expect("a value"));
            }
            client_address(&request, &trusted).map(|address| address.to_string()).unwrap_or_default()
        };
        assert_eq!(check("192.0.2.7", &["198.51.100.1"]), "192.0.2.7");
        assert_eq!(check("10.0.0.1", &["198.51.100.1, 192.0.2.9"]), "192.0.2.9");
        assert_eq!(check("10.0.0.1", &["198.51.100.1", "192.0.2.9, 10.0.0.2"]), "192.0.2.9");
        assert_eq!(check("10.0.0.1", &["rubbish"]), "10.0.0.1");
        assert_eq!(check("10.0.0.1", &[]), "10.0.0.1");
    }
}
