//! Applies the decisions of plugins: finds the recipients and fills their outboxes. In a cluster, also sends them to
//! the other gateways. Nothing here waits for a client.

mod changes;
pub mod elsewhere;
mod issued;
mod relief;
mod repeats;
#[cfg(test)]
mod tests;
mod traced;

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::yield_now;

use self::issued::Issued;
pub use self::issued::Unanswered;
pub use self::relief::queue;
use self::relief::{counted, relieve};
use self::repeats::{payload, repeats};
pub use self::traced::result;
use self::traced::{TracedAction, awaited, became, described, missed};
use crate::base::message::{ConnectionId, Message};
use crate::base::metrics::{METRICS, Overflow};
use crate::hub::cluster::handle::{Cluster, Sent};
use crate::hub::cluster::machine_clock::Deadline;
use crate::hub::command::{Action, Command, Delivery, Elsewhere, Outcome, Recipient};
use crate::hub::outbox::{Refused, SHARED_COST, Shared, cost};
use crate::hub::registry::{PART, Peer, Registry, Several};

/// The effects of actions that the session's own connection must apply itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SessionEffects {
    /// The session's new state.
    pub remember: Option<Bytes>,
    /// True if the packet must go to the authenticators.
    pub authenticate: bool,
}

/// The rest of the work, in a box: otherwise every connection would reserve memory for it.
pub type Rest<'a> = Pin<Box<dyn Future<Output = SessionEffects> + Send + 'a>>;

/// Applies the router's actions for the session of `own`, in order.
pub async fn apply(registry: &Registry, own: &Arc<Peer>, actions: Vec<Action>) -> SessionEffects {
    match apply_at_once(registry, own, actions) {
        Ok(effects) => effects,
        Err(rest) => rest.await,
    }
}

/// Applies the actions that need no waiting, which usually are all of them.
///
/// # Errors
/// The rest, which must be awaited. It may wait for another gateway; the client must be served meanwhile.
pub fn apply_at_once<'a>(
    registry: &'a Registry,
    own: &'a Arc<Peer>,
    actions: Vec<Action>,
) -> Result<SessionEffects, Rest<'a>> {
    let repeats = repeats(&actions, |action| match action {
        Action::Command(command) => payload(command),
        Action::Reply(message) => Some(message),
        Action::Remember(_) | Action::Authenticate => None,
    });
    let mut work = Work { except: Some(own.id), own: Some(own), repeats, ..Work::new(registry, registry.cluster()) };
    let (mut effects, mut actions) = (SessionEffects::default(), actions.into_iter());
    while let Some(action) = actions.next() {
        let mut left = work.take(action, &mut effects);
        if left.is_some() || work.count >= PART {
            return Err(Box::pin(async move {
                loop {
                    if let Some(command) = left {
                        let issued = work.carry_out(*command).await;
                        work.traced.take().into_iter().for_each(|traced| traced.issued(&issued.0));
                        work.answer_otherwise(issued).await;
                    }
                    work.yield_if_many().await;
                    let Some(action) = actions.next() else { return effects };
                    left = work.take(action, &mut effects);
                }
            }));
        }
    }
    Ok(effects)
}

/// Applies commands that belong to no session, in order. Passes what became of each delivery to `each`, with its number
/// among the deliveries. Returns those about which other gateways have not answered yet.
pub async fn apply_commands(
    registry: &Registry,
    commands: Vec<Command>,
    mut each: impl FnMut(usize, Outcome),
) -> Unanswered {
    let repeats = repeats(&commands, payload);
    let mut work = Work { repeats, ..Work::new(registry, registry.cluster()) };
    let (mut number, mut unanswered) = (0, Unanswered::default());
    for command in commands {
        let is_delivery = matches!(command, Command::Deliver(_));
        let issued = match work.begin(command) {
            Ok(outcome) => Issued::Done(outcome),
            Err(command) => Box::pin(work.carry_out(*command)).await.0,
        };
        match issued {
            _ if !is_delivery => {}
            Issued::Done(outcome) => each(number, outcome),
            Issued::Away(here, answer) => unanswered.add(number, here, answer),
        }
        number += usize::from(is_delivery);
        work.yield_if_many().await;
    }
    unanswered
}

/// The state of applying the commands of one call.
struct Work<'a> {
    registry: &'a Registry,
    /// The other gateways, unless the work concerns this gateway only.
    cluster: Option<&'a Arc<Cluster>>,
    /// The connection that [`Recipient::GroupOthers`] leaves out.
    except: Option<ConnectionId>,
    /// The connection that gets replies, and each `otherwise`.
    own: Option<&'a Arc<Peer>>,
    /// True if several commands carry the packet itself: its payload is then charged once, with the first of them.
    repeats: bool,
    /// The packet, once it has been charged.
    repeated: Option<Box<Shared>>,
    /// Connections handled since this task last yielded.
    count: usize,
    /// The action that is carried out, if the session is followed.
    traced: Option<Box<TracedAction>>,
    /// After this, no message enters an outbox.
    deadline: Option<Deadline>,
}

/// The connections that a command concerns.
enum Found<'a> {
    /// At most one connection, of this gateway; `None` if it does not exist.
    One(Option<Arc<Peer>>),
    /// Several connections of this gateway, and in a cluster of the others.
    Several(Several<'a>),
    /// At most one connection, of another gateway; with the stamp of the uid's newest login on this one, if it has one.
    Elsewhere(Option<u64>),
}

impl<'a> Work<'a> {
    fn new(registry: &'a Registry, cluster: Option<&'a Arc<Cluster>>) -> Self {
        let (except, own, repeated, traced, deadline) = (None, None, None, None, None);
        Self { registry, cluster, except, own, repeats: false, repeated, count: 0, traced, deadline }
    }

    /// Applies one action, or notes it in `effects`. Returns the command that cannot be applied at once, if any.
    fn take(&mut self, action: Action, effects: &mut SessionEffects) -> Option<Box<Command>> {
        self.traced = TracedAction::of(self.own, &action);
        let outcome = match action {
            Action::Command(command) => self.begin(command).map(Some),
            Action::Reply(message) => self.reply(message).map(|()| None),
            Action::Remember(state) => {
                effects.remember = Some(state);
                Ok(None)
            }
            Action::Authenticate => {
                effects.authenticate = true;
                Ok(None)
            }
        };
        match outcome {
            Ok(outcome) => {
                self.traced.take().into_iter().for_each(|traced| traced.done(outcome.as_ref()));
                None
            }
            Err(left) => Some(left),
        }
    }

    /// Applies one command. Returns what became of its message; or of the change that it asks for.
    ///
    /// # Errors
    /// The command, or the rest of it, if it concerns several connections, or if there is no room for a message.
    fn begin(&mut self, command: Command) -> Result<Outcome, Box<Command>> {
        let Found::One(only) = self.find(command.recipient()) else { return Err(Box::new(command)) };
        match (command, only) {
            (Command::Deliver(Delivery { to, message, otherwise }), only) => {
                let outcome = match only {
                    None => {
                        self.count += 1;
                        awaited(&to, &message).into_iter().for_each(|awaited| missed(*awaited));
                        Outcome::OFFLINE
                    }
                    Some(only) => match self.send(&only, message) {
                        Ok(outcome) => outcome,
                        Err(message) => return Err(Box::new(Command::Deliver(Delivery { to, message, otherwise }))),
                    },
                };
                if let Some(otherwise) = otherwise.filter(|_| outcome.reached == 0) {
                    // The rest of the work, if any, is about another message.
                    self.traced.take().into_iter().for_each(|traced| traced.done(Some(&outcome)));
                    self.reply(otherwise)?;
                }
                Ok(outcome)
            }
            (command, only) => {
                self.count += 1;
                Ok(only.map_or(Outcome::OFFLINE, |only| self.change(&command, &only)))
            }
        }
    }

    /// Applies a command that [`begin`](Self::begin) returned. Returns what became of it, and the message for the
    /// session's own connection if it reached nobody.
    async fn carry_out(&mut self, command: Command) -> (Issued, Option<Message>) {
        // A command without recipients takes time, too.
        self.count += 1;
        let found = self.find(command.recipient());
        let is_several = matches!(found, Found::Several(_));
        let sent = self.send_elsewhere(&command, found);
        let is_away = matches!(sent, Some(Sent::Away(_) | Sent::Refused(_)));
        match command {
            Command::Deliver(Delivery { to, message, otherwise }) => {
                let awaited = awaited(&to, &message);
                let here = match is_several {
                    true => self.spread(to, message).await,
                    false if is_away => Outcome::OFFLINE,
                    false => self.insist(self.here(&to), message).await,
                };
                let issued = Issued::new(here, sent);
                if issued.is_offline() {
                    awaited.into_iter().for_each(|awaited| missed(*awaited));
                }
                (issued, otherwise)
            }
            command => (Issued::new(self.change_all(&command, is_away).await, sent), None),
        }
    }

    /// Sends a message to the session's own connection.
    ///
    /// # Errors
    /// The rest of the work, if there is no room for the message.
    fn reply(&mut self, message: Message) -> Result<(), Box<Command>> {
        let Some(own) = self.own else { return Ok(()) };
        self.send(own, message).map(|_| ()).map_err(|message| {
            let to = Recipient::Connection(own.id);
            Box::new(Command::Deliver(Delivery { to, message, otherwise: None }))
        })
    }

    /// Queues a message for one connection.
    ///
    /// # Errors
    /// The message, if there is no room for it.
    fn send(&mut self, peer: &Peer, message: Message) -> Result<Outcome, Message> {
        self.count += 1;
        let described = described(peer, &message);
        let pushed = match self.share_repeated(&message, peer) {
            Some(shared) => peer.outbox.push_shared(shared),
            None => peer.outbox.push(message),
        };
        match pushed {
            Err(Refused::OverBudget(message)) => Err(message),
            pushed => Ok(became(peer, &pushed, described)),
        }
    }

    /// Returns the message as a shared one, charged once, if it is the packet and several commands carry it.
    fn share_repeated(&mut self, message: &Message, peer: &Peer) -> Option<&Shared> {
        if !self.repeats || message.is_unique() {
            return None;
        }
        if self.repeated.as_ref().is_none_or(|repeated| !repeated.is(message)) {
            self.repeated = Shared::new(message.clone(), peer.outbox.budget()).ok().map(Box::new);
        }
        self.repeated.as_deref()
    }

    /// Makes room and sends the message to one connection.
    async fn insist(&mut self, to: Option<Arc<Peer>>, message: Message) -> Outcome {
        let Some(peer) = to else { return Outcome::OFFLINE };
        if self.is_late() {
            return Outcome::failed(Elsewhere::Expired);
        }
        let described = described(&peer, &message);
        let pushed = match peer.outbox.push(message) {
            Err(Refused::OverBudget(message)) => {
                relieve(self.registry, peer.outbox.budget(), cost(&message)).await;
                if self.is_late() {
                    return Outcome::failed(Elsewhere::Expired);
                }
                counted(peer.outbox.push(message))
            }
            pushed => pushed,
        };
        became(&peer, &pushed, described)
    }

    /// Sends `otherwise` to the session's own connection if nobody was reached. For this, waits for other gateways.
    async fn answer_otherwise(&mut self, (issued, otherwise): (Issued, Option<Message>)) {
        if let Some(otherwise) = otherwise.filter(|_| !issued.has_reached()) {
            let outcome = issued.outcome().await;
            self.fall_back(outcome, Some(otherwise)).await;
        }
    }

    /// Sends `otherwise` to the session's own connection if the delivery reached no connection.
    async fn fall_back(&mut self, outcome: Outcome, otherwise: Option<Message>) {
        if let (0, Some(own), Some(message)) = (outcome.reached, self.own, otherwise) {
            let described = described(own, &message);
            became(own, &queue(self.registry, &own.outbox, message).await, described);
        }
    }

    /// Sends a message to several connections. Its payload is charged once.
    async fn spread(&mut self, to: Recipient, message: Message) -> Outcome {
        let Found::Several(through) = self.find(&to) else { return Outcome::OFFLINE };
        let others_than = self.left_out(&to);
        let (mut walk, mut part) = (self.registry.walk(through), Vec::new());
        let (mut sum, mut message, mut shared) = (Outcome::OFFLINE, Some(message), None);
        while walk.next(&mut part) {
            let is_all = part.len() < PART;
            part.retain(|peer| Some(peer.id) != others_than);
            if let Some(message) = message.take_if(|_| !part.is_empty()) {
                if let ([only], true) = (&part[..], is_all) {
                    return self.insist(Some(only.clone()), message).await;
                }
                shared = self.share(message, &part[0]).await;
            }
            let Some(shared) = &shared else {
                sum.over_budget += part.len();
                break;
            };
            if self.is_late() {
                return sum.late();
            }
            for peer in part.drain(..) {
                self.count += 1;
                let mut pushed = peer.outbox.push_shared(shared);
                if matches!(pushed, Err(Refused::OverBudget(_))) {
                    relieve(self.registry, peer.outbox.budget(), SHARED_COST).await;
                    if self.is_late() {
                        return sum.late();
                    }
                    pushed = counted(peer.outbox.push_shared(shared));
                }
                sum += became(&peer, &pushed, described(&peer, shared.message()));
            }
            self.yield_if_many().await;
        }
        sum
    }

    /// Charges the payload once, for all recipients. Returns `None` if there is no room for it.
    async fn share(&mut self, message: Message, first: &Peer) -> Option<Shared> {
        if let Some(shared) = self.share_repeated(&message, first) {
            return Some(shared.clone());
        }
        let budget = first.outbox.budget();
        match Shared::new(message, budget) {
            Ok(shared) => Some(shared),
            Err(message) => {
                relieve(self.registry, budget, cost(&message)).await;
                let shared = Shared::new(message, budget).ok();
                if shared.is_none() {
                    METRICS.messages_refused.increment(Overflow::OverBudget);
                }
                shared
            }
        }
    }

    /// Returns the connection that the command leaves out.
    fn left_out(&self, who: &Recipient) -> Option<ConnectionId> {
        self.except.filter(|_| matches!(who, Recipient::GroupOthers(_)))
    }

    /// Finds the connections that `to` means.
    fn find<'t>(&self, to: &'t Recipient) -> Found<'t> {
        match to {
            Recipient::Connection(id) if self.cluster.is_some_and(|own| own.is_foreign(*id)) => Found::Elsewhere(None),
            Recipient::Connection(id) => Found::One(self.registry.connection(*id)),
            Recipient::Uid(uid) if self.registry.reaches_one_of_a_uid() => self.find_newest(uid),
            Recipient::Uid(uid) => Found::Several(Several::Uid(uid)),
            Recipient::Group(group) | Recipient::GroupOthers(group) => Found::Several(Several::Group(group)),
            Recipient::Everyone => Found::Several(Several::Everyone),
        }
    }

    /// Lets other tasks run after every [`PART`] connections.
    async fn yield_if_many(&mut self) {
        if self.count >= PART {
            self.count = 0;
            yield_now().await;
        }
    }
}
