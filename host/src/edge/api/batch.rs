//! Sends several messages in one request: `POST /v1/batch`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::body::read;
use super::caller::{Caller, Publisher};
use super::idempotency::{Stored, replayed};
use super::item::{self, List, object};
use super::publish::{Reserved, reserve};
use super::push::key;
use super::shared::Shared;
use crate::edge::http::problem::{Problem, Reason};
use crate::edge::http::query::no_query;

/// The most items that `api.max_items` allows.
const MAX_ITEMS: usize = 100_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch<'a> {
    #[serde(borrow)]
    items: List<&'a RawValue, { MAX_ITEMS + 1 }>,
}

/// Sends the items of the body, in order.
pub(super) async fn batch(
    State(shared): State<Arc<Shared>>,
    Caller(publisher): Caller,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    no_query(&uri)?;
    publisher.grant.permit_any_push()?;
    publisher.grant.charge()?;
    let (body, taken) = read(&shared.room, body, shared.config.max_body, "api.max_body").await?;
    let items = count(&body, shared.config.max_items)?;
    // The request itself has been charged for one of them.
    publisher.grant.owe(items.saturating_sub(1));
    let reservation = match key(&headers, &uri, &body)? {
        None => None,
        Some((key, fingerprint)) => match reserve(&shared, &publisher, &key, fingerprint)? {
            Reserved::New(reservation) => Some(reservation),
            Reserved::Answered(stored) => return Ok(answer(stored.body, true)),
        },
    };
    // In a task of its own: the batch is carried out completely, even if the client leaves meanwhile.
    let state = shared.clone();
    let task = state.tasks.spawn(async move {
        let (results, may_have_arrived) = send_all(&shared, &publisher, &body).await?;
        drop(taken);
        if let Some(reservation) = reservation.filter(|_| may_have_arrived) {
            reservation.keep(Stored { status: 200, body: results.clone() });
        }
        Ok(answer(results, false))
    });
    task.await.map_err(|error| Problem::new(Reason::Internal, error))?
}

/// Checks a batch, and returns the number of its items.
fn count(body: &[u8], most: usize) -> Result<usize, Problem> {
    match parse(body)?.items.0.len() {
        items if items > most => {
            Err(Problem::new(Reason::TooLarge, format_args!("a batch has at most {most} items (api.max_items)")))
        }
        items => Ok(items),
    }
}

fn parse(body: &[u8]) -> Result<Batch<'_>, Problem> {
    let shape = "send {\"items\":[…]}";
    object(body).map_err(|error| Problem::bad(format_args!("this is no batch: {error}: {shape}")))
}

/// Sends all items. Returns the answer, and whether an item has reached somebody, or may have.
async fn send_all(shared: &Arc<Shared>, publisher: &Publisher, body: &[u8]) -> Result<(Bytes, bool), Problem> {
    let mut answer = b"{\"results\":[".to_vec();
    let mut may_have_arrived = false;
    for item in parse(body)?.items.0 {
        let result = item::send(shared, publisher, item.get().as_bytes()).await;
        may_have_arrived |= result.delivered.may_have_arrived;
        if answer.last() != Some(&b'[') {
            answer.push(b',');
        }
        serde_json::to_writer(&mut answer, &result).map_err(|error| Problem::new(Reason::Internal, error))?;
        // A batch of very many items must not keep its thread from others.
        tokio::task::coop::consume_budget().await;
    }
    answer.extend_from_slice(b"]}");
    Ok((answer.into(), may_have_arrived))
}

fn answer(body: Bytes, is_replay: bool) -> Response {
    let json = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (replayed(is_replay), json, body).into_response()
}
