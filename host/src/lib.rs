//! Hotgate: a WebSocket push gateway whose gatekeeping is code that can be swapped while it runs.
//!
//! The gateway owns what must never restart: sockets, the registry of who is connected, the heartbeat. Plugins,
//! WebAssembly components behind the interfaces in `wit/`, own what changes weekly: who is this, and who gets this
//! message?
//!
//! The wings, from the top down. Each imports only from wings below it; a test holds that.
//!
//! | wing | what it does |
//! | --- | --- |
//! | [`cli`] | the command line, and the process: log, signals |
//! | [`gateway`] | starts, reloads and drains the gateway; owns the tasks |
//! | [`edge`] | everything that listens: WebSockets, the text port, the admin listener; and the heartbeat |
//! | [`devkit`] | what plugin authors use: make, check, run, measure, develop |
//! | [`policy`] | authenticators and router as plain Rust: packet in, decision out |
//! | [`plugin`] | the WebAssembly runtime: compile, instances, live generations, how they come to serve |
//! | [`hub`] | who is connected (registry), and delivering to them (commands, delivery, outboxes) |
//! | [`base`] | what all wings stand on: messages, metrics, the state folder, watching files |
//! | [`config`] | `hotgate.toml`, environment variables and flags → checked settings |
//!
//! The way of a message: [`edge::websocket`] reads it → [`policy`] decides, asking [`plugin`] → [`hub::delivery`] looks up
//! the [`hub::registry`] → the recipient's [`hub::outbox`] → its [`edge::websocket`] writes it.
//!
//! The way of a pushed line: [`edge::text`] → [`policy`] → [`hub::delivery`] → [`hub::outbox`], and the answer back.

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
