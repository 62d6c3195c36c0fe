//! The user interface, embedded at build time. Every path without a file extension that no other route takes is a place
//! within the page, and gets its `index.html`.

use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use crate::problem::Problem;

include!(concat!(env!("OUT_DIR"), "/assets.rs"));

const INDEX: &str = "index.html";
/// Vite puts a hash of the content into the names of files in this folder: they never change.
const HASHED_FOLDER: &str = "assets/";

/// Serves the page and its files.
pub(crate) async fn serve(method: Method, uri: Uri) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", "this path is only read", "use GET")
            .into_response();
    }
    let path = uri.path().trim_start_matches('/');
    let is_place = !path.rsplit('/').next().unwrap_or("").contains('.') && !path.starts_with("api/");
    match find(path).or_else(|| is_place.then(|| find(INDEX)).flatten()) {
        Some((name, bytes)) => file(name, bytes),
        None => {
            Problem::not_found(format!("there is nothing at {}", uri.path()), "see /api/v1/views for what there is")
                .into_response()
        }
    }
}

fn find(path: &str) -> Option<(&'static str, &'static [u8])> {
    ASSETS.iter().find(|(name, _)| *name == path).copied()
}

fn file(name: &'static str, bytes: &'static [u8]) -> Response {
    let caching = match name.starts_with(HASHED_FOLDER) {
        true => "public, max-age=31536000, immutable",
        false => "no-cache",
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type(name))),
        (header::CACHE_CONTROL, HeaderValue::from_static(caching)),
    ];
    (headers, bytes).into_response()
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or("") {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
