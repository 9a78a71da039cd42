//! Sends messages for as long as a request lasts: `POST /v1/stream`. Items and results are lines of JSON (NDJSON), in
//! the same order. The first results are written while later items still arrive.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use memchr::memchr;
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

use super::body::RoomPermit;
use super::caller::{Caller, Publisher};
use super::item;
use super::push::KEY;
use super::shared::Shared;
use crate::edge::http::bounded::STANDSTILL;
use crate::edge::http::problem::{Problem, Reason};
use crate::edge::http::query::{Parameters, Query};

/// Bytes of results that are written at once, even if more items wait.
const MANY: usize = 16 << 10;
/// The most bytes of JSON for one byte of a message: `\u001f`.
const ESCAPED: usize = 6;
/// Bytes of a line beside its message.
const BESIDE: usize = 4 << 10;
/// A buffer that a line made larger than this is given back when it is empty.
const KEEP: usize = 64 << 10;
/// How long a stream sleeps at a time because items came too fast. Then it looks again: the rate may have changed.
const NAP: Duration = Duration::from_secs(1);

/// Which results are wanted.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamOptions {
    results: Option<Results>,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Results {
    All,
    Errors,
}

impl Parameters for StreamOptions {
    const ALLOWED: &'static str = "results=all or results=errors";
}

/// Sends the items of the body as they arrive.
pub(super) async fn stream(
    State(shared): State<Arc<Shared>>,
    Caller(publisher): Caller,
    Query(wanted): Query<StreamOptions>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    publisher.grant.permit_any_push()?;
    publisher.grant.charge()?;
    if headers.contains_key(KEY) {
        return Err(Problem::bad("a stream has no Idempotency-Key: give each item a key"));
    }
    let items = Items {
        only_errors: wanted.results == Some(Results::Errors),
        body: body.into_data_stream(),
        buffer: BytesMut::new(),
        searched: 0,
        taken: None,
        held: None,
        summary: Summary::default(),
        is_complete: false,
        shared,
        publisher,
    };
    let results = stream::unfold(Some(items), |items| async move {
        let mut items = items?;
        let (results, more) = items.next().await;
        Some((Ok::<_, Infallible>(results), more.then_some(items)))
    });
    let ndjson = [(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"))];
    Ok((ndjson, Body::from_stream(results)).into_response())
}

/// The last line of the answer.
#[derive(Serialize)]
struct LastLine<'a> {
    summary: &'a Summary,
}

/// What became of all items.
#[derive(Debug, Default, Serialize)]
struct Summary {
    items: u64,
    /// Connections that were reached.
    reached: u64,
    /// Items with another status than 200.
    failed: u64,
    /// Why the stream has ended before its body.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<&'static str>,
}

/// The items of one request.
struct Items {
    shared: Arc<Shared>,
    publisher: Publisher,
    only_errors: bool,
    body: BodyDataStream,
    /// What has arrived, and is not handled yet.
    buffer: BytesMut,
    /// Bytes at the start of the buffer that contain no line end.
    searched: usize,
    /// The memory of the buffer.
    taken: Option<RoomPermit>,
    /// A line that came too fast, and waits.
    held: Option<Bytes>,
    summary: Summary,
    /// True if the body has ended.
    is_complete: bool,
}

impl Items {
    /// Returns the next results, and whether more follow. Reads on only if there are none yet: a client that does not
    /// read its results is not read, either.
    async fn next(&mut self) -> (Bytes, bool) {
        let mut results = Vec::new();
        loop {
            while results.len() < MANY
                && let Some(line) = self.held.take().or_else(|| self.line())
            {
                if line.trim_ascii().is_empty() {
                    continue;
                }
                let Some(pause) = self.publisher.grant.pause() else {
                    self.send(&line, &mut results).await;
                    continue;
                };
                self.held = Some(line);
                // The results so far are written before the stream waits.
                if !results.is_empty() {
                    break;
                }
                if let Err(problem) = self.wait(pause).await {
                    self.end(&problem);
                }
            }
            if !results.is_empty() {
                return (results.into(), true);
            }
            if self.is_complete {
                // Writing to memory cannot fail.
                let _ = serde_json::to_writer(&mut results, &LastLine { summary: &self.summary });
                results.push(b'\n');
                return (results.into(), false);
            }
            if let Err(problem) = self.read().await {
                self.end(&problem);
            }
        }
    }

    /// Ends the stream before its body.
    fn end(&mut self, problem: &Problem) {
        self.summary.ended = Some(problem.reason.word());
        self.is_complete = true;
        (self.held, self.buffer, self.searched) = (None, BytesMut::new(), 0);
    }

    /// Waits because items came too fast, but not for long: the rate may have changed.
    async fn wait(&mut self, pause: Duration) -> Result<(), Problem> {
        self.publisher.patience.grant(2 * STANDSTILL);
        tokio::select! {
            () = self.shared.draining.cancelled() => Err(Problem::draining()),
            () = self.publisher.grant.revoked() => Err(Problem::unauthorized("the token is no longer valid")),
            () = sleep(pause.min(NAP)) => Ok(()),
        }
    }

    /// Sends one item.
    async fn send(&mut self, line: &[u8], results: &mut Vec<u8>) {
        self.publisher.patience.grant(2 * STANDSTILL);
        let result = item::send(&self.shared, &self.publisher, line).await;
        self.summary.items += 1;
        self.summary.reached += result.delivered.reached as u64;
        self.summary.failed += u64::from(result.status != 200);
        if result.status != 200 || !self.only_errors {
            // Writing to memory cannot fail.
            let _ = serde_json::to_writer(&mut *results, &result);
            results.push(b'\n');
        }
        // A client with very many items must not keep its thread from others.
        tokio::task::coop::consume_budget().await;
    }

    /// Takes the next line out of the buffer.
    fn line(&mut self) -> Option<Bytes> {
        let found = memchr(b'\n', &self.buffer[self.searched..]).map(|at| self.searched + at + 1);
        let end = found.or_else(|| (self.is_complete && !self.buffer.is_empty()).then_some(self.buffer.len()));
        self.searched = if end.is_some() { 0 } else { self.buffer.len() };
        Some(self.buffer.split_to(end?).freeze())
    }

    /// Reads more of the body.
    async fn read(&mut self) -> Result<(), Problem> {
        let longest = ESCAPED * self.shared.config.max_message + BESIDE;
        if self.buffer.len() > longest {
            let problem = format!("a line is longer than {longest} bytes (api.max_message)");
            return Err(Problem::new(Reason::TooLarge, problem));
        }
        if self.buffer.is_empty() && self.buffer.capacity() > KEEP {
            self.buffer = BytesMut::new();
        }
        if let Some(taken) = &mut self.taken {
            drop(taken.split(taken.num_permits().saturating_sub(self.buffer.len())));
        }
        self.publisher.patience.grant(2 * STANDSTILL);
        let piece = tokio::select! {
            () = self.shared.draining.cancelled() => return Err(Problem::draining()),
            () = self.publisher.grant.revoked() => return Err(Problem::unauthorized("the token is no longer valid")),
            piece = timeout(STANDSTILL, self.body.next()) => piece,
        };
        match piece {
            Ok(Some(Ok(piece))) => {
                let taken = self.shared.room.take(piece.len())?;
                match &mut self.taken {
                    Some(all) => all.merge(taken),
                    none => *none = Some(taken),
                }
                self.buffer.extend_from_slice(&piece);
            }
            Ok(None) => self.is_complete = true,
            Ok(Some(Err(error))) => return Err(Problem::bad(error)),
            Err(_) => return Err(Problem::new(Reason::Timeout, "no item arrived in time")),
        }
        Ok(())
    }
}
