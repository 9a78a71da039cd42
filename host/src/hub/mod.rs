//! The connections that are authenticated, and the delivery of messages to them.

pub mod blocks;
pub mod command;
pub mod delivery;
pub mod outbox;
pub mod registry;
