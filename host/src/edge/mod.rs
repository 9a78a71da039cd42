//! All listeners, and the life of each connection from accept to close.

pub mod admin;
pub mod heartbeat;
pub(crate) mod listener;
pub mod text;
pub mod websocket;
