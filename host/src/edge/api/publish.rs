//! Sends one message of the API: permission, the router's ruling, delivery, and what became of it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::{Instant, timeout};

use super::caller::Publisher;
use super::idempotency::{Begun, Reservation, Stored, replayed};
use super::shared::{Served, Shared};
use super::target::Target;
use crate::base::message::Message;
use crate::base::metrics::{METRICS, PushFailure, PushWay};
use crate::config::ApiRules;
use crate::edge::http::problem::{Problem, Reason};
use crate::hub::command::{self, Command, Delivery, Elsewhere, Outcome, Recipient, Ruling};
use crate::hub::delivery;
use crate::hub::registry::Registry;

/// How long a message to a group or to everyone waits for its turn.
const TURN: Duration = Duration::from_secs(30);

/// A message to send.
pub(super) struct Push {
    pub(super) target: Target,
    pub(super) message: Message,
    /// The idempotency key, and the fingerprint of the request that has it.
    pub(super) key: Option<(String, [u8; 32])>,
}

/// What became of a message.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Delivered {
    /// The number of connections that it reached.
    pub(super) reached: usize,
    /// Of several uids: those with no connection.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) offline: Vec<ByteString>,
    /// Of several uids: those whose outbox was full.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) full: Vec<ByteString>,
    /// Of several uids: those for which there was no memory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) budget: Vec<ByteString>,
    /// Of several uids: those whose gateway did not get the message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) unreachable: Vec<ByteString>,
    /// Of several uids: those whose gateway did not answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) unknown: Vec<ByteString>,
    /// The gateways that did not get the message in time, or did not answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) missing: Vec<u16>,
    /// Set if other gateways may not have got the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) complete: Option<bool>,
    /// True if the message has reached somebody, or if nobody knows: it must not be sent again.
    #[serde(skip)]
    pub(super) may_have_arrived: bool,
    /// True for the answer to an earlier request with the same key.
    #[serde(skip)]
    pub(super) is_replay: bool,
}

/// Why a message has reached nobody.
#[derive(Debug)]
pub(super) struct Unreached {
    pub(super) problem: Problem,
    /// The uids, by what happened to each, if there were several.
    pub(super) delivered: Box<Delivered>,
}

impl From<Problem> for Unreached {
    fn from(problem: Problem) -> Self {
        Self { problem, delivered: Box::default() }
    }
}

impl IntoResponse for Unreached {
    fn into_response(self) -> Response {
        let Self { problem, delivered } = self;
        let Delivered { offline, full, budget, unreachable, unknown, missing, .. } = &*delivered;
        let is_replay = replayed(delivered.is_replay);
        if [offline, full, budget, unreachable, unknown].into_iter().all(Vec::is_empty) && missing.is_empty() {
            return (is_replay, problem).into_response();
        }
        let (status, headers, mut body) = problem.into_parts();
        if let (Value::Object(body), Ok(Value::Object(lists))) = (&mut body, serde_json::to_value(delivered)) {
            body.extend(lists);
        }
        (status, is_replay, headers, Json(body)).into_response()
    }
}

/// Sends a message. Does not charge the token's rate: the handler has done it.
pub(super) async fn publish(shared: &Arc<Shared>, publisher: &Publisher, push: Push) -> Result<Delivered, Unreached> {
    let begun = Instant::now();
    let result = try_publish(shared, publisher, push).await;
    match &result {
        Ok(delivered) if delivered.is_replay => return result,
        Err(unreached) if unreached.delivered.is_replay => return result,
        Ok(_) => METRICS.pushes_ok.increment(),
        Err(unreached) => METRICS.pushes_failed.increment(match unreached.problem.reason {
            Reason::Offline | Reason::Full | Reason::Moved | Reason::Expired => PushFailure::Unreached,
            Reason::Unreachable | Reason::Unknown => PushFailure::Unreached,
            Reason::Budget => PushFailure::NoRoom,
            Reason::Failed => PushFailure::Failed,
            _ => PushFailure::Refused,
        }),
    }
    METRICS.push_seconds.observe(PushWay::Http, begun.elapsed());
    result
}

async fn try_publish(
    shared: &Arc<Shared>,
    publisher: &Publisher,
    Push { target, message, key }: Push,
) -> Result<Delivered, Unreached> {
    let served = shared.served()?;
    target.permit(&publisher.grant, &served.registry)?;
    let reservation = match key {
        None => None,
        Some((key, fingerprint)) => match reserve(shared, publisher, &key, fingerprint)? {
            Reserved::New(reservation) => Some(reservation),
            Reserved::Answered(stored) => return replay(&stored),
        },
    };
    let ruled = rule(shared, served, publisher, &target, &message).await?;
    let offline = if ruled.is_some() { "the router's deliveries reached nobody" } else { target.offline() };
    let work = match ruled {
        Some(commands) => Work { commands, uids: Vec::new(), reservation },
        None => {
            let deliver = |to| Command::Deliver(Delivery { to, message: message.clone(), otherwise: None });
            let mut to = target.recipients();
            // The last one needs no copy. With one recipient, the message stays the only holder of its bytes.
            let last = to.pop();
            let mut commands: Vec<_> = to.into_iter().map(deliver).collect();
            commands.extend(last.map(|to| Command::Deliver(Delivery { to, message, otherwise: None })));
            Work { commands, uids: target.uids().to_vec(), reservation }
        }
    };
    let Done { reason, delivered } = match work.is_short(&served.registry) {
        true => work.carry_out(&served.registry).await,
        false => carry_out_all(shared, served, work).await?,
    };
    match reason {
        None => Ok(delivered),
        Some(reason) => Err(unreached(reason, offline, delivered)),
    }
}

/// Says why a message has reached nobody.
fn unreached(reason: Reason, offline: &str, delivered: Delivered) -> Unreached {
    let error = match reason {
        Reason::Full => "the client does not read fast enough (outbox.max_bytes): it is closed with 4905",
        Reason::Budget => "the outboxes of all connections are full (outbox.total_bytes)",
        Reason::Moved => "the client is just moving to another gateway",
        Reason::Expired => "the message came to another gateway too late; it was not sent",
        Reason::Unreachable => "the client's gateway cannot be reached, or others do not answer this one",
        Reason::Unknown => "another gateway has not answered in time (cluster.timeout): the message may have been sent",
        _ => offline,
    };
    Unreached { problem: Problem::new(reason, error), delivered: Box::new(delivered) }
}

/// Asks the router about a message, if `api.rules` says so. Returns the commands to apply in place of the message, or
/// `None` to send the message as it is.
async fn rule(
    shared: &Shared,
    served: &Served,
    publisher: &Publisher,
    target: &Target,
    message: &Message,
) -> Result<Option<Vec<Command>>, Problem> {
    if shared.config.rules == ApiRules::Direct {
        return Ok(None);
    }
    let asking = command::Publisher {
        connection: publisher.connection,
        token: publisher.grant.name().into(),
        remote_address: publisher.remote.to_string(),
    };
    match served.policy.router.publish(&asking, &target.recipients(), message).await {
        Ok(Ruling::Pass) => Ok(None),
        Ok(Ruling::Instead(commands)) => Ok(Some(commands)),
        Ok(Ruling::Refuse(text)) => Err(Problem::new(Reason::Refused, text)),
        Err(_logged) => Err(Problem::new(Reason::Failed, "the router failed or has too many calls; nothing was sent")),
    }
}

/// A new key, or the answer to an earlier request.
pub(super) enum Reserved {
    New(Reservation),
    Answered(Stored),
}

/// Reserves a key.
pub(super) fn reserve(
    shared: &Shared,
    publisher: &Publisher,
    key: &str,
    fingerprint: [u8; 32],
) -> Result<Reserved, Problem> {
    match shared.idempotency.begin(publisher.grant.name(), key, fingerprint) {
        Begun::Fresh(reservation) => Ok(Reserved::New(reservation)),
        Begun::Replay(stored) => Ok(Reserved::Answered(stored)),
        Begun::InFlight => {
            Err(Problem::new(Reason::InFlight, "a request with this idempotency key is being carried out"))
        }
        Begun::Full => {
            let error = "too many requests with idempotency keys are being carried out (api.idempotency_entries)";
            Err(Problem::new(Reason::Budget, error))
        }
        Begun::Reused => Err(Problem::new(Reason::KeyReused, "this idempotency key belongs to another request")),
    }
}

/// Returns the reason of an answer for a message that did not get to another gateway, or may not have.
pub(super) fn reason_of(why: Elsewhere) -> Reason {
    match why {
        Elsewhere::Moved => Reason::Moved,
        Elsewhere::Expired => Reason::Expired,
        Elsewhere::Unreachable => Reason::Unreachable,
        Elsewhere::Overload => Reason::Budget,
        Elsewhere::Unknown => Reason::Unknown,
    }
}

fn replay(stored: &Stored) -> Result<Delivered, Unreached> {
    let delivered = serde_json::from_slice(&stored.body).unwrap_or_default();
    let delivered = Delivered { may_have_arrived: true, is_replay: true, ..delivered };
    // Nothing else is kept than what has arrived, or may have.
    let reason = match stored.status {
        200 => return Ok(delivered),
        409 => Reason::Full,
        503 => Reason::Budget,
        _ => Reason::Unknown,
    };
    Err(unreached(reason, "", delivered))
}

/// Commands to apply.
struct Work {
    commands: Vec<Command>,
    /// The uid of each command, if the answer lists uids.
    uids: Vec<ByteString>,
    reservation: Option<Reservation>,
}

/// What became of all commands.
struct Done {
    /// Why the message has reached nobody.
    reason: Option<Reason>,
    delivered: Delivered,
}

impl Work {
    /// Returns `true` for a message to one connection of this gateway: it is carried out at once, without waiting in
    /// between. In a cluster, it may have to wait for another gateway.
    fn is_short(&self, registry: &Registry) -> bool {
        if registry.cluster().is_some() {
            return false;
        }
        match &self.commands[..] {
            [Command::Deliver(Delivery { to: Recipient::Connection(_), .. })] => true,
            [Command::Deliver(Delivery { to: Recipient::Uid(_), .. })] => registry.reaches_one_of_a_uid(),
            _ => false,
        }
    }

    /// Returns `true` if a message goes to all connections of a set.
    fn is_broadcast(&self) -> bool {
        let is_set = |to: &Recipient| !matches!(to, Recipient::Uid(_) | Recipient::Connection(_));
        self.commands.iter().any(|command| matches!(command, Command::Deliver(Delivery { to, .. }) if is_set(to)))
    }

    /// Applies the commands. Keeps the answer for requests with the same key, if the message may have reached somebody.
    async fn carry_out(self, registry: &Registry) -> Done {
        let is_broadcast = self.is_broadcast();
        let Self { commands, uids, reservation } = self;
        let (mut deliveries, mut sum, mut delivered) = (0, Outcome::default(), Delivered::default());
        let mut count = |number: usize, outcome: Outcome| {
            let list = match outcome {
                Outcome { reached: 1.., .. } => None,
                Outcome { full: 1.., .. } => Some(&mut delivered.full),
                Outcome { over_budget: 1.., .. } => Some(&mut delivered.budget),
                Outcome { elsewhere: Some(Elsewhere::Overload), .. } => Some(&mut delivered.budget),
                Outcome { elsewhere: Some(Elsewhere::Unknown), .. } => Some(&mut delivered.unknown),
                Outcome { elsewhere: Some(_), .. } => Some(&mut delivered.unreachable),
                _ => Some(&mut delivered.offline),
            };
            if let (Some(list), Some(uid)) = (list, uids.get(number)) {
                list.push(uid.clone());
            }
            deliveries += 1;
            sum += outcome;
        };
        let unanswered = delivery::apply_commands(registry, commands, &mut count).await;
        unanswered.answers(count).await;
        delivered.reached = sum.reached;
        delivered.missing = sum.missing.iter().map(|node| node.get()).collect();
        delivered.missing.sort_unstable();
        delivered.missing.dedup();
        delivered.complete = sum.elsewhere.filter(|_| is_broadcast).map(|_| false);
        delivered.may_have_arrived = sum.reached > 0 || sum.elsewhere == Some(Elsewhere::Unknown);
        let reason = match sum {
            Outcome { reached: 1.., .. } => None,
            Outcome { over_budget: 1.., .. } if is_broadcast => Some(Reason::Budget),
            _ if is_broadcast || deliveries == 0 => None,
            Outcome { full: 1.., .. } => Some(Reason::Full),
            Outcome { over_budget: 1.., .. } => Some(Reason::Budget),
            Outcome { elsewhere: Some(why), .. } => Some(reason_of(why)),
            _ => Some(Reason::Offline),
        };
        if let Some(reservation) = reservation.filter(|_| delivered.may_have_arrived) {
            let status = reason.map_or(200, |reason| reason.status().as_u16());
            let body = serde_json::to_vec(&delivered).map(Bytes::from).unwrap_or_default();
            reservation.keep(Stored { status, body });
        }
        Done { reason, delivered }
    }
}

/// Applies commands in a task of their own: they are carried out completely, even if the client leaves meanwhile. Few
/// broadcasts run at a time.
async fn carry_out_all(shared: &Arc<Shared>, served: &Served, work: Work) -> Result<Done, Problem> {
    let turn = match work.is_broadcast() {
        false => None,
        true => {
            let turn = timeout(TURN, shared.broadcasts.clone().acquire_owned()).await;
            let error = "too many messages to groups or to everyone wait: send fewer at a time";
            Some(turn.ok().and_then(Result::ok).ok_or_else(|| Problem::new(Reason::Budget, error))?)
        }
    };
    let registry = served.registry.clone();
    let task = shared.tasks.spawn(async move {
        let done = work.carry_out(&registry).await;
        drop(turn);
        done
    });
    task.await.map_err(|error| Problem::new(Reason::Internal, error))
}
