//! How a connection came to its end.

use bytestring::ByteString;

use crate::base::message::{Cause, CloseReason};
use crate::base::metrics::Denial;
use crate::hub::outbox::Closing;

/// A plugin failed, or has too much to do: the client may try again.
const TRY_AGAIN: CloseReason = CloseReason::new(1013, "try again later");

/// How a connection came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// The client sent a close frame; this answers it (RFC 6455 §5.5.1): its own code, or 1000 for none.
    ByClient(CloseReason),
    /// We close it.
    Closing(Closing),
    /// The client broke the protocol: nothing that it sends can be understood any more.
    Failed(CloseReason),
    /// The TCP connection is gone.
    Lost,
}

impl End {
    pub(super) fn new(cause: Cause, code: u16, reason: impl Into<ByteString>) -> Self {
        Self::Closing(Closing { reason: CloseReason { code, reason: reason.into() }, cause })
    }

    /// Who ended it, for the router.
    pub(super) fn cause(&self) -> Cause {
        match self {
            Self::ByClient(_) => Cause::Client,
            Self::Closing(closing) => closing.cause,
            Self::Failed(_) => Cause::ProtocolError,
            Self::Lost => Cause::Lost,
        }
    }

    /// What our close frame says, where there is one to send.
    pub(super) fn farewell(&self) -> Option<&CloseReason> {
        match self {
            Self::ByClient(reason) | Self::Closing(Closing { reason, .. }) | Self::Failed(reason) => Some(reason),
            Self::Lost => None,
        }
    }

    /// The code of the close frame, where there is one.
    pub(super) fn code(&self) -> Option<u16> {
        self.farewell().map(|reason| reason.code)
    }

    /// Why a client was turned away that has not logged in; `None` if it left.
    pub(super) fn denial(&self) -> Option<Denial> {
        Some(match self.cause() {
            Cause::Client | Cause::Lost => return None,
            Cause::Plugin if self.farewell() == Some(&TRY_AGAIN) => Denial::Failed,
            Cause::Plugin => Denial::Plugin,
            Cause::Unauthenticated if self.code() == Some(4901) => Denial::TooLate,
            Cause::Unauthenticated => Denial::NotAccepted,
            Cause::Replaced => Denial::Duplicate,
            Cause::Expired => Denial::Expired,
            Cause::ProtocolError => Denial::Protocol,
            Cause::Silent | Cause::Slow | Cause::Operator | Cause::Shutdown => Denial::Closed,
        })
    }
}

/// The end that a plugin's failure means.
pub(super) fn try_again() -> End {
    End::Closing(failure())
}

pub(super) fn failure() -> Closing {
    Closing { reason: TRY_AGAIN, cause: Cause::Plugin }
}
