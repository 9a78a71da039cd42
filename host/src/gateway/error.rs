//! Why a gateway cannot start.

use thiserror::Error;

use crate::base::state::InUse;

/// Why the gateway cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The gateway cannot listen on a port.
    #[error("{0:#}")]
    Listen(anyhow::Error),
    /// A plugin cannot be used.
    #[error("{0:#}")]
    Plugin(anyhow::Error),
    /// A certificate cannot be used.
    #[error("{0:#}")]
    Tls(anyhow::Error),
    /// This gateway cannot join the cluster.
    #[error("{0:#}")]
    Cluster(anyhow::Error),
    /// Another gateway uses the state folder.
    #[error(transparent)]
    InUse(#[from] InUse),
}
