//! Binds the listeners, starts the tasks, and drains on shutdown.

mod reload;
mod tasks;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal::unix::Signal;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use self::reload::Reload;
use self::tasks::Tasks;
use crate::base::metrics::METRICS;
use crate::base::state::{InUse, StateFolder};
use crate::config::{Config, Loaded, Source};
use crate::edge::admin::{self, Admin};
use crate::edge::api::{self, Api};
use crate::edge::heartbeat::{self, Heartbeat};
use crate::edge::listener::{accept, listen};
use crate::edge::text;
use crate::edge::websocket::{self, Admission, InboxBudget};
use crate::hub::outbox::Budget;
use crate::hub::registry::Registry;
use crate::policy::Policy;
use crate::policy::status::{GenerationStatus, PluginStatus};

/// How long a process that ends waits until its files are written.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Why the gateway cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The gateway cannot listen on a port.
    #[error("{0:#}")]
    Listen(anyhow::Error),
    /// A plugin cannot be used.
    #[error("{0:#}")]
    Plugin(anyhow::Error),
    /// Another gateway uses the state folder.
    #[error(transparent)]
    InUse(#[from] InUse),
}

/// A gateway that is ready to serve.
pub struct Gateway {
    config: Config,
    websocket: TcpListener,
    text: TcpListener,
    admin: Option<Admin>,
    api: Option<Api>,
    registry: Arc<Registry>,
    policy: Arc<Policy>,
}

impl Gateway {
    /// Binds the ports, loads the plugins, and logs both.
    ///
    /// # Errors
    /// If a port is in use, another gateway uses the state folder, or a plugin cannot be used and no earlier component
    /// of it has proven itself.
    pub async fn start(loaded: Loaded) -> Result<Self, StartError> {
        let config = &loaded.config;
        let websocket = listen(config.websocket.listen, "websocket.listen").map_err(StartError::Listen)?;
        // Accepted connections inherit this option.
        let _ = SockRef::from(&websocket).set_tcp_keepalive(&heartbeat::keepalive(&config.heartbeat));
        let text = listen(config.text.listen, "text.listen").map_err(StartError::Listen)?;
        let registry = Arc::new(Registry::new(config.sessions.duplicate_login));
        let mut state = StateFolder::open(config.state_folder.as_deref());
        state.lock()?;
        let state = Arc::new(state);
        if let Some(problem) = state.problem() {
            warn!(problem, "no state folder: nothing is kept for the next start");
        }
        let admin = admin(config, state.clone()).await?;
        let api = api(&loaded, state.clone()).await?;
        let policy = Policy::load(&loaded, registry.clone(), state).await.map_err(StartError::Plugin)?;
        for plugin in policy.plugins() {
            let PluginStatus { slot, plugin, source, live: GenerationStatus { generation, digest, .. }, .. } = plugin;
            let digest = &digest[..12];
            info!(slot, plugin, generation, %digest, source, "plugin live");
        }
        for (listener, socket) in [("websocket", &websocket), ("text", &text)] {
            let address = socket.local_addr().map_err(|error| StartError::Listen(error.into()))?;
            info!(listener, %address, "listening");
        }
        if let Some(address) = admin.as_ref().map(Admin::address) {
            info!(listener = "admin", %address, "listening");
        }
        if let Some(api) = &api {
            let (address, file) = (api.address(), api.token_file());
            info!(listener = "api", %address, token = file.map(|file| file.display().to_string()), "listening");
        }
        Ok(Self { config: loaded.config, websocket, text, admin, api, registry, policy: Arc::new(policy) })
    }

    /// Serves until `stop` is done. Meanwhile reads the configuration in `source` again when it changes and on
    /// `hangup`. Then closes all connections, for at most `shutdown_grace`.
    pub async fn run(self, source: Source, hangup: Signal, stop: impl Future<Output = ()>) {
        let Self { config, websocket, text, admin, api, registry, policy } = self;
        let plugins = policy.clone();
        let tasks = Tasks::default();
        let heartbeat = Arc::new(Heartbeat::new(config.heartbeat.clone()));

        let inbox = Arc::new(InboxBudget::new(config.inbox.total_bytes));
        let admission = Arc::new(Admission::new(config.limits.clone()));
        let budget = Arc::new(Budget::new(config.outbox.total_bytes, config.limits.connections));
        let clients = websocket::Acceptor::new(
            Arc::new(websocket::Context {
                config: config.websocket.clone(),
                shutdown_grace: config.shutdown_grace,
                route_failure: config.router.route_failure,
                policy: policy.clone(),
                registry: registry.clone(),
                inbox: inbox.clone(),
            }),
            admission.clone(),
            heartbeat.clone(),
            config.outbox.max_bytes,
            budget.clone(),
        );
        if let Some(admin) = &admin {
            admin.serve(admin::Served { policy: policy.clone(), registry: registry.clone(), admission, budget, inbox });
        }
        if let Some(api) = &api {
            api.serve(api::Served { policy: policy.clone(), registry: registry.clone() });
        }
        let context = Arc::new(text::Context::new(config.text.clone(), policy, registry));
        let senders = text::Acceptor::new(context, config.limits.text_connections, tasks.shutdown.clone());

        tasks.listeners.spawn(accept("websocket", websocket, tasks.stop_accepting.clone(), {
            let connections = tasks.connections.clone();
            move |stream, peer| clients.admit(&connections, stream, peer)
        }));
        tasks.listeners.spawn(accept("text", text, tasks.stop_accepting.clone(), {
            let connections = tasks.connections.clone();
            move |stream, peer| senders.admit(&connections, stream, peer)
        }));
        tasks.beat(heartbeat);

        let mut reloading = JoinSet::new();
        let tokens = api.as_ref().map(Api::tokens);
        reloading.spawn(Reload::new(source, hangup, plugins.clone(), tokens, config.clone()).run());

        stop.await;
        let end = Instant::now() + config.shutdown_grace;
        drop(reloading);
        info!(connections = tasks.connections.len().saturating_sub(1), grace = ?config.shutdown_grace, "shutting down");
        if let Some(admin) = &admin {
            admin.drain();
        }
        if let Some(api) = &api {
            api.drain();
        }
        tasks.drain(end).await;
        if let Some(api) = api {
            api.stop(end).await;
        }
        if let Some(admin) = admin {
            admin.stop(end).await;
        }
        // This also saves a rollback that happened a moment ago.
        let _ = timeout(LAST_WORDS, plugins.save()).await;
        let counted = METRICS.all().map(|(name, _, count)| format!("{name}={count}"));
        let counted = counted.filter(|text| !text.ends_with("=0")).collect::<Vec<_>>().join(" ");
        info!(counted, "stopped");
    }
}

/// Starts the admin listener, if it is enabled.
async fn admin(config: &Config, state: Arc<StateFolder>) -> Result<Option<Admin>, StartError> {
    if !config.admin.enabled {
        return Ok(None);
    }
    let listener = listen(config.admin.listen, "admin.listen").map_err(StartError::Listen)?;
    Admin::start(&config.admin, state, listener).await.map(Some).map_err(StartError::Listen)
}

/// Starts the API's listener, if it is enabled. If the configuration does not name it, the gateway also serves without
/// it.
async fn api(loaded: &Loaded, state: Arc<StateFolder>) -> Result<Option<Api>, StartError> {
    let config = &loaded.config.api;
    if !config.enabled {
        return Ok(None);
    }
    let start = async { Api::start(config, state, listen(config.listen, "api.listen")?).await };
    match start.await {
        Ok(api) => Ok(Some(api)),
        Err(error) if loaded.names_api => Err(StartError::Listen(error)),
        Err(error) => {
            warn!(error = format!("{error:#}"), "no HTTP push API; the gateway serves without it");
            Ok(None)
        }
    }
}
