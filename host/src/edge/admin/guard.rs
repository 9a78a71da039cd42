//! Checks every request before any other code reads it:
//!
//! - Its `Host` must name this listener. A web page that reaches the listener by DNS rebinding sends its own host name.
//! - It must not come from a web page, unless the page is the listener's own (`Origin`, `Sec-Fetch-Site`).
//! - It must contain a token, unless it is public: a health probe, a file of the dashboard, or the request that opens
//!   a session. With a token that only reads, it must be a GET.
//!
//! A connection is closed after a request without a token, unless it was for a file of the dashboard. A health probe
//! may use HTTP/1.0 without a `Host`: no web page can send such a request, because every browser sends a `Host`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{CONNECTION, HOST};
use axum::http::{Method, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::time::timeout;
use tracing::{info, warn};

use super::shared::{FILES, HEALTH, PAGE, READINESS, SESSION, Shared};
use super::visitor::{Caller, Visitor};
use crate::edge::http::bounded::{HttpPeer, PATIENCE};
use crate::edge::http::origin::{authorization, check_host, check_same_origin};
use crate::edge::http::problem::{Problem, Reason, shown};

/// The longest time that a request with the token may take: a component may be slow to arrive and to compile.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// Passes a request on, or answers why it is refused.
pub(super) async fn guard(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<HttpPeer>,
    request: Request,
    next: Next,
) -> Response {
    let is_file = shared.is_file(&request);
    let response = match shared.authorize(&request, &peer) {
        Ok(Some(visitor)) => return serve(Caller { visitor, peer }, request, next).await,
        // A page has many files. Without a token, the connection does not last long anyway.
        Ok(None) if is_file => return next.run(request).await,
        Ok(None) => next.run(request).await,
        Err(problem) => shared.refuse(&peer, request.uri().path(), problem).into_response(),
    };
    ([(CONNECTION, "close")], response).into_response()
}

async fn serve(caller: Caller, mut request: Request, next: Next) -> Response {
    let peer = caller.peer.clone();
    peer.trust();
    let mut audit = AuditLine::of(&request, &caller);
    // A little longer than the request may take, so that the operator is told.
    peer.patience.grant(LONGEST + PATIENCE);
    request.extensions_mut().insert(caller);
    let response = timeout(LONGEST, next.run(request)).await.unwrap_or_else(|_| {
        let problem = format!("the request has not ended after {LONGEST:?}; it may still take effect");
        Problem::new(Reason::TooSlow, problem).into_response()
    });
    peer.patience.grant(PATIENCE);
    audit.status = Some(response.status());
    response
}

/// The log line about a request that may change something. It is written when this is dropped: after the answer, or
/// when the connection ends first.
struct AuditLine {
    by: String,
    peer: SocketAddr,
    method: Method,
    path: String,
    status: Option<StatusCode>,
}

impl AuditLine {
    fn of(request: &Request, caller: &Caller) -> Self {
        let (by, peer) = (caller.visitor.to_string(), caller.peer.remote);
        Self { by, peer, method: request.method().clone(), path: shown(request.uri().path()), status: None }
    }
}

impl Drop for AuditLine {
    fn drop(&mut self) {
        let Self { by, peer, method, path, status } = &*self;
        match status {
            _ if *method == Method::GET || *method == Method::HEAD => {}
            Some(status) => info!(by, %peer, %method, path, status = status.as_u16(), "admin request"),
            None => {
                let problem = "admin request cut off; it may have taken effect";
                warn!(by, %peer, %method, path, "{problem}");
            }
        }
    }
}

impl Shared {
    /// Returns `true` if a request is for a file of the dashboard.
    fn is_file(&self, request: &Request) -> bool {
        let path = request.uri().path();
        let is_read = [Method::GET, Method::HEAD].contains(request.method());
        self.has_dashboard && is_read && (path == PAGE || path.starts_with(FILES))
    }

    /// Returns the sender of a request, `None` for a request that is public, or why the request is refused.
    fn authorize(&self, request: &Request, peer: &HttpPeer) -> Result<Option<Visitor>, Problem> {
        let (path, method) = (request.uri().path(), request.method());
        // `/healthz/` is treated like a probe, so the answer is 404 and not 401.
        let is_probe = [HEALTH, READINESS].contains(&path.trim_end_matches('/'));
        let is_hostless = request.version() == Version::HTTP_10 && !request.headers().contains_key(HOST);
        if !(is_probe && is_hostless) {
            check_host(request, peer, &self.allowed_hosts, "admin.allowed_hosts")?;
        }
        let is_file = self.is_file(request);
        // The user may also open it by its address, without a page.
        check_same_origin(request, peer, is_file || is_probe)?;
        let opens_session = self.has_dashboard && *method == Method::POST && path == SESSION;
        if is_probe || is_file || opens_session {
            return Ok(None);
        }
        self.tokens()?;
        let visitor = self.visitor(authorization(request)?)?;
        visitor.permit(method, path)?;
        Ok(Some(visitor))
    }
}
