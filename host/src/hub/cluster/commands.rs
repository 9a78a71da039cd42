//! Commands for other nodes, and the answers to theirs.

use std::time::Duration;

use bytes::Bytes;

use super::clock::{Now, Stamp};
use super::frame::{MAX_COMMAND, Reply, Target};
use super::id::{Incarnation, NodeId, Ticket, UidKey};
use super::node::Node;
use super::output::{Apply, Pushed, Refusal, Spread};

impl Node {
    /// Passes a push by uid to the node of the newest login. `here` is the newest login on this node. The host can
    /// deliver without asking, and without a lock on the node, if [`Rows::newest`] finds no newer one.
    ///
    /// # Errors
    /// Nobody gets the message.
    pub fn push(&mut self, now: Now, key: UidKey, here: Option<Stamp>, body: Bytes) -> Result<Pushed, Refusal> {
        let elsewhere = self.rows.newest(key).filter(|place| here.is_none_or(|here| here < place.newest));
        let Some(place) = elsewhere else {
            let offline = || if self.may_say_offline(now) { Refusal::Offline } else { Refusal::Unreachable };
            return here.map(|_| Pushed::Here).ok_or_else(offline);
        };
        let (to, ticket) = (self.slots[place.slot.index()], self.ticket());
        self.issue(now.boot, to, ticket, Target::Uid(place.newest), body)?;
        Ok(Pushed::Sent(ticket))
    }

    /// Returns the node with the newest login of a uid, as far as this node knows, unless it is this one.
    pub fn newest_at(&self, key: UidKey) -> Option<NodeId> {
        let place = self.rows.newest(key)?;
        self.peers.get(&self.slots[place.slot.index()]).map(|peer| peer.life.node)
    }

    /// Sends a command to one node, for instance to the one that a connection's id names.
    ///
    /// # Errors
    /// Nobody gets the command. [`Refusal::Offline`] if there is no such node.
    pub fn send_to(&mut self, now: Now, node: NodeId, body: Bytes) -> Result<Ticket, Refusal> {
        let same = self.peers.iter().filter(|(_, peer)| peer.life.is_live() && peer.life.node == node);
        let to = same.max_by_key(|(_, peer)| peer.life.started).map(|(&incarnation, _)| incarnation);
        let offline = || if self.may_say_offline(now) { Refusal::Offline } else { Refusal::Unreachable };
        let (to, ticket) = (to.ok_or_else(offline)?, self.ticket());
        self.issue(now.boot, to, ticket, Target::All, body)?;
        Ok(ticket)
    }

    /// Sends a command to all nodes that take part: for a group, everyone, or connections that must be searched for.
    pub fn send_to_all(&mut self, now: Now, body: &Bytes) -> Spread {
        let ready = self.ready().collect();
        self.send_to_each(now, ready, body)
    }

    /// Sends a command to all live nodes, also to those that join.
    pub fn send_to_joining_too(&mut self, now: Now, body: &Bytes) -> Spread {
        let live = self.peers.iter().filter(|(_, peer)| peer.life.is_live());
        let live = live.map(|(&incarnation, peer)| (incarnation, peer.life.node)).collect();
        self.send_to_each(now, live, body)
    }

    fn send_to_each(&mut self, now: Now, to: Vec<(Incarnation, NodeId)>, body: &Bytes) -> Spread {
        let mut spread = Spread { ticket: self.ticket(), asked: 0, refused: Vec::new() };
        for (incarnation, node) in to {
            match self.issue(now.boot, incarnation, spread.ticket, Target::All, body.clone()) {
                Ok(()) => spread.asked += 1,
                Err(refusal) => spread.refused.push((node, refusal)),
            }
        }
        spread
    }

    fn issue(
        &mut self,
        now: Duration,
        to: Incarnation,
        ticket: Ticket,
        target: Target,
        body: Bytes,
    ) -> Result<(), Refusal> {
        if body.len() > MAX_COMMAND {
            return Err(Refusal::TooLong);
        }
        let peer = self.peers.get_mut(&to).filter(|peer| peer.is_reachable() && self.is_connected);
        let peer = peer.ok_or(Refusal::Unreachable)?;
        if !peer.out.issue(now, ticket, target, body, &mut self.window) {
            return Err(Refusal::Full);
        }
        self.turn(now, to);
        Ok(())
    }

    /// Answers a command of another node. An answer longer than [`MAX_ANSWER`](super::frame::MAX_ANSWER) is cut.
    pub fn answer(&mut self, now: Now, to: &Apply, answer: Bytes) {
        if let Some(peer) = self.peers.get_mut(&to.from).filter(|peer| peer.life.is_live()) {
            peer.into.answer(to.number, Reply::Done(answer));
            self.turn(now.boot, to.from);
        }
    }
}
