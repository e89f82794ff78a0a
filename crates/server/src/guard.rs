//! Two guards against web pages of other sites, which can make a browser send requests here.
//!
//! - A page may post to any address without asking, as long as it does not need the answer. Such
//!   a request carries the page's `Origin`, so one that is not ours is refused.
//! - A site may let its own name point to 127.0.0.1 (*DNS rebinding*) and then reads the answers
//!   as its own. Such a request names that site as its `Host`, so on a loopback address only
//!   loopback names are answered, and those that are known to lead here through a proxy.
//!
//! Programs that are not browsers send no `Origin` and are not concerned.

use crate::cors;
use crate::problem::Problem;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::sync::Arc;

/// Refuses a request whose `Origin` is another site, and not one that may send events.
pub(crate) fn may_send(headers: &HeaderMap, origins: &[String]) -> Result<(), Problem> {
    match cors::allowed(headers, origins) {
        Some(_) => Ok(()),
        None => same_origin(headers),
    }
}

/// Whether a request shows a token (`Authorization: Bearer ...`). Nobody has one that is empty.
pub(crate) fn has_token(headers: &HeaderMap, token: &str) -> bool {
    let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = shown.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    // How much of a guess is right must not show in the time that this takes.
    let hash = |text: &str| ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    !token.is_empty() && hash(shown).as_ref() == hash(token).as_ref()
}

/// Whether a proxy passes on the request of somebody else, as far as it says so or keeps the name by
/// which it was asked: who connects is on this machine then, and who asks need not be.
pub(crate) fn is_passed_on(request: &Request) -> bool {
    let by_name = host_of(request).is_some_and(|host| !is_loopback(host));
    by_name
        || ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via"]
            .iter()
            .any(|name| request.headers().contains_key(*name))
}

/// Refuses a request whose `Origin` is another site.
pub(crate) fn same_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().ok();
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    if let (Some(origin), Some(host)) = (origin, host)
        && is_origin_of(origin, host)
    {
        return Ok(());
    }
    let detail = "The header `Origin` names another site, and pages of other sites may not send \
        events. Name it in [collector] allowed_origins, let that site's own server send them, or \
        serve its pages and this collector under one host.";
    Err(Problem::new(StatusCode::FORBIDDEN, detail))
}

fn is_origin_of(origin: &str, host: &str) -> bool {
    let split = origin.split_once("://").map(|(scheme, authority)| match scheme {
        "http" => (authority, ":80"),
        "https" => (authority, ":443"),
        _ => ("", ""),
    });
    let Some((authority, default_port)) = split else { return false };
    let plain = |text: &str| text.strip_suffix(default_port).unwrap_or(text).to_ascii_lowercase();
    !authority.is_empty() && plain(authority) == plain(host)
}

/// What a server may be called.
pub(crate) struct Names {
    /// Besides loopback names.
    pub(crate) allowed: Vec<String>,
    /// Whether it listens on a loopback address; elsewhere addresses in digits are right, too.
    pub(crate) is_loopback: bool,
}

/// Answers only to loopback names, and to those given.
pub(crate) async fn known_names_only(
    State(names): State<Arc<Names>>,
    request: Request,
    next: Next,
) -> Response {
    let is_address = |host| !names.is_loopback && name_of_host(host).parse::<IpAddr>().is_ok();
    let is_right = |host| is_loopback(host) || is_one_of(host, &names.allowed) || is_address(host);
    if host_of(&request).is_none_or(is_right) {
        return next.run(request).await;
    }
    let detail = match names.is_loopback {
        true => {
            "This server listens on a loopback address and answers only to the names localhost, \
             127.0.0.1 and [::1]. Use one of them, or name the one of a proxy in [http] \
             allowed_hosts, or let [http] listen name an address that others may reach."
        }
        false => {
            "This server is not answered under this name. Name it in [http] allowed_hosts, or use \
             the address."
        }
    };
    Problem::new(StatusCode::MISDIRECTED_REQUEST, detail).into_response()
}

/// What a request calls this server. One without any host is none of a browser.
pub(crate) fn host_of(request: &Request) -> Option<&str> {
    match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => request.headers().get(HOST).map(|host| host.to_str().unwrap_or("?")),
    }
}

/// Whether `host[:port]` is one of some names.
pub(crate) fn is_one_of(host: &str, names: &[String]) -> bool {
    let name = name_of_host(host);
    names.iter().any(|known| known.eq_ignore_ascii_case(&name))
}

/// The name or address in `host[:port]`.
pub(crate) fn name_of_host(host: &str) -> String {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// Whether the host of `host[:port]` can only be this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = name_of_host(host);
    // Names under localhost never leave the machine either (RFC 6761).
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for good in
            ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "127.9.9.9", "[::1]:1", "a.localhost."]
        {
            assert!(is_loopback(good), "{good}");
        }
        for bad in [
            "",
            "example.com",
            "localhost.example.com:80",
            "127.0.0.1.nip.io",
            "[::2]:1",
            "10.0.0.1",
        ] {
            assert!(!is_loopback(bad), "{bad}");
        }
    }

    #[test]
    fn origins() {
        assert!(is_origin_of("http://a.example:8080", "A.example:8080"));
        assert!(is_origin_of("http://a.example", "a.example:80"));
        assert!(is_origin_of("https://a.example", "a.example"));
        assert!(!is_origin_of("http://a.example", "a.example:8080"));
        assert!(!is_origin_of("http://b.example", "a.example"));
        assert!(!is_origin_of("null", "null") && !is_origin_of("file://", ""));
    }
}
