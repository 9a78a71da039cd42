//! Deliveries that concern other gateways of the cluster: those that this gateway sends, and those that it carries out
//! for others.

use std::sync::Arc;

use super::{Found, Work};
use crate::hub::cluster::Target;
use crate::hub::cluster::handle::Sent;
use crate::hub::cluster::machine_clock::Deadline;
use crate::hub::cluster::parcel::encode;
use crate::hub::command::{Command, Elsewhere, Outcome, Recipient};
use crate::hub::registry::{Peer, Registry, Several};

impl Work<'_> {
    /// Finds the connection that a message to one of a uid's connections goes to.
    pub(super) fn find_newest(&self, uid: &str) -> Found<'static> {
        let newest = self.registry.newest(uid);
        let stamp = newest.as_deref().map(Peer::stamp);
        match self.cluster {
            Some(cluster) if cluster.is_elsewhere(uid, stamp) => Found::Elsewhere(stamp),
            _ => Found::One(newest),
        }
    }

    /// Returns the connection of this gateway that a command for at most one connection concerns.
    pub(super) fn here(&self, to: &Recipient) -> Option<Arc<Peer>> {
        match to {
            Recipient::Connection(id) => self.registry.connection(*id),
            Recipient::Uid(uid) => self.registry.newest(uid),
            Recipient::Group(_) | Recipient::GroupOthers(_) | Recipient::Everyone => None,
        }
    }

    async fn carry_out_one(mut self, command: Command) -> Outcome {
        match self.begin(command) {
            Ok(outcome) => outcome,
            Err(command) => Box::pin(self.carry_out(*command)).await.0.outcome().await,
        }
    }

    /// Returns `true` if the sender has been told by now that nobody else gets the message.
    pub(super) fn is_late(&self) -> bool {
        self.deadline.is_some_and(Deadline::is_over)
    }

    /// Sends a command, whose recipient was `found`, to the other gateways that it concerns. Returns `None` if it
    /// concerns none.
    pub(super) fn send_elsewhere(&self, command: &Command, found: Found<'_>) -> Option<Sent> {
        let cluster = self.cluster?;
        let to = command.recipient();
        match (found, to) {
            (Found::One(_), _) => None,
            (Found::Elsewhere(_), Recipient::Connection(id)) => Some(cluster.send_to_connection(*id, encode(command))),
            (Found::Elsewhere(here), Recipient::Uid(uid)) => Some(cluster.send_to_uid(uid, here, encode(command))),
            (Found::Several(Several::Uid(uid)), _) if cluster.connections_elsewhere(uid) == 0 => {
                // Somebody here, or nobody anywhere.
                match self.registry.count(Several::Uid(uid)) {
                    0 => Some(cluster.send_to_uid(uid, None, encode(command))),
                    _ => None,
                }
            }
            (Found::Several(_) | Found::Elsewhere(_), _) => Some(cluster.send_to_all(&encode(command))),
        }
    }
}

/// Carries out a command of another gateway, on the connections of this one. If the login for which it was sent is here
/// no more, nothing is done. After the deadline, nobody gets the message any more.
pub async fn apply_for_others(registry: &Registry, command: Command, target: Target, deadline: Deadline) -> Outcome {
    let of_uid = if let Recipient::Uid(uid) = command.recipient() { Some(uid) } else { None };
    if of_uid.is_some_and(|uid| !target.is_here(registry.newest_login(uid))) {
        return Outcome::failed(Elsewhere::Moved);
    }
    let outcome = Work { deadline: Some(deadline), ..Work::new(registry, None) }.carry_out_one(command).await;
    // The login is here, but its connection closes, or has just ended.
    let has_moved = matches!(target, Target::Uid(_)) && outcome == Outcome::OFFLINE;
    if has_moved { Outcome::failed(Elsewhere::Moved) } else { outcome }
}

/// Carries out one command that belongs to no session. Returns what became of it on all gateways.
pub async fn carry_out_one(registry: &Registry, command: Command) -> Outcome {
    Work::new(registry, registry.cluster()).carry_out_one(command).await
}
