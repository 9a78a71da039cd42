//! The cluster, as the rest of this gateway uses it: the registry tells it of logins and departures, and delivery sends
//! commands to other gateways. Nothing here waits for the network. `hub::exchange` carries out what the node wants.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::clock::{Clock, Now, Stamp};
use super::config::Config;
use super::directory::rows::Rows;
use super::frame::Row;
use super::id::{Incarnation, NodeId, Ticket};
use super::link::outgoing::Answer;
use super::machine_clock::now;
use super::node::Node;
use super::output::{Counts, PeerStatus, Pushed, Refusal, Spread};
use super::parcel::decode_outcome;
use super::questions::Questions;
use super::secret::Secret;
use crate::base::message::ConnectionId;
use crate::hub::command::{Elsewhere, Outcome};
use crate::hub::lock::lock;

/// What somebody waits for.
#[derive(Debug)]
pub(in crate::hub) enum Waiting {
    /// The answers to a command: from how many gateways, and the sum of those that have come.
    Command { left: usize, sum: Outcome, done: oneshot::Sender<Outcome> },
    /// The answer to a question.
    Question(oneshot::Sender<Bytes>),
    /// A login: its uid and stamp.
    Login { uid: Box<str>, stamp: Stamp, done: oneshot::Sender<()> },
    /// A departure.
    Departure(oneshot::Sender<u32>),
}

/// Where a command went.
#[derive(Debug)]
pub enum Sent {
    /// To no other gateway: the newest connection is here.
    Nowhere,
    /// To no other gateway, for this reason.
    Refused(Outcome),
    /// To others. They say what became of it.
    Away(oneshot::Receiver<Outcome>),
}

impl Sent {
    /// Waits until the others have said what became of the command. They are waited for `cluster.timeout` at most.
    pub async fn outcome(self) -> Outcome {
        match self {
            Self::Nowhere => Outcome::OFFLINE,
            Self::Refused(outcome) => outcome,
            Self::Away(answer) => answer.await.unwrap_or(Outcome::failed(Elsewhere::Unknown)),
        }
    }
}

/// How the cluster is, as far as one gateway knows.
#[derive(Debug, Clone)]
pub struct ClusterStatus {
    /// This gateway's node.
    pub node: NodeId,
    /// This gateway's incarnation.
    pub incarnation: Incarnation,
    /// Whether there is a connection to NATS.
    pub is_connected: bool,
    /// The other gateways.
    pub peers: Vec<PeerStatus>,
    /// Bytes of commands that wait for answers of other gateways.
    pub unanswered_bytes: usize,
    /// What went wrong since the start.
    pub counts: Counts,
}

/// A handle on this gateway's node.
pub struct Cluster {
    node: Mutex<Node>,
    clock: Arc<Clock>,
    rows: Arc<Rows>,
    secret: Secret,
    timeout: Duration,
    confirm: Duration,
    incarnation: Incarnation,
    /// The node's id, which is final once the node has opened.
    id: AtomicU16,
    /// Answers what operators ask of this gateway at another one.
    pub questions: Questions,
    /// `None` once nobody carries out what the node wants: then nobody can wait for it.
    waiting: Mutex<Option<HashMap<Ticket, Waiting>>>,
    /// Wakes the task that carries out what the node wants.
    pub(in crate::hub) wake: Notify,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Creates a node that has not begun to listen yet.
    pub fn new(config: Config, secret: Secret) -> Self {
        let Config { timeout, confirm, incarnation, .. } = config;
        let node = Node::new(now(), config);
        let (clock, rows, id) = (node.clock().clone(), node.rows().clone(), AtomicU16::new(node.id().get()));
        let (node, waiting) = (Mutex::new(node), Mutex::new(Some(HashMap::new())));
        let (questions, wake) = (Questions::default(), Notify::new());
        Self { node, clock, rows, secret, timeout, confirm, incarnation, id, questions, waiting, wake }
    }

    /// Returns the id of this gateway's node.
    pub fn id(&self) -> NodeId {
        NodeId::from_low_bits(self.id.load(Relaxed).into())
    }

    /// Calls the node, and wakes the task that carries out what it wants, if it wants something. Commands for a gateway
    /// to which others are under way want nothing yet: they wait for company.
    pub(in crate::hub) fn call<T>(&self, call: impl FnOnce(&mut Node, Now) -> T) -> T {
        let mut node = lock(&self.node);
        let result = call(&mut node, now());
        let has_output = node.has_output();
        drop(node);
        if has_output {
            self.wake.notify_one();
        }
        result
    }

    /// Calls the node for the task that carries out what it wants.
    pub(in crate::hub) fn node<T>(&self, call: impl FnOnce(&mut Node, Now) -> T) -> T {
        let mut node = lock(&self.node);
        let result = call(&mut node, now());
        self.id.store(node.id().get(), Relaxed);
        result
    }

    /// Returns how the cluster is, as far as this gateway knows.
    pub fn status(&self) -> ClusterStatus {
        let node = self.node.lock();
        ClusterStatus {
            node: node.id(),
            incarnation: self.incarnation,
            is_connected: node.is_connected,
            peers: node.peers().collect(),
            unanswered_bytes: node.unanswered(),
            counts: node.counts(),
        }
    }

    /// Keeps the id of this gateway's node from now on: connections get ids that name it.
    pub fn keep_id(&self) {
        self.node(|node, _| node.keep_id());
    }

    /// Tells the others whether this gateway closes its connections.
    pub fn set_draining(&self, is_draining: bool) {
        self.call(|node, now| node.set_draining(now, is_draining));
    }

    /// Takes a stamp for a login or departure: larger than all that this gateway has taken or seen.
    pub fn stamp(&self) -> u64 {
        self.clock.stamp(now(), self.id()).0
    }

    /// Notes a login, under the lock of the uid's shard. The result says when all other gateways know of it.
    pub fn login(&self, uid: &str, before: Option<Row>, after: Row) -> oneshot::Receiver<()> {
        let (done, announced) = oneshot::channel();
        let stamp = after.newest;
        self.call(|node, now| {
            let ticket = node.note_login(now, self.secret.key(uid), before, Some(after));
            self.add_waiting(ticket, Waiting::Login { uid: uid.into(), stamp, done });
        });
        // It must be announced.
        self.wake.notify_one();
        announced
    }

    /// Notes a departure, under the lock of the uid's shard. The result is the number of connections that the uid has
    /// left on all gateways.
    pub fn departure(&self, uid: &str, before: Row, after: Option<Row>) -> oneshot::Receiver<u32> {
        let (done, remaining) = oneshot::channel();
        self.call(|node, now| {
            let (ticket, _) = node.note_departure(now, self.secret.key(uid), Some(before), after);
            self.add_waiting(ticket, Waiting::Departure(done));
        });
        self.wake.notify_one();
        remaining
    }

    /// Returns the number of connections of a uid on all other gateways.
    pub fn connections_elsewhere(&self, uid: &str) -> u32 {
        self.rows.connections(self.secret.key(uid))
    }

    /// Returns `true` if a command for this uid must be [sent](Self::send_to_uid): its newest login is on another
    /// gateway, or there is none. `here` is the stamp of its newest login on this gateway.
    pub fn is_elsewhere(&self, uid: &str, here: Option<u64>) -> bool {
        let Some(here) = here else { return true };
        self.rows.newest(self.secret.key(uid)).is_some_and(|place| place.newest.0 > here)
    }

    /// Sends a command to the gateway with the newest login of a uid.
    pub fn send_to_uid(&self, uid: &str, here: Option<u64>, parcel: Bytes) -> Sent {
        let key = self.secret.key(uid);
        self.call(|node, now| match node.push(now, key, here.map(Stamp), parcel) {
            Ok(Pushed::Here) => Sent::Nowhere,
            Ok(Pushed::Sent(ticket)) => self.wait_for(ticket, 1, Outcome::OFFLINE),
            Err(refusal) => {
                let missing = node.newest_at(key).into_iter().collect();
                Sent::Refused(Outcome { elsewhere: why(refusal), missing, ..Outcome::OFFLINE })
            }
        })
    }

    /// Sends a command to the gateway of a connection.
    pub fn send_to_connection(&self, id: ConnectionId, parcel: Bytes) -> Sent {
        match NodeId::new(id.node()).filter(|_| self.is_foreign(id)) {
            None => Sent::Nowhere,
            Some(to) => self.send_to_node(to, parcel),
        }
    }

    /// Sends a command to another gateway.
    pub fn send_to_node(&self, to: NodeId, parcel: Bytes) -> Sent {
        self.call(|node, now| match node.send_to(now, to, parcel) {
            Ok(ticket) => self.wait_for(ticket, 1, Outcome::OFFLINE),
            Err(refusal) => Sent::Refused(refused(to, refusal)),
        })
    }

    /// Sends a command to all other gateways.
    pub fn send_to_all(&self, parcel: &Bytes) -> Sent {
        self.spread(|node, now| node.send_to_all(now, parcel))
    }

    /// Sends a command to all other gateways, also to those that join.
    pub fn send_to_joining_too(&self, parcel: &Bytes) -> Sent {
        self.spread(|node, now| node.send_to_joining_too(now, parcel))
    }

    fn spread(&self, send: impl FnOnce(&mut Node, Now) -> Spread) -> Sent {
        self.call(|node, now| {
            let Spread { ticket, asked, refused: others } = send(node, now);
            let mut sum = certainty(node, now);
            for (to, refusal) in others {
                sum += refused(to, refusal);
            }
            match asked {
                0 => Sent::Refused(sum),
                asked => self.wait_for(ticket, asked, sum),
            }
        })
    }

    /// Returns `true` if this gateway knows of all connections on the others.
    pub fn may_say_offline(&self) -> bool {
        self.node(|node, now| node.may_say_offline(now))
    }

    /// Returns `true` if a connection is on another gateway, by its id.
    pub fn is_foreign(&self, connection: ConnectionId) -> bool {
        self.id().get() != connection.node()
    }

    /// Returns the other gateways that take part.
    pub fn others(&self) -> Vec<NodeId> {
        self.node.lock().ready().map(|(_, node)| node).collect()
    }

    /// Returns how long another gateway may take to answer.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Returns how long a login waits for other gateways.
    pub fn confirm(&self) -> Duration {
        self.confirm
    }

    /// Asks another gateway. The result is an error if it does not answer in time.
    pub fn ask_gateway(&self, to: NodeId, parcel: Bytes) -> oneshot::Receiver<Bytes> {
        let (done, answer) = oneshot::channel();
        self.call(|node, now| {
            if let Ok(ticket) = node.send_to(now, to, parcel) {
                self.add_waiting(ticket, Waiting::Question(done));
            }
        });
        answer
    }

    /// Called while the node is locked, so that no answer can come before.
    fn wait_for(&self, ticket: Ticket, left: usize, sum: Outcome) -> Sent {
        let (done, answer) = oneshot::channel();
        self.add_waiting(ticket, Waiting::Command { left, sum, done });
        Sent::Away(answer)
    }

    /// Passes on an answer to a command.
    pub(in crate::hub) fn answered(&self, ticket: Ticket, from: NodeId, answer: Answer) {
        let mut waiting = lock(&self.waiting);
        let Some(waiting) = &mut *waiting else { return };
        let left = match waiting.get_mut(&ticket) {
            Some(Waiting::Command { left, sum, .. }) => {
                let mut outcome = match answer {
                    Answer::Done(outcome) => decode_outcome(outcome),
                    Answer::Expired => Outcome::failed(Elsewhere::Expired),
                    Answer::Skipped | Answer::Unreachable => Outcome::failed(Elsewhere::Unreachable),
                    Answer::Unknown => Outcome::failed(Elsewhere::Unknown),
                };
                if outcome.elsewhere.is_some_and(|why| why != Elsewhere::Moved) {
                    outcome.missing.push(from);
                }
                *sum += outcome;
                left
            }
            Some(Waiting::Question(_)) => {
                // Whoever asked may have left.
                if let (Some(Waiting::Question(done)), Answer::Done(bytes)) = (waiting.remove(&ticket), answer) {
                    _ = done.send(bytes);
                }
                return;
            }
            Some(Waiting::Login { .. } | Waiting::Departure(_)) | None => return,
        };
        *left -= 1;
        if *left > 0 {
            return;
        }
        if let Some(Waiting::Command { sum, done, .. }) = waiting.remove(&ticket) {
            // Whoever asked may have left.
            _ = done.send(sum);
        }
    }

    /// Called while the node is locked, so that nothing can come before.
    fn add_waiting(&self, ticket: Ticket, waiting: Waiting) {
        if let Some(all) = &mut *lock(&self.waiting) {
            all.insert(ticket, waiting);
        }
    }

    /// Lets nobody wait any longer: nobody carries out any more what the node wants.
    pub(in crate::hub) fn abandon(&self) {
        let waiting = lock(&self.waiting).take();
        drop(waiting);
    }

    /// Takes out what waits for this ticket.
    pub(in crate::hub) fn take_waiting(&self, ticket: Ticket) -> Option<Waiting> {
        lock(&self.waiting).as_mut()?.remove(&ticket)
    }
}

fn refused(to: NodeId, refusal: Refusal) -> Outcome {
    why(refusal).map_or(Outcome::OFFLINE, |why| Outcome::failed_by(to, why))
}

/// Returns `OFFLINE` if this gateway knows of all connections elsewhere.
fn certainty(node: &Node, now: Now) -> Outcome {
    if node.may_say_offline(now) { Outcome::OFFLINE } else { Outcome::failed(Elsewhere::Unreachable) }
}

fn why(refusal: Refusal) -> Option<Elsewhere> {
    match refusal {
        Refusal::Offline => None,
        Refusal::Unreachable => Some(Elsewhere::Unreachable),
        Refusal::Full | Refusal::TooLong => Some(Elsewhere::Overload),
    }
}
