//! `/api/v1/openapi.json`, made from the code of the routes, and `/api/v1/docs`, a page of it that needs no script.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{Html, IntoResponse};
use serde_json::Value;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};

use crate::rest::{admin, alerts, auth, graph, health, ingest, session, sql, views};

/// The description of all routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Andon",
        description = "Kept views, alerts and SQL over HTTP. Errors are `application/problem+json`; `detail` is the next \
                       step. Live data goes over the Centrifuge client protocol at `/connection/websocket`."
    ),
    paths(
        health::live, health::ready, health::metrics, session::show,
        auth::login, auth::refresh, auth::logout, auth::logout_everywhere, auth::password,
        views::list, views::show, views::series, views::changes, alerts::list, sql::run, ingest::append,
        admin::audit, admin::revoke_user, admin::api_keys, admin::add_api_key, admin::revoke_api_key,
        graph::show, json, page,
    ),
    modifiers(&Security),
    security(("token" = []), ())
)]
struct Api;

struct Security;

impl utoipa::Modify for Security {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(
                "An access token of a sign-in, an API key, or a JSON Web Token of your identity provider.",
            ))
            .build();
        api.components.get_or_insert_default().add_security_scheme("token", SecurityScheme::Http(bearer));
    }
}

static JSON: LazyLock<Value> = LazyLock::new(|| serde_json::to_value(Api::openapi()).unwrap_or_default());
static PAGE: LazyLock<String> = LazyLock::new(|| render(&JSON));

/// The description of all routes, for programs.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "about", responses((status = 200, description = "OpenAPI 3.1")))]
pub(crate) async fn json() -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "no-cache")], axum::Json(&*JSON))
}

/// The same for people.
#[utoipa::path(get, path = "/api/v1/docs", tag = "about", responses((status = 200, description = "a page")))]
pub(crate) async fn page() -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "no-cache")], Html(PAGE.as_str()))
}

fn render(api: &Value) -> String {
    let mut page = String::from(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>Andon: HTTP API</title><h1>Andon: HTTP API</h1>",
    );
    let text = |value: &Value| escape(value.as_str().unwrap_or_default());
    let mut put = |html: std::fmt::Arguments<'_>| page.push_str(&html.to_string());
    put(format_args!("<p>{}<p><a href=\"openapi.json\">openapi.json</a>", text(&api["info"]["description"])));
    for (path, item) in api["paths"].as_object().into_iter().flatten() {
        for (method, operation) in item.as_object().into_iter().flatten() {
            let title = format!("{} {}", method.to_uppercase(), escape(path));
            put(format_args!("<details><summary><code>{title}</code> {}</summary>", text(&operation["summary"])));
            put(format_args!("<p>{}", text(&operation["description"])));
            for part in ["parameters", "requestBody", "responses"] {
                if !operation[part].is_null() {
                    let json = serde_json::to_string_pretty(&operation[part]).unwrap_or_default();
                    put(format_args!("<h3>{part}</h3><pre>{}</pre>", escape(&json)));
                }
            }
            put(format_args!("</details>"));
        }
    }
    let schemas = serde_json::to_string_pretty(&api["components"]["schemas"]).unwrap_or_default();
    put(format_args!("<h2>Schemas</h2><pre>{}</pre>", escape(&schemas)));
    page
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rest::guard::{Need, ROUTES};

    #[test]
    fn every_route_is_described() {
        let described: Vec<(String, String)> = JSON["paths"]
            .as_object()
            .expect("paths")
            .iter()
            .flat_map(|(path, item)| {
                item.as_object().expect("operations").keys().map(|method| (method.to_uppercase(), path.clone()))
            })
            .collect();
        for (method, path) in &described {
            assert!(ROUTES.iter().any(|(m, p, _)| (m, p) == (&method.as_str(), &path.as_str())), "{method} {path}");
        }
        for (method, path, need) in ROUTES {
            // Other protocols have descriptions of their own.
            let is_described = described.iter().any(|(m, p)| (m.as_str(), p.as_str()) == (*method, *path));
            assert!(is_described || *need == Need::Protocol || path.starts_with("/api/v1/live"), "{method} {path}");
        }
    }

    #[test]
    fn the_page_has_no_script_and_escapes() {
        assert!(PAGE.contains("GET /api/v1/views/{name}") && !PAGE.contains("<script"));
        assert_eq!(escape("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
