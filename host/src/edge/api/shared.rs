//! The state that all requests to the API share.

use std::sync::{Arc, OnceLock};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::body::Room;
use super::idempotency::Idempotency;
use super::store::TokenStore;
use crate::base::throttle::Throttle;
use crate::config::ApiConfig;
use crate::edge::http::problem::Problem;
use crate::hub::registry::Registry;
use crate::policy::Policy;

/// The path of the document that describes the API. It needs no token.
pub(super) const DOCUMENT: &str = "/openapi.json";

/// The parts of the gateway that requests use.
#[derive(Debug)]
pub struct Served {
    /// The plugins.
    pub policy: Arc<Policy>,
    /// The registry of connections.
    pub registry: Arc<Registry>,
}

/// The shared state.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: ApiConfig,
    pub(super) tokens: Arc<TokenStore>,
    pub(super) refusals: Throttle,
    /// Set once the gateway has started.
    pub(super) served: OnceLock<Served>,
    /// Memory for the bodies of all requests.
    pub(super) room: Room,
    /// The turns of messages to groups and to everyone.
    pub(super) broadcasts: Arc<Semaphore>,
    /// The answers to requests with an idempotency key.
    pub(super) idempotency: Arc<Idempotency>,
    /// Work that goes on when its client has left.
    pub(super) tasks: TaskTracker,
    /// Cancelled when the gateway drains. Streams then end.
    pub(super) draining: CancellationToken,
}

impl Shared {
    /// Returns the parts of the gateway, or why it does not serve.
    pub(super) fn served(&self) -> Result<&Served, Problem> {
        match self.served.get() {
            _ if self.draining.is_cancelled() => Err(Problem::draining()),
            Some(served) => Ok(served),
            None => Err(Problem::starting()),
        }
    }
}
