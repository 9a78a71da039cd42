//! Carries out what this gateway's [node](super::cluster) wants: frames go to and come from NATS, commands of other
//! gateways reach the connections of this one, and the log says who comes and goes.

mod commands;
mod replacements;
#[cfg(test)]
mod tests;
mod tokens;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::commands::Commands;
use self::replacements::Replacements;
use self::tokens::Tokens;
use super::cluster::handle::{Cluster, Waiting};
use super::cluster::id::Incarnation;
use super::cluster::{Event as NodeEvent, Fatal, Keys, Node, Output, Subject};
use super::nats::{Bus, BusConfig, BusError, Channel, Event, Events, Target};
use super::registry::Registry;
use crate::config::DuplicateLogin;

/// How long to wait before NATS is tried again that could not be reached at the start.
const RETRY: Duration = Duration::from_secs(2);

/// The longest time for which commands wait for company, if others are under way.
const COMPANY: Duration = Duration::from_millis(1);

/// The most things of one kind that are done before others are looked at: what has arrived, and what the node wants.
const AT_ONCE: usize = 256;

/// The task of a gateway in a cluster.
pub struct Exchange {
    cluster: Arc<Cluster>,
    registry: Arc<Registry>,
    incarnation: Incarnation,
    config: BusConfig,
    bus: Option<(Bus, Events)>,
    /// The next attempt to connect, while there is no connection.
    connecting: Option<BoxFuture<'static, Result<(Bus, Events), BusError>>>,
    /// Frames that NATS has not taken yet, after which more commands may go to the same gateway.
    turns: FuturesUnordered<BoxFuture<'static, Incarnation>>,
    /// Gateways to which frames are under way. More may go there when something comes back from any gateway, or after
    /// [`COMPANY`]: so commands travel in company, and the first one does not wait (as RFC 896 does it for TCP).
    under_way: Vec<Incarnation>,
    /// Since when the first of them is.
    under_way_since: Instant,
    /// True if something has come from another gateway in this turn of the loop.
    has_heard: bool,
    tokens: Tokens,
    commands: Commands,
    /// Closes older connections of a uid that logs in, if it may have only one.
    replacements: Option<Replacements>,
    opened: Option<oneshot::Sender<()>>,
}

/// However the task ends: nobody must wait for it any longer.
impl Drop for Exchange {
    fn drop(&mut self) {
        self.cluster.abandon();
    }
}

impl Exchange {
    /// Creates the task. `bus` is the connection to NATS, if it could be made. `opened` is told when all other gateways
    /// know this one.
    pub fn new(
        registry: Arc<Registry>,
        cluster: Arc<Cluster>,
        incarnation: Incarnation,
        config: BusConfig,
        bus: Option<(Bus, Events)>,
        duplicate_login: DuplicateLogin,
        opened: oneshot::Sender<()>,
    ) -> Self {
        let commands = Commands::new(registry.clone(), cluster.clone());
        let closes_older = duplicate_login == DuplicateLogin::CloseOlder;
        let replacements = closes_older.then(|| Replacements::new(registry.clone(), cluster.clone()));
        cluster.node(|node, now| {
            node.begin(now);
            node.set_connected(now, bus.is_some());
        });
        Self {
            cluster,
            registry,
            incarnation,
            config,
            bus,
            connecting: None,
            turns: FuturesUnordered::new(),
            under_way: Vec::new(),
            under_way_since: Instant::now(),
            has_heard: false,
            tokens: Tokens::default(),
            commands,
            replacements,
            opened: Some(opened),
        }
    }

    /// Connects this gateway to NATS.
    ///
    /// # Errors
    /// If a setting or a file cannot be used, or if no server can be used in time.
    pub async fn connect(config: &BusConfig, incarnation: Incarnation) -> Result<(Bus, Events), BusError> {
        Bus::connect(config.clone(), incarnation).await
    }

    /// Runs until `stop`, and then leaves the cluster.
    ///
    /// # Errors
    /// Why this gateway cannot belong to the cluster. It has left, too.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Fatal> {
        let end = self.take_part(stop).await;
        self.cluster.node(Node::leave);
        while self.cluster.node(|node, _| node.has_output()) {
            _ = self.carry_out();
        }
        if let Some((bus, _)) = self.bus.take() {
            bus.close().await;
        }
        end
    }

    async fn take_part(&mut self, stop: CancellationToken) -> Result<(), Fatal> {
        loop {
            let pause = match self.under_way.is_empty() {
                true => self.cluster.node(|node, now| node.wake_at(now).saturating_sub(now.boot)),
                false => COMPANY.saturating_sub(self.under_way_since.elapsed()),
            };
            let event = async {
                match &mut self.bus {
                    Some((_, events)) => Ok(events.next().await),
                    // It outlives this turn of the loop.
                    None => Err(self.connecting.get_or_insert_with(|| retry(&self.config, self.incarnation)).await),
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                event = event => match event {
                    Ok(Some(event)) => self.take(event),
                    Ok(None) => self.lose("the connection to NATS was closed"),
                    Err(connected) => {
                        self.connecting = None;
                        match connected {
                            Ok(bus) => self.bus = Some(bus),
                            Err(error) => warn!(%error, "NATS cannot be reached; this gateway serves alone"),
                        }
                    }
                },
                Some(to) = self.turns.next() => self.cluster.node(|node, now| node.published(now, to)),
                () = self.cluster.wake.notified() => {}
                () = sleep(pause) => {}
            }
            // Other tasks that are ready may have commands for the same gateways.
            yield_now().await;
            self.take_more();
            let ended = match std::mem::take(&mut self.has_heard) || self.under_way_since.elapsed() >= COMPANY {
                true => std::mem::take(&mut self.under_way),
                false => Vec::new(),
            };
            self.cluster.node(|node, now| {
                node.tick(now);
                ended.into_iter().for_each(|to| node.published(now, to));
                node.flush(now);
            });
            self.carry_out()?;
        }
    }

    /// Takes what has arrived already: after a pause of this process, nobody must be thought dead too early. Frames
    /// that NATS has taken meanwhile are noted, too: otherwise, those that arrive without end would keep more from
    /// being sent.
    fn take_more(&mut self) {
        use futures_util::FutureExt as _;
        while let Some(Some(to)) = self.turns.next().now_or_never() {
            self.cluster.node(|node, now| node.published(now, to));
        }
        for _ in 0..AT_ONCE {
            let event = self.bus.as_mut().and_then(|(_, events)| events.next().now_or_never());
            match event.flatten() {
                Some(event) => self.take(event),
                None => return,
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Frame { channel, bytes, .. } => {
                self.has_heard |= channel == Channel::Link;
                self.cluster.node(|node, now| node.receive(now, bytes));
            }
            Event::Answer { .. } => {}
            Event::NoResponder { token } => {
                if let Some((to, token)) = self.tokens.take(token) {
                    self.cluster.node(|node, now| node.no_responders(now, to, token));
                }
            }
            Event::Connected { server, is_outdated } => {
                info!(server = server.server, version = server.version, "connected to NATS");
                if is_outdated {
                    warn!(version = server.version, "this version of nats-server has known faults: update it");
                }
                self.cluster.node(|node, now| node.set_connected(now, true));
            }
            Event::Disconnected => {
                warn!("the connection to NATS was lost; pushes to other gateways fail until it is back");
                self.cluster.node(|node, now| node.set_connected(now, false));
            }
            Event::Failed(error) => warn!(%error, "no connection to NATS"),
            Event::Dropped { channel, count } => warn!(%channel, count, "frames of other gateways were dropped"),
            Event::Denied { right, subject } => error!(%right, subject, "NATS refuses a subject to this gateway"),
            Event::Said(text) => warn!(text, "NATS reports an error"),
            Event::LameDuck => info!("the NATS server will stop soon"),
        }
    }

    fn lose(&mut self, why: &str) {
        warn!("{why}");
        self.bus = None;
        self.cluster.node(|node, now| node.set_connected(now, false));
    }

    /// Carries out what the node wants, in order: at most [`AT_ONCE`] things.
    fn carry_out(&mut self) -> Result<(), Fatal> {
        let outputs = self.cluster.node(|node, _| node.outputs(AT_ONCE));
        self.carry_out_these(outputs)
    }

    fn carry_out_these(&mut self, mut outputs: VecDeque<Output>) -> Result<(), Fatal> {
        // Once for all of them: their batches were applied before.
        if outputs.iter().any(|output| matches!(output, Output::Lock(_))) {
            self.registry.pass_locks();
        }
        while let Some(output) = outputs.pop_front() {
            match output {
                Output::Publish { to, frame, token, is_turn } => {
                    self.publish(to, frame, token);
                    if let (Subject::Node(to), true) = (to, is_turn) {
                        self.end_turn(to);
                    }
                }
                Output::Apply(apply) => self.commands.pass(apply),
                Output::Answered { ticket, node, answer, .. } => self.cluster.answered(ticket, node, answer),
                Output::Lock(lock) => {
                    self.cluster.node(|node, now| node.locks_taken(now, &lock));
                    if let (Keys::All, Some(replacements)) = (&lock.keys, &self.replacements) {
                        replacements.close_here();
                    }
                }
                Output::LoginConfirmed { ticket, .. } => {
                    if let Some(Waiting::Login { uid, stamp, done }) = self.cluster.take_waiting(ticket) {
                        self.confirm(&uid, stamp.0, done);
                    }
                }
                Output::Departed { ticket, remaining, .. } => {
                    if let Some(Waiting::Departure(done)) = self.cluster.take_waiting(ticket) {
                        // Nobody waits for it if the connection's task was cut off.
                        _ = done.send(remaining);
                    }
                }
                Output::Event(event) => self.tell(event),
                Output::Fatal(fatal) => return Err(fatal),
            }
        }
        // The rest, and what the node wanted meanwhile: above all, confirmations.
        if self.cluster.node(|node, _| node.has_output()) {
            self.cluster.wake.notify_one();
        }
        Ok(())
    }

    /// Publishes a frame. One that cannot be published now is dropped: nothing may be sent late.
    fn publish(&mut self, to: Subject, frame: bytes::Bytes, token: Option<u64>) {
        let Some((bus, _)) = &self.bus else { return };
        let (target, token) = match to {
            Subject::All => (Target::All, None),
            Subject::Node(to) => (Target::Link(to), token.map(|token| self.tokens.add(to, token))),
            Subject::Snapshots(to) => (Target::Snapshots(to), None),
        };
        // The node finds out by itself: nobody answers.
        _ = bus.publish(target, token, frame);
    }

    fn end_turn(&mut self, to: Incarnation) {
        let Some((bus, _)) = &self.bus else {
            return self.turns.push(Box::pin(async move {
                sleep(Duration::from_millis(10)).await;
                to
            }));
        };
        if !bus.is_much_unconfirmed() {
            if self.under_way.is_empty() {
                self.under_way_since = Instant::now();
            }
            return self.under_way.push(to);
        }
        let flushed = bus.flushed();
        self.turns.push(Box::pin(async move {
            _ = flushed.await;
            to
        }));
    }

    /// Lets a client have its reply: all gateways know of its login. First, closes its older connections elsewhere, if
    /// it may have only one.
    fn confirm(&mut self, uid: &str, stamp: u64, done: oneshot::Sender<()>) {
        match &mut self.replacements {
            Some(replacements) if self.cluster.connections_elsewhere(uid) > 0 => {
                replacements.close_elsewhere(uid, stamp, done);
            }
            // Nobody waits for it if the client has left.
            _ => _ = done.send(()),
        }
    }

    fn tell(&mut self, event: NodeEvent) {
        match event {
            NodeEvent::Opened(node) => {
                info!(node = node.get(), "this gateway is part of the cluster");
                if let Some(opened) = self.opened.take() {
                    _ = opened.send(());
                }
            }
            NodeEvent::Joined(node, _) => info!(node = node.get(), "another gateway takes part"),
            NodeEvent::Suspect(node, _) => warn!(node = node.get(), "another gateway does not answer"),
            NodeEvent::Reachable(node, _) => info!(node = node.get(), "another gateway answers"),
            NodeEvent::Dead(node, incarnation) => {
                warn!(node = node.get(), "another gateway is gone: its connections do not count any more");
                self.commands.end(incarnation);
            }
            NodeEvent::Left(node, incarnation) => {
                info!(node = node.get(), "another gateway has left");
                self.commands.end(incarnation);
            }
            NodeEvent::Draining(node, _) => info!(node = node.get(), "another gateway drains"),
            NodeEvent::ForeignSecret(node) => {
                error!(node = node.get(), "a gateway with another cluster.secret uses the same NATS subjects");
            }
            NodeEvent::OtherVersion => {
                error!("a gateway of a version that this one cannot speak with uses the same NATS subjects");
            }
            NodeEvent::SameId(_) => error!("another gateway has started with the id of this one (cluster.node)"),
        }
    }
}

/// Connects to NATS after a pause.
fn retry(config: &BusConfig, incarnation: Incarnation) -> BoxFuture<'static, Result<(Bus, Events), BusError>> {
    let config = config.clone();
    Box::pin(async move {
        sleep(RETRY).await;
        Bus::connect(config, incarnation).await
    })
}
