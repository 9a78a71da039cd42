//! What operators, internal systems and plugins ask of the connections of all gateways. Without a cluster, these are
//! the connections of this one.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::{Instant, timeout, timeout_at};

use super::blocks::Full;
use super::cluster::handle::Sent;
use super::cluster::id::NodeId;
use super::cluster::page::Page;
use super::cluster::parcel::{encode_is_member, encode_kick, encode_lift, encode_members};
use super::command::{Closing, Command, Elsewhere, Membership, Outcome, Recipient};
use super::delivery::elsewhere::carry_out_one;
use super::registry::{Peer, Registry};
use crate::base::message::{Cause, ConnectionId};

/// Closes connections for an operator, on all gateways. First, keeps a uid out for the time `block`. Returns the number
/// of connections that are closed, by what could be learned from other gateways.
///
/// # Errors
/// If this gateway keeps too many uids out already.
pub async fn kick(registry: &Registry, closing: Closing, block: Option<Duration>) -> Result<Outcome, Full> {
    let mut sum = kick_here(registry, &closing, block)?;
    if let Some(cluster) = registry.cluster() {
        let seconds = block.map_or(0, |time| u32::try_from(time.as_secs()).unwrap_or(u32::MAX));
        let parcel = encode_kick(&closing, seconds);
        let sent = match &closing.who {
            Recipient::Connection(id) => cluster.send_to_connection(*id, parcel),
            Recipient::Uid(uid) if block.is_none() && cluster.connections_elsewhere(uid) == 0 => {
                match cluster.may_say_offline() {
                    true => Sent::Nowhere,
                    false => Sent::Refused(Outcome::failed(Elsewhere::Unreachable)),
                }
            }
            _ => cluster.send_to_joining_too(&parcel),
        };
        sum += sent.outcome().await;
    }
    Ok(sum)
}

/// Does the same on this gateway. Connections are closed even if the uid cannot be kept out.
///
/// # Errors
/// If this gateway keeps too many uids out already.
pub fn kick_here(registry: &Registry, closing: &Closing, block: Option<Duration>) -> Result<Outcome, Full> {
    let Closing { who, reason } = closing;
    // First, so that nobody logs in again in between.
    let blocked = match (who, block) {
        (Recipient::Uid(uid), Some(time)) => registry.blocks.insert(uid.clone(), time),
        _ => Ok(()),
    };
    let peers: Vec<Arc<Peer>> = match who {
        Recipient::Connection(id) => registry.connection(*id).into_iter().collect(),
        Recipient::Uid(uid) => registry.of_uid(uid),
        Recipient::Group(_) | Recipient::GroupOthers(_) | Recipient::Everyone => Vec::new(),
    };
    let closed = peers.iter().filter(|peer| peer.outbox.close(reason.clone(), Cause::Operator)).count();
    blocked?;
    Ok(Outcome { reached: closed, ..Outcome::OFFLINE })
}

/// Lets a uid in again, on all gateways. Its `reached` counts those that kept it out.
pub async fn lift(registry: &Registry, uid: &str) -> Outcome {
    let mut sum = lift_here(registry, uid);
    if let Some(cluster) = registry.cluster() {
        sum += cluster.send_to_joining_too(&encode_lift(uid)).outcome().await;
    }
    sum
}

/// Lets a uid in again, on this gateway.
pub fn lift_here(registry: &Registry, uid: &str) -> Outcome {
    Outcome { reached: usize::from(registry.blocks.lift(uid)), ..Outcome::OFFLINE }
}

/// The uids in a group.
#[derive(Debug, Default)]
pub struct Members {
    /// The uids, each once.
    pub uids: HashSet<ByteString>,
    /// False if there may be more on other gateways.
    pub is_complete: bool,
    /// The gateways that have not listed all that was asked for.
    pub missing: Vec<NodeId>,
}

/// The fewest connections that a gateway is asked for again, if it may have more than it has listed: those that it
/// listed were not wanted, or known already.
const AGAIN: usize = 100;

/// Adds the uids that are in a group on other gateways to those of this gateway, until there are `limit` for which
/// `wanted` returns `true`. Each gateway is asked for as many as are missing, a page of 48 KiB at a time; none is asked
/// once there are enough. Takes at most `cluster.timeout`, and at most `time`.
pub async fn members(
    registry: &Registry,
    here: Vec<ByteString>,
    group: &str,
    limit: usize,
    time: Duration,
    wanted: impl Fn(&str) -> bool,
) -> Members {
    let mut members = Members { uids: here.into_iter().collect(), is_complete: true, missing: Vec::new() };
    let Some(cluster) = registry.cluster() else { return members };
    let ask = async |node, after, most| {
        let asked = cluster.ask_gateway(node, encode_members(group, after, most));
        (node, asked.await.ok().and_then(|answer| Page::decode(answer, after).ok()))
    };
    let until = Instant::now() + cluster.timeout().min(time);
    members.missing = cluster.others();
    members.is_complete = cluster.may_say_offline();
    let left = limit.saturating_sub(members.uids.len());
    let mut pages: FuturesUnordered<_> = members.missing.iter().map(|&node| ask(node, 0, left)).collect();
    while members.uids.len() < limit
        && let Ok(Some((node, page))) = timeout_at(until, pages.next()).await
    {
        let Some(Page { uids, next }) = page else { continue };
        for uid in uids {
            if members.uids.len() < limit && wanted(&uid) {
                members.uids.insert(uid);
            }
        }
        match next {
            Some(next) => pages.push(ask(node, next, limit.saturating_sub(members.uids.len()).max(AGAIN))),
            None => members.missing.retain(|missing| *missing != node),
        }
    }
    if members.uids.len() >= limit {
        members.missing.clear();
    }
    members.is_complete &= members.missing.is_empty();
    members
}

/// Returns `true` if a connection is in a group, as far as its gateway says so within the time `time`. No other gateway
/// is asked, and the answer is one byte.
pub async fn is_member(registry: &Registry, connection: ConnectionId, group: &str, time: Duration) -> bool {
    match registry.cluster().filter(|own| own.is_foreign(connection)) {
        None => registry.is_member(connection, group),
        Some(cluster) => {
            let node = NodeId::from_low_bits(connection.node().into());
            let asked = cluster.ask_gateway(node, encode_is_member(connection, group));
            timeout(time, asked).await.is_ok_and(|answer| answer.is_ok_and(|answer| answer[..] == [1]))
        }
    }
}

/// Puts the connections that a message to this uid reaches into a group, or takes them out. Returns their number.
pub async fn change_membership(registry: &Registry, uid: ByteString, group: ByteString, is_join: bool) -> Outcome {
    let membership = Membership { who: Recipient::Uid(uid), group };
    let command = if is_join { Command::Join(membership) } else { Command::Leave(membership) };
    carry_out_one(registry, command).await
}
