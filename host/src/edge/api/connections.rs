//! Closes connections: `DELETE /v1/connections`; and the uids that are not let in again: `GET` and `DELETE /v1/blocks`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde::Deserialize;
use serde_json::{Value, json};

use super::caller::Caller;
use super::shared::Shared;
use super::target::{MAX_NAME, check_visible, connection_id, uid};
use super::tokens::Scope;
use crate::edge::http::closing::{close_all, close_reason, lift_block};
use crate::edge::http::problem::Problem;
use crate::edge::http::query::{Parameters, Query, no_query};
use crate::hub::blocks::LONGEST_BLOCK;
use crate::hub::command::Recipient;

/// The most blocks in one answer.
const LISTED: usize = 1000;
/// The shortest time for which a uid is blocked.
const SHORTEST_BLOCK: Duration = Duration::from_secs(1);

type Answer = Result<Json<Value>, Problem>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CloseRequest {
    uid: Option<String>,
    id: Option<String>,
    code: Option<u16>,
    reason: Option<String>,
    block: Option<String>,
}

impl Parameters for CloseRequest {
    const ALLOWED: &'static str = "uid=TEXT or id=ID, code=NUMBER, reason=TEXT and block=TIME";
}

/// Closes the connections of a uid, or one connection.
pub(super) async fn close(
    State(shared): State<Arc<Shared>>,
    Caller(publisher): Caller,
    Query(request): Query<CloseRequest>,
) -> Answer {
    publisher.grant.charge()?;
    let CloseRequest { uid: of, id, code, reason, block } = request;
    let (reason, block) = (close_reason(code, reason)?, block.as_deref().map(time).transpose()?);
    let registry = &shared.served()?.registry;
    let who = match (of, id, block) {
        (Some(of), None, block) => {
            let uid = uid(of)?;
            publisher.grant.permit_uid(Scope::Kick, &uid)?;
            if block.is_some() && uid.len() > MAX_NAME {
                return Err(Problem::bad(format_args!(
                    "a uid has at most {MAX_NAME} bytes: nobody can log in with this one"
                )));
            }
            Recipient::Uid(uid)
        }
        (None, Some(id), None) => {
            publisher.grant.permit(Scope::Kick)?;
            let id = connection_id(&id)?;
            check_visible(id, &publisher.grant, registry)?;
            Recipient::Connection(id)
        }
        (None, Some(_), Some(_)) => return Err(Problem::bad("block needs uid: it is the uid that is blocked")),
        _ => return Err(Problem::bad("name connections by uid or by id, and not by both")),
    };
    Ok(Json(json!({ "closed": close_all(registry, who, reason, block).await? })))
}

/// Reads a time such as `10m`.
fn time(text: &str) -> Result<Duration, Problem> {
    let time = humantime::parse_duration(text).ok().filter(|time| (SHORTEST_BLOCK..=LONGEST_BLOCK).contains(time));
    time.ok_or_else(|| Problem::bad("block: must be a time from 1s to 30days, like 10m"))
}

/// Lists the uids that this gateway keeps out and that the token may see, the block that ends first at the top: at most
/// [`LISTED`].
pub(super) async fn blocks(State(shared): State<Arc<Shared>>, Caller(publisher): Caller, uri: Uri) -> Answer {
    publisher.grant.charge()?;
    no_query(&uri)?;
    publisher.grant.permit(Scope::Kick)?;
    let mut blocks = shared.served()?.registry.blocks.list(LISTED + 1, |uid| publisher.grant.may_see(uid));
    let more = blocks.len() > LISTED;
    blocks.truncate(LISTED);
    let block = |(uid, left): (_, Duration)| json!({ "uid": uid, "seconds": left.as_secs() });
    Ok(Json(json!({ "blocks": blocks.into_iter().map(block).collect::<Vec<_>>(), "more": more })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Blocked {
    uid: Option<String>,
}

impl Parameters for Blocked {
    const ALLOWED: &'static str = "uid=TEXT";
}

/// Lets a uid in again, on all gateways.
pub(super) async fn lift(
    State(shared): State<Arc<Shared>>,
    Caller(publisher): Caller,
    Query(blocked): Query<Blocked>,
) -> Answer {
    publisher.grant.charge()?;
    let uid = uid(blocked.uid.unwrap_or_default())?;
    publisher.grant.permit_uid(Scope::Kick, &uid)?;
    Ok(Json(json!({ "lifted": usize::from(lift_block(&shared.served()?.registry, &uid).await?) })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::http::problem::Reason;

    #[test]
    fn a_block_lasts_from_a_second_to_thirty_days() {
        for (text, seconds) in [("1s", 1), ("10m", 600), ("30days", 30 * 86_400)] {
            assert_eq!(time(text).unwrap().as_secs(), seconds, "{text}");
        }
        for wrong in ["", "0s", "999ms", "10", "-1s", "31days"] {
            assert_eq!(time(wrong).unwrap_err().reason, Reason::BadRequest, "{wrong}");
        }
    }
}
