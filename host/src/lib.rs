//! Hotgate: a WebSocket push gateway. Plugins make its decisions, and a plugin can be swapped while the gateway runs.
//!
//! The gateway owns the parts that must never restart: sockets, the registry of connections, the heartbeat. Plugins own
//! the rules that change often: who is this client, and who gets this message? A plugin is a WebAssembly component
//! behind the interfaces in `wit/`.
//!
//! A wing is a top-level module. Each wing imports only from wings below it; a test checks this. The wings, from the
//! top down:
//!
//! | wing | what it does |
//! | --- | --- |
//! | [`cli`] | the command line, and the process: log, signals |
//! | [`gateway`] | starts and reloads the gateway, and closes all connections at the end; owns the tasks |
//! | [`edge`] | all listeners: WebSockets, the text port, the admin listener; and the heartbeat |
//! | [`devkit`] | the tools for plugin authors: make, check, run, measure, develop |
//! | [`policy`] | authenticators and router as plain Rust: a packet goes in, a checked decision comes out |
//! | [`plugin`] | the WebAssembly runtime: compiles components, runs instances, brings generations live |
//! | [`hub`] | the registry of connections, and delivery to them (commands, delivery, outboxes); the other gateways of a cluster |
//! | [`base`] | the basis of all wings: messages, metrics, the state folder, watching files |
//! | [`config`] | `hotgate.toml`, environment variables and flags → checked settings |
//!
//! How a message travels: [`edge::websocket`] reads the message → [`policy`] asks a [`plugin`] and decides →
//! [`hub::delivery`] finds the recipient in [`hub::registry`] → the recipient's [`hub::outbox`] queues the message →
//! the recipient's [`edge::websocket`] writes it.
//!
//! How a pushed line travels: [`edge::text`] reads the line → [`policy`] asks the router [`plugin`] → [`hub::delivery`]
//! finds the recipients in [`hub::registry`] → their [`hub::outbox`] queues the message → [`edge::text`] answers.

pub mod base;
pub mod cli;
pub mod config;
pub mod devkit;
pub mod edge;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod gateway;
pub mod hub;
pub mod plugin;
pub mod policy;
#[cfg(test)]
mod structure;
