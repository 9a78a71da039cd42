//! Commands that send no message: connections join and leave groups, or are closed.

use std::sync::Arc;

use tracing::debug;

use super::{Found, Work};
use crate::base::message::Cause;
use crate::hub::command::{Closing, Command, Membership};
use crate::hub::registry::Peer;

impl Work<'_> {
    /// Makes one connection join or leave a group, or closes it.
    pub(super) fn change(&self, command: &Command, peer: &Arc<Peer>) {
        match command {
            Command::Deliver(_) => {}
            Command::Join(Membership { group, .. }) => {
                if let Err(error) = self.registry.join(peer, group) {
                    debug!(connection = peer.id.0, %error, "group not joined");
                }
            }
            Command::Leave(Membership { group, .. }) => self.registry.leave(peer, group),
            Command::Close(Closing { reason, .. }) => _ = peer.outbox.close(reason.clone(), Cause::Plugin),
        }
    }

    /// Does the same as [`change`](Self::change) for all connections of this gateway that the command concerns: if it
    /// is away, for several connections only.
    pub(super) async fn change_all(&mut self, command: &Command, is_away: bool) {
        let (Command::Join(Membership { who, .. })
        | Command::Leave(Membership { who, .. })
        | Command::Close(Closing { who, .. })) = command
        else {
            return;
        };
        let Found::Several(through) = self.find(who) else {
            if let Some(only) = self.here(who).filter(|_| !is_away) {
                self.change(command, &only);
            }
            return;
        };
        let others_than = self.left_out(who);
        let (mut walk, mut part) = (self.registry.walk(through), Vec::new());
        while walk.next(&mut part) {
            for peer in part.drain(..).filter(|peer| Some(peer.id) != others_than) {
                self.count += 1;
                self.change(command, &peer);
            }
            self.yield_if_many().await;
        }
    }
}
