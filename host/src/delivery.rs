//! Carries out what plugins decide: looks up the recipients and fills their outboxes. Nothing here waits for a peer.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use tokio::task::yield_now;
use tracing::debug;

use crate::message::{Cause, Message};
use crate::policy::{Action, Closing, Command, Delivery, Membership, Recipient};
use crate::registry::{Member, Registry};

/// What the actions leave to the connection that they are about.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Afterwards {
    /// The session's new state.
    pub remember: Option<Bytes>,
    /// The packet is to be handed to the authenticators.
    pub authenticate: bool,
}

/// Carries out, in order, what the router wants done about the session of `own`.
pub async fn act(registry: &Registry, own: &Arc<Member>, actions: Vec<Action>) -> Afterwards {
    let mut afterwards = Afterwards::default();
    let mut recipients = 0;
    for action in actions {
        match action {
            Action::Command(command) => recipients += carry_out(registry, Some(own), command).recipients,
            Action::Reply(message) => {
                send(own, message);
            }
            Action::Remember(state) => afterwards.remember = Some(state),
            Action::Authenticate => afterwards.authenticate = true,
        }
        take_a_break(&mut recipients).await;
    }
    afterwards
}

/// Carries out, in order, what is wanted done apart from any session. Returns whether every delivery reached somebody.
pub async fn act_alone(registry: &Registry, commands: Vec<Command>) -> bool {
    let (mut all_reached, mut recipients) = (true, 0);
    for command in commands {
        let done = carry_out(registry, None, command);
        all_reached &= done.reached;
        recipients += done.recipients;
        take_a_break(&mut recipients).await;
    }
    all_reached
}

/// Recipients after which others have had to wait.
const MANY: usize = 64;

async fn take_a_break(recipients: &mut usize) {
    if *recipients >= MANY {
        *recipients = 0;
        yield_now().await;
    }
}

/// What came of a command.
struct Done {
    /// Somebody: `false` only for deliveries.
    reached: bool,
    /// How many it was about.
    recipients: usize,
}

/// Carries out one command, with the session's own connection where there is one.
fn carry_out(registry: &Registry, own: Option<&Arc<Member>>, command: Command) -> Done {
    let mut count = 0;
    let reached = match command {
        Command::Deliver(Delivery { to, message, otherwise }) => {
            let (mut reached, mut message) = (false, Some(message));
            // The only one gets the message itself, and nothing has to be shared.
            let only = match to {
                Recipient::Connection(_) => true,
                Recipient::Uid(_) => registry.reaches_one_of_a_uid(),
                Recipient::Group(_) | Recipient::GroupOthers(_) | Recipient::Everyone => false,
            };
            visit(registry, own, &to, |member| {
                count += 1;
                let message = if only { message.take() } else { message.clone() };
                reached |= message.is_some_and(|message| send(member, message));
            });
            if let (false, Some(own), Some(message)) = (reached, own, otherwise) {
                send(own, message);
            }
            reached
        }
        Command::Join(Membership { who, group }) => {
            for member in recipients(registry, own, &who) {
                count += 1;
                join(registry, &member, &group);
            }
            true
        }
        Command::Leave(Membership { who, group }) => {
            for member in recipients(registry, own, &who) {
                count += 1;
                registry.leave(&member, &group);
            }
            true
        }
        Command::Close(Closing { who, reason }) => {
            visit(registry, own, &who, |member| {
                count += 1;
                member.outbox.close(reason.clone(), Cause::Plugin);
            });
            true
        }
    };
    Done { reached, recipients: count }
}

fn send(member: &Member, message: Message) -> bool {
    match member.outbox.push(message) {
        Ok(()) => true,
        Err(refused) => {
            debug!(connection = member.id.0, %refused, "message refused");
            false
        }
    }
}

fn join(registry: &Registry, member: &Arc<Member>, group: &ByteString) {
    if !registry.join(member, group) {
        debug!(connection = member.id.0, "in too many groups to join another");
    }
}

/// Calls `each` for the recipients, who must not join or leave a group from within.
fn visit(registry: &Registry, own: Option<&Arc<Member>>, to: &Recipient, mut each: impl FnMut(&Arc<Member>)) {
    match to {
        Recipient::Uid(uid) => registry.with_uid(uid, each),
        Recipient::Connection(id) => {
            if let Some(member) = registry.connection(*id) {
                each(&member);
            }
        }
        Recipient::Group(group) => registry.with_group(group, each),
        Recipient::GroupOthers(group) => registry.with_group(group, |member| {
            if own.is_none_or(|own| own.id != member.id) {
                each(member);
            }
        }),
        Recipient::Everyone => registry.with_everyone(each),
    }
}

fn recipients(registry: &Registry, own: Option<&Arc<Member>>, who: &Recipient) -> Vec<Arc<Member>> {
    let mut members = Vec::new();
    visit(registry, own, who, |member| members.push(member.clone()));
    members
}
