//! The bus against real NATS servers.

mod connecting;
mod disturbed;
mod figures;
mod late;
mod library;
mod messages;
mod paused;
mod rights;
mod secure;

use crate::hub::cluster::id::Incarnation;
use crate::hub::nats::{Bus, BusConfig, BusError, Event, Events};
use hotgate_nats_tests::{NatsCluster, within};

/// Settings for these servers.
pub(super) fn config(servers: &[String]) -> BusConfig {
    BusConfig { servers: servers.to_vec(), ..BusConfig::default() }
}

/// A bus with its events.
pub(super) struct Node {
    pub(super) bus: Bus,
    pub(super) events: Events,
    pub(super) own: Incarnation,
    /// The server that it is connected to.
    pub(super) server: String,
}

impl Node {
    /// Connects.
    pub(super) async fn connect(config: BusConfig, own: u64) -> Self {
        Self::try_connect(config, own).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Connects, or returns why it cannot.
    pub(super) async fn try_connect(config: BusConfig, own: u64) -> Result<Self, BusError> {
        let own = Incarnation(own);
        let (bus, mut events) = within("a connection", Bus::connect(config, own)).await?;
        let Some(Event::Connected { server, .. }) = within("the first event", events.next()).await else {
            panic!("the first event says that there is a connection");
        };
        Ok(Self { bus, events, own, server: server.name })
    }

    /// The next event.
    pub(super) async fn event(&mut self) -> Event {
        within("an event", self.events.next()).await.expect("the bus is open")
    }

    /// The next event that is this, past others.
    pub(super) async fn until<T>(&mut self, what: &str, mut is: impl FnMut(&Event) -> Option<T>) -> T {
        let searching = async {
            loop {
                let event = self.events.next().await.expect("the bus is open");
                if let Some(found) = is(&event) {
                    return found;
                }
            }
        };
        within(what, searching).await
    }

    /// Waits until the connection is lost.
    pub(super) async fn disconnected(&mut self) {
        self.until("the loss of the connection", |event| matches!(event, Event::Disconnected).then_some(())).await;
    }

    /// Waits for the next connection. Returns the name of the server.
    pub(super) async fn connected(&mut self) -> String {
        let name = |event: &Event| match event {
            Event::Connected { server, .. } => Some(server.name.clone()),
            _ => None,
        };
        self.until("a connection", name).await
    }

    /// The content of the next frame.
    pub(super) async fn frame(&mut self) -> String {
        let content = |event: &Event| match event {
            Event::Frame { bytes, .. } => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        };
        self.until("a frame", content).await
    }
}

/// Connects a node to one server of a cluster only.
pub(super) async fn at(cluster: &NatsCluster, index: usize, own: u64) -> Node {
    Node::connect(config(&[cluster.servers[index].url()]), own).await
}
