//! Applies the decisions of plugins: finds the recipients and fills their outboxes. Nothing here waits for a client.

mod relief;
#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::yield_now;
use tracing::debug;

pub use self::relief::queue;
use self::relief::{counted, relieve};
use crate::base::message::{Cause, ConnectionId, Message};
use crate::base::metrics::{METRICS, Overflow};
use crate::hub::command::{Action, Closing, Command, Delivery, Membership, Recipient};
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

/// Applies the router's actions for the session of `own`, in order.
pub async fn apply(registry: &Registry, own: &Arc<Peer>, actions: Vec<Action>) -> SessionEffects {
    match apply_at_once(registry, own, actions) {
        Ok(effects) => effects,
        Err(rest) => rest.await,
    }
}

/// Applies the actions that need no waiting, which usually are all of them. The rest is returned as a boxed future:
/// otherwise every connection would reserve memory for it.
fn apply_at_once<'a>(
    registry: &'a Registry,
    own: &'a Arc<Peer>,
    actions: Vec<Action>,
) -> Result<SessionEffects, Pin<Box<dyn Future<Output = SessionEffects> + Send + 'a>>> {
    let repeats = repeats(&actions, |action| match action {
        Action::Command(command) => payload(command),
        Action::Reply(message) => Some(message),
        Action::Remember(_) | Action::Authenticate => None,
    });
    let mut work = Work { registry, own: Some(own), repeats, repeated: None, count: 0 };
    let (mut effects, mut actions) = (SessionEffects::default(), actions.into_iter());
    while let Some(action) = actions.next() {
        let mut left = work.take(action, &mut effects);
        if left.is_some() || work.count >= PART {
            return Err(Box::pin(async move {
                loop {
                    if let Some(command) = left {
                        work.carry_out(*command).await;
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

/// Applies commands that belong to no session, in order. Returns `true` if every delivery reached a connection.
pub async fn apply_commands(registry: &Registry, commands: Vec<Command>) -> bool {
    let mut all_reached = true;
    let mut work = Work { registry, own: None, repeats: repeats(&commands, payload), repeated: None, count: 0 };
    for command in commands {
        all_reached &= match work.begin(command) {
            Ok(reached) => reached,
            Err(command) => Box::pin(work.carry_out(*command)).await,
        };
        work.yield_if_many().await;
    }
    all_reached
}

fn payload(command: &Command) -> Option<&Message> {
    if let Command::Deliver(delivery) = command { Some(&delivery.message) } else { None }
}

/// Returns `true` if several of these carry the packet itself. Only the packet's bytes have another holder; a payload
/// that a plugin made has none.
fn repeats<T>(list: &[T], payload: fn(&T) -> Option<&Message>) -> bool {
    list.len() > 1 && list.iter().filter_map(payload).filter(|payload| !payload.is_unique()).nth(1).is_some()
}

/// The state of applying the commands of one call.
struct Work<'a> {
    registry: &'a Registry,
    /// The session's own connection, if there is a session.
    own: Option<&'a Arc<Peer>>,
    /// True if several commands carry the packet itself: its payload is then charged once, with the first of them.
    repeats: bool,
    /// The packet, once it has been charged.
    repeated: Option<Box<Shared>>,
    /// Connections handled since this task last yielded.
    count: usize,
}

/// The connections that a command concerns.
enum Found<'a> {
    /// At most one connection; `None` if it does not exist.
    One(Option<Arc<Peer>>),
    Several(Several<'a>),
}

impl Work<'_> {
    /// Applies one action, or notes it in `effects`. Returns the command that cannot be applied at once, if any.
    fn take(&mut self, action: Action, effects: &mut SessionEffects) -> Option<Box<Command>> {
        match action {
            Action::Command(command) => return self.begin(command).err(),
            Action::Reply(message) => return self.reply(message).err(),
            Action::Remember(state) => effects.remember = Some(state),
            Action::Authenticate => effects.authenticate = true,
        }
        None
    }

    /// Applies one command. Returns `false` only for a delivery that reached no connection.
    ///
    /// # Errors
    /// The command, or the rest of it, if it concerns several connections, or if there is no room for a message.
    fn begin(&mut self, command: Command) -> Result<bool, Box<Command>> {
        let (Command::Deliver(Delivery { to: who, .. })
        | Command::Join(Membership { who, .. })
        | Command::Leave(Membership { who, .. })
        | Command::Close(Closing { who, .. })) = &command;
        let Found::One(only) = self.find(who) else { return Err(Box::new(command)) };
        match (command, only) {
            (Command::Deliver(Delivery { to, message, otherwise }), only) => {
                let reached = match only.map(|only| self.send(&only, message)) {
                    None => {
                        self.count += 1;
                        false
                    }
                    Some(Ok(reached)) => reached,
                    Some(Err(message)) => return Err(Box::new(Command::Deliver(Delivery { to, message, otherwise }))),
                };
                match otherwise.filter(|_| !reached) {
                    Some(otherwise) => self.reply(otherwise),
                    None => Ok(reached),
                }
            }
            (command, only) => {
                self.count += 1;
                if let Some(only) = only {
                    self.change(&command, &only);
                }
                Ok(true)
            }
        }
    }

    /// Applies a command that [`begin`](Self::begin) returned.
    async fn carry_out(&mut self, command: Command) -> bool {
        // A command without recipients takes time, too.
        self.count += 1;
        match command {
            Command::Deliver(Delivery { to, message, otherwise }) => match self.find(&to) {
                Found::One(only) => self.insist(only, message, otherwise).await,
                Found::Several(_) => self.spread(to, message, otherwise).await,
            },
            command => {
                self.change_several(&command).await;
                true
            }
        }
    }

    /// Sends a message to the session's own connection. Returns `Ok(false)`: a reply does not count as reached.
    fn reply(&mut self, message: Message) -> Result<bool, Box<Command>> {
        let Some(own) = self.own else { return Ok(false) };
        match self.send(own, message) {
            Ok(_) => Ok(false),
            Err(message) => {
                let to = Recipient::Connection(own.id);
                Err(Box::new(Command::Deliver(Delivery { to, message, otherwise: None })))
            }
        }
    }

    /// Queues a message for one connection. Returns `true` if it is in the outbox.
    ///
    /// # Errors
    /// The message, if there is no room for it.
    fn send(&mut self, peer: &Peer, message: Message) -> Result<bool, Message> {
        self.count += 1;
        let pushed = match self.share_repeated(&message, peer) {
            Some(shared) => peer.outbox.push_shared(shared),
            None => peer.outbox.push(message),
        };
        match pushed {
            Err(Refused::OverBudget(message)) => Err(message),
            pushed => Ok(was_taken(peer, &pushed)),
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

    /// Makes room and sends the message to one connection. If this fails, sends `otherwise` to the session's own.
    async fn insist(&mut self, to: Option<Arc<Peer>>, message: Message, otherwise: Option<Message>) -> bool {
        let reached = match to {
            Some(peer) => was_taken(&peer, &queue(self.registry, &peer.outbox, message).await),
            None => false,
        };
        self.fall_back(reached, otherwise).await
    }

    /// Sends `otherwise` to the session's own connection if the delivery reached no connection. Returns `reached`.
    async fn fall_back(&mut self, reached: bool, otherwise: Option<Message>) -> bool {
        if let (false, Some(own), Some(message)) = (reached, self.own, otherwise) {
            was_taken(own, &queue(self.registry, &own.outbox, message).await);
        }
        reached
    }

    /// Sends a message to several connections. Its payload is charged once.
    async fn spread(&mut self, to: Recipient, message: Message, otherwise: Option<Message>) -> bool {
        let Found::Several(through) = self.find(&to) else { return false };
        let others_than = self.left_out(&to);
        let (mut walk, mut part) = (self.registry.walk(through), Vec::new());
        let (mut reached, mut message, mut shared) = (false, Some(message), None);
        while walk.next(&mut part) {
            let is_all = part.len() < PART;
            part.retain(|peer| Some(peer.id) != others_than);
            if let Some(message) = message.take_if(|_| !part.is_empty()) {
                if let ([only], true) = (&part[..], is_all) {
                    return self.insist(Some(only.clone()), message, otherwise).await;
                }
                shared = self.share(message, &part[0]).await;
            }
            let Some(shared) = &shared else { break };
            for peer in part.drain(..) {
                self.count += 1;
                let mut pushed = peer.outbox.push_shared(shared);
                if matches!(pushed, Err(Refused::OverBudget(_))) {
                    relieve(self.registry, peer.outbox.budget(), SHARED_COST).await;
                    pushed = counted(peer.outbox.push_shared(shared));
                }
                reached |= was_taken(&peer, &pushed);
            }
            self.yield_if_many().await;
        }
        self.fall_back(reached, otherwise).await
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

    /// Makes one connection join or leave a group, or closes it.
    fn change(&self, command: &Command, peer: &Arc<Peer>) {
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

    /// Does the same as [`change`](Self::change) for several connections.
    async fn change_several(&mut self, command: &Command) {
        let (Command::Join(Membership { who, .. })
        | Command::Leave(Membership { who, .. })
        | Command::Close(Closing { who, .. })) = command
        else {
            return;
        };
        let Found::Several(through) = self.find(who) else { return };
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

    /// Returns the session's own connection, if the command excludes it.
    fn left_out(&self, who: &Recipient) -> Option<ConnectionId> {
        self.own.filter(|_| matches!(who, Recipient::GroupOthers(_))).map(|own| own.id)
    }

    /// Finds the connections that `to` means.
    fn find<'t>(&self, to: &'t Recipient) -> Found<'t> {
        match to {
            Recipient::Connection(id) => Found::One(self.registry.connection(*id)),
            Recipient::Uid(uid) if self.registry.reaches_one_of_a_uid() => Found::One(self.registry.newest(uid)),
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

/// Returns `true` if a message is in a connection's outbox now; logs a refusal.
fn was_taken(peer: &Peer, pushed: &Result<(), Refused>) -> bool {
    if let Err(refused) = pushed {
        debug!(connection = peer.id.0, %refused, "message refused");
    }
    pushed.is_ok()
}
