//! What happens, as it happens: `GET /events` and `GET /log`. First what is kept of the past.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::shared::Shared;
use super::streams::{self, Source, push};
use super::visitor::Caller;
use crate::base::recent::RECENT;
use crate::base::ring::{Page, Ring};
use crate::edge::http::problem::Problem;
use crate::edge::http::query::{Parameters, Query};

/// The most entries in one write.
const PAGE: usize = 100;

/// From where to go on.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct From {
    #[serde(default)]
    after: u64,
}

impl Parameters for From {
    const ALLOWED: &'static str = "after=NUMBER";
}

/// Shows the gauges and counters of the last 15 minutes, and from now on.
pub(super) async fn events(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Query(From { after }): Query<From>,
) -> Result<Response, Problem> {
    let ring = shared.history.0.clone();
    let place = streams::place(&shared, &caller)?;
    Ok(streams::answer(shared.clone(), caller, place, Follower { ring, after }))
}

/// Shows the last lines of the log, and those from now on.
pub(super) async fn log(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Query(From { after }): Query<From>,
) -> Result<Response, Problem> {
    let ring = RECENT.clone();
    let place = streams::place(&shared, &caller)?;
    Ok(streams::answer(shared.clone(), caller, place, Follower { ring, after }))
}

/// Follows a ring.
struct Follower<T> {
    ring: Arc<Ring<Arc<T>>>,
    /// The number of the last entry that was written.
    after: u64,
}

#[derive(Serialize)]
struct Numbered<'a, T> {
    seq: u64,
    #[serde(flatten)]
    entry: &'a T,
}

impl<T: Serialize + Send + Sync + 'static> Source for Follower<T> {
    async fn next(&mut self, lines: &mut Vec<u8>, quiet: Instant) -> bool {
        if timeout_at(quiet, self.ring.newer_than(self.after)).await.is_ok() {
            let Page { entries, lost } = self.ring.since(self.after, PAGE);
            if lost > 0 {
                push(lines, &json!({ "what": "lost", "lines": lost }));
            }
            for (seq, entry) in &entries {
                self.after = *seq;
                push(lines, &Numbered { seq: *seq, entry: &**entry });
            }
        }
        true
    }
}
