//! The state that all connections share.

use std::sync::Arc;

use super::inbox::InboxBudget;
use super::rejection::Rejections;
use super::tls_turns::TlsTurns;
use crate::edge::drain::Drain;
use crate::edge::listener::Stream;
use crate::edge::live::LiveConfig;
use crate::edge::tls::Tls;
use crate::hub::registry::Registry;
use crate::policy::Policy;

/// The shared state.
pub struct Context {
    /// The configuration in effect.
    pub live: Arc<LiveConfig>,
    /// Counts and logs refused connections.
    pub rejections: Rejections,
    /// The plugins.
    pub policy: Arc<Policy>,
    /// The registry of connections.
    pub registry: Arc<Registry>,
    /// The certificates, if connections are encrypted.
    pub tls: Option<Arc<Tls>>,
    /// Whose turn it is to do the handshake of TLS.
    pub tls_turns: TlsTurns,
    /// The memory that the inboxes of all connections together may use.
    pub inbox: Arc<InboxBudget>,
    /// Whether upgrades are refused.
    pub drain: Arc<Drain>,
}

impl Context {
    /// Returns `true` if a stream is encrypted.
    pub(super) fn encrypts(&self, stream: &impl Stream) -> bool {
        self.tls.is_some() && !stream.is_private()
    }
}
