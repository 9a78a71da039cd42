//! Real NATS servers for tests, and what disturbs them: kill, freeze, cut, delay, black hole. Also the waits, the
//! certificates and the folders that all tests share.
//!
//! ```no_run
//! # async fn example() {
//! use hotgate_nats_tests::{NatsSetup, Proxy};
//!
//! let Some(nats) = NatsSetup::new().start().await else { return };
//! let proxy = Proxy::start(nats.address()).await;
//! proxy.hold();
//! nats.freeze().await;
//! # }
//! ```

mod authority;
mod binary;
mod cluster;
mod configuration;
mod nats;
mod nkey;
mod proxy;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

pub use authority::{Authority, Identity};
pub use binary::nats_server;
pub use cluster::NatsCluster;
pub use configuration::{Layout, NatsSetup, Rights, ServerSetup, free_ports};
pub use nats::Nats;
pub use nkey::{Credentials, Nkey};
pub use proxy::{Proxy, Way};

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

/// `target/PROFILE`, the folder in which the running test was built.
pub fn profile_folder() -> PathBuf {
    let test = std::env::current_exe().expect("the test knows its own file");
    let folder = parent(&test);
    if folder.ends_with("deps") { parent(&folder) } else { folder }
}

/// A folder below the target directory for files that are kept between runs.
pub fn cache(name: &str) -> PathBuf {
    parent(&profile_folder()).join(name)
}

fn parent(path: &Path) -> PathBuf {
    path.parent().expect("a path below the target directory").to_owned()
}
