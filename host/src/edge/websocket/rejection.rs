//! Why a connection is not upgraded to a WebSocket.

use std::fmt::Display;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tracing::{debug, warn};

use super::admission::LimitReached;
use super::socket::linger;
use crate::base::message::ConnectionId;
use crate::base::metrics::{METRICS, Reason as _, Rejection};
use crate::base::throttle::Throttle;
use crate::edge::listener::Stream;

/// The most connections past a limit that are answered at the same time. Further ones are dropped without an answer.
const MAX_REFUSING: usize = 256;
/// The wait before the answer to a client that connects too often. Its next attempt waits for this answer; if it does
/// not, it soon has no place for an answer. Either way, others are served meanwhile.
const TOO_OFTEN: Duration = Duration::from_secs(1);

/// Log lines about one reason to refuse connections: in a second, and at once.
const LOGGED_PER_SECOND: u32 = 1;
const LOGGED_AT_ONCE: u32 = 5;

/// Why a connection is not upgraded.
pub(super) enum NotUpgraded {
    /// The request is refused.
    Rejected(RejectedUpgrade),
    /// The connection has failed.
    Failed(io::Error),
    /// The connection has ended, or must close.
    Gone,
}

impl From<RejectedUpgrade> for NotUpgraded {
    fn from(rejected: RejectedUpgrade) -> Self {
        Self::Rejected(rejected)
    }
}

impl From<io::Error> for NotUpgraded {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// A refused request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RejectedUpgrade {
    pub(super) status: StatusCode,
    /// The reason in one line.
    pub(super) reason: String,
    pub(super) cause: Rejection,
    /// Seconds after which the client may try again.
    pub(super) retry_after: Option<u64>,
    /// The client's address, if its limit is reached.
    pub(super) client: Option<IpAddr>,
}

impl RejectedUpgrade {
    /// Refuses a request that is not valid.
    pub(super) fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into(), cause: Rejection::Request, retry_after: None, client: None }
    }

    /// Refuses a client past a limit.
    pub(super) fn past_limit(refusal: LimitReached, client: IpAddr) -> Self {
        let (status, retry_after) = match refusal {
            LimitReached::Rate { retry_after } => (StatusCode::TOO_MANY_REQUESTS, Some(retry_after)),
            _ => (StatusCode::SERVICE_UNAVAILABLE, None),
        };
        let (cause, client) = (refusal.into(), Some(client));
        Self { cause, retry_after, client, ..Self::new(status, refusal.to_string()) }
    }

    /// Refuses a connection because a drain closes all connections. The client may try again after these seconds.
    pub(super) fn draining(seconds: u64) -> Self {
        let reason = "the gateway is draining; connect again later";
        let refused = Self::new(StatusCode::SERVICE_UNAVAILABLE, reason);
        Self { cause: Rejection::Draining, retry_after: Some(seconds), ..refused }
    }

    /// Refuses a request that took too long.
    pub(super) fn timeout() -> Self {
        let reason = "no complete upgrade request in time (websocket.handshake_timeout)";
        Self { cause: Rejection::Timeout, ..Self::new(StatusCode::REQUEST_TIMEOUT, reason) }
    }

    /// Refuses a connection of a trusted proxy that does not name its client.
    pub(super) fn proxy(error: &impl Display) -> Self {
        let reason = format!("{error} (websocket.proxy_protocol)");
        Self { cause: Rejection::Proxy, ..Self::new(StatusCode::BAD_REQUEST, reason) }
    }

    /// Refuses a page of a foreign origin.
    pub(super) fn origin() -> Self {
        let reason = "this origin is not allowed (websocket.allowed_origins)";
        Self { cause: Rejection::Origin, ..Self::new(StatusCode::FORBIDDEN, reason) }
    }

    /// Returns how long to wait before the answer.
    pub(super) fn delay(&self) -> Option<Duration> {
        (self.cause == Rejection::Rate).then_some(TOO_OFTEN)
    }

    /// Answers the request, then ends the connection in such a way that the client can read the reason.
    pub(super) async fn answer(&self, stream: &mut impl Stream) {
        let Self { status, reason, retry_after, .. } = self;
        let extra = match *status {
            StatusCode::METHOD_NOT_ALLOWED => "Allow: GET\r\n",
            // RFC 9110 §15.5.22 and RFC 6455 §4.4: the protocol to upgrade to, and its version.
            StatusCode::UPGRADE_REQUIRED => {
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            }
            _ => "",
        };
        let retry = retry_after.map(|seconds| format!("Retry-After: {seconds}\r\n")).unwrap_or_default();
        let response = format!(
            "HTTP/1.1 {status}\r\n{extra}{retry}Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{reason}\n",
            reason.len() + 1,
        );
        if stream.write_all(response.as_bytes()).await.is_ok() {
            linger(stream).await;
        }
    }
}

/// Counts and logs the connections that are refused. Strangers cause that as fast as they like, so only some of them
/// are answered, and logged as warnings.
#[derive(Debug)]
pub struct Rejections {
    places: Arc<Semaphore>,
    /// By reason, so that one reason does not hide another.
    logged: [Throttle; Rejection::NAMES.len()],
}

impl Default for Rejections {
    fn default() -> Self {
        let throttle = |_| Throttle::new(LOGGED_PER_SECOND, LOGGED_AT_ONCE);
        Self { places: Arc::new(Semaphore::new(MAX_REFUSING)), logged: std::array::from_fn(throttle) }
    }
}

impl Rejections {
    /// Takes a place for a connection past a limit. `None` if it must be dropped without an answer.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.places.clone().try_acquire_owned().ok()
    }

    /// Counts and logs a connection that is refused. `client` is its peer or, behind a trusted proxy, its client.
    pub(super) fn count(
        &self,
        connection: Option<ConnectionId>,
        client: IpAddr,
        cause: Rejection,
        reason: impl Display,
    ) {
        METRICS.handshakes_refused.increment(cause);
        let connection = connection.map(|id| id.0);
        debug!(connection, %client, %reason, "upgrade refused");
        // Strangers send invalid and slow requests all day, and no setting helps against them. A drain is in the log.
        if matches!(cause, Rejection::Request | Rejection::Timeout | Rejection::Draining) {
            return;
        }
        if let Some(unlogged) = self.logged[cause.index()].admit(0) {
            warn!(connection, %client, %reason, unlogged, "client refused");
        }
    }
}
