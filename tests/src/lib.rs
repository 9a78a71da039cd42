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
//! The peers know nothing of the host's code, not even of its WebSocket library: what they accept is what RFC 6455 and
//! the protocol say. Every wait is bounded by [`PATIENCE`]; none is a sleep that hopes to be long enough.

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
mod upgrade;
mod world;

use std::time::Duration;

pub use admin::Admin;
pub use build::cache;
pub use callgrind::{Callgrind, Cost};
pub use client::{Client, Received};
pub use component::{Component, PluginFile};
pub use frame::{Frame, Opcode};
pub use gateway::Gateway;
pub use log::{Line, Log, Mark};
pub use sender::{Answers, Sender};
pub use setup::{Finished, Setup};
pub use upgrade::{Response, Upgrade};

/// What one step may take before its test fails. Far more than it needs: the machine may be slow and shared.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for something that must happen.
///
/// # Panics
/// When it has not happened within [`PATIENCE`].
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("still waiting after {PATIENCE:?}: {what}"),
    }
}

/// Asks again and again until the answer is yes.
///
/// # Panics
/// When it is still no after [`PATIENCE`].
pub async fn eventually(what: &str, mut question: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !question().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
