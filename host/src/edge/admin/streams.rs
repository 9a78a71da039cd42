//! Answers that go on: lines of JSON (NDJSON), for at most 15 minutes. Then the client asks again, from where it was.
//!
//! Nothing is queued for a slow client: lines are taken when the client takes bytes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};

use super::shared::Shared;
use super::visitor::Caller;
use crate::edge::http::bounded::STANDSTILL;
use crate::edge::http::problem::{Problem, Reason};

/// The most streams at a time, and the most of those who only read.
pub(super) const MOST: usize = 16;
pub(super) const MOST_OF_READERS: usize = 12;
/// How long a stream lasts.
const LIFE: Duration = Duration::from_secs(15 * 60);
/// How often an empty line is written while nothing happens, so that both sides notice a dead connection.
const QUIET: Duration = Duration::from_secs(15);

/// Where the lines of a stream come from.
pub(super) trait Source: Send + 'static {
    /// Waits for the next lines, but not longer than until `quiet`, and adds them. Returns `false` after the last ones.
    fn next(&mut self, lines: &mut Vec<u8>, quiet: Instant) -> impl Future<Output = bool> + Send;
}

/// A place among the streams.
pub(super) struct Place {
    _place: OwnedSemaphorePermit,
    _of_readers: Option<OwnedSemaphorePermit>,
}

/// Takes a place among the streams.
///
/// # Errors
/// If there are too many.
pub(super) fn place(shared: &Shared, caller: &Caller) -> Result<Place, Problem> {
    let only_reads = caller.visitor.only_reads();
    let most = if only_reads { MOST_OF_READERS } else { MOST };
    let full = |_| {
        let problem = format_args!("{most} streams are open, which is the most: close another page of the dashboard");
        Problem::new(Reason::Budget, problem)
    };
    let of_readers = only_reads.then(|| shared.streams_of_readers.clone().try_acquire_owned());
    let of_readers = of_readers.transpose().map_err(full)?;
    Ok(Place { _place: shared.streams.clone().try_acquire_owned().map_err(full)?, _of_readers: of_readers })
}

/// Answers with the lines of a source.
pub(super) fn answer(shared: Arc<Shared>, caller: Caller, place: Place, source: impl Source) -> Response {
    let life = caller.visitor.life().map_or(LIFE, |life| life.min(LIFE));
    let running = Running { shared, caller, end: Instant::now() + life, source, _place: place };
    let lines = stream::unfold(Some(running), |running| async move {
        let mut running = running?;
        let (lines, goes_on) = running.next().await;
        let lines = (!lines.is_empty()).then(|| Ok::<_, Infallible>(Bytes::from(lines)))?;
        Some((lines, goes_on.then_some(running)))
    });
    let ndjson = [(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"))];
    (ndjson, Body::from_stream(lines)).into_response()
}

/// Adds a line.
pub(super) fn push(lines: &mut Vec<u8>, line: &impl Serialize) {
    // Writing to memory cannot fail.
    let _ = serde_json::to_writer(&mut *lines, line);
    lines.push(b'\n');
}

/// A stream that is being answered.
struct Running<S> {
    shared: Arc<Shared>,
    caller: Caller,
    end: Instant,
    source: S,
    _place: Place,
}

impl<S: Source> Running<S> {
    /// Returns the next lines, and whether others follow.
    async fn next(&mut self) -> (Vec<u8>, bool) {
        self.caller.peer.patience.grant(QUIET + STANDSTILL);
        let mut lines = Vec::new();
        let goes_on = tokio::select! {
            biased;
            () = self.shared.stopping.cancelled() => false,
            () = self.caller.visitor.ended() => false,
            () = sleep_until(self.end) => false,
            goes_on = self.source.next(&mut lines, Instant::now() + QUIET) => goes_on,
        };
        if lines.is_empty() && goes_on {
            lines.push(b'\n');
        }
        (lines, goes_on)
    }
}
