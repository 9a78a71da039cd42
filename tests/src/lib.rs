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
mod authority;
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
mod upgrade;
mod world;

use std::io::Write;
use std::sync::LazyLock;
use std::time::Duration;

pub use admin::Admin;
pub use authority::{Authority, Identity};
pub use build::cache;
pub use callgrind::{Callgrind, Cost};
pub use client::{Client, Received};
pub use component::{Component, PluginFile};
pub use frame::{Frame, Opcode};
pub use gateway::Gateway;
pub use log::{Line, Log, Mark};
pub use sender::{Answers, Sender};
pub use setup::{Finished, Setup};
pub use stream::Stream;
pub use upgrade::{Response, Upgrade};

/// The time that one step may take before its test fails. It is 30 s, far more than a step needs, because the machine
/// may be slow and shared. `HOTGATE_TESTS_PATIENCE` sets another number of seconds, for steps that compile large code.
pub fn patience() -> Duration {
    static PATIENCE: LazyLock<Duration> = LazyLock::new(|| {
        let seconds = std::env::var("HOTGATE_TESTS_PATIENCE").ok().and_then(|seconds| seconds.parse().ok());
        Duration::from_secs(seconds.unwrap_or(30))
    });
    *PATIENCE
}

/// Says that a test was skipped, past the test runner's capture of output.
///
/// # Panics
/// If `HOTGATE_TESTS_SKIP` is `no`: the check before a release installs what the tests need.
pub fn skip(why: &str) {
    assert!(std::env::var_os("HOTGATE_TESTS_SKIP").is_none_or(|may| may != "no"), "this test was skipped: {why}");
    _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// Waits for an event that must happen.
///
/// # Panics
/// When it has not happened within [`patience`].
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(patience(), future).await {
        Ok(output) => output,
        Err(_) => panic!("still waiting after {:?}: {what}", patience()),
    }
}

/// Repeats a question until the answer is yes.
///
/// # Panics
/// When the answer is still no after [`patience`].
pub async fn eventually(what: &str, mut question: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !question().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
