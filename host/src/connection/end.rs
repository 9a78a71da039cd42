//! How a connection came to its end.

use bytestring::ByteString;

use crate::message::{Cause, CloseReason};
use crate::outbox::Closing;

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
}
