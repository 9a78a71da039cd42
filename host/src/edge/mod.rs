//! All listeners, and the life of each connection from accept to close.

pub mod admin;
pub mod api;
pub mod drain;
pub mod heartbeat;
pub mod http;
pub(crate) mod listener;
pub mod live;
pub(crate) mod pace;
pub mod text;
pub mod tls;
pub mod websocket;
