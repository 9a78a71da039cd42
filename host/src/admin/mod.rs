//! Where operators look and act: an HTTP listener of its own, off the way of messages. It answers health and metrics,
//! shows what serves and who is connected, brings plugins in and back, and closes connections.
//!
//! | file | what |
//! | --- | --- |
//! | `listener`, `guard`, [`token`] | who gets to ask, and for how long |
//! | `plugins`, `connections`, `query`, `problem` | what is shown and done, and what is answered when it cannot be |
//! | `metrics`, `exposition` | everything counted, as Prometheus reads it |

mod connections;
mod exposition;
mod guard;
mod listener;
mod metrics;
mod plugins;
mod problem;
mod query;
pub mod token;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{delete, get, post, put};
use axum::{Json, Router, middleware};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::guard::guard;
use self::listener::{Bounded, Peer};
use self::problem::Problem;
use self::token::Token;
use crate::config::AdminConfig;
use crate::connection::{Admission, InboxBudget};
use crate::outbox::Budget;
use crate::policy::Policy;
use crate::registry::Registry;
use crate::state::StateFolder;
use crate::throttle::Throttle;

/// Refused requests that are logged in a second, and at once: they may come as fast as anybody likes.
const REFUSALS_PER_SECOND: u32 = 1;
const REFUSALS_AT_ONCE: u32 = 1;

/// Asked by supervisors: whether the process is alive, and whether it serves.
const HEALTH: &str = "/healthz";
const READINESS: &str = "/readyz";

/// How long answers that are being written may take once the gateway has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The admin listener. Dropping it ends it.
#[derive(Debug)]
pub struct Admin {
    shared: Arc<Shared>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    /// Where it listens.
    pub address: SocketAddr,
}

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
struct Shared {
    /// None where there is no private place for it: then only health is answered.
    token: Option<Token>,
    allowed_hosts: Vec<String>,
    refusals: Throttle,
    started: SystemTime,
    /// Set once the gateway has started.
    served: OnceLock<Served>,
    draining: AtomicBool,
    /// One component is received at a time: they may be large.
    uploading: Semaphore,
}

impl Admin {
    /// Answers from now on: at first, that the gateway is starting. Without a private place for a token, operators are
    /// turned away; supervisors' probes are answered all the same.
    ///
    /// # Errors
    /// When the socket is none to listen on.
    pub async fn start(config: &AdminConfig, state: Arc<StateFolder>, listener: TcpListener) -> anyhow::Result<Self> {
        let token = match spawn_blocking(move || Token::create(&state)).await? {
            Ok(token) => Some(token),
            Err(error) => {
                warn!(%error, "no admin token: the admin listener answers health probes only");
                None
            }
        };
        let shared = Arc::new(Shared {
            token,
            allowed_hosts: config.allowed_hosts.clone(),
            refusals: Throttle::new(REFUSALS_PER_SECOND, REFUSALS_AT_ONCE),
            started: SystemTime::now(),
            served: OnceLock::new(),
            draining: AtomicBool::new(false),
            uploading: Semaphore::new(1),
        });
        let address = listener.local_addr()?;
        if !address.ip().to_canonical().is_loopback() {
            warn!(%address, "the admin listener speaks plain HTTP: its token can be read on the way");
        }
        let service = router(&shared).into_make_service_with_connect_info::<Peer>();
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let task = tokio::spawn(async move {
            // Never fails, says its documentation.
            let _ = axum::serve(Bounded::new(listener), service).with_graceful_shutdown(stopped).await;
        });
        Ok(Self { shared, stop, task, address })
    }

    /// The gateway serves.
    pub fn serve(&self, served: Served) {
        // There is one gateway to a listener.
        let _ = self.shared.served.set(served);
    }

    /// The gateway takes in nobody any more.
    pub fn drain(&self) {
        self.shared.draining.store(true, Relaxed);
    }

    /// Ends it once the answers that are being given have been given, and in time.
    pub async fn stop(mut self, end: Instant) {
        self.stop.cancel();
        let _ = timeout_at(end.min(Instant::now() + LAST_WORDS), &mut self.task).await;
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn served(&self) -> Result<&Served, Problem> {
        self.served.get().ok_or_else(|| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the gateway is starting"))
    }
}

fn router(shared: &Arc<Shared>) -> Router {
    let unknown = || async { Problem::new(StatusCode::NOT_FOUND, "there is nothing here") };
    let wrong_method = || async { Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this method is not possible here") };
    Router::new()
        .route(HEALTH, get(|| async { Json(json!({ "status": "ok" })) }))
        .route(READINESS, get(ready))
        .route("/metrics", get(metrics::show))
        .route("/plugins", get(plugins::list))
        .route("/plugins/{slot}", put(plugins::deploy))
        .route("/plugins/{slot}/rollback", post(plugins::rollback))
        .route("/plugins/{slot}/promote", post(plugins::promote))
        .route("/plugins/{slot}/reload", post(plugins::reload))
        .route("/connections", get(connections::list).delete(connections::close_uid))
        .route("/connections/{id}", delete(connections::close))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(shared.clone(), guard))
        .with_state(shared.clone())
}

async fn ready(State(shared): State<Arc<Shared>>) -> Result<Json<Value>, Problem> {
    shared.served()?;
    if shared.draining.load(Relaxed) {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the gateway shuts down"));
    }
    Ok(Json(json!({ "status": "ready" })))
}
