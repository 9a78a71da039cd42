//! What all requests to the admin listener share.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use axum::http::StatusCode;
use tokio::sync::Semaphore;

use super::problem::Problem;
use super::token::Token;
use crate::base::throttle::Throttle;
use crate::edge::websocket::{Admission, InboxBudget};
use crate::hub::outbox::Budget;
use crate::hub::registry::Registry;
use crate::policy::Policy;

/// Asked by supervisors: whether the process is alive, and whether it serves.
pub(super) const HEALTH: &str = "/healthz";
pub(super) const READINESS: &str = "/readyz";

/// What is shown and acted on.
#[derive(Debug)]
pub struct Served {
    /// The plugins.
    pub policy: Arc<Policy>,
    /// Who is connected.
    pub registry: Arc<Registry>,
    /// How many are.
    pub admission: Arc<Admission>,
    /// What waits for them.
    pub budget: Arc<Budget>,
    /// What has arrived from them in part.
    pub inbox: Arc<InboxBudget>,
}

/// What requests share.
#[derive(Debug)]
pub(super) struct Shared {
    /// None where there is no private place for it: then only health is answered.
    pub(super) token: Option<Token>,
    pub(super) allowed_hosts: Vec<String>,
    pub(super) refusals: Throttle,
    pub(super) started: SystemTime,
    /// Set once the gateway has started.
    pub(super) served: OnceLock<Served>,
    pub(super) draining: AtomicBool,
    /// One component is received at a time: they may be large.
    pub(super) uploading: Semaphore,
}

impl Shared {
    pub(super) fn served(&self) -> Result<&Served, Problem> {
        self.served.get().ok_or_else(|| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the gateway is starting"))
    }
}
