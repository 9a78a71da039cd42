//! The admin listener: HTTP for operators, on a port of its own, apart from messages. It answers health probes and
//! metrics, lists plugins and connections, deploys plugins and rolls them back, closes connections, and drains the
//! gateway. And it serves the dashboard.
//!
//! | file | what |
//! | --- | --- |
//! | `guard`, `visitor` | who may ask, and for how long |
//! | `login`, `sessions` | the sessions of the dashboard |
//! | `page` | the files of the dashboard |
//! | `streams`, `follow`, `trace` | answers that go on: what happens, the log, and the life of one client |
//! | `log_level` | how much the log says |
//! | `try_it`, `trials` | WebSocket clients and pushes of operators |
//! | `plugins`, `connections`, `drain` | the requests |
//! | `others`, `informant` | what this gateway asks the others of its cluster, and what it answers them |
//! | `overview`, `cluster` | the gateways of the cluster |
//! | `metrics`, `exposition` | all metrics, in the format of Prometheus |
//! | `status` | everything on one page |
//! | `history` | the counters of the last minutes |

mod cluster;
mod connections;
mod drain;
mod exposition;
mod follow;
mod guard;
mod history;
mod informant;
mod listed;
mod log_level;
mod login;
mod metrics;
mod others;
mod overview;
mod page;
mod plugin_metrics;
mod plugins;
mod process_metrics;
mod sessions;
mod shared;
mod status;
mod streams;
mod trace;
mod trials;
mod try_it;
mod visitor;

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use axum::extract::State;
use axum::routing::{delete, get, post, put};
use axum::{Json, Router, middleware};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use self::guard::guard;
use self::history::History;
use self::informant::Answers;
use self::sessions::Sessions;
use self::shared::{AdminTokens, HEALTH, PAGE, READINESS, SESSION, Shared};
pub use self::shared::{ListenerStatus, Served};
use self::trials::Trials;
use crate::base::state::StateFolder;
use crate::base::throttle::Throttle;
use crate::base::trace::show_payloads;
use crate::config::AdminConfig;
use crate::edge::http::bounded::BoundedListener;
use crate::edge::http::problem::Problem;
use crate::edge::http::server::Server;
use crate::edge::listener::Listener;
use crate::edge::tls::Tls;

/// Refused requests that are logged: in a second, and at once. Anybody may send many such requests.
const REFUSALS_PER_SECOND: u32 = 1;
const REFUSALS_AT_ONCE: u32 = 1;

/// The most connections at a time.
const MAX_CONNECTIONS: usize = 64;

/// The admin listener. Dropping it stops it.
#[derive(Debug)]
pub struct Admin {
    shared: Arc<Shared>,
    server: Server,
    /// Takes the samples of the history, and ends levels of the log.
    _sampling: AbortOnDropHandle<()>,
}

impl Admin {
    /// Starts the listener. Until [`serve`](Self::serve) is called, it answers that the gateway is starting. Without a
    /// private place for the tokens it refuses operators, but still answers probes of supervisors.
    ///
    /// # Errors
    /// If the process ends meanwhile.
    pub(crate) async fn start(
        config: &AdminConfig,
        state: Arc<StateFolder>,
        listener: Listener,
        tls: Option<Arc<Tls>>,
    ) -> anyhow::Result<Self> {
        let tokens = match spawn_blocking(move || AdminTokens::create(&state)).await? {
            Ok(tokens) => Some(tokens),
            Err(error) => {
                warn!(%error, "no admin token: the admin listener answers health probes only");
                None
            }
        };
        show_payloads(config.trace_payloads);
        let shared = Arc::new(Shared {
            tokens,
            allowed_hosts: config.allowed_hosts.clone(),
            refusals: Throttle::new(REFUSALS_PER_SECOND, REFUSALS_AT_ONCE),
            has_dashboard: config.dashboard,
            has_trace: config.trace,
            sessions: Sessions::default(),
            started: SystemTime::now(),
            history: History::new(),
            streams: Arc::new(Semaphore::new(streams::MOST)),
            streams_of_readers: Arc::new(Semaphore::new(streams::MOST_OF_READERS)),
            stopping: CancellationToken::new(),
            trials: Trials::default(),
            served: OnceLock::new(),
            deploying: Semaphore::new(1),
        });
        if let Some(address) = config.listener.public_address().filter(|_| tls.is_none()) {
            warn!(%address, "the admin listener speaks plain HTTP: others on the network can read its token");
        }
        let server = Server::start(BoundedListener::new(listener, tls, MAX_CONNECTIONS), router(&shared));
        let sampled = shared.clone();
        let sampling = tokio::spawn(async move {
            tokio::select! {
                never = sampled.history.run(|| sampled.gauges()) => match never {},
                never = log_level::expire() => match never {},
            }
        });
        Ok(Self { shared, server, _sampling: AbortOnDropHandle::new(sampling) })
    }

    /// Gives the listener the parts of the gateway, which now serves.
    pub fn serve(&self, served: Served) {
        if let Some(cluster) = served.registry.cluster() {
            cluster.questions.answer_by(Box::new(Answers(Arc::downgrade(&self.shared))));
        }
        // Only a second call would fail, and each listener has one gateway.
        let _ = self.shared.served.set(served);
    }

    /// Stops the listener when the current answers are written, and at `end` at the latest.
    pub async fn stop(self, end: Instant) {
        self.shared.stopping.cancel();
        self.server.stop(end).await;
    }
}

fn router(shared: &Arc<Shared>) -> Router {
    Router::new()
        .route(HEALTH, get(|| async { Json(json!({ "status": "ok" })) }))
        .route(READINESS, get(ready))
        .route(PAGE, get(page::show))
        .route("/assets/{*file}", get(page::show))
        .route("/codes", post(login::make_code))
        .route(SESSION, post(login::open).get(login::show).delete(login::close))
        .route("/events", get(follow::events))
        .route("/log", get(follow::log))
        .route("/trace", get(trace::show))
        .route("/log-level", get(log_level::show).put(log_level::set))
        .route("/try", post(try_it::open))
        .route("/try/push", post(try_it::push_text))
        .route("/try/{client}", post(try_it::send).delete(try_it::close))
        .route("/metrics", get(metrics::show))
        .route("/status", get(status::show))
        .route("/cluster", get(overview::show))
        .route("/plugins", get(plugins::list))
        .route("/plugins/{slot}", put(plugins::deploy))
        .route("/plugins/{slot}/rollback", post(plugins::rollback))
        .route("/plugins/{slot}/promote", post(plugins::promote))
        .route("/plugins/{slot}/reload", post(plugins::reload))
        .route("/drain", get(drain::show).post(drain::start).delete(drain::cancel))
        .route("/connections", get(connections::list).delete(connections::close_uid))
        .route("/connections/{id}", delete(connections::close))
        .fallback(|| async { Problem::no_such_path() })
        .method_not_allowed_fallback(|| async { Problem::wrong_method() })
        .layer(middleware::from_fn_with_state(shared.clone(), guard))
        .with_state(shared.clone())
}

async fn ready(State(shared): State<Arc<Shared>>) -> Result<Json<Value>, Problem> {
    match shared.served()?.drain.is_ready() {
        true => Ok(Json(json!({ "status": "ready" }))),
        false => Err(Problem::draining()),
    }
}
