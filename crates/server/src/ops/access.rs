//! Who may see the operator's page, and who may change something.
//!
//! A web page of another site can make a browser send requests here, and can let its own name point
//! here. So, in this order:
//!
//! 1. `Host` must be a loopback name, an address written in digits, or one of `[http] allowed_hosts`:
//!    a site that points its name to this server (*DNS rebinding*) is not answered.
//! 2. What a browser says comes from another site (`Sec-Fetch-Site`) is refused, except that one may
//!    follow a link to the page. No answer carries CORS headers, so none can be read from there.
//! 3. Reading needs the token unless the server listens on a loopback address and no proxy says that it
//!    passes on what somebody else asks.
//! 4. Changing needs the token always: as `Authorization: Bearer`, which no other site can make a
//!    browser send, or as a cookie (`HttpOnly`, `SameSite=Strict`), and then an `Origin` that is ours.

use crate::app::App;
use crate::guard;
use crate::problem::Problem;
use axum::extract::{Form, Request, State};
use axum::http::header::{COOKIE, HOST, LOCATION, ORIGIN, SET_COOKIE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ring::hmac;
use serde::Deserialize;
use std::net::IpAddr;
use std::sync::Arc;

/// How long a browser keeps the cookie, seconds.
const COOKIE_SECONDS: u32 = 30 * 86_400;

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rights {
    pub(super) read: bool,
    pub(super) write: bool,
}

/// How somebody has shown the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Bearer,
    Cookie,
    Not,
}

/// Stands before all routes of the page.
pub(super) async fn check(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match may(&app, &request) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn may(app: &App, request: &Request) -> Result<(), Problem> {
    let headers = request.headers();
    named_rightly(app, request)?;
    not_from_elsewhere(request)?;
    let path = request.uri().path();
    let is_change = !matches!(*request.method(), Method::GET | Method::HEAD);
    if is_change {
        // Also for who logs in: nobody shall be logged in by a foreign page.
        guard::same_origin(headers)?;
    }
    if path == "/ops" || path == "/ops/login" || path.starts_with("/ops/assets/") {
        return Ok(());
    }
    let shown = shown(app, headers);
    let is_local = is_local(app, request);
    match (is_change, shown) {
        (true, Shown::Cookie) if !headers.contains_key(ORIGIN) => {
            let detail = "A change that comes with the cookie must name the page that it comes from \
                (`Origin`), as browsers do. Send the token as `Authorization: Bearer ...` instead.";
            Err(Problem::new(StatusCode::FORBIDDEN, detail))
        }
        (true, Shown::Not) => Err(no_token(app)),
        (false, Shown::Not) if !is_local => Err(no_token(app)),
        _ => Ok(()),
    }
}

fn no_token(app: &App) -> Problem {
    if app.ops.token.is_empty() {
        let detail = "There is no operator's token, so nobody may do this. Set [http] token, or the \
            environment variable MARQUEE_HTTP_TOKEN, and start again.";
        return Problem::new(StatusCode::FORBIDDEN, detail);
    }
    let detail = "This needs the operator's token: log in at /ops, or send it as \
        `Authorization: Bearer ...`.";
    Problem::new(StatusCode::UNAUTHORIZED, detail).header(WWW_AUTHENTICATE, "Bearer")
}

/// What who asks may do.
pub(super) fn rights(app: &App, request: &Request) -> Rights {
    let write = shown(app, request.headers()) != Shown::Not;
    Rights { read: write || is_local(app, request), write }
}

/// Whether somebody on this machine asks, as far as can be seen.
fn is_local(app: &App, request: &Request) -> bool {
    !app.ops.is_public && !guard::is_passed_on(request)
}

fn shown(app: &App, headers: &HeaderMap) -> Shown {
    let token = &app.ops.token;
    if guard::has_token(headers, token) {
        return Shown::Bearer;
    }
    let name = cookie_name(headers);
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs =
        cookies.flat_map(|all| all.split(';')).filter_map(|one| one.trim().split_once('='));
    let is_right = |value: &str| {
        let tag = (value.len() == 64).then(|| (0..32).map(|at| hex_byte(value, at)).collect());
        let Some(Some(tag)) = tag else { return false };
        let tag: Vec<u8> = tag;
        hmac::verify(&cookie_key(token), COOKIE_LABEL, &tag).is_ok()
    };
    match !token.is_empty() && pairs.any(|(key, value)| key == name && is_right(value)) {
        true => Shown::Cookie,
        false => Shown::Not,
    }
}

fn hex_byte(text: &str, at: usize) -> Option<u8> {
    u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()
}

/// What the cookie says; it does not hold the token itself.
const COOKIE_LABEL: &[u8] = b"marquee operator";

fn cookie_key(token: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes())
}

/// Cookies are for all ports of a host, so the port is in the name.
fn cookie_name(headers: &HeaderMap) -> String {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let port = host.rsplit_once(':').map_or("80", |(_, port)| port);
    let port: String = port.chars().filter(char::is_ascii_digit).collect();
    format!("marquee-ops-{port}")
}

/// What the form, or the page itself, sends.
#[derive(Deserialize)]
pub(super) struct Login {
    token: String,
}

pub(super) async fn login(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Form(login): Form<Login>,
) -> Response {
    let mut shown = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(&format!("Bearer {}", login.token.trim())) {
        shown.insert(axum::http::header::AUTHORIZATION, value);
    }
    if !guard::has_token(&shown, &app.ops.token) {
        tracing::warn!("somebody has tried to log in as operator with a wrong token");
        return no_token(&app).into_response();
    }
    let tag = hmac::sign(&cookie_key(&app.ops.token), COOKIE_LABEL);
    let value: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    with_cookie(&headers, &value, COOKIE_SECONDS)
}

pub(super) async fn logout(headers: HeaderMap) -> Response {
    with_cookie(&headers, "", 0)
}

fn with_cookie(headers: &HeaderMap, value: &str, seconds: u32) -> Response {
    let name = cookie_name(headers);
    // A proxy speaks TLS where the page's own origin says so.
    let is_https =
        headers.get(ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https:"));
    let secure = if is_https { "; Secure" } else { "" };
    let cookie =
        format!("{name}={value}; Path=/ops; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    let headers = [(SET_COOKIE, cookie), (LOCATION, "/ops".to_owned())];
    (StatusCode::SEE_OTHER, headers).into_response()
}

/// Refuses names that anybody could let point here.
fn named_rightly(app: &App, request: &Request) -> Result<(), Problem> {
    let Some(host) = guard::host_of(request) else { return Ok(()) };
    let is_address = guard::name_of_host(host).parse::<IpAddr>().is_ok();
    if is_address || guard::is_loopback(host) || guard::is_one_of(host, &app.ops.allowed_hosts) {
        return Ok(());
    }
    let detail = "The operator's page is not answered under this name. Name it in [http] allowed_hosts, \
        or use the address.";
    Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, detail))
}

/// Refuses what a browser sends for a page of another site; a link to the page may be followed.
fn not_from_elsewhere(request: &Request) -> Result<(), Problem> {
    let header =
        |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let is_elsewhere = matches!(header("sec-fetch-site"), Some("cross-site" | "same-site"));
    let is_link = request.method() == Method::GET
        && request.uri().path() == "/ops"
        && header("sec-fetch-mode") == Some("navigate")
        && header("sec-fetch-dest").is_none_or(|dest| dest == "document");
    if !is_elsewhere || is_link {
        return Ok(());
    }
    let detail = "The operator's page answers nothing that a page of another site asks for.";
    Err(Problem::new(StatusCode::FORBIDDEN, detail))
}
