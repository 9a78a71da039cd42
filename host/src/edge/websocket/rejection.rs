//! Why a connection is not upgraded to a WebSocket.

use std::io;

use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::tungstenite::http::StatusCode;

use super::socket::linger;
use crate::edge::listener::Stream;

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

/// A refused request: the status, and the reason in one line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RejectedUpgrade {
    pub(super) status: StatusCode,
    pub(super) reason: String,
}

impl RejectedUpgrade {
    pub(super) fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }

    /// Refuses a connection past a limit.
    pub(super) fn unavailable(reason: impl ToString) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, reason.to_string())
    }

    /// Refuses a request that took too long.
    pub(super) fn timeout() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "no complete upgrade request in time (websocket.handshake_timeout)")
    }

    /// Answers the request, then ends the connection in such a way that the client can read the reason.
    pub(super) async fn answer(&self, stream: &mut impl Stream) {
        let Self { status, reason } = self;
        let extra = match *status {
            StatusCode::METHOD_NOT_ALLOWED => "Allow: GET\r\n",
            // RFC 9110 §15.5.22 and RFC 6455 §4.4: the protocol to upgrade to, and its version.
            StatusCode::UPGRADE_REQUIRED => {
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            }
            _ => "",
        };
        let response = format!(
            "HTTP/1.1 {status}\r\n{extra}Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{reason}\n",
            reason.len() + 1,
        );
        if stream.write_all(response.as_bytes()).await.is_ok() {
            linger(stream).await;
        }
    }
}
