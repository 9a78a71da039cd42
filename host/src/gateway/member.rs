//! This gateway's part in a cluster.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::connection_ids::ConnectionIds;
use super::{StartError, incarnations};
use crate::base::state::StateFolder;
use crate::config::{ClusterConfig, Config, WithoutNats, read_text};
use crate::hub::cluster::handle::Cluster;
use crate::hub::cluster::id::{Incarnation, NodeId};
use crate::hub::cluster::secret::Secret;
use crate::hub::cluster::{self, Fatal};
use crate::hub::exchange::Exchange;
use crate::hub::nats::{Bus, BusConfig, BusError, Events, Login, TlsFiles};
use crate::hub::registry::Registry;

/// The most bytes of commands that wait for the answers of other gateways.
const WINDOW: usize = 32 << 20;
/// How long a gateway that may serve alone waits for NATS before it does.
const FIRST_ATTEMPT: Duration = Duration::from_secs(3);
/// How long the other gateways may take to let this one in. It takes some 4 s, and longer the more uids they know.
const JOINING: Duration = Duration::from_secs(20);
/// How long leaving may take: the connection to NATS is closed after three of its ping intervals at the latest.
pub(super) const LEAVING: Duration = Duration::from_secs(5);
/// The longest secret, in bytes.
const LONGEST_SECRET: usize = 64 << 10;

/// A gateway that is about to join.
pub(super) struct Candidate {
    pub(super) cluster: Arc<Cluster>,
    incarnation: Incarnation,
    config: BusConfig,
    bus: Option<(Bus, Events)>,
    state: Arc<StateFolder>,
}

/// A gateway in a cluster.
pub(super) struct Member {
    task: JoinHandle<Result<(), Fatal>>,
    stop: CancellationToken,
    /// The task that reserves ids for connections. It ends with this.
    ids: JoinSet<()>,
}

impl Candidate {
    /// Connects to NATS. Returns `None` if this gateway belongs to no cluster.
    ///
    /// # Errors
    /// If the secret or a file cannot be read, or if NATS cannot be used, unless `cluster.without_nats` allows it.
    pub(super) async fn new(config: &ClusterConfig, state: StateFolder) -> Result<Option<Self>, StartError> {
        if !config.is_on() {
            return Ok(None);
        }
        let secret = secret(config.secret.clone()).await.map_err(StartError::Cluster)?;
        let secret = Secret::new(secret.as_bytes());
        let state = Arc::new(state);
        let of = state.clone();
        let incarnations = spawn_blocking(move || incarnations::next(&of)).await;
        let (incarnation, before) = incarnations.context("cluster").map_err(StartError::Cluster)?;
        let bus_config = bus_config(config);
        let bus = match Exchange::connect(&bus_config, incarnation).await {
            Ok(bus) => Some(bus),
            Err(error @ (BusError::Setting { .. } | BusError::File { .. })) => {
                return Err(StartError::Cluster(anyhow!(error).context("cluster")));
            }
            Err(error) if config.without_nats == WithoutNats::Refuse => {
                let is_transient = error.is_transient();
                let error = anyhow!(error).context("cluster.nats");
                return Err(if is_transient { StartError::Alone(error) } else { StartError::Cluster(error) });
            }
            Err(error) => {
                warn!(%error, "NATS cannot be used (cluster.nats); this gateway serves alone until it can");
                None
            }
        };
        // Connections get their ids now, so a gateway that serves alone cannot wait until it knows which node is free.
        let alone = bus.is_none().then(|| NodeId::from_low_bits(incarnation.0));
        let node = cluster::Config {
            node: config.node.and_then(NodeId::new).or(alone),
            incarnation,
            before,
            secret: secret.fingerprint(),
            timeout: config.timeout,
            confirm: config.confirm,
            window: WINDOW,
        };
        Ok(Some(Self { cluster: Arc::new(Cluster::new(node, secret)), incarnation, config: bus_config, bus, state }))
    }

    /// Joins the cluster: returns when all other gateways know this one, or when they have not let it in within
    /// [`JOINING`] and `cluster.without_nats` allows it to serve alone.
    ///
    /// # Errors
    /// Why this gateway cannot belong to the cluster.
    pub(super) async fn join(self, config: &Config, registry: Arc<Registry>) -> Result<Member, StartError> {
        let Self { cluster, incarnation, config: bus_config, bus, state } = self;
        let (opened, open) = oneshot::channel();
        let (stop, is_alone) = (CancellationToken::new(), bus.is_none());
        let duplicate_login = config.sessions.duplicate_login;
        let exchange = Exchange::new(registry, cluster.clone(), incarnation, bus_config, bus, duplicate_login, opened);
        let task = tokio::spawn(exchange.run(stop.clone()));
        let mut member = Member { task, stop, ids: JoinSet::new() };
        if !is_alone {
            info!("joining the cluster: this takes some seconds");
            tokio::select! {
                // The sender is dropped when the task ends, and then the task says why.
                Ok(()) = open => {}
                ended = &mut member.task => return Err(StartError::Cluster(match ended {
                    Ok(Err(fatal)) => anyhow!(fatal).context("cluster"),
                    ended => anyhow!("cluster: joining ended early: {ended:?}"),
                })),
                () = sleep(JOINING) => {
                    let problem = format!("the other gateways have not let this one in within {} s", JOINING.as_secs());
                    if config.cluster.without_nats == WithoutNats::Refuse {
                        member.leave().await;
                        return Err(StartError::Alone(anyhow!(problem).context("cluster")));
                    }
                    warn!("{problem}; it serves alone until they do");
                }
            }
        }
        cluster.keep_id();
        let ids = ConnectionIds::begin(cluster.id().get(), state).await;
        member.ids.spawn(ids.keep_ahead());
        Ok(member)
    }
}

impl Member {
    /// Returns when this gateway cannot belong to the cluster any longer.
    pub(super) async fn expelled(&mut self) {
        match (&mut self.task).await {
            Ok(Err(reason)) => error!(%reason, "this gateway cannot stay in the cluster"),
            ended => error!(?ended, "the cluster's task has ended"),
        }
    }

    /// Leaves the cluster.
    pub(super) async fn leave(mut self) {
        self.stop.cancel();
        if !self.task.is_finished() {
            _ = timeout(LEAVING, &mut self.task).await;
        }
    }
}

async fn secret(file: Option<PathBuf>) -> anyhow::Result<String> {
    let Some(file) = file else { return Ok(String::new()) };
    let read = move || {
        let secret = read_text(&file, LONGEST_SECRET).with_context(|| format!("cluster.secret: {}", file.display()))?;
        match secret.trim() {
            "" => Err(anyhow!("cluster.secret: {} is empty", file.display())),
            secret => Ok(secret.to_owned()),
        }
    };
    spawn_blocking(read).await?
}

fn bus_config(config: &ClusterConfig) -> BusConfig {
    let login = match (&config.credentials, &config.nkey, &config.password) {
        (Some(file), _, _) => Login::Credentials(file.clone()),
        (_, Some(file), _) => Login::Nkey(file.clone()),
        (_, _, Some(password)) => Login::Password { user: config.user.clone(), password: password.clone() },
        (None, None, None) => Login::None,
    };
    let authorities = config.authorities.clone();
    let identity = config.certificate.clone().zip(config.key.clone());
    let uses_tls = authorities.is_some() || identity.is_some();
    BusConfig {
        servers: config.nats.clone(),
        login,
        tls: uses_tls.then_some(TlsFiles { authorities, identity }),
        prefix: config.subjects.clone(),
        connect_timeout: match config.without_nats {
            WithoutNats::Serve => FIRST_ATTEMPT,
            WithoutNats::Refuse => BusConfig::default().connect_timeout,
        },
        ..BusConfig::default()
    }
}
