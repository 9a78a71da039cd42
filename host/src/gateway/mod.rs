//! Binds the listeners, starts the tasks, and drains on shutdown.

mod connection_ids;
mod drains;
mod error;
mod incarnations;
mod listeners;
mod member;
mod reload;
mod supervisor;
mod tasks;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;
use tracing::{info, warn};

use self::drains::Drains;
pub use self::error::{Expelled, StartError};
use self::listeners::Listeners;
use self::member::{Candidate, LEAVING, Member};
use self::reload::{Parts, Reload};
use self::supervisor::Supervisor;
use self::tasks::Tasks;
use crate::base::metrics::METRICS;
use crate::base::notices::Notices;
use crate::base::state::StateFolder;
use crate::config::{Config, ListenerName, Loaded, Source};
use crate::edge::admin::{self, Admin, ListenerStatus};
use crate::edge::api::{self, Api};
use crate::edge::drain::{Drain, Ending};
use crate::edge::heartbeat::{self, Heartbeat};
use crate::edge::listener::{Inherited, Listener, accept};
use crate::edge::live::LiveConfig;
use crate::edge::pace::AcceptPace;
use crate::edge::text;
use crate::edge::tls::Certificates;
use crate::edge::websocket::{self, Admission, Entrance, InboxBudget, Rejections, TlsTurns};
use crate::hub::outbox::Budget;
use crate::hub::registry::Registry;
use crate::policy::Policy;
use crate::policy::status::{GenerationStatus, PluginStatus};

/// How long a process that ends waits until its files are written.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Time beyond a drain that the supervisor is asked for.
const MARGIN: Duration = Duration::from_secs(5);

/// A gateway that is ready to serve.
pub struct Gateway {
    config: Config,
    /// `None` if no clients connect to this gateway.
    websocket: Option<Listener>,
    text: Listener,
    admin: Option<Admin>,
    api: Option<Api>,
    certificates: Certificates,
    registry: Arc<Registry>,
    policy: Arc<Policy>,
    listeners: Vec<ListenerStatus>,
    notices: Arc<Notices>,
    supervisor: Supervisor,
    member: Option<Member>,
}

impl Gateway {
    /// Loads the certificates, opens the listeners, and loads the plugins. A listener with sockets in `inherited` uses
    /// these.
    ///
    /// # Errors
    /// If a certificate cannot be used, an address is in use, another gateway uses the state folder, or a plugin cannot
    /// be used and no earlier component of it has proven itself.
    pub(crate) async fn start(loaded: Loaded, inherited: Inherited) -> Result<Self, StartError> {
        let config = &loaded.config;
        let notices = Arc::new(Notices::default());
        let supervisor = Supervisor::find();
        supervisor.status("Loading the plugins");
        let certificates = certificates(config).await.map_err(StartError::Tls)?;
        let mut listeners =
            Listeners { config, inherited, certificates: &certificates, notices: &notices, listening: Vec::new() };
        let mut state = StateFolder::open(config.state_folder.as_deref());
        // First: a gateway that is started twice must not touch the Unix sockets of the other process.
        state.lock()?;
        let websocket = match config.cluster.is_sender() {
            true => None,
            false => Some(listeners.open(ListenerName::WebSocket).await?),
        };
        if let Some(websocket) = &websocket {
            websocket.keep_alive(&heartbeat::keepalive(&config.heartbeat));
        }
        let text = listeners.open(ListenerName::Text).await?;
        let candidate = Candidate::new(&config.cluster, state.clone()).await?;
        let registry = Registry::new(config.sessions.duplicate_login);
        let registry = Arc::new(match &candidate {
            None => registry,
            Some(candidate) => registry.in_cluster(candidate.cluster.clone()),
        });
        let state = Arc::new(state);
        if let Some(problem) = state.problem() {
            warn!(problem, "no state folder: nothing is kept for the next start");
            notices.set("state_folder", vec![format!("nothing is kept for the next start: {problem}")]);
        }
        let admin = listeners.admin(state.clone()).await?;
        let api = listeners.api(loaded.names_api, state.clone()).await?;
        let policy = Policy::load(&loaded, registry.clone(), state).await.map_err(StartError::Plugin)?;
        for plugin in policy.plugins() {
            let PluginStatus { slot, plugin, source, live: GenerationStatus { generation, digest, .. }, .. } = plugin;
            let digest = &digest[..12];
            info!(slot, plugin, generation, %digest, source, "plugin live");
        }
        let member = match candidate {
            None => None,
            Some(candidate) => Some(candidate.join(config, registry.clone()).await?),
        };
        for listener in websocket.iter().chain([&text]) {
            listeners.remember(listener.name(), &listener.addresses());
        }
        if let Some((_, addresses)) = &admin {
            listeners.remember(ListenerName::Admin, addresses);
        }
        if let Some((_, addresses)) = &api {
            listeners.remember(ListenerName::Api, addresses);
        }
        listeners.warn_of_believing();
        let (admin, api) = (admin.map(|(admin, _)| admin), api.map(|(api, _)| api));
        let listeners = listeners.listening;
        Ok(Self {
            config: loaded.config,
            websocket,
            text,
            admin,
            api,
            certificates,
            registry,
            policy: Arc::new(policy),
            listeners,
            notices,
            supervisor,
            member,
        })
    }

    /// Serves until `stop` says how to end. Meanwhile reads the configuration in `source` again when it changes and on
    /// `hangup`. Then closes all connections: those of clients first, over at most `drain.notice`, `drain.spread` and
    /// `shutdown_grace`. Senders are served until then.
    ///
    /// # Errors
    /// [`Expelled`] if the cluster ended it.
    pub async fn run(self, source: Source, hangup: Signal, stop: impl Future<Output = Ending>) -> Result<(), Expelled> {
        let Self {
            config,
            websocket,
            text,
            admin,
            api,
            certificates,
            registry,
            policy,
            listeners,
            notices,
            supervisor,
            mut member,
        } = self;
        let plugins = policy.clone();
        let mut tasks = Tasks::default();
        tasks.clients.is_inherited = websocket.as_ref().is_some_and(Listener::is_inherited);
        let drain = Arc::new(Drain::new(config.drain.clone(), tasks.clients.connections.clone()));
        let heartbeat = Heartbeat::new(config.heartbeat.clone()).with_max_age(config.websocket.max_age, &config.drain);
        let heartbeat = Arc::new(heartbeat);

        let live = Arc::new(LiveConfig::new(config.clone()));
        let inbox = Arc::new(InboxBudget::new(config.inbox.total_bytes));
        let admission = Arc::new(Admission::new(live.clone()));
        let budget = Arc::new(Budget::new(config.outbox.total_bytes, config.limits.connections));
        let entrance = websocket.as_ref().map(|_| {
            let acceptor = websocket::Acceptor::new(
                Arc::new(websocket::Context {
                    live: live.clone(),
                    rejections: Rejections::default(),
                    policy: policy.clone(),
                    registry: registry.clone(),
                    tls: certificates.of(ListenerName::WebSocket),
                    tls_turns: TlsTurns::new(live.clone()),
                    inbox: inbox.clone(),
                    drain: drain.clone(),
                }),
                admission.clone(),
                heartbeat.clone(),
                config.outbox.max_bytes,
                budget.clone(),
            );
            let (connections, refused) = (tasks.clients.connections.clone(), tasks.refused.clone());
            Arc::new(Entrance::new(acceptor, live.clone(), drain.clone(), connections, refused))
        });
        let tls = certificates.of(ListenerName::Text);
        let senders = Arc::new(text::Context::new(live.clone(), policy.clone(), registry.clone(), tls));
        let pace = AcceptPace::new(live.clone());
        let parts = Parts {
            policy: policy.clone(),
            tokens: api.as_ref().map(Api::tokens),
            certificates: certificates.clone(),
            live: live.clone(),
            budget: budget.clone(),
        };
        if let Some(admin) = &admin {
            admin.serve(admin::Served {
                policy: policy.clone(),
                registry: registry.clone(),
                certificates: certificates.clone(),
                admission: admission.clone(),
                budget,
                inbox,
                drain: drain.clone(),
                listeners: listeners.clone(),
                notices: notices.clone(),
                entrance: entrance.clone(),
                senders: senders.clone(),
            });
        }
        if let Some(api) = &api {
            api.serve(api::Served { policy, registry: registry.clone() });
        }
        let cluster = registry.cluster().cloned();
        let senders = text::Acceptor::new(senders, tasks.shutdown.clone());

        if let Some((websocket, entrance)) = websocket.zip(entrance) {
            let stop = tasks.clients.stop.clone();
            let admit = move |stream, remote| entrance.admit(stream, remote);
            tasks.clients.listener.spawn(accept(websocket, stop, async move || pace.wait().await, admit));
        }
        tasks.senders.listener.spawn(accept(text, tasks.senders.stop.clone(), async || (), {
            let connections = tasks.senders.connections.clone();
            move |stream, remote| senders.admit(&connections, stream, remote)
        }));

        listeners::log(&listeners, api.as_ref().and_then(Api::token_file).as_deref());
        if admin.is_some() && config.admin.dashboard {
            info!("dashboard: run `hotgate dashboard` for an address to open in a browser");
        }

        let mut background = JoinSet::new();
        let beating = heartbeat.clone();
        background.spawn(async move { match beating.run().await {} });
        background.spawn(certificates.watch_expiry());
        background.spawn(Reload::new(source, hangup, parts, notices, supervisor.clone()).run());
        supervisor.ready();
        background.spawn(supervisor.clone().report(move || admission.connections()));

        let grace = config.shutdown_grace;
        let drains = Drains { drain: drain.clone(), heartbeat, tasks: &tasks, cluster, grace };
        let stopping = async {
            let expelled = async {
                match &mut member {
                    None => std::future::pending().await,
                    Some(member) => member.expelled().await,
                }
            };
            let (ending, result) = tokio::select! {
                ending = stop => (ending, Ok(())),
                () = expelled => (Ending::Drained, Err(Expelled)),
            };
            let last = LAST_WORDS.max(LEAVING) + MARGIN;
            supervisor.stopping();
            supervisor.extend_timeout(config.drain.notice + config.drain.spread + config.shutdown_grace + last);
            drain.end(ending);
            result
        };
        let (end, result) = tokio::join!(drains.run(), stopping);
        drop(background);
        if let Some(api) = &api {
            api.drain();
        }
        tasks.finish(end).await;
        if let Some(api) = api {
            api.stop(end).await;
        }
        if let Some(admin) = admin {
            admin.stop(end).await;
        }
        let leave = async {
            if let Some(member) = member {
                member.leave().await;
            }
        };
        // This also saves a rollback that happened a moment ago.
        let (_, ()) = tokio::join!(timeout(LAST_WORDS, plugins.save()), leave);
        let counted = METRICS.all().map(|(name, _, count)| format!("{name}={count}"));
        let counted = counted.filter(|text| !text.ends_with("=0")).collect::<Vec<_>>().join(" ");
        info!(counted, "stopped");
        result
    }
}

/// Loads the certificates of all listeners.
async fn certificates(config: &Config) -> anyhow::Result<Certificates> {
    let config = config.clone();
    Ok(spawn_blocking(move || Certificates::load(&config)).await??)
}
