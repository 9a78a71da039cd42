//! Deliveries that concern other gateways of the cluster: those that this gateway sends, and those that it carries out
//! for others.

use std::sync::Arc;

use super::{Found, Work};
use crate::hub::cluster::handle::{Cluster, Sent};
use crate::hub::cluster::parcel::encode;
use crate::hub::command::{Closing, Command, Delivery, Elsewhere, Membership, Outcome, Recipient};
use crate::hub::registry::{Peer, Registry, Several};

impl Work<'_> {
    /// Finds the connection that a message to one of a uid's connections goes to.
    pub(super) fn find_newest(&self, uid: &str) -> Found<'static> {
        let newest = self.registry.newest(uid);
        match self.cluster {
            Some(cluster) if cluster.is_elsewhere(uid, newest.as_deref().map(Peer::stamp)) => Found::Elsewhere,
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

    /// Sends a command to the other gateways that it concerns. Returns `None` if it concerns none.
    pub(super) fn send_elsewhere(&self, command: &Command) -> Option<Sent> {
        let cluster = self.cluster?;
        let (Command::Deliver(Delivery { to, .. })
        | Command::Join(Membership { who: to, .. })
        | Command::Leave(Membership { who: to, .. })
        | Command::Close(Closing { who: to, .. })) = command;
        match (self.find(to), to) {
            (Found::One(_), _) => None,
            (Found::Elsewhere, Recipient::Connection(id)) => Some(cluster.send_to_connection(*id, encode(command))),
            (Found::Elsewhere, Recipient::Uid(uid)) => {
                let here = self.registry.newest(uid);
                Some(cluster.send_to_uid(uid, here.as_deref().map(Peer::stamp), encode(command)))
            }
            (Found::Several(Several::Uid(uid)), _) if cluster.connections_elsewhere(uid) == 0 => {
                // Somebody here, or nobody anywhere.
                match self.registry.count(Several::Uid(uid)) {
                    0 => Some(cluster.send_to_uid(uid, None, encode(command))),
                    _ => None,
                }
            }
            (Found::Several(_) | Found::Elsewhere, _) => Some(cluster.send_to_all(&encode(command))),
        }
    }
}

/// Carries out a command of another gateway, on the connections of this one. `seen` is the stamp of the uid's newest
/// login that the other gateway knew to be here; if there is no such login any more, nothing is done.
pub async fn apply_for_others(registry: &Registry, command: Command, seen: Option<u64>) -> Outcome {
    let (Command::Deliver(Delivery { to, .. })
    | Command::Join(Membership { who: to, .. })
    | Command::Leave(Membership { who: to, .. })
    | Command::Close(Closing { who: to, .. })) = &command;
    if let (Some(seen), Recipient::Uid(uid)) = (seen, to)
        && !registry.has_login_since(uid, seen)
    {
        return Outcome::failed(Elsewhere::Moved);
    }
    carry_out(registry, None, command).await
}

/// Carries out one command that belongs to no session. Returns what became of it on all gateways.
pub async fn carry_out_one(registry: &Registry, command: Command) -> Outcome {
    carry_out(registry, registry.cluster(), command).await
}

async fn carry_out(registry: &Registry, cluster: Option<&Arc<Cluster>>, command: Command) -> Outcome {
    let mut work = Work { registry, cluster, except: None, own: None, repeats: false, repeated: None, count: 0 };
    match work.begin(command) {
        Ok(outcome) => outcome,
        Err(command) => Box::pin(work.carry_out(*command)).await.0.outcome().await,
    }
}
