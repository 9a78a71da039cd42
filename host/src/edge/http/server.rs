//! Starts and stops an HTTP listener.

use std::time::Duration;

use axum::Router;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::bounded::{BoundedListener, HttpPeer};

/// How long unfinished answers may take after the gateway has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A listener that answers requests. Dropping it stops it.
#[derive(Debug)]
pub(in crate::edge) struct Server {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    /// Answers requests by these routes.
    pub(in crate::edge) fn start(listener: BoundedListener, routes: Router) -> Self {
        let service = routes.into_make_service_with_connect_info::<HttpPeer>();
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let task = tokio::spawn(async move {
            // According to its documentation, this never fails.
            let _ = axum::serve(listener, service).with_graceful_shutdown(stopped).await;
        });
        Self { stop, task }
    }

    /// Stops the listener when the current answers are written, and at `end` at the latest.
    pub(in crate::edge) async fn stop(mut self, end: Instant) {
        self.stop.cancel();
        let _ = timeout_at(end.min(Instant::now() + LAST_WORDS), &mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}
