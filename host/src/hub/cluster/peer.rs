//! Everything that a node keeps for one peer.

use std::collections::VecDeque;
use std::time::Duration;

use super::directory::replica::Replica;
use super::frame::Body;
use super::link::incoming::Incoming;
use super::link::outgoing::{Found, Outgoing, Window};
use super::members::Life;

/// The most confirmations that wait for batches of the peer. Past it the oldest is forgotten: later ones include it.
const MAX_CLAIMS: usize = 64;

/// One peer. It stays when the peer is dead, since the numbers of its link must never be used again.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) life: Life,
    /// The peer's rows, while it lives.
    pub(super) replica: Option<Replica>,
    pub(super) out: Outgoing,
    pub(super) into: Incoming,
    /// The last of our batches that the peer confirmed.
    confirmed: u64,
    /// Confirmations, each with the batch of the peer after which it counts.
    claims: VecDeque<(u64, u64)>,
    /// The confirmation to send next: the peer's batch, and our own last one before.
    confirm: Option<(u64, u64)>,
    /// True from the last frame of a turn until the host has published it.
    is_publishing: bool,
}

impl Peer {
    pub(super) fn new(life: Life, replica: Replica) -> Self {
        Self {
            life,
            replica: Some(replica),
            out: Outgoing::default(),
            into: Incoming::default(),
            confirmed: 0,
            claims: VecDeque::new(),
            confirm: None,
            is_publishing: false,
        }
    }

    /// Returns the last of our batches that the peer confirmed.
    pub(super) fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// Returns `true` if all rows of the peer are known, as far as this node can tell.
    pub(super) fn is_synced(&self) -> bool {
        self.replica.as_ref().is_some_and(Replica::is_synced)
    }

    /// Returns `true` if commands can be sent to the peer.
    pub(super) fn is_reachable(&self) -> bool {
        self.life.is_live() && !self.life.is_suspect()
    }

    /// Notes a confirmation that counts once the peer's batches up to `after` have been applied.
    pub(super) fn claim(&mut self, batch: u64, after: u64) {
        if let Some(replica) = &mut self.replica {
            replica.announced(after);
        }
        if self.claims.len() >= MAX_CLAIMS {
            self.claims.pop_front();
        }
        self.claims.push_back((batch, after));
        self.settle();
    }

    /// Lets those acknowledgements and confirmations count whose batches have been applied.
    pub(super) fn settle(&mut self) {
        let Some(replica) = &self.replica else { return };
        let applied = replica.applied();
        self.life.settle(applied);
        while let Some((batch, _)) = self.claims.pop_front_if(|(_, after)| *after <= applied) {
            self.confirmed = self.confirmed.max(batch);
        }
    }

    /// Has the next turn confirm the peer's batches up to this one, with our own last batch before that.
    pub(super) fn confirm(&mut self, batch: u64, after: u64) {
        let (last, _) = self.confirm.unwrap_or_default();
        self.confirm = Some((batch.max(last), after));
    }

    /// Notes that the host has published the last turn.
    pub(super) fn published(&mut self) {
        self.is_publishing = false;
    }

    /// Makes the frames of the next turn: at most one of each kind, those of commands with their token.
    pub(super) fn turn(
        &mut self,
        now: Duration,
        timeout: Duration,
        window: &mut Window,
        found: &mut Found,
    ) -> [Option<(Option<u64>, Body)>; 3] {
        if self.is_publishing {
            return [None, None, None];
        }
        let confirm = self.confirm.take().map(|(batch, after)| (None, Body::Confirm { batch, after }));
        let answers = self.into.frame().map(|answers| (None, answers));
        let commands = self.out.frame(now, self.life.clock, timeout, window, found);
        let commands = commands.map(|(first, commands)| (Some(first), commands));
        self.is_publishing = confirm.is_some() || answers.is_some() || commands.is_some();
        [confirm, answers, commands]
    }

    /// Ends the peer's part. Returns its replica, whose rows are to be swept.
    pub(super) fn end(&mut self, window: &mut Window, found: &mut Found) -> Option<Replica> {
        self.out.give_up(window, found);
        self.into.rest();
        self.claims.clear();
        self.confirm = None;
        self.replica.take()
    }

    /// Starts again with a peer that was dead: its rows are not known any more, the numbers of its links go on.
    pub(super) fn revive(&mut self, replica: Replica) {
        self.life.revive();
        self.replica = Some(replica);
    }
}
