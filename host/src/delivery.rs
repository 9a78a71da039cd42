//! Carries out what plugins decide: looks up the recipients and fills their outboxes. Nothing here waits for a peer.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
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
    for action in actions {
        match action {
            Action::Command(command) => {
                carry_out(registry, Some(own), command).await;
            }
            Action::Reply(message) => {
                send(own, &message);
            }
            Action::Remember(state) => afterwards.remember = Some(state),
            Action::Authenticate => afterwards.authenticate = true,
        }
    }
    afterwards
}

/// Carries out one command, with the session's own connection where there is one. Returns `false` for a delivery that
/// reached nobody.
pub async fn carry_out(registry: &Registry, own: Option<&Arc<Member>>, command: Command) -> bool {
    let (reached, who) = match command {
        Command::Deliver(Delivery { to, message, otherwise }) => {
            let mut reached = false;
            visit(registry, own, &to, |member| reached |= send(member, &message));
            if let (false, Some(own), Some(message)) = (reached, own, otherwise) {
                send(own, &message);
            }
            (reached, to)
        }
        Command::Join(Membership { who, group }) => {
            for member in recipients(registry, own, &who) {
                join(registry, &member, &group);
            }
            (true, who)
        }
        Command::Leave(Membership { who, group }) => {
            for member in recipients(registry, own, &who) {
                registry.leave(&member, &group);
            }
            (true, who)
        }
        Command::Close(Closing { who, reason }) => {
            visit(registry, own, &who, |member| {
                member.outbox.close(reason.clone(), Cause::Plugin);
            });
            (true, who)
        }
    };
    if matches!(who, Recipient::Group(_) | Recipient::GroupOthers(_) | Recipient::Everyone) {
        // That may have been a great many: others had to wait.
        tokio::task::yield_now().await;
    }
    reached
}

fn send(member: &Member, message: &Message) -> bool {
    match member.outbox.push(message.clone()) {
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
