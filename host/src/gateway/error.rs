//! Why a gateway cannot start.

use thiserror::Error;

use crate::base::state::InUse;

/// The gateway had to leave its cluster, and has drained. The log says why.
#[derive(Debug, Clone, Copy, Error)]
#[error("this gateway cannot stay in the cluster")]
pub struct Expelled;

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
    /// The other gateways cannot be reached now, and this one may not serve alone.
    #[error("{0:#}")]
    Alone(anyhow::Error),
    /// Another gateway uses the state folder.
    #[error(transparent)]
    InUse(#[from] InUse),
}
