//! What operators, internal systems and plugins ask of the connections of all gateways. Without a cluster, these are
//! the connections of this one.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use tokio::sync::oneshot;

use super::blocks::Full;
use super::cluster::handle::{Cluster, Sent};
use super::cluster::parcel::{
    Parcel, decode_uids, encode_is_member, encode_kick, encode_members, encode_outcome, encode_uids,
};
use super::command::{Closing, Command, Elsewhere, Membership, Outcome, Recipient};
use super::delivery::elsewhere::{apply_for_others, carry_out_one};
use super::registry::{Peer, REPLACED, Registry};
use crate::base::message::{Cause, ConnectionId};

/// The most uids of one group that another gateway lists.
const LISTED: usize = 10_000;

/// Closes connections for an operator. First, keeps a uid out for the time `block`. Returns the number of connections
/// that are closed, by what could be learned from other gateways.
///
/// # Errors
/// If too many uids are kept out already.
pub async fn kick(registry: &Registry, closing: Closing, block: Option<Duration>) -> Result<Outcome, Full> {
    if let (Recipient::Uid(uid), Some(time)) = (&closing.who, block) {
        registry.blocks.insert(uid.clone(), time)?;
    }
    let sent = registry.cluster().map(|cluster| {
        let seconds = block.map_or(0, |time| u32::try_from(time.as_secs()).unwrap_or(u32::MAX));
        let parcel = encode_kick(&closing, seconds);
        match &closing.who {
            Recipient::Connection(id) => cluster.send_to_connection(*id, parcel),
            Recipient::Uid(uid) if block.is_none() && cluster.connections_elsewhere(uid) == 0 => Sent::Nowhere,
            _ => cluster.send_to_all(&parcel),
        }
    });
    let mut sum = kick_here(registry, &closing);
    sum += answer(sent).await;
    Ok(sum)
}

fn kick_here(registry: &Registry, Closing { who, reason }: &Closing) -> Outcome {
    let peers: Vec<Arc<Peer>> = match who {
        Recipient::Connection(id) => registry.connection(*id).into_iter().collect(),
        Recipient::Uid(uid) => registry.of_uid(uid),
        Recipient::Group(_) | Recipient::GroupOthers(_) | Recipient::Everyone => Vec::new(),
    };
    let closed = peers.iter().filter(|peer| peer.outbox.close(reason.clone(), Cause::Operator)).count();
    Outcome { reached: closed, ..Outcome::OFFLINE }
}

async fn answer(sent: Option<Sent>) -> Outcome {
    match sent {
        None | Some(Sent::Nowhere) => Outcome::OFFLINE,
        Some(Sent::Refused(outcome)) => outcome,
        Some(Sent::Away(answer)) => answer.await.unwrap_or(Outcome::failed(Elsewhere::Unknown)),
    }
}

/// Lists the uids in a group for which `wanted` returns `true`, each once, at most `limit` of them. Other gateways list
/// some thousands each.
pub async fn members(registry: &Registry, group: &str, limit: usize, wanted: impl Fn(&str) -> bool) -> Vec<ByteString> {
    let asked = registry.cluster().map(|cluster| {
        let limit = u32::try_from(limit.min(LISTED)).unwrap_or(u32::MAX);
        cluster.ask_all(&encode_members(group, limit))
    });
    let here = registry.uids_in_group(group, limit, &wanted);
    let Some(asked) = asked else { return here };
    let mut all: HashSet<_> = here.into_iter().collect();
    for uids in answers(asked).await {
        for uid in decode_uids(uids) {
            if all.len() < limit && wanted(&uid) {
                all.insert(uid);
            }
        }
    }
    all.into_iter().collect()
}

/// Returns `true` if a connection is in a group.
pub async fn is_member(registry: &Registry, connection: ConnectionId, group: &str) -> bool {
    match registry.cluster().filter(|own| is_foreign(own, connection)) {
        None => registry.is_member(connection, group),
        Some(cluster) => {
            let asked = cluster.ask_gateway_of(connection, encode_is_member(connection, group));
            answers(asked).await.iter().any(|answer| answer[..] == [1])
        }
    }
}

/// Returns `true` if a connection is on another gateway, by its id.
pub fn is_foreign(own: &Cluster, connection: ConnectionId) -> bool {
    own.id().get() != connection.node()
}

/// The cluster answers in time; nothing if the question could not be asked.
async fn answers(asked: oneshot::Receiver<Vec<Bytes>>) -> Vec<Bytes> {
    asked.await.unwrap_or_default()
}

/// Puts the connections that a message to this uid reaches into a group, or takes them out. Returns their number.
pub async fn change_membership(registry: &Registry, uid: ByteString, group: ByteString, is_join: bool) -> Outcome {
    let membership = Membership { who: Recipient::Uid(uid), group };
    let command = if is_join { Command::Join(membership) } else { Command::Leave(membership) };
    carry_out_one(registry, command).await
}

/// Carries out what another gateway asks for. `seen` is the stamp of the uid's newest login that the other gateway knew
/// to be here. Returns the answer.
pub async fn carry_out_for_others(registry: &Registry, parcel: Parcel, seen: Option<u64>) -> Bytes {
    match parcel {
        Parcel::Kick(closing, block) => {
            if let (Recipient::Uid(uid), 1..) = (&closing.who, block) {
                // If the list is full, the gateway that asked says so for its own.
                _ = registry.blocks.insert(uid.clone(), Duration::from_secs(block.into()));
            }
            encode_outcome(kick_here(registry, &closing))
        }
        Parcel::Members(group, limit) => {
            encode_uids(&registry.uids_in_group(&group, LISTED.min(limit as usize), |_| true))
        }
        Parcel::IsMember(connection, group) => {
            Bytes::from_static(if registry.is_member(connection, &group) { &[1] } else { &[0] })
        }
        Parcel::Command(command) => encode_outcome(apply_for_others(registry, command, seen).await),
        Parcel::Replace(uid, stamp) => {
            for peer in registry.of_uid(&uid).iter().filter(|peer| peer.stamp() < stamp) {
                peer.outbox.close(REPLACED, Cause::Replaced);
            }
            encode_outcome(Outcome::OFFLINE)
        }
    }
}
