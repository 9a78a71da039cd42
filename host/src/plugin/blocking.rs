//! Work that blocks, such as reading files.

use std::time::Duration;

use anyhow::anyhow;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// How long reading and writing files may take. It may never end where a network file system hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// Files are not ready: they cannot be read or written now.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub(crate) struct Unready(pub(crate) anyhow::Error);

/// Runs something that blocks, but does not wait for ever.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let done = timeout(PATIENCE, spawn_blocking(work)).await;
    done.map_err(|_| Unready(anyhow!("files could not be read or written within {PATIENCE:?}")))??
}
