//! Lists and closes connections.

use std::cmp::Reverse;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::listed::List;
use super::others::{Nodes, Question, ask_one_json, ask_others, other};
use super::shared::{Served, Shared};
use crate::base::message::ConnectionId;
use crate::edge::http::closing::{close_all, close_reason};
use crate::edge::http::problem::{Problem, Reason, shown};
use crate::edge::http::query::{Parameters, Query};
use crate::hub::cluster::id::NodeId;
use crate::hub::command::Recipient;
use crate::hub::registry::Several;

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
    node: Option<Nodes>,
    sort: Option<Sort>,
}

impl Parameters for Page {
    const ALLOWED: &'static str = "after=NUMBER, limit=NUMBER, uid=TEXT, node=NUMBER, node=all and sort=outbox";
}

/// The order of a list, if it is not that of the ids.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Sort {
    /// Those with the most bytes in their outboxes first: clients that read too slowly.
    Outbox,
}

/// Lists connections of all gateways, or of one.
pub(super) async fn list(State(shared): State<Arc<Shared>>, Query(page): Query<Page>) -> Answer {
    let Page { after, limit, uid, node, sort } = page;
    let limit = limit.unwrap_or(PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        return Err(Problem::bad(format!("limit: must be from 1 to {LARGEST_PAGE}")));
    }
    if let Some(Sort::Outbox) = sort {
        if after > 0 || uid.is_some() {
            return Err(Problem::bad("sort=outbox lists the first ones of all: it takes no after and no uid"));
        }
        return slowest(shared.served()?, node, limit).await.map(Json);
    }
    let (served, wanted) = (shared.served()?, Wanted { after: ConnectionId(after), limit, uid });
    if node.is_none() && served.registry.cluster().is_none() {
        return Ok(Json(select(served, wanted).await?.page(None)));
    }
    let (list, missing, complete) = match node {
        None | Some(Nodes::All) => everywhere(served, wanted).await?,
        Some(Nodes::One(node)) => (of(served, node, wanted).await?, Vec::new(), None),
    };
    let mut page = list.page(Some(missing));
    if let Some(complete) = complete {
        page["complete"] = complete.into();
    }
    Ok(Json(page))
}

/// Which connections are wanted.
#[derive(Clone)]
struct Wanted {
    after: ConnectionId,
    limit: usize,
    uid: Option<String>,
}

impl Wanted {
    fn question(&self) -> Question {
        Question::Connections { after: self.after.0, limit: self.limit, uid: self.uid.clone() }
    }
}

/// Lists connections of all gateways. Also returns those that did not answer, and `Some(false)` if some connections may
/// be left out for this reason.
async fn everywhere(served: &Served, wanted: Wanted) -> Result<(List, Vec<u16>, Option<bool>), Problem> {
    // Ids begin with the number of their gateway. So most pages come from the gateway of `after` alone, and the others
    // need not be asked.
    let first = NodeId::new(wanted.after.node()).filter(|_| wanted.after.0 > 0 && wanted.uid.is_none());
    if let Some(first) = first
        && let Ok(list) = of(served, first, wanted.clone()).await
        && list.more
    {
        return Ok((list, Vec::new(), None));
    }
    let told = ask_others::<List>(served, &wanted.question()).await?;
    let (complete, after, limit) = (told.complete(), wanted.after, wanted.limit);
    let here = select(served, wanted).await?;
    let there = told.by.into_iter().map(|(node, list)| list.checked(node, after));
    Ok((List::merge([here].into_iter().chain(there), limit), told.missing, complete))
}

/// Lists connections of one gateway.
async fn of(served: &Served, node: NodeId, wanted: Wanted) -> Result<List, Problem> {
    match other(served, node)? {
        None => select(served, wanted).await,
        Some(node) => {
            let list: List = ask_one_json(served, node, &wanted.question()).await?;
            Ok(List::merge([list.checked(node.get(), wanted.after)], wanted.limit))
        }
    }
}

/// Lists connections of this gateway, for another one.
pub(super) async fn here(served: &Served, after: u64, limit: usize, uid: Option<String>) -> Result<List, Problem> {
    let wanted = Wanted { after: ConnectionId(after), limit: limit.clamp(1, LARGEST_PAGE), uid };
    Ok(select(served, wanted).await?.cut())
}

/// Lists the connections with the most queued bytes, of one gateway or of all.
async fn slowest(served: &Served, node: Option<Nodes>, limit: usize) -> Result<Value, Problem> {
    let question = Question::Slowest { limit };
    if node.is_none() && served.registry.cluster().is_none() {
        return Ok(slowest_here(served, limit).await?.page(None));
    }
    let (lists, missing, complete, _room) = match node {
        None | Some(Nodes::All) => {
            let told = ask_others::<List>(served, &question).await?;
            let complete = told.complete();
            let there = told.by.into_iter().map(|(node, list)| list.checked(node, ConnectionId(0)));
            (there.chain([slowest_here(served, limit).await?]).collect(), told.missing, complete, told.room)
        }
        Some(Nodes::One(node)) => match other(served, node)? {
            None => (vec![slowest_here(served, limit).await?], Vec::new(), None, Vec::new()),
            Some(node) => {
                let list: List = ask_one_json(served, node, &question).await?;
                (vec![list.checked(node.get(), ConnectionId(0))], Vec::new(), None, Vec::new())
            }
        },
    };
    let mut page = List::slowest(lists, limit).page(Some(missing));
    if let Some(complete) = complete {
        page["complete"] = complete.into();
    }
    Ok(page)
}

/// Lists the connections of this gateway with the most queued bytes.
pub(super) async fn slowest_here(served: &Served, limit: usize) -> Result<List, Problem> {
    let (registry, limit) = (served.registry.clone(), limit.clamp(1, LARGEST_PAGE));
    let list = spawn_blocking(move || {
        let mut slowest = registry.walk(Several::Everyone).most_queued(limit);
        slowest.sort_unstable_by_key(|(bytes, peer)| (Reverse(*bytes), peer.id));
        let peers: Vec<_> = slowest.into_iter().map(|(_, peer)| peer).collect();
        // No page follows.
        List::of(&peers, registry.cluster().map(|cluster| cluster.id().get()), usize::MAX)
    });
    list.await.map_err(|error| Problem::new(Reason::Internal, error))
}

async fn select(served: &Served, Wanted { after, limit, uid }: Wanted) -> Result<List, Problem> {
    let registry = served.registry.clone();
    // This may visit every connection.
    let list = spawn_blocking(move || {
        let peers = match uid {
            None => registry.page(after, limit),
            Some(uid) => {
                let mut peers = registry.of_uid(&uid);
                peers.retain(|peer| peer.id > after);
                peers.sort_by_key(|peer| peer.id);
                peers.truncate(limit);
                peers
            }
        };
        List::of(&peers, registry.cluster().map(|cluster| cluster.id().get()), limit)
    });
    list.await.map_err(|error| Problem::new(Reason::Internal, error))
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
    if registry.cluster().is_none_or(|own| !own.is_foreign(id)) && registry.connection(id).is_none() {
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
