//! Arguments of plugins' functions: borrowed, and copied only into the plugin's memory.

use crate::base::message::{Attribute, Cause, Message};
use crate::plugin::{router, types};

/// A message as an argument.
pub(super) fn message(message: &Message) -> types::Message<'_> {
    match message {
        Message::Text(text) => types::Message::Text(text),
        Message::Binary(bytes) => types::Message::Binary(bytes),
    }
}

/// Attributes as arguments.
pub(super) fn attributes(attributes: &[Attribute]) -> Vec<types::AttributeParam<'_>> {
    attributes.iter().map(|Attribute { name, value }| types::AttributeParam { name, value }).collect()
}

impl From<Cause> for router::Cause {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Client => Self::Client,
            // The contract has no other name for it; routers hear of it when a session is renewed in vain.
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
