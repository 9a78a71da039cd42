//! The cluster, as the rest of this gateway uses it: the registry tells it of logins and departures, and delivery sends
//! commands to other gateways. Nothing here waits for the network. `hub::exchange` carries out what the node wants.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use sha2::{Digest as _, Sha256};
use siphasher::sip::SipHasher13;
use tokio::sync::{Notify, oneshot};

use super::clock::{Clock, Now, Stamp};
use super::config::Config;
use super::directory::rows::Rows;
use super::frame::Row;
use super::id::{Fingerprint, NodeId, Ticket, UidKey};
use super::link::outgoing::Answer;
use super::node::Node;
use super::output::{Counts, PeerStatus, Pushed, Refusal, Spread};
use super::parcel::decode_outcome;
use crate::base::message::ConnectionId;
use crate::hub::command::{Elsewhere, Outcome};

/// What the gateways of one cluster share.
#[derive(Clone)]
pub struct Secret {
    fingerprint: Fingerprint,
    uids: SipHasher13,
}

impl Secret {
    /// Derives keys from `cluster.secret`.
    pub fn new(secret: &[u8]) -> Self {
        let derive = |purpose: &str| -> [u8; 32] {
            let mut hash = Sha256::new();
            hash.update(purpose);
            hash.update(secret);
            hash.finalize().into()
        };
        let [fingerprint, uids] = ["hotgate cluster: fingerprint\n", "hotgate cluster: uids\n"].map(derive);
        let word = |bytes: &[u8; 32], at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_be_bytes(word)
        };
        Self {
            fingerprint: Fingerprint(word(&fingerprint, 0)),
            uids: SipHasher13::new_with_keys(word(&uids, 0), word(&uids, 8)),
        }
    }

    /// Returns the fingerprint, which others may see.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    fn key(&self, uid: &str) -> UidKey {
        UidKey(self.uids.hash(uid.as_bytes()))
    }
}

/// What somebody waits for.
#[derive(Debug)]
pub(in crate::hub) enum Waiting {
    /// The answers to a command: from how many gateways, and the sum of those that have come.
    Command { left: usize, sum: Outcome, done: oneshot::Sender<Outcome> },
    /// The answers to a question: from how many gateways, and those that have come.
    Question { left: usize, answers: Vec<Bytes>, done: oneshot::Sender<Vec<Bytes>> },
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

/// How the cluster is, as far as one gateway knows.
#[derive(Debug, Clone)]
pub struct ClusterStatus {
    /// This gateway's node.
    pub node: NodeId,
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
    /// The node's id, which is final once the node has opened.
    id: AtomicU16,
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
        let node = Node::new(now(), config);
        let (clock, rows, id) = (node.clock().clone(), node.rows().clone(), AtomicU16::new(node.id().get()));
        let (node, waiting) = (Mutex::new(node), Mutex::new(Some(HashMap::new())));
        Self { node, clock, rows, secret, id, waiting, wake: Notify::new() }
    }

    /// Returns the id of this gateway's node.
    pub fn id(&self) -> NodeId {
        NodeId::from_low_bits(self.id.load(Relaxed).into())
    }

    /// Calls the node, and wakes the task that carries out what it wants, if it wants something. Commands for a gateway
    /// to which others are under way want nothing yet: they wait for company.
    pub(in crate::hub) fn call<T>(&self, call: impl FnOnce(&mut Node, Now) -> T) -> T {
        let mut node = self.node.lock();
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
        let mut node = self.node.lock();
        let result = call(&mut node, now());
        self.id.store(node.id().get(), Relaxed);
        result
    }

    /// Returns how the cluster is, as far as this gateway knows.
    pub fn status(&self) -> ClusterStatus {
        let node = self.node.lock();
        ClusterStatus {
            node: node.id(),
            is_connected: node.is_connected,
            peers: node.peers().collect(),
            unanswered_bytes: node.unanswered(),
            counts: node.counts(),
        }
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
            Ok(Pushed::Sent(ticket, _)) => self.wait_for(ticket, 1, Outcome::OFFLINE),
            Err(refusal) => Sent::Refused(refused(refusal)),
        })
    }

    /// Sends a command to the gateway of a connection.
    pub fn send_to_connection(&self, id: ConnectionId, parcel: Bytes) -> Sent {
        let Some(to) = NodeId::new(id.node()).filter(|to| *to != self.id()) else { return Sent::Nowhere };
        self.call(|node, now| match node.send_to(now, to, parcel) {
            Ok(ticket) => self.wait_for(ticket, 1, Outcome::OFFLINE),
            Err(refusal) => Sent::Refused(refused(refusal)),
        })
    }

    /// Sends a command to all other gateways.
    pub fn send_to_all(&self, parcel: &Bytes) -> Sent {
        self.call(|node, now| {
            let Spread { ticket, asked, refused: others } = node.send_to_all(now, parcel);
            let mut sum = Outcome::OFFLINE;
            for (_, refusal) in others {
                sum += refused(refusal);
            }
            match asked {
                0 => Sent::Refused(sum),
                asked => self.wait_for(ticket, asked, sum),
            }
        })
    }

    /// Asks all other gateways. The result has the answers of those that answered in time.
    pub fn ask_all(&self, parcel: &Bytes) -> oneshot::Receiver<Vec<Bytes>> {
        let (done, answers) = oneshot::channel();
        self.call(|node, now| {
            let Spread { ticket, asked, .. } = node.send_to_all(now, parcel);
            self.wait_for_answers(ticket, asked, done);
        });
        answers
    }

    /// Asks the gateway of a connection, which is not this one.
    pub fn ask_gateway_of(&self, id: ConnectionId, parcel: Bytes) -> oneshot::Receiver<Vec<Bytes>> {
        let (done, answers) = oneshot::channel();
        self.call(|node, now| {
            let sent = NodeId::new(id.node()).and_then(|to| node.send_to(now, to, parcel).ok());
            if let Some(ticket) = sent {
                self.wait_for_answers(ticket, 1, done);
            }
        });
        answers
    }

    fn wait_for_answers(&self, ticket: Ticket, left: usize, done: oneshot::Sender<Vec<Bytes>>) {
        match left {
            // Whoever asked may have left.
            0 => _ = done.send(Vec::new()),
            left => self.add_waiting(ticket, Waiting::Question { left, answers: Vec::new(), done }),
        }
    }

    /// Called while the node is locked, so that no answer can come before.
    fn wait_for(&self, ticket: Ticket, left: usize, sum: Outcome) -> Sent {
        let (done, answer) = oneshot::channel();
        self.add_waiting(ticket, Waiting::Command { left, sum, done });
        Sent::Away(answer)
    }

    /// Passes on an answer to a command.
    pub(in crate::hub) fn answered(&self, ticket: Ticket, answer: Answer) {
        let mut waiting = self.waiting.lock();
        let Some(waiting) = &mut *waiting else { return };
        let left = match waiting.get_mut(&ticket) {
            Some(Waiting::Command { left, sum, .. }) => {
                *sum += match answer {
                    Answer::Done(outcome) => decode_outcome(outcome),
                    Answer::Expired => Outcome::failed(Elsewhere::Expired),
                    Answer::Skipped | Answer::Unreachable => Outcome::failed(Elsewhere::Unreachable),
                    Answer::Unknown => Outcome::failed(Elsewhere::Unknown),
                };
                left
            }
            Some(Waiting::Question { left, answers, .. }) => {
                if let Answer::Done(bytes) = answer {
                    answers.push(bytes);
                }
                left
            }
            Some(Waiting::Login { .. } | Waiting::Departure(_)) | None => return,
        };
        *left -= 1;
        if *left > 0 {
            return;
        }
        // Whoever asked may have left.
        match waiting.remove(&ticket) {
            Some(Waiting::Command { sum, done, .. }) => _ = done.send(sum),
            Some(Waiting::Question { answers, done, .. }) => _ = done.send(answers),
            _ => {}
        }
    }

    /// Called while the node is locked, so that nothing can come before.
    fn add_waiting(&self, ticket: Ticket, waiting: Waiting) {
        if let Some(all) = &mut *self.waiting.lock() {
            all.insert(ticket, waiting);
        }
    }

    /// Lets nobody wait any longer: nobody carries out any more what the node wants.
    pub(in crate::hub) fn abandon(&self) {
        let waiting = self.waiting.lock().take();
        drop(waiting);
    }

    /// Takes out what waits for this ticket.
    pub(in crate::hub) fn take_waiting(&self, ticket: Ticket) -> Option<Waiting> {
        self.waiting.lock().as_mut()?.remove(&ticket)
    }
}

fn refused(refusal: Refusal) -> Outcome {
    match refusal {
        Refusal::Offline => Outcome::OFFLINE,
        Refusal::Unreachable => Outcome::failed(Elsewhere::Unreachable),
        Refusal::Full | Refusal::TooLong => Outcome::failed(Elsewhere::Overload),
    }
}

/// Reads the clocks.
fn now() -> Now {
    // Goes on while the machine sleeps. Other systems than Linux, on which no gateway serves, may lack this clock.
    #[cfg(target_os = "linux")]
    let boot = clock_gettime(ClockId::Boottime);
    #[cfg(not(target_os = "linux"))]
    let boot = clock_gettime(ClockId::Monotonic);
    let boot = Duration::new(boot.tv_sec.unsigned_abs(), u32::try_from(boot.tv_nsec).unwrap_or(0));
    Now { boot, wall: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() }
}
