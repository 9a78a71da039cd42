//! Answers the questions that operators ask of this gateway at another one. The answers are those of the pages, to
//! whoever has a token of the other gateway.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::Serialize;

use super::others::Question;
use super::shared::Shared;
use super::{connections, metrics, overview, plugins, status};
use crate::edge::http::problem::Problem;
use crate::hub::cluster::questions::Informant;

/// Answers questions while the admin listener lives.
pub(super) struct Answers(pub(super) Weak<Shared>);

impl Informant for Answers {
    fn answer(&self, question: Bytes) -> BoxFuture<'static, Bytes> {
        let shared = self.0.upgrade();
        let answer = async move { answer(shared?, &question).await.ok() };
        answer.map(Option::unwrap_or_default).boxed()
    }
}

async fn answer(shared: Arc<Shared>, question: &[u8]) -> Result<Bytes, Problem> {
    let served = shared.served()?;
    match serde_json::from_slice(question).map_err(Problem::bad)? {
        Question::Node => json(&overview::own(&shared, served)),
        Question::Status => json(&status::page(&shared, served)),
        Question::Plugins => json(&plugins::page(served)),
        Question::Metrics => Ok(metrics::text(shared.clone()).await?.into()),
        Question::Connections { after, limit, uid } => json(&connections::here(served, after, limit, uid).await?),
        Question::Slowest { limit } => json(&connections::slowest_here(served, limit).await?.cut()),
    }
}

fn json(answer: &impl Serialize) -> Result<Bytes, Problem> {
    serde_json::to_vec(answer).map(Bytes::from).map_err(Problem::bad)
}
