//! Work that blocks, such as reading files.

use std::time::Duration;

use anyhow::anyhow;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// Longest time that reading and writing files may take. It may take forever on a network file system that hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// The error of files that are not ready: they cannot be read or written now.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub(crate) struct Unready(pub(crate) anyhow::Error);

/// Runs work that blocks, on a thread for such work. Waits for `PATIENCE` at most.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let done = timeout(PATIENCE, spawn_blocking(work)).await;
    done.map_err(|_| Unready(anyhow!("files could not be read or written within {PATIENCE:?}")))??
}
