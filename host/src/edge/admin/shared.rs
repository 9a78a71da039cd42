//! The state that all requests to the admin listener share.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use serde::Serialize;
use tokio::sync::Semaphore;

use super::rates::RateHistory;
use crate::base::notices::Notices;
use crate::base::state::StateFolder;
use crate::base::throttle::Throttle;
use crate::config::ListenerName;
use crate::edge::drain::Drain;
use crate::edge::http::problem::Problem;
use crate::edge::http::token::{ADMIN_FILE, READ_FILE, Token};
use crate::edge::tls::Certificates;
use crate::edge::websocket::{Admission, InboxBudget};
use crate::hub::outbox::Budget;
use crate::hub::registry::Registry;
use crate::policy::Policy;

/// The paths for supervisors: is the process alive, and does the gateway serve?
pub(super) const HEALTH: &str = "/healthz";
pub(super) const READINESS: &str = "/readyz";

/// An address that the gateway listens on.
#[derive(Debug, Clone, Serialize)]
pub struct ListenerStatus {
    /// Which listener it is.
    pub listener: ListenerName,
    /// The address.
    pub address: String,
    /// Whether it speaks TLS.
    pub tls: bool,
}

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
    /// Where the gateway listens.
    pub listeners: Vec<ListenerStatus>,
    /// Problems that are not over.
    pub notices: Arc<Notices>,
}

/// The tokens of operators.
#[derive(Debug)]
pub(super) struct AdminTokens {
    /// Allows everything.
    pub(super) all: Token,
    /// Allows to read.
    pub(super) read: Token,
}

impl AdminTokens {
    /// Reads the tokens in the state folder, or makes them. Blocks.
    pub(super) fn create(state: &StateFolder) -> io::Result<Self> {
        Ok(Self { all: Token::create(state, ADMIN_FILE)?, read: Token::create(state, READ_FILE)? })
    }
}

/// The shared state.
#[derive(Debug)]
pub(super) struct Shared {
    /// `None` if there is no private place for the tokens. Then only health probes are answered.
    pub(super) tokens: Option<AdminTokens>,
    pub(super) allowed_hosts: Vec<String>,
    pub(super) refusals: Throttle,
    pub(super) started: SystemTime,
    pub(super) rates: RateHistory,
    /// Set once the gateway has started.
    pub(super) served: OnceLock<Served>,
    /// Allows one deploy at a time, because components may be large.
    pub(super) deploying: Semaphore,
}

impl Shared {
    /// Returns the parts of the gateway, or 503 while it starts.
    pub(super) fn served(&self) -> Result<&Served, Problem> {
        self.served.get().ok_or_else(Problem::starting)
    }
}
