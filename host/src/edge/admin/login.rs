//! Opens and ends the sessions of the dashboard: `/codes` and `/session`.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::Uri;
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::info;

use super::sessions::{CODE_LIFE, Rights, SESSION_LIFE};
use super::shared::{SESSION, Shared};
use super::visitor::{Caller, Visitor};
use crate::edge::http::body::read_body;
use crate::edge::http::bounded::HttpPeer;
use crate::edge::http::problem::{Problem, Reason};
use crate::edge::http::query::{Parameters, Query, no_query};
use crate::edge::http::token::ADMIN_FILE;

/// The largest body.
const LARGEST: usize = 4 << 10;

type Answer = Result<Json<Value>, Problem>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct CodeRequest {
    #[serde(default)]
    read_only: bool,
}

impl Parameters for CodeRequest {
    const ALLOWED: &'static str = "read-only=true or read-only=false";
}

/// Makes a code that opens one session.
pub(super) async fn make_code(
    State(shared): State<Arc<Shared>>,
    Caller { visitor, .. }: Caller,
    Query(request): Query<CodeRequest>,
) -> Answer {
    shared.dashboard()?;
    // A session that could make codes would have no end.
    if !matches!(visitor, Visitor::Admin) {
        return Err(Problem::new(Reason::Scope, format_args!("this needs the token of {ADMIN_FILE}")));
    }
    let rights = if request.read_only { Rights::Read } else { Rights::All };
    let code = shared.sessions.make_code(rights).map_err(|error| Problem::new(Reason::Internal, error))?;
    Ok(Json(json!({ "code": code.text(), "expires_in_seconds": CODE_LIFE.as_secs() })))
}

/// What opens a session.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Key {
    /// A code of `POST /codes`.
    Code(String),
    /// A token of a file.
    Token(String),
}

/// Opens a session.
pub(super) async fn open(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<HttpPeer>,
    uri: Uri,
    body: Body,
) -> Answer {
    shared.dashboard()?;
    no_query(&uri)?;
    let wrong = |_| Problem::bad("the body must be {\"code\": \"…\"} or {\"token\": \"…\"}");
    let body = read_body(body, LARGEST, "it holds a code or a token").await?;
    let key: Key = serde_json::from_slice(&body).map_err(wrong)?;
    let (by, rights) = shared.rights(&key).map_err(|problem| shared.refuse(&peer, SESSION, problem))?;
    let (session, token) = shared.sessions.open(rights).map_err(|error| Problem::new(Reason::Internal, error))?;
    let (number, read_only) = (session.number, rights == Rights::Read);
    info!(by, peer = %peer.remote, session = number, read_only, "session opened");
    Ok(Json(json!({
        "token": token.text(),
        "read_only": read_only,
        "expires_in_seconds": SESSION_LIFE.as_secs(),
    })))
}

/// Shows what the token of this request allows, and for how long.
pub(super) async fn show(Caller { visitor, .. }: Caller, State(shared): State<Arc<Shared>>, uri: Uri) -> Answer {
    shared.dashboard()?;
    no_query(&uri)?;
    let left = visitor.life().map(|left| left.as_secs());
    Ok(Json(json!({ "read_only": visitor.only_reads(), "expires_in_seconds": left })))
}

/// Ends the session.
pub(super) async fn close(Caller { visitor, .. }: Caller, State(shared): State<Arc<Shared>>, uri: Uri) -> Answer {
    shared.dashboard()?;
    no_query(&uri)?;
    let Visitor::Session(session) = visitor else {
        return Err(Problem::bad("this is the token of a file, and not of a session"));
    };
    shared.sessions.close(session.number);
    Ok(Json(json!({ "closed": true })))
}

impl Shared {
    /// Checks that there is a dashboard.
    fn dashboard(&self) -> Result<(), Problem> {
        let problem = "there is no dashboard: admin.dashboard = false";
        if self.has_dashboard { Ok(()) } else { Err(Problem::new(Reason::NoSuchPath, problem)) }
    }

    /// Returns whose key this is, for the log, and what it allows.
    fn rights(&self, key: &Key) -> Result<(String, Rights), Problem> {
        self.tokens()?;
        match key {
            Key::Code(code) => {
                let problem =
                    "this code is wrong, was used already, or is older than a minute: run `hotgate dashboard` again";
                let rights = self.sessions.take_code(code.trim());
                rights.map(|rights| ("code".to_owned(), rights)).ok_or_else(|| Problem::unauthorized(problem))
            }
            Key::Token(token) => match self.visitor(format!("Bearer {}", token.trim()).as_bytes())? {
                // It would have no end.
                Visitor::Session(_) => Err(Problem::wrong_token()),
                visitor if visitor.only_reads() => Ok((visitor.to_string(), Rights::Read)),
                visitor => Ok((visitor.to_string(), Rights::All)),
            },
        }
    }
}
