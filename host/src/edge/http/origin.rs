//! Checks where a request comes from: a foreign web page must not reach these listeners, not even by DNS rebinding.
//! Finds the token that it sends.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, HOST, HeaderValue, ORIGIN};
use axum::http::uri::Authority;

use super::bounded::HttpPeer;
use super::problem::{Problem, Reason};
use crate::config;

/// Where a browser says from which page a request comes (<https://www.w3.org/TR/fetch-metadata/>).
const FETCH_SITE: &str = "sec-fetch-site";

/// Checks that the request does not come from a web page.
pub(in crate::edge) fn check_origin(request: &Request) -> Result<(), Problem> {
    match request.headers().contains_key(ORIGIN) {
        true => Err(Problem::new(Reason::Origin, "requests of web pages are refused (Origin)")),
        false => Ok(()),
    }
}

/// Checks that the request comes from no web page but the listener's own: an `Origin` must name the host and port of
/// the request's `Host`, and a browser must say that the page is of the same origin (Fetch Metadata). The user may open
/// a page by an address (`none`) if `is_public`: if the request needs no token.
///
/// The caller has checked the `Host`.
pub(in crate::edge) fn check_same_origin(request: &Request, peer: &HttpPeer, is_public: bool) -> Result<(), Problem> {
    let refused = |header: &str| {
        let problem = "requests of foreign web pages are refused";
        Err(Problem::new(Reason::Origin, format_args!("{problem} ({header})")))
    };
    let headers = request.headers();
    let mut origins = headers.get_all(ORIGIN).iter();
    let is_own = match (origins.next().map(HeaderValue::to_str), origins.next()) {
        (None, _) => true,
        (Some(Ok(origin)), None) => {
            let scheme = if peer.is_encrypted() { "https" } else { "http" };
            let host = headers.get(HOST).and_then(|host| host.to_str().ok());
            host.is_some_and(|host| is_origin(origin, scheme, host))
        }
        _ => false,
    };
    if !is_own {
        return refused("Origin");
    }
    let is_admitted = |site: &HeaderValue| site == "same-origin" || (is_public && site == "none");
    match headers.get_all(FETCH_SITE).iter().all(is_admitted) {
        true => Ok(()),
        false => refused("Sec-Fetch-Site"),
    }
}

/// Returns `true` if a page of this origin comes from this host.
fn is_origin(origin: &str, scheme: &str, host: &str) -> bool {
    let standard = if scheme == "https" { "443" } else { "80" };
    let parts = |authority: &str| {
        let (host, port) = config::host_and_port(authority);
        Some((config::host(host)?, port.unwrap_or(standard).to_owned()))
    };
    let page = origin.split_once("://").filter(|(of_page, _)| *of_page == scheme);
    page.and_then(|(_, authority)| parts(authority)).is_some_and(|page| parts(host) == Some(page))
}

/// Checks that the request names this listener: in its `Host`, and in its target if the target is a whole URL. `key` is
/// the setting with the `allowed` names.
pub(in crate::edge) fn check_host(
    request: &Request,
    peer: &HttpPeer,
    allowed: &[String],
    key: &str,
) -> Result<(), Problem> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let header = match (hosts.next().map(HeaderValue::to_str), hosts.next()) {
        (Some(Ok(host)), None) => host.parse::<Authority>().ok(),
        _ => None,
    };
    let header = header.ok_or_else(|| Problem::bad("the request must have exactly one valid Host header"))?;
    let is_foreign = |name: &&Authority| !is_own(name.host(), peer, allowed);
    match [Some(&header), request.uri().authority()].into_iter().flatten().find(is_foreign) {
        None => Ok(()),
        Some(_) => {
            let problem = "this Host is refused: it must be localhost, the listener's own address, a name in its certificate, or one of";
            Err(Problem::new(Reason::Host, format_args!("{problem} {key}")))
        }
    }
}

/// Returns the `Authorization` header of a request.
pub(in crate::edge) fn authorization(request: &Request) -> Result<&[u8], Problem> {
    let mut given = request.headers().get_all(AUTHORIZATION).iter();
    match (given.next(), given.next()) {
        (Some(header), None) => Ok(header.as_bytes()),
        (None, _) => Err(Problem::unauthorized("the token is missing: send \"Authorization: Bearer TOKEN\"")),
        (Some(_), Some(_)) => Err(Problem::unauthorized("send exactly one Authorization header")),
    }
}

fn is_own(host: &str, peer: &HttpPeer, allowed: &[String]) -> bool {
    let Some(host) = config::host(host) else { return false };
    let is_address = host
        .parse()
        .is_ok_and(|ip: IpAddr| ip.is_loopback() || peer.own.is_some_and(|own| own.ip().to_canonical() == ip));
    is_address
        || host == "localhost"
        || allowed.contains(&host)
        || peer.tls.as_ref().is_some_and(|tls| tls.names(&host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_own_if_scheme_host_and_port_are_the_same() {
        for (origin, scheme, host, is_own) in [
            ("http://127.0.0.1:1235", "http", "127.0.0.1:1235", true),
            ("http://localhost:1235", "http", "LOCALHOST:1235", true),
            ("http://[::1]:1235", "http", "[::1]:1235", true),
            ("http://localhost", "http", "localhost:80", true),
            ("https://gateway.test", "https", "gateway.test", true),
            ("https://gateway.test:443", "https", "gateway.test", true),
            ("http://localhost:1236", "http", "localhost:1235", false),
            ("https://localhost:1235", "http", "localhost:1235", false),
            ("http://localhost:1235", "https", "localhost:1235", false),
            ("http://127.0.0.1:1235", "http", "localhost:1235", false),
            ("http://localhost:1235.evil.test", "http", "localhost:1235", false),
            ("http://evil.test/localhost:1235", "http", "localhost:1235", false),
            ("http://evil.test@localhost:1235", "http", "localhost:1235", false),
            ("http://localhost:1235/", "http", "localhost:1235", false),
            ("HTTP://localhost:1235", "http", "localhost:1235", false),
            ("null", "http", "localhost:1235", false),
            ("", "http", "localhost:1235", false),
        ] {
            assert_eq!(is_origin(origin, scheme, host), is_own, "{origin} {scheme} {host}");
        }
    }
}
