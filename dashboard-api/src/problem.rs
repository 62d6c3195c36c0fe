//! Errors of the REST routes: RFC 9457 `application/problem+json`, each with a next step.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// An error as a caller sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    /// A stable name of the kind of error, for programs.
    #[serde(rename = "type")]
    kind: String,
    /// What went wrong, for people.
    title: String,
    /// HTTP status.
    status: u16,
    /// What to do next.
    detail: String,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, kind: &str, title: impl Into<String>, next_step: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:andon:problem:{kind}"),
            title: title.into(),
            status: status.as_u16(),
            detail: next_step.into(),
        }
    }

    pub(crate) fn unauthorized(title: &str) -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            title,
            "send `Authorization: Bearer <token>` with an access token of a sign-in, an API key, or a JSON Web Token \
             signed with a key that the server's operator configured",
        )
    }

    pub(crate) fn forbidden(reason: &str) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            reason,
            "ask the server's operator for a role that allows it; the roles are in the configuration under api.roles",
        )
    }

    pub(crate) fn bad_request(title: impl Into<String>, next_step: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", title, next_step)
    }

    /// For a body that could not be read or is of another form.
    pub(crate) fn body(rejection: &JsonRejection) -> Self {
        Self::new(
            rejection.status(),
            "body",
            rejection.body_text(),
            "send JSON of the form that /api/v1/openapi.json says",
        )
    }

    /// For a caller who is too fast, or too many.
    pub(crate) fn too_many(title: &str) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many", title, "wait a little and try again")
    }

    /// The HTTP status.
    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    pub(crate) fn not_found(title: impl Into<String>, next_step: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", title, next_step)
    }

    /// For our own mistakes: the caller gets an id, the log has the details under it.
    pub(crate) fn internal(error: &dyn std::fmt::Display) -> Self {
        let id = uuid::Uuid::new_v4();
        tracing::error!(%id, %error, "request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the server made a mistake",
            format!("tell the operator this id, under which the server's log has the details: {id}"),
        )
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let is_unauthorized = status == StatusCode::UNAUTHORIZED;
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if is_unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
