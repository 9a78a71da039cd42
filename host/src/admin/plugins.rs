//! What serves in the slots, and what operators do about it.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::Shared;
use super::problem::Problem;
use crate::policy::status::PluginStatus;

type Status = Result<Json<PluginStatus>, Problem>;

pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Result<Json<Value>, Problem> {
    Ok(Json(json!({ "plugins": shared.served()?.policy.plugins() })))
}

pub(super) async fn rollback(State(shared): State<Arc<Shared>>, Path(slot): Path<String>) -> Status {
    Ok(Json(shared.served()?.policy.rollback(&slot, None).await?))
}

pub(super) async fn promote(State(shared): State<Arc<Shared>>, Path(slot): Path<String>) -> Status {
    Ok(Json(shared.served()?.policy.promote(&slot, None).await?))
}

pub(super) async fn reload(State(shared): State<Arc<Shared>>, Path(slot): Path<String>) -> Status {
    Ok(Json(Box::pin(shared.served()?.policy.reload(&slot)).await?))
}

pub(super) async fn deploy(State(shared): State<Arc<Shared>>, Path(slot): Path<String>, body: Body) -> Status {
    let policy = &shared.served()?.policy;
    let limit = policy.max_component(&slot)?;
    // Never closed.
    let _uploading = shared.uploading.acquire().await;
    let component = read(body, limit).await?;
    Ok(Json(Box::pin(policy.deploy(&slot, component)).await?))
}

async fn read(body: Body, limit: usize) -> Result<Vec<u8>, Problem> {
    let mut pieces = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next().await {
        let missing = |error| Problem::new(StatusCode::BAD_REQUEST, format!("the component has not arrived: {error}"));
        let piece = piece.map_err(missing)?;
        if bytes.len() + piece.len() > limit {
            let problem = format!("the component is larger than {limit} bytes (limits.max_component)");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, problem));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}
