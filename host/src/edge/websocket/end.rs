//! Why a connection ends.

use bytestring::ByteString;

use crate::base::message::{Cause, CloseReason};
use crate::base::metrics::Denial;
use crate::hub::outbox::Close;

/// For a plugin that failed or has too many calls: the client may try again.
const TRY_AGAIN: CloseReason = CloseReason::new(1013, "try again later");

/// Why a connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// The client sent a close frame. Contains the answer (RFC 6455 §5.5.1): the client's code, or 1000 if it has none.
    ByClient(CloseReason),
    /// The gateway closes the connection.
    Closing(Close),
    /// The client violated the protocol. Its further bytes cannot be understood.
    ProtocolViolation(CloseReason),
    /// The TCP connection is gone.
    Lost,
}

impl End {
    pub(super) fn new(cause: Cause, code: u16, reason: impl Into<ByteString>) -> Self {
        Self::Closing(Close { reason: CloseReason { code, reason: reason.into() }, cause })
    }

    /// Returns the cause that the router is told.
    pub(super) fn cause(&self) -> Cause {
        match self {
            Self::ByClient(_) => Cause::Client,
            Self::Closing(closing) => closing.cause,
            Self::ProtocolViolation(_) => Cause::ProtocolError,
            Self::Lost => Cause::Lost,
        }
    }

    /// Returns the code and reason for the close frame. `None` if no frame can be sent.
    pub(super) fn close_reason(&self) -> Option<&CloseReason> {
        match self {
            Self::ByClient(reason) | Self::Closing(Close { reason, .. }) | Self::ProtocolViolation(reason) => {
                Some(reason)
            }
            Self::Lost => None,
        }
    }

    /// Returns the code for the close frame. `None` if no frame can be sent.
    pub(super) fn code(&self) -> Option<u16> {
        self.close_reason().map(|reason| reason.code)
    }

    /// Returns why the login of a client was denied. `None` if the client left.
    pub(super) fn denial(&self) -> Option<Denial> {
        Some(match self.cause() {
            Cause::Client | Cause::Lost => return None,
            Cause::Plugin if self.close_reason() == Some(&TRY_AGAIN) => Denial::Failed,
            Cause::Plugin => Denial::Plugin,
            Cause::Unauthenticated if self.code() == Some(4901) => Denial::TooLate,
            Cause::Unauthenticated => Denial::NotAccepted,
            Cause::Replaced => Denial::Duplicate,
            Cause::Expired => Denial::Expired,
            Cause::ProtocolError => Denial::ProtocolError,
            Cause::Silent | Cause::Slow | Cause::Operator | Cause::Shutdown => Denial::Closed,
        })
    }
}

/// Returns the end of a connection after a plugin has failed.
pub(super) fn try_again() -> End {
    End::Closing(failure())
}

/// Returns the reason to close a connection after a plugin has failed.
pub(super) fn failure() -> Close {
    Close { reason: TRY_AGAIN, cause: Cause::Plugin }
}
