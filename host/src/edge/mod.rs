//! Everything that listens: the life of each connection, from accepting it to closing it.

pub mod admin;
pub mod heartbeat;
pub(crate) mod listener;
pub mod text;
pub mod websocket;
