//! What arrives from other nodes.

use std::time::Duration;

use bytes::Bytes;

use super::clock::Now;
use super::directory::replica::{Progress, Replica};
use super::frame::{Answers, Batch, Beat, Body, Header, SnapshotPart, Unreadable, decode, take_header};
use super::id::{Incarnation, NodeId};
use super::link::incoming::Arrived;
use super::members::{FRESH, Life, Phase, State};
use super::node::Node;
use super::output::{Apply, Event, Fatal, Keys, Lock, Output, Subject};
use super::peer::Peer;

/// The most peers that are remembered, dead ones included.
const MAX_PEERS: usize = 1_024;
/// The time between two lines in the log about other secrets, or about other versions.
const FOREIGN: Duration = Duration::from_secs(10);
/// Frames that arrive so soon after the start may be the last ones of this node's incarnation before, if there is no
/// state folder that remembers it.
const AFTERGLOW: Duration = Duration::from_millis(500);

impl Node {
    /// Takes a frame from any of the subjects.
    pub fn receive(&mut self, now: Now, mut frame: Bytes) {
        if self.phase == Phase::Ended {
            return;
        }
        let now = now.boot;
        let read = take_header(&mut frame).and_then(|header| self.judge(now, header, frame));
        match read {
            Ok(()) => {}
            Err(Unreadable::Malformed) => self.counts.malformed += 1,
            Err(Unreadable::Version) => self.other_version(now),
            Err(Unreadable::Kind) => self.counts.kind += 1,
        }
    }

    /// Notes that nobody listened to a frame for this peer; `token` came with it.
    pub fn no_responders(&mut self, now: Now, to: Incarnation, token: u64) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        let mut found = Vec::new();
        peer.out.no_responders(token, &mut self.window, &mut found);
        let is_new = peer.life.is_live() && peer.life.doubt();
        if is_new {
            peer.out.give_up(&mut self.window, &mut found);
        }
        let node = peer.life.node;
        self.answered(node, to, found);
        if is_new {
            self.tell(Event::Suspect(node, to));
        }
        self.turn(now.boot, to);
    }

    fn judge(&mut self, now: Duration, header: Header, frame: Bytes) -> Result<(), Unreadable> {
        if header.secret != self.config.secret {
            self.counts.secret += 1;
            self.foreign(now, header.node);
            return Ok(());
        }
        let body = decode(header.kind, frame)?;
        let from = header.incarnation;
        if from == self.config.incarnation {
            if let Body::Beat(beat) = body {
                self.echo(now, beat.number);
            }
            return Ok(());
        }
        // What this node had sent before it crashed must not seem to come from another node with its id.
        let has_ended = self.config.before.contains(&Some(from));
        if has_ended || self.peers.get(&from).is_some_and(|peer| peer.life.state == State::Gone) {
            self.counts.ended += 1;
            return Ok(());
        }
        if let Body::Beat(beat) = body {
            self.hear(now, header.node, from, &beat);
        } else if self.peers.contains_key(&from) {
            self.take(now, from, body);
        } else {
            self.counts.stranger += 1;
        }
        Ok(())
    }

    fn foreign(&mut self, now: Duration, node: NodeId) {
        if self.phase == Phase::Listening {
            self.phase = Phase::Ended;
            self.fail(Fatal::ForeignSecret);
        } else if self.foreign_told.is_none_or(|told| now >= told + FOREIGN) {
            self.foreign_told = Some(now);
            self.tell(Event::ForeignSecret(node));
        }
    }

    fn other_version(&mut self, now: Duration) {
        self.counts.version += 1;
        if self.version_told.is_none_or(|told| now >= told + FOREIGN) {
            self.version_told = Some(now);
            self.tell(Event::OtherVersion);
        }
    }

    /// Notes that a beat of this node came back: NATS takes and brings its frames.
    fn echo(&mut self, now: Duration, number: u64) {
        if self.beats.echoed() > 0 && !self.beats.is_fresh(self.beats.echoed(), now) {
            self.echoing_since = now;
        }
        self.beats.echo(number);
    }

    fn hear(&mut self, now: Duration, node: NodeId, from: Incarnation, beat: &Beat) {
        if node == self.id && !self.keeps_id(now, from, beat) {
            return;
        }
        let was_draining = self.peers.get(&from).is_some_and(|peer| peer.life.draining);
        let is_new = match self.peers.get_mut(&from) {
            // A beat that was long under way does not bring a dead peer back.
            Some(peer) => peer.life.beat(now, beat, self.config.incarnation) && !peer.life.is_live(),
            None => true,
        };
        if is_new && !self.admit(now, node, from, beat) {
            self.counts.stranger += 1;
            return;
        }
        let Some(peer) = self.peers.get_mut(&from) else { return };
        peer.life.node = node;
        if let Some(replica) = &mut peer.replica {
            replica.compare(beat.batches, beat.digest);
        }
        peer.settle();
        if peer.life.draining && !was_draining {
            self.tell(Event::Draining(node, from));
        }
        self.settle(now);
    }

    /// Decides about a node with the id of this one. Returns `false` if this node has to end.
    fn keeps_id(&mut self, now: Duration, from: Incarnation, beat: &Beat) -> bool {
        // A node that is ready stays, whatever its wall clock said at the start. Both come to the same result, at the
        // latest with their next beats, and never is each of them the younger one.
        let is_ready = matches!(self.phase, Phase::Ready(_) | Phase::Open);
        let mine = (!is_ready, self.started, self.config.incarnation);
        let is_older = (!beat.ready, beat.started, from) < mine;
        match self.phase {
            // A free id is chosen later. What is heard right at the start may be this node's own last life.
            Phase::Listening if self.config.node.is_none() || now < self.started_at + AFTERGLOW => return true,
            Phase::Listening => {}
            Phase::Joining | Phase::Ready(_) if is_older && self.config.node.is_none() => {
                // Nothing has this id yet, so another one can be chosen.
                let admitted = self.peers.contains_key(&from) || self.admit(now, self.id, from, beat);
                return admitted && self.choose_id();
            }
            _ if !is_older => {
                if !self.peers.contains_key(&from) {
                    self.tell(Event::SameId(from));
                }
                return true;
            }
            _ => {}
        }
        let is_open = self.phase == Phase::Open;
        if !is_open {
            self.phase = Phase::Ended;
        }
        if !self.is_doomed {
            self.is_doomed = true;
            self.fail(Fatal::SameId(self.id));
        }
        is_open
    }

    /// Begins with a new peer, or again with one that was dead.
    fn admit(&mut self, now: Duration, node: NodeId, from: Incarnation, beat: &Beat) -> bool {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&from) {
            let dead = self.peers.iter().filter(|(_, peer)| !peer.life.is_live() && peer.out.is_idle());
            let oldest = dead.min_by_key(|(_, peer)| peer.life.heard_at).map(|(&incarnation, _)| incarnation);
            let Some(oldest) = oldest else { return false };
            self.peers.remove(&oldest);
        }
        let Some(slot) = self.free_slots.pop() else { return false };
        // The node of before is silent, so it has most likely ended. If not, its next beat brings it back: then two
        // nodes have the same id, and the younger one has to go.
        let before = self.peers.iter().filter(|(_, peer)| peer.life.is_live() && peer.life.node == node);
        let before = before.filter(|(_, peer)| peer.life.started < beat.started && now >= peer.life.heard_at + FRESH);
        for incarnation in before.map(|(&incarnation, _)| incarnation).collect::<Vec<_>>() {
            if let Some(peer) = self.peers.get_mut(&incarnation) {
                peer.life.state = State::Dead;
            }
            self.end(incarnation);
            self.tell(Event::Dead(node, incarnation));
        }
        self.rows.set_live(slot, true);
        self.slots[slot.index()] = from;
        let replica = Replica::new(slot);
        match self.peers.get_mut(&from) {
            Some(peer) => peer.revive(replica),
            None => {
                let mut life = Life::new(now, node, beat);
                life.beat(now, beat, self.config.incarnation);
                self.peers.insert(from, Peer::new(life, replica));
            }
        }
        self.tell(Event::Joined(node, from));
        true
    }

    /// Takes what a known peer sent.
    fn take(&mut self, now: Duration, from: Incarnation, body: Body) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let (node, mut found) = (peer.life.node, Vec::new());
        match body {
            Body::Beat(_) => {}
            Body::Batch(batch) => self.batch(from, batch),
            Body::Leave => {
                peer.life.state = State::Gone;
                self.end(from);
                self.tell(Event::Left(node, from));
            }
            Body::SnapshotRequest { request, from: shard } => {
                if self.phase != Phase::Listening {
                    // Rows are read only after all of their changes have been announced.
                    self.announce(now);
                    for part in self.own.snapshot(request, shard) {
                        self.publish(Subject::Snapshots(from), None, false, &Body::SnapshotPart(part));
                    }
                }
            }
            Body::SnapshotPart(part) => self.part(now, from, part),
            Body::Commands { first, commands } => {
                let outputs = &mut self.outputs;
                peer.into.commands(now, first, commands, |one| outputs.push_back(apply(from, one)));
            }
            Body::Segment(segment) => {
                let arrived = peer.into.segment(now, segment);
                self.outputs.extend(arrived.map(|one| apply(from, one)));
            }
            Body::Answers(Answers { replies, skipped }) => {
                for (number, reply) in replies {
                    peer.out.reply(number, reply, &mut self.window, &mut found);
                }
                for (first, last) in skipped {
                    peer.out.skipped(first, last, &mut self.window, &mut found);
                }
            }
            Body::Confirm { batch, after } => peer.claim(batch, after),
            Body::Probe { number } => {
                let (heard, is_live) = (peer.life.heard, peer.life.is_live());
                if is_live && self.phase != Phase::Listening {
                    // A peer that is ready since that beat must know all logins that did not wait for it.
                    self.announce(now);
                    let body = Body::Pong { number, heard, batches: self.own.batches() };
                    self.publish(Subject::Node(from), None, false, &body);
                }
            }
            Body::Pong { number, heard, batches } => {
                peer.life.claim(heard, batches);
                if let Some(replica) = &mut peer.replica {
                    replica.announced(batches);
                }
                peer.settle();
                if peer.life.pong(number) && peer.life.is_live() {
                    self.tell(Event::Reachable(node, from));
                }
            }
        }
        self.answered(node, from, found);
        // Skipped numbers, expired commands and freed places may make a turn.
        self.turn(now, from);
        self.settle(now);
    }

    fn batch(&mut self, from: Incarnation, batch: Batch) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let Some(replica) = &mut peer.replica else { return };
        let progress = replica.batch(batch, &self.rows, &self.clock);
        self.progressed(from, progress);
    }

    fn part(&mut self, now: Duration, from: Incarnation, part: SnapshotPart) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let Some(replica) = &mut peer.replica else { return };
        let progress = replica.part(now, part, &self.rows, &self.clock);
        let request = replica.request(now);
        self.progressed(from, progress);
        if let Some((request, from_shard)) = request {
            let body = Body::SnapshotRequest { request, from: from_shard };
            self.publish(Subject::Snapshots(from), None, false, &body);
        }
    }

    /// Has the host take the locks of the uids whose rows changed.
    fn progressed(&mut self, from: Incarnation, progress: Progress) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        peer.settle();
        let batch = peer.replica.as_ref().map_or(0, Replica::applied);
        let (departures, keys) = match progress {
            Progress::None => return,
            Progress::Batch(batch) => {
                let changed = batch.changes.iter().map(|change| change.key);
                let left = batch.departures.iter().map(|departure| departure.key);
                let keys = Keys::Some(changed.chain(left).collect());
                (batch.departures, keys)
            }
            Progress::Snapshot(departures) => {
                self.counts.snapshots += 1;
                (departures, Keys::All)
            }
        };
        departures.into_iter().for_each(|departure| self.confirmations.heard(departure));
        self.outputs.push_back(Output::Lock(Lock { from, batch, keys }));
    }
}

fn apply(from: Incarnation, Arrived { number, command }: Arrived) -> Output {
    let (target, deadline, body) = (command.target, command.deadline, command.body);
    Output::Apply(Apply { from, number, target, deadline, body })
}
