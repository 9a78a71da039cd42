//! The state of a node, and what the host itself wants of it. What arrives is in [`receive`](super::receive), what time
//! brings in [`time`](super::time).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::clock::{Clock, Now, Stamp};
use super::config::Config;
use super::confirm::Confirmations;
use super::directory::own::Own;
use super::directory::rows::{Rows, Slot};
use super::frame::{Body, Departure, Row, encode};
use super::id::{Incarnation, NodeId, Ticket, UidKey};
use super::link::outgoing::{Found, Window};
use super::members::{Beats, LISTEN, Phase};
use super::output::{Counts, Event, Fatal, Keys, Lock, Output, PeerStatus, Subject};
use super::peer::Peer;

/// A node of the cluster. It does no input or output: the host passes what arrives, and carries out what
/// [`outputs`](Self::outputs) returns after each call, in order.
#[derive(Debug)]
pub struct Node {
    pub(super) config: Config,
    pub(super) phase: Phase,
    pub(super) id: NodeId,
    /// When this incarnation started.
    pub(super) started: Stamp,
    /// `CLOCK_BOOTTIME` at the start.
    pub(super) started_at: Duration,
    pub(super) clock: Arc<Clock>,
    pub(super) rows: Arc<Rows>,
    pub(super) own: Own,
    pub(super) beats: Beats,
    /// Since when the beats of this node have come back without a pause.
    pub(super) echoing_since: Duration,
    pub(super) is_draining: bool,
    pub(super) is_connected: bool,
    pub(super) peers: BTreeMap<Incarnation, Peer>,
    pub(super) confirmations: Confirmations,
    pub(super) window: Window,
    pub(super) free_slots: Vec<Slot>,
    /// The peer in each slot; old ones in slots that are not in use.
    pub(super) slots: Box<[Incarnation]>,
    /// Slots of dead peers, with the next shard to sweep.
    pub(super) sweeping: VecDeque<(Slot, usize)>,
    pub(super) counts: Counts,
    pub(super) foreign_told: Option<Duration>,
    pub(super) version_told: Option<Duration>,
    /// True once the host knows that this node must go.
    pub(super) is_doomed: bool,
    tickets: u64,
    /// What the host has to do. It empties this after each call.
    pub(super) outputs: VecDeque<Output>,
}

impl Node {
    /// Creates a node that begins to listen. The host subscribes to all subjects of the incarnation first.
    pub fn new(now: Now, config: Config) -> Self {
        let (clock, id) = (Clock::default(), config.node.unwrap_or(NodeId::from_low_bits(config.incarnation.0)));
        Self {
            config,
            phase: Phase::Listening,
            id,
            started: clock.stamp(now, id),
            started_at: now.boot,
            clock: Arc::new(clock),
            rows: Arc::new(Rows::new()),
            own: Own::new(),
            beats: Beats::default(),
            echoing_since: now.boot,
            is_draining: false,
            is_connected: true,
            peers: BTreeMap::new(),
            confirmations: Confirmations::default(),
            window: Window::new(config.window),
            free_slots: Slot::all().rev().collect(),
            slots: Slot::all().map(|_| Incarnation(0)).collect(),
            sweeping: VecDeque::new(),
            counts: Counts::default(),
            foreign_told: None,
            version_told: None,
            is_doomed: false,
            tickets: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Returns the next thing to do.
    #[cfg(test)]
    pub fn output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns the next things to do, at most `most`, in order.
    pub fn outputs(&mut self, most: usize) -> VecDeque<Output> {
        match self.outputs.len() <= most {
            true => std::mem::take(&mut self.outputs),
            false => self.outputs.drain(..most).collect(),
        }
    }

    /// Returns `true` if there is something to do.
    pub fn has_output(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// Returns the node's id. It is final once the node has opened.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Begins to listen now. Until then, nothing has been passed to the node.
    pub fn begin(&mut self, now: Now) {
        self.started = self.clock.stamp(now, self.id);
        (self.started_at, self.echoing_since) = (now.boot, now.boot);
    }

    /// Keeps the id from now on, even if this node has not opened: if another one has it, this one has to go.
    pub fn keep_id(&mut self) {
        self.config.node = Some(self.id);
    }

    /// Returns the clock, for stamps that are taken under a shard's lock.
    pub fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }

    /// Returns the rows of all other nodes: they can be read without a lock on the node.
    pub fn rows(&self) -> &Arc<Rows> {
        &self.rows
    }

    /// Returns what was counted since the start.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns the bytes of commands that wait for answers.
    pub fn unanswered(&self) -> usize {
        self.window.used()
    }

    /// Returns the peers that live.
    pub fn peers(&self) -> impl Iterator<Item = PeerStatus> {
        let live = self.peers.iter().filter(|(_, peer)| peer.life.is_live());
        live.map(|(&incarnation, peer)| PeerStatus {
            node: peer.life.node,
            incarnation,
            is_reachable: peer.is_reachable(),
            is_synced: peer.is_synced(),
            is_draining: peer.life.draining,
        })
    }

    /// Returns the peers that take part.
    pub fn ready(&self) -> impl Iterator<Item = (Incarnation, NodeId)> {
        let ready = self.peers.iter().filter(|(_, peer)| peer.life.is_live() && peer.life.ready);
        ready.map(|(&incarnation, peer)| (incarnation, peer.life.node))
    }

    /// Returns `true` if a uid without rows is certainly offline: this node is heard by all others, and hears them.
    pub fn may_say_offline(&self, now: Now) -> bool {
        let (now, fresh) = (now.boot, |number| self.beats.is_fresh(number, now.boot));
        let is_isolated = !self.is_connected || !fresh(self.beats.echoed()) || now < self.echoing_since + LISTEN;
        let mut waited_for = self.peers.values().filter(|peer| peer.life.is_live() && peer.life.ready);
        self.phase == Phase::Open
            && !is_isolated
            && waited_for.all(|peer| peer.is_synced() && peer.life.is_heard(now) && fresh(peer.life.acknowledged()))
    }

    /// Notes that a connection logged in. Called under the lock of the uid's shard; `before` and `after` are the rows
    /// of this very uid. After the end of this node, nothing is noted.
    pub fn note_login(&mut self, now: Now, key: UidKey, before: Option<Row>, after: Option<Row>) -> Ticket {
        let ticket = self.ticket();
        if self.phase != Phase::Ended {
            self.own.note(self.id, key, before, after);
            self.confirmations.add(ticket, now.boot + self.config.confirm, None);
        }
        ticket
    }

    /// Notes that a connection ended, under the lock of the uid's shard. The stamp of the departure is taken here: no
    /// departure of another node can be heard between the stamp and the note.
    pub fn note_departure(
        &mut self,
        now: Now,
        key: UidKey,
        before: Option<Row>,
        after: Option<Row>,
    ) -> (Ticket, Stamp) {
        let departure = Departure { key, stamp: self.clock.stamp(now, self.id) };
        let ticket = self.ticket();
        if self.phase != Phase::Ended {
            self.own.note(self.id, key, before, after);
            self.own.note_departure(departure);
            self.confirmations.add(ticket, now.boot + self.config.confirm, Some(departure));
        }
        (ticket, departure.stamp)
    }

    /// Announces what was noted, unless the last batch was less than 10 ms ago. Called after the shard's lock.
    pub fn flush(&mut self, now: Now) {
        if self.own.is_due(now.boot) {
            self.announce(now.boot);
        }
        self.settle(now.boot);
    }

    /// Confirms a batch of a peer: the host has locked and unlocked the shards of its uids.
    pub fn locks_taken(&mut self, now: Now, lock: &Lock) {
        let is_noted = match &lock.keys {
            Keys::All => self.own.has_notes(),
            Keys::Some(keys) => keys.iter().any(|&key| self.own.is_noted(key)),
        };
        if is_noted {
            self.announce(now.boot);
        }
        let after = self.own.batches();
        if let Some(peer) = self.peers.get_mut(&lock.from).filter(|peer| peer.life.is_live()) {
            peer.confirm(lock.batch, after);
            self.turn(now.boot, lock.from);
        }
    }

    /// Notes that the last frame of a turn was handed to NATS, or dropped.
    pub fn published(&mut self, now: Now, to: Incarnation) {
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.published();
            self.turn(now.boot, to);
        }
    }

    /// Notes whether NATS is connected. While it is not, commands for other nodes fail at once.
    pub fn set_connected(&mut self, now: Now, is_connected: bool) {
        self.is_connected = is_connected;
        if !is_connected {
            let mut found = Vec::new();
            for (&incarnation, peer) in &mut self.peers {
                peer.out.give_up(&mut self.window, &mut found);
                self.outputs.extend(answers(peer.life.node, incarnation, &mut found));
            }
            // What comes back from now on has been under way before.
            self.echoing_since = now.boot;
        }
    }

    /// Tells the others whether this node closes its connections.
    pub fn set_draining(&mut self, now: Now, is_draining: bool) {
        self.is_draining = is_draining;
        if matches!(self.phase, Phase::Joining | Phase::Ready(_) | Phase::Open) {
            self.beat(now.boot);
        }
    }

    /// Leaves the cluster, after the last departure was settled. Everything that arrives from now on is ignored, and
    /// nothing is sent.
    pub fn leave(&mut self, now: Now) {
        if matches!(self.phase, Phase::Joining | Phase::Ready(_) | Phase::Open) {
            self.announce(now.boot);
            self.publish(Subject::All, None, false, &Body::Leave);
        }
        self.phase = Phase::Ended;
        self.set_connected(now, false);
    }

    /// Makes the next frames for a peer, unless a turn is under way.
    pub(super) fn turn(&mut self, now: Duration, to: Incarnation) {
        if matches!(self.phase, Phase::Listening | Phase::Ended) {
            return;
        }
        let Some(peer) = self.peers.get_mut(&to) else { return };
        let mut found = Vec::new();
        let frames = peer.turn(now, self.config.timeout, &mut self.window, &mut found);
        self.outputs.extend(answers(peer.life.node, to, &mut found));
        let mut left = frames.iter().flatten().count();
        for (token, body) in frames.into_iter().flatten() {
            left -= 1;
            self.publish(Subject::Node(to), token, left == 0, &body);
        }
    }

    /// Sends what was noted, now.
    pub(super) fn announce(&mut self, now: Duration) {
        if !self.own.has_notes() {
            return;
        }
        for batch in self.own.flush(now) {
            self.publish(Subject::All, None, false, &Body::Batch(batch));
        }
        self.confirmations.flushed(self.own.batches());
    }

    /// Tells the host which logins and departures wait no longer.
    pub(super) fn settle(&mut self, now: Duration) {
        if self.confirmations.is_empty() {
            return;
        }
        let waited_for = self.peers.values().filter(|peer| peer.life.is_live() && peer.life.ready);
        let confirmed = waited_for.map(Peer::confirmed).min();
        while let Some(settled) = self.confirmations.settle(now, confirmed) {
            let (ticket, is_complete) = (settled.ticket, settled.is_complete);
            self.counts.unconfirmed += u64::from(!is_complete);
            self.outputs.push_back(match settled.departure {
                None => Output::LoginConfirmed { ticket, is_complete },
                Some((key, later)) => {
                    let present = self.own.connections(key).saturating_add(self.rows.connections(key));
                    Output::Departed { ticket, remaining: present.saturating_add(later), is_complete }
                }
            });
        }
    }

    /// Passes on the answers that were found for commands to one node.
    pub(super) fn answered(&mut self, node: NodeId, incarnation: Incarnation, mut found: Found) {
        self.outputs.extend(answers(node, incarnation, &mut found));
    }

    /// Ends the part of a peer: its rows do not count any more.
    pub(super) fn end(&mut self, incarnation: Incarnation) {
        let mut found = Vec::new();
        let Some(peer) = self.peers.get_mut(&incarnation) else { return };
        if let Some(replica) = peer.end(&mut self.window, &mut found) {
            self.rows.set_live(replica.slot, false);
            self.sweeping.push_back((replica.slot, 0));
        }
        let node = peer.life.node;
        self.answered(node, incarnation, found);
    }

    pub(super) fn publish(&mut self, to: Subject, token: Option<u64>, is_turn: bool, body: &Body) {
        let frame = encode(self.id, self.config.incarnation, self.config.secret, body);
        self.outputs.push_back(Output::Publish { to, frame, token, is_turn });
    }

    pub(super) fn tell(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    pub(super) fn fail(&mut self, fatal: Fatal) {
        self.outputs.push_back(Output::Fatal(fatal));
    }

    pub(super) fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }
}

fn answers(node: NodeId, incarnation: Incarnation, found: &mut Found) -> impl Iterator<Item = Output> {
    found.drain(..).map(move |(ticket, answer)| Output::Answered { ticket, node, incarnation, answer })
}
