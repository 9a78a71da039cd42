//! Starts, shows and cancels a drain: `POST`, `GET` and `DELETE /drain`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;

use super::shared::Shared;
use crate::edge::drain::DrainStatus;
use crate::edge::http::problem::{Problem, Reason};
use crate::edge::http::query::no_query;

type DrainAnswer = Result<Json<DrainStatus>, Problem>;

pub(super) async fn show(State(shared): State<Arc<Shared>>, uri: Uri) -> DrainAnswer {
    no_query(&uri)?;
    Ok(Json(shared.served()?.drain.status()))
}

/// Answers at once: the drain takes its time.
pub(super) async fn start(State(shared): State<Arc<Shared>>, uri: Uri) -> DrainAnswer {
    no_query(&uri)?;
    Ok(Json(shared.served()?.drain.start()))
}

pub(super) async fn cancel(State(shared): State<Arc<Shared>>, uri: Uri) -> DrainAnswer {
    no_query(&uri)?;
    let cancelled = shared.served()?.drain.cancel();
    Ok(Json(cancelled.map_err(|error| Problem::new(Reason::NotNow, error))?))
}
