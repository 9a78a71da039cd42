//! How much the log says: `GET /log-level`, and `PUT /log-level` for a while.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::http::Uri;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::sleep;
use tracing::info;

use super::visitor::Caller;
use crate::base::verbosity::VERBOSITY;
use crate::config::is_log_level;
use crate::edge::http::body::read_body;
use crate::edge::http::problem::{Problem, Reason};
use crate::edge::http::query::no_query;

/// The largest body.
const LARGEST: usize = 4 << 10;
/// The longest time. A log that says much fills a disk.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// How often it is looked whether a level's time is over.
const LOOK: Duration = Duration::from_secs(1);

type Answer = Result<Json<Value>, Problem>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    level: String,
    r#for: String,
}

pub(super) async fn show(uri: Uri) -> Answer {
    no_query(&uri)?;
    Ok(Json(now()))
}

pub(super) async fn set(Caller { visitor, .. }: Caller, uri: Uri, body: Body) -> Answer {
    no_query(&uri)?;
    let wrong =
        |error| Problem::bad(format_args!("the body must be {{\"level\": \"debug\", \"for\": \"10m\"}}: {error}"));
    let body = read_body(body, LARGEST, "the bound of /log-level").await?;
    let Wanted { level, r#for } = serde_json::from_slice(&body).map_err(wrong)?;
    let time = humantime::parse_duration(&r#for).ok().filter(|time| !time.is_zero() && *time <= LONGEST);
    let time = time.ok_or_else(|| Problem::bad("for: must be a time of at most 24h, like \"10m\""))?;
    if !is_log_level(&level) {
        return Err(Problem::bad(
            "level: must be as log.level in the configuration, like \"debug\" or \"info,hotgate=debug\"",
        ));
    }
    // Directives about fields, and those of the admin listener, would come before the one that keeps its lines.
    if level.contains('[') || level.contains("edge::admin") {
        return Err(Problem::bad(
            "level: fields in brackets and hotgate::edge::admin cannot be set here: what operators do is always logged",
        ));
    }
    // Before: the new level may be above this line's.
    info!(by = %visitor, directives = level, ?time, "the log's level is changed for a while");
    VERBOSITY.set(&level, time).map_err(|error| Problem::new(Reason::Internal, error))?;
    Ok(Json(now()))
}

/// Goes back to the usual level when its time has come.
pub(super) async fn expire() -> Infallible {
    loop {
        sleep(LOOK).await;
        if VERBOSITY.expire() {
            info!("the log's level is that of the configuration again");
        }
    }
}

fn now() -> Value {
    let (level, left) = VERBOSITY.get();
    json!({ "level": level, "expires_in_seconds": left.map(|left| left.as_secs()) })
}
