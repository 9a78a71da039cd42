//! Checks every request before any other code reads it:
//!
//! - Its `Host` must name this listener. A web page that reaches the listener by DNS rebinding sends its own host name.
//! - It must not come from a web page (`Origin`).
//! - It must contain a token, unless it is a health probe. With the token that only reads, it must be a GET.
//!
//! A connection is closed after a request without the token. A health probe may use HTTP/1.0 without a `Host`: no web
//! page can send such a request, because every browser sends a `Host`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{CONNECTION, HOST};
use axum::http::{Method, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::time::timeout;
use tracing::{info, warn};

use super::shared::{AdminTokens, HEALTH, READINESS, Shared};
use crate::base::metrics::METRICS;
use crate::edge::http::bounded::{HttpPeer, PATIENCE};
use crate::edge::http::origin::{authorization, check_host, check_origin};
use crate::edge::http::problem::{Problem, Reason, shown};
use crate::edge::http::token::{ADMIN_FILE, READ_FILE};

/// The longest time that a request with the token may take: a component may be slow to arrive and to compile.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// Passes a request on, or answers why it is refused.
pub(super) async fn guard(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<HttpPeer>,
    request: Request,
    next: Next,
) -> Response {
    let response = match shared.authorize(&request, &peer) {
        Ok(Visitor::Operator) => return serve(&peer, request, next).await,
        Ok(Visitor::Stranger) => next.run(request).await,
        Err(problem) => {
            METRICS.admin_refused.increment();
            if let Some(unlogged) = shared.refusals.admit(0) {
                let (path, peer) = (shown(request.uri().path()), peer.remote.to_string());
                let (status, reason) = (problem.status().as_u16(), &problem.error);
                warn!(peer, path, status, reason, unlogged, "admin request refused");
            }
            problem.into_response()
        }
    };
    ([(CONNECTION, "close")], response).into_response()
}

async fn serve(peer: &HttpPeer, request: Request, next: Next) -> Response {
    peer.trust();
    let mut audit = AuditLine::of(&request);
    // A little longer than the request may take, so that the operator is told.
    peer.patience.grant(LONGEST + PATIENCE);
    let response = match timeout(LONGEST, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let problem = format!("the request has not ended after {LONGEST:?}; it may still take effect");
            Problem::new(Reason::TooSlow, problem).into_response()
        }
    };
    peer.patience.grant(PATIENCE);
    audit.status = Some(response.status());
    response
}

/// The log line about a request that may change something. It is written when this is dropped: after the answer, or
/// when the connection ends first.
struct AuditLine {
    method: Method,
    path: String,
    status: Option<StatusCode>,
}

impl AuditLine {
    fn of(request: &Request) -> Self {
        Self { method: request.method().clone(), path: request.uri().path().to_owned(), status: None }
    }
}

impl Drop for AuditLine {
    fn drop(&mut self) {
        let Self { method, path, status } = &*self;
        match status {
            _ if *method == Method::GET || *method == Method::HEAD => {}
            Some(status) => info!(%method, path, status = status.as_u16(), "admin request"),
            None => {
                warn!(%method, path, "admin request cut off; it may have taken effect: see `hotgate plugin list`");
            }
        }
    }
}

/// The sender of a request.
enum Visitor {
    /// Has sent a token that allows the request.
    Operator,
    /// Sends a health probe, without the token.
    Stranger,
}

impl Shared {
    /// Returns the sender of a request, or why the request is refused.
    fn authorize(&self, request: &Request, peer: &HttpPeer) -> Result<Visitor, Problem> {
        // `/healthz/` is treated like a probe, so the answer is 404 and not 401.
        let is_probe = [HEALTH, READINESS].contains(&request.uri().path().trim_end_matches('/'));
        let is_hostless = request.version() == Version::HTTP_10 && !request.headers().contains_key(HOST);
        if !(is_probe && is_hostless) {
            check_host(request, peer, &self.allowed_hosts, "admin.allowed_hosts")?;
        }
        check_origin(request)?;
        if is_probe {
            return Ok(Visitor::Stranger);
        }
        let Some(AdminTokens { all, read }) = &self.tokens else {
            let problem = "the gateway has no token, because it has no state folder: see its log";
            return Err(Problem::new(Reason::NoToken, problem));
        };
        let given = authorization(request)?;
        match (all.is_in(given), read.is_in(given)) {
            (true, _) => Ok(Visitor::Operator),
            (_, true) if [Method::GET, Method::HEAD].contains(request.method()) => Ok(Visitor::Operator),
            (_, true) => {
                let problem = format!("the token of {READ_FILE} only reads; this needs the token of {ADMIN_FILE}");
                Err(Problem::new(Reason::Scope, problem))
            }
            _ => Err(Problem::wrong_token()),
        }
    }
}
