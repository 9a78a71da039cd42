//! What operators, internal systems and plugins ask of the connections of all gateways. Without a cluster, these are
//! the connections of this one.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::blocks::Full;
use super::cluster::Target;
use super::cluster::handle::{Cluster, Sent};
use super::cluster::id::NodeId;
use super::cluster::machine_clock::Deadline;
use super::cluster::page::{Page, PageWriter};
use super::cluster::parcel::{Parcel, encode_is_member, encode_kick, encode_lift, encode_members, encode_outcome};
use super::command::{Closing, Command, Elsewhere, Membership, Outcome, Recipient};
use super::delivery::elsewhere::{apply_for_others, carry_out_one};
use super::registry::{Peer, REPLACED, Registry};
use crate::base::message::{Cause, ConnectionId};

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
            Recipient::Uid(uid) if block.is_none() && cluster.connections_elsewhere(uid) == 0 => {
                Sent::Refused(cluster.nobody_elsewhere())
            }
            _ => cluster.send_to_joining_too(&parcel),
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

/// Waits for what becomes of a command on other gateways. The cluster answers in time.
pub async fn answer(sent: Option<Sent>) -> Outcome {
    match sent {
        None | Some(Sent::Nowhere) => Outcome::OFFLINE,
        Some(Sent::Refused(outcome)) => outcome,
        Some(Sent::Away(answer)) => answer.await.unwrap_or(Outcome::failed(Elsewhere::Unknown)),
    }
}

/// Lets a uid in again. Its `reached` counts the gateways that kept it out.
pub async fn lift(registry: &Registry, uid: &str) -> Outcome {
    let sent = registry.cluster().map(|cluster| cluster.send_to_joining_too(&encode_lift(uid)));
    let mut sum = lift_here(registry, uid);
    sum += answer(sent).await;
    sum
}

fn lift_here(registry: &Registry, uid: &str) -> Outcome {
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

/// Adds the uids that are in a group on other gateways to those of this gateway, until there are `limit` for which
/// `wanted` returns `true`. Takes at most `cluster.timeout`, and at most `time`.
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
    let ask = async |node, after| {
        let asked = cluster.ask_gateway(node, encode_members(group, after, limit));
        let answers = asked.await.unwrap_or_default();
        (node, answers.into_iter().next().and_then(|answer| Page::decode(answer, after).ok()))
    };
    let until = Instant::now() + cluster.timeout().min(time);
    members.missing = cluster.others();
    members.is_complete = cluster.nobody_elsewhere() == Outcome::OFFLINE;
    let mut pages: FuturesUnordered<_> = members.missing.iter().map(|&node| ask(node, 0)).collect();
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
            Some(next) => pages.push(ask(node, next)),
            None => members.missing.retain(|missing| *missing != node),
        }
    }
    if members.uids.len() >= limit {
        members.missing.clear();
    }
    members.is_complete &= members.missing.is_empty();
    members
}

/// Returns `true` if a connection is in a group, as far as its gateway says so within the time `time`.
pub async fn is_member(registry: &Registry, connection: ConnectionId, group: &str, time: Duration) -> bool {
    match registry.cluster().filter(|own| is_foreign(own, connection)) {
        None => registry.is_member(connection, group),
        Some(cluster) => {
            let node = NodeId::from_low_bits(connection.node().into());
            let asked = cluster.ask_gateway(node, encode_is_member(connection, group));
            let answers = timeout(time, answers(asked)).await.unwrap_or_default();
            answers.iter().any(|answer| answer[..] == [1])
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

/// Carries out what another gateway asks for. `target` says which login it means, if it means one. Returns the answer.
pub async fn carry_out_for_others(registry: &Registry, parcel: Parcel, target: Target, deadline: Deadline) -> Bytes {
    match parcel {
        Parcel::Kick(closing, block) => {
            if let (Recipient::Uid(uid), 1..) = (&closing.who, block) {
                // If the list is full, the gateway that asked says so for its own.
                _ = registry.blocks.insert(uid.clone(), Duration::from_secs(block.into()));
            }
            encode_outcome(&kick_here(registry, &closing))
        }
        Parcel::Lift(uid) => encode_outcome(&lift_here(registry, &uid)),
        Parcel::Members { group, after, limit } => {
            let (mut page, mut left) = (PageWriter::begin(), limit);
            let next = registry.visit_group(&group, ConnectionId(after), |uid| {
                let is_taken = left > 0 && page.add(uid);
                left = left.saturating_sub(1);
                is_taken
            });
            page.end(next)
        }
        Parcel::IsMember(connection, group) => {
            Bytes::from_static(if registry.is_member(connection, &group) { &[1] } else { &[0] })
        }
        Parcel::Command(command) => encode_outcome(&apply_for_others(registry, command, target, deadline).await),
        Parcel::Replace(uid, stamp) => {
            for peer in registry.of_uid(&uid).iter().filter(|peer| peer.stamp() < stamp) {
                peer.outbox.close(REPLACED, Cause::Replaced);
            }
            encode_outcome(&Outcome::OFFLINE)
        }
        Parcel::Question(question) => match registry.cluster() {
            Some(cluster) => cluster.questions.answer(question).await,
            None => Bytes::new(),
        },
    }
}
