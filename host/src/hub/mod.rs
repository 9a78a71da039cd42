//! Who is connected, and how messages are delivered to them.

pub mod command;
pub mod delivery;
pub mod outbox;
pub mod registry;
