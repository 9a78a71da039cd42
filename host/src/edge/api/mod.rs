//! The HTTP push API: internal systems push messages by HTTP, on a port of its own.
//!
//! | file | what |
//! | --- | --- |
//! | `guard` | who may ask, and for how long |
//! | `store`, `tokens` | the tokens, and what each allows |
//! | `caller` | the sender of a request, for the code that answers it |
//! | `push`, `batch`, `stream` | requests that send messages |
//! | `item`, `target`, `body` | a message and its recipients, as requests contain them |
//! | `publish` | sends one message: permission, ruling, delivery, result |
//! | `idempotency` | the answers to requests that may come twice |
//! | `presence`, `connections`, `events` | who is connected, and changes of that |

mod batch;
mod body;
mod caller;
mod connections;
mod events;
mod guard;
mod idempotency;
mod item;
mod presence;
mod publish;
mod push;
mod shared;
mod store;
mod stream;
mod target;
mod tokens;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use axum::extract::Request;
use axum::http::Method;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Router, middleware};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use self::body::Room;
use self::guard::guard;
use self::idempotency::Idempotency;
pub use self::shared::Served;
use self::shared::Shared;
pub use self::store::TokenStore;
use crate::base::metrics::METRICS;
use crate::base::state::StateFolder;
use crate::base::throttle::Throttle;
use crate::config::ApiConfig;
use crate::edge::http::bounded::BoundedListener;
use crate::edge::http::problem::Problem;
use crate::edge::http::server::Server;
use crate::edge::listener::Listener;
use crate::edge::tls::Tls;

/// Refused requests that are logged: in a second, and at once. Anybody may send many such requests.
const REFUSALS_PER_SECOND: u32 = 1;
const REFUSALS_AT_ONCE: u32 = 1;

/// Messages to a group or to everyone that are sent at a time. Each of them may take long.
const BROADCASTS: usize = 2;

/// `routes! { method "path" => handler, … }` defines the routes of the API, and lists them for tests and metrics.
macro_rules! routes {
    ($($method:ident $path:literal => $handler:expr,)*) => {
        /// The method of each route, in lower case, and its path.
        #[cfg(test)]
        const ROUTES: &[(&str, &str)] = &[$((stringify!($method), $path),)*];

        /// Returns the name of a request's route in the metrics.
        fn route_name(method: &Method, path: &str) -> &'static str {
            $(if path == $path && method.as_str().eq_ignore_ascii_case(stringify!($method)) {
                return concat!(stringify!($method), " ", $path);
            })*
            "other"
        }

        fn routes() -> Router<Arc<Shared>> {
            Router::new()$(.route($path, axum::routing::$method($handler)))*
        }
    };
}

routes! {
    post "/v1/push" => push::push,
    post "/v1/line" => push::line,
    post "/v1/batch" => batch::batch,
    post "/v1/stream" => stream::stream,
    get "/v1/online" => presence::online,
    get "/v1/members" => presence::members,
    put "/v1/membership" => presence::join,
    delete "/v1/membership" => presence::leave,
    delete "/v1/connections" => connections::close,
    get "/v1/blocks" => connections::blocks,
    delete "/v1/blocks" => connections::lift,
    get "/v1/events" => events::events,
    get "/openapi.json" => document,
}

/// Counts a request once its answer begins.
async fn count(request: Request, next: Next) -> Response {
    let route = route_name(request.method(), request.uri().path());
    let response = next.run(request).await;
    METRICS.api_requests.increment(route, response.status().as_u16());
    response
}

/// Returns the document that describes the API.
async fn document() -> impl IntoResponse {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], include_str!("../../../openapi.json"))
}

/// The API's listener. Dropping it stops it.
#[derive(Debug)]
pub struct Api {
    shared: Arc<Shared>,
    server: Server,
}

impl Api {
    /// Starts the listener. Until [`serve`](Self::serve) is called, it answers that the gateway is starting.
    ///
    /// # Errors
    /// If there is neither a token in the configuration nor a private place for one.
    pub(crate) async fn start(
        config: &ApiConfig,
        state: Arc<StateFolder>,
        listener: Listener,
        tls: Option<Arc<Tls>>,
    ) -> anyhow::Result<Self> {
        let configured = config.tokens.clone();
        let tokens = spawn_blocking(move || TokenStore::load(configured, state)).await?;
        let tokens = tokens.context("the HTTP push API has no token: add an [[api.token]]")?;
        let shared = Arc::new(Shared {
            config: config.clone(),
            tokens: Arc::new(tokens),
            refusals: Throttle::new(REFUSALS_PER_SECOND, REFUSALS_AT_ONCE),
            served: OnceLock::new(),
            room: Room::new(config.in_flight),
            broadcasts: Arc::new(Semaphore::new(BROADCASTS)),
            idempotency: Idempotency::new(config.idempotency_window, config.idempotency_entries),
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
        });
        let routes = routes()
            .fallback(|| async { Problem::no_such_path() })
            .method_not_allowed_fallback(|| async { Problem::wrong_method() })
            .layer(middleware::from_fn_with_state(shared.clone(), guard))
            .layer(middleware::from_fn(count))
            .with_state(shared.clone());
        if let Some(address) = config.listener.public_address().filter(|_| tls.is_none()) {
            warn!(%address, "the API speaks plain HTTP: others on the network can read tokens and messages");
        }
        let server = Server::start(BoundedListener::new(listener, tls, config.connections), routes);
        Ok(Self { shared, server })
    }

    /// Returns the file with the only token, if no token is configured.
    pub fn token_file(&self) -> Option<PathBuf> {
        self.shared.tokens.file().filter(|_| self.shared.config.tokens.is_empty())
    }

    /// Returns the tokens, to change them while the gateway runs.
    pub fn tokens(&self) -> Arc<TokenStore> {
        self.shared.tokens.clone()
    }

    /// Gives the listener the parts of the gateway, which now serves.
    pub fn serve(&self, served: Served) {
        // Only a second call would fail, and each listener has one gateway.
        let _ = self.shared.served.set(served);
    }

    /// Refuses requests from now on, and ends streams: the gateway drains.
    pub fn drain(&self) {
        self.shared.draining.cancel();
    }

    /// Stops the listener when the current answers are written, and at `end` at the latest.
    pub async fn stop(self, end: Instant) {
        self.server.stop(end).await;
        self.shared.tasks.close();
        let _ = timeout_at(end, self.shared.tasks.wait()).await;
    }
}

#[cfg(test)]
mod tests;
