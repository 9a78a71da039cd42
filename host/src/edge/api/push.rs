//! Sends one message: `POST /v1/push`, and `POST /v1/line` for a line of the text port.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use bytestring::ByteString;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::body::{message, read, text};
use super::caller::{Caller, Publisher};
use super::idempotency::{Stored, key_of, replayed};
use super::publish::{Push, Reserved, Unreached, publish, reason_of, reserve};
use super::shared::Shared;
use super::target::Target;
use super::tokens::Scope;
use crate::base::metrics::{METRICS, PushFailure, PushWay};
use crate::edge::http::problem::{Problem, Reason};
use crate::edge::http::query::no_query;
use crate::hub::command::{Answer, Elsewhere, Outcome, Sender};
use crate::hub::delivery;
use crate::policy::PushError;

pub(super) const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Sends the body to the recipients in the query.
pub(super) async fn push(
    State(shared): State<Arc<Shared>>,
    Caller(publisher): Caller,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Unreached> {
    publisher.grant.charge()?;
    let target = Target::in_query(&uri)?;
    // Before the body takes memory.
    target.permit(&publisher.grant, &shared.served()?.registry)?;
    let (body, _taken) = read(&shared.room, body, shared.config.max_message, "api.max_message").await?;
    let key = key(&headers, &uri, &body)?;
    let message = message(&headers, body)?;
    let delivered = publish(&shared, &publisher, Push { target, message, key }).await?;
    let replayed = replayed(delivered.is_replay);
    Ok((replayed, Json(delivered)).into_response())
}

/// Passes the body to the router, as a line of the text port.
pub(super) async fn line(
    State(shared): State<Arc<Shared>>,
    Caller(publisher): Caller,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    publisher.grant.permit(Scope::Line)?;
    publisher.grant.charge()?;
    no_query(&uri)?;
    let (body, _taken) = read(&shared.room, body, shared.config.max_message, "api.max_message").await?;
    // The token may have changed while the body arrived.
    publisher.grant.permit(Scope::Line)?;
    let key = key(&headers, &uri, &body)?;
    let line = text(body)?;
    // As on the text port.
    let line = line.strip_suffix('\n').unwrap_or(&line).trim_end_matches('\r');
    if line.contains('\n') {
        return Err(Problem::bad("the body must be one line"));
    }
    let line = ByteString::from(line);
    let reservation = match key {
        None => None,
        Some((key, fingerprint)) => match reserve(&shared, &publisher, &key, fingerprint)? {
            Reserved::New(reservation) => Some(reservation),
            Reserved::Answered(stored) => return Ok(answered(stored, true)),
        },
    };
    // In a task of its own: the line is carried out completely, even if the client leaves meanwhile.
    let (sending, state) = (send_line(shared.clone(), publisher, line), shared.clone());
    let task = state.tasks.spawn(async move {
        let begun = Instant::now();
        let (result, may_have_arrived) = sending.await;
        METRICS.push_seconds.observe(PushWay::Http, begun.elapsed());
        let stored = match result {
            Ok(body) => {
                METRICS.pushes_ok.increment();
                Stored { status: 200, body }
            }
            Err((failure, problem)) => {
                METRICS.pushes_failed.increment(failure);
                // Some deliveries may have reached a client. A request that comes again must not repeat them.
                if reservation.is_none() || !may_have_arrived {
                    return Err(problem);
                }
                let (status, _, body) = problem.into_parts();
                Stored { status: status.as_u16(), body: body.to_string().into() }
            }
        };
        if let Some(reservation) = reservation.filter(|_| may_have_arrived) {
            reservation.keep(stored.clone());
        }
        Ok(answered(stored, false))
    });
    task.await.map_err(|error| Problem::new(Reason::Internal, error))?
}

/// Sends a line. Returns the answer to it, and whether a delivery has reached somebody, or may have.
async fn send_line(
    shared: Arc<Shared>,
    publisher: Publisher,
    line: ByteString,
) -> (Result<Bytes, (PushFailure, Problem)>, bool) {
    let failed = |failure, reason, error: &str| (Err((failure, Problem::new(reason, error))), false);
    let served = match shared.served() {
        Ok(served) => served,
        Err(problem) => return (Err((PushFailure::Failed, problem)), false),
    };
    let sender = Sender { connection: publisher.connection, remote_address: publisher.remote.to_string() };
    let Answer { commands, reply } = match served.policy.router.push(&sender, &line).await {
        Ok(answer) => answer,
        Err(PushError::Refused) => {
            return failed(PushFailure::Refused, Reason::Refused, "the router refused the line: see the gateway's log");
        }
        Err(PushError::Failed) => {
            let error = "the router failed or has too many calls; nothing was sent";
            return failed(PushFailure::Failed, Reason::Failed, error);
        }
    };
    let (mut all, mut reached, mut elsewhere) = (true, 0, None);
    let mut count = |_, outcome: Outcome| {
        all &= outcome.reached > 0;
        reached += outcome.reached;
        if outcome.reached == 0 {
            elsewhere = elsewhere.max(outcome.elsewhere);
        }
    };
    let unanswered = delivery::apply_commands(&served.registry, commands, &mut count).await;
    unanswered.answers(count).await;
    let result = match reply {
        Some(reply) => Ok(reply.into_bytes()),
        None if all => Ok(Bytes::from_static(b"ok")),
        None => {
            let reason = elsewhere.map_or(Reason::Offline, reason_of);
            let problem = Problem::new(reason, "a delivery of this line reached nobody, as far as is known");
            Err((PushFailure::Unreached, problem))
        }
    };
    (result, reached > 0 || elsewhere == Some(Elsewhere::Unknown))
}

/// Answers with the text for a line, or with the problem in JSON.
fn answered(Stored { status, body }: Stored, is_replay: bool) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or_default();
    let media_type = if status == StatusCode::OK { "text/plain; charset=utf-8" } else { "application/json" };
    (status, replayed(is_replay), [(CONTENT_TYPE, HeaderValue::from_static(media_type))], body).into_response()
}

/// Returns the request's idempotency key, if it has one, and the fingerprint of path, query, type and body.
pub(super) fn key(headers: &HeaderMap, uri: &Uri, body: &[u8]) -> Result<Option<(String, [u8; 32])>, Problem> {
    let mut keys = headers.get_all(KEY).iter();
    let Some(key) = keys.next() else { return Ok(None) };
    if keys.next().is_some() {
        return Err(Problem::bad("send exactly one Idempotency-Key"));
    }
    let key = key_of(key.as_bytes()).map_err(Problem::bad)?.to_owned();
    let media_type = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let mut hash = Sha256::new();
    for part in [uri.path().as_bytes(), uri.query().unwrap_or_default().as_bytes(), media_type, body] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    Ok(Some((key, hash.finalize().into())))
}
