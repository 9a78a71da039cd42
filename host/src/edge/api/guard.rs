//! Checks every request before any other code reads it:
//!
//! - Its `Host` must name this listener. A web page that reaches the listener by DNS rebinding sends its own host name.
//! - It must not come from a web page (`Origin`).
//! - It must contain a token, or come from a client with a certificate that stands for one, unless it asks for the
//!   document that describes the API.
//!
//! A connection is closed after a request without a token.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{AUTHORIZATION, CONNECTION};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::caller::Publisher;
use super::shared::{DOCUMENT, Shared};
use super::tokens::Grant;
use crate::base::metrics::METRICS;
use crate::edge::http::bounded::HttpPeer;
use crate::edge::http::origin::{authorization, check_host, check_origin};
use crate::edge::http::problem::{Problem, Reason, shown};

/// The longest time until the answer to a request begins: the router may be slow.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// How long a connection with a token may do nothing, after a request or between two bytes of an answer.
const IDLE: Duration = Duration::from_secs(75);

/// Passes a request on, or answers why it is refused.
pub(super) async fn guard(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<HttpPeer>,
    request: Request,
    next: Next,
) -> Response {
    let response = match shared.authorize(&request, &peer) {
        Ok(Some(grant)) => return serve(&shared, grant, &peer, request, next).await,
        Ok(None) => next.run(request).await,
        Err(problem) => {
            METRICS.api_refused.increment();
            if let Some(unlogged) = shared.refusals.admit(0) {
                let (path, peer) = (shown(request.uri().path()), peer.remote.to_string());
                let (status, reason, error) = (problem.status().as_u16(), problem.reason.word(), &problem.error);
                warn!(peer, path, status, reason, error, unlogged, "api request refused");
            }
            problem.into_response()
        }
    };
    ([(CONNECTION, "close")], response).into_response()
}

async fn serve(shared: &Shared, grant: Arc<Grant>, peer: &HttpPeer, mut request: Request, next: Next) -> Response {
    peer.trust();
    peer.patience.live_by_bytes(IDLE);
    // A little longer than the request may take, so that the client is told.
    peer.patience.grant(LONGEST + IDLE);
    let mut line = AccessLine::of(&request, grant.clone());
    let publisher = Publisher { grant, connection: peer.id, remote: peer.remote, patience: peer.patience.clone() };
    request.extensions_mut().insert(publisher);
    let response = match shared.served() {
        Err(problem) => problem.into_response(),
        Ok(_) => timeout(LONGEST, next.run(request)).await.unwrap_or_else(|_| {
            let problem = format!("the request has not ended after {LONGEST:?}; it may still take effect");
            Problem::new(Reason::TooSlow, problem).into_response()
        }),
    };
    peer.patience.grant(IDLE);
    line.status = Some(response.status());
    response
}

/// The log line about a request. It is written when this is dropped: when the answer begins, or when the connection
/// ends before that.
struct AccessLine {
    grant: Arc<Grant>,
    method: Method,
    path: String,
    status: Option<StatusCode>,
}

impl AccessLine {
    fn of(request: &Request, grant: Arc<Grant>) -> Self {
        Self { grant, method: request.method().clone(), path: shown(request.uri().path()), status: None }
    }
}

impl Drop for AccessLine {
    fn drop(&mut self) {
        let Self { grant, method, path, status } = &*self;
        let token = grant.name();
        match status.map(|status| status.as_u16()) {
            Some(status) if [Method::PUT, Method::DELETE].contains(method) => {
                info!(token, %method, path, status, "api request");
            }
            Some(status) => debug!(token, %method, path, status, "api request"),
            None => debug!(token, %method, path, "api request cut off; it may have taken effect"),
        }
    }
}

impl Shared {
    /// Returns what the sender of a request may do, `None` for a request that needs no token, or why the request is
    /// refused.
    fn authorize(&self, request: &Request, peer: &HttpPeer) -> Result<Option<Arc<Grant>>, Problem> {
        check_host(request, peer, &self.config.allowed_hosts, "api.allowed_hosts")?;
        check_origin(request)?;
        if request.uri().path() == DOCUMENT {
            return Ok(None);
        }
        let names = peer.certificate_names();
        if names.is_empty() || request.headers().contains_key(AUTHORIZATION) {
            return self.tokens.find(authorization(request)?).map(Some).ok_or_else(Problem::wrong_token);
        }
        self.tokens.of_certificate(names).map(Some).ok_or_else(|| {
            Problem::unauthorized(
                "no api.token has a name of this client certificate (client_certificate), and the \
                                   request has no token",
            )
        })
    }
}
