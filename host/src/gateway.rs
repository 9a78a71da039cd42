//! Binds the listeners, owns the tasks, and drains on shutdown.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::Signal;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::admin::{Admin, Served};
use crate::config::{Config, Loaded, Source};
use crate::connection::{self, Admission, InboxBudget, is_trusted};
use crate::heartbeat::{self, Heartbeat};
use crate::message::{CloseReason, ConnectionId};
use crate::metrics::METRICS;
use crate::outbox::{Budget, Outbox};
use crate::policy::Policy;
use crate::policy::status::{GenerationStatus, PluginStatus};
use crate::registry::Registry;
use crate::reload::Reload;
use crate::state::{InUse, StateFolder};
use crate::text_port;

/// Connections that may wait to be accepted: enough for everybody to come back at once.
const BACKLOG: i32 = 4096;
/// How long to pause when the process or the machine is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections past a limit that are told so at the same time; further ones are dropped.
const MAX_REFUSING: usize = 256;
/// After how much silence a sender's TCP connection is probed, so that dead ones do not stay for ever.
const SENDER_KEEPALIVE: Duration = Duration::from_secs(60);

/// How long an ending process waits for its files.
const LAST_WORDS: Duration = Duration::from_secs(2);

const GOING_AWAY: CloseReason = CloseReason::new(1001, "the gateway shuts down");

/// Why the gateway cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A port cannot be listened on.
    #[error("{0:#}")]
    Listen(anyhow::Error),
    /// A plugin cannot be used.
    #[error("{0:#}")]
    Plugin(anyhow::Error),
    /// Another gateway has the state folder.
    #[error(transparent)]
    InUse(#[from] InUse),
}

/// A gateway that is ready to serve.
pub struct Gateway {
    config: Config,
    websocket: TcpListener,
    text: TcpListener,
    admin: Option<Admin>,
    registry: Arc<Registry>,
    policy: Arc<Policy>,
}

impl Gateway {
    /// Binds the ports and loads the plugins. The first lines of the log tell about them.
    ///
    /// # Errors
    /// When a port is taken, another gateway has the state folder, or a plugin cannot be used and nothing has proven itself in its place.
    pub async fn start(loaded: Loaded) -> Result<Self, StartError> {
        let config = &loaded.config;
        let websocket = listen(config.websocket.listen, "websocket.listen").map_err(StartError::Listen)?;
        // Accepted connections inherit it.
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
        if let Some(Admin { address, .. }) = admin {
            info!(listener = "admin", %address, "listening");
        }
        Ok(Self { config: loaded.config, websocket, text, admin, registry, policy: Arc::new(policy) })
    }

    /// Serves until `stop` is done, reading the configuration from `source` again when it changes and on `hangup`, then says goodbye to everybody, for at most `shutdown_grace`.
    pub async fn run(self, source: Source, hangup: Signal, stop: impl Future<Output = ()>) {
        let Self { config, websocket, text, admin, registry, policy } = self;
        let plugins = policy.clone();
        let shutdown = CancellationToken::new();
        let tasks = TaskTracker::new();
        let heartbeat = Arc::new(Heartbeat::new(config.heartbeat.clone()));

        let inbox = Arc::new(InboxBudget::new(config.inbox.total_bytes));
        let edge = WebSocketEdge {
            context: Arc::new(connection::Context {
                config: config.websocket.clone(),
                shutdown_grace: config.shutdown_grace,
                route_failure: config.router.route_failure,
                policy: policy.clone(),
                registry: registry.clone(),
                inbox: inbox.clone(),
            }),
            admission: Arc::new(Admission::new(config.limits.clone())),
            refusing: Arc::new(Semaphore::new(MAX_REFUSING)),
            heartbeat: heartbeat.clone(),
            max_outbox: config.outbox.max_bytes,
            budget: Arc::new(Budget::new(config.outbox.total_bytes, config.limits.connections)),
        };
        if let Some(admin) = &admin {
            let (admission, budget) = (edge.admission.clone(), edge.budget.clone());
            admin.serve(Served { policy: policy.clone(), registry: registry.clone(), admission, budget, inbox });
        }
        let senders = TextEdge {
            context: Arc::new(text_port::Context::new(config.text.clone(), policy, registry)),
            places: Arc::new(Semaphore::new(config.limits.text_connections)),
            shutdown: shutdown.clone(),
        };

        let accepting = CancellationToken::new();
        let listeners = TaskTracker::new();
        listeners.spawn(accept("websocket", websocket, accepting.clone(), {
            let tasks = tasks.clone();
            move |stream, peer| edge.admit(&tasks, stream, peer)
        }));
        listeners.spawn(accept("text", text, accepting.clone(), {
            let tasks = tasks.clone();
            move |stream, peer| senders.admit(&tasks, stream, peer)
        }));
        tasks.spawn({
            let shutdown = shutdown.clone();
            async move { heartbeat.run(shutdown, GOING_AWAY).await }
        });

        let mut reloading = JoinSet::new();
        reloading.spawn(Reload::new(source, hangup, plugins.clone(), config.clone()).run());

        stop.await;
        let end = Instant::now() + config.shutdown_grace;
        drop(reloading);
        info!(connections = tasks.len().saturating_sub(1), grace = ?config.shutdown_grace, "shutting down");
        if let Some(admin) = &admin {
            admin.drain();
        }
        // Nobody is accepted any more once all are asked to close: none is missed.
        accepting.cancel();
        listeners.close();
        listeners.wait().await;
        shutdown.cancel();
        tasks.close();
        if timeout_at(end, tasks.wait()).await.is_err() {
            warn!(connections = tasks.len(), "cut off: not closed in time (shutdown_grace)");
        }
        if let Some(admin) = admin {
            admin.stop(end).await;
        }
        // Also what was rolled back by itself a moment ago.
        let _ = timeout(LAST_WORDS, plugins.save()).await;
        let counted = METRICS.all().map(|(name, _, count)| format!("{name}={count}"));
        let counted = counted.filter(|text| !text.ends_with("=0")).collect::<Vec<_>>().join(" ");
        info!(counted, "stopped");
    }
}

/// The admin listener, if there is to be one.
async fn admin(config: &Config, state: Arc<StateFolder>) -> Result<Option<Admin>, StartError> {
    if !config.admin.enabled {
        return Ok(None);
    }
    let listener = listen(config.admin.listen, "admin.listen").map_err(StartError::Listen)?;
    Admin::start(&config.admin, state, listener).await.map(Some).map_err(StartError::Listen)
}

/// Accepts connections until told to stop. Errors of one connection concern nobody else, and shortages pass.
async fn accept(
    name: &'static str,
    listener: TcpListener,
    stop: CancellationToken,
    mut admit: impl FnMut(TcpStream, SocketAddr),
) {
    let mut short_of = None;
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                if short_of.take().is_some() {
                    info!(listener = name, "accepting again");
                }
                admit(stream, peer);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if short_of.replace(error.kind()) != Some(error.kind()) {
                    error!(listener = name, %error, "cannot accept; trying again");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// What the WebSocket port needs to take in a connection.
struct WebSocketEdge {
    context: Arc<connection::Context>,
    admission: Arc<Admission>,
    refusing: Arc<Semaphore>,
    heartbeat: Arc<Heartbeat>,
    max_outbox: usize,
    budget: Arc<Budget>,
}

impl WebSocketEdge {
    fn admit(&self, tasks: &TaskTracker, stream: TcpStream, peer: SocketAddr) {
        METRICS.connections_accepted.increment();
        let proxy = is_trusted(&self.context.config.trusted_proxies, peer.ip());
        let permit = self.admission.admit((!proxy).then_some(peer.ip()));
        let refusing = match &permit {
            Ok(_) => None,
            Err(_) => match self.refusing.clone().try_acquire_owned() {
                Ok(place) => Some(place),
                Err(_) => {
                    METRICS.handshakes_refused.increment();
                    return;
                }
            },
        };
        let _ = stream.set_nodelay(true);
        let outbox = Outbox::new(self.max_outbox, self.budget.clone());
        let link = self.heartbeat.watch(ConnectionId::next(), outbox);
        tasks.spawn(connection::serve(self.context.clone(), stream, peer, link, permit, refusing));
    }
}

/// What the text port needs to take in a sender.
struct TextEdge {
    context: Arc<text_port::Context>,
    places: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl TextEdge {
    fn admit(&self, tasks: &TaskTracker, stream: TcpStream, peer: SocketAddr) {
        if !text_port::is_allowed(&self.context.config.allow_from, peer.ip()) {
            METRICS.senders_refused.increment();
            self.context.refuse(peer, "text.allow_from does not list it");
            return;
        }
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            METRICS.senders_refused.increment();
            self.context.refuse(peer, "there are as many as limits.text_connections allows");
            return;
        };
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(SENDER_KEEPALIVE));
        let (context, shutdown) = (self.context.clone(), self.shutdown.clone());
        tasks.spawn(async move {
            text_port::serve(context, stream, peer, ConnectionId::next(), shutdown).await;
            drop(place);
        });
    }
}

fn listen(address: SocketAddr, key: &str) -> Result<TcpListener> {
    let bind = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    bind().with_context(|| format!("cannot listen on {address} ({key})"))
}
