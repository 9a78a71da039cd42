//! The state that all requests to the admin listener share.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use serde::Serialize;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::history::{Gauges, History};
use super::sessions::Sessions;
use super::trials::Trials;
use crate::base::metrics::METRICS;
use crate::base::notices::Notices;
use crate::base::state::StateFolder;
use crate::base::throttle::Throttle;
use crate::config::ListenerName;
use crate::edge::drain::Drain;
use crate::edge::http::bounded::HttpPeer;
use crate::edge::http::problem::{Problem, Reason, shown};
use crate::edge::http::token::{ADMIN_FILE, READ_FILE, Token};
use crate::edge::text;
use crate::edge::tls::Certificates;
use crate::edge::websocket::{Admission, Entrance, InboxBudget};
use crate::hub::outbox::Budget;
use crate::hub::registry::Registry;
use crate::policy::Policy;

/// The paths for supervisors: is the process alive, and does the gateway serve?
pub(super) const HEALTH: &str = "/healthz";
pub(super) const READINESS: &str = "/readyz";
/// The path of the dashboard, and the beginning of the paths of its other files.
pub(super) const PAGE: &str = "/";
pub(super) const FILES: &str = "/assets/";
/// The path that opens, shows and ends a session.
pub(super) const SESSION: &str = "/session";

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
    /// Where clients come in. `None` if no clients connect to this gateway.
    pub entrance: Option<Arc<Entrance>>,
    /// How lines are pushed.
    pub senders: Arc<text::Context>,
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
    /// Whether there is a dashboard (`admin.dashboard`).
    pub(super) has_dashboard: bool,
    /// Whether single clients may be followed (`admin.trace`).
    pub(super) has_trace: bool,
    pub(super) sessions: Sessions,
    pub(super) started: SystemTime,
    pub(super) history: History,
    /// The places of streams.
    pub(super) streams: Arc<Semaphore>,
    /// The places of streams of those who only read.
    pub(super) streams_of_readers: Arc<Semaphore>,
    /// Cancelled when the listener stops. Streams then end.
    pub(super) stopping: CancellationToken,
    /// The WebSocket clients of operators.
    pub(super) trials: Trials,
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

    /// Returns what the history keeps of this moment: zeros while the gateway starts.
    pub(super) fn gauges(&self) -> Gauges {
        self.served.get().map_or_else(Gauges::default, |served| Gauges {
            connections: served.admission.connections(),
            unauthenticated: served.admission.unauthenticated(),
            outbox_bytes: served.budget.used(),
        })
    }

    /// Returns the tokens of the files, or why there are none.
    pub(super) fn tokens(&self) -> Result<&AdminTokens, Problem> {
        let problem = "the gateway has no token, because it has no state folder: see its log";
        self.tokens.as_ref().ok_or_else(|| Problem::new(Reason::NoToken, problem))
    }

    /// Counts and logs a request that is refused. If many are refused, logs only some of them.
    pub(super) fn refuse(&self, peer: &HttpPeer, path: &str, problem: Problem) -> Problem {
        METRICS.admin_refused.increment();
        if let Some(unlogged) = self.refusals.admit(0) {
            let (path, peer) = (shown(path), peer.remote.to_string());
            let (status, reason) = (problem.status().as_u16(), &problem.error);
            warn!(peer, path, status, reason, unlogged, "admin request refused");
        }
        problem
    }
}
