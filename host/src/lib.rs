//! Hotgate: a WebSocket push gateway whose gatekeeping is code that can be swapped while it runs.
//!
//! The gateway owns what must never restart: sockets, the registry of who is connected, the heartbeat. Plugins,
//! WebAssembly components behind the interfaces in `wit/`, own what changes weekly: who is this, and who gets this
//! message?
//!
//! The rooms, from the ground up. Each imports only from those above it in this list.
//!
//! | room | what it does |
//! | --- | --- |
//! | [`config`] | `hotgate.toml`, variables and flags → checked settings |
//! | [`throttle`] | how many lines of a kind the log takes |
//! | [`watch`] | notices that files change |
//! | [`state`] | the private folder for what outlives the process |
//! | [`stripe`] | what all threads write to, in parts |
//! | [`message`] | one message as it travels: text or binary over shared bytes |
//! | [`metrics`] | the names of everything counted |
//! | [`outbox`] | the byte-bounded queue to one connection: the only way to write to a peer |
//! | [`registry`] | uid → its live connections; groups |
//! | [`plugin`] | the WebAssembly runtime: compile, instances, live generations, how they come to serve |
//! | [`policy`] | authenticators and router as plain Rust: packet in, decision out |
//! | [`delivery`] | carries decisions out |
//! | [`heartbeat`] | closes what has gone silent |
//! | [`connection`] | the life of one WebSocket |
//! | [`text_port`] | the life of one internal sender's connection |
//! | [`admin`] | where operators look and act, by HTTP |
//! | [`reload`] | reads the configuration again while the gateway runs |
//! | [`gateway`] | binds listeners, owns tasks, drains on shutdown |
//! | [`workshop`] | what plugin authors use: make, check, run, measure, develop |
//! | [`cli`] | the command line |
//!
//! One message's way: [`connection`] reads it → [`policy`] decides → [`delivery`] looks up the [`registry`] → the
//! target's [`outbox`] → its [`connection`] writes it. One text line's way: [`text_port`] → [`policy`] → [`delivery`] →
//! [`outbox`], and the answer back.

pub mod admin;
pub mod cli;
pub mod config;
pub mod connection;
pub mod delivery;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod gateway;
pub mod heartbeat;
pub mod message;
pub mod metrics;
pub mod outbox;
pub mod plugin;
pub mod policy;
pub mod registry;
pub mod reload;
pub mod state;
pub mod stripe;
pub mod text_port;
pub mod throttle;
pub mod watch;
pub mod workshop;
