//! Lists and closes connections.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::shared::Shared;
use crate::base::message::ConnectionId;
use crate::edge::http::closing::{close_all, close_reason};
use crate::edge::http::problem::{Problem, Reason, shown};
use crate::edge::http::query::{Parameters, Query};
use crate::hub::command::Recipient;
use crate::hub::everywhere::is_foreign;
use crate::hub::registry::Peer;

/// Connections on one page: the default, and the most.
const PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;

type Answer = Result<Json<Value>, Problem>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
    uid: Option<String>,
}

impl Parameters for Page {
    const ALLOWED: &'static str = "after=NUMBER, limit=NUMBER and uid=TEXT";
}

#[derive(Serialize)]
struct ConnectionRow<'a> {
    id: String,
    uid: &'a str,
    address: String,
    since: String,
    groups: usize,
    outbox_bytes: usize,
}

impl<'a> ConnectionRow<'a> {
    fn of(peer: &'a Peer) -> Self {
        Self {
            id: peer.id.to_string(),
            uid: &peer.uid,
            address: peer.address().to_string(),
            since: humantime::format_rfc3339_seconds(peer.since()).to_string(),
            groups: peer.groups(),
            outbox_bytes: peer.outbox.queued_bytes().unwrap_or(0),
        }
    }
}

pub(super) async fn list(State(shared): State<Arc<Shared>>, Query(page): Query<Page>) -> Answer {
    let Page { after, limit, uid } = page;
    let limit = limit.unwrap_or(PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        return Err(Problem::bad(format!("limit: must be from 1 to {LARGEST_PAGE}")));
    }
    let registry = shared.served()?.registry.clone();
    // This may visit every connection.
    let page = spawn_blocking(move || {
        let after = ConnectionId(after);
        let Some(uid) = uid else { return registry.page(after, limit) };
        let mut peers = registry.of_uid(&uid);
        peers.retain(|peer| peer.id > after);
        peers.sort_by_key(|peer| peer.id);
        peers.truncate(limit);
        peers
    });
    let peers = page.await.map_err(|error| Problem::new(Reason::Internal, error))?;
    let next = peers.last().filter(|_| peers.len() == limit).map(|last| last.id.to_string());
    let connections: Vec<_> = peers.iter().map(|peer| ConnectionRow::of(peer)).collect();
    Ok(Json(json!({ "connections": connections, "next": next })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CloseRequest {
    uid: Option<String>,
    code: Option<u16>,
    reason: Option<String>,
}

impl Parameters for CloseRequest {
    const ALLOWED: &'static str = "uid=TEXT, code=NUMBER and reason=TEXT";
}

pub(super) async fn close(
    State(shared): State<Arc<Shared>>,
    id: Result<Path<String>, PathRejection>,
    Query(request): Query<CloseRequest>,
) -> Answer {
    let Path(id) = id.map_err(Problem::bad)?;
    let id: u64 =
        id.parse().map_err(|_| Problem::bad(format!("{}: the id of a connection must be a number", shown(&id))))?;
    if request.uid.is_some() {
        return Err(Problem::bad("name a connection by its id or by its uid, not both"));
    }
    let reason = close_reason(request.code, request.reason)?;
    let registry = &shared.served()?.registry;
    let id = ConnectionId(id);
    if registry.cluster().is_none_or(|own| !is_foreign(own, id)) && registry.connection(id).is_none() {
        let error = format_args!("there is no authenticated connection with the id {id}");
        return Err(Problem::new(Reason::Offline, error));
    }
    Ok(Json(json!({ "closed": close_all(registry, Recipient::Connection(id), reason, None).await? })))
}

pub(super) async fn close_uid(State(shared): State<Arc<Shared>>, Query(mut request): Query<CloseRequest>) -> Answer {
    let uid = request
        .uid
        .take()
        .ok_or_else(|| Problem::bad("the query parameter uid is missing: whose connections to close"))?;
    let reason = close_reason(request.code, request.reason)?;
    let registry = &shared.served()?.registry;
    Ok(Json(json!({ "closed": close_all(registry, Recipient::Uid(uid.into()), reason, None).await? })))
}
