//! Logins and departures as they happen: `GET /v1/events`, as lines of JSON (NDJSON).

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;
use tokio::time::sleep;

use super::caller::{Caller, Publisher};
use super::shared::Shared;
use super::tokens::Scope;
use crate::base::metrics::Reason as _;
use crate::edge::http::bounded::STANDSTILL;
use crate::edge::http::problem::Problem;
use crate::edge::http::query::{Parameters, Query};
use crate::hub::events::{Cursor, Event, Page, Presence};
use crate::hub::registry::Registry;

/// How often a line with the cursor is written while nothing happens, so that both sides notice a dead connection.
const QUIET: Duration = Duration::from_secs(15);
/// The most events in one write.
const PAGE: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct After {
    after: Option<String>,
}

impl Parameters for After {
    const ALLOWED: &'static str = "after=CURSOR";
}

/// Returns all events after a cursor, or from now on, until the client leaves.
pub(super) async fn events(
    State(shared): State<Arc<Shared>>,
    Caller(publisher): Caller,
    Query(from): Query<After>,
) -> Result<Response, Problem> {
    publisher.grant.charge()?;
    publisher.grant.permit(Scope::Events)?;
    let registry = shared.served()?.registry.clone();
    let mut begin = Vec::new();
    let after = match from.after {
        None => registry.events.newest(),
        Some(cursor) => {
            let wrong = || Problem::bad("after: must be the cursor of an event, as an earlier answer showed it");
            let cursor = Cursor::parse(&cursor).ok_or_else(wrong)?;
            registry.events.number(cursor).unwrap_or_else(|| {
                missed(&mut begin, None);
                0
            })
        }
    };
    let follower = Follower { shared, publisher, registry, after };
    follower.write_cursor(&mut begin);
    let lines = stream::unfold((follower, begin), |(mut follower, mut lines)| async move {
        // The first lines are written at once.
        let goes_on = !lines.is_empty() || follower.next(&mut lines).await;
        goes_on.then(|| (Ok::<_, Infallible>(Bytes::from(lines)), (follower, Vec::new())))
    });
    let ndjson = [(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"))];
    Ok((ndjson, Body::from_stream(lines)).into_response())
}

/// A client that follows the events.
struct Follower {
    shared: Arc<Shared>,
    publisher: Publisher,
    registry: Arc<Registry>,
    /// The number of the last event that was written.
    after: u64,
}

impl Follower {
    /// Adds the next lines. Returns `false` if the answer ends.
    async fn next(&mut self, lines: &mut Vec<u8>) -> bool {
        self.publisher.patience.grant(QUIET + STANDSTILL);
        let mut quiet = pin!(sleep(QUIET));
        let mut is_quiet = false;
        while lines.is_empty() && !is_quiet {
            tokio::select! {
                () = self.shared.draining.cancelled() => return false,
                () = self.publisher.grant.revoked() => return false,
                () = &mut quiet => is_quiet = true,
                () = self.registry.events.newer_than(self.after) => {}
            }
            if self.publisher.grant.permit(Scope::Events).is_err() {
                return false;
            }
            self.take(lines);
        }
        if lines.is_empty() {
            self.write_cursor(lines);
        }
        true
    }

    /// Adds the line that says from where to resume. The client may not see the newest events, which have no lines.
    fn write_cursor(&self, lines: &mut Vec<u8>) {
        push(lines, &json!({ "event": "cursor", "cursor": self.registry.events.cursor(self.after).to_string() }));
    }

    /// Adds the events that are there.
    fn take(&mut self, lines: &mut Vec<u8>) {
        let Page { events, missed: lost } = self.registry.events.since(self.after, PAGE);
        if lost > 0 {
            missed(lines, Some(lost));
        }
        for event in &events {
            self.after = event.number;
            if self.publisher.grant.may_see(&event.uid) {
                self.write(lines, event);
            }
        }
    }

    fn write(&self, lines: &mut Vec<u8>, event: &Event) {
        let Event { number, time, uid, connection, presence } = event;
        let mut line = json!({
            "cursor": self.registry.events.cursor(*number).to_string(),
            "uid": uid,
            "connection": connection.to_string(),
            "time": humantime::format_rfc3339_millis(*time).to_string(),
        });
        match presence {
            Presence::Login { first } => {
                line["event"] = "login".into();
                line["first"] = (*first).into();
            }
            Presence::Departure { cause, last } => {
                line["event"] = "departure".into();
                line["cause"] = cause.name().into();
                line["last"] = (*last).into();
            }
        }
        push(lines, &line);
    }
}

/// Adds the line that says that events are missing, and how many if that is known.
fn missed(lines: &mut Vec<u8>, count: Option<u64>) {
    push(lines, &json!({ "event": "missed", "count": count }));
}

fn push(lines: &mut Vec<u8>, line: &serde_json::Value) {
    // Writing to memory cannot fail.
    let _ = serde_json::to_writer(&mut *lines, line);
    lines.push(b'\n');
}
