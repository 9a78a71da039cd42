//! Checks where a request comes from: a web page must not reach these listeners, not even by DNS rebinding. Finds the
//! token that it sends.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, HOST, HeaderValue, ORIGIN};
use axum::http::uri::Authority;

use super::bounded::HttpPeer;
use super::problem::{Problem, Reason};
use crate::config;

/// Checks that the request does not come from a web page.
pub(in crate::edge) fn check_origin(request: &Request) -> Result<(), Problem> {
    match request.headers().contains_key(ORIGIN) {
        true => Err(Problem::new(Reason::Origin, "requests of web pages are refused (Origin)")),
        false => Ok(()),
    }
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
