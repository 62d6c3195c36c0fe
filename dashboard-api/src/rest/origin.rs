//! Which pages of other origins may do what. A browser names the page's origin; programs that are not browsers do not.
//!
//! A page of this server may do everything. One that `api.allowed_origins` lists may read answers, change things and open
//! live connections. Any other may send what needs no permission of ours, and read nothing.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::problem::Problem;

/// How long browsers remember the answer to a preflight request, in seconds.
const PREFLIGHT_SECONDS: &str = "300";

/// A request's origin and what it may do.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// As the browser wrote it.
    value: HeaderValue,
    standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// The page came from here.
    Own,
    /// The operator lists it by name.
    Listed,
    /// The operator lists `*`.
    AsAny,
    Foreign,
}

impl Origin {
    /// That of a request; `None` if it names none.
    pub(crate) fn of(request: &Request, allowed: &[String]) -> Option<Self> {
        let value = request.headers().get(header::ORIGIN)?.clone();
        let text = value.to_str().ok();
        let own = text.and_then(|origin| origin.split_once("://")).is_some_and(|(_, name)| Some(name) == host(request));
        let standing = match text {
            _ if own => Standing::Own,
            Some(origin) if allowed.iter().any(|known| known == origin) => Standing::Listed,
            _ if allowed.iter().any(|known| known == "*") => Standing::AsAny,
            _ => Standing::Foreign,
        };
        Some(Self { value, standing })
    }

    /// Whether the operator lists it.
    pub(crate) fn is_listed(&self) -> bool {
        matches!(self.standing, Standing::Listed | Standing::AsAny)
    }

    /// # Errors
    /// If the page is neither ours nor listed.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        if self.standing != Standing::Foreign {
            return Ok(());
        }
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            "origin",
            "a page of this origin may not do that",
            "ask the operator to add the origin to api.allowed_origins",
        ))
    }

    /// Lets the page read the answer, if it is listed. Its browser may add its credentials for this server to requests for
    /// live data, unless every page may ask.
    pub(crate) fn allow(self, is_transport: bool, headers: &mut HeaderMap) {
        if !self.is_listed() {
            return;
        }
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, self.value);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("etag, retry-after"));
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        if is_transport && self.standing == Standing::Listed {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }
}

/// The name by which the server was called, with the port if there is one. HTTP/2 has it in the address.
pub(crate) fn host(request: &Request) -> Option<&str> {
    match request.headers().get(header::HOST) {
        Some(host) => Some(host.to_str().unwrap_or("?")),
        None => request.uri().authority().map(|authority| authority.as_str()),
    }
}

/// Whether a request changes anything, by its method.
pub(crate) fn is_change(method: &Method) -> bool {
    ![Method::GET, Method::HEAD, Method::OPTIONS].contains(method)
}

/// Answers what a browser asks before it sends.
pub(crate) fn preflight(is_transport: bool) -> Response {
    let methods = if is_transport { "POST, OPTIONS" } else { "GET, POST, DELETE" };
    let headers: [(HeaderName, &str); 3] = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, methods),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type, if-none-match, x-api-key"),
        (header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn of(host: Option<&str>, address: &str, origin: &str, allowed: &[&str]) -> Origin {
        let mut request = Request::builder().uri(address).header(header::ORIGIN, origin);
        if let Some(host) = host {
            request = request.header(header::HOST, host);
        }
        let request = request.body(Body::empty()).expect("a request");
        let allowed: Vec<String> = allowed.iter().map(|known| (*known).to_owned()).collect();
        Origin::of(&request, &allowed).expect("it names one")
    }

    #[test]
    fn pages_of_the_same_host_and_listed_ones_are_let_in() {
        let check = |origin, allowed: &[&str]| of(Some("andon.test:8080"), "/", origin, allowed).standing;
        assert_eq!(check("http://andon.test:8080", &[]), Standing::Own);
        assert_eq!(check("http://andon.test", &[]), Standing::Foreign);
        assert_eq!(check("null", &[]), Standing::Foreign);
        assert_eq!(check("https://erp.test", &["https://erp.test", "*"]), Standing::Listed);
        assert_eq!(check("https://evil.test", &["https://erp.test"]), Standing::Foreign);
        assert_eq!(check("https://evil.test", &["*"]), Standing::AsAny);
        // HTTP/2 names the host in the address alone.
        assert!(of(None, "https://andon.test/x", "https://andon.test", &[]).check().is_ok());
        assert!(of(None, "https://andon.test/x", "https://evil.test", &[]).check().is_err());
        assert!(of(None, "/x", "https://evil.test", &[]).check().is_err());
    }

    #[test]
    fn credentials_go_with_pages_that_are_listed_by_name_alone() {
        let check = |allowed: &[&str], is_transport| {
            let mut headers = HeaderMap::new();
            of(Some("andon.test"), "/", "https://erp.test", allowed).allow(is_transport, &mut headers);
            let has = |name| headers.contains_key(name);
            (has(header::ACCESS_CONTROL_ALLOW_ORIGIN), has(header::ACCESS_CONTROL_ALLOW_CREDENTIALS))
        };
        assert_eq!(check(&["https://erp.test"], true), (true, true));
        assert_eq!(check(&["https://erp.test"], false), (true, false));
        assert_eq!(check(&["*"], true), (true, false));
        assert_eq!(check(&[], true), (false, false));
    }
}
