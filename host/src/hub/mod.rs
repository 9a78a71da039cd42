//! The connections that are authenticated, the delivery of messages to them, and what operators may know of them.

pub mod blocks;
pub mod cluster;
pub mod command;
pub mod delivery;
pub mod events;
pub mod everywhere;
pub mod exchange;
mod lock;
pub mod nats;
pub mod operators;
pub mod outbox;
pub mod registry;
