//! Lists the plugins of all slots, and deploys, rolls back, promotes and reloads them.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::Uri;
use axum::http::request::Parts;
use serde::Deserialize;
use serde_json::{Value, json};

use super::others::{About, Nodes, Question, Told, ask_one_json, ask_others, cluster, other};
use super::shared::{Served, Shared};
use crate::edge::http::body::read_body;
use crate::edge::http::problem::Problem;
use crate::edge::http::query::{Parameters, Query, no_query};
use crate::policy::DeployError;
use crate::policy::status::{Deployed, PluginStatus};

type Shares = State<Arc<Shared>>;
type PluginAnswer = Result<Json<PluginStatus>, Problem>;

/// The slot in the path of a request.
pub(super) struct Slot(String);

impl<S: Send + Sync> FromRequestParts<S> for Slot {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path: Result<Path<String>, PathRejection> = Path::from_request_parts(parts, state).await;
        path.map(|Path(slot)| Self(slot)).map_err(Problem::bad)
    }
}

/// The generation that the operator expects. The request is refused if another generation is the newest.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expected {
    generation: Option<u64>,
}

impl Parameters for Expected {
    const ALLOWED: &'static str = "generation=NUMBER";
}

/// Lists the plugins of this gateway, of another one, or of all.
pub(super) async fn list(State(shared): Shares, Query(about): Query<About>) -> Result<Json<Value>, Problem> {
    let served = shared.served()?;
    Ok(Json(match about.node {
        None => page(served),
        Some(Nodes::One(node)) => match other(served, node)? {
            None => page(served),
            Some(node) => ask_one_json(served, node, &Question::Plugins).await?,
        },
        Some(Nodes::All) => {
            let told = ask_others::<Value>(served, &Question::Plugins).await?;
            let (complete, Told { mut by, missing, room: _room, .. }) = (told.complete(), told);
            by.insert(cluster(served)?.id().get(), page(served));
            let plugins = |(node, mut page): (u16, Value)| {
                let plugins = page.get_mut("plugins").map(Value::take);
                json!({ "node": node, "plugins": plugins })
            };
            let mut page = json!({ "nodes": by.into_iter().map(plugins).collect::<Vec<_>>(), "missing": missing });
            if let Some(complete) = complete {
                page["complete"] = complete.into();
            }
            page
        }
    }))
}

/// Returns the page about this gateway.
pub(super) fn page(served: &Served) -> Value {
    json!({ "plugins": served.policy.plugins() })
}

pub(super) async fn rollback(
    State(shared): Shares,
    Slot(slot): Slot,
    Query(expected): Query<Expected>,
) -> PluginAnswer {
    Ok(Json(shared.served()?.policy.rollback(&slot, expected.generation).await?))
}

pub(super) async fn promote(State(shared): Shares, Slot(slot): Slot, Query(expected): Query<Expected>) -> PluginAnswer {
    Ok(Json(shared.served()?.policy.promote(&slot, expected.generation).await?))
}

pub(super) async fn reload(State(shared): Shares, Slot(slot): Slot, uri: Uri) -> PluginAnswer {
    no_query(&uri)?;
    Ok(Json(Box::pin(shared.served()?.policy.reload(&slot)).await?))
}

pub(super) async fn deploy(
    State(shared): Shares,
    Slot(slot): Slot,
    uri: Uri,
    body: Body,
) -> Result<Json<Deployed>, Problem> {
    no_query(&uri)?;
    let policy = &shared.served()?.policy;
    let limit = policy.max_component(&slot)?;
    // Held until the end: only one component is in memory.
    let _deploying = shared.deploying.try_acquire().map_err(|_| {
        let problem = "another deploy is running; try again in a moment";
        Problem::from(DeployError::NotNow(problem.to_owned()))
    })?;
    let component = read_body(body, limit, "limits.max_component").await?;
    Ok(Json(Box::pin(policy.deploy(&slot, component)).await?))
}
