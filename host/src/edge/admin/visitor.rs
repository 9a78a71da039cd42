//! Who sends a request, and what this allows.

use std::fmt;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::Method;
use axum::http::request::Parts;
use tokio::time::Instant;

use super::sessions::{Rights, Session};
use super::shared::{AdminTokens, SESSION, Shared};
use crate::edge::http::bounded::HttpPeer;
use crate::edge::http::problem::{Problem, Reason};
use crate::edge::http::token::{ADMIN_FILE, READ_FILE, bearer};

/// Whose token a request has.
#[derive(Debug, Clone)]
pub(super) enum Visitor {
    /// That of the file with the admin token.
    Admin,
    /// That of the file with the token that only reads.
    Reader,
    /// That of a session.
    Session(Session),
}

impl Visitor {
    /// Returns `true` if this only allows to read.
    pub(super) fn only_reads(&self) -> bool {
        match self {
            Self::Admin => false,
            Self::Reader => true,
            Self::Session(session) => session.rights == Rights::Read,
        }
    }

    /// Checks whether this allows a request.
    ///
    /// # Errors
    /// If it only allows to read.
    pub(super) fn permit(&self, method: &Method, path: &str) -> Result<(), Problem> {
        // Whoever only reads may still log out.
        if !self.only_reads() || [Method::GET, Method::HEAD].contains(method) || path == SESSION {
            return Ok(());
        }
        let who = match self {
            Self::Session(_) => "this session".to_owned(),
            _ => format!("the token of {READ_FILE}"),
        };
        Err(Problem::new(Reason::Scope, format_args!("{who} only reads; this needs the token of {ADMIN_FILE}")))
    }

    /// Returns how long this lasts, if it ends.
    pub(super) fn life(&self) -> Option<Duration> {
        match self {
            Self::Admin | Self::Reader => None,
            Self::Session(session) => Some(session.end.saturating_duration_since(Instant::now())),
        }
    }

    /// Waits until the session ends before its time.
    pub(super) async fn ended(&self) {
        match self {
            Self::Session(session) => session.ended.cancelled().await,
            Self::Admin | Self::Reader => std::future::pending().await,
        }
    }
}

/// Names it in the log.
impl fmt::Display for Visitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admin => f.write_str("admin token"),
            Self::Reader => f.write_str("read token"),
            Self::Session(session) => write!(f, "session {}", session.number),
        }
    }
}

/// The sender of a request that needs a token: the guard has put it there.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) visitor: Visitor,
    pub(super) peer: HttpPeer,
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| Problem::new(Reason::Internal, "the request has passed no guard"))
    }
}

impl Shared {
    /// Finds the visitor with the token in this `Authorization` header.
    ///
    /// # Errors
    /// If nobody has this token, or the gateway has none.
    pub(super) fn visitor(&self, header: &[u8]) -> Result<Visitor, Problem> {
        let AdminTokens { all, read } = self.tokens()?;
        match (all.is_in(header), read.is_in(header)) {
            (true, _) => Ok(Visitor::Admin),
            (_, true) => Ok(Visitor::Reader),
            _ => {
                let session = bearer(header).and_then(|token| self.sessions.find(token));
                session.map(Visitor::Session).ok_or_else(Problem::wrong_token)
            }
        }
    }
}
