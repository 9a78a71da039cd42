use crate::hotgate::gateway::types::CloseReason;
use origin_packet::Unusable;

/// Why a client is denied. No text shows parts of the token or of the settings. Each text fits the 123 bytes of a close
/// reason.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum Denial {
    /// The token cannot be read.
    #[error("the token cannot be read: {0}")]
    Malformed(&'static str),
    /// No key confirms the token.
    #[error("the token is not trusted: {0}")]
    NotTrusted(&'static str),
    /// The token is genuine, but not for here and now.
    #[error("the token is not for here: {0}")]
    NotForHere(&'static str),
    /// The token is genuine, but names no uid.
    #[error("the token names nobody: {0}")]
    Nobody(String),
    /// The token was valid before.
    #[error("the token has expired")]
    Expired,
    /// The settings do not allow to check any token. Such settings are refused before the plugin goes live.
    #[error("tokens cannot be checked at the moment")]
    NotSetUp,
}

impl Denial {
    /// Returns the denial for a claim that holds no usable uid.
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
