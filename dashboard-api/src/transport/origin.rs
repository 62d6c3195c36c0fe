//! Which pages may open live connections. Programs that are not browsers send no origin.

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::problem::Problem;

/// Whether a page of this origin may connect.
pub(crate) fn is_allowed(headers: &HeaderMap, allowed: &[String]) -> bool {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let Some(origin) = text(header::ORIGIN) else { return true };
    let host_of_origin = origin.split_once("://").map(|(_, host)| host);
    let is_own = host_of_origin.is_some() && host_of_origin == text(header::HOST);
    is_own || allowed.iter().any(|a| a == "*" || a == origin)
}

/// The answer to a page that may not.
pub(crate) fn refusal() -> Response {
    Problem::new(
        StatusCode::FORBIDDEN,
        "origin",
        "this page's origin may not open a live connection",
        "ask the operator to add the origin to api.allowed_origins",
    )
    .into_response()
}

/// Lets the page read the answer.
pub(crate) fn allow(headers: &HeaderMap, response: &mut Response) {
    if let Some(origin) = headers.get(header::ORIGIN) {
        let out = response.headers_mut();
        out.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        out.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        out.append(header::VARY, HeaderValue::from_static("origin"));
    }
}

/// Answers what a browser asks before it sends.
pub(crate) fn preflight(method: &Method, headers: &HeaderMap) -> Option<Response> {
    if method != Method::OPTIONS {
        return None;
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    allow(headers, &mut response);
    let out = response.headers_mut();
    out.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST, OPTIONS"));
    out.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("content-type, authorization"));
    out.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("300"));
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_the_same_host_and_listed_ones_may_connect() {
        let check = |origin: Option<&str>, allowed: &[&str]| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, "andon.example.com:8080".parse().expect("a host"));
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().expect("an origin"));
            }
            is_allowed(&headers, &allowed.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>())
        };
        assert!(check(None, &[]));
        assert!(check(Some("http://andon.example.com:8080"), &[]));
        assert!(!check(Some("http://andon.example.com"), &[]));
        assert!(!check(Some("null"), &[]));
        assert!(check(Some("https://erp.example.com"), &["https://erp.example.com"]));
        assert!(!check(Some("https://evil.example.com"), &["https://erp.example.com"]));
        assert!(check(Some("https://evil.example.com"), &["*"]));
    }
}
