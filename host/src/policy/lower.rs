//! Converts plain types into arguments of plugin functions. Arguments are borrowed, and copied only into the plugin's
//! memory.

use crate::base::message::{Attribute, Cause, Message};
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
