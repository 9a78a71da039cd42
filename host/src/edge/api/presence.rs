//! Who is connected: `GET /v1/online`, `GET /v1/members`; and groups: `PUT` and `DELETE /v1/membership`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::caller::{Caller, Publisher};
use super::publish::reason_of;
use super::shared::Shared;
use super::target::{Named, Target, group_name, uid};
use super::tokens::Scope;
use crate::edge::http::problem::{Problem, Reason, shown};
use crate::edge::http::query::{Parameters, Query, pairs};
use crate::hub::cluster::id::NodeId;
use crate::hub::command::Outcome;
use crate::hub::everywhere::{self, Members};
use crate::hub::registry::TooManyGroups;

/// The uids of a group in one answer: the default, and the most.
const PAGE: usize = 1000;
const LARGEST_PAGE: usize = 10_000;

type Answer = Result<Json<Value>, Problem>;

/// Says that other gateways may know more: these, if they have not answered.
fn incomplete(answer: &mut Value, missing: &[NodeId]) {
    answer["complete"] = false.into();
    if !missing.is_empty() {
        answer["missing"] = missing.iter().map(|node| node.get()).collect();
    }
}

/// Returns the number of connections of each uid.
pub(super) async fn online(State(shared): State<Arc<Shared>>, Caller(publisher): Caller, uri: Uri) -> Answer {
    publisher.grant.charge()?;
    let mut named = Named::default();
    for (name, value) in pairs(&uri)? {
        if name != "uid" {
            return Err(Problem::bad(format_args!("wrong query parameter {}: this path takes uid=TEXT", shown(&name))));
        }
        named.uids.push(value);
    }
    let Target::Uids(uids) = named.target().map_err(|problem| match problem.reason {
        Reason::BadRequest => Problem::bad("the query parameter uid is missing or empty: whose connections to count"),
        _ => problem,
    })?
    else {
        return Err(Problem::bad("this path takes uid=TEXT"));
    };
    uids.iter().try_for_each(|uid| publisher.grant.permit_uid(Scope::Query, uid))?;
    let registry = &shared.served()?.registry;
    // Asked first: what is certain now is certain when the connections are counted.
    let is_certain = registry.cluster().is_none_or(|cluster| cluster.may_say_offline());
    let (mut online, mut offline) = (BTreeMap::new(), Vec::new());
    for uid in uids {
        match registry.connection_count(&uid) {
            0 => offline.push(uid),
            count => _ = online.insert(uid, count),
        }
    }
    let mut answer = json!({ "online": online, "offline": offline });
    if !is_certain {
        incomplete(&mut answer, &[]);
    }
    Ok(Json(answer))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    group: Option<String>,
    limit: Option<usize>,
}

impl Parameters for Page {
    const ALLOWED: &'static str = "group=NAME and limit=NUMBER";
}

/// Returns the uids in a group.
pub(super) async fn members(
    State(shared): State<Arc<Shared>>,
    Caller(publisher): Caller,
    Query(page): Query<Page>,
) -> Answer {
    publisher.grant.charge()?;
    let group = group_name(page.group.unwrap_or_default())?;
    let limit = page.limit.unwrap_or(PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        return Err(Problem::bad(format_args!("limit: must be from 1 to {LARGEST_PAGE}")));
    }
    publisher.grant.permit_group(Scope::Query, &group)?;
    let registry = &shared.served()?.registry;
    let (here, seen_by, of) = (registry.clone(), publisher.grant.clone(), group.clone());
    // This may visit every connection.
    let here = spawn_blocking(move || here.uids_in_group(&of, limit + 1, |uid| seen_by.may_see(uid))).await;
    let here = here.map_err(|error| Problem::new(Reason::Internal, error))?;
    let members =
        everywhere::members(registry, here, &group, limit + 1, Duration::MAX, |uid| publisher.grant.may_see(uid)).await;
    let Members { uids, is_complete, missing } = members;
    let more = uids.len() > limit;
    let uids: Vec<_> = uids.into_iter().take(limit).collect();
    let mut answer = json!({ "uids": uids, "more": more });
    if !is_complete {
        incomplete(&mut answer, &missing);
    }
    Ok(Json(answer))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Member {
    group: Option<String>,
    uid: Option<String>,
}

impl Parameters for Member {
    const ALLOWED: &'static str = "group=NAME and uid=TEXT";
}

/// Puts the connections of a uid into a group.
pub(super) async fn join(
    State(shared): State<Arc<Shared>>,
    Caller(publisher): Caller,
    member: Query<Member>,
) -> Answer {
    change(&shared, &publisher, member, true).await
}

/// Takes the connections of a uid out of a group.
pub(super) async fn leave(
    State(shared): State<Arc<Shared>>,
    Caller(publisher): Caller,
    member: Query<Member>,
) -> Answer {
    change(&shared, &publisher, member, false).await
}

async fn change(
    shared: &Shared,
    publisher: &Publisher,
    Query(Member { group, uid: of }): Query<Member>,
    is_join: bool,
) -> Answer {
    publisher.grant.charge()?;
    let (group, uid) = (group_name(group.unwrap_or_default())?, uid(of.unwrap_or_default())?);
    publisher.grant.permit_group(Scope::Membership, &group)?;
    publisher.grant.permit_uid(Scope::Membership, &uid)?;
    match everywhere::change_membership(&shared.served()?.registry, uid, group, is_join).await {
        Outcome { reached: changed @ 1.., elsewhere, missing, .. } => {
            let mut answer = json!({ "connections": changed });
            if elsewhere.is_some() {
                incomplete(&mut answer, &missing);
            }
            Ok(Json(answer))
        }
        Outcome { full: 1.., .. } => Err(Problem::new(Reason::TooManyGroups, TooManyGroups)),
        Outcome { elsewhere: Some(why), .. } => Err(Problem::new(
            reason_of(why),
            "the client's gateway did not answer, or nobody knows where the client is",
        )),
        _ => Err(Problem::new(Reason::Offline, "nobody with this uid is connected")),
    }
}
