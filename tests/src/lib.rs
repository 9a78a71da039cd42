//! Starts the real `hotgate` and talks to it as its clients and senders do: over sockets, byte for byte.
//!
//! ```no_run
//! # async fn example() {
//! use hotgate_tests::Gateway;
//!
//! let gateway = Gateway::start().await;
//! let mut anna = gateway.login("anna").await;
//! let mut sender = gateway.sender().await;
//! sender.send(r#"{"uid":"anna","n":1}"#).await;
//! sender.expect("ok").await;
//! anna.expect(r#"{"uid":"anna","n":1}"#).await;
//! # }
//! ```
//!
//! The peers share no code with the host, not even its WebSocket library: they accept only bytes that RFC 6455 and the
//! protocol allow. [`patience`] bounds every wait. No test sleeps and hopes that the time was long enough.

mod admin;
mod build;
mod callgrind;
mod client;
mod compiled;
mod component;
mod frame;
mod gateway;
mod log;
mod sender;
mod setup;
mod stream;
mod tls;
mod upgrade;
mod world;

pub use admin::Admin;
pub use callgrind::{Callgrind, Cost};
pub use client::{Client, Received};
pub use component::{Component, PluginFile};
pub use frame::{Frame, Opcode};
pub use gateway::Gateway;
pub use hotgate_nats_tests::{
    Authority, Credentials, Identity, Layout, Nats, NatsCluster, NatsSetup, Nkey, Proxy, Rights, ServerSetup, Way,
    cache, eventually, free_ports, patience, skip, within,
};
pub use log::{Line, Log, Mark};
pub use sender::{Answers, Sender};
pub use setup::{Finished, Setup};
pub use stream::Stream;
pub use upgrade::{Response, Upgrade};
