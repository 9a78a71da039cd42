//! Commands that send no message: connections join and leave groups, or are closed.

use std::sync::Arc;

use tracing::debug;

use super::{Found, Work};
use crate::base::message::Cause;
use crate::hub::command::{Closing, Command, Membership, Outcome};
use crate::hub::registry::Peer;

impl Work<'_> {
    /// Makes one connection join or leave a group, or closes it. A connection that is in too many groups is `full`.
    pub(super) fn change(&self, command: &Command, peer: &Arc<Peer>) -> Outcome {
        match command {
            Command::Deliver(_) => return Outcome::OFFLINE,
            Command::Join(Membership { group, .. }) => {
                if let Err(error) = self.registry.join(peer, group) {
                    debug!(connection = peer.id.0, %error, "group not joined");
                    return Outcome { full: 1, ..Outcome::OFFLINE };
                }
            }
            Command::Leave(Membership { group, .. }) => self.registry.leave(peer, group),
            Command::Close(Closing { reason, .. }) => _ = peer.outbox.close(reason.clone(), Cause::Plugin),
        }
        Outcome { reached: 1, ..Outcome::OFFLINE }
    }

    /// Does the same as [`change`](Self::change) for all connections of this gateway that the command concerns: if it
    /// is away, for several connections only.
    pub(super) async fn change_all(&mut self, command: &Command, is_away: bool) -> Outcome {
        let who = command.recipient();
        let Found::Several(through) = self.find(who) else {
            let only = self.here(who).filter(|_| !is_away);
            return only.map_or(Outcome::OFFLINE, |only| self.change(command, &only));
        };
        let mut sum = Outcome::OFFLINE;
        let others_than = self.left_out(who);
        let (mut walk, mut part) = (self.registry.walk(through), Vec::new());
        while walk.next(&mut part) {
            if self.is_late() {
                return sum.late();
            }
            for peer in part.drain(..).filter(|peer| Some(peer.id) != others_than) {
                self.count += 1;
                sum += self.change(command, &peer);
            }
            self.yield_if_many().await;
        }
        sum
    }
}
