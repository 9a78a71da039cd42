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
mod shared;
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
pub use self::shared::Served;
use self::shared::{HEALTH, READINESS, Shared};
use self::token::Token;
use crate::base::state::StateFolder;
use crate::base::throttle::Throttle;
use crate::config::AdminConfig;

/// Refused requests that are logged in a second, and at once: they may come as fast as anybody likes.
const REFUSALS_PER_SECOND: u32 = 1;
const REFUSALS_AT_ONCE: u32 = 1;

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
