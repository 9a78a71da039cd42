//! Who may ask: a request passes here before anything else looks at it. What passes must name the listener itself as its
//! `Host` (a page whose name was made to point here, DNS rebinding, names its own), must not come from a page at all
//! (`Origin`), and must have the token, unless it asks for nothing but health. Who has not shown the token has one request
//! to a connection. Supervisors' probes may be of HTTP/1.0, which knows no `Host`; every browser sends one.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{AUTHORIZATION, CONNECTION, HOST, HeaderValue, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{Method, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::time::timeout;
use tracing::{info, warn};

use super::listener::{PATIENCE, Peer};
use super::problem::Problem;
use super::shared::{HEALTH, READINESS, Shared};
use crate::base::metrics::METRICS;
use crate::config;

/// How long a request that may be made has: it may carry a component that takes long to arrive and to compile.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// Lets a request through, or says why not.
pub(super) async fn guard(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let response = match shared.judge(&request, &peer) {
        Ok(Visitor::Operator) => return serve(&peer, request, next).await,
        Ok(Visitor::Stranger) => next.run(request).await,
        Err(problem) => {
            METRICS.admin_refused.increment();
            if let Some(unlogged) = shared.refusals.admit(0) {
                let (status, reason) = (problem.status().as_u16(), problem.reason());
                warn!(status, reason, unlogged, "admin request refused");
            }
            problem.into_response()
        }
    };
    ([(CONNECTION, "close")], response).into_response()
}

async fn serve(peer: &Peer, request: Request, next: Next) -> Response {
    peer.trust();
    let mut trace = Trace::of(&request);
    peer.patience.grant(LONGEST);
    let response = match timeout(LONGEST, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let problem = format!("it has not ended after {LONGEST:?}, and may or may not take effect");
            Problem::new(StatusCode::GATEWAY_TIMEOUT, problem).into_response()
        }
    };
    peer.patience.grant(PATIENCE);
    trace.status = Some(response.status());
    response
}

/// Logs a request that changes something once it is over, also when who made it has left.
struct Trace {
    method: Method,
    path: String,
    status: Option<StatusCode>,
}

impl Trace {
    fn of(request: &Request) -> Self {
        Self { method: request.method().clone(), path: request.uri().path().to_owned(), status: None }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let Self { method, path, status } = &*self;
        match status {
            _ if *method == Method::GET || *method == Method::HEAD => {}
            Some(status) => info!(%method, path, status = status.as_u16(), "admin request"),
            None => warn!(%method, path, "admin request broken off: its connection ended before it did"),
        }
    }
}

/// Who asks.
enum Visitor {
    /// Who has the token.
    Operator,
    /// Who asks for health.
    Stranger,
}

impl Shared {
    fn judge(&self, request: &Request, peer: &Peer) -> Result<Visitor, Problem> {
        // Also a misspelt one: a supervisor is to read that there is no such path, not that it needs a token.
        let is_probe = [HEALTH, READINESS].contains(&request.uri().path().trim_end_matches('/'));
        let is_hostless = request.version() == Version::HTTP_10 && !request.headers().contains_key(HOST);
        if !(is_probe && is_hostless) {
            self.check_host(request, peer.own)?;
        }
        if request.headers().contains_key(ORIGIN) {
            return Err(Problem::new(StatusCode::FORBIDDEN, "this is not for web pages (Origin)"));
        }
        if is_probe {
            return Ok(Visitor::Stranger);
        }
        let Some(token) = &self.token else {
            let problem = "there is no token, for the gateway has no state folder to keep it in: see its log";
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, problem));
        };
        let mut given = request.headers().get_all(AUTHORIZATION).iter();
        match (given.next(), given.next()) {
            (Some(header), None) if token.is_in(header.as_bytes()) => Ok(Visitor::Operator),
            (None, _) => Err(unauthorized("a token is needed: \"Authorization: Bearer …\"")),
            _ => Err(unauthorized("this is not the token")),
        }
    }

    /// Every name that the request gives the listener must be one of its own.
    fn check_host(&self, request: &Request, own: Option<SocketAddr>) -> Result<(), Problem> {
        let mut hosts = request.headers().get_all(HOST).iter();
        let header = match (hosts.next().map(HeaderValue::to_str), hosts.next()) {
            (Some(Ok(host)), None) => host.parse::<Authority>().ok(),
            _ => None,
        };
        let header = header.ok_or_else(|| Problem::new(StatusCode::BAD_REQUEST, "there must be one Host header"))?;
        let foreign = [Some(&header), request.uri().authority()]
            .into_iter()
            .flatten()
            .find(|name| !self.is_own(name.host(), own));
        match foreign {
            None => Ok(()),
            Some(_) => {
                let problem = "this Host is not served: it must be localhost, the listener's own address, or one of \
                               admin.allowed_hosts";
                Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, problem))
            }
        }
    }

    fn is_own(&self, host: &str, own: Option<SocketAddr>) -> bool {
        let Some(host) = config::host(host) else { return false };
        let is_address = host
            .parse()
            .is_ok_and(|ip: IpAddr| ip.is_loopback() || own.is_some_and(|own| own.ip().to_canonical() == ip));
        is_address || host == "localhost" || self.allowed_hosts.contains(&host)
    }
}

fn unauthorized(problem: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, problem)
}
