use crate::hotgate::gateway::types::CloseReason;
use origin_packet::Unusable;

/// Why a client is turned away. No text says anything that came with the token or stands in the settings, and each fits
/// the 123 bytes of a close reason.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum Denial {
    /// It cannot be read as a token at all.
    #[error("the token cannot be read: {0}")]
    Malformed(&'static str),
    /// Nothing vouches for it.
    #[error("the token is not trusted: {0}")]
    NotTrusted(&'static str),
    /// It is genuine, but no admission to here and now.
    #[error("the token is not for here: {0}")]
    NotForHere(&'static str),
    /// It is genuine, and names nobody.
    #[error("the token names nobody: {0}")]
    Nobody(String),
    /// It was an admission once.
    #[error("the token has expired")]
    Expired,
    /// Whatever it is: the settings do not allow to judge it. They are checked before the plugin goes live.
    #[error("tokens cannot be judged here at the moment")]
    NotSetUp,
}

impl Denial {
    /// That the claim of the uid holds none.
    pub(crate) fn nobody(unusable: &Unusable) -> Self {
        Self::Nobody(unusable.to_string())
    }

    pub(crate) fn code(&self) -> u16 {
        match self {
            Self::Malformed(_) => 4001,
            Self::NotTrusted(_) => 4002,
            Self::NotForHere(_) | Self::Nobody(_) => 4003,
            Self::Expired => 4004,
            Self::NotSetUp => 1013,
        }
    }
}

impl From<Denial> for CloseReason {
    fn from(denial: Denial) -> Self {
        Self { code: denial.code(), reason: denial.to_string() }
    }
}
