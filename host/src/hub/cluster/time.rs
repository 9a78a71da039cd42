//! What time brings: beats, deaths, timeouts.

use std::time::Duration;

use super::clock::Now;
use super::directory::rows::SHARDS;
use super::frame::{Beat, Body};
use super::id::{NODES, NodeId};
use super::members::{LISTEN, Phase, State};
use super::node::Node;
use super::output::{Event, Fatal, Subject};
use super::peer::Peer;

/// The shards that are swept in one tick, so that none takes long.
const SWEEP: usize = 32;
/// The time between two ticks while something waits, and otherwise.
const TICKS: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(50)];

impl Node {
    /// Does what is due. Called at the time that [`wake_at`](Self::wake_at) returns, or earlier; what has arrived
    /// should be passed first, so that after a pause of this process nobody is thought dead too early.
    pub fn tick(&mut self, now: Now) {
        let now = now.boot;
        match self.phase {
            Phase::Ended => return,
            Phase::Listening if now < self.started_at + LISTEN => return self.bury(now),
            Phase::Listening => {
                if self.config.node.is_none() && !self.choose_id() {
                    return;
                }
                self.phase = Phase::Joining;
            }
            Phase::Joining | Phase::Ready(_) | Phase::Open => {}
        }
        self.bury(now);
        if self.beats.is_due(now) {
            self.beat(now);
        }
        self.visit_peers(now);
        self.open();
        if self.own.is_due(now) {
            self.announce(now);
        }
        self.settle(now);
        self.sweep();
    }

    /// Returns when the host has to call [`tick`](Self::tick) at the latest, as `CLOCK_BOOTTIME`.
    pub fn wake_at(&self, now: Now) -> Duration {
        let is_busy = self.own.has_notes()
            || !self.confirmations.is_empty()
            || self.peers.values().any(|peer| peer.life.is_live() && !peer.is_synced());
        now.boot + TICKS[usize::from(!is_busy)]
    }

    /// Notes the peers that have been silent for too long.
    fn bury(&mut self, now: Duration) {
        let dead = self.peers.iter().filter(|(_, peer)| peer.life.has_died(now));
        let dead = dead.map(|(&incarnation, peer)| (incarnation, peer.life.node)).collect::<Vec<_>>();
        for (incarnation, node) in dead {
            if let Some(peer) = self.peers.get_mut(&incarnation) {
                peer.life.state = State::Dead;
            }
            self.end(incarnation);
            self.tell(Event::Dead(node, incarnation));
        }
    }

    /// Probes links, asks for snapshots, gives up commands that took too long.
    fn visit_peers(&mut self, now: Duration) {
        let (timeout, last_beat) = (self.config.timeout, self.beats.last_at());
        for incarnation in self.peers.keys().copied().collect::<Vec<_>>() {
            let Some(peer) = self.peers.get_mut(&incarnation) else { continue };
            let mut found = Vec::new();
            peer.out.expire(now, timeout, &mut self.window, &mut found);
            let (node, is_live) = (peer.life.node, peer.life.is_live());
            let is_new_doubt = is_live && peer.life.is_unanswered(now) && peer.life.doubt();
            if is_new_doubt {
                peer.out.give_up(&mut self.window, &mut found);
            }
            let probe = if is_live { peer.life.probe(now, last_beat) } else { None };
            let request = peer.replica.as_mut().and_then(|replica| replica.request(now));
            self.answered(node, incarnation, found);
            if is_new_doubt {
                self.tell(Event::Suspect(node, incarnation));
            }
            if let Some(number) = probe {
                // Named 0, which is no command's number: a 503 then only says that the link is in doubt.
                self.publish(Subject::Node(incarnation), Some(0), false, &Body::Probe { number });
            }
            if let Some((request, from)) = request {
                let body = Body::SnapshotRequest { request, from };
                self.publish(Subject::Snapshots(incarnation), None, false, &body);
            }
        }
    }

    /// Goes on to the next phase if all peers know this node, and it knows all rows.
    fn open(&mut self) {
        let mut live = self.peers.values().filter(|peer| peer.life.is_live());
        match self.phase {
            Phase::Joining if live.all(Peer::is_synced) => {
                // Only beats from the next one on tell it.
                self.phase = Phase::Ready(self.beats.last() + 1);
            }
            Phase::Ready(since)
                if self.beats.echoed() >= since
                    && live.all(|peer| peer.is_synced() && peer.life.acknowledged() >= since) =>
            {
                self.phase = Phase::Open;
                self.tell(Event::Opened(self.id));
            }
            _ => {}
        }
    }

    /// Sends a beat.
    pub(super) fn beat(&mut self, now: Duration) {
        self.announce(now);
        let live = self.peers.iter().filter(|(_, peer)| peer.life.is_live());
        let heard = live.map(|(&incarnation, peer)| (incarnation, peer.life.heard)).collect();
        let beat = Beat {
            number: self.beats.next(now),
            started: self.started,
            ready: matches!(self.phase, Phase::Ready(_) | Phase::Open),
            draining: self.is_draining,
            boot: now,
            batches: self.own.batches(),
            digest: self.own.digest(),
            heard,
        };
        self.publish(Subject::All, None, false, &Body::Beat(beat));
    }

    /// Chooses an id that no peer has, at a random place. Returns `false` if there is none.
    pub(super) fn choose_id(&mut self) -> bool {
        let is_taken = |id: &NodeId| self.peers.values().any(|peer| peer.life.is_live() && peer.life.node == *id);
        let first = self.config.incarnation.0 % u64::from(NODES);
        let mut ids = (first..first + u64::from(NODES)).map(NodeId::from_low_bits);
        match ids.find(|id| !is_taken(id)) {
            Some(id) => self.id = id,
            None => {
                self.phase = Phase::Ended;
                self.fail(Fatal::NoFreeId);
                return false;
            }
        }
        true
    }

    /// Removes some rows of dead peers. A slot is used again once none is left.
    fn sweep(&mut self) {
        let Some((slot, shard)) = self.sweeping.front_mut() else { return };
        let end = SHARDS.min(*shard + SWEEP);
        for shard in *shard..end {
            self.rows.sweep(*slot, shard);
        }
        *shard = end;
        if end == SHARDS {
            self.free_slots.push(*slot);
            self.sweeping.pop_front();
        }
    }
}
