//! The state that all requests to the admin listener share.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use tokio::sync::Semaphore;

use crate::base::throttle::Throttle;
use crate::edge::drain::Drain;
use crate::edge::http::problem::Problem;
use crate::edge::http::token::Token;
use crate::edge::tls::Certificates;
use crate::edge::websocket::{Admission, InboxBudget};
use crate::hub::outbox::Budget;
use crate::hub::registry::Registry;
use crate::policy::Policy;

/// The paths for supervisors: is the process alive, and does the gateway serve?
pub(super) const HEALTH: &str = "/healthz";
pub(super) const READINESS: &str = "/readyz";

/// The parts of the gateway that requests show and change.
#[derive(Debug)]
pub struct Served {
    /// The plugins.
    pub policy: Arc<Policy>,
    /// The registry of connections.
    pub registry: Arc<Registry>,
    /// The certificates of all listeners.
    pub certificates: Certificates,
    /// The numbers of connections.
    pub admission: Arc<Admission>,
    /// The memory of all outboxes.
    pub budget: Arc<Budget>,
    /// The memory of all inboxes.
    pub inbox: Arc<InboxBudget>,
    /// The drain.
    pub drain: Arc<Drain>,
}

/// The shared state.
#[derive(Debug)]
pub(super) struct Shared {
    /// `None` if there is no private place for the token. Then only health probes are answered.
    pub(super) token: Option<Token>,
    pub(super) allowed_hosts: Vec<String>,
    pub(super) refusals: Throttle,
    pub(super) started: SystemTime,
    /// Set once the gateway has started.
    pub(super) served: OnceLock<Served>,
    /// Allows one upload at a time, because components may be large.
    pub(super) uploading: Semaphore,
}

impl Shared {
    /// Returns the parts of the gateway, or 503 while it starts.
    pub(super) fn served(&self) -> Result<&Served, Problem> {
        self.served.get().ok_or_else(Problem::starting)
    }
}
