//! Converts plain types into arguments of plugin functions. Arguments are borrowed, and copied only into the plugin's
//! memory.

use crate::base::message::{Attribute, Cause, ConnectionId, Message};
use crate::hub::command::Recipient;
use crate::plugin::{router, types};

/// Converts a message into an argument.
pub(super) fn message(message: &Message) -> types::Message<'_> {
    match message {
        Message::Text(text) => types::Message::Text(text),
        Message::Binary(bytes) => types::Message::Binary(bytes),
    }
}

/// Converts attributes into arguments.
pub(super) fn attributes(attributes: &[Attribute]) -> Vec<types::AttributeParam<'_>> {
    attributes.iter().map(|Attribute { name, value }| types::AttributeParam { name, value }).collect()
}

/// Converts a recipient into an argument.
pub(super) fn recipient(recipient: &Recipient) -> router::RecipientParam<'_> {
    match recipient {
        Recipient::Uid(uid) => router::RecipientParam::Uid(uid),
        Recipient::Connection(ConnectionId(id)) => router::RecipientParam::Connection(*id),
        Recipient::Group(group) => router::RecipientParam::Group(group),
        Recipient::GroupOthers(group) => router::RecipientParam::GroupOthers(group),
        Recipient::Everyone => router::RecipientParam::Everyone,
    }
}

impl From<Cause> for router::Cause {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Client => Self::Client,
            // The contract has no cause of its own for `Unauthenticated`. Routers see it when the renewal of a session
            // is denied.
            Cause::Plugin | Cause::Unauthenticated => Self::Plugin,
            Cause::Operator => Self::Operator,
            Cause::Silent => Self::Silent,
            Cause::Slow => Self::Slow,
            Cause::Replaced => Self::Replaced,
            Cause::Expired => Self::Expired,
            Cause::ProtocolError => Self::ProtocolError,
            Cause::Lost => Self::Lost,
            Cause::Shutdown => Self::Shutdown,
        }
    }
}
